"""What a script means: when, what, how much, and what happens to words nobody knows."""

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kf_core.conditioning.expression import RANGES
from kf_core.conditioning.script import parse_script
from kf_core.conditioning.vocabulary import LIMITS, VOCABULARY, understand
from kf_core.errors import KnotForcingError

TIMES = np.arange(0, 60, 1 / 16)


def values(text: str, name: str, times=TIMES) -> np.ndarray:
    tracks = parse_script(text).tracks()
    found = {track.name: track.track for track in tracks.expression} | tracks.head
    return (tracks.motion if name == "motion" else found[name]).at(np.asarray(times, float)).values


@pytest.mark.parametrize(
    ("time", "start", "stop"),
    [
        ("00:10-00:20", 10, 20),
        ("10-20", 10, 20),
        ("1:02.5 - 1:04", 62.5, 64),
        ("01:00:00-01:00:01", 3600, 3601),
        ("0:10–0:12,5", 10, 12.5),
        ("10s to 12s", 10, 12),
        ("00:10-", 10, inf),
        ("00:10", 10, inf),
        ("-5", 0, 5),
    ],
)
def test_times_are_read_in_every_common_form(time, start, stop):
    (line,) = parse_script(f"[{time}] smile").lines
    assert (line.start, line.stop, line.words) == (start, stop, "smile")


@given(st.integers(0, 35_999), st.integers(1, 3_600))
def test_a_time_written_as_a_clock_is_the_time_meant(start, length):
    def clock(s):
        return f"{s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}"

    (line,) = parse_script(f"[{clock(start)}-{clock(start + length)}] nod").lines
    assert (line.start, line.stop) == (start, start + length)


def test_a_line_without_a_time_holds_for_ever_and_one_line_may_hold_several_times():
    lines = parse_script("calm\n\n[1-2] smile [3-4] nod\n[smile] laugh").lines
    assert [(line.words, line.start, line.stop) for line in lines] == [
        ("calm", 0, inf), ("smile", 1, 2), ("nod", 3, 4), ("[smile] laugh", 0, inf),
    ]  # fmt: skip


@pytest.mark.parametrize("time", ["00:20-00:10", "10-10", "00:70", "1:75:00-2:00:00", "ten1-20", "10-x", "1:2:3:4-5"])
def test_a_time_that_cannot_be_meant_is_refused_with_the_form_to_write(time):
    with pytest.raises(KnotForcingError, match=r"\[00:10-00:20\]") as refusal:
        parse_script(f"[{time}] smile")
    assert time in str(refusal.value)


def test_a_word_moves_its_track_while_it_holds_and_no_longer():
    smile = values("[00:10-00:20] smile, nod", "smile")
    assert smile[TIMES == 9][0] == 0 and smile[TIMES == 15][0] == pytest.approx(0.7) and smile[TIMES == 25][0] == 0
    pitch = values("[00:10-00:20] smile, nod", "pitch")
    assert pitch[(TIMES > 10) & (TIMES < 20)].max() > 10 and not pitch[TIMES < 10].any() and not pitch[TIMES > 21].any()


def test_the_later_line_wins_for_what_both_move_and_for_nothing_else():
    script = "look left\n[10-20] sad\n[15-30] big smile"
    assert values(script, "smile", [12.0, 18, 25]).tolist() == pytest.approx([-0.7, 1.0, 1.0])
    assert values(script, "gaze_x", [12.0, 18, 25]).tolist() == [-0.8] * 3
    reversed_ = "[15-30] big smile\n[10-20] sad"
    assert values(reversed_, "smile", [12.0, 18, 25]).tolist() == pytest.approx([-0.7, -0.7, 1.0])


def test_everything_eases():
    for name in ("smile", "yaw"):
        moved = values("[10-20] laugh, turn left\n[20-30] sad, turn right", name)
        assert np.abs(np.diff(moved)).max() < 0.35 * np.ptp(moved)


def test_degrees_and_negations_scale_the_word_they_stand_with():
    def smile(text):
        return next(action.value for action in understand(text).actions if action.track == "smile")

    assert smile("slight smile") < smile("smile") < smile("big smile") <= smile("a very big smile") == 1
    assert smile("smile slightly") == smile("slight smile") == smile("smiling gently while nodding")
    assert smile("no smile") == smile("does not smile") == smile("stops smiling") == 0
    assert next(a.value for a in understand("slightly lively").actions) == pytest.approx(1.2), "motion rests at 1, not at 0"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("She smiles, nodding", ["smile", "nod"]),
        ("looks to the left", ["look left"]),
        ("shaking his head", ["shake head"]),
        ("closes her eyes", ["close eye"]),
        ("with raised eyebrows", ["raised eyebrow"]),
        ("turns her head to the right and tilts it", ["turn head right", "tilt"]),
        ("look at the camera; surprised!", ["look camera", "surprised"]),
        ("laughing. blinking", ["laugh", "blink"]),
    ],
)
def test_words_are_understood_in_the_forms_people_write(said, meant):
    assert list(understand(said).understood) == meant and not understand(said).ignored


def test_every_unknown_word_is_reported_and_known_ones_are_not():
    script = parse_script("A woman is speaking\n[1-2] smile, wink, dances wildly, slightly\nnod purple")
    assert script.ignored == ("wink", "dances wildly", "slightly", "purple")
    assert script.understood == ("smile", "nod")


def test_every_phrase_of_the_vocabulary_is_understood_and_stays_within_its_limits_at_every_degree():
    for phrases in VOCABULARY:
        for phrase in phrases.split(" | "):
            meaning = understand(phrase)
            assert meaning.understood == (phrase,) and not meaning.ignored
            for action in understand(f"extremely {phrase}").actions:
                assert LIMITS[action.track][0] <= action.value <= LIMITS[action.track][1]
    assert set(RANGES) <= set(LIMITS)


def test_left_is_the_viewers_left_and_down_is_positive():
    assert values("turn left", "yaw")[0] < 0 < values("turn right", "yaw")[0]
    assert values("look up", "gaze_y")[0] < 0 < values("look down", "gaze_y")[0]
    assert values("nod", "pitch").min() == 0, "a nod goes down"


def test_prompts_change_only_where_a_line_starts_or_stops_and_cover_all_time():
    script = parse_script("a woman speaks\n[10-20] she smiles\n[20-30] she smiles\n[40-50] she laughs")
    prompts = script.prompts()
    assert [(line.start, line.stop) for line in prompts] == [(0, 10), (10, 30), (30, 40), (40, 50), (50, inf)]
    assert prompts[1].words == "a woman speaks, she smiles" == script.prompt_at(29.9)
    assert parse_script("").prompt_at(3) == "" and parse_script("").prompts()[0].stop == inf


@given(st.text(alphabet="smile nod[]0123456789:-.,\nx'", max_size=60))
def test_any_text_is_either_read_or_refused_in_words(text):
    try:
        script = parse_script(text)
    except KnotForcingError:
        return
    script.tracks(), script.prompts(), script.ignored
