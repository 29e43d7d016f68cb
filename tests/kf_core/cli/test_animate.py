"""`animate`: a portrait and a voice become a video, of any kind and length, and every word changes what it should."""

import argparse
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from kf_core.checkpoints.known_models import self_forcing, wan_t2v
from kf_core.cli.model import settings_for
from kf_core.media.playback import probe
from kf_core.models.card import CARD_KEY
from kf_core.models.vace import Vace
from kf_core.schedule import few_steps
from kf_core.session.latent_log import LatentLog
from kf_core.vae.taehv import TinyVAE

from .commands import CARD, Files, made, write_voice


def test_a_portrait_and_a_voice_become_a_video_as_long_as_the_voice(files, capsys):
    assert files.animate() == 0
    facts = probe(files.folder / "out.mp4")
    assert facts.frames == 24 and facts.seconds == 1.5 and abs(facts.sound_seconds - 1.5) < 1e-3
    assert (facts.width, facts.height, facts.fps) == (32, 32, 16)
    assert "AI-generated" in facts.metadata["comment"] and "tiny, seed 0" in facts.metadata["comment"]
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("FPS", "first frame", "precision    float32", "out.mp4: 1.50 s, 24 frames"))
    assert not (files.folder / "out.mp4.resume").exists()


def test_a_duration_beyond_the_voice_goes_on_in_silence(files):
    assert files.animate(duration=2.2) == 0
    facts = probe(files.folder / "out.mp4")
    assert facts.frames == 36 and abs(facts.sound_seconds - facts.seconds) < 1e-3


def test_without_a_voice_a_duration_is_enough(files):
    assert files.animate(audio=None, duration=0.5, script="smile") == 0
    assert probe(files.folder / "out.mp4").frames == 8


def test_a_model_that_remembers_every_frame_gets_memory_for_all(files):
    forgetless = replace(CARD, rollout=replace(CARD.rollout, window=None, max_frames=3))
    with safe_open(files.folder / "tiny.safetensors", "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(weights, files.folder / "all.safetensors", metadata={CARD_KEY: forgetless.to_json()})
    assert files.animate(checkpoint=files.folder / "all.safetensors", vae=files.folder / "tiny-vae.safetensors") == 0
    assert probe(files.folder / "out.mp4").frames == 24


def test_the_words_change_the_video(files):
    short = dict(duration=0.5, quiet=True)
    changes = {"seed": 1, "steps": 1, "script": "smile", "motion_strength": 2, "audio_strength": 0}
    assert files.animate("plain.mp4", **short) == 0 and files.animate("again.mp4", **short) == 0
    plain = made(files.folder / "plain.mp4")
    assert torch.equal(made(files.folder / "again.mp4"), plain)
    for name, value in changes.items():
        assert files.animate(f"{name}.mp4", **short, **{name: value}) == 0
        assert not torch.equal(made(files.folder / f"{name}.mp4"), plain), name
    assert files.animate("size.mp4", **short, width=48, height=64) == 0
    assert (probe(files.folder / "size.mp4").width, probe(files.folder / "size.mp4").height) == (48, 64)


def test_a_tiny_decoder_makes_other_frames_of_the_same_latents_as_many(files):
    torch.manual_seed(0)
    save_file(TinyVAE("model", widths=(12, 8, 6, 4)).state_dict(), files.folder / "taew2_1.safetensors")
    assert files.animate("plain.mp4") == 0 and files.animate("tiny.mp4", decoder=files.folder / "taew2_1.safetensors") == 0
    facts = probe(files.folder / "tiny.mp4")
    assert (facts.frames, facts.width, facts.height) == (24, 32, 32)
    assert not torch.equal(made(files.folder / "tiny.mp4"), made(files.folder / "plain.mp4"))


def test_another_number_of_steps_is_spaced_as_the_models_own_are():
    chosen = argparse.Namespace(method="own", steps=4, guidance=None)
    plain = settings_for(chosen, wan_t2v())
    assert plain.schedule == few_steps(4, 8.0) and plain.guidance == 6 and not plain.renoise
    assert settings_for(chosen, self_forcing()) == self_forcing().rollout
    off = argparse.Namespace(method="knot-forcing", steps=None, guidance=1.0)
    assert settings_for(off, wan_t2v()) == replace(wan_t2v().rollout, guidance=1.0)


def test_a_control_video_leads_through_a_module_and_is_not_used_without_one(files, capsys):
    torch.manual_seed(2)
    module = Vace(dim=CARD.dim, ffn_dim=CARD.ffn_dim, heads=CARD.heads, blocks=3)
    save_file(module.state_dict(), files.folder / "vace.safetensors", metadata={"format": "pt"})
    assert files.animate("plain.mp4", duration=0.5, quiet=True) == 0
    words = dict(duration=0.5, quiet=True, control=files.folder / "plain.mp4", control_module=files.folder / "vace.safetensors")
    assert files.animate("led.mp4", **words) == 0 and files.animate("weak.mp4", **words, control_strength=0) == 0
    plain = made(files.folder / "plain.mp4")
    assert torch.equal(made(files.folder / "weak.mp4"), plain) and not torch.equal(made(files.folder / "led.mp4"), plain)
    capsys.readouterr()
    assert files.animate("unled.mp4", **words | {"control_module": None}) == 0
    assert "no VACE module loaded" in capsys.readouterr().err and torch.equal(made(files.folder / "unled.mp4"), plain)


def latents_of(files: Files, name: str, **words) -> torch.Tensor:
    """What a command drew: [1, 16, f, h, w]."""
    assert files.animate(f"{name}.mp4", **words, spool=files.folder / name) == 0
    (file,) = (files.folder / name).iterdir()
    kept = LatentLog(files.folder / name, file.stem)
    return torch.cat([kept.read(index).latents for index in range(len(kept))], dim=2)


@pytest.mark.parametrize("seconds", [0.05, 1e-4])
def test_a_moment_of_sound_gives_a_moment_of_video(files, seconds):
    write_voice(files.folder / "voice.wav", seconds)
    assert files.animate() == 0
    assert probe(files.folder / "out.mp4").frames == 1


def test_silence_is_a_voice_too(files):
    write_voice(files.folder / "voice.wav", 0.5, loudness=0)
    assert files.animate() == 0 and probe(files.folder / "out.mp4").frames == 8


@pytest.mark.parametrize("mode", ["CMYK", "I;16", "animated", "RGBA"])
def test_a_portrait_of_any_kind_will_do(files, mode):
    image, path = Image.open(files.folder / "portrait.png"), files.folder / "other.tiff"
    if mode == "I;16":
        Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257).save(path)
    elif mode == "animated":
        path = path.with_suffix(".gif")
        image.save(path, save_all=True, append_images=[image.rotate(90)])
    else:
        image.convert(mode).save(path)
    assert files.animate(portrait=path, duration=0.1) == 0
