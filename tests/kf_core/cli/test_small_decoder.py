"""`--decoder small`, and the preset that may choose it: where the file is there and was made for the VAE, and never silently else."""

import time

import torch
from safetensors.torch import load_file

from kf_core.checkpoints import decoder_only as alone
from kf_core.vae.streaming import VideoDecoder
from kf_core.vae.wan import WanVAE

from .. import tiny
from .commands import made


def test_the_small_decoder_makes_frames_where_it_is_asked_for_and_fits(files, networks, monkeypatch, capsys):
    short = dict(duration=0.5)
    monkeypatch.setattr(alone, "SMALL_FILE", str(files.folder / "small.safetensors"))
    assert files.animate("none.mp4", **short, decoder="small") != 0 and "comes without kf-tiny's small decoder" in capsys.readouterr().err
    assert files.animate("plain.mp4", **short) == 0 and files.animate("cpu.mp4", **short, tune="cpu") == 0
    plain = made(files.folder / "plain.mp4")
    assert torch.equal(made(files.folder / "cpu.mp4"), plain)  # nothing else to choose
    tiny.write_decoder_alone(files.folder / "small.safetensors", load_file(networks / "tiny-vae.safetensors"))
    assert "small decoder" not in capsys.readouterr().err
    for name, how in (("small", {"decoder": "small"}), ("chosen", {"tune": "cpu"}), ("kept", {"tune": "auto"})):
        assert files.animate(f"{name}.mp4", **short, **how) == 0
        assert ("the small decoder makes the frames, faster and softer" in capsys.readouterr().err) == (name == "chosen")
    assert files.animate("kept.mp4", **short, decoder="small", resume=True) != 0 and "decoder or setting" in capsys.readouterr().err
    small, chosen, kept = (made(files.folder / f"{name}.mp4") for name in ("small", "chosen", "kept"))
    assert torch.equal(chosen, small) and not torch.equal(small, plain) and torch.equal(kept, plain)
    monkeypatch.setattr(alone, "SMALL_FILE", str(tiny.write_decoder_alone(files.folder / "of-another.safetensors", WanVAE(4).state_dict())))
    assert files.animate("refused.mp4", **short, decoder="small") != 0 and "latents of another VAE" in capsys.readouterr().err
    assert files.animate("cpu.mp4", **short, tune="cpu", overwrite=True) == 0 and torch.equal(made(files.folder / "cpu.mp4"), plain)


def test_who_waits_for_the_vae_is_told_of_the_small_decoder(files, networks, monkeypatch, capsys):
    monkeypatch.setattr(alone, "SMALL_FILE", str(files.folder / "small.safetensors"))
    decode = VideoDecoder.decode

    def slow_decode(self, chunk, state):
        time.sleep(0.3 * chunk.span.length)  # the four frames of a latent are watched in 0.25 s
        return decode(self, chunk, state)

    def said(name: str, **how) -> bool:
        assert files.animate(name, duration=0.5, **how) == 0
        return "faster       --decoder small" in capsys.readouterr().out

    monkeypatch.setattr(VideoDecoder, "decode", slow_decode)
    assert not said("alone.mp4")  # there is none
    tiny.write_decoder_alone(files.folder / "small.safetensors", load_file(networks / "tiny-vae.safetensors"))
    assert said("slow.mp4") and not said("small.mp4", decoder="small")
