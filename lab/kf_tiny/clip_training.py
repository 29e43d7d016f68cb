"""A training on clips of portraits: stages of a budget, one step on fresh clips, the running mean, checkpoints, the run until it is spent.

    clips --encoder--> mean, variance --a draw--> latents --decoder--> frames --> loss --> one step --> running mean

What is trained, the autoencoder (`vae.py`) or a decoder alone on its latents (`small_decoder.py`), says which networks these are and
what else the loss holds. The schedule is counted in shares of the budget. A run that was killed goes on where its last checkpoint stood.
"""

import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from kf_core.training.ema import follow
from kf_core.training.muon import Muon, parameter_groups
from kf_core.training.precision import mixed_precision
from kf_core.training.rng import normal

from .checkpointing import seconds_between_saves
from .vae_clips import Clips, cut, draw
from .vae_losses import FEATURE_WEIGHT, reconstruction_loss
from .vae_measure import psnr

ADAM_SHARE = 0.1  # AdamW's rate as a share of Muon's
# Nothing else holds the size of the residual stream, since every block normalises what it reads: without decay it grew to 14,000
# at the encoder's end, and what the blocks add to it was lost in rounding.
WEIGHT_DECAY = 0.1
WARM_UP_STEPS = 30


@dataclass(frozen=True)
class Stage:
    """A part of the budget. The learning rate runs evenly from `rate[0]` to `rate[1]` of the base rate."""

    name: str
    until: float  # share of the budget at which it ends
    frames: tuple[int, ...]  # frames per clip; one is drawn for each step
    frames_per_step: int  # about
    rate: tuple[float, float]
    crop: float = 1.0  # side of a random cut, as a share of the frame: more faces for the same work
    mouths: bool = False  # cut around the mouths
    features: float = FEATURE_WEIGHT
    decoder_only: bool = False


def current_stage(share: float, stages: tuple[Stage, ...]) -> Stage:
    """The stage at this share of the budget."""
    return next((stage for stage in stages if share < stage.until), stages[-1])


def learning_rate(share: float, stages: tuple[Stage, ...]) -> float:
    """The learning rate at this share of the budget, as a share of the base rate."""
    stage = current_stage(share, stages)
    start = max((s.until for s in stages if s.until < stage.until), default=0.0)
    passed = min(1.0, (share - start) / (stage.until - start))
    return stage.rate[0] + (stage.rate[1] - stage.rate[0]) * passed


