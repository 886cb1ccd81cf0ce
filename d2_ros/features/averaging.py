"""The mean of several weights of one network, which keeps what each alone may lose.

Of trainings that began at one place it is as good as the best of them or better (Wortsman et al.,
"Model soups", ICML 2022); of a training and its beginning it keeps more of what the beginning could
do elsewhere ("Robust fine-tuning of zero-shot models", CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from d2_ros.errors import D2RosError
from d2_ros.features.backbones import recognise
from d2_ros.features.projection import projection_of


def average(states: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted mean of weights.

    Parameters
    ----------
    states
        As :func:`~d2_ros.features.weights.load_weights` returns them.
    shares
        One for each, not negative; of their sum.

    Raises
    ------
    D2RosError
        If the shares are no such numbers, the weights are of different networks, or some carry a
        projection: the values of two projections have nothing in common.
    """
    total = sum(shares)
    if len(shares) != len(states) or min(shares, default=0) < 0 or not 0 < total < float("inf"):
        raise D2RosError(
            f"{len(states)} weights cannot be averaged with the shares "
            f"{', '.join(f'{share:g}' for share in shares)}; give one for each, none below zero"
        )
    if any(projection_of(state) for state in states):
        raise D2RosError(
            "weights that carry a projection cannot be averaged; average those without it, then "
            "`d2-ros weights project` the mean"
        )
    kinds = sorted({recognise(state) for state in states})
    if len(kinds) > 1:
        raise D2RosError(f"weights of different networks ({', '.join(kinds)}) have no mean")
    return {
        key: sum(  # in double precision, so that the order does not matter
            (
                state[key].double() * (share / total)
                for state, share in zip(states, shares, strict=True)
            ),
            start=first.double() * 0,
        ).float()
        for key, first in states[0].items()
    }
