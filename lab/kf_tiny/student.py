"""The causal student: flow matching on [anchor | past | current] in one masked pass, so that four steps later suffice.

Velocity target noise - clean; mouth and eyes count up to four times; the knot's frames carry loss like any other. The budget is
minutes of wall-clock time, and a run that was killed goes on where its last checkpoint stood.
Source: Knot Forcing, arXiv 2512.21734; frame-wise times and masked passes as in Self Forcing, arXiv 2506.08009.
"""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from kf_core.checkpoints.read import read_header
from kf_core.models.adapters import Adapters
from kf_core.models.card import CARD_KEY, ModelCard
from kf_core.models.causal import Generator, sdpa
from kf_core.models.wan import WanModel
from kf_core.training.ema import follow
from kf_core.training.muon import Muon
from kf_core.training.precision import mixed_precision

from .audio_gain import as_trained
from .audio_pretrain import EAR, with_ear
from .batches import Batch, Layout, Sampler, layouts
from .checkpointing import in_file, seconds_between_saves, so_far, write_generator
from .clips import ClipFolder, ClipLatents

CHECKPOINT = "student-checkpoint.pt"
FILE = "kf-tiny-student.safetensors"  # written on the way, as so far
MUON_RATE = 0.03
ADAM_RATE = 5e-3
WARM_UP_STEPS = 40
MOST_GRADIENT = 1.0  # norm
GROWING_RATE = 0.5  # for a student that begins with the weights of another
MOUTH_WEIGHT = 8.0  # beside that of mouth and eyes: a mouth is a few tokens, and all that the sound decides
SECONDS_BETWEEN_LOOKS = 30  # for new clips
STEPS_BETWEEN_PROBES = 100
PROBE_SAMPLES = 24
FITTED_CLIPS = 200  # whose sound tells how a code told from an ear comes near one told from the sound


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention by two products: for a few hundred tokens twice as fast, forth and back, as PyTorch's fused one on a CPU."""
    if torch.is_autocast_enabled(q.device.type):
        q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
    with torch.autocast(q.device.type, enabled=False):  # or the softmax would be in float32
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(-1) @ v


class Networks(nn.Module):
    """The generator's two module trees; `generator` runs them, with gradients."""

    def __init__(self, card: ModelCard) -> None:
        super().__init__()
        self.card = card
        self.modules_tree = WanModel(card)
        self.adapters = Adapters(card)

    def generator(self) -> Generator:
        device = next(self.parameters()).device
        attention = plain_attention if device.type == "cpu" else sdpa
        return Generator(self.card, self.modules_tree, self.adapters, attention=attention, device=device)

    def tensors(self) -> dict[str, Tensor]:
        """All weights under the names of a checkpoint."""
        return {**self.modules_tree.state_dict(), **self.adapters.state_dict()}

    def keep_ear(self) -> None:
        """An ear was trained on speech, which is more than there is among clips: it does not learn here (`hearing.py`)."""
        if self.card.audio is not None:
            self.adapters.audio_proj.ear.requires_grad_(False)

    def load_weights(self, tensors: dict[str, Tensor]) -> None:
        """The counterpart of `tensors`."""
        for tree in (self.modules_tree, self.adapters):
            tree.load_state_dict({name: tensors[name].float() for name in tree.state_dict()})


def initialise(networks: Networks) -> Networks:
    """Linear layers evenly scaled, gates nearly shut, and a head that predicts nothing yet."""
    for module in networks.modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    wan = networks.modules_tree
    nn.init.normal_(wan.time_embedding[0].weight, std=0.02)
    nn.init.normal_(wan.time_embedding[2].weight, std=0.02)
    nn.init.zeros_(wan.time_projection[1].weight)
    nn.init.zeros_(wan.head.head.weight)
    return networks


def parameter_groups(networks: Networks) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(matrices between hidden states, for Muon; first and last layers, modulations, gains and biases, for AdamW)."""
    wan = networks.modules_tree
    outer = {id(p) for module in (wan.patch_embedding, wan.head, wan.text_embedding) for p in module.parameters()}
    parameters = [p for p in networks.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim == 2 and id(p) not in outer]
    chosen = {id(p) for p in matrices}
    return matrices, [p for p in parameters if id(p) not in chosen]


def velocity_loss(flow: Tensor, noise: Tensor, batch: Batch) -> Tensor:
    """Squared error of noise - clean, weighted by where the loss should look."""
    weights = (batch.weights + MOUTH_WEIGHT * batch.mouth)[:, None]
    error = (flow - (noise - batch.clean)).square()
    return (weights * error).sum() / (weights.sum() * error.shape[1])


def flow_of(networks: Networks, batch: Batch, noise: Tensor, sigma: Tensor) -> Tensor:
    """What the network predicts for the current frames, noised to `sigma` [b]: [b, 16, f, h, w] float32."""
    generator = networks.generator()
    s = sigma[:, None, None, None, None]
    noisy = (1 - s) * batch.clean + s * noise
    with mixed_precision(generator.device):
        segment = batch.segment(noisy, 1000 * sigma, networks.card.in_channels)
        (flow,) = generator.forward([segment], generator.encode_text(None))
    return flow[:, :, -batch.clean.shape[2] :].float()


def optimisers_of(networks: Networks) -> list[torch.optim.Optimizer]:
    matrices, rest = parameter_groups(networks)
    return [Muon(matrices, lr=MUON_RATE), torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)]


def descend(networks: Networks, optimisers: list[torch.optim.Optimizer], rate: float) -> None:
    """One step along the gathered gradients at `rate` times the base rates."""
    nn.utils.clip_grad_norm_(networks.parameters(), MOST_GRADIENT)
    device = next(networks.parameters()).device
    with mixed_precision(device):  # Muon's products; its result is rough by design
        for optimiser, base in zip(optimisers, (MUON_RATE, ADAM_RATE), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * rate
            optimiser.step()


class Companion(Protocol):
    """Something else that is trained along and saved along."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


