"""Trains a decoder of half the width on the latents of a finished autoencoder, for processors on which decoding is half of the work.

The encoder is the finished one's and never changes; the losses are those of the autoencoder (`vae_goals.py`), and so are the clips. A run
that was killed goes on where its last checkpoint stood. The file holds the decoder alone and says for
whose latents it is, and what it reached.
"""

import copy
import json
import os
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from ..checkpoints.alone import SMALL_FILE, encoder_name
from ..checkpoints.decoder_card import ALONE_KEY
from ..checkpoints.vaes import load_vae
from ..vae.streaming import prepare
from ..vae.wan import WanDecoder, WanVAE
from .muon import Muon, parameter_groups
from .vae import ADAM_SHARE, DIM, EMA_DECAY, SECONDS_BETWEEN_CHECKPOINTS, WEIGHT_DECAY, Stage, current_stage, learning_rate
from .vae_clips import cut, draw
from .vae_goals import initialise, reconstruction_loss
from .vae_measure import measure, mixed_precision, psnr

SMALL_DIM, RATE = DIM // 2, 0.03
FILE, CHECKPOINT = SMALL_FILE, "small-decoder-checkpoint.pt"
STAGES = (
    Stage("pictures", 0.15, (1,), 24, (1.0, 0.9), crop=2 / 3),
    Stage("mouths", 0.55, (5, 9), 64, (0.9, 0.6), crop=1 / 2, mouths=True, features=5.0),
    Stage("long clips", 1.0, (9, 17, 33), 27, (0.6, 0.0)),
)


class SmallDecoderTraining:
    """Everything a run changes: weights, their running mean, optimisers, the generator of its data, the clock."""

    def __init__(self, vae: WanVAE, *, size: int, device: str = "cpu", seed: int = 0, dim: int = SMALL_DIM) -> None:
        """`vae`: the finished autoencoder, in float32. What it does to the latents first (conv2) is where this one begins."""
        torch.manual_seed(seed)
        self.vae, self.size, self.device, self.dim = vae.requires_grad_(False), size, device, dim
        self.decoder = WanDecoder(dim)
        begun = initialise(WanVAE(dim)).state_dict() | {f"conv2.{name}": w for name, w in vae.conv2.state_dict().items()}
        self.decoder.load_state_dict({name: begun[name] for name in self.decoder.state_dict()})
        prepare(self.decoder, torch.float32, device)
        self.mean = copy.deepcopy(self.decoder).requires_grad_(False)
        weights, rest = parameter_groups([self.decoder.conv2, self.decoder.decoder])
        self.optimisers = [
            Muon(weights, lr=RATE, weight_decay=WEIGHT_DECAY),
            torch.optim.AdamW(rest, lr=RATE * ADAM_SHARE, weight_decay=0.0),
        ]
        self.generator = torch.Generator().manual_seed(seed)
        self.step, self.seconds = 0, 0.0

    def train_step(self, stage: Stage, rate: float) -> dict[str, float]:
        """One step on freshly drawn clips; returns what the progress bar shows."""
        frames = stage.frames[int(torch.randint(len(stage.frames), (), generator=self.generator))]
        clips = max(1, round(stage.pictures / frames))
        batch = cut(draw(clips, frames, self.size, self.generator), stage.crop, self.generator, stage.mouths).to(self.device)
        for optimiser, base in zip(self.optimisers, (RATE, RATE * ADAM_SHARE), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * rate * min(1.0, (self.step + 1) / 30)
            optimiser.zero_grad(set_to_none=True)
        with mixed_precision(self.device):
            with torch.no_grad():
                mean, log_variance = self.vae.encode(batch.pictures * 2 - 1, {})
            mean, log_variance = mean.float(), log_variance.float().clamp(-20, 10)
            noise = torch.randn(mean.shape, generator=self.generator).to(mean)
            made = self.decoder.decode(mean + noise * (log_variance / 2).exp(), {})
        made = made.float() / 2 + 0.5
        loss = reconstruction_loss(made, batch, stage.features)
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.parameters()), list(self.decoder.parameters()), 1 - decay)
        error = (made.detach().clamp(0, 1) - batch.pictures).square()
        return {"loss": loss.item(), "psnr": psnr(error), "mouth": psnr(error, batch.mouth)}

    def save(self, path: Path) -> None:
        """Writes a checkpoint that is whole or not there at all."""
        state = {name: getattr(self, name) for name in ("step", "seconds", "size", "dim")}
        state |= {"decoder": self.decoder.state_dict(), "mean": self.mean.state_dict(), "generator": self.generator.get_state()}
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state | {"optimisers": [o.state_dict() for o in self.optimisers]}, path.with_suffix(".unfinished"))
        os.replace(path.with_suffix(".unfinished"), path)

    def load(self, path: Path) -> None:
        """Goes on exactly where `save` was called."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name in ("size", "dim"):
            if state[name] != getattr(self, name):
                raise ValueError(f"{path} was trained with {name} {state[name]}, asked for {getattr(self, name)}")
        self.step, self.seconds = state["step"], state["seconds"]
        self.decoder.load_state_dict(state["decoder"])
        self.mean.load_state_dict(state["mean"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.generator.set_state(state["generator"].cpu())


def train_small_decoder(run_dir: Path, vae_file: Path, *, size: int, minutes: float, device: str = "cpu", seed: int = 0) -> Path:
    """Trains for `minutes` (counting what an interrupted run spent) and returns the decoder's file."""
    vae = load_vae(vae_file, dtype=torch.float32, device=device)
    training, checkpoint = SmallDecoderTraining(vae, size=size, device=device, seed=seed, dim=vae.dim // 2), run_dir / CHECKPOINT
    if checkpoint.exists():
        training.load(checkpoint)
    budget, last_save = minutes * 60, training.seconds
    with tqdm(total=round(budget), initial=round(training.seconds), unit="s", desc="small decoder", mininterval=10) as bar:
        while training.seconds < budget:
            started, share = time.monotonic(), training.seconds / budget
            shown = training.train_step(current_stage(share, STAGES), learning_rate(share, STAGES))
            training.seconds += time.monotonic() - started
            bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()} | {"step": training.step}, refresh=False)
            bar.update(round(training.seconds) - bar.n)
            if training.seconds - last_save > SECONDS_BETWEEN_CHECKPOINTS:
                training.save(checkpoint)
                last_save = training.seconds
    training.save(checkpoint)
    return export(training, run_dir / FILE)


def export(training: SmallDecoderTraining, file: Path) -> Path:
    """Writes the running mean in float16, with what was measured on exactly these weights behind the finished encoder in the header."""
    weights = {name: weight.detach().half().contiguous().cpu() for name, weight in training.mean.state_dict().items()}
    whole = copy.deepcopy(training.vae)
    rounded = WanDecoder(training.dim)
    rounded.load_state_dict(weights)
    whole.conv2, whole.decoder = rounded.conv2, rounded.decoder
    report = measure(prepare(whole, torch.float32, training.device).requires_grad_(False), training.size, training.device)
    about = {"name": "kf-tiny-decoder-small", "size": training.size, "steps": training.step, "minutes": round(training.seconds / 60, 1)}
    about |= {"encoder": encoder_name(training.vae.state_dict())} | report
    unfinished = file.with_suffix(".unfinished")
    save_file(weights, unfinished, metadata={"format": "pt", ALONE_KEY: json.dumps(about)})
    os.replace(unfinished, file)
    tqdm.write(json.dumps(about))
    return file
