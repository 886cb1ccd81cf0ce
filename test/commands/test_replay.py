import json
import os

import cv2
import numpy as np
import pytest
import yaml
from rosbags.highlevel import AnyReader
from scipy.spatial.transform import Rotation

import d2_ros.frontend as frontend_module
from d2_ros.camera import Camera, on_pair, right_of
from d2_ros.commands.replay import ResultWriter, Tally, run
from d2_ros.config import Config, OutputConfig, with_values
from d2_ros.records import FEATURES, LOOPS, STEREO, columns, unpack
from d2_ros.sources import Frame, open_source
from d2_ros.sources import messages as build
from d2_ros.sources.bagscan import scan_mcap
from d2_ros.sources.truth import true_poses
from d2_ros.sources.writer import BagWriter

CAMERA = Camera(32, 24, [[50, 0, 15.5], [0, 51, 11.5], [0, 0, 1]], [])
PREFIX = "/d2_frontend/camera/"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    for number in range(7):
        cv2.imwrite(str(path / f"{number}.png"), np.full((24, 32), number, np.uint8))
    return path


def write_bag(path, stamps, first_pixels=None, camera=CAMERA):
    with BagWriter(path) as bag:
        for number, stamp in enumerate(stamps):
            image = np.full((24, 32), first_pixels[number] if first_pixels else number, np.uint8)
            bag.write("/camera/camera_info", build.camera_info(stamp, "optical", camera, 32, 24))
            bag.write("/camera/image_raw", build.image(stamp, "optical", image))
    return path


def read(path):
    """Topic -> list of messages, by the definitions in the file alone."""
    content = {}
    with AnyReader([path]) as reader:
        for connection, _, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            content.setdefault(connection.topic, []).append(message)
    return content


def test_topics_of_every_frame(tmp_path, d2_ros, fake_frontend):
    stamps = [1_700_000_000_900_000_000 + 50_000_000 * number for number in range(7)]
    bag = write_bag(tmp_path / "in.mcap", stamps)
    outcome = d2_ros("replay", bag, "--out", tmp_path / "out.mcap", "--json", tmp_path / "f.json")
    assert outcome.code == 0, outcome.err
    content = read(tmp_path / "out.mcap")
    assert sorted(content) == [
        "/camera/camera_info",
        *(PREFIX + name for name in ("features", "matches", "tracks")),
    ]
    for topic in ("/camera/camera_info", PREFIX + "features", PREFIX + "matches"):
        assert [build.stamp_of(message) for message in content[topic]] == stamps
    tracks = content[PREFIX + "tracks"]
    assert [build.stamp_of(message) for message in tracks] == stamps[::3]
    assert [message.width for message in tracks] == [0, 3, 6]
    for messages in content.values():
        assert {message.header.frame_id for message in messages} == {"optical"}
    np.testing.assert_array_equal(content["/camera/camera_info"][0].k, CAMERA.matrix.ravel())
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["frames"] == 7
    assert figures["frames_refused"] == figures["resets"] == 0
    assert figures["keyframes"] == 3
    assert figures["features_per_frame"] == pytest.approx(np.mean([2, 3, 4, 5, 6, 2, 3]))
    assert figures["inlier_matches_per_frame"] == pytest.approx(6 / 7)
    assert figures["network.p50_ms"] == 13
    assert figures["seconds"] > 0


def test_rows_are_the_front_end_s_own_bytes(tmp_path, d2_ros, fake_frontend):
    bag = write_bag(tmp_path / "in.mcap", [10**9])
    assert d2_ros("replay", bag, "--out", tmp_path / "out.mcap").code == 0
    (message,) = read(tmp_path / "out.mcap")[PREFIX + "features"]
    assert message.data.tobytes() == fake_frontend[0].last.features.tobytes()
    assert message.is_dense


def test_uncalibrated_images_tell_their_size(tmp_path, folder, d2_ros, fake_frontend):
    assert d2_ros("replay", folder, "--out", tmp_path / "out.mcap").code == 0
    content = read(tmp_path / "out.mcap")
    info = content["/camera/camera_info"][0]
    assert (info.width, info.height) == (32, 24)
    assert not info.k.any()
    assert not content[PREFIX + "features"][0].is_dense


