"""Peers on images whose motion is known."""

import cv2
import numpy as np
import pytest

from d2_ros.evaluation.peers import (
    Chain,
    Klt,
    Sparse,
    gray8,
    join,
    mutual_nearest,
    orb,
    root_sift,
)

SHIFT = np.array([7.0, -4.0])


def texture():
    noise = np.random.default_rng(0).uniform(0, 255, (240, 320)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def shifted(image, shift=SHIFT):
    warp = np.column_stack([np.eye(2), shift])
    return cv2.warpAffine(image, warp, image.shape[::-1], borderMode=cv2.BORDER_REFLECT)


def everything(first, second):
    return np.ones(len(first), bool)


@pytest.mark.parametrize(("detect", "within"), [(root_sift, 0.5), (orb, 3.0)])
def test_matches_follow_the_shift(detect, within):
    image = texture()
    first, second = detect(image, 300), detect(shifted(image), 300)
    # SIFT keeps keypoints that share the last score; that may be a few too many.
    assert 100 < len(first.pixels) <= 310
    np.testing.assert_allclose(np.linalg.norm(first.descriptors, axis=1), 1, atol=1e-5)
    near, far = mutual_nearest(first, second)
    off = np.linalg.norm(second.pixels[far] - first.pixels[near] - SHIFT, axis=1)
    assert len(near) > 80
    assert np.mean(off < within) > 0.9


@pytest.mark.parametrize("detect", [root_sift, orb])
def test_an_empty_image_gives_nothing(detect):
    empty = detect(np.full((120, 160), 90, np.uint8), 100)
    assert len(empty.pixels) == 0
    near, far = mutual_nearest(empty, detect(texture(), 100))
    assert len(near) == len(far) == 0


def test_products_of_orb_rank_like_the_hamming_distance():
    image = texture()
    _, bits = cv2.ORB_create(nfeatures=50).detectAndCompute(image, None)
    products = orb(image, 50).descriptors @ orb(image, 50).descriptors[0]
    distance = np.unpackbits(bits ^ bits[0], axis=1).sum(axis=1)
    np.testing.assert_allclose(products, 1 - distance / 128, atol=1e-5)


def test_tracks_are_joined_by_id():
    near, far = join(np.array([5, 0, 9, 2]), np.array([0, 2, 7, 5]))
    assert near.tolist() == [3, 0]
    assert far.tolist() == [1, 3]


def test_a_chain_goes_on_through_verified_matches():
    def sparse(rows):
        pixels = np.column_stack([rows, rows]).astype(float)
        return Sparse(pixels, np.eye(8, dtype=np.float32)[rows])

    chain = Chain()
    assert chain.track(sparse([0, 1, 2]), everything).ids.tolist() == [1, 2, 3]
    # Row 1 is gone, row 5 is new, row 0 is cut by the verification.
    cut = chain.track(sparse([2, 5, 0]), lambda first, second: first[:, 0] > 0)
    assert cut.ids.tolist() == [3, 4, 5]
    assert chain.track(sparse([5, 2]), everything).ids.tolist() == [4, 3]


@pytest.mark.parametrize(("points", "spacing"), [(150, 30.0), (400, 8.0)])
def test_klt_follows_the_shift_and_is_replenished(points, spacing):
    image = texture()
    tracker = Klt(points, spacing)
    first = tracker.track(image, everything)
    second = tracker.track(shifted(image), everything)
    assert len(first.ids) <= points
    gaps = np.linalg.norm(first.pixels[:, None] - first.pixels, axis=2)
    assert gaps[~np.eye(len(gaps), dtype=bool)].min() >= spacing
    near, far = join(first.ids, second.ids)
    off = np.linalg.norm(second.pixels[far] - first.pixels[near] - SHIFT, axis=1)
    assert len(near) > 0.7 * len(first.ids)
    assert np.median(off) < 0.05
    fresh = ~np.isin(second.ids, first.ids)
    assert fresh.any()
    assert second.ids[fresh].min() > first.ids.max()


def test_klt_drops_what_the_verification_cuts_and_what_is_lost():
    image = texture()
    tracker = Klt(200, 10.0)
    first = tracker.track(image, everything)
    second = tracker.track(image, lambda before, now: before[:, 0] < 160)
    kept, _ = join(first.ids, second.ids)
    assert (first.pixels[kept, 0] < 160).all()
    lost = tracker.track(np.full_like(image, 80), everything)
    assert len(lost.ids) < 0.1 * len(second.ids)


def test_any_image_becomes_eight_bits():
    image = texture()
    np.testing.assert_array_equal(gray8(image.astype(np.uint16) * 257), image)
    np.testing.assert_array_equal(gray8(np.dstack([image] * 3)), image)
