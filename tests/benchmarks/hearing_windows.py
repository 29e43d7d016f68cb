"""What hearing in windows costs: how far wav2vec 2.0's features of long sound lie from those of the whole, heard at once.

    python -m tests.benchmarks.hearing_windows [--sound FILE] [--seconds 45 75 150] [--small SEEDS] [--full]

The sound is the bundled voice again and again, each time at another loudness and after another pause, or a file. The encoders are random:
small ones by default, and with --full one of base-960h's own size. Prints a table. Beside the windows stand two yardsticks: the whole when
the clip is a second longer, and the whole of sound that is 12 ms late.
"""

import argparse
import itertools
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

from kf_core.checkpoints.load import bundled
from kf_core.conditioning.audio import AudioArray, AudioFile
from kf_core.encoders import wav2vec2
from kf_core.timeline import PixelSpan
from kf_core.types import SAMPLE_RATE

FPS = 16
SMALL = dict(hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128, conv_dim=(32,) * 7)
SMALL |= dict(num_conv_pos_embeddings=64, num_conv_pos_embedding_groups=4)
LATE = round(0.012 * SAMPLE_RATE)


def talk(voice: np.ndarray, seconds: float) -> np.ndarray:
    """The voice for as long as wanted, never twice in the same way."""
    chance, said = np.random.default_rng(0), []
    while sum(map(len, said)) < seconds * SAMPLE_RATE:
        said += [voice * chance.uniform(0.4, 1.0), np.zeros(round(chance.uniform(0.2, 1.5) * SAMPLE_RATE))]
    return np.concatenate(said)[: round(seconds * SAMPLE_RATE)].astype(np.float32)


@contextmanager
def at_once():
    """Sound of any length is heard whole."""
    before, wav2vec2.EXACT_SECONDS = wav2vec2.EXACT_SECONDS, float("inf")
    try:
        yield
    finally:
        wav2vec2.EXACT_SECONDS = before


def steps(sound: np.ndarray, encoder: Wav2Vec2Model, frames: int) -> torch.Tensor:
    return wav2vec2.Wav2Vec2(AudioArray(sound, SAMPLE_RATE), FPS, encoder).steps(PixelSpan(0, frames))


def distances(found: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Of each frame's features, for the size of the whole's: [s]."""
    return (found - whole).norm(dim=1) / whole.norm(dim=1).mean()


def measure(encoder: Wav2Vec2Model, sound: np.ndarray) -> dict[str, float]:
    frames = len(sound) * FPS // SAMPLE_RATE
    windows = steps(sound, encoder, frames)
    with at_once():
        whole = steps(sound, encoder, frames)
        longer = steps(np.concatenate((sound, sound[:SAMPLE_RATE])), encoder, frames)
        late = steps(np.roll(sound, LATE), encoder, frames)
    away = distances(windows, whole)
    by_second = away[: frames // FPS * FPS].unflatten(0, (-1, FPS)).mean(dim=1)
    return {
        "mean": away.mean().item(),
        "worst second": by_second.max().item(),
        "cosine": torch.cosine_similarity(windows, whole).mean().item(),
        "a second longer": distances(longer, whole).mean().item(),
        "12 ms late": distances(late, whole).mean().item(),
    }


def encoder_of(seed: int, sizes: dict) -> Wav2Vec2Model:
    torch.manual_seed(seed)
    return Wav2Vec2Model(Wav2Vec2Config(**sizes)).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sound", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, nargs="+", default=[45, 75, 150])
    parser.add_argument("--small", type=int, default=3, metavar="SEEDS", help="how many small random encoders (default: 3)")
    parser.add_argument("--full", action="store_true", help="and one of base-960h's size")
    chosen = parser.parse_args()
    source = AudioFile(chosen.sound or bundled("example-voice.wav"))
    voice = source.open().samples(0, round(source.seconds * SAMPLE_RATE))
    encoders = {f"small, seed {seed}": (seed, SMALL) for seed in range(chosen.small)} | (
        {"full size, seed 0": (0, {})} if chosen.full else {}
    )
    print("| encoder | sound | mean | worst second | cosine | yardstick: a second longer | yardstick: 12 ms late |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for (name, made_of), seconds in itertools.product(encoders.items(), chosen.seconds):
        sound = voice[: round(seconds * SAMPLE_RATE)] if chosen.sound else talk(voice, seconds)
        found = measure(encoder_of(*made_of), sound)
        shown = [f"{100 * value:.1f} %" if key != "cosine" else f"{value:.3f}" for key, value in found.items()]
        print(f"| {name} | {len(sound) / SAMPLE_RATE:.0f} s | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