@pytest.mark.parametrize(("kind", "datatype", "size"), [("uint8", 2, 512), ("float32", 7, 2048)])
def test_descriptors_on_request(tmp_path, folder, d2_ros, fake_frontend, kind, datatype, size):
    out = tmp_path / "out.mcap"
    assert d2_ros("replay", folder, "--out", out, "-p", f"output.descriptors:={kind}").code == 0
    content = read(out)
    for features, descriptors in zip(
        content[PREFIX + "features"], content[PREFIX + "descriptors"], strict=True
    ):
        (field,) = descriptors.fields
        assert (field.name, field.datatype, field.count) == ("descriptor", datatype, 512)
        assert descriptors.point_step == size
        assert descriptors.width == features.width


def test_parameters_reach_the_front_end(tmp_path, folder, d2_ros, fake_frontend):
    params = tmp_path / "params.yaml"
    params.write_text("d2_frontend:\n  ros__parameters:\n    window: {size: 4}\n    threads: 2\n")
    arguments = ["--params-file", params, "-p", "threads:=3"]
    assert d2_ros("replay", folder, "--out", tmp_path / "out.mcap", *arguments).code == 0
    assert fake_frontend[0].config.window.size == 4
    assert fake_frontend[0].config.threads == 3


def test_refused_frames_are_left_out_counted_and_told(tmp_path, d2_ros, fake_frontend):
    stamps = [10**9 * (number + 1) for number in range(4)]
    bag = write_bag(tmp_path / "in.mcap", stamps, [0, 255, 0, 255])
    outcome = d2_ros("replay", bag, "--out", tmp_path / "out.mcap", "--json", tmp_path / "f.json")
    assert outcome.code == 2
    assert "2 of 4 frames were left out: frame 2000000000: the image is unusable" in outcome.err
    assert json.loads((tmp_path / "f.json").read_text())["frames_refused"] == 2
    content = read(tmp_path / "out.mcap")
    for topic in ("/camera/camera_info", PREFIX + "features"):
        assert [build.stamp_of(message) for message in content[topic]] == [stamps[0], stamps[2]]


def test_disorder_is_refused_and_a_loop_starts_over(tmp_path, fake_frontend):
    image, seconds = np.zeros((24, 32), np.uint8), (5, 6, 6, 5.5, 7, 5, 6)
    frames = [Frame(int(second * 1e9), image, None) for second in seconds]
    frontend, tally = frontend_module.FrontEnd(None), Tally()
    with BagWriter(tmp_path / "out.mcap") as bag:
        run(frames, frontend, ResultWriter(bag, OutputConfig()), tally)
    assert (tally.frames, len(tally.refused), tally.resets) == (5, 2, 1)
    assert frontend.resets == 1
    assert tally.refused[1] == "frame 5500000000 is not later than 6000000000"


def test_truncated_bag_keeps_results_and_exits_with_2(tmp_path, d2_ros, fake_frontend):
    # 1300 images of 768 bytes fill one chunk of a mebibyte and a part of the next.
    bag = write_bag(tmp_path / "in.mcap", [10**9 + 10**8 * n for n in range(1300)], [7] * 1300)
    content = bag.read_bytes()
    bag.write_bytes(content[: int(0.95 * len(content))])
    outcome = d2_ros("replay", bag, "--out", tmp_path / "out.mcap", "--json", tmp_path / "f.json")
    assert outcome.code == 2
    assert "in.mcap is cut short or damaged" in outcome.err
    frames = json.loads((tmp_path / "f.json").read_text())["frames"]
    assert 0 < frames < 1300
    assert len(read(tmp_path / "out.mcap")[PREFIX + "features"]) == frames


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "windw.size:=3"], "unknown parameter windw.size"),
        (["-p", "window.size:=300"], "window.size is 300; it must be 1 to 30"),
        (["-p", "window.size"], "not of the form name:=value"),
        (["--image-topic", "/other"], "has no images on|not a bag"),
        (["--params-file", "nowhere.yaml"], "nowhere.yaml cannot be read"),
    ],
)
def test_bad_arguments_exit_with_2(tmp_path, folder, d2_ros, fake_frontend, arguments, words):
    out = tmp_path / "out.mcap"
    outcome = d2_ros("replay", folder, "--out", out, *arguments)
    assert outcome.code == 2
    assert any(word in outcome.err for word in words.split("|"))
    assert not out.exists()


