"""The ear of kf-tiny, trained on speech alone: what a mouth does at each frame, told from the sound around it.

    log-mel step -> ear -> features -> (open, wide, bite), and whether the lips are closed

A generator that has to learn hearing and drawing at once hears badly: a mouth is a few tokens of a frame, and clips are few. Speech
is cheap, so the ear learns from an hour of it in minutes, said by other voices each time, and the generator's training leaves it as it
is. The two heads are thrown away; the features go to the audio projection in place of the sound.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from kf_core.checkpoints.read import read_header
from kf_core.conditioning.audio import AudioArray
from kf_core.encoders.log_mel import MELS, LogMel
from kf_core.errors import KnotForcingError
from kf_core.models.adapters import make_ear
from kf_core.models.card import AudioSpec
from kf_core.timeline import PIXELS_PER_LATENT, PixelSpan
from kf_core.types import SAMPLE_RATE

from .audio_augment import as_other_voices
from .speech_dataset import FPS, Library, Take, training_take

FILE = "ear.safetensors"
EAR = "audio_proj.ear."  # before the names of its weights in a generator
FRAMES = 64  # of a take
NEW_TAKES, TAKES, KEPT = 4, 24, 600  # for each step: made anew, learned from, and how many are kept to be drawn again
RATE, WEIGHT_DECAY = 1e-3, 0.05
CLOSED = 0.05  # an opening below it is a closed mouth
CLOSURE_WEIGHT = 0.05
SECONDS_BETWEEN_LOOKS = 30
RIDGE = 1e-3


class Heard(nn.Module):
    """The ear with the two heads it is trained by."""

    def __init__(self, spec: AudioSpec) -> None:
        super().__init__()
        self.ear = make_ear(spec)
        self.mouth = nn.Linear(spec.features_width, 3)
        self.closure = nn.Linear(spec.features_width, 1)

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel steps [..., width] -> (open, wide, bite) [..., 3], and how surely the lips are closed, a logit [...]."""
        features = self.ear(steps)
        return self.mouth(features), self.closure(features)[..., 0]


def hearing_loss(heard: Heard, steps: Tensor, mouth: Tensor) -> Tensor:
    """Squared error of the mouth [..., 3], and cross entropy of whether it is closed."""
    told, closure = heard(steps)
    closed = (mouth[..., 0] < CLOSED).float()
    return F.mse_loss(told, mouth) + CLOSURE_WEIGHT * F.binary_cross_entropy_with_logits(closure, closed)


def steps_of(take: Take) -> Tensor:
    """What is heard at each frame of a take: [frames, 256]."""
    return LogMel(AudioArray(take.samples, SAMPLE_RATE).open(), FPS).steps(PixelSpan(0, take.mouth.shape[1]))


@dataclass(eq=False)
class Takes:
    """Takes that are drawn again and again, the oldest replaced by new ones; each time by another voice."""

    make: Callable[[], Take]
    chance: torch.Generator
    kept: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    oldest: int = 0

    def draw(self) -> tuple[Tensor, Tensor]:
        """Steps [b, frames, 256] and mouths [b, frames, 3]."""
        for _ in range(NEW_TAKES):
            take = self.make()
            row = (steps_of(take), torch.from_numpy(take.mouth).T.contiguous())
            if len(self.kept) < KEPT:
                self.kept.append(row)
            else:
                self.kept[self.oldest] = row
                self.oldest = (self.oldest + 1) % KEPT
        rows = [self.kept[int(torch.randint(len(self.kept), (), generator=self.chance))] for _ in range(TAKES)]
        steps, mouths = (torch.stack(part) for part in zip(*rows, strict=True))
        return as_other_voices(steps.unflatten(-1, (-1, MELS)), self.chance).flatten(-2), mouths


@torch.no_grad()
def how_well(heard: Heard, library: Library) -> dict[str, float]:
    """On speech as it was recorded: r of opening, width and bite, the lowest opening of a monologue, and closures found.

    `closed`: the share of closed frames taken for closed, and of open ones for open, on average."""
    correlations, right = [], []
    for take in library.monologues():
        mouth = torch.from_numpy(take.mouth)
        told, closure = heard(steps_of(take))
        correlations.append([torch.corrcoef(torch.stack((told[:, i], mouth[i])))[0, 1].item() for i in range(3)])
        closed = mouth[0] < CLOSED
        right.append(((closure > 0)[closed].float().mean() + (closure < 0)[~closed].float().mean()).item() / 2)
    opening, wide, bite = np.mean(correlations, 0)
    lowest = min(row[0] for row in correlations)
    return {"open": opening, "lowest": lowest, "wide": wide, "bite": bite, "closed": float(np.mean(right))}


