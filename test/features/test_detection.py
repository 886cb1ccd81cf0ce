import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from d2_ros.features import detection
from d2_ros.features.detection import detect, fit, redetect, sample, spread


def detect_in_all_channels(values):
    """The detector of the paper, written out: dense filters and pooling over every channel.

    Returns sub-cell (column, row) and channel of each keypoint, in row-major order of the cells.
    """
    _, height, width = values.shape
    strongest = values == values.max(0).values
    local = values == F.max_pool2d(values[None], 3, 1, 1)[0]

    def filtered(kernel):
        weight = torch.tensor(kernel, dtype=values.dtype)[None, None]
        return F.conv2d(values[:, None], weight, padding=1)[:, 0]

    yy = filtered([[0.0, 1, 0], [0, -2, 0], [0, 1, 0]])
    xx = filtered([[0.0, 0, 0], [1, -2, 1], [0, 0, 0]])
    xy = filtered([[0.25, 0, -0.25], [0, 0, 0], [-0.25, 0, 0.25]])
    y = filtered([[0.0, -0.5, 0], [0, 0, 0], [0, 0.5, 0]])
    x = filtered([[0.0, 0, 0], [-0.5, 0, 0.5], [0, 0, 0]])
    det = xx * yy - xy**2
    off_edge = (det > 0) & ((xx + yy) ** 2 / det <= (5 + 1) ** 2 / 5)
    found = []
    for channel, row, column in (strongest & local & off_edge).nonzero().tolist():
        if not (0 < row < height - 1 and 0 < column < width - 1):
            continue  # the rim saw padding: left out on purpose
        place = (channel, row, column)
        hessian = np.array([[xx[place], xy[place]], [xy[place], yy[place]]], np.float64)
        step = -np.linalg.solve(hessian, [float(x[place]), float(y[place])])
        if (np.abs(step) < 0.5).all():
            found.append((row, column, column + step[0], row + step[1], channel))
    return np.array(sorted(found))[:, 2:]


def test_winning_channel_alone_finds_what_all_channels_find(response):
    expected = detect_in_all_channels(response.values)
    peaks = detect(response.values)
    got = np.column_stack([peaks.cells.numpy(), peaks.channels.numpy()])
    assert len(expected) > 150
    assert len(got) == len(expected)
    np.testing.assert_array_equal(got[:, 2], expected[:, 2])
    np.testing.assert_allclose(got[:, :2], expected[:, :2], atol=1e-3)


def test_score_is_the_soft_score_of_the_paper(response):
    """alpha * beta over the dense map, on the paper's formula at our exponent's unit."""
    values = response.values.double()
    exponential = (values / detection.SCORE_UNIT).exp()
    alpha = exponential[:, 1:-1, 1:-1] / (9 * F.avg_pool2d(exponential, 3, 1))
    beta = values / values.max(0).values
    peaks = detect(response.values)
    column, row = peaks.cells.round().long().unbind(1)
    expected = (alpha * beta[:, 1:-1, 1:-1])[peaks.channels, row - 1, column - 1]
    torch.testing.assert_close(peaks.scores.double(), expected, rtol=1e-4, atol=1e-6)
    assert ((peaks.scores > 1 / 9) & (peaks.scores <= 1)).all()


def parabola(u, v, xx=-20.0, yy=-12.0, xy=3.0):
    """Nine values of a quadratic with its top, 100, at (u, v) from the middle."""
    rows, columns = np.mgrid[-1:2, -1:2]
    x, y = columns - u, rows - v
    return torch.tensor(100 + xx / 2 * x**2 + yy / 2 * y**2 + xy * x * y).float().reshape(1, 9)


@given(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
@settings(max_examples=50, deadline=None)
def test_top_and_width_of_a_parabola_are_exact(u, v):
    result = fit(parabola(u, v))
    assert result.is_peak.all()
    np.testing.assert_allclose(result.steps[0], [u, v], atol=1e-4)
    middle = float(parabola(u, v)[0, 4])
    expected = -middle * np.linalg.inv([[-20.0, 3.0], [3.0, -12.0]])
    np.testing.assert_allclose(result.spreads[0], expected, rtol=1e-4)


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param(parabola(0, 0, xx=-20, yy=-1, xy=0), id="edge"),
        pytest.param(parabola(0, 0, xx=-20, yy=1, xy=0), id="saddle"),
        pytest.param(parabola(0, 0, xx=20, yy=20, xy=0), id="pit"),
        pytest.param(parabola(0.8, 0), id="top in the next cell"),
        pytest.param(torch.zeros(1, 9), id="nothing"),
        pytest.param(torch.full((1, 9), 7.0), id="flat"),
    ],
)
def test_what_is_no_peak_is_refused(patch):
    result = fit(patch)
    assert not result.is_peak.any()
    assert result.steps.isfinite().all()
    assert result.spreads.isfinite().all()


def test_a_plateau_of_two_equal_cells_counts_once():
    values = torch.zeros(1, 5, 6)
    values[0, 2, 2:4] = 10
    values[0, 1, 2:4] = values[0, 3, 2:4] = 4
    values[0, 2, 1] = values[0, 2, 4] = 3
    peaks = detect(values)
    assert peaks.cells.tolist() == [[pytest.approx(2.5, abs=1e-4), 2.0]]


