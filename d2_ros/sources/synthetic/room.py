"""The room that the synthetic camera flies through, and its flight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2_ros.sources.synthetic.world import Picture, Plane

LENGTH, WIDTH, HEIGHT = 8.0, 6.0, 3.0
"""The room, m: x from 0 to LENGTH, y from -WIDTH/2 to WIDTH/2, z (up) from 0 to HEIGHT."""

_X, _Y, _Z = np.eye(3)


def room() -> tuple[Plane, ...]:
    """Build the world: the six sides of a room, free-standing boards and a crate."""
    return (*_walls(), _floor(), _ceiling(), *_boards(), *_crate(4.0, 0.25, 0.8, 25.0))


def flight(time: float, seed: int) -> NDArray[np.float64]:
    """Pose of the camera: a drone that flies forward and pans, there and back for ever.

    Parameters
    ----------
    time
        Seconds since the start; any value.
    seed
        Draws the phases of the hand-held shake.

    Returns
    -------
    ``(4, 4)`` T_world_camera, optical frame.
    """
    along = (1 - np.cos(2 * np.pi * (time + 0.35) / 10.0)) / 2
    sway = np.sin(2 * np.pi * time / 4.1)
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, (3, 6))
    waves = np.sin(2 * np.pi * time * np.array([0.6, 1.3, 2.1])[:, None] + phases)
    shake = np.array([1.0, 0.5, 0.25]) @ waves
    position = [0.9 + 2.2 * along, -0.9 + 1.1 * along + 0.15 * sway, 1.35 + 0.2 * along]
    yaw, pitch, roll = np.radians([-32 + 72 * along, 4 * sway - 2, 5 * sway * along])
    yaw, pitch, roll = np.array([yaw, pitch, roll]) + np.radians(0.25) * shake[:3]
    T_world_camera = np.eye(4)
    T_world_camera[:3, :3] = _turn(2, yaw) @ _turn(1, -pitch) @ _turn(0, roll) @ _OPTICAL
    T_world_camera[:3, 3] = position + 0.006 * shake[3:]
    return T_world_camera


_OPTICAL = np.column_stack([-_Y, -_Z, _X])  # looks along x: image right is -y, image down is -z


def _turn(axis: int, angle: float) -> NDArray[np.float64]:
    """Rotate about one axis of the world, right-handed."""
    cosine, sine = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.eye(3)
    rotation[[i, i, j, j], [i, j, i, j]] = cosine, -sine, sine, cosine
    return rotation


def _walls() -> tuple[Plane, ...]:
    half = WIDTH / 2
    front = (
        Picture("rocket", 0.3, 0.4, 2.2),
        Picture("retina", 2.7, 0.3, 1.5),
        Picture("text", 2.5, 2.0, 1.7),
        Picture("hubble", 4.5, 0.4, 1.3),
    )
    left = (
        Picture("page", 0.8, 0.6, 1.6),
        Picture("coins", 2.8, 0.4, 1.4),
        Picture("chelsea", 4.4, 0.5, 1.6),
        Picture("coffee", 4.6, 1.75, 1.5),
        Picture("ihc", 6.4, 0.5, 1.3),
    )
    right = (
        Picture("coins", 0.3, 0.4, 1.7),
        Picture("text", 2.3, 0.4, 1.6),
        Picture("grass", 2.2, 1.3, 1.4),
        Picture("chelsea", 4.2, 0.6, 1.7),
        Picture("rocket", 6.2, 0.6, 1.6),
    )
    back = (Picture("astronaut", 1.0, 0.4, 2.0), Picture("motorcycle", 3.6, 0.6, 1.8))
    layout = (
        ((LENGTH, half), -_Y, WIDTH, (0.75, 0.85, 1.0), front),
        ((0.0, half), _X, LENGTH, (0.88, 1.0, 0.97), left),
        ((LENGTH, -half), -_X, LENGTH, (1.0, 0.95, 0.88), right),
        ((0.0, -half), _Y, WIDTH, (0.9, 0.9, 0.9), back),
    )
    return tuple(
        Plane(np.array([*corner, HEIGHT]), along, -_Z, (width, HEIGHT), "brick", 2.0, tint, hung)
        for corner, along, width, tint, hung in layout
    )


def _floor() -> Plane:
    rugs = (
        Picture("grass", 0.0, 0.0, 1.8),
        Picture("camera", 2.3, 2.2, 1.4, turns=2),
        Picture("grass", 4.4, 1.6, 1.6, turns=1),
        Picture("brick", 3.6, 4.2, 1.7, turns=1),
        Picture("grass", 0.8, 4.0, 1.6, turns=2),
    )
    corner = np.array([LENGTH, WIDTH / 2, 0.0])
    return Plane(corner, -_Y, -_X, (WIDTH, LENGTH), "gravel", 1.6, (0.8, 0.9, 1.0), rugs)


def _ceiling() -> Plane:
    panels = (
        Picture("brick", 0.6, 3.2, 1.8, turns=1),
        Picture("gravel", 3.2, 4.6, 1.6),
        Picture("brick", 4.0, 1.8, 1.8),
        Picture("hubble", 0.8, 5.8, 1.6, turns=3),
    )
    corner = np.array([0.0, WIDTH / 2, HEIGHT])
    return Plane(corner, -_Y, _X, (WIDTH, LENGTH), "grass", 1.8, (1.1, 1.05, 1.0), panels)


def _boards() -> tuple[Plane, ...]:
    return (
        _upright("astronaut", (4.6, 1.3, 1.35), (1.0, 1.0), -150.0),
        _upright("motorcycle", (5.2, -0.9, 1.25), (1.5, 1.0), 165.0),
        _upright("coffee", (3.6, -2.0, 1.5), (1.2, 0.8), 140.0),
        _upright("camera", (3.4, 2.3, 1.6), (0.9, 0.9), -120.0),
        _upright("page", (6.4, 0.4, 2.1), (1.6, 0.75), 180.0),
    )


def _crate(x: float, y: float, edge: float, facing_deg: float) -> tuple[Plane, ...]:
    """Stand a cube on the floor: four sides and a lid."""
    sides = []
    for photo, turn in zip(("chelsea", "brick", "ihc", "page"), range(0, 360, 90), strict=True):
        normal = _turn(2, np.radians(facing_deg + turn)) @ _X
        centre = np.array([x, y, edge / 2]) + normal * edge / 2
        sides.append(_upright(photo, centre, (edge, edge), facing_deg + turn))
    right = _turn(2, np.radians(facing_deg)) @ -_Y
    down = _turn(2, np.radians(facing_deg)) @ -_X
    corner = np.array([x, y, edge]) - (right + down) * edge / 2
    return (*sides, Plane(corner, right, down, (edge, edge), "coins", edge))


def _upright(
    photo: str,
    centre: tuple[float, float, float] | NDArray[np.float64],
    size: tuple[float, float],
    facing_deg: float,
) -> Plane:
    """Stand a photograph upright so that it faces a direction (from x towards y)."""
    right = _turn(2, np.radians(facing_deg)) @ _Y
    origin = np.asarray(centre) - right * size[0] / 2 + _Z * size[1] / 2
    return Plane(origin, right, -_Z, size, photo, size[0])
