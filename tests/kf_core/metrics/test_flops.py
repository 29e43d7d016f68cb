from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kf_core.checkpoints.known_models import WAN_1_3B
from kf_core.metrics.flops import Limits, Work, chunk_work, measure_limits
from kf_core.models.card import TextSpec
from kf_core.sampling.rollout import rollout
from kf_core.schedule import warped
from kf_core.settings import RolloutSettings
from kf_core.types import LatentChunk

from .. import tiny


def plain(q, k, v, mask=None):
    return (q @ k.transpose(-1, -2)).softmax(-1) @ v


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize(
    "changed",
    [{}, {"knot": None, "fuse": False}, {"anchor": None}, {"anchor": None, "pinned": 3, "window": 9}, {"guidance": 2.0}],
    ids=["knot forcing", "no knot", "no anchor", "pinned", "guided"],
)
def test_the_work_that_is_counted_is_what_pytorch_counts(changed: dict, words: int):
    settings = replace(tiny.SETTINGS, **changed)
    card = replace(tiny.CARD, rollout=settings, text=replace(tiny.CARD.text, tokens=words))
    model = tiny.generator(card, torch.float32)
    model.attention = plain
    stream = rollout(model, tiny.portrait(torch.float32), tiny.Waves(), settings, tiny.noise())
    made = 0
    for item in stream:
        made += isinstance(item, LatentChunk)
        if made == 5:  # the window is full, and what is pinned is there
            break
    with FlopCounterMode(display=False) as counted:
        for item in stream:
            if isinstance(item, LatentChunk):
                break
    work = chunk_work(card, settings, width=8 * tiny.WIDTH, height=8 * tiny.HEIGHT)
    assert work.operations == counted.get_total_flops()


def wan(**settings) -> tuple:
    from kf_core.checkpoints.known_models import self_forcing

    card = replace(self_forcing(), **WAN_1_3B, text=TextSpec(kind="umt5"))
    return card, RolloutSettings(schedule=warped(), **settings)


def test_a_chunk_of_wan_1_3b_is_136_tflop_at_832x480():
    card, settings = wan()
    large, square = (chunk_work(card, settings, width=w, height=h) for w, h in ((832, 480), (512, 512)))
    assert large.operations == pytest.approx(136e12, rel=0.01) and large.frames == 12
    assert square.operations == pytest.approx(75e12, rel=0.02)
    assert 12 / large.seconds_at(Limits(790e12, 4.8e12)) == pytest.approx(70, abs=0.5)
    assert large.weight_bytes == pytest.approx(5 * 2 * 1.27e9, rel=0.02)  # without the prompt's keys and values, 0.14e9


def test_a_machine_is_held_to_whichever_limit_it_meets_first():
    work = Work(linear=80.0, attention=15.0, reading=5.0, weight_bytes=60.0, cache_bytes=40.0, frames=12)
    assert work.seconds_at(Limits(50.0, 100.0)) == 2 and work.seconds_at(Limits(1000.0, 25.0)) == 4
    assert "80% linear" in work.summary()


def test_limits_are_measured_on_this_machine():
    limits = measure_limits("cpu", torch.float32, rounds=1)
    assert 1e8 < limits.operations_per_second < 1e15 and 1e8 < limits.bytes_per_second < 1e14
