"""What is measured by reading faces: lip sync, identity. Faces and moments of the held-out split, which the reader has never met."""

import numpy as np
import pytest
import torch

from kf_core.metrics.identity import identity
from kf_core.metrics.lip_sync import compare_openings, correlation, lip_sync, opening_from_sound
from kf_core.metrics.reader import READER_FILE, PortraitReader, load_reader
from lab.kf_tiny.drawing import render
from lab.kf_tiny.portraits import sample_identities, sample_motion
from lab.kf_tiny.reader_training import area_under_roc, contrast, draw_batch, measure_reader

FPS = 16


@pytest.fixture(scope="module")
def reader():
    return load_reader()


@pytest.fixture(scope="module")
def clips():
    """Two held-out faces talking for three seconds: frames [2, f, h, w, 3] and their motion."""
    generator = torch.Generator().manual_seed(3)
    motion = sample_motion(2, 48, generator, fps=FPS)
    return render(sample_identities(2, generator, "held-out"), motion, 96).frames.movedim(2, -1), motion


def test_the_bundled_reader_reads_faces_it_has_never_met(reader):
    quality = measure_reader(reader, faces=40, moments=4)
    assert quality.correlations["mouth_open"] >= 0.9
    assert all(quality.correlations[name] >= 0.9 for name in ("blink", "yaw", "roll"))
    assert all(quality.correlations[name] >= 0.75 for name in ("mouth_wide", "pitch", "smile", "gaze_x", "gaze_y"))
    assert quality.verification_auc >= 0.98


def test_the_reader_is_small(reader):
    assert sum(parameter.numel() for parameter in reader.parameters()) < 1_000_000
    assert READER_FILE.stat().st_size < 2_000_000


def test_reading_does_not_depend_on_the_block_or_much_on_the_size(reader, clips):
    frames = clips[0][0]
    whole = reader.read(frames)
    assert torch.allclose(reader.read(frames[40:]).mouth_open, whole.mouth_open[40:], atol=1e-5)
    large = torch.nn.functional.interpolate(frames.movedim(-1, 1), scale_factor=2, mode="bilinear").movedim(1, -1)
    assert correlation(reader.read(large).mouth_open, whole.mouth_open) > 0.97


def test_embeddings_have_length_one(reader, clips):
    assert torch.allclose(reader.read(clips[0][0][:4]).embedding.norm(dim=-1), torch.ones(4), atol=1e-4)


# ---- lip sync ----


def test_a_drawn_mouth_is_in_sync_with_its_track_and_not_with_the_shifted_one(reader, clips):
    for frames, opening in zip(clips[0], clips[1].mouth_open, strict=True):
        result = lip_sync(frames, reader, opening, FPS)
        assert result.r > 0.9 and abs(result.shifted) < 0.5 and result.best_lag == 0


def test_a_mouth_that_is_late_is_found_late(reader, clips):
    late = torch.cat([clips[0][0][:1].expand(3, -1, -1, -1), clips[0][0][:-3]])
    result = lip_sync(late, reader, clips[1].mouth_open[0], FPS)
    assert result.best_lag == pytest.approx(3 / FPS)


def test_a_mouth_that_never_moves_scores_nothing():
    assert compare_openings(torch.full((64,), 0.3), torch.rand(64), FPS).r == 0


def test_correlation_knows_its_ends():
    track = torch.rand(50)
    assert correlation(track, 3 * track + 1) == pytest.approx(1) and correlation(track, -track) == pytest.approx(-1)


def test_sound_opens_the_mouth_where_it_is_loud_and_in_the_speech_band():
    seconds = np.arange(3 * 16_000) / 16_000
    sound = np.sin(2 * np.pi * 500 * seconds) * (seconds >= 1) * (seconds < 2) + np.sin(2 * np.pi * 40 * seconds)
    opening = opening_from_sound(sound.astype(np.float32), 16_000, FPS)
    assert len(opening) == 48
    assert opening[18:30].min() > 0.9 and opening[1:14].max() < 0.05 and opening[34:].max() < 0.05


def test_silence_leaves_the_mouth_shut():
    assert opening_from_sound(np.zeros(16_000, dtype=np.float32), 16_000, FPS).max() == 0


# ---- identity ----


def test_a_face_is_like_itself_and_unlike_another(reader, clips):
    one, other = clips[0]
    same, different = identity(one, reader, one[0]), identity(other, reader, one[0])
    assert same.cosine > different.cosine + 0.4 and same.lowest > 0.5
    assert same.palette < 0.05 < different.palette


def test_a_face_that_becomes_another_shows_in_the_last_fifth(reader, clips):
    one, other = clips[0]
    result = identity(torch.cat([one[:30], other[:10]]), reader, one[0])
    assert result.last_fifth < result.cosine - 0.2 and result.lowest < 0.5


# ---- training ----


def test_contrast_is_smaller_where_moments_of_a_face_are_together():
    who = torch.arange(4).repeat_interleave(3)
    together = torch.nn.functional.one_hot(who).float()
    assert contrast(together, who) < contrast(together[torch.randperm(12, generator=torch.Generator().manual_seed(0))], who) - 1


def test_the_area_under_roc_knows_its_ends():
    scores, positive = torch.tensor([0.1, 0.2, 0.8, 0.9]), torch.tensor([False, False, True, True])
    assert area_under_roc(scores, positive) == 1 and area_under_roc(scores, ~positive) == 0
    assert area_under_roc(torch.tensor([0.1, 0.4, 0.3, 0.9]), positive) == 0.75


def test_an_untrained_reader_reads_nothing():
    torch.manual_seed(0)
    assert abs(measure_reader(PortraitReader().eval(), faces=30, moments=2).correlations["mouth_open"]) < 0.5


def test_a_batch_holds_faces_in_order_and_values_in_their_units():
    frames, truth = draw_batch(3, 2, torch.Generator().manual_seed(0))
    assert frames.shape == (6, 3, 96, 96) and truth.shape == (6, 10)
    assert 0 <= (truth[:, 0] * 0.35).min() and (truth[:, 0] * 0.35).max() <= 1
