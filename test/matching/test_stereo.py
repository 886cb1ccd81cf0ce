"""A left camera's tracks in the right image, against pairs whose disparity is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from d2_ros.camera import Camera
from d2_ros.config import Config, with_values
from d2_ros.errors import D2RosError
from d2_ros.evaluation.stereo import motorcycle, stereo_errors
from d2_ros.frontend import FrontEnd
from d2_ros.matching.stereo import StereoView, find_right
from d2_ros.records import columns
from d2_ros.sources.synthetic import open_synthetic

CPU = torch.device("cpu")
CONFIG = with_values(Config(), {"device": "cpu"})


@pytest.fixture(scope="module")
def frontend() -> FrontEnd:
    return FrontEnd(CONFIG)


def look(frontend: FrontEnd, image: Any, camera: Camera) -> StereoView:
    frontend.reset()
    return StereoView(image, camera, frontend.process(image, 1, camera))


def pixels(rows: Any) -> Any:
    return np.column_stack([rows["u"], rows["v"]]).astype(np.float64)


@pytest.fixture(scope="module")
def pair(frontend: FrontEnd) -> tuple[StereoView, StereoView]:
    """A synthetic image and the same one shifted, magnified by 4 % and darkened."""
    frame = next(iter(open_synthetic("size=320x240,frames=2,seed=0")))
    assert frame.camera is not None
    moved = cv2.warpAffine(
        frame.image, HOMOGRAPHY, (320, 240), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    matrix = frame.camera.matrix + np.array([[5, 0, 3], [0, 5, -2], [0, 0, 0]])
    other = Camera(320, 240, matrix, [-0.1, 0.02, 0, 0, 0])
    dark = (moved * 0.7 + 10).astype(np.uint8)
    return look(frontend, frame.image, frame.camera), look(frontend, dark, other)


HOMOGRAPHY = np.array([[1.04, 0.0, -17.3], [0.0, 1.04, -4.4]])


def test_observations_lie_where_the_warp_says(pair: tuple[StereoView, StereoView]) -> None:
    left, right = pair
    found = find_right(left, right, CONFIG, CPU)
    features, seen = left.result.features, found["index"]
    assert (np.diff(seen.astype(int)) > 0).all()
    assert len(seen) > 0.5 * (features["track_id"] > 0).sum() > 50
    assert (features["track_id"][seen] > 0).all()
    truth = pixels(features[seen]) @ HOMOGRAPHY[:, :2].T + HOMOGRAPHY[:, 2]
    offset = pixels(found) - truth
    error = np.linalg.norm(offset, axis=1)
    assert np.median(error) < 0.1
    assert np.percentile(error, 95) < 0.5
    bearings = right.camera.bearings(pixels(found))
    np.testing.assert_allclose(columns(found, "x", "y", "z"), bearings, atol=1e-5)
    uu, uv, vv = (found[f"sigma_{name}"] for name in ("uu", "uv", "vv"))
    assert (uu > 0).all()
    assert (uu * vv > uv**2).all()
    # Squared errors over variances: some 2 in the median if these were exact, and not tenfold off.
    inverse = np.linalg.inv(np.stack([uu, uv, uv, vv], 1).reshape(-1, 2, 2))
    assert 0.1 < np.median(np.einsum("mi,mij,mj->m", offset, inverse, offset)) < 14


def test_only_tracked_features_are_looked_for(pair: tuple[StereoView, StereoView]) -> None:
    left, right = pair
    some = left.result.features.copy()
    some["track_id"][::2] = 0
    half = replace(left, result=replace(left.result, features=some))
    found = find_right(half, right, CONFIG, CPU)["index"]
    assert len(found) > 0
    assert (found % 2 == 1).all()
    some["track_id"] = 0
    assert len(find_right(half, right, CONFIG, CPU)) == 0


@pytest.mark.parametrize("blind", ["left", "right", "both"])
def test_a_camera_that_sees_nothing_gives_no_observations(
    frontend: FrontEnd, pair: tuple[StereoView, StereoView], blind: str
) -> None:
    left, right = pair
    black = np.zeros_like(left.image)
    if blind != "right":
        left = look(frontend, black, left.camera)
    if blind != "left":
        right = look(frontend, black, right.camera)
    found = find_right(left, right, CONFIG, CPU)
    assert len(found) == 0


def test_images_of_two_scenes_give_next_to_no_observations(
    frontend: FrontEnd, pair: tuple[StereoView, StereoView]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320), np.uint8)
    other = look(frontend, cv2.GaussianBlur(noise, (0, 0), 1.5), pair[1].camera)
    assert len(find_right(pair[0], other, CONFIG, CPU)) <= 8


def test_observations_of_a_photographed_pair_lie_at_its_exact_disparity(
    frontend: FrontEnd, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        photographs = motorcycle()
    except D2RosError as error:
        pytest.skip(str(error))
    height, width = photographs.disparity.shape
    size = (width // 2, height // 2)
    scale = np.array(size) / (width, height)
    focal, centre, baseline_px = 994.978, (311.193, 254.877), 31.086  # skimage's docstring
    views = []
    for image, shift in ((photographs.left, 0.0), (photographs.right, baseline_px)):
        k = np.array([[focal, 0, centre[0] + shift], [0, focal, centre[1]], [0, 0, 1]])
        k[:2] *= scale[:, None]
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        views.append(look(frontend, small, Camera(*size, k, [])))
    found = find_right(*views, CONFIG, CPU)
    seen = found["index"]
    tracked = int((views[0].result.features["track_id"] > 0).sum())
    places = [
        (pixels(rows) + 0.5) / scale - 0.5 for rows in (views[0].result.features[seen], found)
    ]
    errors = stereo_errors((places[0], places[1]), photographs.disparity) * scale[0]
    with capsys.disabled():
        print(
            f"\nmotorcycle at {size[0]}x{size[1]}: {tracked} tracked, {len(seen)} seen by both, "
            f"median error {np.median(errors):.3f} px, within 1 px {np.mean(errors < 1):.1%}"
        )
    assert len(seen) > 0.4 * tracked > 100
    assert np.median(errors) < 0.25
    assert np.mean(errors < 1) > 0.85
