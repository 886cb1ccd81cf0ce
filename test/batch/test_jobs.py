"""Names, verbs, tables and locks, without running anything long."""

import fcntl
import json
import os
from dataclasses import replace

import pytest

from d2_ros.batch import jobs as module
from d2_ros.batch.jobs import Ended, Job, ended, names_of, run, verb_of
from d2_ros.batch.summary import flat, rows_of, tables_of
from d2_ros.errors import D2RosError


def job(folder, source="/data/run", words=("replay", "-p", "threads:=1"), name="run"):
    return Job(name, source, folder, words, str(folder.parent))


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["/data/a.mcap", "/data/b"], ["a", "b"]),
        (["/x/mav0", "/y/mav0", "/z"], ["x_mav0", "y_mav0", "z"]),
        (["/1/x/mav0", "/2/x/mav0"], ["1_x_mav0", "2_x_mav0"]),
        (["/a b", "/a_b"], ["a_b", "a_b-2"]),
        (["synthetic:size=160x120,frames=4"], ["synthetic_size=160x120_frames=4"]),
        (["/data/run.mcap", "/data/run"], ["data_run", "data_run-2"]),
    ],
)
def test_names_are_as_short_as_they_can_be_and_no_two_alike(sources, names):
    assert names_of(sources) == names


def test_one_recording_given_twice_is_refused(tmp_path):
    with pytest.raises(D2RosError, match="is given 2 times"):
        names_of([str(tmp_path), f"{tmp_path}/."])


def test_the_arguments_of_a_job_are_those_of_the_verb_by_hand(tmp_path):
    assert job(tmp_path).arguments == [
        "replay", "/data/run", "--out", f"{tmp_path}/features.mcap",
        "--json", f"{tmp_path}/figures.json", "-p", "threads:=1",
    ]  # fmt: skip
    judged = job(tmp_path, words=("evaluate", "sequence", "--gap", "3")).arguments
    assert judged[:5] == ["evaluate", "sequence", "/data/run", "--out", str(tmp_path)]
    assert judged[-2:] == ["--gap", "3"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "cannot run 'nothing'; give one of replay, evaluate sequence"),
        (["evaluate", "stereo"], "cannot run 'evaluate stereo'"),
        (["demo"], "cannot run 'demo'"),
        (["replay", "--out", "x.mcap"], "chooses --out itself"),
        (["replay", "--json=x"], "chooses --json=x itself"),
    ],
)
def test_verbs_that_many_recordings_cannot_have_are_refused(words, told):
    with pytest.raises(D2RosError, match=told):
        verb_of(words)


def test_a_finished_job_is_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_in_a_process", lambda *_: 0)
    first = run(job(tmp_path))
    assert first.code == 0
    monkeypatch.setattr(module, "_in_a_process", lambda *_: pytest.fail("run again"))
    assert run(job(tmp_path)) == first == ended(job(tmp_path))


def test_a_failed_job_is(tmp_path, monkeypatch):
    codes = iter([3, -9, 0])

    def process(one, _):
        (one.folder / "log.txt").write_text("working\nd2-ros: no such thing\n\n")
        return next(codes)

    monkeypatch.setattr(module, "_in_a_process", process)
    ends = [run(job(tmp_path)) for _ in range(3)]
    assert [end.code for end in ends] == [3, -9, 0]
    assert [end.reason for end in ends] == ["no such thing", "ended by signal 9", ""]


def test_a_damaged_state_counts_as_none(tmp_path):
    for text in ("", "{", "[]", '{"code": 0}'):
        (tmp_path / "batch.json").write_text(text)
        assert ended(job(tmp_path)) is None


def test_what_another_process_works_on_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOCK_WAIT_S", 0.3)
    monkeypatch.setattr(module, "_in_a_process", lambda *_: pytest.fail("run beside it"))
    with (tmp_path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        end = run(job(tmp_path))
    assert end.code != 0
    assert "another process is at work on it" in end.reason
    assert not (tmp_path / "batch.json").exists()


def test_the_process_of_a_job_finds_this_package_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(module, "_RUN", "import d2_ros, os; print(os.environ['OMP_NUM_THREADS'])")
    end = run(replace(job(tmp_path / "run"), threads=3, cwd="/"))
    assert (end.code, end.reason) == (0, "")
    assert (tmp_path / "run" / "log.txt").read_text() == "3\n"


def test_figures_are_summed_up_by_method(tmp_path):
    first, second = (job(tmp_path / name, name=name) for name in ("a", "b"))
    for one, figures in (
        (first, {"source": "a", "frames": 5, "d2.points": 7, "d2.error_px": 0.25, "net.p50_ms": 3}),
        (second, {"source": "b", "frames": 6, "seconds": 99}),
    ):
        one.folder.mkdir()
        (one.folder / "figures.json").write_text(json.dumps(figures))
    rows = rows_of([(first, Ended([], 0, 1.5)), (second, Ended([], 2, 2.5, "no room"))])
    assert rows["b"] == {"status": "failed: no room", "seconds": 2.5, "source": "b", "frames": 6}
    tables = {name: [key for key, _, _ in columns] for name, columns in tables_of(rows).items()}
    assert tables == {
        "Recordings": ["status", "seconds", "frames", "net.p50_ms"],
        "d2": ["d2.points", "d2.error_px"],
    }
    summary = flat(rows)
    assert (summary["recordings"], summary["done"], summary["failed"]) == (2, 1, 1)
    assert summary["a.d2.error_px"] == 0.25
    assert summary["a.status"] == "done"
    assert os.path.isdir(first.folder)
