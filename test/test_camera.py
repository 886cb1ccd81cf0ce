"""Camera models against their written definition and OpenCV; binning, ROI, bad calibrations."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_ros.camera import (
    MODELS,
    SAME_CAMERA,
    Camera,
    HeldCamera,
    from_calibration,
    same_camera,
)
from d2_ros.errors import D2RosError

K = np.array([[458.654, 0.0, 367.215], [0.0, 457.296, 248.375], [0.0, 0.0, 1.0]])
WIDTH, HEIGHT = 752, 480
# Calibrations as they occur: EuRoC, a wide lens, a fisheye.
DISTORTIONS = {
    "plumb_bob": [-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05, 0.01],
    "rational_polynomial": [0.3, -0.05, 1e-4, -2e-4, 0.01, 0.62, -0.02, 0.015],
    "equidistant": [-0.0136, 0.0205, -0.0125, 0.0026],
}
GRID = np.stack(np.meshgrid(np.linspace(0, WIDTH - 1, 12), np.linspace(0, HEIGHT - 1, 9)), -1)
GRID = GRID.reshape(-1, 2)


def camera(model, scale=1.0, count=None):
    coefficients = np.array(DISTORTIONS[model]) * scale
    return Camera(WIDTH, HEIGHT, K, coefficients[:count], model)


def defined_projection(model, d, points):
    """The models as their papers and the CameraInfo message define them."""
    x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
    r2 = x * x + y * y
    if model == "equidistant":
        r = np.sqrt(r2)
        theta = np.arctan(r)
        bent = theta * (1 + sum(d[i] * theta ** (2 * i + 2) for i in range(4)))
        ratio = np.where(r > 1e-12, bent / np.maximum(r, 1e-12), 1.0)
        return np.column_stack([x * ratio, y * ratio]) @ K[:2, :2].T + K[:2, 2]
    k1, k2, p1, p2, k3, k4, k5, k6 = np.concatenate([d, np.zeros(8)])[:8]
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return (
        np.column_stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
            ]
        )
        @ K[:2, :2].T
        + K[:2, 2]
    )


scales = st.floats(-0.3, 1.0)
pixels = st.lists(
    st.tuples(st.floats(-0.5, WIDTH - 0.5), st.floats(-0.5, HEIGHT - 0.5)), min_size=1, max_size=20
)
directions = st.lists(
    st.tuples(st.floats(-0.7, 0.7), st.floats(-0.5, 0.5), st.floats(0.1, 50.0)),
    min_size=1,
    max_size=20,
).map(lambda rows: np.array([(x * z, y * z, z) for x, y, z in rows]))


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=40, deadline=None)
@given(scale=scales, points=pixels)
def test_pixels_survive_the_way_to_bearings_and_back(model, scale, points):
    subject = camera(model, scale)
    bearings = subject.bearings(points)
    assert bearings.shape == (len(points), 3)
    assert (bearings[:, 2] == 1).all()  # all of this image lies before the turning point
    np.testing.assert_allclose(subject.project(bearings), points, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=40, deadline=None)
@given(scale=scales, points=directions)
def test_projection_is_the_model_as_defined_and_ignores_depth(model, scale, points):
    subject = camera(model, scale)
    expected = defined_projection(model, subject.distortion, points)
    np.testing.assert_allclose(subject.project(points), expected, atol=1e-8)
    np.testing.assert_allclose(subject.project(points * 7.0), expected, atol=1e-8)


@pytest.mark.parametrize("model", MODELS)
def test_bearings_agree_with_opencv(model):
    subject = camera(model)
    shaped = GRID[:, None]
    if model == "equidistant":
        flat = cv2.fisheye.undistortPoints(shaped, K, subject.distortion)
    else:
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-14)
        flat = cv2.undistortPointsIter(
            shaped, K, subject.distortion, np.eye(3), np.eye(3), criteria
        )
    np.testing.assert_allclose(subject.bearings(GRID)[:, :2], flat[:, 0], atol=1e-7)


def test_the_optical_axis_meets_the_principal_point():
    for model in MODELS:
        np.testing.assert_allclose(camera(model).project([[0, 0, 3.0]]), [[367.215, 248.375]])


def test_no_points_are_no_trouble():
    for model in MODELS:
        assert camera(model).bearings(np.empty((0, 2))).shape == (0, 3)
        assert camera(model).project(np.empty((0, 3))).shape == (0, 2)


def test_four_and_no_coefficients_mean_zeros():
    four = camera("plumb_bob", count=4)
    np.testing.assert_array_equal(
        four.bearings(GRID),
        Camera(WIDTH, HEIGHT, K, [*four.distortion, 0.0]).bearings(GRID),
    )
    ideal = Camera(WIDTH, HEIGHT, K, [])
    np.testing.assert_allclose(
        ideal.bearings(GRID)[:, :2], (GRID - K[:2, 2]) / [K[0, 0], K[1, 1]], atol=1e-12
    )


def test_focal_is_the_mean_of_both():
    assert camera("plumb_bob").focal == pytest.approx((458.654 + 457.296) / 2)


@settings(max_examples=40, deadline=None)
@given(
    bins=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    offset=st.tuples(st.integers(0, 200), st.integers(0, 100)),
    model=st.sampled_from(sorted(MODELS)),
    points=directions,
)
def test_binning_and_roi_move_every_pixel_exactly(bins, offset, model, points):
    # Pixel i of a binned image is the mean of `bins` sensor pixels from offset + i * bins on,
    # so its centre lies at offset + i * bins + (bins - 1) / 2 of the full sensor.
    size = (WIDTH - 240, HEIGHT - 120)
    part = from_calibration(
        WIDTH, HEIGHT, model, K.ravel(), DISTORTIONS[model], binning=bins, roi=(*offset, *size)
    )
    assert (part.width, part.height) == (size[0] // bins[0], size[1] // bins[1])
    on_part = part.project(points)
    on_sensor = np.array(offset) + on_part * bins + (np.array(bins) - 1) / 2
    np.testing.assert_allclose(on_sensor, camera(model).project(points), atol=1e-8)


def test_zero_binning_and_roi_mean_the_whole_sensor():
    full = from_calibration(WIDTH, HEIGHT, "plumb_bob", K.ravel(), DISTORTIONS["plumb_bob"])
    assert (full.width, full.height) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(full.matrix, K)
    np.testing.assert_array_equal(full.distortion, DISTORTIONS["plumb_bob"])


def test_the_caller_keeps_its_matrix():
    k = K.copy()
    from_calibration(WIDTH, HEIGHT, "plumb_bob", k, [], binning=(2, 2))
    np.testing.assert_array_equal(k, K)


def test_rectified_images_use_p_without_distortion():
    p = np.array([[430.0, 0, 360, 5], [0, 430, 240, 0], [0, 0, 1, 0]])
    rectified = from_calibration(
        WIDTH, HEIGHT, "equidistant", K, DISTORTIONS["equidistant"], p, rectified=True
    )
    np.testing.assert_allclose(
        rectified.bearings(GRID)[:, :2], (GRID - [360, 240]) / 430, atol=1e-12
    )
    with pytest.raises(D2RosError, match="projection matrix P"):
        from_calibration(WIDTH, HEIGHT, "plumb_bob", K, [], rectified=True)


def test_a_camera_info_without_model_is_plumb_bob():
    assert from_calibration(WIDTH, HEIGHT, "", K, []).model == "plumb_bob"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"matrix": np.zeros((3, 3))}, "focal lengths 0 and 0.*not calibrated"),
        ({"matrix": np.diag([-400.0, 400.0, 1.0])}, "focal lengths -400 and 400"),
        ({"matrix": np.full((3, 3), np.nan)}, "NaN"),
        ({"distortion": [0.1, np.inf, 0, 0]}, "infinity"),
        ({"distortion": [0.1, 0.2, 0.3]}, "plumb_bob.* 3 coefficients"),
        ({"model": "equidistant", "distortion": [0.1] * 5}, "equidistant.* 5 coefficients"),
        ({"model": "rational_polynomial", "distortion": []}, "rational_polynomial.* 0 coeff"),
        ({"model": "kannala"}, "'kannala' is unknown.*plumb_bob"),
    ],
)
def test_bad_calibrations_are_refused(change, words):
    good = {"width": WIDTH, "height": HEIGHT, "matrix": K, "distortion": []}
    with pytest.raises(D2RosError, match=words):
        Camera(**good | change)


def changed(subject, matrix=0.0, distortion=0.0, **fields):
    """The camera with something added to its parameters, or other fields."""
    values = {name: getattr(subject, name) for name in ("width", "height", "model")} | fields
    return Camera(
        matrix=subject.matrix + matrix, distortion=subject.distortion + distortion, **values
    )


@pytest.mark.parametrize("model", MODELS)
def test_cameras_are_the_same_by_what_they_say_of_the_image(model):
    subject, shift = camera(model), np.array([[0, 0, 1.0], [0, 0, 0], [0, 0, 0]])
    assert same_camera(subject, changed(subject))
    assert same_camera(subject, changed(subject, 0.01 * shift))
    assert same_camera(subject, changed(subject, 0.98 * SAME_CAMERA * shift))
    assert not same_camera(subject, changed(subject, 1.02 * SAME_CAMERA * shift))
    # A focal length counts by what it does at the border, here 0.8 px a px of it.
    focal = np.diag([1.0, 0, 0])
    assert same_camera(subject, changed(subject, 0.02 * focal))
    assert not same_camera(subject, changed(subject, 0.2 * focal))
    assert same_camera(subject, changed(subject, distortion=1e-7))
    assert not same_camera(subject, changed(subject, distortion=1e-2))


def test_cameras_of_other_sizes_and_models_differ_and_none_is_like_none_only():
    subject = Camera(WIDTH, HEIGHT, K, np.zeros(4))
    assert same_camera(subject, changed(subject))
    assert same_camera(subject, Camera(WIDTH, HEIGHT, K, []))  # no coefficients are zeros
    assert not same_camera(subject, changed(subject, width=WIDTH + 1))
    assert not same_camera(subject, changed(subject, height=HEIGHT - 1))
    assert not same_camera(subject, changed(subject, model="equidistant"))
    assert same_camera(None, None)
    assert not same_camera(None, subject)
    assert not same_camera(subject, None)


def turning_point(model, d):
    """Distance from the axis, unit focal length, beyond which the first branch has nothing."""
    angle = np.linspace(0, np.pi / 2, 40_001)[:-1]
    r = angle if model == "equidistant" else np.tan(angle)
    with np.errstate(all="ignore"):
        if model == "equidistant":
            bent = r * (1 + sum(d[i] * r ** (2 * i + 2) for i in range(4)))
        else:
            k1, k2, _, _, k3, k4, k5, k6 = np.concatenate([d, np.zeros(8)])[:8]
            below = 1 + k4 * r**2 + k5 * r**4 + k6 * r**6
            bent = r * (1 + k1 * r**2 + k2 * r**4 + k3 * r**6) / below
        turned = np.flatnonzero(~(np.diff(bent) > 0))
    return bent[turned[0] if len(turned) else -1]


small = st.floats(-1e-3, 1e-3)
strong = {
    "plumb_bob": st.tuples(
        st.floats(-0.6, 0.6), st.floats(-0.4, 0.4), small, small, st.floats(-0.1, 0.1)
    ),
    "rational_polynomial": st.tuples(
        *[st.floats(-0.6, 0.6)] * 2, small, small, *[st.floats(-0.4, 0.6)] * 4
    ),
    "equidistant": st.tuples(*[st.floats(-0.2, 0.2)] * 4),
}


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=300, deadline=None)
@given(
    data=st.data(), rays=st.lists(st.tuples(st.floats(0, 3), st.floats(-3.15, 3.15)), min_size=9)
)
def test_a_pixel_has_a_bearing_up_to_the_turning_point_and_none_beyond(model, data, rays):
    coefficients = np.array(data.draw(strong[model]))
    subject = Camera(WIDTH, HEIGHT, K, coefficients, model)
    distance, around = np.array(rays).T
    places = distance[:, None] * np.column_stack([np.cos(around), np.sin(around)])
    pixels = places @ K[:2, :2].T + K[:2, 2]
    bearings = subject.bearings(pixels)
    known = np.isfinite(bearings).all(1)
    assert (known == np.isfinite(bearings).any(1)).all()  # all three or none
    assert (bearings[known, 2] == 1).all()
    # The way back is OpenCV's projection, the way there is not.
    np.testing.assert_allclose(subject.project(bearings)[known], pixels[known], atol=1e-3)
    # Tangential distortion of up to 1e-3 moves the turning point by a little.
    end, slack = turning_point(model, coefficients), 0.0 if model == "equidistant" else 0.01
    assert known[distance < (end - slack) * (0.98 - slack)].all()
    assert not known[distance > (end + slack) * (1.02 + slack)].any()
    outwards = (bearings[:, :2] * places).sum(1)
    assert (outwards[known & (distance > 0.02)] > 0).all()


def test_a_fisheye_has_no_bearing_at_90_degrees_and_beyond():
    # The field's case: bearings flipped to the opposite side, x = +133.8 at 88.8 degrees and
    # -39.1 at 90.0.
    ideal = Camera(640, 480, [[150, 0, 320], [0, 150, 240], [0, 0, 1]], [0] * 4, "equidistant")
    degrees = np.array([10, 80, 88.8, 89.9, 90.0, 90.1, 100, 119])
    pixels = np.column_stack([320 + 150 * np.radians(degrees), np.full(8, 240)])
    bearings = ideal.bearings(pixels)
    np.testing.assert_allclose(bearings[:4, 0], np.tan(np.radians(degrees[:4])), rtol=1e-9)
    assert np.isnan(bearings[4:]).all()


def test_a_fisheye_has_no_bearing_where_newton_lands_on_the_opposite_side():
    # Found by CI: -2.37 rad, which has the tangent of 0.77 rad, 489 px from the pixel.
    lens = Camera(WIDTH, HEIGHT, K, [0, -0.010670231041902734, 0, 1e-5], "equidistant")
    pixels = K[:2, 2] + K[0, 0] * np.array([[1.8359375, 0], [-1.8359375, 0], [1.46, 0]])
    assert np.isfinite(lens.bearings(pixels)).all(1).tolist() == [False, False, True]


def test_a_fisheye_whose_image_is_wider_than_its_angles_keeps_all_that_it_sees():
    # OpenCV cuts distorted angles at 90 degrees, also where they are of less.
    wide = Camera(
        640, 480, [[150, 0, 320], [0, 150, 240], [0, 0, 1]], [0.1, 0, 0, 0], "equidistant"
    )
    theta = np.radians([60, 80, 89])
    pixels = np.column_stack([320 + 150 * (theta + 0.1 * theta**3), np.full(3, 240)])
    assert np.degrees(pixels[1:, 0] - 320).min() / 150 > 90
    np.testing.assert_allclose(wide.bearings(pixels)[:, 0], np.tan(theta), rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(tilt=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)), points=pixels)
def test_thin_prisms_and_tilted_sensors_are_inverted_too(tilt, points):
    # A lens on a tilted sensor (Scheimpflug): all 14 coefficients.
    d = [*DISTORTIONS["rational_polynomial"], 1e-3, -2e-4, -1e-3, 3e-4, *tilt]
    subject = Camera(WIDTH, HEIGHT, K, d, "rational_polynomial")
    np.testing.assert_allclose(subject.project(subject.bearings(points)), points, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_not_in_front_or_beyond_the_turning_point_has_no_pixel(model):
    subject = camera(model)
    assert np.isnan(subject.project([[0.1, 0.1, -1.0], [0.1, 0.1, 0.0], [np.nan, 0, 1]])).all()
    barrel = Camera(WIDTH, HEIGHT, K, [-0.4, 0, 0, 0])  # turns at r = 1 / sqrt(1.2)
    edge = 1 / np.sqrt(1.2)
    seen = np.isfinite(barrel.project([[0.99 * edge, 0, 1], [1.01 * edge, 0, 1]])).all(1)
    assert seen.tolist() == [True, False]


def test_pixels_that_are_no_numbers_have_no_bearing():
    for model in MODELS:
        bearings = camera(model).bearings([[np.nan, 0.0], [0.0, np.inf], [10.0, 10.0]])
        assert np.isfinite(bearings).all(1).tolist() == [False, False, True]


def test_the_held_camera_ignores_jitter_and_zeros_and_finds_slow_drift():
    size, subject, held = (WIDTH, HEIGHT), camera("plumb_bob"), HeldCamera()
    shift = np.array([[0, 0, 1.0], [0, 0, 0], [0, 0, 0]])
    assert held.update(subject, size) == (subject, "")
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert held.update(changed(subject, rng.normal(0, 0.01) * shift), size) == (subject, "")
        assert held.update(None, size) == (None, "")
        assert held.calibrated
    # Each step is below the tolerance, and so is no reason by itself.
    drifted = [changed(subject, 0.02 * step * shift) for step in range(7)]
    said = [held.update(step, size) for step in drifted]
    assert [change for _, change in said] == [
        "",
        "",
        "",
        *["the calibration changed", "", ""],
        "the calibration changed",
    ]
    assert [used for used, _ in said] == [subject] * 3 + [drifted[3]] * 3 + [drifted[6]]


def test_the_held_camera_tells_what_ends_a_window():
    size, subject, held = (WIDTH, HEIGHT), camera("plumb_bob"), HeldCamera()
    assert held.update(None, size) == (None, "")
    assert not held.calibrated
    assert held.update(subject, size) == (subject, "a calibration came")
    half = Camera(WIDTH // 2, HEIGHT // 2, K, [])
    assert held.update(half, (WIDTH // 2, HEIGHT // 2)) == (half, "the size of the images changed")
    assert held.update(None, size) == (None, "the size of the images changed")
    assert not held.calibrated
    held.forget()
    assert held.update(subject, size) == (subject, "")


@pytest.mark.parametrize(
    ("model", "given", "taken"),
    [
        ("plumb_bob", [-0.2, 0.1, 0.001, 0.002, -0.01, 0, 0, 0], 5),  # Orbbec's drivers
        ("plumb_bob", [-0.2, 0.1, 0.001, 0.002] + [0] * 8, 4),
        ("plumb_bob", [0] * 14, 0),
        ("none", [], 0),
        ("none", [0] * 5, 0),
        ("", [], 0),
        ("fisheye", [-0.01, 0.02, -0.01, 0.003], 4),
        ("equidistant", [-0.01, 0.02, -0.01, 0.003, 0], 4),
        ("fisheye", [-0.01, 0.02, -0.01, 0, 0, 0, 0, 0], 4),
        ("rational_polynomial", [-0.2, 0.1, 0.001, 0.002, -0.01], 5),
        ("rational_polynomial", [0.3, -0.05, 1e-4, -2e-4, 0.01, 0.62, -0.02, 0.015, 0], 8),
    ],
)
def test_what_drivers_pad_and_how_they_name_it_changes_nothing(model, given, taken):
    read = from_calibration(WIDTH, HEIGHT, model, K, given)
    known = {"fisheye": "equidistant", "none": "plumb_bob", "": "plumb_bob"}.get(model, model)
    assert read.model == known
    assert read.distortion.tolist() == given[:taken]
    assert same_camera(read, Camera(WIDTH, HEIGHT, K, given[:taken], known))


@pytest.mark.parametrize(
    ("model", "d", "k", "words"),
    [
        ("plumb_bob", [0.1] * 8, K, "8 coefficients.*or be named rational_polynomial"),
        ("equidistant", [0.1] * 5, K, "5 coefficients; it must have 4, or be named plumb_bob"),
        ("equidistant", [], K, "0 coefficients"),
        ("plumb_bob", [0.0] * 15, K, "15 coefficients"),
        ("none", [0.1, 0, 0, 0, 0], K, r"'none' comes with coefficients \[0.1, .*name their model"),
        ("plumb_bob", [], K.T, "last row of K is .*row-major"),
        ("plumb_bob", [np.nan] * 5, K, "NaN"),
        ("plumb_bob", [], np.where(K == 0, np.nan, K), "NaN"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_remedy(model, d, k, words):
    with pytest.raises(D2RosError, match=words):
        from_calibration(WIDTH, HEIGHT, model, k, d)


def test_a_calibration_without_a_size_takes_the_images():
    read = from_calibration(0, 0, "plumb_bob", K, [])
    assert (read.width, read.height) == (0, 0)
    fitted = read.at_size(WIDTH, HEIGHT)
    assert same_camera(fitted, Camera(WIDTH, HEIGHT, K, []))
    assert fitted.at_size(2 * WIDTH, HEIGHT) is fitted  # its own counts, where it has one
    with pytest.raises(D2RosError, match="binning 800x800 leaves nothing of 752x480"):
        from_calibration(WIDTH, HEIGHT, "plumb_bob", K, [], binning=(800, 800))
