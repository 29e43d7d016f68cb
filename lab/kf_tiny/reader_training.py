"""Trains the reader of cartoon portraits (`kf_core/metrics/reader.py`): values by regression, identity by contrast.

Every batch holds new faces, several moments of each; frames are blurred, noised and lit a little differently, because what will be
read is decoded video. Source of the contrast: supervised contrastive learning, arXiv 2004.11362.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from kf_core.metrics.reader import READER_FILE, SCALES, SIZE, VALUES, PortraitReader

from .drawing import render
from .portraits import Motion, Split, sample_identities, sample_motion

TEMPERATURE = 0.1
VALUE_WEIGHTS = (4.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0)  # the mouth is what is asked about most


@dataclass(frozen=True, kw_only=True)
class ReaderRecipe:
    steps: int = 1400
    faces: int = 16  # per batch
    moments: int = 4  # frames of each face
    learning_rate: float = 2e-3
    contrast: float = 0.3  # weight of the identity loss beside the values'
    seed: int = 0
    save_every: int = 100  # steps


@dataclass(frozen=True, kw_only=True)
class ReaderQuality:
    """Measured on faces of the held-out split, clean frames."""

    correlations: dict[str, float]  # of each value with the truth
    verification_auc: float  # chance that two moments of one face are closer than moments of two faces


def train_reader(folder: Path, recipe: ReaderRecipe = ReaderRecipe(), device: str = "cpu") -> PortraitReader:  # noqa: B008 (frozen)
    """Train, or go on training, in `folder`; a run that is killed loses at most `save_every` steps."""
    torch.manual_seed(recipe.seed)
    reader = PortraitReader().to(device)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=recipe.learning_rate, weight_decay=0.02)
    state_file, first = folder / "reader.pt", 0
    folder.mkdir(parents=True, exist_ok=True)
    if state_file.exists():
        state = torch.load(state_file, weights_only=True, map_location=device)
        reader.load_state_dict(state["reader"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    progress = tqdm(range(first, recipe.steps), initial=first, total=recipe.steps, desc="reader", unit="step", mininterval=5)
    for step in progress:
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _pace(step / recipe.steps, warm_up=0.04)
        frames, truth = draw_batch(recipe.faces, recipe.moments, generator, device=device)
        values, embedding = reader(spoil(frames, generator))
        errors = F.smooth_l1_loss(values, truth, reduction="none", beta=0.5).mean(0)
        value_loss = (errors * errors.new_tensor(VALUE_WEIGHTS)).sum() / sum(VALUE_WEIGHTS)
        identity_loss = contrast(embedding, torch.arange(recipe.faces, device=device).repeat_interleave(recipe.moments))
        optimizer.zero_grad()
        (value_loss + recipe.contrast * identity_loss).backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            progress.set_postfix(values=f"{value_loss.item():.3f}", identity=f"{identity_loss.item():.2f}")
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            state = {"reader": reader.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, state_file.with_suffix(".new"))
            state_file.with_suffix(".new").replace(state_file)
    return reader.eval()


def save_reader(reader: PortraitReader, recipe: ReaderRecipe, quality: ReaderQuality, path: Path = READER_FILE) -> None:
    """Half precision, with the recipe and what it reached in the header."""
    header = {"recipe": json.dumps(asdict(recipe)), "quality": json.dumps(asdict(quality)), "made": time.strftime("%Y-%m-%d")}
    save_file({name: tensor.half().contiguous().cpu() for name, tensor in reader.state_dict().items()}, path, metadata=header)


@torch.no_grad()
def measure_reader(reader: PortraitReader, faces: int = 100, moments: int = 8, seed: int = 1) -> ReaderQuality:
    frames, truth = draw_batch(faces, moments, torch.Generator().manual_seed(seed), split="held-out")
    reading = reader.read(frames.movedim(1, -1))
    correlations = {}
    for index, name in enumerate(VALUES):
        correlations[name] = torch.corrcoef(torch.stack([getattr(reading, name), truth[:, index]]))[0, 1].item()
    who = torch.arange(faces).repeat_interleave(moments)
    first, second = torch.triu_indices(len(who), len(who), 1)
    closeness = (reading.embedding @ reading.embedding.T)[first, second]
    return ReaderQuality(correlations=correlations, verification_auc=area_under_roc(closeness, who[first] == who[second]))


def area_under_roc(scores: Tensor, is_positive: Tensor) -> float:
    """The chance that a positive scores above a negative (Mann-Whitney)."""
    ranks = torch.empty_like(scores, dtype=torch.float64)
    ranks[scores.argsort()] = torch.arange(1, len(scores) + 1, dtype=torch.float64)
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    return ((ranks[is_positive].sum() - positives * (positives + 1) / 2) / (positives * negatives)).item()


def draw_batch(faces: int, moments: int, generator: torch.Generator, split: Split = "train", device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Frames [faces * moments, 3, 96, 96] and their values [faces * moments, 10] in units of SCALES."""
    motion = some_moments(faces * moments, generator)
    drawn = render(sample_identities(faces, generator, split), motion.map(lambda track: track.view(faces, moments)), SIZE, device)
    truth = torch.stack([getattr(motion, name).view(-1) for name in VALUES], 1)
    return drawn.frames.flatten(0, 1), (truth / torch.tensor(SCALES)).to(device)


def some_moments(n: int, generator: torch.Generator) -> Motion:
    """Single moments that cover every value evenly, not as often as life shows them: tracks of [n, 1]."""

    def between(low, high):
        return low + (high - low) * torch.rand(n, 1, generator=generator)

    def sometimes(probability):
        return (torch.rand(n, 1, generator=generator) < probability).float()

    motion = sample_motion(n, 1, generator, strength=None)
    return replace(
        motion,
        mouth_open=between(0, 1) * sometimes(0.7),
        mouth_wide=between(-1, 1) * sometimes(0.8),
        lip_bite=between(0, 1) * sometimes(0.08),
        blink=torch.maximum(between(0, 1) * sometimes(0.2), sometimes(0.12)),
        smile=between(-1, 1),
        brows=between(-1, 1),
        gaze_x=between(-1, 1),
        gaze_y=between(-1, 1),
    )


def spoil(frames: Tensor, generator: torch.Generator) -> Tensor:
    """What decoding does, a little of everything: half of the frames blurred, all noised and lit differently."""
    n = len(frames)

    def uniform():
        return torch.rand(n, 1, 1, 1, generator=generator).to(frames.device)

    size = int(SIZE * (0.4 + 0.5 * torch.rand(1, generator=generator).item()))
    small = F.interpolate(frames, size=(size, size), mode="area")
    blurred = F.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    frames = torch.lerp(frames, blurred, uniform() * (uniform() < 0.5))
    light, contrast_ = 0.94 + 0.12 * uniform(), 0.06 * (uniform() - 0.5)
    noise = torch.randn(frames.shape, generator=generator).to(frames.device) * 0.04 * uniform()
    return (frames * light + contrast_ + noise).clamp(0, 1)


def contrast(embedding: Tensor, who: Tensor) -> Tensor:
    """Supervised contrast: moments of one face against all other faces of the batch. Embeddings [n, d] of length 1, faces [n]."""
    itself = torch.eye(len(who), dtype=torch.bool, device=who.device)
    logits = (embedding @ embedding.T / TEMPERATURE).masked_fill(itself, -math.inf)
    log_share = logits - logits.logsumexp(1, keepdim=True)
    same = (who[:, None] == who) & ~itself
    return -log_share[same].mean()


def _pace(done: float, warm_up: float) -> float:
    """Up in a line, down in a half cosine."""
    return done / warm_up if done < warm_up else 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))
