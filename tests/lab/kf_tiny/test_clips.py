"""Training clips: pure functions of their seed, driven as a stream is driven, kept in a folder that may grow while it is read."""

from dataclasses import fields
from itertools import product

import numpy as np
import pytest
import torch

from kf_core.conditioning.audio import AudioArray
from kf_core.conditioning.driving import Driving
from kf_core.models.card import AudioSpec, ModelCard, TextSpec
from kf_core.schedule import warped
from kf_core.settings import RolloutSettings
from kf_core.timeline import LatentSpan
from kf_core.types import SAMPLE_RATE
from kf_core.vae.streaming import prepare
from kf_core.vae.wan import WanVAE
from lab.kf_tiny.clips import (
    HELD_OUT_SEED,
    SHARD,
    ClipFolder,
    encode,
    encode_together,
    joined,
    make_clips,
    sample_clip,
    sample_clips,
    who_and_how,
)
from lab.kf_tiny.examples import FACES
from lab.kf_tiny.portraits import identities, sample_identities
from lab.kf_tiny.speech import TRAINING_VOICES, monologue
from lab.kf_tiny.speech_dataset import Library, training_take
from lab.kf_tiny.voice_augment import disturb

SIZE = 32


@pytest.fixture(scope="module")
def library() -> Library:
    return Library.of(monologue(voice, 8, seed=0) for voice in TRAINING_VOICES[:2])


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    torch.manual_seed(0)
    return prepare(WanVAE(8), torch.float32).requires_grad_(False)


def test_a_clip_is_a_pure_function_of_its_seed(library):
    first, other, again = (sample_clip(seed, library, frames=9, size=SIZE) for seed in (4, 5, 4))
    assert torch.equal(first.frames, again.frames) and not torch.equal(first.frames, other.frames)
    for field in fields(first.drivers):
        assert torch.equal(getattr(first.drivers, field.name), getattr(again.drivers, field.name))


def test_faces_that_are_measured_or_bundled_are_none_that_clips_show():
    def seeded(seed):
        return torch.Generator().manual_seed(seed)

    def shown(faces):
        return {int(face.seed) % 2**32 for face in faces}  # the bits of a seed that a generator reads

    trained = [who_and_how(9, seeded(seed)) for seed in range(200)]
    probed = [who_and_how(9, seeded(HELD_OUT_SEED + seed), "held-out") for seed in range(30)]
    measured = [sample_identities(1, seeded(seed), "held-out") for seed in (*range(1000, 1004), *range(2000, 2016), *range(4000, 4008))]
    faces = [
        shown(face for face, _ in trained),
        shown(face for face, _ in probed),
        shown(measured),
        shown(identities(torch.tensor([*FACES.values()]))),
    ]
    assert [len(each) for each in faces] == [200, 30, 28, 3] and len(set.union(*faces)) == 200 + 30 + 28 + 3
    assert not any(torch.equal(a.yaw, b.yaw) for (_, a), (_, b) in product(trained[:30], probed))


def test_a_clip_is_driven_by_the_same_numbers_as_a_stream(library):
    clip = sample_clip(7, library, frames=17, size=SIZE)
    sound = training_take(library, 17, np.random.default_rng([7, 1])).samples
    card = ModelCard(
        name="t", dim=128, ffn_dim=128, layers=3, heads=1, in_channels=33, text=TextSpec(kind="none", width=8, tokens=1),
        audio=AudioSpec(kind="log-mel", width=256), rollout=RolloutSettings(schedule=warped()),
    )  # fmt: skip
    bound = Driving(audio=AudioArray(sound, SAMPLE_RATE)).bind(card, latent_height=4, latent_width=4)
    assert torch.equal(clip.drivers.audio[None], bound.window(LatentSpan(0, 5)).audio.features)


def test_the_mouth_of_a_take_is_closed_where_it_is_silent(library):
    silent_frames = 0
    for seed in range(60):
        take = training_take(library, 33, np.random.default_rng(seed))
        sound = np.abs(take.samples[: 33 * 1000]).reshape(33, 1000).max(1)
        silent = sound == 0
        silent_frames += silent[1:-1].sum()
        inside = silent[:-1] & silent[1:]  # silent now and until the next frame
        assert not take.mouth[0, :-1][inside & np.roll(silent, 1)[:-1]].any()
    assert silent_frames > 60


