"""Samples of an IMU from a bag and from EuRoC's table."""

from __future__ import annotations

import numpy as np
import pytest

from d2_ros.errors import D2RosError
from d2_ros.sources.imu import read_imu
from d2_ros.sources.messages import imu
from d2_ros.sources.writer import BagWriter

VALUES = np.arange(18.0).reshape(3, 6)


def test_the_table_of_euroc_is_read_wherever_it_is_pointed_at(tmp_path):
    folder = tmp_path / "mav0" / "imu0"
    folder.mkdir(parents=True)
    rows = [",".join(map(str, [1000 - at, *VALUES[at]])) for at in range(3)]
    (folder / "data.csv").write_text("\n".join(["#timestamp [ns],w_x", *rows]))
    for place in (tmp_path, tmp_path / "mav0", folder, folder / "data.csv"):
        stamps, values = read_imu(place)
        assert stamps.tolist() == [998, 999, 1000]
        np.testing.assert_array_equal(values, VALUES[::-1])


def test_a_bag_is_read(tmp_path):
    with BagWriter(tmp_path / "a.mcap") as bag:
        for topic, shift in (("/imu", 0), ("/other", 100)):
            for at in range(3):
                bag.write(topic, imu(at + 1, "imu", VALUES[at] + shift))
    stamps, values = read_imu(tmp_path / "a.mcap", "/imu")
    assert stamps.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(values, VALUES)
    with pytest.raises(
        D2RosError, match="has 2 topics of sensor_msgs/Imu; choose with --imu-topic"
    ):
        read_imu(tmp_path / "a.mcap")
    with pytest.raises(D2RosError, match="has no /no; choose with --imu-topic: /imu, /other"):
        read_imu(tmp_path / "a.mcap", "/no")


def test_what_is_no_imu_is_refused(tmp_path):
    with pytest.raises(D2RosError, match="is neither a bag nor a table"):
        read_imu(tmp_path / "none")
    (tmp_path / "data.csv").write_text("x,1,2,3,4,5,6\ny,1,2,3,4,5,6")
    with pytest.raises(D2RosError, match="no integer"):
        read_imu(tmp_path)
    (tmp_path / "data.csv").write_text("1,1,2,3,4,5,6\n2,1,2,3,4,5,nan")
    with pytest.raises(D2RosError, match="has 1 samples"):
        read_imu(tmp_path)
