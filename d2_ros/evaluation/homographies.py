"""Matching accuracy on images of planes, or from one place, with known homographies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2_ros.errors import D2RosError
from d2_ros.evaluation.match_sets import MATCH_SETS, MatchSets, prefixed
from d2_ros.evaluation.peers import Points
from d2_ros.evaluation.raw import Images
from d2_ros.evaluation.tracking import Figures
from d2_ros.sources.images import read_image

THRESHOLDS_PX = (1, 2, 3, 5, 10)
_IMAGES = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class HomographyPair:
    """Two images and the map between them: ``x_second ~ H x_first``, px.

    Attributes
    ----------
    name
        Scene and number of the second image.
    first, second
        Image files.
    homography
        ``(3, 3)`` float64, as the file has it: of either sign.
    """

    name: str
    first: Path
    second: Path
    homography: NDArray[np.float64]


def find_pairs(folder: Path) -> list[HomographyPair]:
    """List the pairs (1, k) of a scene, or of a folder of scenes, with files ``H_1_k``.

    Raises
    ------
    D2RosError
        If there are none, or an image or a homography is missing or malformed.
    """
    scenes = [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]
    pairs = [pair for scene in scenes for pair in _scene(scene)]
    if not pairs:
        raise D2RosError(
            f"{folder} holds no scenes; a scene is a folder of images 1.* to N.* and files H_1_k"
        )
    return pairs


def _scene(folder: Path) -> Iterator[HomographyPair]:
    named = [(re.fullmatch(r"H_1_(\d+)", path.name), path) for path in folder.glob("H_1_*")]
    for number, path in sorted((int(found[1]), path) for found, path in named if found):
        try:
            homography = np.loadtxt(path, dtype=np.float64)
        except (OSError, ValueError) as error:
            raise D2RosError(f"homography {path} cannot be read: {error}") from None
        if homography.shape != (3, 3) or not np.isfinite(homography).all():
            raise D2RosError(f"homography {path} is not three rows of three finite numbers")
        if np.linalg.matrix_rank(homography) < 3:
            raise D2RosError(f"homography {path} is singular; it maps no image to another")
        yield HomographyPair(
            f"{folder.name} 1-{number}", _image(folder, 1), _image(folder, number), homography
        )


def _image(folder: Path, number: int) -> Path:
    found = [path for path in sorted(folder.glob(f"{number}.*")) if path.suffix.lower() in _IMAGES]
    if not found:
        raise D2RosError(f"scene {folder} has no image {number}.*")
    return found[0]


def load_pair(pair: HomographyPair) -> tuple[Images, NDArray[np.float64]]:
    """Read the images of a pair, and its homography with the sign that :func:`oriented` gives it.

    Raises
    ------
    D2RosError
        If an image or the homography cannot be used.
    """
    images = (read_image(pair.first), read_image(pair.second))
    try:
        return images, oriented(pair.homography, images[0].shape)
    except D2RosError as error:
        raise D2RosError(f"homography of {pair.name}: {error}") from None


def oriented(homography: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The homography of the sign that leaves the centre of the first image in front.

    A homography is one up to a factor, and many files hold one of negative sign. With this one a
    point whose third coordinate is not positive lies beyond the horizon.

    Parameters
    ----------
    homography
        ``(3, 3)``.
    shape
        (height, width, ...) of the first image.

    Raises
    ------
    D2RosError
        If it maps the centre to infinity.
    """
    height, width = shape[:2]
    depth = float(homography[2] @ [(width - 1) / 2, (height - 1) / 2, 1.0])
    if abs(depth) <= 1e-12 * np.abs(homography[2]).sum():
        raise D2RosError("it maps the centre of the first image to infinity; it maps no image")
    return homography * np.sign(depth)


def homography_errors(points: Points, homography: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each second place from the mapped first one, ``(M,)`` px.

    Parameters
    ----------
    points
        Matches.
    homography
        :func:`oriented`; what it maps beyond the horizon is infinitely wrong.
    """
    first, second = points
    there = np.column_stack([first, np.ones(len(first))]) @ homography.T
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.linalg.norm(there[:, :2] / there[:, 2:] - second, axis=1)
    return np.where(there[:, 2] > 0, errors, np.inf)


def judge_homography(
    found: MatchSets, homography: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Errors of a method's matches in every match set, px."""
    return {name: homography_errors(points, homography) for name, points in vars(found).items()}


def homography_figures(results: Sequence[Mapping[str, NDArray[np.float64]]]) -> Figures:
    """Sum up the pairs of one method.

    Parameters
    ----------
    results
        Of each pair, its errors in every match set.

    Returns
    -------
    pairs
        Their number.
    mma_Tpx, matches, correct_1px, correct_3px
        Of the raw matches: share with an error of at most T px (mean over pairs, a pair without
        matches counts as 0), mean number, mean numbers of right ones.
    verified_*, published_*, guided_*
        The same of the other match sets.
    """
    of = {
        match_set: _figures([result[match_set] for result in results]) for match_set in MATCH_SETS
    }
    figures: Figures = {"pairs": len(results), **of.pop("raw")}
    for match_set, named in of.items():
        figures |= prefixed(match_set, named)
    return figures


def _figures(errors: Sequence[NDArray[np.float64]]) -> Figures:
    shares = np.mean([accuracy(error, THRESHOLDS_PX) for error in errors], axis=0)
    figures: Figures = {
        f"mma_{limit}px": float(share) for limit, share in zip(THRESHOLDS_PX, shares, strict=True)
    }
    figures["matches"] = float(np.mean([len(error) for error in errors]))
    for limit in (1, 3):
        figures[f"correct_{limit}px"] = float(np.mean([(e <= limit).sum() for e in errors]))
    return figures


def accuracy(errors: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.float64]:
    """Share of errors at or below each threshold; 0 where there are none."""
    within = errors[:, None] <= np.asarray(thresholds, np.float64)
    return np.asarray(within.sum(axis=0) / max(len(errors), 1))
