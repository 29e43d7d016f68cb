"""The protocol that gives a model card its numbers, on an untrained model: everything runs, and the truth is the truth."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from kf_core.checkpoints.known_models import kf_tiny
from kf_core.metrics.reader import load_reader
from kf_core.models.adapters import Adapters
from kf_core.models.causal import Generator
from kf_core.models.wan import WanModel
from kf_core.vae.streaming import encode_clip
from kf_core.vae.wan import WanVAE
from lab.kf_tiny.measure import means, measure, measured, sit, through_codec
from lab.kf_tiny.speech_dataset import speech_library

SIZE = 32


@pytest.fixture(scope="module")
def library():
    return speech_library(1.5, held_out=True)


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return WanVAE(4).eval().requires_grad_(False)


def test_a_sitter_is_a_pure_function_of_its_seed(library):
    first, again, other = (sit(seed, 1, SIZE, library) for seed in (5, 5, 6))
    assert torch.equal(first.frames, again.frames) and torch.equal(first.pose, again.pose)
    assert not torch.equal(first.frames, other.frames)
    assert len(first.frames) == len(first.opening) == len(first.pose) == 17 and len(first.samples) == 17_000


def test_the_truth_measured_against_itself_is_perfect(library, vae):
    sitter = sit(8, 4, 96, library)
    codec = torch.cat(list(through_codec(sitter.frames, vae)))
    report = measured(sitter, sitter.frames, codec, load_reader(), 3)
    assert report.psnr.whole > 60 and report.lip_sync.r > 0.9 and report.drift.from_truth == 0
    assert report.sharpness.ratio == pytest.approx(1)


def test_the_codec_in_blocks_equals_the_codec_at_once(library, vae):
    from kf_core.vae.streaming import DecoderState, decode_latents

    frames = sit(9, 6, SIZE, library).frames
    blocks = torch.cat(list(through_codec(frames, vae)))
    whole = decode_latents(vae, encode_clip(vae, frames.permute(3, 0, 1, 2)[None]), DecoderState())
    torch.testing.assert_close(blocks, whole[0].permute(1, 2, 3, 0).float(), rtol=0, atol=1e-4)


def test_the_protocol_leaves_numbers_and_frames(library, vae, tmp_path):
    torch.manual_seed(1)
    card = replace(kf_tiny(SIZE), dim=128, heads=1, ffn_dim=128, layers=2, audio=replace(kf_tiny().audio, first_layer=1, last_layer=1))
    model = Generator(card, WanModel(card), Adapters(card))
    summary = measure(model, vae, library, tmp_path, sitters=2, seconds=2, long_seconds=3)
    assert json.loads((tmp_path / "measures.json").read_text()) == summary
    assert summary["about"]["machine"].startswith("float32 on cpu, ")
    assert (tmp_path / "sitters.png").exists() and (tmp_path / "long.png").exists()
    with Image.open(tmp_path / "1000 sound only.webp") as moving:
        assert moving.n_frames == 33 and moving.size == (192, 192)
    conditions = summary["conditions"]
    assert [len(conditions[name]["each"]) for name in ("codec", "pose and sound", "sound only", "long")] == [2, 2, 2, 1]
    assert {"mouth r", "PSNR", "identity cosine", "seam ratio"} <= conditions["sound only"]["mean"].keys()


def test_means_are_of_what_everybody_has():
    assert means([{"seed": 1, "a": 1.0, "b": 5.0}, {"seed": 2, "a": 3.0}]) == {"a": 2.0}
