"""The match graph: which keypoint belongs to which track, and the edges between them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Edges:
    """Aligned matches: each says where a keypoint of one frame lies in another.

    ``x_to = pixels + affine @ (x_from - centre)``, all in px.

    Attributes
    ----------
    track
        ``(E,)`` int64 track id.
    stamp_from, stamp_to
        ``(E,)`` int64 stamps that name the two frames; never equal.
    centre
        ``(E, 2)`` float64 place in the first frame at which the transform was measured.
    pixels, affine
        ``(E, 2)``, ``(E, 2, 2)`` float64 the transform.
    covariance
        ``(E, 2, 2)`` float64 of the measurement, px^2 of the second frame.
    """

    track: NDArray[np.int64]
    stamp_from: NDArray[np.int64]
    stamp_to: NDArray[np.int64]
    centre: NDArray[np.float64]
    pixels: NDArray[np.float64]
    affine: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def __post_init__(self) -> None:
        if np.any(self.stamp_from == self.stamp_to):
            raise ValueError("an edge must join two different frames")

    def __len__(self) -> int:
        return len(self.track)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Edges:
        """The edges of `rows`."""
        return Edges(*(getattr(self, column.name)[rows] for column in fields(self)))


def no_edges() -> Edges:
    """Edges of a frame that has none."""
    none, pair, square = np.empty(0, np.int64), np.empty((0, 2)), np.empty((0, 2, 2))
    return Edges(none, none, none, pair, pair, square, square)


def join(parts: list[Edges]) -> Edges:
    """All edges of `parts`, in order."""
    if not parts:
        return no_edges()
    return Edges(
        *(np.concatenate([getattr(part, c.name) for part in parts]) for c in fields(Edges))
    )


def assign_tracks(
    index: NDArray[np.int64], track: NDArray[np.int64], weight: NDArray[np.float64], count: int
) -> NDArray[np.int64]:
    """Give every keypoint of a frame at most one track, and every track at most one keypoint.

    Matches that say the same (one keypoint, one track, several keyframes) add their weights;
    where claims conflict, the weaker ones are cut.

    Parameters
    ----------
    index, track, weight
        ``(M,)`` keypoint of the frame, track of the matched keyframe keypoint (0 for none)
        and strength of every match.
    count
        Keypoints of the frame.

    Returns
    -------
    ``(count,)`` int64 track ids, 0 for none.
    """
    assigned = np.zeros(count, np.int64)
    known = track > 0
    pairs, inverse = np.unique(
        np.column_stack([index[known], track[known]]), axis=0, return_inverse=True
    )
    strength = np.bincount(inverse.ravel(), weight[known], minlength=len(pairs))
    taken: set[int] = set()
    for row in np.argsort(-strength, kind="stable"):
        keypoint, name = int(pairs[row, 0]), int(pairs[row, 1])
        if assigned[keypoint] == 0 and name not in taken:
            assigned[keypoint] = name
            taken.add(name)
    return assigned