def test_low_precision_maps_keep_nearly_all_keypoints(response):
    full = detect(response.values).cells
    half = detect(response.values.half()).cells
    distance = torch.cdist(full, half).min(1).values
    assert (distance < 0.25).float().mean() > 0.95


def redetect_slowly(values, predicted, channels, radius):
    _, height, width = values.shape
    rows = []
    for (u, v), channel in zip(predicted.tolist(), channels.tolist(), strict=True):
        best, column, row = None, round(u), round(v)
        for i in range(row - radius, row + radius + 1):
            for j in range(column - radius, column + radius + 1):
                if not (0 < i < height - 1 and 0 < j < width - 1):
                    continue
                one = fit(values[channel, i - 1 : i + 2, j - 1 : j + 2].reshape(1, 9))
                value = float(values[channel, i, j])
                if one.is_peak[0] and (best is None or value > best[0]):
                    share = value / float(values[:, i, j].max())
                    step = one.steps[0].tolist()
                    best = (value, j + step[0], i + step[1], float(one.sharpness[0]) * share)
        rows.append((True, *best[1:]) if best else (False, u, v, 0.0))
    return np.array(rows)


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_redetection_equals_a_plain_search(response, radius):
    random = np.random.default_rng(1)
    peaks = detect(response.values)
    some = torch.from_numpy(random.choice(len(peaks.cells), 60, replace=False))
    moved = peaks.cells[some] + torch.from_numpy(random.uniform(-2, 2, (60, 2))).float()
    places = torch.cat([moved, torch.tensor([[-50.0, 3.0], [1e9, -1e9], [0.0, 0.0]])])
    channels = torch.cat([peaks.channels[some], torch.tensor([0, 511, 3])])
    found, cells, scores = redetect(response.values, places, channels, radius)
    expected = redetect_slowly(response.values, places.clamp(-1e6, 1e6), channels, radius)
    np.testing.assert_array_equal(found.numpy(), expected[:, 0].astype(bool))
    kept = found.numpy()
    np.testing.assert_allclose(cells.numpy()[kept], expected[kept, 1:3], atol=1e-4)
    np.testing.assert_array_equal(cells[~found], places[~found])
    np.testing.assert_allclose(scores.numpy(), expected[:, 3], atol=1e-5)
    assert 0 < kept.sum() < len(kept)


def test_redetection_at_a_keypoint_returns_it(response):
    peaks = detect(response.values)
    found, cells, scores = redetect(response.values, peaks.cells, peaks.channels, 0)
    assert found.all()
    torch.testing.assert_close(cells, peaks.cells)
    torch.testing.assert_close(scores, peaks.scores)


def test_descriptors_are_bilinear_and_of_unit_length(response):
    values = response.values
    random = np.random.default_rng(2)
    _, height, width = values.shape
    cells = random.uniform(0, 1, (40, 2)) * [width - 1, height - 1]
    got = sample(values, torch.from_numpy(cells))
    for (u, v), row in zip(cells, got, strict=True):
        i, j = int(v), int(u)
        a, b = u - j, v - i
        top = (1 - a) * values[:, i, j] + a * values[:, i, j + 1]
        bottom = (1 - a) * values[:, i + 1, j] + a * values[:, i + 1, j + 1]
        expected = F.normalize((1 - b) * top + b * bottom, dim=0)
        torch.testing.assert_close(row, expected.float(), atol=1e-5, rtol=1e-4)


def test_descriptors_beyond_the_map_are_those_of_its_rim(response):
    _, height, width = response.values.shape
    corner = torch.tensor([[width - 1.0, height - 1.0], [0.0, 0.0]])
    beyond = torch.tensor([[width + 9.0, height + 9.0], [-5.0, -7.0]])
    torch.testing.assert_close(sample(response.values, beyond), sample(response.values, corner))
    expected = F.normalize(response.values[:, -1, -1], dim=0)
    torch.testing.assert_close(sample(response.values, corner)[0], expected)


def test_a_cell_that_is_all_zero_gives_a_zero_descriptor():
    assert sample(torch.zeros(8, 4, 4), torch.tensor([[1.5, 1.5]])).tolist() == [[0.0] * 8]


def spread_slowly(cells, scores, size, most):
    boxes = {}
    for index in sorted(range(len(cells)), key=lambda i: (-scores[i], i)):
        boxes.setdefault(tuple(int(x // size) for x in cells[index]), []).append(index)
    chosen = []
    for rank in range(len(cells)):
        layer = [box[rank] for box in boxes.values() if len(box) > rank]
        chosen += sorted(layer, key=lambda i: (-scores[i], i))
    return chosen[:most]


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30), st.integers(0, 4)), max_size=60),
    st.integers(1, 20),
    st.integers(1, 70),
)
@settings(max_examples=80, deadline=None)
def test_spread_takes_the_best_of_each_box_in_rounds(points, size, most):
    table = torch.tensor(points, dtype=torch.float32).reshape(-1, 3)
    got = spread(table[:, :2], table[:, 2], float(size), most)
    assert got.tolist() == spread_slowly(table[:, :2].tolist(), table[:, 2].tolist(), size, most)