def test_missing_weights_leave_an_existing_output_alone(tmp_path, folder, d2_ros):
    out = tmp_path / "out.mcap"
    out.write_text("precious")
    outcome = d2_ros("replay", folder, "--out", out, "-p", "weights:=none_such")
    assert outcome.code == 2
    assert "none_such" in outcome.err
    assert out.read_text() == "precious"


def test_calibration_of_another_size_is_one_sentence(tmp_path, d2_ros, fake_frontend):
    other = Camera(64, 48, CAMERA.matrix, [])
    with BagWriter(tmp_path / "in.mcap") as bag:
        bag.write("/camera/camera_info", build.camera_info(10**9, "c", other, 64, 48))
        bag.write("/camera/image_raw", build.image(10**9, "c", np.zeros((24, 32), np.uint8)))
    outcome = d2_ros("replay", tmp_path / "in.mcap", "--out", tmp_path / "out.mcap")
    assert outcome.code == 2
    assert "is 32x24 but its calibration is for 64x48" in outcome.err


def test_real_front_end_twice_gives_the_same_bytes(tmp_path, d2_ros):
    source = "synthetic:size=160x120,frames=3,seed=0"
    for name in ("a.mcap", "b.mcap"):
        outcome = d2_ros("replay", source, "--out", tmp_path / name, "-p", "threads:=1")
        assert outcome.code == 0, outcome.err
    assert (tmp_path / "a.mcap").read_bytes() == (tmp_path / "b.mcap").read_bytes()
    content = read(tmp_path / "a.mcap")
    assert content[PREFIX + "matches"][0].width == 0
    assert min(message.width for message in content[PREFIX + "matches"][1:]) > 20
    assert min(message.width for message in content[PREFIX + "features"]) > 50


PAIR = "synthetic:size=160x120,frames=4"


def test_a_stereo_pair_lies_at_its_exact_disparity(tmp_path, d2_ros):
    out, right = tmp_path / "out.mcap", f"{PAIR},baseline=120"
    arguments = ("-p", "threads:=1", "-p", "output.vins_format:=fusion")
    outcome = d2_ros("replay", PAIR, "--right", right, "--out", out, *arguments)
    assert outcome.code == 0, outcome.err
    assert "4 stereo pairs" in outcome.out
    content, errors = read(out), []
    info = content["/right/camera_info"]
    assert [build.stamp_of(message) for message in info] == open_source(right).stamps
    left, other = open_source(PAIR), open_source(right)
    for number, (message, frame) in enumerate(
        zip(content[PREFIX + "stereo"], content[PREFIX + "features"], strict=True)
    ):
        stereo = np.frombuffer(message.data.tobytes(), STEREO)
        features = np.frombuffer(frame.data.tobytes(), FEATURES)[stereo["index"]]
        assert message.header == frame.header
        assert (features["track_id"] > 0).all()
        points, planes = left.surface(number, columns(features, "u", "v"))
        truth, _ = other.project(points, planes, number)
        errors.append(np.linalg.norm(columns(stereo, "u", "v") - truth, axis=1))
        vins = content[PREFIX + "feature_tracks"][number]
        assert 0 < sum(vins.channels[1].values) <= len(stereo)
    assert min(map(len, errors)) > 30
    assert np.median(np.concatenate(errors)) < 0.1
    assert np.percentile(np.concatenate(errors), 90) < 0.5


