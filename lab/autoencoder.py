"""Fine-tunes kf-tiny's autoencoder on any face: rendered and drawn heads, today's cartoons, photographs' statistics.

Begins with a finished autoencoder and keeps its layout, its latents' statistics (a small KL towards Wan's) and its sense of time (a part
of the steps are clips). The budget is counted in CPU minutes of this process, whatever else the machine does; a run that was killed goes
on where its last checkpoint stood, a few minutes back. The recipe is read again at each checkpoint, and new shards are found then.

    python -m lab.autoencoder --run runs/vae --shards shards --recipe lab/recipes/autoencoder.json

In the run's folder: checkpoint.pt (weights, running mean, optimisers, generators), mean.safetensors (float16, as the pack reads it),
log.jsonl (a line for every report and every measurement), sheets/*.png (portraits nobody here drew: original above, through the
autoencoder below).
"""

import argparse
import json
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from kf_core.training.ema import follow
from kf_core.training.muon import Muon, parameter_groups
from kf_core.training.rng import normal
from kf_core.vae.streaming import DecoderState, decode_latents, encode_clip, prepare
from kf_core.vae.wan import WanVAE, to_model_space
from lab.kf_tiny.clip_training import in_half, write_weights
from lab.kf_tiny.vae_clips import held_out
from lab.kf_tiny.vae_measure import psnr

from . import judge
from .avatars import avatars
from .feeder import Feeder
from .mix import Batch, BatchKind
from .shards import find_shards

DIM = 16
MUON_RATE, ADAM_SHARE, WEIGHT_DECAY, WARM_UP_STEPS = 0.03, 0.1, 0.1, 30
CHECKPOINT, MEAN, LOG = "checkpoint.pt", "mean.safetensors", "log.jsonl"
TEST_CLIPS, TEST_FRAMES = 4, 9


@dataclass(frozen=True)
class Recipe:
    """What may change while a training runs; a JSON file with these names."""

    cpu_minutes: float  # the whole budget, also of what was spent before
    rate: tuple[float, float]  # at its beginning and end, of the base rate; a cosine between
    batches: tuple[BatchKind, ...]
    mix: dict[str, float]  # pattern of shard names -> share
    strength: float = 0.7  # of the frame's randomisation
    features: float = 2.0  # added weight of eyes and mouth
    edges: float = 1.0
    squares: float = 5.0
    kl: float = 3e-4
    test: str = "test-*"  # shards that are measured on and never learned from
    minutes_per_checkpoint: float = 4  # of the clock
    cpu_minutes_per_measurement: float = 10
    measures_at_the_beginning: bool = True

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        given = json.loads(path.read_text())
        given["batches"] = tuple(BatchKind(**kind) for kind in given["batches"])
        given["rate"] = tuple(given["rate"])
        return cls(**given)


