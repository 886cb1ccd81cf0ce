"""Every parameter of the front-end and its node: default, unit, range and meaning.

This is the only place where they stand. The node's parameter descriptors,
``config/frontend.yaml`` and ``docs/parameters.md`` are derived from it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from d2_ros.errors import D2RosError

_CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*")


def _param(
    default: Any,
    description: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """Declare a dataclass field together with all that is known of the parameter."""
    metadata = {
        "description": description,
        "unit": unit,
        "low": low,
        "high": high,
        "choices": choices,
        "live": live,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: tuple(default), metadata=metadata)
    return field(default=default, metadata=metadata)


param = _param
"""For configurations elsewhere that are described, checked and set as this one is."""

RENAMED_VALUES = {("alignment.mode", "grey"): "gray"}
"""Parameter and its old value -> new value: accepted for one version, with a warning (0.1.0)."""

AnyConfig = TypeVar("AnyConfig")
"""A frozen dataclass of such fields and of groups of them."""


@dataclass(frozen=True)
class FeaturesConfig:
    """Detection and description."""

    max_keypoints: int = _param(
        1000, "Most keypoints kept per frame, best first.", low=10, high=8000, live=True
    )
    max_edge: int = _param(
        1600,
        "Longer images are reduced to this long edge before the network; "
        "positions are still given in the image as it arrived.",
        unit="px",
        low=64,
        high=8192,
    )
    grid_cells: int = _param(
        16,
        "Cells along the long edge over which keypoints are spread; 1 turns spreading off.",
        low=1,
        high=64,
        live=True,
    )
    extract: str = _param(
        "auto",
        "Frames that the network runs on: every_frame, or keyframes, with tracks followed by "
        "Lucas-Kanade in between; it also runs where following loses too many tracks, after "
        "window.max_interval, and in every frame where output.descriptors, input.stereo or "
        "alignment.mode features need it. auto: keyframes where frames come live and the network "
        "runs on a CPU, every_frame in a replay and on a GPU.",
        choices=("auto", "every_frame", "keyframes"),
        live=True,
    )
    delay: int = _param(
        0,
        "Where tracks are followed: frames after which what the network sees joins the tracks, at "
        "the places to which it has been followed. Live it joins when it is there, but not "
        "before; in a replay exactly then, as on a computer that takes so long.",
        low=0,
        high=60,
        live=True,
    )


@dataclass(frozen=True)
class MatchingConfig:
    """Nearest neighbours and geometric verification."""

    max_detected_error: float = _param(
        4.0,
        "Tentative matches, at their detected places, further than this from the pair's "
        "geometry are not followed up.",
        unit="px",
        low=0.1,
        high=50.0,
        live=True,
    )
    max_error: float = _param(
        1.0,
        "Matches, at their published places, further than this from the pair's geometry "
        "are outliers; a keypoint that most keyframes contradict leaves its track.",
        unit="px",
        low=0.1,
        high=50.0,
        live=True,
    )
    seed: int = _param(0, "Seed of the robust estimator.", low=0, high=2**31 - 1)


@dataclass(frozen=True)
class AlignmentConfig:
    """Two-view patch alignment."""

    mode: str = _param(
        "auto",
        "What is aligned: gray values, the network's early maps (features), which survive "
        "changes of light, or, pair by pair, those where gray values disagree (auto).",
        choices=("auto", "gray", "features"),
    )
    patch_radius: int = _param(
        11,
        "Radius of the round patch: larger is more exact on planes, smaller at depth edges.",
        unit="px",
        low=3,
        high=24,
    )
    levels: int = _param(3, "Pyramid levels, each half the size of the last.", low=1, high=5)
    max_iterations: int = _param(6, "Most Gauss-Newton steps per pyramid level.", low=1, high=100)
    max_move: float = _param(
        8.0, "Alignments that move a keypoint further are rejected.", unit="px", low=0.5, high=50.0
    )
    max_forward_backward: float = _param(
        0.5,
        "Alignments with a larger forward-backward error are rejected.",
        unit="px",
        low=0.01,
        high=10.0,
    )
    min_correlation: float = _param(
        0.8,
        "Alignments whose patches correlate less are rejected.",
        low=-1.0,
        high=1.0,
    )
    max_sigma: float = _param(
        1.0,
        "Alignments less certain than this (largest standard deviation) are rejected.",
        unit="px",
        low=0.01,
        high=10.0,
    )


@dataclass(frozen=True)
class WindowConfig:
    """The keyframe window and when a frame enters it."""

    size: int = _param(7, "Keyframes kept.", unit="keyframes", low=1, high=30)
    min_tracked_share: float = _param(
        0.7,
        "A frame that still sees a smaller share of the last keyframe's tracks is a keyframe.",
        low=0.0,
        high=1.0,
        live=True,
    )
    min_parallax: float = _param(
        20.0,
        "A frame whose median parallax to the last keyframe, rotation removed, is larger "
        "is a keyframe.",
        unit="px",
        low=0.0,
        high=1000.0,
        live=True,
    )
    max_interval: float = _param(
        5.0,
        "A frame later than this after the last keyframe is a keyframe "
        "if the camera has moved at all.",
        unit="s",
        low=0.0,
        high=3600.0,
        live=True,
    )


@dataclass(frozen=True)
class RefinementConfig:
    """Multi-view optimisation of the tracks of the window."""

    enabled: bool = _param(True, "Refine keypoints; off publishes detected positions.")
    solver: str = _param(
        "gtsam",
        "What solves the window: gtsam, or sparse for the same equations in SciPy, "
        "with the same result in about a fifth of the time.",
        choices=("gtsam", "sparse"),
    )
    kernel_start: float = _param(
        1.0, "Width of the Cauchy kernel in the first pass.", unit="px", low=0.01, high=100.0
    )
    kernel_end: float = _param(
        0.25, "Width of the Cauchy kernel in the last pass.", unit="px", low=0.01, high=100.0
    )
    passes: int = _param(
        3, "Passes from wide to narrow kernel, affine part renewed each time.", low=1, high=10
    )
    max_sigma: float = _param(
        0.75,
        "Keypoints less certain than this after refinement (largest standard deviation), and "
        "than three times the frame's median, leave their track.",
        unit="px",
        low=0.01,
        high=10.0,
        live=True,
    )
    prior_sigma: float = _param(
        8.0, "Weak prior that holds observations without a good edge.", unit="px", low=0.1, high=1e3
    )


@dataclass(frozen=True)
class InputConfig:
    """How images come in (node only)."""

    qos: str = _param(
        "live",
        "live: best effort, newest frame wins; replay: reliable, every frame is processed.",
        choices=("live", "replay"),
    )
    compressed: bool = _param(False, "Subscribe to image_raw/compressed instead of image_raw.")
    rectified: bool = _param(False, "Images are rectified: use P and no distortion.")
    max_age: float = _param(
        0.0,
        "Frames whose stamp is older than this when their turn comes are dropped; 0 takes all.",
        unit="s",
        low=0.0,
        high=3600.0,
        live=True,
    )
    sync_tolerance: float = _param(
        0.0,
        "With more than 0 all cameras form one synchronised group: images whose stamps differ "
        "by no more than this share one run of the network; take less than half the time "
        "between two frames. 0: every camera is on its own.",
        unit="s",
        low=0.0,
        high=10.0,
    )
    stereo: bool = _param(
        False,
        "The first two cameras are a stereo pair, left then right: the left one's tracks are "
        "found in the right image as well and listed on its topic stereo, and in its "
        "feature_tracks if output.vins_format asks for that. Needs sync_tolerance.",
    )


@dataclass(frozen=True)
class OutputConfig:
    """What goes out (node and replay)."""

    descriptors: str = _param(
        "none",
        "Type in which descriptors are published, if at all.",
        choices=("none", "uint8", "float32"),
    )
    vins_format: str = _param(
        "none",
        "Layout of the feature_tracks topic for VINS-Fusion or VINS-Mono.",
        choices=("none", "fusion", "mono"),
    )


@dataclass(frozen=True)
class PlacesConfig:
    """Keyframes kept for good, and known again (node and replay)."""

    enabled: bool = _param(
        False,
        "Keep keyframes for good, look every new one up among them, and publish loops and "
        "loop_pose where a place is known again. Needs the extra places (faiss).",
    )
    folder: str = _param(
        "",
        "Folder of the places of other runs, a file CAMERA.places each (node only): those that "
        "are there are known from the start, and ~/save_places and ~/load_places write and read "
        "them. Empty: none.",
    )


@dataclass(frozen=True)
class Config:
    """All parameters. Nested groups become dotted names, such as ``window.size``."""

    device: str = _param(
        "auto",
        "Where the network runs: auto takes the GPU where there is one.",
        choices=("auto", "cpu", "cuda"),
    )
    precision: str = _param(
        "auto",
        "Arithmetic of the network: auto is fp16 on the GPU, int8 where runtime auto is openvino, "
        "bf16 on a CPU that has it in hardware (d2-ros doctor says), fp32 elsewhere; int8 with "
        "runtime openvino only.",
        choices=("auto", "fp32", "fp16", "bf16", "int8"),
    )
    runtime: str = _param(
        "auto",
        "What runs the network: openvino (CPU; fp32, bf16, int8) and onnxruntime (fp32) are extras "
        "to install. auto is openvino in int8 with the shipped weights where openvino and nncf are "
        "installed and the CPU multiplies 8 bits in hardware (VNNI), torch elsewhere.",
        choices=("auto", "torch", "openvino", "onnxruntime"),
    )
    fallback: str = _param(
        "cpu",
        "What happens when the GPU is lost or out of memory (node only): cpu goes on there, "
        "none refuses the frame.",
        choices=("cpu", "none"),
        live=True,
    )
    threads: int = _param(0, "CPU threads of the network; 0 takes all cores.", low=0, high=256)
    keep_memory: bool = _param(
        True,
        "CPU: keep the network's memory from layer to layer and frame to frame, which is a tenth "
        "faster and takes up to 0.8 GiB more.",
    )
    weights: str = _param(
        "off_the_shelf", "Name of the weights (d2-ros weights list) or path of a checkpoint."
    )
    cameras: tuple[str, ...] = _param(["camera"], "Names of the cameras (node only).")
    autostart: bool = _param(False, "Configure and activate without being asked (node only).")
    executor: str = _param(
        "single",
        "What calls the node back (node only): single is rclpy's single-threaded executor, events "
        "the one that rclpy has from Kilted on, experimental there; not with input.qos replay.",
        choices=("single", "events"),
    )
    features: FeaturesConfig = FeaturesConfig()
    matching: MatchingConfig = MatchingConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    window: WindowConfig = WindowConfig()
    refinement: RefinementConfig = RefinementConfig()
    input: InputConfig = InputConfig()
    output: OutputConfig = OutputConfig()
    places: PlacesConfig = PlacesConfig()


@dataclass(frozen=True)
class Parameter:
    """One flattened parameter: dotted name, default and what is known of it."""

    name: str
    default: Any
    description: str
    unit: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    live: bool

    @property
    def range_text(self) -> str:
        """The allowed values in words, for messages and documentation."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.low is not None and self.high is not None:
            return f"{self.low:.10g} to {self.high:.10g}"
        return "true or false" if isinstance(self.default, bool) else "any"

    def check(self, value: Any) -> Any:
        """Return `value` in the parameter's type.

        Raises
        ------
        D2RosError
            If the type is wrong or the value is out of range.
        """
        kind = type(self.default)
        if kind is tuple and isinstance(value, (list, tuple)):
            value = tuple(str(item) for item in value)
        elif kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind:
            names = {tuple: "a list of strings", float: "a number", int: "an integer"}
            expected = names.get(kind, {bool: "true or false", str: "a string"}.get(kind))
            raise D2RosError(f"parameter {self.name} is {value!r}; it must be {expected}")
        outside = (self.choices and value not in self.choices) or (
            self.low is not None
            and self.high is not None
            and not self.low <= value <= self.high  # also refuses NaN
        )
        if outside:
            raise D2RosError(f"parameter {self.name} is {value!r}; it must be {self.range_text}")
        return value


