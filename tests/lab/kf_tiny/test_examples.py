"""The bundled portraits and voice are those the code makes, small, at rest, and of the held-out splits."""

import wave

import numpy as np
import pytest
import torch
from PIL import Image

from kf_core.checkpoints.load import bundled
from lab.kf_tiny.examples import FACES, TEXT, VOICE, example_portrait, example_voice
from lab.kf_tiny.portraits import sample_identities
from lab.kf_tiny.sentences import HELD_OUT_SENTENCES
from lab.kf_tiny.speech import SAMPLE_RATE_HZ


@pytest.mark.parametrize("name", FACES)
def test_a_bundled_portrait_is_the_one_that_is_drawn(name):
    bundle = np.asarray(Image.open(bundled(name)))
    drawn = (example_portrait(FACES[name]) * 255).round().byte().numpy()
    assert bundle.shape == (512, 512, 3) and np.abs(bundle.astype(int) - drawn).max() <= 1
    assert bundled(name).stat().st_size < 100_000


def test_the_bundled_voice_is_the_one_that_is_spoken():
    said = example_voice()
    with wave.open(str(bundled(VOICE))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE_HZ, 1, 2)
        seconds = file.getnframes() / SAMPLE_RATE_HZ
    assert 10 < seconds < 13 and abs(seconds - said.seconds) < 0.2
    assert bundled(VOICE).stat().st_size < 400_000


def test_no_training_has_met_face_or_words():
    seen = sample_identities(1000, torch.Generator().manual_seed(0)).seed
    assert seen.max() < 2**40 <= min(FACES.values())
    assert not set(TEXT) & set(HELD_OUT_SENTENCES)  # nor does any check of held-out speech use them
