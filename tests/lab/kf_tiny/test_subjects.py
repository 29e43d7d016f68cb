"""Sitters of any length: the same whenever they are asked, and speech that is kept."""

import numpy as np
import torch

from kf_core.timeline import PixelSpan
from lab.kf_tiny.subjects import seat, seat_with_pause, seat_with_voice

SIZE = 32


def test_a_sitter_sits_the_same_again_with_the_same_words(tmp_path):
    first, again = (seat(3, 2, SIZE, tmp_path) for _ in range(2))
    span = PixelSpan(0, first.num_frames)
    assert torch.equal(first.frames(span), again.frames(span))
    assert np.array_equal(first.sound.waveform, again.sound.waveform) and first.voice == again.voice
    assert first.num_frames == 33 and len(first.opening) == 33 and first.sound.seconds > 2.5


def test_frames_do_not_depend_on_how_they_are_asked_for(tmp_path):
    whole, parts = (seat(4, 2, SIZE, tmp_path) for _ in range(2))
    pieces = [parts.frames(PixelSpan(start, min(start + 7, 33))) for start in range(0, 33, 7)]
    assert torch.equal(whole.frames(PixelSpan(0, 33)), torch.cat(pieces))
    assert torch.equal(whole.frames(PixelSpan(5, 9)), parts.frames(PixelSpan(5, 9)))


def test_the_same_seed_is_the_same_face_at_every_length(tmp_path):
    short, long = seat(5, 1, SIZE, tmp_path), seat(5, 3, SIZE, tmp_path)
    assert torch.equal(short.face.skin, long.face.skin) and torch.equal(short.face.seed, long.face.seed)


def test_the_pose_is_black_beyond_the_end_and_its_first_frame_before_the_beginning(tmp_path):
    reader = seat(6, 1, SIZE, tmp_path).pose.open()
    pose = reader.between(PixelSpan(-2, 19), 16, 4, 4)
    assert torch.equal(pose[0], pose[2]) and pose[18].abs().max() > 0 and pose[19:].abs().max() == 0


def test_closures_are_frames_in_which_the_mouth_is_shut(tmp_path):
    sitter = seat(7, 8, SIZE, tmp_path)
    assert len(sitter.closures) > 3 and sitter.opening[list(sitter.closures)].max() == 0


def test_a_pause_is_silent_and_the_mouth_rests(tmp_path):
    sitter = seat_with_pause(8, 4, SIZE, (1.5, 3.0), tmp_path)
    samples = sitter.sound.waveform[0]
    assert np.abs(samples[int(1.5 * 16000) + 1 : 3 * 16000]).max() == 0 and np.abs(samples[3 * 16000 :]).max() > 0.05
    assert sitter.opening[25:48].max() == 0


def test_a_recording_brings_its_own_opening():
    sitter = seat_with_voice(9, np.zeros(32_000, np.float32), torch.linspace(0, 1, 33), SIZE, "somebody")
    assert sitter.num_frames == 33 and torch.equal(sitter.opening, torch.linspace(0, 1, 33)) and sitter.closures == ()
