"""The report is one page that holds its figures and pictures itself."""

import base64
import re

import cv2
import numpy as np
import pytest

from d2_ros.errors import D2RosError
from d2_ros.evaluation.accuracy import TrackErrors, accuracy_figures
from d2_ros.evaluation.plots import error_over_time
from d2_ros.evaluation.report import write_report


def errors(count=300, chi2=2.0):
    rng = np.random.default_rng(0)
    return TrackErrors(
        frame=rng.integers(1, 20, count),
        track_id=rng.integers(1, 50, count),
        age=rng.integers(1, 20, count),
        error=rng.exponential(0.1, count),
        error_detected=rng.exponential(1.5, count),
        chi2=np.full(count, chi2),
        visible=np.ones(count, bool),
        lengths=rng.integers(1, 20, 50),
        frames=20,
    )


def pictures(page):
    """Decode every image of the page."""
    encoded = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    raw = [np.frombuffer(base64.b64decode(text), np.uint8) for text in encoded]
    return [cv2.imdecode(data, cv2.IMREAD_COLOR) for data in raw]


def test_the_page_states_figures_and_shows_pictures(tmp_path):
    overlay = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "overlay.png"), overlay)
    judged = errors()
    figures = {**accuracy_figures(judged), "size_px": "<320x240>"}
    write_report(
        tmp_path,
        figures,
        judged,
        blur_frames=range(5, 8),
        exposure_frames=range(10, 15),
        overlay=tmp_path / "overlay.png",
    )
    page = (tmp_path / "report.html").read_text()
    text = (tmp_path / "report.md").read_text()
    for content in (page, text):
        for key in ("median_error_px", "p90_error_px", "median_error_detected_px"):
            assert f"{figures[key]:.3f} px" in content
        assert "300 observations of 50 tracks in 20 frames" in content
    assert "&lt;320x240&gt;" in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched
    shown = pictures(page)
    assert len(shown) == 5
    assert (shown[0] == overlay).all()
    assert all(picture.std() > 5 for picture in shown)


def test_stretches_are_marked():
    drawn = [error_over_time(errors(), stretch, range(0)) for stretch in (range(0), range(5, 15))]
    images = [cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR) for png in drawn]
    gray = [(np.ptp(image, axis=2) < 3) & (image[..., 0] < 240) for image in images]
    assert gray[1].mean() > gray[0].mean() + 0.1


def test_without_covariances_nothing_is_said_of_them(tmp_path):
    judged = errors(chi2=np.nan)
    write_report(tmp_path, accuracy_figures(judged), judged)
    page = (tmp_path / "report.html").read_text()
    assert len(pictures(page)) == 3
    assert "covariances" not in page


def test_files_that_cannot_be_used_are_named(tmp_path):
    judged = errors()
    figures = accuracy_figures(judged)
    with pytest.raises(D2RosError, match=r"report\.html"):
        write_report(tmp_path / "missing", figures, judged)
    with pytest.raises(D2RosError, match=r"no_overlay\.png"):
        write_report(tmp_path, figures, judged, overlay=tmp_path / "no_overlay.png")
