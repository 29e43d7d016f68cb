"""Trains kf-tiny's autoencoder on procedural portraits: pictures first, then short clips, then long ones, at last the decoder alone.

The schedule is counted in minutes of the budget, so the same recipe fits an hour of one CPU thread or a few minutes of a GPU.
When the encoder freezes, `kf-tiny-vae.safetensors` is written and the latents never change again: a generator can be trained
on them while the decoder goes on getting better. A run that was killed goes on where its last checkpoint stood.

    python -m kf_core.training.vae --run runs/kf-tiny --size 128 --minutes 65
"""

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from ..vae.streaming import prepare
from ..vae.wan import WanVAE
from .muon import Muon, parameter_groups
from .vae_clips import cut, draw
from .vae_goals import FEATURE_WEIGHT, fixed_reader, initialise, reading_losses, reconstruction_loss
from .vae_measure import fold_statistics, measure, measure_statistics, mixed_precision, psnr, unfold_statistics

DIM = 16
FILE = "kf-tiny-vae.safetensors"
CHECKPOINT = "vae-checkpoint.pt"

KL_WEIGHT = 3e-4
COLOUR_WEIGHT = 1.0
RHYTHM_WEIGHT = 1.0
ADAM_SHARE = 0.1  # AdamW's rate as a share of Muon's
# Nothing else holds the size of the residual stream, since every block normalises what it reads: without decay it grew to 14,000
# at the encoder's end, and what the blocks add to it was lost in rounding.
WEIGHT_DECAY = 0.1
EMA_DECAY = 0.995
SECONDS_BETWEEN_CHECKPOINTS = 120


@dataclass(frozen=True)
class Stage:
    """A part of the budget. The learning rate runs evenly from `rate[0]` to `rate[1]` of the base rate."""

    name: str
    until: float  # share of the budget at which it ends
    frames: tuple[int, ...]  # pictures per clip; one is drawn for each step
    pictures: int  # pictures per step, about
    rate: tuple[float, float]
    crop: float = 1.0  # side of a random cut, as a share of the picture: more faces for the same work
    mouths: bool = False  # cut around the mouths
    features: float = FEATURE_WEIGHT
    decoder_only: bool = False


STAGES = (
    Stage("pictures", 0.15, (1,), 24, (1.0, 0.9), crop=2 / 3),
    Stage("short clips", 0.35, (5, 9), 36, (0.9, 0.7), crop=2 / 3),
    Stage("mouths", 0.62, (5, 9), 64, (0.7, 0.6), crop=1 / 2, mouths=True, features=5.0),
    Stage("long clips", 0.74, (9, 17, 33), 27, (0.6, 0.1)),
    Stage("decoder", 1.0, (9, 17, 33), 27, (0.6, 0.0), decoder_only=True),
)
# For an autoencoder that begins with the weights of one for smaller pictures: what it knows holds, features have another size.
GROWING_STAGES = (
    Stage("short clips", 0.15, (5, 9), 48, (0.7, 0.6), crop=1 / 2),
    Stage("mouths", 0.35, (5, 9), 64, (0.6, 0.5), crop=3 / 8, mouths=True, features=5.0),
    Stage("long clips", 0.57, (9, 17, 33), 36, (0.6, 0.1), crop=5 / 8),
    Stage("decoder", 1.0, (9, 17, 33), 36, (0.6, 0.0), crop=5 / 8, decoder_only=True),
)