class StudentTraining:
    """Everything that training changes: weights, their running mean, optimisers, the generator of its chance, the clock."""

    def __init__(
        self, card: ModelCard, *, device: str = "cpu", seed: int = 0, batch: int = 16, shown: tuple[Layout, ...] | None = None
    ) -> None:
        """`shown`: how batches are laid out, by default as the student's rollouts will be."""
        torch.manual_seed(seed)
        self.card, self.device, self.batch = card, device, batch
        self.networks = initialise(Networks(card)).to(device)
        self.networks.keep_ear()
        self.mean = Networks(card).to(device).requires_grad_(False)
        self.mean.load_state_dict(self.networks.state_dict())
        self.chance = torch.Generator().manual_seed(seed)
        self.sampler = Sampler(shown or layouts(card.rollout), self.chance, device, other_voices=True)
        self.optimisers = optimisers_of(self.networks)
        self.step = 0
        self.seconds = 0.0  # spent training
        self.companion: Companion | None = None
        self._companion_state: dict | None = None  # of a checkpoint, until its companion comes

    def accompany(self, companion: "Companion") -> None:
        """Let `companion` be saved with this training, and go on where a loaded checkpoint left it."""
        self.companion = companion
        if self._companion_state is not None:
            companion.load_state_dict(self._companion_state)

    def train_step(self, rate: float = 1.0) -> float:
        """One step at `rate` times the base rates; returns the loss."""
        return self.learn(self.sampler.batch(self.batch), rate)

    def learn(self, batch: Batch, rate: float = 1.0) -> float:
        sigma = self.sampler.times(len(batch.clean), self.card.rollout.schedule)
        noise = self.sampler.noise_like(batch.clean)
        loss = velocity_loss(flow_of(self.networks, batch, noise, sigma), noise, batch)
        self.update(loss, rate)
        return loss.item()

    def update(self, loss: Tensor, rate: float) -> None:
        """One step down `loss`."""
        self.forget_gradients()
        loss.backward()
        self.descend(rate)

    def forget_gradients(self) -> None:
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)

    def begin_with(self, weights: dict[str, Tensor]) -> None:
        """Weights of a finished model of the same dims, for other frames perhaps."""
        self.networks.load_weights(weights)
        self.mean.load_weights(weights)

    def descend(self, rate: float) -> None:
        """One step of the optimisers along the gradients that were gathered."""
        descend(self.networks, self.optimisers, rate * min(1.0, (self.step + 1) / WARM_UP_STEPS))
        self.step += 1
        follow(self.mean, self.networks, self.step)

    @torch.no_grad()
    def probe(self, clips: list[ClipLatents]) -> dict[str, float]:
        """How well held-out chunks are drawn in one step from pure noise by the running mean: dB in latent space, all and mouth."""
        sampler = Sampler(self.sampler.layouts, torch.Generator().manual_seed(1), self.device)
        sampler.add(clips)
        batch = sampler.batch(PROBE_SAMPLES, sampler.layouts[1])
        noise = sampler.noise_like(batch.clean)
        flow = flow_of(self.mean, batch, noise, torch.ones(len(noise), device=self.device))
        error = (noise - flow - batch.clean).square().mean(1)

        def decibels(weight):
            return -10 * math.log10(((error * weight).sum() / weight.sum()).item())

        return {"x0": decibels(torch.ones_like(error)), "mouth": decibels(batch.mouth)}

    def save(self, path: Path) -> None:
        """Writes a checkpoint that is whole or not there at all."""
        state = {"step": self.step, "seconds": self.seconds, "chance": self.chance.get_state(), "card": self.card.to_json()}
        state |= {"networks": self.networks.state_dict(), "mean": self.mean.state_dict()}
        state |= {"optimisers": [optimiser.state_dict() for optimiser in self.optimisers]}
        if self.companion is not None:
            state["companion"] = self.companion.state_dict()
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path.with_suffix(".unfinished"))
        os.replace(path.with_suffix(".unfinished"), path)

    def leave(self, file: Path, begun_with: str) -> None:
        """Writes the running mean as it is now beside `file`, as a finished generator is written."""
        about = {"steps": self.step, "training_clips": len(self.sampler.clips), "grown_from": begun_with}
        write_generator(file.with_name(so_far(file.name)), in_file(self.mean.tensors()), self.card, about)

    def load(self, path: Path) -> None:
        """Goes on exactly where `save` was called."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        if ModelCard.from_json(state["card"]) != self.card:
            raise ValueError(f"{path} holds another model than {self.card.name}: {state['card']}")
        self.networks.load_state_dict(state["networks"])
        self.mean.load_state_dict(state["mean"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]
        self.chance.set_state(state["chance"].cpu())
        self._companion_state = state.get("companion")


def learning_rate(share: float, first: float = 1.0) -> float:
    """As `first` until half of the budget is spent, then evenly down to a twentieth of it."""
    return first * (1.0 if share < 0.5 else 1.0 - 0.95 * min(1.0, (share - 0.5) / 0.5))


def train_student(
    run_dir: Path, card: ModelCard, clips: ClipFolder, held_out: ClipFolder, *, minutes: float, device: str = "cpu", seed: int = 0,
    batch: int = 16, grow_from: Path | None = None, ear: Path | None = None,
) -> StudentTraining:  # fmt: skip
    """Train for `minutes` (counting what an earlier, interrupted run spent) on the clips in the folder, new ones as they come.

    `grow_from`: a finished generator to begin with instead of nothing, at a gentler rate. `ear`: one that was trained on speech."""
    training = StudentTraining(card, device=device, seed=seed, batch=batch)
    checkpoint = run_dir / CHECKPOINT
    training.sampler.add(clips.read_new())
    if checkpoint.exists():
        training.load(checkpoint)
    else:
        begin(training, grow_from, ear)
    probes = rows_of(held_out)

    def rate(share):
        return learning_rate(share, GROWING_RATE if grow_from is not None else 1.0)

    begun_with = grown_from(grow_from)

    def leave():
        return training.leave(run_dir / FILE, begun_with)

    run(training, checkpoint, training.train_step, clips, lambda: training.probe(probes), minutes, rate, "student", leave)
    return training


def begin(training: StudentTraining, grow_from: Path | None, ear: Path | None) -> None:
    """The weights that a run begins with: its own or a finished model's, hearing with the ear if there is one."""
    weights = training.networks.tensors() if grow_from is None else as_trained(grow_from)
    if ear is not None:
        heard, audio = load_file(ear), torch.cat([clip.audio[0] for clip in training.sampler.clips[:FITTED_CLIPS]])
        if grow_from is None:  # no code is known yet that should stay as it is
            weights |= {f"{EAR}{name}": tensor for name, tensor in heard.items()}
        weights = with_ear({name: weight.cpu() for name, weight in weights.items()}, training.card.audio, heard, audio.float())
    training.begin_with(weights)


