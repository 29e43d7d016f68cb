"""A louder voice in the file is the strength of the Audio node, and a run that begins with the file begins with what was trained."""

from pathlib import Path

import torch

from kf_core.checkpoints.known_models import kf_tiny
from kf_core.checkpoints.load import load_generator
from kf_core.models.adapters import Adapters
from kf_core.models.rope import Grid
from kf_core.timeline import LatentSpan
from kf_core.types import ChunkConditioning, Signal
from lab.kf_tiny.audio_gain import VOICE_GAIN, as_trained, louder
from lab.kf_tiny.recipes import FILE

BUNDLED = Path(__file__).parents[3] / "kf_core" / "assets" / FILE


def test_the_gain_is_the_strength_of_the_voice():
    torch.manual_seed(0)
    card = kf_tiny(32)
    plain, loud = Adapters(card), Adapters(card)
    for weight in plain.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    loud.load_state_dict(louder(plain.state_dict(), VOICE_GAIN))
    features = torch.randn(1, 3, 4 * card.audio.width)

    def said(strength):
        return ChunkConditioning(span=LatentSpan(3, 6), audio=Signal(features, strength))

    with torch.no_grad():
        told, written = plain(said(VOICE_GAIN), Grid(2, 2), torch.float32), loud(said(1.0), Grid(2, 2), torch.float32)
    assert told.layers.keys() == written.layers.keys() and told.layers
    for layer, added in told.layers.items():
        torch.testing.assert_close(written.layers[layer], added, rtol=1e-5, atol=1e-5)
        assert added.abs().max() > 0.01


def test_a_finished_file_gives_back_what_was_trained():
    trained, written = as_trained(BUNDLED), load_generator(BUNDLED, dtype=torch.float32).adapters.state_dict()
    voices = [name for name in trained if name.startswith("audio_cond_projs.")]
    assert voices and all(name in written for name in voices)
    for name in voices:
        torch.testing.assert_close(written[name].float(), trained[name].float() * VOICE_GAIN, rtol=1e-3, atol=1e-6)
