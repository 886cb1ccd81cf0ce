"""The steps of an alignment in machine code (Numba): gray images on a CPU.

The same as :mod:`~d2_ros.matching.batched`, which is the reference, but patch by patch: what a
patch needs stays in the processor's cache from its first step to its last, where torch carries
every intermediate result of the whole batch through memory. One file, although a long one, and the
constants of others handed over as arguments: Numba keeps compiled code on disk by the file that it
is written in and would miss a change in another.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numba import float32, float64, int64, prange, types
from numba.core import config
from numpy.typing import NDArray

from d2_ros.machine_code import machine_code
from d2_ros.matching.batched import CONVERGED, MAX_STEP, MIN_WEIGHT, MIN_WIDTH, ROBUST
from d2_ros.matching.patches import DAMPING, MIN_SPREAD, Disc, Patches
from d2_ros.matching.pyramid import Level

_Floats = NDArray[np.float32]
_Doubles = NDArray[np.float64]
_Float = Any  # a NumPy scalar, of whose arithmetic mypy knows little
_Warp = tuple[_Float, _Float, _Float, _Float, _Float, _Float]


class _Limits(NamedTuple):
    """The constants of the modules that say what is computed here."""

    converged: float = CONVERGED
    max_step: float = MAX_STEP
    damping: float = DAMPING
    robust: float = ROBUST
    min_width: float = MIN_WIDTH
    min_weight: float = MIN_WEIGHT
    min_spread: float = MIN_SPREAD


_LANES = 16
"""Scratch rows are this many pixels long, or a multiple: what is left over when a vector is full
would be done pixel by pixel, at the price of a vector each."""

# Scratch of every thread; the first eight rows are the Jacobian: shift, affine part, gain, bias.
_VALUES, _ONES, _WEIGHTED, _OFFSETS, _WEIGHT, _DIFFERENCE, _ROBUST = 6, 7, 8, 16, 18, 19, 20
_ROWS = 21

# Torch's own threads, where Numba finds them: threads of another library would have to wait until
# torch's, idle but awake after each of its operations, give a core back. Numba's simplest kind of
# threads must not be used by two callers at once, hence the lock.
config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # type: ignore[attr-defined]
_one_caller = threading.Lock()


def track(
    patches: Patches,
    image: Level,
    pixels: torch.Tensor,
    affine: torch.Tensor,
    shape: Disc,
    iterations: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`d2_ros.matching.batched.track`; every patch stops by itself."""
    place, shear = torch.empty_like(pixels[0]), torch.empty_like(affine[0])
    warps = _arrays(pixels, affine, place, shear)
    _call(_tracks, *_given(patches, image, shape), *warps, iterations)
    return place, shear


