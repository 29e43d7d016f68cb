"""The five nodes in a real ComfyUI: what comes out, how often, and what is left when somebody presses Cancel."""


import pytest
import torch

from kf_core.media.playback import probe

from .conftest import talking


def test_the_graph_makes_as_many_pictures_and_as_much_sound_as_the_voice_lasts(host):
    ran = host.run(talking())
    assert ran.succeeded, ran.messages
    video, pictures = ran.outputs["decode"]
    facts = probe(video.get_stream_source())
    assert facts.pictures == len(pictures) == 32
    assert facts.sound_seconds == pytest.approx(2.0, abs=0.05)
    assert (facts.width, facts.height, facts.fps) == (32, 32, 16)
    assert "AI-generated" in facts.metadata["comment"]


def test_a_second_run_is_cached_and_a_fresh_one_gives_the_same_pictures(host):
    first = host.run(talking()).outputs["decode"]
    again = host.run(talking())
    assert again.succeeded and "decode" in again.cached
    host.fresh()
    fresh = host.run(talking(prefix="elsewhere"))
    assert "decode" not in fresh.cached
    assert torch.equal(fresh.outputs["decode"][1], first[1])
    other = host.run(talking(seed=1)).outputs["decode"][1]
    assert not torch.equal(other, first[1])
