import json
from dataclasses import make_dataclass, replace

import pytest

from kf_core.content_id import fingerprint, frozen_names, names_of, unused_fields
from kf_core.errors import KnotForcingError
from kf_core.models.card import ModelCard
from kf_core.schedule import few_steps, warped
from kf_core.settings import Ahead, Behind, Fixed, RolloutSettings
from kf_core.timeline import LatentSpan

from .tiny import CARD


def settings(**changes) -> RolloutSettings:
    return RolloutSettings(**{"schedule": warped(), **changes})


@pytest.mark.parametrize("stride", range(1, 9))
def test_the_anchor_stays_ahead_of_every_frame_for_any_stride(stride):
    places = [Ahead(5, stride).position(stop) for stop in range(1, 200)]
    assert all(place > stop - 1 for stop, place in enumerate(places, start=1))
    assert places == sorted(places)


def test_what_came_later_is_said_only_where_it_is_used():
    """Or cards could not be read by the versions before, and streams would lose what they spooled."""
    assert not {"guidance", "shift", "renoise"} & set(json.loads(CARD.to_json())["rollout"])
    assert "negative_prompt" not in json.loads(CARD.to_json())
    guided = replace(CARD, rollout=replace(CARD.rollout, guidance=6.0, renoise=False), negative_prompt="blurred")
    assert json.loads(guided.to_json())["rollout"]["guidance"] == 6 and ModelCard.from_json(guided.to_json()) == guided
    kind, names = names_of(RolloutSettings)
    names = {name: said for name, said in names.items() if name not in unused_fields(CARD.rollout)}
    before = frozen_names(kind, **names)(make_dataclass("Before", names))
    known = {name: getattr(CARD.rollout, name) for name in names}
    assert fingerprint(before(**known)) == fingerprint(CARD.rollout) != fingerprint(guided.rollout)


def test_the_anchor_moves_only_when_it_was_reached():
    rule = Ahead(20, 20)
    assert [rule.position(stop) for stop in (4, 20, 21, 40, 41)] == [20, 20, 40, 40, 60]


def test_the_window_counts_past_and_current_but_not_what_is_pinned():
    assert settings().past == 2
    assert settings(knot=None, fuse=False).past == 3
    assert settings(window=12, pinned=3).past == 8


def test_chunks_follow_each_other_without_gap():
    pattern = settings(chunk=4, first_chunk=1, window=6)
    spans = [pattern.output_span(i) for i in range(4)]
    assert spans == [LatentSpan(0, 1), LatentSpan(1, 5), LatentSpan(5, 9), LatentSpan(9, 13)]
    assert [pattern.chunk_of(f) for f in range(10)] == [0, 1, 1, 1, 1, 2, 2, 2, 2, 3]


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(chunk=0), "denoises nothing"),
        (dict(knot_frames=4), "cannot be longer than the chunk"),
        (dict(knot_frames=0), "ties nothing"),
        (dict(knot="pin"), "nothing to average"),
        (dict(window=3), "smaller than the frames denoised at once"),
        (dict(window=None), "max_frames"),
        (dict(schedule=()), "no step"),
        (dict(first_chunk=5), "first chunk"),
    ],
)
def test_nonsense_is_refused_in_words(changes, words):
    with pytest.raises(KnotForcingError, match=words):
        settings(**changes)


def test_the_four_warped_steps_are_those_the_models_were_trained_with():
    assert warped() == few_steps(4)
    assert [t for _, t in warped()] == pytest.approx([1000, 937.5, 833.3333333, 625])


@pytest.mark.parametrize("steps", [0, -1, 101])
def test_a_number_of_steps_that_cannot_be_is_refused(steps):
    with pytest.raises(KnotForcingError, match="Between 1 and 100"):
        few_steps(steps)


@pytest.mark.parametrize("anchor", [Ahead(3, 4), Behind(2), Fixed(9), None])
def test_a_card_survives_being_written_as_text(anchor):
    import dataclasses

    card = dataclasses.replace(CARD, rollout=settings(anchor=anchor, first_schedule=warped((1000, 500))))
    assert ModelCard.from_json(card.to_json()) == card


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"name": 3}', "null"])
def test_a_damaged_card_is_refused_in_words(text):
    with pytest.raises(KnotForcingError, match="card cannot be read"):
        ModelCard.from_json(text)
