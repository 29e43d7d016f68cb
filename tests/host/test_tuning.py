"""Presets in the nodes: nothing changes where there is room, what is chosen is said, and a swap of the decoder is asked for."""

import sys
from dataclasses import replace

import pytest
import torch

from kf_core.checkpoints.known_models import kf_tiny, self_forcing
from kf_core.planning.memory import DecoderKind, footprint
from kf_core.session.executor import InlineExecutor

from .conftest import talking


@pytest.mark.parametrize(
    "card, settings",
    [
        (kf_tiny(), kf_tiny().rollout),
        (kf_tiny(), replace(kf_tiny().rollout, pinned=2, window=9)),
        (replace(self_forcing(), layers=2), self_forcing().rollout),
        (replace(self_forcing(), layers=2), replace(self_forcing().rollout, guidance=2.0)),
    ],
    ids=["kf-tiny", "pinned", "everything remembered", "guided"],
)
def test_the_room_that_is_asked_for_is_what_the_cache_takes(host, card, settings):
    asked = host.of_pack("host.running").cache_bytes(card, settings, (8, 12), torch.bfloat16)
    forward = host.of_pack("host.running").OptimizedGenerator
    found = footprint(card, settings, DecoderKind(dim=16), width=96, height=64, dtype=torch.bfloat16, forward=forward)
    assert asked == found.cache


def made(host, tune: str | None, prefix: str):
    host.fresh()
    ran = host.run(talking(seed=50, prefix=prefix, sampler={"seconds": 0.8} | ({} if tune is None else {"tune": tune})))
    assert ran.succeeded, ran.messages[-1]
    return ran.outputs["decode"][1], ran.said("decode")


def test_with_room_every_preset_gives_an_old_workflows_frames(host, tiny):
    old, nothing = made(host, None, "untuned")
    assert not any("Preset" in line for line in nothing)
    for tune in ("auto", "cpu", "8gb", "24gb"):
        frames, lines = made(host, tune, f"tuned-{tune}")
        assert torch.equal(frames, old)
        if tune.endswith("gb"):
            assert lines[0].startswith(f"Preset {tune}: tiny at 32x32 needs 0.") and "the VAE, a chunk at a time, beside" in lines[0]
            assert lines[0] in lines[-1]


@pytest.fixture
def no_room(host, monkeypatch):
    """Cards of half a gigabyte: less than the driver takes."""
    presets = sys.modules[host.of_pack("tuning").plan.__module__]
    for name in presets.PRESETS:
        monkeypatch.setitem(presets.PRESETS, name, presets.GIB // 2)
    return presets


def test_a_chosen_preset_without_room_takes_the_tiny_decoder_that_is_there(host, tiny, no_room):
    softer, lines = made(host, "8gb", "no-room")
    assert "with a tiny decoder, a latent at a time, in turn with the denoising" in lines[0]
    assert lines[0].endswith("Make the frames smaller. taew2_1.safetensors makes the frames.")
    assert not torch.equal(softer, made(host, None, "untuned")[0])


def test_without_room_auto_keeps_the_vae_and_says_what_could_be_chosen(host, tiny, no_room, monkeypatch):
    monkeypatch.setattr(no_room, "preset_for", lambda device: "12gb")
    monkeypatch.setattr(no_room, "_reason", lambda preset, device: "it is a small card")
    frames, lines = made(host, "auto", "no-room-auto")
    assert lines[0].startswith("Preset 12gb, because it is a small card") and "with the VAE, a latent at a time, in turn" in lines[0]
    assert lines[0].endswith("taew2_1.safetensors is there: choose 12gb in `tune`, and it makes the frames, faster and softer.")
    monkeypatch.undo()
    assert (frames - made(host, None, "untuned")[0]).abs().mean() < 0.002  # a latent at a time: bfloat16 rounds elsewhere


def test_who_has_no_room_for_both_makes_frames_after_the_drawing(host, tiny, no_room, monkeypatch):
    seen = []
    tuned = host.of_pack("tuning").Tuned
    worker = tuned.worker
    monkeypatch.setattr(tuned, "worker", lambda self, stream: seen.append(worker(self, stream)) or seen[-1])
    made(host, "8gb", "in-turn")
    assert [type(each).__name__ for each in seen] == [InlineExecutor.__name__]