class VAETraining:
    """Everything a training run changes: weights, their running mean, optimisers, the generator of its data, the clock."""

    def __init__(self, *, size: int, device: str = "cpu", seed: int = 0, dim: int = DIM, rate: float = 0.03):
        torch.manual_seed(seed)
        self.size, self.device, self.rate, self.dim = size, device, rate, dim
        self.vae = prepare(initialise(WanVAE(dim)), torch.float32, device)
        self.mean_vae = prepare(WanVAE(dim), torch.float32, device).requires_grad_(False)
        self.mean_vae.load_state_dict(self.vae.state_dict())
        self.reader = fixed_reader().to(device)
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0
        self.seconds = 0.0  # spent training
        self.is_frozen = False
        self.has_grown = False
        self._make_optimisers()

    @property
    def stages(self) -> tuple[Stage, ...]:
        return GROWING_STAGES if self.has_grown else STAGES

    def grow_from(self, file: Path) -> None:
        """Begin with the weights of a finished autoencoder, made for smaller pictures, say."""
        self.vae.load_state_dict({name: weight.float() for name, weight in load_file(file).items()})
        unfold_statistics(self.vae, self.size, self.device)
        self.mean_vae.load_state_dict(self.vae.state_dict())
        self.has_grown = True

    def _make_optimisers(self) -> None:
        parts = [self.vae.conv2, self.vae.decoder] + ([] if self.is_frozen else [self.vae.encoder, self.vae.conv1])
        weights, rest = parameter_groups(parts)
        self.optimisers = [
            Muon(weights, lr=self.rate, weight_decay=WEIGHT_DECAY),
            torch.optim.AdamW(rest, lr=self.rate * ADAM_SHARE, weight_decay=0.0),
        ]
        self.first_step = self.step  # of these optimisers; they warm up

    def train_step(
        self, frames: int, clips: int, rate: float, crop: float = 1.0, mouths: bool = False, features: float = FEATURE_WEIGHT
    ) -> dict[str, float]:
        """One step on freshly drawn clips at `rate` times the base rate; returns what the progress bar shows."""
        batch = cut(draw(clips, frames, self.size, self.generator), crop, self.generator, mouths).to(self.device)
        warm = min(1.0, (self.step - self.first_step + 1) / 30)
        for optimiser, base in zip(self.optimisers, (self.rate, self.rate * ADAM_SHARE), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * rate * warm
            optimiser.zero_grad(set_to_none=True)
        with mixed_precision(self.device):
            with torch.set_grad_enabled(not self.is_frozen):
                mean, log_variance = self.vae.encode(batch.pictures * 2 - 1, {})
            mean, log_variance = mean.float(), log_variance.float().clamp(-20, 10)
            noise = torch.randn(mean.shape, generator=self.generator).to(mean)
            raw = mean + noise * (log_variance / 2).exp()
            made = self.vae.decode(raw, {})
        made = made.float() / 2 + 0.5
        loss = reconstruction_loss(made, batch, features)
        if not self.is_frozen:
            loss = loss + KL_WEIGHT * 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
            colour, rhythm = reading_losses(self.reader(mean), batch.pictures)
            loss = loss + COLOUR_WEIGHT * colour + RHYTHM_WEIGHT * rhythm
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self._update_mean()
        error = (made.detach().clamp(0, 1) - batch.pictures).square()
        return {"loss": loss.item(), "psnr": psnr(error), "mouth": psnr(error, batch.mouth)}

    @torch.no_grad()
    def _update_mean(self) -> None:
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.mean_vae.parameters()), list(self.vae.parameters()), 1 - decay)

    def freeze_encoder(self) -> None:
        """From here on the latents are fixed: running means become the weights, the statistics are folded in, rounded as in the file."""
        self.vae.load_state_dict(self.mean_vae.state_dict())
        fold_statistics(self.vae, *measure_statistics(self.vae, self.size, self.device))
        for part in (self.vae.encoder, self.vae.conv1):
            for parameter in part.requires_grad_(False).parameters():
                parameter.data = parameter.data.half().float()
        self.mean_vae.load_state_dict(self.vae.state_dict())
        self.is_frozen = True
        self._make_optimisers()

    def save(self, path: Path) -> None:
        """Writes a checkpoint that is whole or not there at all."""
        state = {name: getattr(self, name) for name in ("step", "first_step", "seconds", "is_frozen", "has_grown", "size", "dim")}
        state |= {name: getattr(self, name).state_dict() for name in ("vae", "mean_vae", "reader")}
        state |= {"optimisers": [o.state_dict() for o in self.optimisers], "generator": self.generator.get_state()}
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        torch.save(state, unfinished)
        os.replace(unfinished, path)

    def load(self, path: Path) -> None:
        """Goes on exactly where `save` was called."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name in ("size", "dim"):
            if state[name] != getattr(self, name):
                raise ValueError(f"{path} was trained with {name} {state[name]}, asked for {getattr(self, name)}")
        for name in ("vae", "mean_vae", "reader"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.seconds, self.is_frozen = state["step"], state["seconds"], state["is_frozen"]
        self.has_grown = state.get("has_grown", False)
        if self.is_frozen:
            self.vae.encoder.requires_grad_(False)
            self.vae.conv1.requires_grad_(False)
        self._make_optimisers()
        self.first_step = state["first_step"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.generator.set_state(state["generator"].cpu())


def train_vae(
    run_dir: Path, *, size: int, minutes: float, device: str = "cpu", threads: int = 1, seed: int = 0, dim: int = DIM,
    grow_from: Path | None = None,
) -> Path:  # fmt: skip
    """Trains for `minutes` (counting what an earlier, interrupted run spent) and returns the autoencoder's file.

    `grow_from`: a finished autoencoder to begin with instead of nothing."""
    torch.set_num_threads(threads)
    checkpoint, file = run_dir / CHECKPOINT, run_dir / FILE
    training = VAETraining(size=size, device=device, seed=seed, dim=dim)
    if checkpoint.exists():
        training.load(checkpoint)
    elif grow_from is not None:
        training.grow_from(grow_from)
    budget = minutes * 60
    last_save = training.seconds
    bar = tqdm(total=round(budget), initial=round(training.seconds), unit="s", desc="VAE", mininterval=10)
    while training.seconds < budget:
        share = training.seconds / budget
        if training.is_frozen:  # by a smaller budget: what is frozen stays frozen
            share = max(share, training.stages[-2].until)
        stage = current_stage(share, training.stages)
        started = time.monotonic()
        if stage.decoder_only and not training.is_frozen:
            training.freeze_encoder()
            training.save(checkpoint)
            export(training, file)
        frames = stage.frames[int(torch.randint(len(stage.frames), (), generator=training.generator))]
        clips = max(1, round(stage.pictures / frames))
        shown = training.train_step(frames, clips, learning_rate(share, training.stages), stage.crop, stage.mouths, stage.features)
        spent = time.monotonic() - started
        training.seconds += spent
        bar.set_postfix({k: f"{v:.3g}" for k, v in shown.items()} | {"pictures/s": f"{frames * clips / spent:.1f}", "step": training.step},
                        refresh=False)  # fmt: skip
        bar.set_description(f"VAE, {stage.name}", refresh=False)
        bar.update(round(training.seconds) - bar.n)
        if training.seconds - last_save > SECONDS_BETWEEN_CHECKPOINTS:
            training.save(checkpoint)
            last_save = training.seconds
    bar.close()
    if not training.is_frozen:
        training.freeze_encoder()
    training.save(checkpoint)
    return finish(training, file)


def current_stage(share: float, stages: tuple[Stage, ...] = STAGES) -> Stage:
    """The stage at this share of the budget."""
    return next((stage for stage in stages if share < stage.until), stages[-1])


def learning_rate(share: float, stages: tuple[Stage, ...] = STAGES) -> float:
    """The learning rate at this share of the budget, as a share of the base rate."""
    stage = current_stage(share, stages)
    start = max((s.until for s in stages if s.until < stage.until), default=0.0)
    passed = min(1.0, (share - start) / (stage.until - start))
    return stage.rate[0] + (stage.rate[1] - stage.rate[0]) * passed


def finish(training: VAETraining, file: Path) -> Path:
    """Writes the file, reads what it would give, and refuses a codec whose streams differ from its clips."""
    report = export(training, file)
    if report["streamed_minus_whole"] > 1e-4:
        raise ValueError(f"streamed and whole differ by {report['streamed_minus_whole']:.1e}, at most 1e-4 is expected")
    return file


def export(training: VAETraining, file: Path) -> dict[str, float]:
    """Writes the running mean of the weights in float16, with what was measured on exactly these weights in the header."""
    vae = prepare(WanVAE(training.dim), torch.float32, training.device)
    weights = {name: weight.detach().half().contiguous().cpu() for name, weight in training.mean_vae.state_dict().items()}
    vae.load_state_dict(weights)
    report = measure(vae, training.size, training.device)
    about = {"name": "kf-tiny-vae", "size": training.size, "steps": training.step, "minutes": round(training.seconds / 60, 1), **report}
    about["grown_from"] = "an autoencoder for smaller pictures" if training.has_grown else ""
    unfinished = file.with_suffix(".unfinished")
    save_file(weights, unfinished, metadata={"format": "pt", "kf_tiny_vae": json.dumps(about)})
    os.replace(unfinished, file)
    tqdm.write(json.dumps(about))
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train kf-tiny's autoencoder.")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and the result")
    parser.add_argument("--size", type=int, default=128, help="pictures are this many pixels high and wide")
    parser.add_argument("--minutes", type=float, default=50, help="the whole budget, in minutes of wall-clock time")
    parser.add_argument("--grow-from", type=Path, help="a finished autoencoder to begin with, for smaller pictures perhaps")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    train_vae(arguments.pop("run"), **arguments)