def parameters(config: Any = None) -> Iterator[Parameter]:
    """Yield every parameter of `config` (default: the defaults), groups flattened."""
    yield from _flatten(config or Config(), "")


def _flatten(node: Any, prefix: str) -> Iterator[Parameter]:
    for entry in dataclasses.fields(node):
        value = getattr(node, entry.name)
        if dataclasses.is_dataclass(value):
            yield from _flatten(value, f"{prefix}{entry.name}.")
        else:
            yield Parameter(name=prefix + entry.name, default=value, **entry.metadata)


def renamed(values: Mapping[str, Any], warn: Callable[[str], object]) -> dict[str, Any]:
    """Return `values` with those of old names under their new ones, and warn of each.

    Parameters
    ----------
    values
        Dotted name -> value, as given by a user.
    warn
        Takes one sentence.
    """
    found = dict(values)
    for (name, old), new in RENAMED_VALUES.items():
        if found.get(name) == old:
            warn(f"parameter {name}: {old} is now called {new}; the next version refuses {old}")
            found[name] = new
    return found


def with_values(
    config: AnyConfig,
    values: Mapping[str, Any],
    listed: str = "`d2-ros doctor --parameters` lists",
) -> AnyConfig:
    """Return `config` with the dotted names of `values` replaced, after checking each.

    Parameters
    ----------
    config
        The front-end's :class:`Config`, or another one made of :data:`param` fields.
    values
        Dotted name -> value.
    listed
        Who lists the known names, for the message about an unknown one.

    Raises
    ------
    D2RosError
        For an unknown name or a value of the wrong type or out of range.
    """
    known = {parameter.name: parameter for parameter in parameters(config)}
    for name, value in values.items():
        if name not in known:
            raise D2RosError(f"unknown parameter {name}; {listed} the known ones")
        config = _replace(config, name.split("."), known[name].check(value))
    return config