class ClipTraining(ABC):
    """Everything a training run changes: weights, their running mean, optimisers, the generator of its data, the clock."""

    numbers = ("step", "seconds", "size", "dim")  # a checkpoint's entries ...
    networks: tuple[str, ...]  # ... and those that hold weights
    stages: tuple[Stage, ...]
    rate = 0.03  # the base rate, Muon's
    first_step = 0  # of these optimisers; they warm up

    def __init__(self, *, size: int, device: str, seed: int, dim: int) -> None:
        torch.manual_seed(seed)
        self.size, self.device, self.dim = size, device, dim
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0
        self.seconds = 0.0  # spent training
        self.frames_scale = 1.0  # so many times as many frames per step as a stage says

    @property
    def learns_latents(self) -> bool:
        """Whether the encoder is trained, too."""
        return False

    @abstractmethod
    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames -1..1 -> mean and log-variance of raw latents."""

    @abstractmethod
    def decode(self, raw: Tensor) -> Tensor:
        """Raw latents -> frames, about -1..1."""

    def further_losses(self, mean: Tensor, log_variance: Tensor, batch: Clips) -> Iterable[Tensor]:
        """What the loss holds beside the reconstruction, weighted."""
        return ()

    @abstractmethod
    def pairs(self) -> tuple[nn.Module, nn.Module]:
        """(the running mean, what it follows)."""

    @abstractmethod
    def trained(self) -> list[nn.Module]:
        """The parts whose weights are changed."""

    def make_optimisers(self) -> None:
        weights, rest = parameter_groups(self.trained())
        self.optimisers = [
            Muon(weights, lr=self.rate, weight_decay=WEIGHT_DECAY),
            torch.optim.AdamW(rest, lr=self.rate * ADAM_SHARE, weight_decay=0.0),
        ]
        self.first_step = self.step

    def learn(self, stage: Stage, share: float) -> dict[str, float]:
        """One step of `stage` at this share of the budget; returns what the progress bar shows, and how many frames it saw."""
        frames = stage.frames[int(torch.randint(len(stage.frames), (), generator=self.generator))]
        clips = max(1, round(self.frames_scale * stage.frames_per_step / frames))
        rate = learning_rate(share, self.stages)
        return self.train_step(frames, clips, rate, stage.crop, stage.mouths, stage.features) | {"frames": frames * clips}

    def train_step(
        self, frames: int, clips: int, rate: float, crop: float = 1.0, mouths: bool = False, features: float = FEATURE_WEIGHT
    ) -> dict[str, float]:
        """One step on freshly drawn clips at `rate` times the base rate; returns what the progress bar shows."""
        batch = cut(draw(clips, frames, self.size, self.generator, device=self.device), crop, self.generator, mouths)
        warm = min(1.0, (self.step - self.first_step + 1) / WARM_UP_STEPS)
        for optimiser, base in zip(self.optimisers, (self.rate, self.rate * ADAM_SHARE), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * rate * warm
            optimiser.zero_grad(set_to_none=True)
        with mixed_precision(self.device):
            with torch.set_grad_enabled(self.learns_latents):
                mean, log_variance = self.encode(batch.frames * 2 - 1)
            mean, log_variance = mean.float(), log_variance.float().clamp(-20, 10)
            noise = normal(mean.shape, self.generator, mean.device).to(mean)
            made = self.decode(mean + noise * (log_variance / 2).exp())
        made = made.float() / 2 + 0.5
        loss = reconstruction_loss(made, batch, features)
        for further in self.further_losses(mean, log_variance, batch):
            loss = loss + further
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        follow(*self.pairs(), self.step)
        error = (made.detach().clamp(0, 1) - batch.frames).square()
        return {"loss": loss.item(), "psnr": psnr(error), "mouth": psnr(error, batch.mouth)}

    def save(self, path: Path) -> None:
        """Writes a checkpoint that is whole or not there at all."""
        state = {name: getattr(self, name) for name in self.numbers}
        state |= {name: getattr(self, name).state_dict() for name in self.networks}
        state |= {"optimisers": [o.state_dict() for o in self.optimisers], "generator": self.generator.get_state()}
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        torch.save(state, unfinished)
        os.replace(unfinished, path)

    def load(self, path: Path) -> None:
        """Goes on exactly where `save` was called. A number that an older checkpoint lacks stays what it is."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name in ("size", "dim"):
            if state[name] != getattr(self, name):
                raise ValueError(f"{path} was trained with {name} {state[name]}, asked for {getattr(self, name)}")
        for name in self.networks:
            getattr(self, name).load_state_dict(state[name])
        numbers = {name: state[name] for name in self.numbers if name in state}
        for name, value in numbers.items():
            setattr(self, name, value)
        self.make_optimisers()
        self.first_step = numbers.get("first_step", 0)
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.generator.set_state(state["generator"].cpu())


def spend(
    training: ClipTraining, minutes: float, checkpoint: Path, name: str, before: Callable[[Stage], object] = lambda stage: None,
    at_least: Callable[[], float] = lambda: 0.0, leave: Callable[[], object] = lambda: None,
) -> None:  # fmt: skip
    """Train until `minutes` are spent, counting what an earlier, interrupted run spent; saves on the way, and at the end.

    `before`: is told the stage of each step, on the clock. `at_least`: the share of the budget before which no step is taken.
    `leave`: writes the file so far, before each save on the way."""
    budget, last_save = minutes * 60, training.seconds
    with tqdm(total=round(budget), initial=round(training.seconds), unit="s", desc=name, mininterval=10) as bar:
        while training.seconds < budget:
            share = max(training.seconds / budget, at_least())
            stage = current_stage(share, training.stages)
            started = time.monotonic()
            before(stage)
            shown = training.learn(stage, share)
            if not math.isfinite(shown["loss"]):
                raise FloatingPointError(f"{name}: the loss became {shown['loss']} at step {training.step}; go on from the last checkpoint")
            spent = time.monotonic() - started
            training.seconds += spent
            pace = {"frames/s": f"{shown.pop('frames') / spent:.1f}", "step": training.step}
            bar.set_postfix({key: f"{value:.3g}" for key, value in shown.items()} | pace, refresh=False)
            bar.set_description(f"{name}, {stage.name}", refresh=False)
            bar.update(round(training.seconds) - bar.n)
            if training.seconds - last_save > seconds_between_saves(budget):
                leave()
                training.save(checkpoint)
                last_save = training.seconds
    training.save(checkpoint)


def in_half(network: nn.Module) -> dict[str, Tensor]:
    """Its weights as a file holds them: float16, on the CPU."""
    return {name: weight.detach().half().contiguous().cpu() for name, weight in network.state_dict().items()}


def write_weights(file: Path, weights: dict[str, Tensor], key: str, about: dict) -> None:
    """A file that is whole or not there at all, with `about` in its header under `key`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    save_file(weights, unfinished, metadata={"format": "pt", key: json.dumps(about)})
    os.replace(unfinished, file)
    tqdm.write(json.dumps(about))