class Training:
    """Everything that a run changes: weights, their running mean, optimisers, generators, what was spent."""

    def __init__(self, seed: int = 0, device: str = "cpu") -> None:
        self.device = device
        self.vae = prepare(WanVAE(DIM), torch.float32, device)
        self.mean_vae = prepare(WanVAE(DIM), torch.float32, device).requires_grad_(False)
        weights, rest = parameter_groups([self.vae])
        self.optimisers = [
            Muon(weights, lr=MUON_RATE, weight_decay=WEIGHT_DECAY),
            torch.optim.AdamW(rest, lr=MUON_RATE * ADAM_SHARE, weight_decay=0.0),
        ]
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.step, self.frames, self.cpu_seconds = 0, 0, 0.0

    def begin_with(self, file: Path) -> None:
        """Take the weights of a finished autoencoder."""
        for vae in (self.vae, self.mean_vae):
            vae.load_state_dict({name: weight.float() for name, weight in load_file(file).items()})

    def learn(self, batch: Batch, recipe: Recipe) -> dict[str, float]:
        """One step on a batch; returns what a report shows."""
        share = min(1.0, self.cpu_seconds / 60 / recipe.cpu_minutes)
        rate = recipe.rate[1] + (recipe.rate[0] - recipe.rate[1]) * (1 + math.cos(math.pi * share)) / 2
        rate *= min(1.0, (self.step + 1) / WARM_UP_STEPS)
        for optimiser, base in zip(self.optimisers, (MUON_RATE, MUON_RATE * ADAM_SHARE), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * rate
            optimiser.zero_grad(set_to_none=True)
        batch = Batch(batch.frames.to(self.device), batch.features.to(self.device))
        frames = batch.frames.contiguous(memory_format=torch.channels_last_3d)
        mean, log_variance = self.vae.encode(frames * 2 - 1, {})
        log_variance = log_variance.clamp(-20, 10)
        noise = normal(mean.shape, self.generator, self.device)
        made = self.vae.decode(mean + noise * (log_variance / 2).exp(), {}) / 2 + 0.5
        loss = reconstruction_loss(made, batch, recipe) + recipe.kl * divergence(mean, log_variance)
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self.frames += batch.frames.shape[0] * batch.frames.shape[2]
        follow(self.mean_vae, self.vae, self.step)
        return {"loss": loss.item(), "psnr": psnr((made.detach().clamp(0, 1) - batch.frames).square()), "rate": rate}

    def save(self, path: Path) -> None:
        """Write a checkpoint that is whole or not there at all."""
        state = {
            "vae": self.vae.state_dict(), "mean_vae": self.mean_vae.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "rng": json.dumps(self.rng.bit_generator.state), "generator": self.generator.get_state(),
            "numbers": {"step": self.step, "frames": self.frames, "cpu_seconds": self.cpu_seconds},
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, part := path.with_suffix(".part"))
        os.replace(part, path)

    def load(self, path: Path) -> None:
        """Go on exactly where `save` was called."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.vae.load_state_dict(state["vae"])
        self.mean_vae.load_state_dict(state["mean_vae"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.rng.bit_generator.state = json.loads(state["rng"])
        self.generator.set_state(state["generator"].cpu())
        for name, value in state["numbers"].items():
            setattr(self, name, value)


def reconstruction_loss(made: Tensor, batch: Batch, recipe: Recipe) -> Tensor:
    """L1 and squares of the frames, L1 of their edges; eyes and mouth count 1 + `features` times."""
    weight = 1 + recipe.features * batch.features
    error = made - batch.frames
    loss = (weight * (error.abs() + recipe.squares * error.square())).mean()
    for axis in (3, 4):
        edge = error.diff(dim=axis).abs()
        loss = loss + recipe.edges * (weight.narrow(axis, 1, edge.shape[axis]) * edge).mean()
    return loss


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL towards Wan's statistics, which are what a generator expects: zero mean and unit variance in model space."""
    gain = (to_model_space(torch.ones_like(mean[:1, :, :1, :1, :1])) - to_model_space(torch.zeros_like(mean[:1, :, :1, :1, :1]))).detach()
    log_variance = log_variance + 2 * gain.log()
    return 0.5 * (to_model_space(mean).square() + log_variance.exp() - 1 - log_variance).mean()


@torch.no_grad()
def through(vae: WanVAE, frames: Tensor) -> Tensor:
    """A clip [b, 3, f, h, w] RGB 0..1 to latents and back; it may lie on another device."""
    latents = encode_clip(vae, frames.to(vae.conv2.weight.device))
    return decode_latents(vae, latents, DecoderState()).to(frames.device)


def measure(vae: WanVAE, shards: Path, test: str, sheet: Path, drawn_by_others: Path | None = None) -> dict[str, float]:
    """dB and dlib's distance on portraits that nobody here drew, dB on test shards and on held-out cartoons; leaves a sheet."""
    report, columns = {}, []
    for name, portrait in judge.portraits().items():
        frame = torch.from_numpy(portrait.frame.copy()).permute(2, 0, 1)[None, :, None].float() / 255
        made = through(vae, frame)
        report[f"{name}_db"] = psnr((made - frame).square())
        shown = (made[0, :, 0].permute(1, 2, 0) * 255).round().byte().numpy()
        report[f"{name}_distance"] = judge.distance(shown, portrait.embedding)
        columns.append(np.concatenate((portrait.frame, shown)))
    if drawn_by_others is not None and (others := avatars(drawn_by_others)):
        frames = torch.from_numpy(np.stack(list(others.values()))).permute(0, 3, 1, 2)[:, :, None].float() / 255
        made = torch.cat([through(vae, few) for few in frames.split(4)])
        report["drawn_by_others_db"] = psnr((made - frames).square())
        shown = (made[:, :, 0].permute(0, 2, 3, 1) * 255).round().byte().numpy()
        columns += [np.concatenate(pair) for pair in list(zip(others.values(), shown, strict=True))[1::3]]
    for shard in find_shards(shards, test):
        clips, length, *_ = shard.shape()
        frames = 1 + (min(length, TEST_FRAMES) - 1) // 4 * 4  # 1 + 4n, as an encoder is pushed
        taken = [shard.clip(clip, 0, frames) for clip in range(0, clips, max(1, clips // (2 * TEST_CLIPS)))][: 2 * TEST_CLIPS]
        whole = torch.from_numpy(np.stack(taken)).permute(0, 4, 1, 2, 3).float() / 255
        made = torch.cat([through(vae, clip) for clip in whole.split(2)])
        report[f"{shard.path.stem}_db"] = psnr((made - whole).square())
        shown = (made * 255).round().byte().permute(0, 2, 3, 4, 1).numpy()
        columns += [np.concatenate((clip[-1], back[-1])) for clip, back in zip(taken[:3], shown, strict=False)]
    cartoons = [clips.frames for clips in held_out(128, "cpu", TEST_CLIPS, TEST_FRAMES)]
    errors = [(through(vae, clips) - clips).square() for clips in cartoons]
    report["cartoons_db"] = psnr(torch.cat(errors))
    sheet.parent.mkdir(parents=True, exist_ok=True)
    whole = Image.fromarray(np.concatenate(columns, 1))
    whole.resize((whole.width * 2, whole.height * 2), Image.Resampling.BICUBIC).save(sheet)
    return {name: None if value is None else round(value, 3) for name, value in report.items()}


def train(
    run: Path,
    shards: Path,
    recipe_file: Path,
    begin_with: Path,
    drawn_by_others: Path | None = None,
    device: str = "cpu",
    processes: int = 0,
    seed: int = 0,
    reports_every: int = 10,
) -> None:
    """Train until the recipe's CPU minutes are spent, counting what earlier, interrupted runs spent.

    `processes` draw batches ahead, for a card; without, a run is repeated exactly."""
    training, checkpoint, recipe = Training(seed, device), run / CHECKPOINT, Recipe.read(recipe_file)
    if checkpoint.exists():
        training.load(checkpoint)
    else:
        training.begin_with(begin_with)
    feeder = Feeder(shards, lambda: _choose(recipe, training.rng), processes)
    run.mkdir(parents=True, exist_ok=True)

    def say(event, **what):
        return _log(run / LOG, training, event, what)

    say("begin", shards=feeder.refresh(recipe.mix, recipe.strength))

    def sheet():
        return run / "sheets" / f"{training.step:06d}.png"

    def look():
        return measure(training.mean_vae, shards, recipe.test, sheet(), drawn_by_others)

    last_saved, last_measured = time.monotonic(), training.cpu_seconds
    if training.step == 0 and recipe.measures_at_the_beginning:
        say("measure", **look())
    shown: list[dict[str, float]] = []
    asked_to_stop = []
    signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.append(True))  # a kind kill loses nothing, any other a few minutes
    while training.cpu_seconds < 60 * recipe.cpu_minutes and not asked_to_stop:
        started = time.process_time()
        told = training.learn(feeder.next(), recipe)
        training.cpu_seconds += time.process_time() - started
        if not math.isfinite(told["loss"]):
            raise FloatingPointError(f"the loss became {told['loss']} at step {training.step}; go on from the last checkpoint")
        shown.append(told)
        if training.step % reports_every == 0:
            say("train", **{name: round(float(np.mean([told[name] for told in shown])), 4) for name in shown[0]})
            shown.clear()
        if time.monotonic() - last_saved > 60 * recipe.minutes_per_checkpoint:
            training.save(checkpoint)
            recipe = Recipe.read(recipe_file)
            feeder.refresh(recipe.mix, recipe.strength)
            last_saved = time.monotonic()
        if training.cpu_seconds - last_measured > 60 * recipe.cpu_minutes_per_measurement:
            _leave(training, run)
            say("measure", **look())
            last_measured = training.cpu_seconds
    feeder.close()
    training.save(checkpoint)
    _leave(training, run)
    if asked_to_stop:
        say("stopped")
    else:
        say("end", **look())


def _choose(recipe: Recipe, rng: np.random.Generator) -> tuple[int, BatchKind]:
    """The seed and the kind of the next batch."""
    shares = np.array([kind.share for kind in recipe.batches])
    return int(rng.integers(2**62)), recipe.batches[rng.choice(len(shares), p=shares / shares.sum())]


def _leave(training: Training, run: Path) -> None:
    """Write the running mean as the pack reads an autoencoder."""
    about = {"name": "kf-tiny-vae", "size": 128, "steps": training.step, "cpu_minutes": round(training.cpu_seconds / 60, 1)}
    write_weights(run / MEAN, in_half(training.mean_vae), "kf_tiny_vae", about)


def _log(file: Path, training: Training, event: str, what: dict) -> None:
    line = {
        "time": time.strftime("%Y-%m-%d %H:%M:%S"), "event": event, "step": training.step, "frames": training.frames,
        "cpu_minutes": round(training.cpu_seconds / 60, 2),
    }  # fmt: skip
    with file.open("a") as log:
        log.write(json.dumps(line | what) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fine-tune kf-tiny's autoencoder on any face.")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints, the result and the log")
    parser.add_argument("--shards", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parent / "recipes" / "autoencoder.json")
    parser.add_argument("--begin-with", type=Path, default=Path("kf_core/assets/kf-tiny-vae.safetensors"))
    parser.add_argument("--drawn-by-others", type=Path, help="folder of the avatars' PNG files, for the measurements")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=0, help="that draw batches ahead, for a card")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    train(
        given.run, given.shards, given.recipe, given.begin_with, given.drawn_by_others, device=given.device, processes=given.processes
    )  # fmt: skip
