"""PLY files of points, as mappers write them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError

_KINDS = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
    "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_HEAD = re.compile(rb"ply\r?\n(.*?)\nend_header\r?\n", re.DOTALL)


def read_points(path: Path) -> NDArray[np.float64]:
    """Return ``(N, 3)`` x, y, z of a PLY file's vertices.

    Raises
    ------
    D2RosError
        If the file cannot be read, or does not begin with its vertices.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise D2RosError(f"{path} cannot be read: {error.strerror}") from None
    head = _HEAD.match(data)
    try:
        if head is None:
            raise ValueError("it has no header")
        lines = [line.split() for line in head[1].decode("ascii").splitlines()]
        order, count, names = _layout([line for line in lines if line])
        if order:
            layout = np.dtype([(name, order + kind) for name, kind in names])
            rows = np.frombuffer(data, layout, count, head.end())
            return np.column_stack([rows[axis] for axis in "xyz"]).astype(np.float64)
        text = data[head.end() :].split(b"\n")[:count]
        table = np.array([line.split() for line in text], np.float64).reshape(count, len(names))
        return table[:, [[name for name, _ in names].index(axis) for axis in "xyz"]]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise D2RosError(f"{path} is no PLY file of points: {error}") from None


def _layout(lines: list[list[str]]) -> tuple[str, int, list[tuple[str, str]]]:
    """Byte order (empty: text), number of vertices, and their properties."""
    (form,) = (line[1] for line in lines if line[0] == "format")
    order = _ORDERS[form]
    elements = [index for index, line in enumerate(lines) if line[0] == "element"]
    if not elements or lines[elements[0]][1] != "vertex":
        raise ValueError("its first element is not vertex")
    own = lines[elements[0] + 1 : elements[1] if len(elements) > 1 else len(lines)]
    names = [(line[2], _KINDS[line[1]]) for line in own if line[0] == "property"]
    return order, int(lines[elements[0]][2]), names


def ply_bytes(rows: NDArray[np.void]) -> bytes:
    """Return rows of numbers as a binary PLY file."""
    kinds = {"f": "float", "u": "uint"}
    names = rows.dtype.names or ()
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    head += [f"property {kinds[rows.dtype[name].kind]} {name}" for name in names]
    return ("\n".join([*head, "end_header"]) + "\n").encode() + rows.tobytes()