def as_euroc(folder, sources):
    """Write ``mav0/cam0`` and ``cam1`` as EuRoC has them, on a body that is turned and aside."""
    body = np.eye(4)
    body[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    body[:3, 3] = 0.1, -0.2, 0.3
    for number, source in enumerate(sources):
        camera, place = source.camera, body @ source.mount()
        images = folder / "mav0" / f"cam{number}" / "data"
        images.mkdir(parents=True)
        rows = ["#timestamp [ns],filename"]
        for frame in source:
            cv2.imwrite(str(images / f"{frame.stamp}.png"), frame.image)
            rows.append(f"{frame.stamp},{frame.stamp}.png")
        (images.parent / "data.csv").write_text("\n".join(rows))
        told = {
            "T_BS": {"cols": 4, "rows": 4, "data": place.ravel().tolist()},
            "resolution": [camera.width, camera.height],
            "camera_model": "pinhole",
            "intrinsics": camera.matrix[[0, 1, 0, 1], [0, 1, 2, 2]].tolist(),
            "distortion_model": "radial-tangential",
            "distortion_coefficients": camera.distortion.tolist(),
        }
        (images.parent / "sensor.yaml").write_text(yaml.safe_dump(told))
    return folder / "mav0" / "cam0", folder / "mav0" / "cam1"


def as_kitti(folder, sources):
    """Write a KITTI odometry sequence with ``image_0`` and ``image_1``, undistorted."""
    rows = []
    for number, source in enumerate(sources):
        images, matrix = folder / f"image_{number}", source.camera.matrix
        images.mkdir(parents=True)
        for index, frame in enumerate(source):
            image = cv2.undistort(frame.image, matrix, source.camera.distortion)
            cv2.imwrite(str(images / f"{index:06}.png"), image)
        offset = -matrix @ source.mount()[:3, 3]
        projection = np.column_stack([matrix, offset])
        rows.append(f"P{number}: {' '.join(map(str, projection.ravel().tolist()))}")
    (folder / "calib.txt").write_text("\n".join(rows))
    (folder / "times.txt").write_text("\n".join(f"{index / 20}" for index in range(len(source))))
    return folder / "image_0", folder / "image_1"


@pytest.mark.parametrize("write", [as_euroc, as_kitti])
def test_the_pairs_of_data_sets_know_how_far_apart_they_are(tmp_path, d2_ros, write):
    sources = [open_source(PAIR), open_source(f"{PAIR},baseline=120")]
    left, right = write(tmp_path / "set", sources)
    out = tmp_path / "out.mcap"
    outcome = d2_ros("replay", left, "--right", right, "--out", out, "-p", "threads:=1")
    assert outcome.code == 0, outcome.err
    assert "4 stereo pairs" in outcome.out
    content = read(out)
    assert min(message.width for message in content[PREFIX + "stereo"]) > 20
    first, second = (content[f"/{name}/camera_info"][0] for name in ("camera", "right"))
    found = right_of(on_pair(first.r, first.p), on_pair(second.r, second.p))
    np.testing.assert_allclose(found, sources[1].mount(), atol=1e-9)


def test_frames_without_a_partner_have_no_stereo(tmp_path, d2_ros):
    out, right = tmp_path / "out.mcap", f"{PAIR},baseline=120,rate=10"
    outcome = d2_ros("replay", PAIR, "--right", right, "--out", out, "-p", "threads:=1")
    assert outcome.code == 0, outcome.err
    assert "2 stereo pairs" in outcome.out
    content = read(out)
    assert len(content[PREFIX + "stereo"]) == 2
    assert len(content[PREFIX + "features"]) == 4


def test_a_right_camera_that_is_not_there_is_said_before_any_work(tmp_path, d2_ros):
    out = tmp_path / "out.mcap"
    outcome = d2_ros("replay", PAIR, "--right", tmp_path / "none", "--out", out)
    assert outcome.code == 2
    assert f"{tmp_path / 'none'} does not exist" in outcome.err
    assert not out.exists()


def written(path, topic):
    """The node's messages on a topic, in the order of writing, not by time."""
    with path.open("rb") as file:
        return [item.message() for item in scan_mcap(file) if item.topic == PREFIX + topic]


@pytest.mark.parametrize("layout", ["fusion", pytest.param("mono", marks=pytest.mark.slow)])
def test_feature_tracks_hold_the_rules_of_the_estimators(tmp_path, d2_ros, estimator, layout):
    frames, log_time = list(open_source("synthetic:size=160x120,frames=5,seed=0")), 0
    with BagWriter(tmp_path / "in.mcap") as bag:
        for shift in (2, 0, 60):  # s: the clock jumps back, then there is a long pause
            for frame in frames:
                stamp = frame.stamp + shift * 10**9
                for topic, message in (
                    ("camera_info", build.camera_info(stamp, "optical", frame.camera, 160, 120)),
                    ("image_raw", build.image(stamp, "optical", frame.image)),
                ):
                    kind, log_time = message.__msgtype__, log_time + 1
                    data = bytes(build.TYPES.serialize_cdr(message, kind))
                    bag.write_serialized(f"/camera/{topic}", kind, data, log_time)
    arguments = ["-p", f"output.vins_format:={layout}", "-p", "threads:=1"]
    outcome = d2_ros("replay", tmp_path / "in.mcap", "--out", tmp_path / "out.mcap", *arguments)
    assert outcome.code == 0, outcome.err
    sent = written(tmp_path / "out.mcap", "feature_tracks")
    features = written(tmp_path / "out.mcap", "features")
    assert [build.stamp_of(m) for m in sent] == [build.stamp_of(m) for m in features]
    reader = estimator(layout, frames[0].camera)
    for number, message in enumerate(sent):
        if number == 5:
            reader.restart()
        reader.feature_callback(message)
    assert reader.longest >= 5
    assert min(len(message.points) for message in sent) > 20


def test_feature_tracks_without_calibration_are_missed_out_loud_once(
    tmp_path, folder, d2_ros, fake_frontend
):
    arguments = ["-p", "output.vins_format:=mono"]
    outcome = d2_ros("replay", folder, "--out", tmp_path / "out.mcap", *arguments)
    assert outcome.code == 0
    assert outcome.err.count("no feature_tracks") == 1
    assert PREFIX + "feature_tracks" not in read(tmp_path / "out.mcap")


@pytest.mark.skipif(not os.environ.get("D2_ROS_SOAK"), reason="minutes: set D2_ROS_SOAK=1")
@pytest.mark.parametrize("layout", ["fusion", "mono"])
@pytest.mark.parametrize(
    "name",
    ["euroc_v101_static", "kitti_1", "sevenscenes_redkitchen_a", "tum_fr2_desk",
     "tum_fr3_office_sparse"],
)  # fmt: skip
def test_the_rules_of_the_estimators_hold_on_real_recordings_and_when_they_start_over(
    tmp_path, real_data, estimator, name, layout
):
    source = list(open_source(real_data(name)))
    small = {"features.max_edge": 192, "features.max_keypoints": 400, "threads": 1}
    config = with_values(Config(), {**small, "output.vins_format": layout})
    with BagWriter(tmp_path / "out.mcap") as bag:
        frontend, tally = frontend_module.FrontEnd(config), Tally()
        run(source + source, frontend, ResultWriter(bag, config.output), tally)
    assert (tally.frames, tally.resets, tally.refused) == (2 * len(source), 1, [])
    reader = estimator(layout, source[0].camera)
    for number, message in enumerate(written(tmp_path / "out.mcap", "feature_tracks")):
        if number == len(source):
            reader.restart()
        reader.feature_callback(message)
    assert number == 2 * len(source) - 1
    print(f"{name} {layout}: {number + 1} messages, longest run {reader.longest}")


def test_a_recording_that_comes_back_tells_so(tmp_path, d2_ros):
    """The same nine views again a minute later, from a bag, by the real front-end."""
    pytest.importorskip("faiss", reason="faiss is not installed (extra places)")
    source = open_source("synthetic:size=160x120,frames=9")
    frames = list(source)
    minute = 60_000_000_000
    with BagWriter(tmp_path / "in.mcap") as bag:
        for lap in (0, minute):
            for frame in frames:
                stamp = frame.stamp + lap
                info = build.camera_info(stamp, "optical", frame.camera, 160, 120)
                bag.write("/camera/camera_info", info)
                bag.write("/camera/image_raw", build.image(stamp, "optical", frame.image))
    options = ("-p", "threads:=1", "-p", "window.min_parallax:=1", "-p", "places.enabled:=true")
    outcome = d2_ros("replay", tmp_path / "in.mcap", "--out", tmp_path / "out.mcap", *options)
    assert outcome.code == 0, outcome.err
    content = read(tmp_path / "out.mcap")
    (loops,), (pose,) = content[PREFIX + "loops"], content[PREFIX + "loop_pose"]
    layout = [(item.name, item.offset, item.datatype, item.count) for item in loops.fields]
    rows = unpack(layout, loops.point_step, loops.data, LOOPS, False)
    assert len(rows) >= 30
    then = rows["keyframe_sec"].astype(np.int64) * 10**9 + rows["keyframe_nanosec"]
    now = build.stamp_of(loops)
    assert build.stamp_of(pose) == now
    assert set(then) <= {frame.stamp for frame in frames}
    assert set(rows["session"]) == {0}
    poses = dict(zip((frame.stamp for frame in frames), true_poses(source), strict=True))
    turn = (np.linalg.inv(poses[now - minute]) @ poses[then[0]])[:3, :3]
    told = pose.pose.pose.orientation
    moved = Rotation.from_matrix(turn).inv() * Rotation.from_quat([told.x, told.y, told.z, told.w])
    assert np.degrees(moved.magnitude()) < 0.5