def train_ear(file: Path, spec: AudioSpec, library: Library, held_out: Library, *, minutes: float, seed: int = 0) -> dict[str, float]:
    """Train an ear for `minutes` and write it, with how well it hears voices that it never heard, which is also returned."""
    torch.manual_seed(seed)
    heard = Heard(spec)
    optimiser = torch.optim.AdamW(heard.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    generator = np.random.default_rng(seed)
    takes = Takes(lambda: training_take(library, FRAMES, generator), torch.Generator().manual_seed(seed))
    shown, last_look, started = {}, 0.0, time.monotonic()
    with tqdm(total=round(60 * minutes), unit="s", desc="ear", mininterval=10) as bar:
        while (spent := time.monotonic() - started) < 60 * minutes:
            for group in optimiser.param_groups:
                group["lr"] = RATE * min(1.0, 2 * (1 - spent / (60 * minutes)))
            loss = hearing_loss(heard, *takes.draw())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if spent - last_look > SECONDS_BETWEEN_LOOKS:
                shown, last_look = how_well(heard, held_out), spent
            bar.set_postfix({"loss": f"{loss.item():.4f}"} | {key: f"{value:.3f}" for key, value in shown.items()}, refresh=False)
            bar.update(round(spent) - bar.n)
    report = {name: round(float(value), 4) for name, value in how_well(heard, held_out).items()}
    report |= {"minutes": minutes, "speech_minutes": round(library.mouth.shape[1] / FPS / 60)}
    standardise(heard.ear, torch.cat([steps for steps, _ in takes.kept]))
    save_file(heard.ear.state_dict(), file.with_suffix(".unfinished"), metadata={"format": "pt", "ear": json.dumps(report)})
    os.replace(file.with_suffix(".unfinished"), file)
    return report


def take_ear(generator: Path, file: Path) -> None:
    """Write the ear of a finished generator as `train_ear` wrote it. Raises KnotForcingError for a generator that has none."""
    ear = {name.removeprefix(EAR): tensor.float() for name, tensor in load_file(generator).items() if name.startswith(EAR)}
    report = json.loads(read_header(generator).metadata["training"]).get("ear")
    if not ear or report is None:
        raise KnotForcingError(f"{generator.name} has no ear that could be taken over. Train one: give it some --ear-minutes.")
    save_file(ear, file.with_suffix(".unfinished"), metadata={"format": "pt", "ear": json.dumps(report)})
    os.replace(file.with_suffix(".unfinished"), file)


def report_of(file: Path) -> dict[str, float]:
    """What `train_ear` returned when it wrote this file."""
    return json.loads(read_header(file).metadata["ear"])


@torch.no_grad()
def standardise(ear: nn.Sequential, steps: Tensor) -> None:
    """Makes its features have mean 0 and deviation 1 over `steps` [n, width]."""
    features, last = ear(steps), ear[-1]
    mean, deviation = features.mean(0), features.std(0).clamp_min(1e-3)
    last.weight /= deviation[:, None]
    last.bias.sub_(mean).div_(deviation)


@torch.no_grad()
def with_ear(weights: dict[str, Tensor], spec: AudioSpec, ear: dict[str, Tensor], audio: Tensor) -> dict[str, Tensor]:
    """A generator's weights, hearing with this ear.

    If it heard otherwise before, by another ear or by none, its projection becomes the one whose code is nearest to what it was, by least
    squares over `audio` [n, 4 * width], the steps of latent frames; so what it knows of drawing mouths holds."""
    projection = {name: weights[f"audio_proj.proj.{name}"].float() for name in ("weight", "bias")}
    former = {name.removeprefix(EAR): tensor for name, tensor in weights.items() if name.startswith(EAR)}
    features = _features(spec, ear, audio)
    if projection["weight"].shape[1] != features.shape[1] or (former and not _are_one(former, ear)):
        known = torch.cat((features, torch.ones(len(features), 1)), 1)
        wanted = _features(spec, former, audio) @ projection["weight"].T + projection["bias"]
        gram = known.T @ known + RIDGE * len(known) * torch.eye(known.shape[1])
        found = torch.linalg.solve(gram, known.T @ wanted)
        projection = {"weight": found[:-1].T.contiguous(), "bias": found[-1]}
    changed = {f"audio_proj.proj.{name}": tensor for name, tensor in projection.items()}
    return weights | changed | {f"{EAR}{name}": tensor for name, tensor in ear.items()}


def _features(spec: AudioSpec, ear: dict[str, Tensor], audio: Tensor) -> Tensor:
    """What an ear of these weights makes of the steps of latent frames, [n, 4 * width] -> [n, 4 * heard]; without any, the steps."""
    widths = [len(tensor) for name, tensor in sorted(ear.items(), key=_layer) if name.endswith("weight")]
    heard = make_ear(replace(spec, ear=tuple(widths)))
    heard.load_state_dict({name: tensor.float() for name, tensor in ear.items()})
    return heard(audio.unflatten(-1, (PIXELS_PER_LATENT, -1))).flatten(-2)


def _layer(named: tuple[str, Tensor]) -> int:
    return int(named[0].split(".")[0])


def _are_one(ear: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two ears are the same in the precision of a file."""
    return ear.keys() == other.keys() and all(torch.equal(ear[name].half(), other[name].half()) for name in ear)
