from pathlib import Path

import numpy as np
import pytest

from d2_ros.errors import D2RosError
from d2_ros.sources.base import Frame, UnusableFrame
from d2_ros.sources.cut import cut
from d2_ros.sources.files import ImageFiles


class Plain:
    """Ten frames and then damage; says that it has `length`."""

    name = "plain"

    def __init__(self, length=10):
        self.length = length

    def __len__(self):
        return self.length

    def __iter__(self):
        for number in range(10):
            yield Frame(number + 1, np.zeros((4, 4), np.uint8), None)
        raise D2RosError("plain is cut short")

    def poses(self):
        return np.arange(10.0)[:, None, None] * np.ones((4, 4))


def stamps(source):
    return [frame.stamp for frame in source]


def test_all_of_a_source_is_the_source():
    source = Plain()
    assert cut(source) is source


def test_frames_length_and_poses_are_of_the_stretch():
    part = cut(Plain(), start=3, frames=4)
    assert (part.name, len(part), stamps(part)) == ("plain", 4, [4, 5, 6, 7])
    assert stamps(part) == [4, 5, 6, 7]  # iterating twice gives the same
    np.testing.assert_array_equal(part.poses()[:, 0, 0], [3, 4, 5, 6])


def test_a_stretch_that_ends_before_the_damage_does_not_meet_it():
    assert stamps(cut(Plain(), frames=10)) == list(range(1, 11))
    with pytest.raises(D2RosError, match="cut short"):
        stamps(cut(Plain(), frames=11))


def test_image_files_that_are_skipped_are_not_read(tmp_path):
    files = tuple(tmp_path / f"{number}.png" for number in range(5))  # none of them is there
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3] = np.arange(5)
    part = cut(ImageFiles("folder", np.array([5, 4, 3, 2, 1]), files, None, poses), 1, 3)
    assert (len(part), part.stamps.tolist()) == (3, [2, 3, 4])  # in time order first
    assert [file.name for file in part.files] == ["3.png", "2.png", "1.png"]
    np.testing.assert_array_equal(part.poses()[:, 0, 3], [3, 2, 1])


def test_an_underestimated_length_hides_no_frames():
    assert stamps(cut(Plain(length=5), start=8, frames=2)) == [9, 10]


def test_an_overestimated_length_ends_in_words_instead_of_no_frames():
    class Overestimated(Plain):
        def __iter__(self):
            yield from (Frame(stamp, np.zeros((4, 4), np.uint8), None) for stamp in (1, 2))

    with pytest.raises(D2RosError, match="plain has no frame after the first 5"):
        stamps(cut(Overestimated(), start=5))


class Spotted(Plain):
    """Ten frames, of which the second and the sixth cannot be used."""

    def __iter__(self):
        return Spots(super().__iter__())


class Spots:
    def __init__(self, frames):
        self.frames = frames

    def __iter__(self):
        return self

    def __next__(self):
        frame = next(self.frames)
        if frame.stamp in (2, 6):
            raise UnusableFrame(f"frame {frame.stamp}")
        return frame


def test_unusable_frames_count_and_do_not_end_the_stretch():
    frames = iter(cut(Spotted(), start=3, frames=5))
    assert [next(frames).stamp for _ in range(2)] == [4, 5]
    with pytest.raises(UnusableFrame, match="frame 6"):
        next(frames)
    assert stamps(frames) == [7, 8]


@pytest.mark.parametrize("numbers", [(-1, None), (0, 0), (0, -3)])
def test_numbers_without_meaning_are_refused(numbers):
    with pytest.raises(D2RosError, match="leave no frames"):
        cut(Plain(), *numbers)


def test_a_start_behind_the_end_is_refused_at_once():
    source = ImageFiles("folder", np.array([1]), (Path("a.png"),))
    with pytest.raises(D2RosError, match="folder has no frame after the first 1"):
        cut(source, start=1)