def grown_from(file: Path | None) -> str:
    """What the model card says of the generator that a run began with: its name, size and commit."""
    if file is None:
        return ""
    metadata = read_header(file).metadata
    card = ModelCard.from_json(metadata[CARD_KEY])
    return f"{card.name} of {card.width} x {card.height} (commit {json.loads(metadata['training'])['commit']})"


def rows_of(folder: ClipFolder) -> list[ClipLatents]:
    """All clips of a folder, one each."""
    return [shard[row : row + 1] for shard in ClipFolder(folder.path).read_new() for row in range(len(shard))]


def run(
    training: StudentTraining,
    checkpoint: Path,
    step: Callable[[float], float],  # rate -> loss
    clips: ClipFolder,
    probe: Callable[[], dict[str, float]],
    minutes: float,
    rate: Callable[[float], float],  # share of the budget -> rate
    name: str,
    leave: Callable[[], object] = lambda: None,
) -> None:
    """Call `step` until the budget is spent; save, look for new clips and show progress on the way.

    `leave`: writes the model's file so far, before each save, so that a checkpoint never stands without its file."""
    budget = 60 * minutes
    last_save = last_look = training.seconds
    shown: dict[str, str] = {}
    with tqdm(total=round(budget), initial=round(training.seconds), unit="s", desc=name, mininterval=10) as bar:
        while training.seconds < budget:
            started = time.monotonic()
            loss = step(rate(training.seconds / budget))
            if not math.isfinite(loss):
                raise FloatingPointError(f"{name}: the loss became {loss} at step {training.step}; go on from the last checkpoint")
            shown |= {"loss": f"{loss:.3f}", "step": str(training.step), "clips": str(len(training.sampler.clips))}
            if training.step % STEPS_BETWEEN_PROBES == 0:
                shown |= {key: f"{value:.2f}" for key, value in probe().items()}
                tqdm.write(f"{name} {training.seconds / 60:.1f} min: {shown}")
            if training.seconds - last_look > SECONDS_BETWEEN_LOOKS:
                training.sampler.add(clips.read_new())
                last_look = training.seconds
            training.seconds += time.monotonic() - started
            if training.seconds - last_save > seconds_between_saves(budget):
                leave()
                training.save(checkpoint)
                last_save = training.seconds
            bar.set_postfix(shown, refresh=False)
            bar.update(round(training.seconds) - bar.n)
    leave()
    training.save(checkpoint)
