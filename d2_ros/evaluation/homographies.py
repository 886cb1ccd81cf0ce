"""Matching accuracy on images of planes, or from one place, with known homographies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2_ros.config import MatchingConfig
from d2_ros.errors import D2RosError
from d2_ros.evaluation.pairs import Points
from d2_ros.evaluation.tracking import Figures
from d2_ros.matching.verification import verify

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
        ``(3, 3)`` float64.
    """

    name: str
    first: Path
    second: Path
    homography: NDArray[np.float64]


@dataclass(frozen=True)
class HomographyResult:
    """One method on one pair: errors of all matches, and which the verification keeps.

    Attributes
    ----------
    errors
        ``(M,)`` distance of each second place from the mapped first one, px.
    inlier
        ``(M,)`` bool.
    """

    errors: NDArray[np.float64]
    inlier: NDArray[np.bool_]


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
        yield HomographyPair(
            f"{folder.name} 1-{number}", _image(folder, 1), _image(folder, number), homography
        )


def _image(folder: Path, number: int) -> Path:
    found = [path for path in sorted(folder.glob(f"{number}.*")) if path.suffix.lower() in _IMAGES]
    if not found:
        raise D2RosError(f"scene {folder} has no image {number}.*")
    return found[0]


def judge_homography(
    points: Points, homography: NDArray[np.float64], matching: MatchingConfig
) -> HomographyResult:
    """Measure all matches of a pair, and verify them as the front-end does."""
    first, second = points
    there = np.column_stack([first, np.ones(len(first))]) @ homography.T
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.linalg.norm(there[:, :2] / there[:, 2:] - second, axis=1)
    inlier = verify(second, first, None, None, matching.max_error, matching.seed).inlier
    return HomographyResult(np.where(there[:, 2] > 0, errors, np.inf), inlier)


def homography_figures(results: Sequence[HomographyResult]) -> Figures:
    """Sum up the pairs of one method.

    Returns
    -------
    mma_Tpx
        Share of all mutual matches with an error of at most T px, mean over pairs (a pair
        without matches counts as 0).
    matches, inlier_matches, correct_1px, correct_3px
        Mean numbers per pair.
    inlier_mma_1px, inlier_mma_3px
        The same share of the verified matches.
    """
    shares = [accuracy(result.errors, THRESHOLDS_PX) for result in results]
    verified = [accuracy(result.errors[result.inlier], (1, 3)) for result in results]
    counts = np.array([len(result.errors) for result in results])
    figures: Figures = {
        f"mma_{limit}px": float(share)
        for limit, share in zip(THRESHOLDS_PX, np.mean(shares, axis=0), strict=True)
    }
    return {
        **figures,
        "pairs": len(results),
        "matches": float(counts.mean()),
        "inlier_matches": float(np.mean([result.inlier.sum() for result in results])),
        "correct_1px": float(np.mean(counts * np.array(shares)[:, 0])),
        "correct_3px": float(np.mean(counts * np.array(shares)[:, 2])),
        "inlier_mma_1px": float(np.mean(verified, axis=0)[0]),
        "inlier_mma_3px": float(np.mean(verified, axis=0)[1]),
    }


def accuracy(errors: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.float64]:
    """Share of errors at or below each threshold; 0 where there are none."""
    within = errors[:, None] <= np.asarray(thresholds, np.float64)
    return np.asarray(within.sum(axis=0) / max(len(errors), 1))
