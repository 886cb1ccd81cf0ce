"""Places known again, judged by true poses, next to RootSIFT + VLAD and ORB + VLAD."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2_ros.camera import Camera
from d2_ros.config import Config
from d2_ros.evaluation.geometry import pose_errors, relative
from d2_ros.evaluation.peers import Sparse, gray8, mutual_nearest, orb, root_sift
from d2_ros.evaluation.tracking import Figures
from d2_ros.features.extractor import Extractor
from d2_ros.files import write_file
from d2_ros.matching.pose import estimate_pose
from d2_ros.matching.verification import verify
from d2_ros.places.memory import PlaceMemory
from d2_ros.places.place import MOST_KEYPOINTS, Place, place_of_features
from d2_ros.places.recognition import RecognitionSettings, look_up
from d2_ros.places.revisit import by_early_maps
from d2_ros.places.training import make_vocabulary
from d2_ros.places.vlad import Floats, Vocabulary, load_vocabulary, vocabulary_bytes
from d2_ros.sources.base import Frame
from d2_ros.sources.photographs import Photograph
from d2_ros.user_folders import user_folder

METHODS = {
    "d2": "D2-Net, 128 axes in 8 bits, VLAD",
    "root_sift": "RootSIFT, VLAD",
    "orb": "ORB, VLAD",
}

TRUE_ROTATION_DEG, TRUE_DIRECTION_DEG = 5.0, 20.0
"""Errors up to which the pose of an answer from further away counts as the true one."""

_FEWEST = 16  # keypoints of a photograph that is worth learning from

Detector = Callable[[NDArray[np.uint8], int], Sparse]


@dataclass(frozen=True)
class Answer:
    """What a method says of one query.

    Attributes
    ----------
    candidates
        Numbers of the frames of the map that look alike, most alike first.
    best
        The one with most inliers; -1 where geometry confirms none.
    inliers
        Of that one.
    rotation, direction
        Of ``T_query_map``, each None where unknown.
    """

    candidates: NDArray[np.int64]
    best: int = -1
    inliers: int = 0
    rotation: NDArray[np.float64] | None = None
    direction: NDArray[np.float64] | None = None


def ask_d2(
    known: Sequence[Frame], queries: Sequence[Frame], config: Config, watch: Callable[..., Iterable]
) -> list[Answer]:
    """Answers of this package's own places, as the node would keep them."""
    extractor, vocabulary, settings = Extractor(config), load_vocabulary(), RecognitionSettings()

    def keep(frame: Frame, session: int) -> Place:
        features = extractor.extract([frame.image])[0]
        return place_of_features(
            features, frame.stamp, frame.image, frame.camera, vocabulary, session
        )

    places = [keep(frame, 0) for frame in watch(known, "Keeping places")]
    memory = PlaceMemory(places, len(places))
    number = {id(place): index for index, place in enumerate(places)}
    answers = []
    for frame in watch(queries, "Looking for places"):
        place = keep(frame, 1)
        candidates = memory.nearest(place.vlad, settings.candidates)
        found = look_up(place, memory, config, settings)
        if found:
            best = found[0]
            if not best.same_light:
                best = by_early_maps(best, config, extractor)
            told = (number[id(best.known)], best.inliers, best.rotation, best.direction)
            answers.append(Answer(candidates, *told))
        else:
            answers.append(Answer(candidates))
    return answers


