import json

import cv2
import numpy as np
import pytest

from d2_ros.sources import open_source


def kitti(folder, frames=4, dtype=np.uint8):
    """A small KITTI folder; returns its images."""
    (folder / "image_0").mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (frames, 24, 32), dtype)
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / "image_0" / f"{number:06}.png"), image)
    (folder / "calib.txt").write_text("P0: 50 0 15.5 0 0 51 11.5 0 0 0 1 0\n")
    (folder / "times.txt").write_text("".join(f"{0.1 * n:.6e}\n" for n in range(frames)))
    turn = cv2.Rodrigues(np.array([0.1, 0.2, 0.3]))[0]
    rows = [np.column_stack([turn, [number, 2, 3]]).ravel() for number in range(frames)]
    np.savetxt(folder / "poses.txt", rows)
    return images


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_calibration_and_poses_survive(tmp_path, d2_ros, dtype):
    images = kitti(tmp_path / "kitti", dtype=dtype)
    out, figures = tmp_path / "new" / "a.mcap", tmp_path / "a.json"
    outcome = d2_ros("convert", tmp_path / "kitti", out, "--json", figures)
    assert outcome.code == 0, outcome.err
    told = json.loads(figures.read_text())
    assert (told["frames"], told["poses"]) == (4, 4)
    before, after = open_source(tmp_path / "kitti"), open_source(out)
    assert after.image_topic == "/camera/image_raw"
    for image, old, new in zip(images, before, after, strict=True):
        np.testing.assert_array_equal(new.image, image)
        assert new.image.dtype == dtype
        assert new.stamp == old.stamp
        np.testing.assert_array_equal(new.camera.matrix, old.camera.matrix)
    np.testing.assert_allclose(after.poses(), before.poses(), atol=1e-12)


def test_twice_gives_the_same_file(tmp_path, d2_ros):
    kitti(tmp_path / "kitti")
    for name in ("a.mcap", "b.mcap"):
        assert d2_ros("convert", tmp_path / "kitti", tmp_path / name).code == 0
    assert (tmp_path / "a.mcap").read_bytes() == (tmp_path / "b.mcap").read_bytes()


def test_uncalibrated_colour_without_ground_truth(tmp_path, d2_ros):
    (tmp_path / "folder").mkdir()
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "folder" / "1.png"), image)
    assert d2_ros("convert", tmp_path / "folder", tmp_path / "a.mcap").code == 0
    source = open_source(tmp_path / "a.mcap")
    (frame,) = source
    np.testing.assert_array_equal(frame.image, image)
    assert frame.camera is None
    assert source.poses() is None


def test_truncated_bag_keeps_its_frames_and_exits_with_2(tmp_path, d2_ros):
    (tmp_path / "folder").mkdir()
    for number in range(4):
        image = np.random.default_rng(number).integers(0, 256, (800, 900), np.uint8)
        cv2.imwrite(str(tmp_path / "folder" / f"{number}.png"), image)
    assert d2_ros("convert", tmp_path / "folder", tmp_path / "a.mcap").code == 0
    content = (tmp_path / "a.mcap").read_bytes()
    (tmp_path / "a.mcap").write_bytes(content[: int(0.8 * len(content))])
    outcome = d2_ros("convert", tmp_path / "a.mcap", tmp_path / "b.mcap")
    assert outcome.code == 2
    assert "a.mcap is cut short or damaged" in outcome.err
    assert len(list(open_source(tmp_path / "b.mcap"))) == 2


def test_source_is_not_overwritten(tmp_path, d2_ros):
    kitti(tmp_path / "kitti")
    assert d2_ros("convert", tmp_path / "kitti", tmp_path / "a.mcap").code == 0
    content = (tmp_path / "a.mcap").read_bytes()
    outcome = d2_ros("convert", tmp_path / "a.mcap", tmp_path / "a.mcap")
    assert outcome.code == 2
    assert "is the input itself" in outcome.err
    assert (tmp_path / "a.mcap").read_bytes() == content


def test_unwritable_places_exit_with_2_and_one_sentence(tmp_path, d2_ros):
    kitti(tmp_path / "kitti")
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "a.mcap", "/proc/a.mcap", tmp_path / "a.bag"):
        outcome = d2_ros("convert", tmp_path / "kitti", out)
        assert outcome.code == 2
        assert outcome.err.splitlines()[-1].startswith("d2-ros: ")
        assert "Traceback" not in outcome.err
