"""What the tests of the command line give it: a tiny model, a portrait and a voice in a folder; and how they read what comes back."""

import subprocess
import sys
import wave
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from kf_core.cli.main import main
from kf_core.media.playback import frames

from .. import tiny

CARD = replace(tiny.CARD, name="tiny", audio=replace(tiny.CARD.audio, width=256), width=32, height=32)


@dataclass(frozen=True)
class Files:
    """A real tiny model, a portrait and a voice in a folder."""

    folder: Path

    def words(self, out: str = "out.mp4", **changed) -> list[str]:
        """The words of an `animate` that works; an option given as None is left away, True is a flag."""
        given = {"portrait": self.folder / "portrait.png", "audio": self.folder / "voice.wav", "out": self.folder / out}
        given |= {"checkpoint": self.folder / "tiny.safetensors", "precision": "fp32"} | changed
        words = ["animate"]
        for name, value in given.items():
            if value is not None:
                words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        return words

    def animate(self, out: str = "out.mp4", **changed) -> int:
        return main(self.words(out, **changed))

    def subprocess(self, out: str, **changed) -> subprocess.Popen:
        words = [sys.executable, "-m", "kf_core", *self.words(out, **changed)]
        root = Path(__file__).parents[3]
        return subprocess.Popen(words, cwd=root, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def write_voice(path: Path, seconds: float, rate: int = 16000, loudness: float = 0.3) -> None:
    moments = np.arange(round(seconds * rate)) / rate
    sound = loudness * np.sin(2 * np.pi * 300 * moments) * np.sin(2 * np.pi * 3 * moments)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((sound * 32767).astype("<i2").tobytes())


def made(path: Path) -> torch.Tensor:
    return torch.stack(list(frames(path)))


def refusal(files: Files, capsys, **changed) -> str:
    """The one sentence of an `animate` that fails."""
    capsys.readouterr()
    assert files.animate(**changed) == 1
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line and not line.startswith("Note: ") and "%|" not in line]
    assert len(lines) == 1 and not printed.out, printed
    return lines[0]