def finish(
    patches: Patches, image: Level, pixels: torch.Tensor, affine: torch.Tensor, shape: Disc
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See :func:`d2_ros.matching.batched.finish`."""
    place, shear, score = pixels.clone(), affine.clone(), torch.empty((len(patches), 3))
    _call(_finishes, *_given(patches, image, shape), *_arrays(place, shear, score))
    return place, shear, score


def cut(image: Level, centres: torch.Tensor, shape: Disc) -> Patches:
    """See :func:`d2_ros.matching.batched.cut`."""
    count, pixels = len(centres), len(shape.offsets)
    values, weight = torch.empty((count, pixels)), torch.empty((count, pixels))
    gradient, spread = torch.empty((count, 2, pixels)), torch.empty(count)
    side = 2 * shape.radius + 3
    # Of a place in the square that is one pixel wider to each side.
    cells = shape.cells + 2 * (shape.cells // (2 * shape.radius + 1)) + side + 1
    parts = _parts()
    with _one_caller:
        numba.set_num_threads(parts)
        _cuts(
            np.empty((parts, side * side), np.float32), MIN_SPREAD, np.array(image.size),
            *_arrays(image.texels[0, 0], _to_texels(image), centres, shape.offsets),
            cells.numpy(), *_arrays(shape.window, values, gradient, weight, spread),
        )  # fmt: skip
    return Patches(values, gradient, weight, spread)


def _to_texels(image: Level) -> torch.Tensor:
    """What turns pixels into texels: factors, then offsets, ``(2, 2)``."""
    height, width = image.texels.shape[2:]
    half = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    return torch.stack([image.scale * half, (image.shift + 1) * half])


def _given(patches: Patches, image: Level, shape: Disc) -> list[_Floats]:
    """Patches, offsets, texels, and what turns pixels into those."""
    return _arrays(
        patches.values, patches.gradient, patches.weight, shape.offsets.T,
        image.texels[0, 0], _to_texels(image),
    )  # fmt: skip


def _arrays(*tensors: torch.Tensor) -> list[_Floats]:
    return [tensor.contiguous().numpy() for tensor in tensors]


def _parts() -> int:
    """Threads that share the patches: as many as torch uses."""
    return min(torch.get_num_threads(), config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


def _call(kernel: Callable[..., None], *arguments: Any) -> None:
    """Call a kernel, which shares the patches among as many threads as torch uses."""
    parts = _parts()
    offsets = arguments[3]
    row = -(-offsets.shape[1] // _LANES) * _LANES
    rows = np.zeros((parts, _ROWS, row), np.float32)
    rows[:, _OFFSETS : _OFFSETS + 2, : offsets.shape[1]] = offsets
    rows[:, _ONES] = 1
    with _one_caller:
        numba.set_num_threads(parts)
        kernel(rows, np.empty((parts, 4, 8, 8)), _Limits(), *arguments)


@machine_code()
def _place(to_texels: _Floats, pixel: _Floats, affine: _Floats) -> _Warp:
    """Texel of a patch's centre, and what a pixel to the right and one down add to it."""
    fx, fy = to_texels[0, 0], to_texels[0, 1]
    return (
        pixel[0] * fx + to_texels[1, 0], pixel[1] * fy + to_texels[1, 1],
        affine[0, 0] * fx, affine[0, 1] * fx, affine[1, 0] * fy, affine[1, 1] * fy,
    )  # fmt: skip


@machine_code()
def _sample(texels: _Floats, width: int, height: int, x: _Float, y: _Float) -> _Float:
    """Interpolate between four texels (a flat array); beyond the border, or at NaN, on it."""
    x = min(max(np.float32(0), x), np.float32(width - 1))
    y = min(max(np.float32(0), y), np.float32(height - 1))
    column, row = min(np.int32(x), np.int32(width - 2)), min(np.int32(y), np.int32(height - 2))
    along, down = x - np.float32(column), y - np.float32(row)
    first = row * np.int32(width) + column
    second = first + np.int32(width)
    # Unsigned, for otherwise Numba looks for indices that count from the end.
    a, b = texels[np.uint32(first)], texels[np.uint32(first + np.int32(1))]
    c, d = texels[np.uint32(second)], texels[np.uint32(second + np.int32(1))]
    upper, lower = a + along * (b - a), c + along * (d - c)
    return upper + down * (lower - upper)


@machine_code()
def _inside(width: int, height: int, x: _Float, y: _Float) -> _Float:
    return (x >= 0) & (y >= 0) & (x <= np.float32(width - 1)) & (y <= np.float32(height - 1))


@machine_code()
def _agreement(
    rows: _Floats, texels: _Floats, warp: _Warp, limits: _Limits
) -> tuple[_Float, _Float, _Float, _Float, _Float]:
    """How the image at `warp` agrees with a patch, in one pass over its pixels.

    Returns mean and spread of the image's gray values, then mean squared residual, correlation
    and weight, as :func:`d2_ros.matching.batched.finish` has them.
    """
    values, weights, offsets = rows[_VALUES], rows[_WEIGHT], rows[_OFFSETS:]
    x0, y0, xx, xy, yx, yy = warp
    height, width = texels.shape
    flat = texels.reshape(texels.size)
    centre = _sample(flat, width, height, x0, y0)  # taken off the sums, which keeps their digits
    total, first, second = np.float32(0), np.float32(0), np.float32(0)
    own, own_square, product = np.float32(0), np.float32(0), np.float32(0)
    for p in range(len(weights)):
        x = x0 + xx * offsets[0, p] + xy * offsets[1, p]
        y = y0 + yx * offsets[0, p] + yy * offsets[1, p]
        value = _sample(flat, width, height, x, y) - centre
        seen = weights[p] if _inside(width, height, x, y) else np.float32(0)
        total += seen
        first += seen * value
        second += seen * value * value
        own += seen * values[p]
        own_square += seen * values[p] * values[p]
        product += seen * value * values[p]
    whole: _Float = max(total, np.float32(limits.min_weight))
    mean = first / whole
    variance: _Float = max(second / whole - mean * mean, np.float32(0))
    spread: _Float = max(math.sqrt(variance), np.float32(limits.min_spread))
    correlation = (product - mean * own) / (whole * spread)
    energy = variance / (spread * spread) - np.float32(2) * correlation + own_square / whole
    return mean + centre, spread, max(energy, np.float32(0)), correlation, total


@machine_code()
def _residual(rows: _Floats, texels: _Floats, warp: _Warp, limits: _Limits) -> None:
    """Residual of a patch at `warp`, and Cauchy weights times its own."""
    values, weights, offsets = rows[_VALUES], rows[_WEIGHT], rows[_OFFSETS:]
    difference, robust = rows[_DIFFERENCE], rows[_ROBUST]
    mean, spread, energy, _, _ = _agreement(rows, texels, warp, limits)
    scale: _Float = np.float32(1) / max(
        np.float32(limits.robust**2) * energy, np.float32(limits.min_width)
    )
    x0, y0, xx, xy, yx, yy = warp
    height, width = texels.shape
    flat = texels.reshape(texels.size)
    for p in range(len(weights)):
        x = x0 + xx * offsets[0, p] + xy * offsets[1, p]
        y = y0 + yx * offsets[0, p] + yy * offsets[1, p]
        difference[p] = (_sample(flat, width, height, x, y) - mean) / spread - values[p]
        robust[p] = weights[p] if _inside(width, height, x, y) else np.float32(0)
    for p in range(len(weights)):
        robust[p] /= np.float32(1) + scale * difference[p] * difference[p]


@machine_code()
def _multiply(product: _Floats, one: _Floats, other: _Floats) -> None:
    for p in range(len(product)):
        product[p] = one[p] * other[p]


@machine_code()
def _dot(one: _Floats, other: _Floats) -> _Float:
    total = np.float32(0)
    for p in range(len(one)):
        total += one[p] * other[p]
    return total


@machine_code()
def _copy(row: _Floats, source: _Floats) -> None:
    # A slice that is assigned to would compile for seconds, for the sake of its error message.
    for p in range(len(source)):
        row[p] = source[p]


@machine_code()
def _linearise(rows: _Floats, gradient: _Floats, weights: _Floats) -> None:
    """Jacobian of the patch whose values are in the rows, and the same times weights."""
    for axis in range(2):
        _copy(rows[axis], gradient[axis])
        for other in range(2):
            _multiply(rows[2 + 2 * axis + other], rows[axis], rows[_OFFSETS + other])
    for k in range(8):
        _multiply(rows[_WEIGHTED + k], rows[k], weights)


@machine_code()
def _normal_equations(rows: _Floats, square: _Doubles, limits: _Limits) -> None:
    """The Hessian, and the inverse of a slightly damped one (Gauss and Jordan)."""
    hessian, damped, inverse = square[0], square[1], square[2]
    for k in range(8):
        for other in range(k, 8):
            hessian[k, other] = hessian[other, k] = _dot(rows[_WEIGHTED + k], rows[other])
    for k in range(8):
        for other in range(8):
            damped[k, other] = hessian[k, other]
            inverse[k, other] = np.float64(k == other)
        damped[k, k] += limits.damping * hessian[k, k] + 1e-6
    for pivot in range(8):
        factor = 1 / damped[pivot, pivot]
        for column in range(8):
            damped[pivot, column] *= factor
            inverse[pivot, column] *= factor
        for row in range(8):
            if row != pivot:
                factor = damped[row, pivot]
                for column in range(8):
                    damped[row, column] -= factor * damped[pivot, column]
                    inverse[row, column] -= factor * inverse[pivot, column]


@machine_code()
def _right_side(
    rows: _Floats, square: _Doubles, texels: _Floats, warp: _Warp, limits: _Limits
) -> None:
    """Right side of the normal equations at `warp`, in one pass over the pixels.

    It is linear in the gray values but for their mean and spread: sums of all three are taken at
    once. Nothing is stored in the loop, for else the compiler would have to take the texels for
    changed and read them one by one.
    """
    weights, offsets, weighted = rows[_WEIGHT], rows[_OFFSETS:], rows[_WEIGHTED:]
    hessian, right = square[0], square[3, 0]
    x0, y0, xx, xy, yx, yy = warp
    height, width = texels.shape
    flat = texels.reshape(texels.size)
    centre = _sample(flat, width, height, x0, y0)
    total, first, second = np.float32(0), np.float32(0), np.float32(0)
    s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    s4, s5, s6, s7 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for p in range(len(weights)):
        x = x0 + xx * offsets[0, p] + xy * offsets[1, p]
        y = y0 + yx * offsets[0, p] + yy * offsets[1, p]
        value = _sample(flat, width, height, x, y) - centre
        seen = weights[p] if _inside(width, height, x, y) else np.float32(0)
        total += seen
        first += seen * value
        second += seen * value * value
        s0 += weighted[0, p] * value
        s1 += weighted[1, p] * value
        s2 += weighted[2, p] * value
        s3 += weighted[3, p] * value
        s4 += weighted[4, p] * value
        s5 += weighted[5, p] * value
        s6 += weighted[6, p] * value
        s7 += weighted[7, p] * value
    whole: _Float = max(total, np.float32(limits.min_weight))
    mean = first / whole
    spread: _Float = max(
        math.sqrt(max(second / whole - mean * mean, np.float32(0))), np.float32(limits.min_spread)
    )
    right[0], right[1], right[2], right[3] = s0, s1, s2, s3
    right[4], right[5], right[6], right[7] = s4, s5, s6, s7
    for k in range(8):
        # Columns 6 and 7 of the Hessian are the sums with the template's values and with ones.
        right[k] = (right[k] - mean * hessian[k, 7]) / spread - hessian[k, 6]


@machine_code()
def _compose(pixel: _Floats, affine: _Floats, square: _Doubles, limits: _Limits) -> float:
    """Solve for a step and undo it in the warp, in place; returns how far the place moved."""
    inverse, right, step = square[2], square[3, 0], square[3, 1]
    for row in range(6):
        step[row] = 0
        for k in range(8):
            step[row] += inverse[row, k] * right[k]
    a, b, c, d = 1 + step[2], step[3], step[4], 1 + step[5]
    determinant = a * d - b * c
    if abs(determinant) < 1e-6:
        determinant = 1e-6
    for row in range(2):
        left, last = affine[row, 0], affine[row, 1]
        affine[row, 0] = (left * d - last * c) / determinant
        affine[row, 1] = (last * a - left * b) / determinant
    moved = 0.0
    for axis in range(2):
        move = affine[axis, 0] * step[0] + affine[axis, 1] * step[1]
        move = min(max(move, -limits.max_step), limits.max_step)
        pixel[axis] -= move
        moved += move * move
    return math.sqrt(moved)


_TABLE, _CUBE = float32[:, ::1], float32[:, :, ::1]
_GIVEN = (
    _CUBE,
    float64[:, :, :, ::1],
    numba.typeof(_Limits()),
    _TABLE,
    _CUBE,
    _TABLE,
    _TABLE,
    _TABLE,
    _TABLE,
)


@machine_code(
    types.void(*_GIVEN, _CUBE, float32[:, :, :, ::1], _TABLE, _CUBE, int64), parallel=True
)
def _tracks(
    rows: _Floats,
    square: _Doubles,
    limits: _Limits,
    values: _Floats,
    gradient: _Floats,
    weights: _Floats,
    offsets: _Floats,
    texels: _Floats,
    to_texels: _Floats,
    starts: _Floats,
    start_affine: _Floats,
    pixels: _Floats,
    affine: _Floats,
    iterations: int,
) -> None:
    parts, count = len(rows), len(values)
    for part in prange(parts):
        own = rows[part]
        for m in range(count * part // parts, count * (part + 1) // parts):
            _copy(own[_VALUES], values[m])
            _copy(own[_WEIGHT], weights[m])
            best, lowest = 0, np.inf
            for start in range(len(starts) if len(starts) > 1 else 0):
                warp = _place(to_texels, starts[start, m], start_affine[start, m])
                energy = _agreement(own, texels, warp, limits)[2]
                if energy < lowest:
                    best, lowest = start, energy
            for axis in range(2):
                pixels[m, axis] = starts[best, m, axis]
                _copy(affine[m, axis], start_affine[best, m, axis])
            _linearise(own, gradient[m], own[_WEIGHT])
            _normal_equations(own, square[part], limits)
            for _ in range(iterations):
                warp = _place(to_texels, pixels[m], affine[m])
                _right_side(own, square[part], texels, warp, limits)
                if _compose(pixels[m], affine[m], square[part], limits) <= limits.converged:
                    break


@machine_code(types.void(*_GIVEN, _TABLE, _CUBE, _TABLE), parallel=True)
def _finishes(
    rows: _Floats,
    square: _Doubles,
    limits: _Limits,
    values: _Floats,
    gradient: _Floats,
    weights: _Floats,
    offsets: _Floats,
    texels: _Floats,
    to_texels: _Floats,
    pixels: _Floats,
    affine: _Floats,
    score: _Floats,
) -> None:
    parts, count = len(rows), len(values)
    for part in prange(parts):
        own, right = rows[part], square[part, 3, 0]
        for m in range(count * part // parts, count * (part + 1) // parts):
            _copy(own[_VALUES], values[m])
            _copy(own[_WEIGHT], weights[m])
            _residual(own, texels, _place(to_texels, pixels[m], affine[m]), limits)
            _linearise(own, gradient[m], own[_ROBUST])
            _normal_equations(own, square[part], limits)
            for k in range(8):
                right[k] = _dot(own[_WEIGHTED + k], own[_DIFFERENCE])
            _compose(pixels[m], affine[m], square[part], limits)
            warp = _place(to_texels, pixels[m], affine[m])
            agreement = _agreement(own, texels, warp, limits)
            score[m, 0], score[m, 1], score[m, 2] = agreement[2], agreement[3], agreement[4]


@machine_code(
    types.void(
        _TABLE, float64, int64[::1], _TABLE, _TABLE, _TABLE, _TABLE, int64[::1],
        float32[::1], _TABLE, _CUBE, _TABLE, float32[::1],
    ),
    parallel=True,
)  # fmt: skip
def _cuts(
    squares: _Floats,
    min_spread: float,
    size: NDArray[np.int64],
    texels: _Floats,
    to_texels: _Floats,
    centres: _Floats,
    offsets: _Floats,
    cells: NDArray[np.int64],
    window: _Floats,
    values: _Floats,
    gradient: _Floats,
    weight: _Floats,
    spread: _Floats,
) -> None:
    parts, count, pixels = len(squares), len(centres), len(cells)
    height, width = texels.shape
    flat = texels.reshape(texels.size)
    side = int(math.sqrt(squares.shape[1]) + 0.5)
    right, down = np.float32(size[0] - 1), np.float32(size[1] - 1)
    for part in prange(parts):
        square = squares[part]
        for m in range(count * part // parts, count * (part + 1) // parts):
            u, v = centres[m, 0], centres[m, 1]
            for row in range(side):
                y = (v + np.float32(row - side // 2)) * to_texels[0, 1] + to_texels[1, 1]
                for column in range(side):
                    x = (u + np.float32(column - side // 2)) * to_texels[0, 0] + to_texels[1, 0]
                    square[row * side + column] = _sample(flat, width, height, x, y)
            total, first = np.float32(0), np.float32(0)
            for p in range(pixels):
                x, y = u + offsets[p, 0], v + offsets[p, 1]
                seen = x >= 0 and y >= 0 and x <= right and y <= down
                weight[m, p] = window[p] if seen else np.float32(0)
                total += weight[m, p]
                first += weight[m, p] * square[cells[p]]
            total = max(total, np.float32(1e-6))
            mean, second = first / total, np.float32(0)
            for p in range(pixels):
                off = square[cells[p]] - mean
                second += weight[m, p] * off * off
            spread[m] = max(np.float32(math.sqrt(second / total)), np.float32(min_spread))
            scale = np.float32(1) / spread[m]
            for p in range(pixels):
                cell = cells[p]
                values[m, p] = (square[cell] - mean) * scale
                across = square[cell + 1] - square[cell - 1]
                along = square[cell + side] - square[cell - side]
                gradient[m, 0, p] = across * np.float32(0.5) * scale
                gradient[m, 1, p] = along * np.float32(0.5) * scale