def ask_peer(
    known: Sequence[Frame],
    queries: Sequence[Frame],
    config: Config,
    detect: Detector,
    vocabulary: Vocabulary,
) -> list[Answer]:
    """Answers of a classical feature: same number of keypoints, same candidates, same geometry."""
    count = min(config.features.max_keypoints, MOST_KEYPOINTS)

    def keep(frame: Frame) -> tuple[Sparse, Floats, Camera | None]:
        seen = detect(gray8(frame.image), count)
        return seen, vocabulary.describe(vocabulary.project(seen.descriptors)), frame.camera

    places = [keep(frame) for frame in known]
    vlads = np.stack([vlad for _, vlad, _ in places])
    matching, answers = config.matching, []
    for seen, vlad, camera in map(keep, queries):
        candidates = np.argsort(-(vlads @ vlad), kind="stable")[: RecognitionSettings.candidates]
        best = Answer(candidates)
        for number in candidates.tolist():
            other, _, then = places[number]
            before, now = mutual_nearest(other, seen)
            first, second = other.pixels[before], seen.pixels[now]
            error = matching.max_detected_error
            inlier = verify(second, first, camera, then, error, matching.seed).inlier
            if inlier.sum() <= best.inliers:
                continue
            pose = None
            if camera is not None and then is not None:
                pose = estimate_pose(first[inlier], second[inlier], (then, camera), error)
            parts = (None, None) if pose is None else (pose[:3, :3], pose[:3, 3])
            best = Answer(candidates, number, int(inlier.sum()), *parts)
        answers.append(best)
    return answers


def peers(photos: Sequence[Photograph]) -> Mapping[str, tuple[Detector, Vocabulary]]:
    """Detectors and their vocabularies, made from photographs once and kept in the user's cache."""
    detectors: Mapping[str, Detector] = {"root_sift": root_sift, "orb": orb}
    return {name: (each, _vocabulary(name, each, photos)) for name, each in detectors.items()}


def _vocabulary(name: str, detect: Detector, photos: Sequence[Photograph]) -> Vocabulary:
    names = ", ".join(photo.name for photo in photos)
    key = hashlib.sha256(names.encode()).hexdigest()[:16]
    folder = user_folder("XDG_CACHE_HOME", ".cache")
    path = None if folder is None else folder / "places" / f"{name}-{key}.safetensors"
    if path is not None and path.is_file():
        return load_vocabulary(path)
    seen = [detect(gray8(photo.load()), MOST_KEYPOINTS) for photo in photos]
    seen = [item for item in seen if len(item.pixels) >= _FEWEST]
    keypoints = [item.pixels.astype(np.float32) for item in seen]
    made = make_vocabulary(keypoints, [item.descriptors for item in seen], {"photographs": names})
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, vocabulary_bytes(made))
    return made


@dataclass(frozen=True)
class Truth:
    """True poses, and from how near a place is the same.

    Attributes
    ----------
    known, queries
        ``(N, 4, 4)`` and ``(Q, 4, 4)`` ``T_world_camera``.
    radius_m, angle_deg
        A query has a revisit where a frame of the map is so near. An answer more than twice as far,
        or turned, is false, unless the pose that it tells is the true one: the same things may be
        seen from further away.
    """

    known: NDArray[np.float64]
    queries: NDArray[np.float64]
    radius_m: float
    angle_deg: float

    def near(self, times: float) -> NDArray[np.bool_]:
        """``(Q, N)`` pairs within so many times the radius and the angle."""
        gap = self.queries[:, None, :3, 3] - self.known[None, :, :3, 3]
        axes = np.einsum("qi,ni->qn", self.queries[:, :3, 2], self.known[:, :3, 2])
        turned = np.degrees(np.arccos(np.clip(axes, -1, 1)))
        far = np.linalg.norm(gap, axis=2)
        return (far <= times * self.radius_m) & (turned <= times * self.angle_deg)


