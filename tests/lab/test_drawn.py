"""Drawn heads: their labels say what is drawn."""

import dataclasses

import numpy as np
import pytest

from lab.drawn.draw import EYE, INSIDE, Character
from lab.drawn.make import draw_character, make_shard
from lab.drawn.style import draw_style
from lab.framing import TIGHT
from lab.heads.motion import TRACKS, Performance
from lab.points import POINTS


def still(**tracks) -> Performance:
    """One frame at rest, but for what is given."""
    return Performance(**{name: np.array([tracks.get(name, 0.0)]) for name in TRACKS})


@pytest.fixture
def plain() -> Character:
    style = draw_style(np.random.default_rng(3))
    style = dataclasses.replace(style, kind="person", eyes="white", mouth="wedge", glasses=False, hair_cut="none", squareness=2.2)
    return Character(style, np.random.default_rng(0))


def point(drawn, name):
    return drawn["points"][0, POINTS.index(name)]


def test_eyes_lie_where_the_framing_says(plain):
    drawn = plain.render(still())
    left, right = point(drawn, "left_eye"), point(drawn, "right_eye")
    assert abs((left[0] - right[0]) / 128 - TIGHT.eye_distance) < 0.02
    assert abs((left[1] + right[1]) / 256 - TIGHT.eye_line) < 0.03


def test_the_first_frame_is_cut_by_its_eyes_however_the_head_is_held(plain):
    for tracks in ({"yaw": 0.4}, {"pitch": -0.3}, {"roll": 0.2}):
        drawn = plain.render(still(**tracks))
        middle = (point(drawn, "left_eye") + point(drawn, "right_eye")) / 2
        assert abs(middle - [64, TIGHT.eye_line * 128]).max() < 5, tracks


def test_the_points_of_the_lips_open_with_the_mouth(plain):
    def gap(opened):
        return np.ptp([point(plain.render(still(open=opened)), name)[1] for name in ("upper_teeth", "lower_teeth")])

    assert gap(0.0) < 1.0 and gap(0.5) < gap(1.0) and gap(1.0) > 4


def test_the_part_map_shows_an_open_mouth_and_shut_eyes(plain):
    opened, shut = plain.render(still(open=1.0)), plain.render(still(blink_left=1.0, blink_right=1.0))

    def count(drawn, part):
        return int((drawn["parts"] == part).sum())

    assert count(opened, INSIDE) > 30 > 5 > count(shut, INSIDE)
    assert count(shut, EYE) < 0.5 * count(opened, EYE)
    x, y = point(opened, "left_eye").astype(int)
    assert opened["parts"][0, y, x] == EYE


def test_turning_right_moves_the_face_right_and_a_gaze_moves_the_pupils_only(plain):
    rest, looking = (plain.render(still(**tracks)) for tracks in ({}, {"gaze_x": 1.0}))
    turning = plain.render(Performance(**{name: np.array([0.0, 0.4 * (name == "yaw")]) for name in TRACKS}))
    nose = POINTS.index("face_30")
    assert turning["points"][1, nose, 0] > turning["points"][0, nose, 0] + 3
    assert abs(looking["points"][0, nose] - rest["points"][0, nose]).max() < 1e-4
    assert point(looking, "left_eye")[0] > point(rest, "left_eye")[0] + 0.5


def test_every_style_draws_and_no_two_are_alike(tmp_path):
    shard = make_shard(tmp_path / "drawn-1.safetensors", seed=5, clips=12, frames=2, size=48, are_moments=True)
    drawn = shard.all()
    assert drawn["frames"].shape == (12, 2, 48, 48, 3) and drawn["points"].shape == (12, 2, len(POINTS), 2)
    assert np.isfinite(drawn["points"]).all() and drawn["frames"].std((1, 2, 3, 4)).min() > 5
    first = drawn["frames"][:, 0].reshape(12, -1).astype(float)
    assert min(abs(first[i] - first[j]).mean() for i in range(12) for j in range(i)) > 5


def test_a_shard_is_a_function_of_its_seed(tmp_path):
    made = [make_shard(tmp_path / f"drawn-{k}.safetensors", seed=9, clips=2, frames=2, size=32).all()["frames"] for k in (1, 2)]
    assert (made[0] == made[1]).all()
    assert draw_character(np.random.default_rng(1)).style == draw_character(np.random.default_rng(1)).style
