"""The verb: what the recording holds, read back, and what it refuses."""

import sys

import cv2
import numpy as np
import pytest

from d2_ros.camera import Camera
from d2_ros.records import FEATURES, MATCHES
from d2_ros.sources import messages as build
from d2_ros.sources.messages import TYPES, header
from d2_ros.sources.outputs import read_map
from d2_ros.sources.writer import BagWriter

pytest.importorskip("rerun", reason="Rerun is not installed (extra view)")

PREFIX = "/d2_frontend/camera/"
CAMERA = Camera(32, 24, [[50, 0, 15.5], [0, 51, 11.5], [0, 0, 1]], [])
STAMPS = [1_700_000_000_000_000_000 + 50_000_000 * number for number in range(4)]
IMAGE = "/world/camera/image"


def features(number):
    """Track 1 in every frame, track 10 + n in frame n alone, and a keypoint without a track."""
    rows = np.zeros(3, FEATURES)
    rows["track_id"], rows["track_length"] = [1, 10 + number, 0], [number + 1, 1, 0]
    rows["u"], rows["v"] = [number, 5, 9], 3
    rows["u_detected"], rows["v_detected"] = rows["u"] + 0.25, rows["v"] - 0.5
    rows["sigma_uu"] = rows["sigma_vv"] = 1 / 5.991
    return rows


