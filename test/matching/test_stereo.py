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
from d2_ros.matching.stereo import View, find_right
from d2_ros.sources.synthetic import open_synthetic

CPU = torch.device("cpu")
CONFIG = with_values(Config(), {"device": "cpu"})


@pytest.fixture(scope="module")
def frontend() -> FrontEnd:
    return FrontEnd(CONFIG)


def look(frontend: FrontEnd, image: Any, camera: Camera) -> View:
    frontend.reset()
    return View(image, camera, frontend.process(image, 1, camera))


def pixels(rows: Any) -> Any:
    return np.column_stack([rows["u"], rows["v"]]).astype(np.float64)


@pytest.fixture(scope="module")
def pair(frontend: FrontEnd) -> tuple[View, View]:
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


def test_observations_lie_where_the_warp_says(pair: tuple[View, View]) -> None:
    left, right = pair
    found = find_right(left, right, CONFIG, CPU)
    features, seen = left.result.features, np.isfinite(found["u"])
    assert len(found) == len(features)
    assert seen.sum() > 0.5 * (features["track_id"] > 0).sum() > 50
    assert (features["track_id"][seen] > 0).all()
    truth = pixels(features[seen]) @ HOMOGRAPHY[:, :2].T + HOMOGRAPHY[:, 2]
    error = np.linalg.norm(pixels(found[seen]) - truth, axis=1)
    assert np.median(error) < 0.1
    assert np.percentile(error, 95) < 0.5
    bearings = right.camera.bearings(pixels(found[seen]))
    np.testing.assert_allclose(found["x"][seen], bearings[:, 0], atol=1e-5)
    np.testing.assert_allclose(found["y"][seen], bearings[:, 1], atol=1e-5)


def test_only_tracked_features_are_looked_for(pair: tuple[View, View]) -> None:
    left, right = pair
    some = left.result.features.copy()
    some["track_id"][::2] = 0
    half = replace(left, result=replace(left.result, features=some))
    assert np.isnan(find_right(half, right, CONFIG, CPU)["u"][::2]).all()
    some["track_id"] = 0
    assert np.isnan(find_right(half, right, CONFIG, CPU)["u"]).all()


@pytest.mark.parametrize("blind", ["left", "right", "both"])
def test_a_camera_that_sees_nothing_gives_no_observations(
    frontend: FrontEnd, pair: tuple[View, View], blind: str
) -> None:
    left, right = pair
    black = np.zeros_like(left.image)
    if blind != "right":
        left = look(frontend, black, left.camera)
    if blind != "left":
        right = look(frontend, black, right.camera)
    found = find_right(left, right, CONFIG, CPU)
    assert len(found) == len(left.result.features)
    assert np.isnan(found["u"]).all()


def test_images_of_two_scenes_give_next_to_no_observations(
    frontend: FrontEnd, pair: tuple[View, View]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320), np.uint8)
    other = look(frontend, cv2.GaussianBlur(noise, (0, 0), 1.5), pair[1].camera)
    assert np.isfinite(find_right(pair[0], other, CONFIG, CPU)["u"]).sum() <= 8


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
    seen = np.isfinite(found["u"])
    tracked = int((views[0].result.features["track_id"] > 0).sum())
    places = [
        (pixels(rows[seen]) + 0.5) / scale - 0.5 for rows in (views[0].result.features, found)
    ]
    errors = stereo_errors((places[0], places[1]), photographs.disparity) * scale[0]
    with capsys.disabled():
        print(
            f"\nmotorcycle at {size[0]}x{size[1]}: {tracked} tracked, {seen.sum()} seen by both, "
            f"median error {np.median(errors):.3f} px, within 1 px {np.mean(errors < 1):.1%}"
        )
    assert seen.sum() > 0.4 * tracked > 100
    assert np.median(errors) < 0.25
    assert np.mean(errors < 1) > 0.85
