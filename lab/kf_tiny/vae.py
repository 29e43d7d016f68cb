"""Trains kf-tiny's autoencoder on procedural portraits: frames first, then short clips, then long ones, at last the decoder alone.

The schedule is counted in minutes of the budget, so the same recipe fits an hour of one CPU thread or a few minutes of a GPU.
When the encoder freezes, `kf-tiny-vae.safetensors` is written and the latents never change again: a generator can be trained
on them while the decoder goes on getting better. A run that was killed goes on where its last checkpoint stood; what it was worth until
then lies in `kf-tiny-vae-so-far.safetensors`.

    python -m lab.kf_tiny.vae --run runs/kf-tiny --size 128 --minutes 65
"""

import argparse
import copy
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kf_core.checkpoints.read import read_header
from kf_core.vae.streaming import prepare
from kf_core.vae.wan import WanVAE

from .checkpointing import so_far
from .clip_training import ClipTraining, Stage, in_half, spend, write_weights
from .vae_clips import Clips
from .vae_losses import fixed_reader, initialise, reading_losses
from .vae_measure import fold_statistics, measure, measure_statistics, unfold_statistics

DIM = 16
FILE = "kf-tiny-vae.safetensors"
HEADER_KEY = "kf_tiny_vae"
CHECKPOINT = "vae-checkpoint.pt"

KL_WEIGHT = 3e-4
COLOUR_WEIGHT = 1.0
RHYTHM_WEIGHT = 1.0
CLIPS_SO_FAR = 16  # whose statistics a file on the way is folded by

STAGES = (
    Stage("frames", 0.15, (1,), 24, (1.0, 0.9), crop=2 / 3),
    Stage("short clips", 0.35, (5, 9), 36, (0.9, 0.7), crop=2 / 3),
    Stage("mouths", 0.62, (5, 9), 64, (0.7, 0.6), crop=1 / 2, mouths=True, features=5.0),
    Stage("long clips", 0.74, (9, 17, 33), 27, (0.6, 0.1)),
    Stage("decoder", 1.0, (9, 17, 33), 27, (0.6, 0.0), decoder_only=True),
)
# For an autoencoder that begins with the weights of one for smaller frames: what it knows holds, features have another size.
GROWING_STAGES = (
    Stage("short clips", 0.15, (5, 9), 48, (0.7, 0.6), crop=1 / 2),
    Stage("mouths", 0.35, (5, 9), 64, (0.6, 0.5), crop=3 / 8, mouths=True, features=5.0),
    Stage("long clips", 0.57, (9, 17, 33), 36, (0.6, 0.1), crop=5 / 8),
    Stage("decoder", 1.0, (9, 17, 33), 36, (0.6, 0.0), crop=5 / 8, decoder_only=True),
)
# For one that begins with a finished autoencoder for frames of this very size: rates that do not undo what it knows, and more faces
# than length, since it is rare things that its encoder does not send yet.
CONTINUING_STAGES = (
    Stage("together", 0.70, (5, 9, 17), 36, (0.3, 0.1), crop=5 / 8),
    Stage("long clips", 0.80, (9, 17, 33), 36, (0.1, 0.03), crop=5 / 8),
    Stage("decoder", 1.0, (9, 17, 33), 36, (0.3, 0.0), crop=5 / 8, decoder_only=True),
)


class VAETraining(ClipTraining):
    """Trains the encoder and the decoder together until the encoder is frozen, then the decoder alone."""

    numbers = ("step", "first_step", "seconds", "is_frozen", "has_grown", "goes_on", "size", "dim")
    networks = ("vae", "mean_vae", "reader")

    def __init__(self, *, size: int, device: str = "cpu", seed: int = 0, dim: int = DIM) -> None:
        super().__init__(size=size, device=device, seed=seed, dim=dim)
        self.vae = prepare(initialise(WanVAE(dim)), torch.float32, device)
        self.mean_vae = prepare(WanVAE(dim), torch.float32, device).requires_grad_(False)
        self.mean_vae.load_state_dict(self.vae.state_dict())
        self.reader = fixed_reader().to(device)
        self.is_frozen = False
        self.has_grown = False
        self.goes_on = False
        self.make_optimisers()

    @property
    def stages(self) -> tuple[Stage, ...]:
        return CONTINUING_STAGES if self.goes_on else GROWING_STAGES if self.has_grown else STAGES

    @property
    def begun_with(self) -> str:
        """What the model card says it began with; nothing: chance."""
        return "a finished autoencoder" if self.goes_on else "an autoencoder for smaller frames" if self.has_grown else ""

    @property
    def learns_latents(self) -> bool:
        return not self.is_frozen

    @property
    def share_begun(self) -> float:
        """The share of a budget that is behind it: what is frozen stays frozen, also under a larger one."""
        return self.stages[-2].until if self.is_frozen else 0.0

    def grow_from(self, file: Path) -> None:
        """Begin with the weights of a finished autoencoder, for smaller frames or for frames of this size."""
        self.vae.load_state_dict({name: weight.float() for name, weight in load_file(file).items()})
        unfold_statistics(self.vae, self.size, self.device)
        self.mean_vae.load_state_dict(self.vae.state_dict())
        self.goes_on = about_file(file).get("size") == self.size
        self.has_grown = not self.goes_on

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        return self.vae.encode(frames, {})

    def decode(self, raw: Tensor) -> Tensor:
        return self.vae.decode(raw, {})

    def further_losses(self, mean: Tensor, log_variance: Tensor, batch: Clips) -> Iterable[Tensor]:
        if self.is_frozen:
            return
        yield KL_WEIGHT * 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        colour, rhythm = reading_losses(self.reader(mean), batch.frames)
        yield COLOUR_WEIGHT * colour
        yield RHYTHM_WEIGHT * rhythm

    def pairs(self) -> tuple[WanVAE, WanVAE]:
        return self.mean_vae, self.vae

    def trained(self) -> list[nn.Module]:
        return [self.vae.conv2, self.vae.decoder] + ([] if self.is_frozen else [self.vae.encoder, self.vae.conv1])

    def load(self, path: Path) -> None:
        """Goes on exactly where `save` was called, the encoder frozen if it was."""
        super().load(path)
        if self.is_frozen:
            self.vae.encoder.requires_grad_(False)
            self.vae.conv1.requires_grad_(False)

    def freeze_encoder(self) -> None:
        """From here on the latents are fixed: running means become the weights, the statistics are folded in, rounded as in the file."""
        self.vae.load_state_dict(self.mean_vae.state_dict())
        fold_statistics(self.vae, *measure_statistics(self.vae, self.size, self.device))
        for part in (self.vae.encoder, self.vae.conv1):
            for parameter in part.requires_grad_(False).parameters():
                parameter.data = parameter.data.half().float()
        self.mean_vae.load_state_dict(self.vae.state_dict())
        self.is_frozen = True
        self.make_optimisers()


