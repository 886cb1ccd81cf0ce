"""Outputs of a replay, or of the node, read back from a bag."""

import numpy as np
import pytest

from d2_ros.camera import Camera
from d2_ros.errors import D2RosError
from d2_ros.records import FEATURES, MATCHES, TRACKS
from d2_ros.sources import messages as build
from d2_ros.sources.outputs import read_outputs
from d2_ros.sources.writer import BagWriter

PREFIX = "/d2_frontend/camera/"


def camera(focal, width=32):
    return Camera(width, 24, [[focal, 0, 15.5], [0, focal, 11.5], [0, 0, 1]], [])


def write(path, infos, stamps, tracks=(), prefix=PREFIX, info="/camera/camera_info"):
    """A bag of features with u = stamp, and calibrations (stamp, focal length)."""
    with BagWriter(path) as bag:
        for stamp, focal in infos:
            bag.write(info, build.camera_info(stamp, "optical", camera(focal), 32, 24))
        for stamp in stamps:
            rows = np.zeros(2, FEATURES)
            rows["u"] = stamp
            bag.write(prefix + "features", build.cloud(stamp, "optical", rows))
        for stamp in stamps[1:]:
            bag.write(prefix + "matches", build.cloud(stamp, "optical", np.zeros(stamp, MATCHES)))
        for stamp in tracks:
            bag.write(prefix + "tracks", build.cloud(stamp, "optical", np.zeros(3, TRACKS)))
    return path


def test_everything_comes_back_by_its_stamp(tmp_path):
    found = read_outputs(write(tmp_path / "a.mcap", [(1, 50), (2, 50), (3, 50)], [1, 2, 3], [2]))
    assert [frame.stamp for frame in found.frames] == [1, 2, 3]
    assert [frame.features["u"].tolist() for frame in found.frames] == [[n, n] for n in (1, 2, 3)]
    assert [len(frame.matches) for frame in found.frames] == [0, 2, 3]
    assert [(stamp, len(rows)) for stamp, rows in found.tracks] == [(2, 3)]
    assert found.frames[0].size == (32, 24)


@pytest.mark.parametrize(
    ("infos", "focals"),
    [
        ([(1, 50), (3, 60)], [50, 50, 60, 60]),  # not with every image
        ([(1, 50)], [50] * 4),  # latched, recorded before the images
        ([(9, 50)], [50] * 4),  # and behind them
        ([(3, 60), (4, 70)], [60, 60, 60, 70]),
    ],
)
def test_the_newest_calibration_counts(tmp_path, infos, focals):
    found = read_outputs(write(tmp_path / "a.mcap", infos, [1, 2, 3, 4]))
    assert [frame.camera.matrix[0, 0] for frame in found.frames] == focals


def test_the_camera_s_own_calibration_is_taken_among_several(tmp_path):
    path = tmp_path / "a.mcap"
    with BagWriter(path) as bag:
        for name, focal in (("left", 50), ("right", 60)):
            topic = f"/{name}/camera_info"
            bag.write(topic, build.camera_info(1, "optical", camera(focal), 32, 24))
        rows = build.cloud(1, "optical", np.zeros(1, FEATURES))
        bag.write("/d2_frontend/right/features", rows)
    assert read_outputs(path).frames[0].camera.matrix[0, 0] == 60


def test_outputs_of_two_cameras_are_told(tmp_path):
    path = tmp_path / "a.mcap"
    with BagWriter(path) as bag:
        for name in ("left", "right"):
            rows = build.cloud(1, "optical", np.zeros(1, FEATURES))
            bag.write(f"/d2_frontend/{name}/features", rows)
    with pytest.raises(D2RosError, match="has the outputs of 2 cameras"):
        read_outputs(path)


def test_a_calibration_without_a_size_is_told(tmp_path):
    path = tmp_path / "a.mcap"
    message = build.camera_info(1, "optical", camera(50), 32, 24)
    message.width = message.height = 0
    with BagWriter(path) as bag:
        bag.write("/camera/camera_info", message)
        bag.write(PREFIX + "features", build.cloud(1, "optical", np.zeros(1, FEATURES)))
    with pytest.raises(D2RosError, match="says no image size"):
        read_outputs(path)
