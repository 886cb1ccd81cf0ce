"""Carrying what was seen in an earlier view to the present one."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from d2_ros.config import Config, with_values
from d2_ros.features.extractor import Extractor
from d2_ros.matching.neighbours import no_matches
from d2_ros.sources.synthetic import open_synthetic
from d2_ros.tracks.carrying import Trail, arrive, carry_along, not_yet_carried, passed_by
from d2_ros.tracks.observations import detected
from d2_ros.tracks.seen import Seen
from d2_ros.tracks.view import view_of

SEQUENCE = "size=320x240,frames=40"
CONFIG = with_values(Config(), {"features.max_keypoints": 300})


@pytest.fixture(scope="module")
def extractor():
    return Extractor(CONFIG)


@pytest.fixture(scope="module")
def views(extractor):
    frames = islice(open_synthetic(SEQUENCE), 11)
    return [view_of(f.image, f.stamp, f.camera, extractor, CONFIG) for f in frames]


@pytest.fixture(scope="module")
def seen(views, extractor):
    frame = next(iter(open_synthetic(SEQUENCE)))
    (features,) = extractor.extract([frame.image])
    obs = detected(features, np.zeros(len(features.keypoints), np.int64))
    return Seen(views[0], obs, no_matches(), [], len(obs), followed=False, located=False)


def trail_of(views):
    trail = Trail()
    for view in views:
        trail.add(passed_by(view, None))
    return trail


def errors(carried, seen, frame):
    """Distance of each keypoint from where its surface point truly is, px."""
    truth = open_synthetic(SEQUENCE)
    points, planes = truth.surface(0, seen.obs.pixels[carried.rows])
    there, visible = truth.project(points, planes, frame)
    return np.linalg.norm(carried.places - there, axis=1)[visible]


def test_keypoints_are_carried_through_the_views_that_went_by(seen, views):
    carried = carry_along(seen, not_yet_carried(seen), trail_of(views[1:]))
    assert carried.stamp == views[-1].stamp
    assert len(carried.rows) > 0.5 * len(seen.obs)
    assert np.median(errors(carried, seen, len(views) - 1)) < 0.5


def test_a_trail_that_grows_meanwhile_leads_to_the_same_end(seen, views):
    part = carry_along(seen, not_yet_carried(seen), trail_of(views[1:5]))
    assert part.stamp == views[4].stamp
    whole = carry_along(seen, part, trail_of(views[1:9]))
    at_once = carry_along(seen, not_yet_carried(seen), trail_of(views[1:9]))
    np.testing.assert_array_equal(whole.rows, at_once.rows)
    np.testing.assert_array_equal(whole.places, at_once.places)


def test_tracks_that_were_followed_stay_where_they_were_found(seen, views):
    tracks = np.arange(1, len(seen.obs) + 1)
    known = replace(seen, obs=replace(seen.obs, tracks=tracks))
    few = np.arange(0, len(tracks), 10)
    followed = known.obs.select(few)
    followed = followed.at(followed.pixels + np.array([3.25, -1.5]), followed.affine * 1.5)
    here = arrive(known, not_yet_carried(known), views[1], followed)
    rows = here.obs.rows_of(tracks[few])
    assert (rows >= 0).all()
    np.testing.assert_array_equal(here.obs.pixels[rows], followed.pixels)
    np.testing.assert_array_equal(here.obs.affine[rows], followed.affine)
    assert here.located
    assert not here.followed
    assert here.detections <= len(here.obs)


def test_shorter_descriptors_are_carried_as_well(seen, views):
    short = replace(seen, obs=replace(seen.obs, descriptors=seen.obs.descriptors[:, :128]))
    here = arrive(short, not_yet_carried(short), views[1], None)
    assert here.obs.descriptors.shape == (len(here.obs), 128)


def test_too_few_are_nothing(seen, views, extractor):
    gray = np.full((240, 320), 128, np.uint8)
    blank = view_of(gray, views[1].stamp, None, extractor, CONFIG)
    assert arrive(seen, not_yet_carried(seen), blank, None) is None


def test_a_long_trail_forgets_every_second_view(views):
    trail = Trail()
    for number in range(100):
        trail.add(replace(passed_by(views[0], None), stamp=number))
    stamps = [passed.stamp for passed in trail.after(-1)]
    assert len(stamps) <= 32
    assert stamps[-1] == 99
    assert np.all(np.diff(stamps) > 0)
    assert np.max(np.diff(stamps)) <= 16