def _replace(node: Any, path: list[str], value: Any) -> Any:
    head, *rest = path
    if rest:
        value = _replace(getattr(node, head), rest, value)
    return dataclasses.replace(node, **{head: value})


def check_config(config: Config) -> None:
    """Refuse what no single parameter tells: names that clash, a stereo pair that cannot be one.

    Raises
    ------
    D2RosError
        Naming the parameter and the remedy.
    """
    _check_cameras(config.cameras)
    if config.input.stereo:
        _check_stereo(config)


def _check_cameras(names: Sequence[str]) -> None:
    """Refuse camera names that cannot be part of a topic name."""
    if not names or len(set(names)) != len(names):
        raise D2RosError(f"parameter cameras is {list(names)}; it must name each camera once")
    for name in names:
        if not _CAMERA_NAME.fullmatch(name):
            raise D2RosError(
                f"parameter cameras holds {name!r}; a camera's name must be a topic name, "
                "such as camera or stereo/left"
            )


def _check_stereo(config: Config) -> None:
    """Refuse a stereo pair of less than two cameras, or not synchronised."""
    wrong = "parameter input.stereo is true, but"
    if len(config.cameras) < 2:
        names = list(config.cameras)
        raise D2RosError(f"{wrong} cameras is {names}; name the left camera, then the right one")
    if config.input.sync_tolerance == 0:
        raise D2RosError(
            f"{wrong} input.sync_tolerance is 0; set it to how far apart, in seconds, the stamps "
            "of a pair may be"
        )
