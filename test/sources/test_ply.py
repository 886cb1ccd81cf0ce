"""PLY files of other programs."""

import numpy as np
import pytest

from d2_ros.errors import D2RosError
from d2_ros.sources.ply import read_points

POINTS = np.array([[1, 2, 3], [4.5, -5, 6]])


def head(form, *properties, count=2, end="\n"):
    lines = ["ply", f"format {form} 1.0", "comment made by a test", f"element vertex {count}"]
    lines += [f"property {kind} {name}" for kind, name in properties]
    return (end.join([*lines, "element face 0", "property list uchar int i", "end_header"])
            + end).encode()  # fmt: skip


@pytest.mark.parametrize("order", ["little", "big"])
def test_binary(tmp_path, order):
    mark = {"little": "<", "big": ">"}[order]
    layout = np.dtype([("id", "u4"), ("z", "f8"), ("x", "f4"), ("y", "f4"), ("red", "u1")])
    rows = np.zeros(2, layout.newbyteorder(mark))
    rows["x"], rows["y"], rows["z"], rows["red"] = *POINTS.T, 200
    properties = [("uint", "id"), ("double", "z"), ("float", "x"), ("float32", "y"), ("uchar", "r")]
    (tmp_path / "a.ply").write_bytes(head(f"binary_{order}_endian", *properties) + rows.tobytes())
    np.testing.assert_array_equal(read_points(tmp_path / "a.ply"), POINTS)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text(tmp_path, end):
    names = [("float", name) for name in ("x", "y", "z", "quality")]
    rows = end.join(" ".join(map(str, [*point, 0.5])) for point in POINTS)
    (tmp_path / "a.ply").write_bytes(head("ascii", *names, end=end) + rows.encode())
    np.testing.assert_array_equal(read_points(tmp_path / "a.ply"), POINTS)


def test_what_colmap_exports(tmp_path):
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed (extra mapping)")
    model = pycolmap.Reconstruction()
    for point in POINTS:
        model.add_point3D(point, pycolmap.Track())
    model.export_PLY(tmp_path / "a.ply")
    np.testing.assert_array_equal(np.sort(read_points(tmp_path / "a.ply"), 0), np.sort(POINTS, 0))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a text\n",
        head("ascii", ("float", "x"), ("float", "y")) + b"1 2\n3 4\n",
        head("ascii", ("float", "x"), ("float", "y"), ("float", "z")) + b"1 2 3\n",
        head("binary_little_endian", *((("float"), n) for n in "xyz")) + b"\0" * 20,
        head("text", ("float", "x")),
        head("ascii", ("list", "x")),
        b"ply\nformat ascii 1.0\nelement face 1\nend_header\n",
        b"ply\nelement vertex 1\nproperty float x\nend_header\n1\n",
    ],
)
def test_what_is_none_is_told(tmp_path, data):
    (tmp_path / "a.ply").write_bytes(data)
    with pytest.raises(D2RosError, match=r"a\.ply is no PLY file of points"):
        read_points(tmp_path / "a.ply")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(D2RosError, match="cannot be read"):
        read_points(tmp_path / "absent.ply")
