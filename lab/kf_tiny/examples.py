"""The bundled examples: three faces and a voice that no training has met.

The portraits are identities of the held-out split, looking at the viewer with the mouth shut; the voice is a held-out voice saying a text
that no grammar of `sentences.py` can say. All come out the same whenever they are made (the sound to a few milliseconds).
"""

import wave
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .drawing import render
from .portraits import Motion, identities
from .speech import HELD_OUT_VOICES, SAMPLE_RATE_HZ, Speech, join, pause, speak

VOICE = "example-voice.wav"
FACES = {  # of the held-out split
    "example-portrait.png": 2**40 + 62,
    "example-portrait-zuri.png": 2**40 + 59,
    "example-portrait-tom.png": 2**40 + 53,
}
TEXT = (
    "Hello! I am a frame with a voice.",
    "Before this film began, nobody had ever seen me move.",
    "Give me a poem, a joke, or a bedtime fable: my lips will follow.",
)


def example_portrait(face: int, size: int = 512) -> Tensor:
    """A face at rest: [size, size, 3] RGB 0..1."""
    still = Motion(**{field.name: torch.zeros(1, 1) for field in fields(Motion)})
    still.smile.fill_(0.35)
    return render(identities(torch.tensor([face])), still, size).frames[0, 0].permute(1, 2, 0)


def example_voice() -> Speech:
    """About twelve seconds."""
    parts = [pause(0.3)]
    for sentence in TEXT:
        parts += [speak(sentence, HELD_OUT_VOICES[0], words_per_minute=165, pitch=55), pause(0.15)]
    return join(parts)


def write_examples(folder: Path) -> None:
    """All files, ready to be bundled."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, face in FACES.items():
        frame = (example_portrait(face) * 255).round().byte().numpy()
        Image.fromarray(frame).save(folder / name, optimize=True)
    with wave.open(str(folder / VOICE), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((example_voice().samples.clip(-1, 1) * 32767).round().astype(np.int16).tobytes())
