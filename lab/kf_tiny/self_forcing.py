"""The student learns from its own streams: it rolls out in four steps and is pulled to the truth where the truth is determined.

The rollout is the shipped one. At each chunk a random step's estimate leaves early and carries the gradient; the cache and the knot are
detached, so backpropagation stays within a chunk. The loss is on the emitted frames, the fused ones, so frames drawn twice count once.
Where pose, sound and mostly all of the expression are given, what is right is known, and the stream is pulled to the truth. Where
no pose is given, many motions are right, and the stream is matched to the distribution that a teacher learnt (`distribution.py`). Half
of the steps go on as the student's own training, without which the freedom that was learnt there would be averaged away.
Source: Self Forcing, arXiv 2506.08009.
"""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kf_core.conditioning.anchor import Anchor
from kf_core.device import to_device
from kf_core.models.card import ModelCard
from kf_core.models.causal import Generator
from kf_core.sampling.noise import SeededNoise
from kf_core.sampling.rollout import rollout
from kf_core.settings import Ahead, RolloutSettings
from kf_core.timeline import LatentSpan
from kf_core.training.precision import mixed_precision
from kf_core.training.rng import noise_of_rollouts
from kf_core.types import ChunkConditioning, LatentChunk, Signal

from .batches import LEADS
from .clips import ClipFolder, ClipLatents, joined
from .distribution import CRITIC_STEPS, DistributionMatching, as_whole_clip
from .student import CHECKPOINT as STUDENT_CHECKPOINT
from .student import MOUTH_WEIGHT, Networks, StudentTraining, begin, grown_from, run
from .teacher import CHECKPOINT as TEACHER_CHECKPOINT
from .teacher import load_teacher

CHECKPOINT = "rollout-checkpoint.pt"
FILE = "kf-tiny-rollouts.safetensors"  # written on the way, as so far
RATE = 0.25  # of the student's
MATCHING_RATE = 0.4  # of that, for steps that match a distribution: their gradient is an opinion, not the truth
FIRST_PLACES = (4, 20)  # of the anchor: its lead is drawn anew for each rollout
FREE_SHARE = 0.5  # of the rollouts of a model that begins on the portrait
LONG_SHARE = 0.25  # of the rollouts run over long clips, half as many at a time
PROBE_CLIPS = 8


@dataclass(frozen=True, eq=False)
class ClipDriving:
    """Drives a rollout by what a clip was made with; the last frame holds beyond its end."""

    clips: ClipLatents
    knows: Tensor  # [b, values] which values of the expression are told
    hears: Tensor  # [b] 0 or 1: is the sound given?
    has_motion: Tensor  # [b] 0 or 1: is the motion strength told?
    sees: Tensor  # [b] 0 or 1: is the pose given?
    device: torch.device | str = "cpu"

    def window(self, span: LatentSpan) -> ChunkConditioning:
        frames = torch.tensor([min(frame, self.clips.latents.shape[2] - 1) for frame in span])

        def take(track):
            return to_device(track[:, frames], self.device, torch.float32)

        def strength(given):
            return given.to(self.device, torch.float32)[:, None].expand(-1, span.length)

        known = self.knows.to(self.device, torch.float32)[:, None, None]
        values = take(self.clips.expression)
        return ChunkConditioning(
            span=span,
            audio=Signal(take(self.clips.audio), strength(self.hears)),
            pose=Signal(take(self.clips.pose) / 255, strength(self.sees)),
            expression=Signal(torch.cat((values * known, known.expand_as(values)), dim=-1).flatten(2)),
            motion=Signal(take(self.clips.motion), strength(self.has_motion)),
        )

    @classmethod
    def everything(cls, clips: ClipLatents, device: torch.device | str = "cpu") -> "ClipDriving":
        """All that can be told is told."""
        ones = torch.ones(len(clips))
        return cls(clips, torch.ones(len(clips), clips.expression.shape[-1]), ones, ones, ones, device)


