"""(c) Pairs of frames linked by the front-end's own tracks."""

import cv2
import numpy as np
import pytest

from d2_ros import records
from d2_ros.camera import Camera
from d2_ros.commands.replay import ResultWriter
from d2_ros.config import Config, FeaturesConfig, OutputConfig
from d2_ros.errors import D2RosError
from d2_ros.sources import Frame, open_source
from d2_ros.sources.messages import camera_info
from d2_ros.sources.synthetic import open_synthetic
from d2_ros.sources.writer import BagWriter
from d2_ros.training.config import DataConfig, TrainingConfig
from d2_ros.training.opening import open_pairs
from d2_ros.training.tracked import Tracked, TrackedFrame, read_tracks

UNKNOWN = np.full((4, 4), np.nan)


def tracked(stamp, tracks, pixels, camera=None, pose=UNKNOWN):
    image = np.full((48, 64), stamp, np.uint8)
    frame = Frame(stamp, image, camera)
    return TrackedFrame(frame, np.array(tracks), np.array(pixels, np.float64), pose)


@pytest.fixture
def recording(tmp_path):
    """Four images and the bag that a replay would write: track 7 + k lies at (10 k + n, 5)."""
    folder, bag = tmp_path / "images", tmp_path / "features.mcap"
    folder.mkdir()
    for number in range(4):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((48, 64), 50 * number, np.uint8))
    with BagWriter(bag) as writer:
        for number, frame in enumerate(open_source(folder)):
            rows = np.zeros(5, records.FEATURES)
            rows["u"], rows["v"] = 10 * np.arange(5) + number, 5
            rows["track_id"] = [7, 8, 9, 0, 0]
            result = records.FrameResult(
                frame.stamp, False, rows, np.zeros(0, records.MATCHES), None,
                np.zeros((5, 512), np.float32),
            )  # fmt: skip
            ResultWriter(writer, OutputConfig()).write(frame, result)
    return folder, bag


def test_a_bag_of_the_front_end_is_joined_with_its_images(recording):
    folder, bag = recording
    config = TrainingConfig(data=DataConfig(max_overlap=1.0, held_back=0.5))
    pairs = open_pairs(f"tracks:{folder}@{bag}", "validation", config)
    assert len(pairs) == 1  # frames 2 and 3
    pair = pairs.draw(0, np.random.default_rng(0))
    assert (pair.first[0, 0, 0], pair.second[0, 0, 0]) == (100, 150)
    np.testing.assert_array_equal(pair.pixels, [[2, 5], [12, 5], [22, 5]])
    np.testing.assert_array_equal(pair.pixels_second, [[3, 5], [13, 5], [23, 5]])


def test_a_bag_of_something_else_is_refused(recording, tmp_path):
    folder, bag = recording
    other = tmp_path / "other.mcap"
    with BagWriter(other) as writer:
        writer.write("/camera/camera_info", camera_info(1, "camera", None, 64, 48))
    with pytest.raises(D2RosError, match="has no topic /d2_frontend/camera/features"):
        open_pairs(f"tracks:{folder}@{other}", "all", TrainingConfig())
    with pytest.raises(D2RosError, match=r"has tracks of no frame of synthetic.*`d2-ros replay"):
        read_tracks("synthetic:size=160x120,frames=2", bag, Config())


def test_tracks_that_contradict_the_true_poses_are_left_out():
    camera = Camera(64, 48, np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]), np.zeros(4))
    moved = np.eye(4)
    moved[0, 3] = 0.5  # along x: true matches stay in their row
    first = tracked(1, [1, 2, 3], [[20, 10], [30, 20], [40, 30]], camera, np.eye(4))
    second = tracked(2, [1, 2, 3], [[10, 10], [20, 21], [30, 36]], camera, moved)
    pair = Tracked([first, second], (0.0, 1.0)).draw(0, np.random.default_rng(0))
    np.testing.assert_array_equal(pair.pixels, [[20, 10], [30, 20]])
    unposed = tracked(2, [1, 2, 3], second.pixels, camera)
    pair = Tracked([first, unposed], (0.0, 1.0)).draw(0, np.random.default_rng(0))
    assert len(pair.pixels) == 3


def test_pairs_share_tracks_within_both_images():
    frames = [
        tracked(1, [1, 2], [[5, 5], [60, 40]]),
        tracked(2, [2, 3], [[80, 40], [6, 6]]),  # track 2 has left the image
        tracked(3, [1, 9], [[5, 6], [7, 7]]),
    ]
    assert Tracked(frames, (0.1, 1.0)).pairs == [(0, 2)]


def test_the_front_end_itself_tracks_what_is_there(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    name = "synthetic:size=160x120,frames=3"
    config = Config(device="cpu", threads=1, features=FeaturesConfig(max_keypoints=150))
    pairs = Tracked(read_tracks(name, None, config), (0.1, 1.0))
    pair = pairs.draw(0, np.random.default_rng(0))
    i, j = pairs.pairs[0]
    there, _ = open_synthetic(name.partition(":")[2]).locate(i, pair.pixels, j)
    errors = np.linalg.norm(there - pair.pixels_second, axis=1)
    assert len(errors) > 20
    assert np.median(errors) < 0.5