def test_disturbing_changes_the_sound_and_keeps_it_finite(library):
    take = library.cut(20, np.random.default_rng(0))
    disturbed = [disturb(take.samples, np.random.default_rng(seed)) for seed in range(20)]
    assert all(np.isfinite(d).all() and abs(d).max() <= 1 and d.shape == take.samples.shape for d in disturbed)
    assert sum(not np.array_equal(d, take.samples) for d in disturbed) > 15


def test_a_saved_library_is_the_same_library(library, tmp_path):
    library.save(tmp_path / "speech.safetensors")
    restored = Library.load(tmp_path / "speech.safetensors")
    assert all(np.array_equal(getattr(library, name), getattr(restored, name)) for name in ("samples", "mouth", "lengths"))


def test_weights_look_at_mouth_and_eyes(library):
    clip = sample_clip(3, library, frames=9, size=96)
    assert clip.weights.shape == (3, 12, 12)
    assert 1 <= clip.weights.min() < 1.01 and 2.5 < clip.weights.max() <= 4
    assert 0.5 < clip.mouth.max() <= 1 and clip.mouth.mean() < 0.2
    assert (clip.weights - 1 - 3 * clip.mouth).min() > -1e-4


def test_the_reference_is_the_last_frame_alone(library, vae):
    clip = sample_clip(1, library, frames=9, size=SIZE)
    row = encode(vae, clip)
    short = sample_clip(1, library, frames=9, size=SIZE)
    alone = encode(vae, type(clip)(frames=short.frames[:, -1:], drivers=short.drivers, weights=short.weights, mouth=short.mouth))
    assert torch.equal(row.reference, alone.latents)


def test_a_folder_is_read_while_it_grows(library, vae, tmp_path):
    writer, reader = ClipFolder(tmp_path / "clips"), ClipFolder(tmp_path / "clips")
    rows = [encode(vae, sample_clip(seed, library, frames=9, size=SIZE)) for seed in range(3)]
    assert reader.read_new() == []
    writer.write(joined(rows[:2]))
    assert [len(shard) for shard in reader.read_new()] == [2]
    writer.write(joined(rows[2:]))
    (new,) = reader.read_new()
    assert torch.equal(new.latents, rows[2].latents) and reader.read_new() == []


def test_making_clips_goes_on_where_it_stopped(library, vae, tmp_path, monkeypatch):
    monkeypatch.setattr("lab.kf_tiny.clips.LENGTHS", (9,))
    whole, parts = ClipFolder(tmp_path / "whole"), ClipFolder(tmp_path / "parts")
    make_clips(whole, vae, library, count=2 * SHARD, size=SIZE)
    make_clips(parts, vae, library, count=SHARD, size=SIZE)
    assert make_clips(ClipFolder(tmp_path / "parts"), vae, library, count=2 * SHARD, size=SIZE) == 2 * SHARD
    for one, other in zip(whole.read_new(), parts.read_new(), strict=True):
        assert torch.equal(one.latents, other.latents)


def test_clips_that_are_drawn_and_encoded_together_are_those_that_are_made_alone(library, vae):
    how = dict(frames=9, size=SIZE)
    together, alone = sample_clips([4, 5, 6], library, **how), [sample_clip(seed, library, **how) for seed in (4, 5, 6)]
    assert all(torch.allclose(one.frames, other.frames, atol=1e-6) for one, other in zip(together, alone, strict=True))
    rows, single = encode_together(vae, together), joined([encode(vae, clip) for clip in alone])
    for field in fields(rows):
        one, other = (getattr(clips, field.name).float() for clips in (rows, single))
        assert one.shape == other.shape and torch.allclose(one, other, atol=1 if field.name == "pose" else 2e-2)


def test_processes_that_share_the_work_make_the_same_clips(library, vae, tmp_path, monkeypatch):
    monkeypatch.setattr("lab.kf_tiny.clips.LENGTHS", (5,))
    whole, shared = ClipFolder(tmp_path / "whole"), ClipFolder(tmp_path / "shared")
    make_clips(whole, vae, library, count=3 * SHARD, size=SIZE)
    assert make_clips(shared, vae, library, count=3 * SHARD, size=SIZE, part=1, parts=2) == SHARD and shared.holds(1)
    assert len(ClipFolder(shared.path).read_new()) == 1  # whoever is slower is not waited for
    assert make_clips(shared, vae, library, count=3 * SHARD, size=SIZE, part=0, parts=2) == 3 * SHARD
    for one, other in zip(whole.read_new(), shared.read_new(), strict=True):
        assert torch.equal(one.latents, other.latents)
