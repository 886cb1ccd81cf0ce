"""Images of several cameras through the network in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from d2_ros.features.extractor import Extractor, Features, ResponseMap
from d2_ros.timing import Stopwatch


@dataclass(frozen=True)
class BatchResult:
    """What a batch gave for one of its images.

    Attributes
    ----------
    extractor
        The network that ran; nothing of it may be mixed with another one's.
    response
        Of the image.
    timings_ms
        Milliseconds of the batch's stages, shared out equally over its images.
    """

    extractor: Extractor
    response: ResponseMap
    timings_ms: Mapping[str, float]


def respond_together(
    extractor: Extractor, images: Sequence[NDArray[Any]], watch: Stopwatch | None = None
) -> list[BatchResult]:
    """Run the network once over all images of one size and type.

    Raises
    ------
    D2RosError
        As :meth:`~d2_ros.features.extractor.Extractor.respond` does.
    """
    watch = watch or Stopwatch()
    responses = extractor.respond(images, watch)
    shared = {stage: spent / len(images) for stage, spent in watch.sections_ms.items()}
    return [BatchResult(extractor, response, shared) for response in responses]


def features_of(
    extractor: Extractor, image: NDArray[Any], batched: BatchResult | None, watch: Stopwatch
) -> Features:
    """Features of `image`, from its batch result if `extractor` made that.

    It did not where, since then, a device has failed and another network gone on.
    """
    if batched is None or batched.extractor is not extractor:
        return extractor.extract([image], watch)[0]
    watch.sections_ms.update(batched.timings_ms)
    return extractor.features(batched.response, watch)
