"""Trains a decoder of half the width on the latents of a finished autoencoder, for processors on which decoding is half of the work.

The encoder is the finished one's and never changes; losses and clips are those of the autoencoder. The file holds the decoder alone and
says for whose latents it is, and what it reached.
"""

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kf_core.checkpoints.decoder_card import ALONE_KEY
from kf_core.checkpoints.decoder_only import SMALL_FILE, encoder_name
from kf_core.checkpoints.vaes import load_vae
from kf_core.vae.streaming import prepare
from kf_core.vae.wan import WanDecoder, WanVAE

from .clip_training import ClipTraining, Stage, in_half, spend, write_weights
from .vae import DIM
from .vae_losses import initialise
from .vae_measure import measure

SMALL_DIM = DIM // 2
FILE, CHECKPOINT = SMALL_FILE, "small-decoder-checkpoint.pt"
STAGES = (
    Stage("frames", 0.15, (1,), 24, (1.0, 0.9), crop=2 / 3),
    Stage("mouths", 0.55, (5, 9), 64, (0.9, 0.6), crop=1 / 2, mouths=True, features=5.0),
    Stage("long clips", 1.0, (9, 17, 33), 27, (0.6, 0.0)),
)
# For one that begins with a finished decoder: rates that do not undo what it knows.
CONTINUING_STAGES = (
    Stage("mouths", 0.5, (5, 9), 64, (0.5, 0.4), crop=1 / 2, mouths=True, features=5.0),
    Stage("long clips", 1.0, (9, 17, 33), 27, (0.4, 0.0)),
)


class SmallDecoderTraining(ClipTraining):
    """Trains a decoder alone behind an encoder that stays as it is."""

    numbers = ("step", "first_step", "seconds", "goes_on", "size", "dim")
    networks = ("decoder", "mean")

    def __init__(self, vae: WanVAE, *, size: int, device: str = "cpu", seed: int = 0, dim: int = SMALL_DIM) -> None:
        """`vae`: the finished autoencoder, in float32. What it does to the latents first (conv2) is where this one begins."""
        super().__init__(size=size, device=device, seed=seed, dim=dim)
        self.vae = vae.requires_grad_(False)
        self.decoder = WanDecoder(dim)
        begun = initialise(WanVAE(dim)).state_dict() | {f"conv2.{name}": w for name, w in vae.conv2.state_dict().items()}
        self.decoder.load_state_dict({name: begun[name] for name in self.decoder.state_dict()})
        prepare(self.decoder, torch.float32, device)
        self.mean = copy.deepcopy(self.decoder).requires_grad_(False)
        self.goes_on = False
        self.make_optimisers()

    @property
    def stages(self) -> tuple[Stage, ...]:
        return CONTINUING_STAGES if self.goes_on else STAGES

    def grow_from(self, file: Path) -> None:
        """Begin with a finished decoder of this width; if it was made for other latents, what it knows of drawing still helps."""
        self.decoder.load_state_dict({name: weight.float() for name, weight in load_file(file).items()})
        self.mean.load_state_dict(self.decoder.state_dict())
        self.goes_on = True

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        return self.vae.encode(frames, {})

    def decode(self, raw: Tensor) -> Tensor:
        return self.decoder.decode(raw, {})

    def pairs(self) -> tuple[WanDecoder, WanDecoder]:
        return self.mean, self.decoder

    def trained(self) -> list[nn.Module]:
        return [self.decoder.conv2, self.decoder.decoder]


def train_small_decoder(
    run_dir: Path, vae_file: Path, *, size: int, minutes: float, device: str = "cpu", seed: int = 0, grow_from: Path | None = None,
    frames_scale: float = 1.0,
) -> Path:  # fmt: skip
    """Trains for `minutes` (counting what an interrupted run spent) and returns the decoder's file.

    `grow_from`: a finished decoder to begin with. `frames_scale`: so many times as many frames per step."""
    vae = load_vae(vae_file, dtype=torch.float32, device=device)
    training, checkpoint = SmallDecoderTraining(vae, size=size, device=device, seed=seed, dim=vae.dim // 2), run_dir / CHECKPOINT
    training.frames_scale = frames_scale
    if checkpoint.exists():
        training.load(checkpoint)
    elif grow_from is not None:
        training.grow_from(grow_from)
    spend(training, minutes, checkpoint, "small decoder")
    return export(training, run_dir / FILE)


def export(training: SmallDecoderTraining, file: Path) -> Path:
    """Writes the running mean in float16, with what was measured on exactly these weights behind the finished encoder in the header."""
    whole, rounded, weights = copy.deepcopy(training.vae), WanDecoder(training.dim), in_half(training.mean)
    rounded.load_state_dict(weights)
    whole.conv2, whole.decoder = rounded.conv2, rounded.decoder
    report = measure(prepare(whole, torch.float32, training.device).requires_grad_(False), training.size, training.device)
    about = {"name": "kf-tiny-decoder-small", "size": training.size, "steps": training.step, "minutes": round(training.seconds / 60, 1)}
    write_weights(file, weights, ALONE_KEY, about | {"encoder": encoder_name(training.vae.state_dict())} | report)
    return file
