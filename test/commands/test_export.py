"""The verb: a replay's bag to files that COLMAP reads, and what it refuses."""

import json

import cv2
import numpy as np
import pytest

from d2_ros.errors import D2RosError
from d2_ros.records import FEATURES, MATCHES
from d2_ros.sources import messages as build
from d2_ros.sources import open_source
from d2_ros.sources.outputs import read_outputs
from d2_ros.sources.writer import BagWriter

pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed (extra mapping)")

SEQUENCE = "synthetic:size=160x120,frames=8"
PREFIX = "/d2_frontend/camera/"


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """The outputs of the real front-end."""
    from d2_ros.commands.replay import ResultWriter, Tally, run
    from d2_ros.config import Config, OutputConfig, with_values
    from d2_ros.frontend import FrontEnd

    path = tmp_path_factory.mktemp("bag") / "features.mcap"
    config = with_values(Config(), {"window.min_tracked_share": 1.0, "threads": 1})
    with BagWriter(path) as writer:
        results = ResultWriter(writer, OutputConfig())
        run(open_source(SEQUENCE), FrontEnd(config), results, Tally())
    return path


def figures_of(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("matched", ["tracks", "matches"])
def test_pycolmap_reads_back_what_the_bag_says(tmp_path, d2_ros, bag, matched):
    out, told = tmp_path / "out", tmp_path / "told.json"
    arguments = ["--images", SEQUENCE, "--poses", SEQUENCE, "--from", matched, "--json", told]
    outcome = d2_ros("export", "colmap", bag, out, *arguments)
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in out.iterdir()) == ["database.db", "images", "triangulated"]
    figures, outputs = figures_of(told), read_outputs(bag)
    with pycolmap.Database.open(out / "database.db") as database:
        counts = (database.num_images(), database.num_keypoints(), database.num_matches())
        assert counts == (figures["images"], figures["keypoints"], figures["matches"])
        assert database.num_inlier_matches() == figures["matches"]
        assert database.num_verified_image_pairs() == figures["pairs"]
        assert figures["images"] == len(outputs.frames) == 8
        assert figures["keypoints"] == sum(len(frame.features) for frame in outputs.frames)
        if matched == "matches":
            inliers = sum(int(frame.matches["inlier"].sum()) for frame in outputs.frames)
            assert figures["matches"] == inliers
        names = {image.name for image in database.read_all_images()}
    assert names == {path.name for path in (out / "images").iterdir()}
    for frame in open_source(SEQUENCE):  # losslessly
        image = cv2.imread(str(out / "images" / f"{frame.stamp:019d}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image, frame.image)
    model = pycolmap.Reconstruction(out / "triangulated")
    assert model.num_reg_images() == 8
    assert model.num_points3D() == figures["points"] > 50
    assert model.compute_num_observations() == figures["observations"]
    error = model.compute_mean_reprojection_error()
    assert figures["mean_reprojection_error_px"] == pytest.approx(error)
    # Judged at the true poses, by places that no pose has gone into; as detected it is 1.5 px.
    assert error < 0.5
    assert any(np.any(point.color) for point in model.points3D.values())


def test_places_are_the_latest_that_were_said(tmp_path, d2_ros, bag):
    assert d2_ros("export", "colmap", bag, tmp_path / "out").code == 0
    outputs = read_outputs(bag)
    expected = {frame.stamp: frame.features.copy() for frame in outputs.frames}
    for _, rows in outputs.tracks:
        for row in rows:
            place = expected[int(row["sec"]) * 10**9 + int(row["nanosec"])]
            place["u"][row["index"]], place["v"][row["index"]] = row["u"], row["v"]
    moved = 0
    with pycolmap.Database.open(tmp_path / "out" / "database.db") as database:
        for frame in outputs.frames:
            image = database.read_image_with_name(f"{frame.stamp:019d}.png")
            pixels = database.read_keypoints(image.image_id) - 0.5
            rows = expected[frame.stamp]
            np.testing.assert_allclose(pixels, np.column_stack([rows["u"], rows["v"]]), atol=2e-5)
            moved += np.sum(rows["u"] != frame.features["u"])
    assert moved > 100


def test_poses_of_a_file_are_interpolated(tmp_path, d2_ros, bag):
    from scipy.spatial.transform import Rotation

    source = open_source(SEQUENCE)
    rows = [
        [stamp * 1e-9, *pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat()]
        for stamp, pose in zip(source.stamps, source.poses(), strict=True)
    ]
    np.savetxt(tmp_path / "poses.txt", [rows[index] for index in (0, 1, 2, 4, 5, 6)], "%.9f")
    told = tmp_path / "told.json"
    arguments = ["--poses", tmp_path / "poses.txt", "--json", told]
    assert d2_ros("export", "colmap", bag, tmp_path / "out", *arguments).code == 0
    model = pycolmap.Reconstruction(tmp_path / "out" / "triangulated")
    true = dict(zip(source.stamps, source.poses(), strict=True))
    images = [image for image in model.images.values() if image.has_pose]
    assert len(images) == 7  # the last one comes after the last pose
    for image in images:
        place = true[int(image.name[:-4])][:3, 3]
        np.testing.assert_allclose(image.projection_center(), place, atol=2e-3)


def test_a_second_export_takes_the_place_of_the_first_and_of_nothing_else(tmp_path, d2_ros, bag):
    out = tmp_path / "out"
    (out / "images").mkdir(parents=True)
    (out / "images" / "mine.png").write_bytes(b"a photograph")
    (out / "database.db").write_bytes(b"an old one")
    assert d2_ros("export", "colmap", bag, out, "--images", SEQUENCE).code == 0
    first = (out / "database.db").read_bytes()
    assert d2_ros("export", "colmap", bag, out).code == 0
    assert len((out / "database.db").read_bytes()) == len(first)
    assert (out / "images" / "mine.png").read_bytes() == b"a photograph"
    assert len(list((out / "images").iterdir())) == 9


def test_uncalibrated_frames_are_exported_for_colmap_to_calibrate(tmp_path, d2_ros):
    path = write(tmp_path / "in.mcap", camera=None)
    assert d2_ros("export", "colmap", path, tmp_path / "out").code == 0
    with pycolmap.Database.open(tmp_path / "out" / "database.db") as database:
        (camera,) = database.read_all_cameras()
        ((_, geometry),) = zip(*database.read_two_view_geometries(), strict=True)
    assert camera.model_name == "SIMPLE_RADIAL"
    assert (camera.width, camera.height) == (32, 24)
    assert geometry.config == pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED
    outcome = d2_ros("export", "colmap", path, tmp_path / "out2", "--poses", SEQUENCE)
    assert outcome.code == 2
    assert "0 of 2 images have a calibration and a known pose" in outcome.err
    assert not (tmp_path / "out2").exists() or not list((tmp_path / "out2").iterdir())


def write(path, stamps=(10**9, 2 * 10**9), camera=None, tracks=5, infos=True):
    """A bag of outputs with as many tracks, all seen in all frames."""
    with BagWriter(path) as bag:
        for stamp in stamps:
            if infos:
                bag.write(
                    "/camera/camera_info", build.camera_info(stamp, "optical", camera, 32, 24)
                )
            features = np.zeros(max(tracks, 1), FEATURES)
            features["track_id"][:tracks] = 1 + np.arange(tracks)
            bag.write(PREFIX + "features", build.cloud(stamp, "optical", features))
            bag.write(PREFIX + "matches", build.cloud(stamp, "optical", np.zeros(0, MATCHES)))
    return path


@pytest.mark.parametrize(
    ("bag_options", "options", "words"),
    [
        ({"tracks": 0}, [], "has no tracks between its 2 frames"),
        ({}, ["--from", "matches"], "has no matches between its 2 frames"),
        ({"stamps": (10**9,) * 2}, [], "two messages of /d2_frontend/camera/features"),
        ({"infos": False}, [], "has 0 topics of camera_info"),
        ({}, ["--poses", "absent.txt"], "absent.txt cannot be read"),
        ({}, ["--poses", "BAG"], "has no images"),
        ({}, ["--images", SEQUENCE], "has no image at 1000000000 ns"),
        ({}, ["--json", "BAG"], "is the input itself"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(tmp_path, d2_ros, bag_options, options, words):
    path = write(tmp_path / "in.mcap", **bag_options)
    options = [str(path) if word == "BAG" else word for word in options]
    outcome = d2_ros("export", "colmap", path, tmp_path / "out", *options)
    assert outcome.code == 2
    assert words in outcome.err
    assert outcome.err.count("\n") <= 2  # a progress bar may stand before it
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_the_images_are_not_written_beside_those_that_are_read(tmp_path, d2_ros):
    path, photos = write(tmp_path / "in.mcap"), tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "0.png"), np.zeros((24, 32), np.uint8))
    outcome = d2_ros("export", "colmap", path, photos / "out", "--images", photos)
    assert outcome.code == 2
    assert "lies inside the input" in outcome.err
    assert [file.name for file in photos.iterdir()] == ["0.png"]


def test_what_is_no_bag_of_outputs_is_told(tmp_path, d2_ros):
    outcome = d2_ros("export", "colmap", tmp_path / "absent.mcap", tmp_path / "out")
    assert outcome.code == 2
    assert "does not exist; give the bag that d2-ros replay has written" in outcome.err
    (tmp_path / "text.txt").write_text("no bag")
    outcome = d2_ros("export", "colmap", tmp_path / "text.txt", tmp_path / "out")
    assert outcome.code == 2
    assert "is no bag" in outcome.err
    with BagWriter(tmp_path / "images.mcap") as bag:
        bag.write("/camera/image_raw", build.image(1, "optical", np.zeros((24, 32), np.uint8)))
    with pytest.raises(D2RosError, match=r"has no features; .*topics: /camera/image_raw"):
        read_outputs(tmp_path / "images.mcap")


def test_without_pycolmap_it_says_how_to_get_it(tmp_path, d2_ros, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycolmap", None)
    outcome = d2_ros("export", "colmap", write(tmp_path / "in.mcap"), tmp_path / "out")
    assert outcome.code == 2
    assert "pip install pycolmap" in outcome.err