def odometry(stamp, place):
    kinds = TYPES.types
    position = kinds["geometry_msgs/msg/Point"](x=place, y=0.0, z=0.0)
    still = kinds["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
    none = kinds["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0)
    pose = kinds["geometry_msgs/msg/Pose"](position=position, orientation=still)
    twist = kinds["geometry_msgs/msg/Twist"](linear=none, angular=none)
    unknown = np.zeros(36)
    return kinds["nav_msgs/msg/Odometry"](
        header=header(stamp, "map"),
        child_frame_id="camera",
        pose=kinds["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=unknown),
        twist=kinds["geometry_msgs/msg/TwistWithCovariance"](twist=twist, covariance=unknown),
    )


@pytest.fixture
def bag(tmp_path):
    path = tmp_path / "features.mcap"
    write(path)
    return path


def write(path, mapped=False):
    with BagWriter(path) as writer:
        for number, stamp in enumerate(STAMPS):
            writer.write("/camera/camera_info", build.camera_info(stamp, "c", CAMERA, 32, 24))
            matches = np.zeros(number, MATCHES)
            matches["inlier"][:1] = 1
            writer.write(PREFIX + "features", build.cloud(stamp, "c", features(number)))
            writer.write(PREFIX + "matches", build.cloud(stamp, "c", matches))
            if mapped:
                writer.write("/d2_mapper/odometry", odometry(stamp, float(number)))
                points = np.zeros(number, [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("i", "<u4")])
                points["z"] = 7
                writer.write("/d2_mapper/landmarks", build.cloud(stamp, "map", points))


def read(path):
    """(entity, component) -> {stamp in ns, or None for all time: value}."""
    from rerun.chunk import RrdReader

    content = {}
    for chunk in RrdReader(str(path)).stream():
        batch = chunk.to_record_batch()
        stamps = [None] * batch.num_rows
        if "stamp" in batch.schema.names:
            stamps = batch.column("stamp").cast("int64").to_pylist()
        for name in batch.schema.names:
            if ":" in name:
                values = content.setdefault((chunk.entity_path, name), {})
                values |= dict(zip(stamps, batch.column(name).to_pylist(), strict=True))
    return content


def pictures(path):
    path.mkdir()
    for number, stamp in enumerate(STAMPS):
        cv2.imwrite(str(path / f"{stamp}.png"), np.full((24, 32), 40 * number, np.uint8))
    # TUM's layout, so that the images have the stamps of the bag.
    rows = [f"{stamp / 1e9:.6f} {stamp}.png" for stamp in STAMPS]
    (path / "rgb.txt").write_text("\n".join(rows) + "\n")
    return path


def test_everything_is_drawn_at_its_stamp_half_a_pixel_further(tmp_path, d2_ros, bag):
    out = tmp_path / "out.rrd"
    outcome = d2_ros("view", bag, "--images", pictures(tmp_path / "tum"), "--out", out)
    assert outcome.code == 0, outcome.err
    content = read(out)
    refined = content[f"{IMAGE}/refined", "Points2D:positions"]
    assert sorted(refined) == STAMPS
    for number, stamp in enumerate(STAMPS):
        assert refined[stamp] == [[number + 0.5, 3.5], [5.5, 3.5]]
        moved = content[f"{IMAGE}/moves", "LineStrips2D:strips"][stamp]
        assert moved[0] == [[number + 0.75, 3], [number + 0.5, 3.5]]
        trails = content[f"{IMAGE}/tracks", "LineStrips2D:strips"][stamp]
        assert trails[0] == [[past + 0.5, 3.5] for past in range(number + 1)]
        assert content[f"{IMAGE}/untracked", "Points2D:positions"][stamp] == [[9.5, 3.5]]
        ellipse = np.array(content[f"{IMAGE}/covariances", "LineStrips2D:strips"][stamp][0])
        radius = np.linalg.norm(ellipse - [number + 0.5, 3.5], axis=1)
        np.testing.assert_allclose(radius, 1, atol=1e-5)
        (blob,) = content[IMAGE, "EncodedImage:blob"][stamp]
        data = np.frombuffer(bytes(blob), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        assert image.shape[:2] == (24, 32)
        assert abs(float(image.mean()) - 40 * number) < 1
    matrix = content[IMAGE, "Pinhole:image_from_camera"][STAMPS[0]][0]
    np.testing.assert_allclose(matrix, [50, 0, 0, 0, 51, 0, 16, 12, 1])  # by columns
    counts = content["/counts/tracks", "Scalars:scalars"]
    assert [counts[stamp] for stamp in STAMPS] == [[0], [1], [1], [1]]
    counts = content["/counts/inlier_matches", "Scalars:scalars"]
    assert [counts[stamp] for stamp in STAMPS] == [[0], [1], [1], [1]]


def test_trajectories_and_maps_of_files(tmp_path, d2_ros, bag):
    for name, shift in (("made.tum", 0.0), ("true.txt", 5.0)):
        rows = [f"{stamp / 1e9:.6f} {shift} 0 {n} 0 0 0 1" for n, stamp in enumerate(STAMPS)]
        (tmp_path / name).write_text("# a trajectory\n" + "\n".join(rows) + "\n")
    text = "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
    (tmp_path / "map.ply").write_text(f"{text}property float z\nend_header\n1 2 3\n")
    files = ["--poses", tmp_path / "made.tum", "--poses", tmp_path / "true.txt"]
    arguments = [*files, "--points", tmp_path / "map.ply", "--out", tmp_path / "out.rrd"]
    outcome = d2_ros("view", bag, *arguments)
    assert outcome.code == 0, outcome.err
    content = read(tmp_path / "out.rrd")
    places = content["/world/camera", "Transform3D:translation"]
    assert [places[stamp] for stamp in STAMPS] == [[[0, 0, n]] for n in range(4)]
    paths = {key[0]: value for key, value in content.items() if key[1] == "LineStrips3D:strips"}
    (made,) = (path[None] for name, path in paths.items() if "1_made" in name)
    (true,) = (path[None] for name, path in paths.items() if "2_true" in name)
    assert made == [[[0, 0, n] for n in range(4)]]
    assert true == [[[5, 0, n] for n in range(4)]]
    assert content["/world/landmarks", "Points3D:positions"][None] == [[1, 2, 3]]


def test_what_a_mapper_has_published_is_drawn(tmp_path, d2_ros):
    path = tmp_path / "mapped.mcap"
    write(path, mapped=True)
    made = read_map(path)
    assert list(made.odometry) == ["/d2_mapper/odometry"]
    assert d2_ros("view", path, "--out", tmp_path / "out.rrd").code == 0
    content = read(tmp_path / "out.rrd")
    places = content["/world/camera", "Transform3D:translation"]
    assert [places[stamp] for stamp in STAMPS] == [[[n, 0, 0]] for n in range(4)]
    marks = content["/world/landmarks", "Points3D:positions"]
    assert [len(marks[stamp]) for stamp in STAMPS] == [0, 1, 2, 3]
    assert marks[STAMPS[-1]][0] == [0, 0, 7]


def test_an_old_recording_stays_until_the_new_one_is_whole(tmp_path, d2_ros, bag):
    out = tmp_path / "out.rrd"
    out.write_bytes(b"an old one")
    others = tmp_path / "others"
    others.mkdir()
    cv2.imwrite(str(others / "0.png"), np.zeros((24, 32), np.uint8))
    outcome = d2_ros("view", bag, "--images", others, "--out", out)
    assert outcome.code == 2
    assert "give the source that the bag was made from" in outcome.err
    assert out.read_bytes() == b"an old one"
    assert d2_ros("view", bag, "--out", out).code == 0
    assert out.read_bytes() != b"an old one"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "OUT/a.mcap"], "must have a name that ends in .rrd"),
        (["--out", "OUT/a.rrd", "--poses", "absent.txt"], "absent.txt cannot be read"),
        (["--out", "OUT/a.rrd", "--points", "absent.ply"], "absent.ply cannot be read"),
        ([], "no screen to show it on; give --out FILE.rrd"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(tmp_path, d2_ros, bag, monkeypatch, arguments, words):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    arguments = [word.replace("OUT", str(tmp_path)) for word in arguments]
    outcome = d2_ros("view", bag, *arguments)
    assert outcome.code == 2
    assert words in outcome.err
    assert not list(tmp_path.glob("*.rrd"))


def test_without_rerun_it_says_how_to_get_it(tmp_path, d2_ros, bag, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    outcome = d2_ros("view", bag, "--out", tmp_path / "a.rrd")
    assert outcome.code == 2
    assert "pip install rerun-sdk" in outcome.err
