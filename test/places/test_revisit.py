"""Two keyframes of one place: what geometry says, where patches are aligned, how it moved."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d2_ros.config import Config
from d2_ros.features.extractor import Extractor, Features, ResponseMap
from d2_ros.matching.early import early_pyramid
from d2_ros.places.place import MOST_KEYPOINTS, place_of_features
from d2_ros.places.revisit import revisit
from d2_ros.places.vlad import load_vocabulary, unit

CONFIG = Config()


def test_the_relative_pose_is_the_true_one(make_world):
    world = make_world()
    known, T_world_known = world.place(0, (0, 0, 0))
    place, T_world_place = world.place(100, (0.6, 0.1, 0.3), turn_deg=8)
    found = revisit(place, known, CONFIG)
    true = np.linalg.inv(T_world_place) @ T_world_known
    assert found.inliers >= 0.9 * found.matches
    turn = Rotation.from_matrix(found.rotation @ true[:3, :3].T).magnitude()
    assert np.degrees(turn) < 0.1
    along = found.direction @ true[:3, 3] / np.linalg.norm(true[:3, 3])
    assert np.degrees(np.arccos(min(along, 1))) < 1
    # Nothing in a blank image can be aligned: the places are those that were kept.
    assert not found.aligned
    np.testing.assert_array_equal(found.pixels, place.pixels[found.index])
    np.testing.assert_array_equal(found.known_pixels, known.pixels[found.known_index])
    np.testing.assert_allclose(found.covariance, np.tile(2 * np.eye(2), (len(found.index), 1, 1)))


def test_a_turn_without_a_move_has_no_direction(make_world):
    world = make_world()
    found = revisit(world.place(100, turn_deg=10)[0], world.place(0)[0], CONFIG)
    turn = Rotation.from_matrix(found.rotation).as_rotvec(degrees=True)
    np.testing.assert_allclose(turn, [0, -10, 0], atol=0.1)
    assert found.direction is None


def test_without_a_calibration_there_are_matches_and_no_pose(make_world):
    world = make_world()
    known, place = world.place(0)[0], world.place(9, (0.5, 0, 0), camera=None)[0]
    found = revisit(place, known, CONFIG)
    assert found.inliers > 100
    assert found.rotation is found.direction is None


def test_another_world_is_another_place(make_world):
    for seed in range(5):
        place, known = make_world(seed).place()[0], make_world(seed + 10).place()[0]
        assert revisit(place, known, CONFIG) is None


def test_like_things_elsewhere_are_another_place(make_world):
    # The same furniture in another arrangement: descriptors match, geometry does not.
    world, other = make_world(0), make_world(1)
    other.descriptors = world.descriptors
    assert revisit(world.place()[0], other.place()[0], CONFIG) is None


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_places_are_aligned_across_the_pair(shifted, gain):
    place, known = shifted((12, -7), lambda gray: np.rint(gain * gray).astype(np.uint8))
    found = revisit(place, known, CONFIG)
    assert found.aligned
    assert len(found.pixels) >= 40
    off = np.linalg.norm(found.pixels - found.known_pixels + [12, -7], axis=1)
    assert np.median(off) < 0.1  # 1.2 as detected
    sigma = np.sqrt(np.linalg.eigvalsh(found.covariance)[:, 1])
    assert np.median(sigma) < 0.3


def test_early_maps_align_what_gray_values_cannot(shifted):
    """The second image is the negative of the first."""
    place, known = shifted((12, -7), lambda gray: 255 - gray)
    assert not revisit(place, known, CONFIG).same_light
    extractor = Extractor(Config(device="cpu", precision="fp32", runtime="torch"))
    levels = CONFIG.alignment.levels
    found = revisit(
        place, known, CONFIG, lambda image: early_pyramid(extractor.early(image), levels)
    )
    assert found.aligned
    assert len(found.pixels) >= 40
    off = np.linalg.norm(found.pixels - found.known_pixels + [12, -7], axis=1)
    assert np.median(off) < 0.15  # 1.2 as detected


def test_where_nothing_can_be_aligned_the_detected_places_are_told(make_world):
    """Blank images, and early maps of them."""
    world = make_world()
    known, place = world.place(0)[0], world.place(100, (0.6, 0.1, 0.3))[0]
    extractor = Extractor(Config(device="cpu", precision="fp32", runtime="torch"))
    found = revisit(place, known, CONFIG, lambda image: early_pyramid(extractor.early(image), 3))
    assert not found.aligned
    np.testing.assert_array_equal(found.pixels, place.pixels[found.index])


def test_in_one_light_early_maps_are_not_asked_for(shifted):
    place, known = shifted((12, -7), lambda gray: gray)

    def never(image):
        raise AssertionError("gray values align these")

    assert revisit(place, known, CONFIG, never).same_light


def test_500_keypoints_with_an_image_take_the_bytes_that_are_said(monkeypatch):
    import torch

    rng = np.random.default_rng(0)
    rows = torch.from_numpy(unit(np.abs(rng.standard_normal((700, 512))).astype(np.float32)))
    features = Features(
        rng.uniform(0, 480, (700, 2)).astype(np.float32),
        np.tile(np.float32([[2, 0.5], [0.5, 1]]), (700, 1, 1)),
        np.ones(700, np.float32),
        rows,
        torch.zeros(700, dtype=torch.int64),
        ResponseMap(torch.zeros(512, 4, 4), np.ones(2)),
    )
    image = rng.integers(0, 255, (480, 640, 3), np.uint8)
    place = place_of_features(features, 5, image, None, load_vocabulary())
    assert len(place.pixels) == MOST_KEYPOINTS == 500
    assert place.image.shape == (240, 320)
    assert place.nbytes == 500 * (128 + 8 + 12) + 4 * 256 + 320 * 240
    assert place.nbytes <= 152_000
    np.testing.assert_array_equal(place.covariances[0], np.float32([2, 0.5, 1]))
    local = load_vocabulary().project(rows.numpy()[:500])
    error = place.unit_descriptors() @ place.unit_descriptors().T - local @ local.T
    assert np.abs(error).max() < 0.02  # of the 8 bits
    assert np.sqrt((error**2).mean()) < 0.003