def train_vae(
    run_dir: Path, *, size: int, minutes: float, device: str = "cpu", threads: int = 1, seed: int = 0, dim: int = DIM,
    grow_from: Path | None = None, frames_scale: float = 1.0,
) -> Path:  # fmt: skip
    """Trains for `minutes` (counting what an earlier, interrupted run spent) and returns the autoencoder's file.

    `grow_from`: a finished autoencoder to begin with instead of nothing. `frames_scale`: so many times as many frames per step."""
    torch.set_num_threads(threads)
    checkpoint, file = run_dir / CHECKPOINT, run_dir / FILE
    training = VAETraining(size=size, device=device, seed=seed, dim=dim)
    training.frames_scale = frames_scale
    if checkpoint.exists():
        training.load(checkpoint)
    elif grow_from is not None:
        training.grow_from(grow_from)

    def freeze_in_time(stage: Stage) -> None:
        if stage.decoder_only and not training.is_frozen:
            training.freeze_encoder()
            export(training, file)  # before the checkpoint: one that is frozen never stands without its file
            training.save(checkpoint)

    def leave_file():
        return leave(training, run_dir / so_far(FILE))

    spend(training, minutes, checkpoint, "VAE", freeze_in_time, lambda: training.share_begun, leave_file)
    if not training.is_frozen:
        training.freeze_encoder()
        export(training, file)
        training.save(checkpoint)
    finish(training, file)
    (run_dir / so_far(FILE)).unlink(missing_ok=True)  # the finished one takes its place
    return file


def about_file(file: Path) -> dict:
    """What an autoencoder's file says of its training, if anything."""
    return json.loads(read_header(file).metadata.get(HEADER_KEY, "{}"))


def finish(training: VAETraining, file: Path) -> Path:
    """Writes the file, reads what it would give, and refuses a codec whose streams differ from its clips."""
    report = export(training, file)
    if report["streamed_minus_whole"] > 1e-4:
        raise ValueError(f"streamed and whole differ by {report['streamed_minus_whole']:.1e}, at most 1e-4 is expected")
    return file


def export(training: VAETraining, file: Path) -> dict[str, float]:
    """Writes the running mean of the weights in float16, with what was measured on exactly these weights in the header."""
    vae, weights = prepare(WanVAE(training.dim), torch.float32, training.device), in_half(training.mean_vae)
    vae.load_state_dict(weights)
    report = measure(vae, training.size, training.device)
    write_weights(file, weights, HEADER_KEY, _about(training) | report)
    return report


def leave(training: VAETraining, file: Path) -> None:
    """The same on the way, unmeasured; of an encoder that still learns, with latents of about Wan's statistics."""
    vae = training.mean_vae
    if not training.is_frozen:
        vae = copy.deepcopy(vae)
        fold_statistics(vae, *measure_statistics(vae, training.size, training.device, frames=9, clips=CLIPS_SO_FAR))
    write_weights(file, in_half(vae), HEADER_KEY, _about(training))


def _about(training: VAETraining) -> dict:
    about = {"name": "kf-tiny-vae", "size": training.size, "steps": training.step, "minutes": round(training.seconds / 60, 1)}
    return about | {"grown_from": training.begun_with}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train kf-tiny's autoencoder.")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and the result")
    parser.add_argument("--size", type=int, default=128, help="frames are this many pixels high and wide")
    parser.add_argument("--minutes", type=float, default=50, help="the whole budget, in minutes of wall-clock time")
    parser.add_argument("--grow-from", type=Path, help="a finished autoencoder to begin with, for smaller frames or for these")
    parser.add_argument("--frames-scale", type=float, default=1.0, help="so many times as many frames per step")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    train_vae(arguments.pop("run"), **arguments)
