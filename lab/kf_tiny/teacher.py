"""The bidirectional teacher: flow matching on whole clips, in which every frame sees every other.

Known frames enter as they do in a chunk that has a knot: none, the first, or the first three. The teacher begins with the student's weights
and learns to see ahead, which is quicker than the other way round; the student needs no teacher to begin with, only to be matched
to where nothing determines its motion (`distribution.py`). Source: Knot Forcing, arXiv 2512.21734: masked image-to-video inpainting.
"""

from dataclasses import replace
from pathlib import Path

import torch

from kf_core.models.card import ModelCard
from kf_core.settings import RolloutSettings

from .batches import Layout, whole_clip
from .clips import ClipFolder
from .student import CHECKPOINT as STUDENT_CHECKPOINT
from .student import GROWING_RATE, Networks, StudentTraining, begin, learning_rate, rows_of, run

CHECKPOINT = "teacher-checkpoint.pt"


def clip_frames(settings: RolloutSettings, shortest: int) -> int:
    """How many latent frames of a clip the teacher sees: all whole chunks that a stream of that length emits."""
    return (shortest - settings.knot_length) // settings.chunk * settings.chunk


def teacher_layouts(settings: RolloutSettings, frames: int) -> tuple[Layout, ...]:
    """A stream's beginning with nothing known, and stretches whose first or first few frames are known."""
    shares = {0: 0.6, 1: 0.2, 3: 0.2}
    return tuple(replace(whole_clip(settings, frames, known), share=share) for known, share in shares.items())


def train_teacher(
    run_dir: Path, card: ModelCard, clips: ClipFolder, held_out: ClipFolder, *, minutes: float, device: str = "cpu", seed: int = 0,
    batch: int = 16, grow_from: Path | None = None, ear: Path | None = None,
) -> StudentTraining:  # fmt: skip
    """Train for `minutes` (counting what an earlier, interrupted run spent), beginning with the run's student, or else with `grow_from`."""
    new = clips.read_new()
    frames = clip_frames(card.rollout, min(shard.latents.shape[2] for shard in new))
    shown = teacher_layouts(card.rollout, frames)
    training = StudentTraining(card, device=device, seed=seed, batch=max(1, batch // 2), shown=shown)
    checkpoint = run_dir / CHECKPOINT
    training.sampler.add(new)
    if checkpoint.exists():
        training.load(checkpoint)
    elif grow_from is None or (run_dir / STUDENT_CHECKPOINT).exists():
        training.begin_with(_student(run_dir, card, device))
    else:
        begin(training, grow_from, ear)
    probes = rows_of(held_out)

    def rate(share):
        return learning_rate(share, GROWING_RATE)

    run(training, checkpoint, training.train_step, clips, lambda: training.probe(probes), minutes, rate, "teacher")
    return training


def _student(run_dir: Path, card: ModelCard, device: str) -> dict[str, torch.Tensor]:
    student = StudentTraining(card, device=device)
    student.load(run_dir / STUDENT_CHECKPOINT)
    return student.mean.tensors()


def load_teacher(run_dir: Path, card: ModelCard, device: str) -> Networks:
    """The running mean of the trained teacher, frozen."""
    state = torch.load(run_dir / CHECKPOINT, map_location=device, weights_only=True)
    if ModelCard.from_json(state["card"]) != card:
        raise ValueError(f"{run_dir / CHECKPOINT} was trained for another model than {card.name}: {state['card']}")
    networks = Networks(card).to(device)
    networks.load_state_dict(state["mean"])
    return networks.requires_grad_(False)


def steps_of(run_dir: Path) -> int:
    """How far the run's teacher was trained; 0 where there is none."""
    checkpoint = run_dir / CHECKPOINT
    return torch.load(checkpoint, map_location="cpu", weights_only=True)["step"] if checkpoint.exists() else 0