def own_chunks(
    generator: Generator, clips: ClipLatents, driving: ClipDriving, settings: RolloutSettings, seed: int, exits=None
):  # fmt: skip
    """Stream the clips' identities for as many whole chunks as the clips have: LatentChunks.

    The portrait of a stream that begins on it is the clip's first frame, which is encoded alone. Any other has the clip's reference for
    a portrait, which is how the clip ends."""
    portrait = clips.latents[:, :, :1] if settings.begins_on_portrait else clips.reference
    reference = portrait.to(generator.device, torch.float32)
    b, c, _, h, w = reference.shape
    chunks = (clips.latents.shape[2] - settings.knot_length) // settings.chunk
    noise = SeededNoise(seed, (b, c, h, w)) if exits is None else noise_of_rollouts(seed, (b, c, h, w), generator.device)
    for made in rollout(generator, Anchor(reference), driving, settings, noise, exits=exits):
        if isinstance(made, LatentChunk):
            yield made
            if made.index + 1 == chunks:
                return


class OwnRollouts:
    """Steps that alternate between the student's own streams and its ordinary batches.

    With a teacher every other stream goes without a pose and is matched to the teacher's distribution."""

    def __init__(self, training: StudentTraining, teacher: Networks | None = None) -> None:
        self.training = training
        self.matching = None if teacher is None else DistributionMatching(training, teacher)

    def step(self, rate: float) -> float:
        training = self.training
        if training.step % 2:
            return training.train_step(rate)
        if self.matching is not None and training.step % 4:
            return self.matched_step(self.draw_clips(long_share=0.0), rate)
        return self.rollout_step(self.draw_clips(), rate)

    def draw_clips(self, long_share: float = LONG_SHARE) -> ClipLatents:
        """Clips of one length, half a batch of them or so, said by other voices."""
        clips, chance = self.training.sampler.clips, self.training.chance
        longest = max(clip.latents.shape[2] for clip in clips)
        shortest = min(clip.latents.shape[2] for clip in clips)
        is_long = torch.rand((), generator=chance) < long_share
        length, count = (longest, max(1, self.training.batch // 4)) if is_long else (shortest, max(1, self.training.batch // 2))
        fitting = [clip for clip in clips if clip.latents.shape[2] == length]
        chosen = joined([fitting[int(torch.randint(len(fitting), (), generator=chance))] for _ in range(count)])
        return replace(chosen, audio=self.training.sampler.heard(chosen.audio))

    def rollout_step(self, clips: ClipLatents, rate: float) -> float:
        """One stream of each clip, all told: a gradient from every chunk, one step of the optimisers; returns the mean loss."""
        settings = replace(self._begun(), anchor=Ahead(self._integer(*FIRST_PLACES), 20))
        self.training.forget_gradients()
        losses = []
        with self._autocast():
            for made in self._stream(clips, self._driving(clips, sees=1.0, knows=0.7), settings):
                loss = output_loss(made, clips)
                (loss / _chunks(clips, settings)).backward()
                losses.append(loss.item())
        self.training.descend(rate)
        return sum(losses) / len(losses)

    def matched_step(self, clips: ClipLatents, rate: float) -> float:
        """One stream of each clip without a pose, judged as a whole by teacher and critic; returns the student's loss."""
        training, matching = self.training, self.matching
        length = _chunks(clips, training.card.rollout) * training.card.rollout.chunk
        place = self._still_place(length)
        driving = self._driving(clips, sees=0.0, knows=0.15)
        training.forget_gradients()
        with self._autocast():
            settings = replace(training.card.rollout, anchor=Ahead(place, 20), first_frame="free")  # as the teacher sees clips
            made = torch.cat([chunk.latents for chunk in self._stream(clips, driving, settings)], dim=2)
        batch = as_whole_clip(made.detach(), clips, driving.window(LatentSpan(0, length)), place, settings)
        for _ in range(CRITIC_STEPS):
            matching.follow(batch)
        loss = matching.loss(made, batch)
        loss.backward()
        training.descend(MATCHING_RATE * rate)
        return loss.item()

    def _still_place(self, length: int) -> int:
        """Where an anchor stands that never moves while `length` frames are emitted: beyond all that are drawn, the last knot included."""
        return self._integer(length + self.training.card.rollout.knot_length, LEADS[1])

    def _begun(self) -> RolloutSettings:
        """The model's own rollout; where it begins on the portrait, half of the streams do, and the others freely."""
        own = self.training.card.rollout
        if own.begins_on_portrait and torch.rand((), generator=self.training.chance) < FREE_SHARE:
            return replace(own, first_frame="free")
        return own

    def _stream(self, clips: ClipLatents, driving: ClipDriving, settings: RolloutSettings):
        last = len(settings.schedule) - 1

        def exits(chunk):
            return self._integer(0, last)

        return own_chunks(self.training.networks.generator(), clips, driving, settings, self._integer(0, 2**62), exits)

    def _driving(self, clips: ClipLatents, *, sees: float, knows: float) -> ClipDriving:
        """The clips' own signals, each told or not: pose and expression with these chances."""

        def told(share):
            return (torch.rand(len(clips), generator=self.training.chance) < share).float()

        return ClipDriving(
            clips,
            knows=told(knows)[:, None].expand(-1, clips.expression.shape[-1]),
            hears=told(0.95),
            has_motion=told(0.5),
            sees=told(sees),
            device=self.training.device,
        )

    def _autocast(self) -> AbstractContextManager:
        """The cast weights must not be kept: those of the steps without gradients would be taken for the step that has them."""
        return mixed_precision(self.training.device, keep_cast_weights=False)

    def _integer(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=self.training.chance))


def output_loss(made: LatentChunk, clips: ClipLatents) -> Tensor:
    """Squared error of emitted frames, weighted by where the loss should look, the mouth as in the student's own training."""
    within = slice(made.span.start, made.span.stop)
    parts = (clips.latents[:, :, within], clips.weights[:, None, within], clips.mouth[:, None, within])
    truth, weights, mouth = (part.to(made.latents.device, torch.float32) for part in parts)
    weights = weights + MOUTH_WEIGHT * mouth
    return (weights * (made.latents.float() - truth).square()).sum() / (weights.sum() * truth.shape[1])


@torch.no_grad()
def probe_rollout(generator: Generator, clips: ClipLatents) -> dict[str, float]:
    """How near held-out streams that begin freely come to the truth in latent space, in dB: all, mouth, and all in the last chunk."""
    driving = ClipDriving.everything(clips, generator.device)
    settings = replace(generator.card.rollout, first_frame="free")
    with mixed_precision(generator.device):
        made = torch.cat([chunk.latents for chunk in own_chunks(generator, clips, driving, settings, seed=0)], dim=2)
    error = (made.float().cpu() - clips.latents[:, :, : made.shape[2]].float()).square().mean(1)
    mouth = clips.mouth[:, : made.shape[2]].float()

    def decibels(squared):
        return -10 * math.log10(squared.mean().item())

    chunk = generator.card.rollout.chunk
    return {"rollout": decibels(error), "r-mouth": decibels((error * mouth).sum() / mouth.sum()), "r-last": decibels(error[:, -chunk:])}


def _chunks(clips: ClipLatents, settings: RolloutSettings) -> int:
    return (clips.latents.shape[2] - settings.knot_length) // settings.chunk


def learning_rate(share: float) -> float:
    return RATE * (1 - 0.9 * share)


def train_on_own_rollouts(
    run_dir: Path, card: ModelCard, clips: ClipFolder, held_out: ClipFolder, *, minutes: float, device: str = "cpu", seed: int = 0,
    batch: int = 16, grow_from: Path | None = None, ear: Path | None = None,
) -> StudentTraining:  # fmt: skip
    """Train the student of this run for `minutes` more on its own streams, going on where an earlier call was killed.

    A run without a student begins with `grow_from`, a finished generator, hearing with `ear`. If the run has a teacher, streams without
    a pose are matched to it."""
    training = StudentTraining(card, device=device, seed=seed, batch=batch)
    checkpoint = run_dir / CHECKPOINT
    training.sampler.add(clips.read_new())
    if checkpoint.exists():
        training.load(checkpoint)
    elif grow_from is None or (run_dir / STUDENT_CHECKPOINT).exists():
        training.load(run_dir / STUDENT_CHECKPOINT)
        training.networks.load_state_dict(training.mean.state_dict())  # the running mean is the better student
        training.seconds = 0.0
    else:
        begin(training, grow_from, ear)
    own = OwnRollouts(training, load_teacher(run_dir, card, device) if (run_dir / TEACHER_CHECKPOINT).exists() else None)
    if own.matching is not None:
        training.accompany(own.matching)
    probes = held_out.read_new()[0][:PROBE_CLIPS]

    def probe():
        return probe_rollout(training.mean.generator(), probes)

    begun_with = grown_from(grow_from)

    def leave():
        return training.leave(run_dir / FILE, begun_with)

    run(training, checkpoint, own.step, clips, probe, minutes, learning_rate, "own rollouts", leave)
    return training
