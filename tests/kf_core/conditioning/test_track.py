"""Values over time: how they ease, how they lie over one another, when they are silent."""

import numpy as np
import pytest
import torch

from kf_core.conditioning.expression import EXPRESSION, ExpressionTrack, expression_steps, merged
from kf_core.conditioning.track import EASE_SECONDS, Gesture, Held, Keyframes, Layers, constant
from kf_core.errors import KnotForcingError

TIMES = np.arange(0, 30, 1 / 16)


def test_keyframes_pass_through_their_keys_without_overshoot_and_hold_at_both_ends():
    track = Keyframes(((2, 0.0), (4, 1.0), (5, -0.5)))
    assert track.at(np.array([0.0, 2, 3, 4, 5, 99])).values.tolist() == [0, 0, 0.5, 1, -0.5, -0.5]
    values = track.at(TIMES).values
    assert values.min() == -0.5 and values.max() == 1 and np.abs(np.diff(values)).max() < 0.16


@pytest.mark.parametrize("keys", [(), ((1, 0.0), (1, 1.0)), ((2, 0.0), (1, 1.0)), ((0, float("nan")),)])
def test_keys_that_make_no_track_are_refused_in_words(keys):
    with pytest.raises(KnotForcingError, match="key"):
        Keyframes(keys)


def test_a_held_value_eases_in_from_its_start_and_out_after_its_end():
    at = Held(0.8, 10, 20).at(TIMES)
    assert not at.weights[TIMES < 10].any() and not at.weights[TIMES > 20 + EASE_SECONDS].any()
    inside = (TIMES > 10 + EASE_SECONDS) & (TIMES <= 20)
    assert np.all(at.values[inside] == 0.8) and np.abs(np.diff(at.values)).max() < 0.3


def test_what_begins_with_the_stream_is_there_from_its_first_frame():
    assert Held(0.8).at(np.array([0.0])).values[0] == 0.8


def test_a_later_layer_covers_an_earlier_one_only_while_it_speaks():
    layers = Layers((constant(1.0), Held(-0.5, 10, 20)))
    assert layers.at(np.array([5.0, 15, 25])).values.tolist() == [1, -0.5, 1]
    assert np.abs(np.diff(layers.at(TIMES).values)).max() < 0.5


def test_a_gesture_starts_and_ends_at_rest_and_comes_again():
    nod = Gesture(10.0, hz=1.25, burst=1.6, period=2.6, start=1.0, stop=20.0)
    values = nod.at(TIMES).values
    assert values.max() > 9 and values.min() == 0 and np.abs(np.diff(values)).max() < 4
    assert values[TIMES < 1].max() == 0 and all(values[(TIMES >= 1 + 2.6 * i) & (TIMES < 3.6 + 2.6 * i)].max() > 9 for i in range(7))
    shake = Gesture(10.0, hz=1.25, burst=1.6, period=2.6, is_two_sided=True).at(TIMES).values
    assert shake.max() > 7 and shake.min() < -7


def test_any_window_of_a_track_equals_the_whole():
    track = Layers((Keyframes(((0, 0.0), (7, 1.0))), Gesture(1.0, 1.25, 1.6, 2.6, start=3), Held(0.3, 10, 20)))
    whole = track.at(TIMES)
    for start, stop in ((0, 5), (150, 190), (300, 480)):
        part = track.at(TIMES[start:stop])
        assert np.array_equal(part.values, whole.values[start:stop]) and np.array_equal(part.weights, whole.weights[start:stop])


def test_an_expression_step_holds_the_values_then_whether_they_are_known():
    tracks = merged([ExpressionTrack("smile", 0.5), ExpressionTrack("gaze_x", Held(-0.8, 10, 20))])
    steps = expression_steps(tracks, EXPRESSION, np.array([5.0, 15.0]))
    expected = torch.zeros(2, 10)
    expected[:, 0], expected[1, 2], expected[:, 5], expected[1, 7] = 0.5, -0.8, 1, 1
    assert torch.equal(steps, expected)


def test_of_two_tracks_of_one_name_the_later_covers_the_earlier():
    tracks = merged([ExpressionTrack("smile", 0.5), ExpressionTrack("smile", ((0, 0.0), (2, 1.0)))])
    assert expression_steps(tracks, ("smile",), np.array([0.0, 1, 2]))[:, 0].tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("name", "track", "words"), [("grin", 0.5, "smile, brows"), ("smile", 1.5, "between -1"), ("blink", -0.1, "between 0")]
)
def test_an_expression_outside_its_range_is_refused_in_words(name, track, words):
    with pytest.raises(KnotForcingError, match=words):
        ExpressionTrack(name, track)
