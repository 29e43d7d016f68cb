"""Idle life is a function of seed and time, has the numbers of people, and lies under all that is asked for."""

import numpy as np
import pytest
import torch

from kf_core.checkpoints.known_models import kf_tiny
from kf_core.conditioning.driving import Driving
from kf_core.conditioning.expression import ExpressionTrack
from kf_core.conditioning.idle import BLINK_GAPS, FIRST_BLINK, Blinks, Glances, Idle, Sway
from kf_core.conditioning.pose import HeadAngles
from kf_core.content_id import fingerprint
from kf_core.errors import KnotForcingError
from kf_core.timeline import LatentSpan

FPS = 16
TRACKS = (Blinks(3), Glances(3, "x"), Glances(3, "y"), Sway(3, "yaw", 3.0))


def times(first: float, seconds: float) -> np.ndarray:
    return np.arange(round(first * FPS), round((first + seconds) * FPS)) / FPS


def blink_moments(seed: int, minutes: float) -> np.ndarray:
    moments = times(0, 60 * minutes)
    shut = Blinks(seed).at(moments).values > 0.5
    return moments[1:][shut[1:] & ~shut[:-1]]


@pytest.mark.parametrize("track", TRACKS)
def test_any_stretch_is_the_same_whenever_it_is_asked_for(track):
    whole = track.at(times(0, 90)).values
    for first, seconds in ((61.5, 3), (0, 1), (31, 2.5)):
        assert np.array_equal(track.at(times(first, seconds)).values, whole[round(first * FPS) : round((first + seconds) * FPS)])
    assert np.array_equal(track.at(times(3600, 2)).values, track.at(times(3599, 4)).values[FPS : 3 * FPS])


@pytest.mark.parametrize("track", TRACKS)
def test_a_face_begins_as_the_portrait_shows_it(track):
    assert track.at(np.array([0.0])).values == pytest.approx(0, abs=1e-9)


def test_people_blink_ten_to_thirty_times_a_minute_and_unevenly():
    for seed in range(5):
        moments = blink_moments(seed, 10)
        gaps = np.diff(moments)
        assert 10 < len(moments) / 10 < 30
        assert moments[0] >= FIRST_BLINK - 0.2 and gaps.min() > 0.5 * BLINK_GAPS[2] and gaps.std() > 0.8


def test_another_seed_blinks_at_other_moments():
    first, second = blink_moments(0, 2), blink_moments(1, 2)
    assert len(first) != len(second) or np.abs(first - second).mean() > 0.3


def test_eyes_are_mostly_on_the_viewer_and_the_head_stays_near_rest():
    moments = times(0, 600)
    gaze = np.hypot(Glances(0, "x").at(moments).values, Glances(0, "y").at(moments).values)
    assert 0.5 < (gaze < 0.12).mean() < 0.9 and gaze.max() <= 1
    yaw = Sway(0, "yaw", 3.0).at(moments).values
    assert 2 < yaw.std() < 4 and np.abs(np.diff(yaw)).max() < 2  # degrees, and degrees from frame to frame


def window(driving: Driving, seed: int = 0):
    card = kf_tiny(128)
    return driving.bind(card, latent_height=16, latent_width=16, device="cpu", dtype=torch.float32, seed=seed).window(LatentSpan(6, 18))


def test_half_the_life_is_half_the_blinks_and_none_is_none():
    def shut(amount):
        return (Blinks(0, amount).at(times(0, 600)).values > 0.5).sum()

    assert shut(1.0) * 0.3 < shut(0.5) < shut(1.0) * 0.7
    assert Idle(0, 0.0).expression() == () and Idle(0, 0.0).head_under({}) == {}
    assert window(Driving()).expression is None and window(Driving()).pose is None


def test_what_is_asked_for_covers_idle_life():
    def values(signal):
        return signal.features.unflatten(-1, (4, 2, 5))[0, :, :, 0]  # [f, 4, names]

    alive = values(window(Driving(idle=1.0)).expression)
    stares = values(window(Driving(idle=1.0, expression=(ExpressionTrack("gaze_x", 0.5),))).expression)
    assert torch.equal(stares[..., 2], torch.full_like(stares[..., 2], 0.5)) and torch.equal(stares[..., 4], alive[..., 4])
    assert alive[..., 4].amax() > 0.5


def test_lids_that_are_asked_for_are_drawn_on_the_head_as_well():
    shut = (ExpressionTrack("blink", 1.0),)
    asleep, awake = window(Driving(idle=1.0, expression=shut)), window(Driving(idle=1.0))
    assert not torch.equal(asleep.pose.features, awake.pose.features)


def test_where_a_pose_is_given_the_face_lives_by_it():
    pose = HeadAngles(keys=((0.0, 5.0, 0.0, 0.0),))
    with_life, without = window(Driving(idle=1.0, pose=pose)), window(Driving(pose=pose))
    assert with_life.expression is None and torch.equal(with_life.pose.features, without.pose.features)


def test_life_is_part_of_a_recipe_and_no_life_leaves_its_name_as_it_was():
    assert fingerprint(Driving()) == fingerprint(Driving(idle=0.0)) != fingerprint(Driving(idle=1.0))


def test_more_life_than_natural_is_refused():
    with pytest.raises(KnotForcingError, match="idle life is 2"):
        Driving(idle=2.0)
