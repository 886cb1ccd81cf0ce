"""``d2-ros evaluate illumination`` and ``gaps``: judged on what any installation can make."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from d2_ros.commands.common import (
    Json,
    Overrides,
    ParamsFile,
    load_config,
    output_files,
    output_folder,
)
from d2_ros.commands.evaluate import Every, Out, _tell, _watched
from d2_ros.errors import D2RosError

Photos = Annotated[
    list[str] | None,
    typer.Option("--photo", metavar="NAME", help="Photograph to use, not all; repeatable."),
]
Width = Annotated[
    int, typer.Option(min=160, max=640, help="Of the images, px; height is 3/4 of it.")
]
Seed = Annotated[int, typer.Option(min=0, help="Draws viewpoints, shades and noise.")]
Sequence = Annotated[
    str, typer.Argument(metavar="SRC", help="synthetic[:key=value,...]; its truth is exact.")
]


def register(group: typer.Typer) -> None:
    """Add the verbs to ``evaluate``."""
    group.command("illumination")(illumination)
    group.command("gaps")(gaps)


def illumination(
    out: Out,
    width: Width = 320,
    seed: Seed = 0,
    photo: Photos = None,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    json: Json = None,
) -> None:
    """Judge matches under changing light, on photographs that come with scikit-image."""
    from collections import defaultdict

    from d2_ros.evaluation.curves import group_curve
    from d2_ros.evaluation.homographies import homography_figures
    from d2_ros.evaluation.illumination import (
        PHOTOGRAPHS,
        STRENGTHS,
        UNCHANGED,
        illumination_pairs,
        seen_by,
    )
    from d2_ros.evaluation.match_sets import prefixed
    from d2_ros.evaluation.pairs import flatten
    from d2_ros.evaluation.seen import judge_seen, match_with_klt, seen_tables, share_seen
    from d2_ros.frontend import FrontEnd

    config = load_config(params_file, overrides)
    names = tuple(dict.fromkeys(photo or PHOTOGRAPHS))
    for name in names:
        if name not in PHOTOGRAPHS:
            raise D2RosError(f"--photo {name} is none of {', '.join(PHOTOGRAPHS)}")
    output_files([json], params_file)
    folder = output_folder(out)
    frontend = FrontEnd(config)
    size = (width, width * 3 // 4)
    kinds = (UNCHANGED, *STRENGTHS)
    total = len(names) * (1 + sum(map(len, STRENGTHS.values())))
    groups: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    shares = []
    pairs = illumination_pairs(seed, size, names)
    for _, pair in zip(_watched(range(total), "Matching"), pairs, strict=True):
        truth = seen_by(pair.homography, size)
        shares.append(share_seen(truth, size))
        for method, found in match_with_klt(frontend, (pair.first, pair.second)).items():
            errors = judge_seen(found, truth)
            group = pair.kind if pair.kind == UNCHANGED else f"{pair.kind}{pair.strength}"
            for name in {group, pair.kind}:
                groups[method][name].append(errors)
    figures = {
        method: {
            name: value
            for group, results in of.items()
            for name, value in prefixed(group, homography_figures(results)).items()
        }
        for method, of in groups.items()
    }
    series = {
        kind: [(UNCHANGED, "0"), *((f"{kind}{n + 1}", f"{n + 1}") for n in range(len(steps)))]
        for kind, steps in STRENGTHS.items()
    }
    plots = {
        f"Right {match_set} matches": group_curve(figures, series, f"{prefix}correct_3px", label)
        for match_set, prefix, label in (
            ("raw", "", "raw matches within 3 px"),
            ("verified", "verified_", "verified matches within 3 px"),
        )
    }
    everything = {
        "source": "skimage.data: " + ", ".join(names), "seed": seed, "width": width,
        "height": size[1], "pairs": total, "share_seen_in_both": sum(shares) / len(shares),
        **flatten(figures),
    }  # fmt: skip
    tables = seen_tables({kind: kind for kind in kinds})
    _tell(folder, "Changing light", figures, tables, everything, plots, json)


def gaps(
    out: Out,
    source: Sequence = "synthetic:size=320x240",
    every: Every = 5,
    params_file: ParamsFile = None,
    overrides: Overrides = None,
    json: Json = None,
) -> None:
    """Judge matches of frames 10 to 60 apart, without the frames between."""
    from collections import defaultdict

    from d2_ros.evaluation.curves import group_curve
    from d2_ros.evaluation.gaps import (
        GAPS,
        gap_figures,
        gap_pairs,
        judge_gap,
        pose_tables,
        possible_gaps,
        truth_between,
    )
    from d2_ros.evaluation.match_sets import prefixed
    from d2_ros.evaluation.pairs import flatten
    from d2_ros.evaluation.seen import match_with_klt, seen_tables, share_seen
    from d2_ros.frontend import FrontEnd
    from d2_ros.sources import open_source
    from d2_ros.sources.synthetic import Synthetic

    config = load_config(params_file, overrides)
    opened = open_source(source)
    if not isinstance(opened, Synthetic):
        raise D2RosError(f"evaluate gaps needs exact ground truth: synthetic, not {opened.name}")
    used = possible_gaps(len(opened))
    output_files([json], params_file)
    folder = output_folder(out)
    frontend = FrontEnd(config)
    images = [frame.image for frame in opened]
    size, cameras = (opened.camera.width, opened.camera.height), (opened.camera, opened.camera)
    pairs = [(gap, pair) for gap in used for pair in gap_pairs(len(opened), gap, every)]
    results: dict[str, dict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
    shares = defaultdict(list)
    for gap, pair in _watched(pairs, "Matching"):
        shares[gap].append(share_seen(truth_between(opened, *pair), size))
        both = (images[pair[0]], images[pair[1]])
        for method, found in match_with_klt(frontend, both, cameras).items():
            results[method][gap].append(judge_gap(found, opened, pair, config.matching))
    figures = {
        method: {
            name: value
            for gap, judged in of.items()
            for name, value in prefixed(f"gap{gap}", gap_figures(judged)).items()
        }
        for method, of in results.items()
    }
    headings = {f"gap{gap}": str(gap) for gap in used}
    series = {"frames apart": [(f"gap{gap}", str(gap)) for gap in used]}
    plots = {
        f"Right {match_set} matches": group_curve(figures, series, f"{prefix}correct_3px", label)
        for match_set, prefix, label in (
            ("raw", "", "raw matches within 3 px"),
            ("verified", "verified_", "verified matches within 3 px"),
        )
    }
    plots["Pose AUC"] = group_curve(figures, series, "auc_10deg", "pose AUC at 10 degrees")
    everything = {
        "source": source, "width": size[0], "height": size[1], "every": every,
        **{f"gap{gap}_share_seen_in_both": sum(s) / len(s) for gap, s in shares.items()},
        **flatten(figures),
    }  # fmt: skip
    tables = {**seen_tables(headings), **pose_tables(headings)}
    _tell(folder, "Long gaps", figures, tables, everything, plots, json)
    left_out = [str(gap) for gap in GAPS if gap not in used]
    if left_out:
        typer.echo(
            f"{source} is too short for gaps of {', '.join(left_out)} frames; left out", err=True
        )