@dataclass(frozen=True)
class Judged:
    """The answers of a method, judged.

    Attributes
    ----------
    inliers
        ``(Q,)`` 0 where nothing was told.
    right, false
        ``(Q,)`` bool; neither where nothing was told, or what was told is close enough to be no
        mistake while nothing had to be found.
    has
        ``(Q,)`` bool: there was something to find.
    found
        ``(Q,)`` bool: a candidate was right, before geometry.
    direction_deg, rotation_deg
        Errors of the right answers' poses, where they tell any.
    """

    inliers: NDArray[np.int64]
    right: NDArray[np.bool_]
    false: NDArray[np.bool_]
    has: NDArray[np.bool_]
    found: NDArray[np.bool_]
    direction_deg: NDArray[np.float64]
    rotation_deg: NDArray[np.float64]

    def curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Recall and precision at every threshold, strictest first."""
        told = np.flatnonzero(self.right | self.false)
        order = told[np.argsort(-self.inliers[told], kind="stable")]
        last = np.append(np.flatnonzero(np.diff(self.inliers[order])), len(order) - 1)
        right, false = np.cumsum(self.right[order]), np.cumsum(self.false[order])
        if not len(order):
            return np.zeros(0), np.zeros(0)
        # Answers with equally many inliers pass the threshold together.
        right, false = right[last], false[last]
        return right / max(self.has.sum(), 1), right / (right + false)

    def figures(self, min_inliers: int) -> Figures:
        """Return the flat figures of a method."""
        recall, precision = self.curve()
        whole = int(self.has.sum())
        told = self.inliers >= min_inliers
        rising = np.diff(np.concatenate([[0], recall]))
        return {
            "queries": len(self.has),
            "revisits": whole,
            "candidate_recall": float((self.found & self.has).sum() / max(whole, 1)),
            "recall_at_full_precision": float(max(recall[precision == 1], default=0.0)),
            "average_precision": float((rising * precision).sum()),
            "recall": float((self.right & told).sum() / max(whole, 1)),
            "false_revisits": int((self.false & told).sum()),
            "rotation_error_deg": _median(self.rotation_deg),
            "direction_error_deg": _median(self.direction_deg),
            "direction_within_5deg": float((self.direction_deg <= 5).mean())
            if len(self.direction_deg)
            else float("nan"),
        }


def judge(answers: Sequence[Answer], truth: Truth) -> Judged:
    """Judge answers by true poses."""
    near, around = truth.near(1), truth.near(2)
    best = np.array([answer.best for answer in answers])
    told = best >= 0
    has: NDArray[np.bool_] = np.asarray(near.any(axis=1))
    close = told & around[np.arange(len(best)), best]
    right = close & has
    errors = np.full((len(best), 2), np.nan)  # of rotation and direction, where they are told
    for query in np.flatnonzero(told):
        errors[query] = _pose_errors(answers[query], truth, int(query))
    true = (errors[:, 0] <= TRUE_ROTATION_DEG) & (errors[:, 1] <= TRUE_DIRECTION_DEG)
    of_right = errors[right]
    return Judged(
        np.array([answer.inliers for answer in answers], np.int64),
        right,
        told & ~close & ~true,
        has,
        np.array([near[q, answer.candidates].any() for q, answer in enumerate(answers)]),
        of_right[np.isfinite(of_right[:, 1]), 1],
        of_right[np.isfinite(of_right[:, 0]), 0],
    )


def _pose_errors(answer: Answer, truth: Truth, query: int) -> tuple[float, float]:
    """Errors of an answer's rotation and direction, degrees; NaN for what it does not tell."""
    if answer.rotation is None:
        return np.nan, np.nan
    pose = np.eye(4)
    pose[:3, :3] = answer.rotation
    pose[:3, 3] = 0 if answer.direction is None else answer.direction
    turn, aside = pose_errors(pose, relative(truth.known[answer.best], truth.queries[query]))
    return turn, np.nan if answer.direction is None else aside


def ask_all(
    known: Sequence[Frame],
    queries: Sequence[Frame],
    config: Config,
    photos: Sequence[Photograph],
    watch: Callable[..., Iterable],
) -> dict[str, list[Answer]]:
    """Answers of every method."""
    answers = {"d2": ask_d2(known, queries, config, watch)}
    for name, (detect, vocabulary) in peers(photos).items():
        answers[name] = ask_peer(known, queries, config, detect, vocabulary)
    return answers


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if len(values) else float("nan")
