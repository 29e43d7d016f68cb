"""Distribution matching: where no signal determines the motion, a stream should look like *a* clip, not like the mean of all clips.

A frozen teacher knows what clips look like, an online critic what the student's streams look like; where a noised stream would be
denoised differently by the two, the student is pushed towards the teacher's opinion. The critic sees emitted frames, the fused ones.
Sources: Distribution Matching Distillation, arXiv 2311.18828; as part of Self Forcing, arXiv 2506.08009; Knot Forcing, arXiv 2512.21734.
"""

import torch
from torch import Tensor

from kf_core.settings import RolloutSettings
from kf_core.timeline import LatentSpan
from kf_core.types import ChunkConditioning, Signal

from .batches import Batch, whole_clip, with_anchor
from .clips import ClipLatents
from .student import Networks, StudentTraining, descend, flow_of, optimisers_of, velocity_loss

CRITIC_STEPS = 2  # for each of the student's
CRITIC_RATE = 0.15  # of the student's base rates
LEAST_SIGMA, MOST_SIGMA = 0.02, 0.98


class DistributionMatching:
    """The frozen teacher, and a critic that begins as its copy and follows the student."""

    def __init__(self, training: StudentTraining, teacher: Networks) -> None:
        self.training, self.teacher = training, teacher
        self.critic = Networks(teacher.card).to(training.device)
        self.critic.load_state_dict(teacher.state_dict())
        self.optimisers = optimisers_of(self.critic)

    def follow(self, batch: Batch) -> float:
        """One step of the critic towards the streams in `batch`; returns its loss."""
        training = self.training
        sigma, noise = self._sigma(len(batch.clean)), training.sampler.noise_like(batch.clean)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss = velocity_loss(flow_of(self.critic, batch, noise, sigma), noise, batch)
        loss.backward()
        descend(self.critic, self.optimisers, CRITIC_RATE)
        return loss.item()

    def loss(self, made: Tensor, batch: Batch) -> Tensor:
        """Half a squared distance whose gradient is the difference of opinion: `made` [b, 16, f, h, w] carries the gradient, and
        `batch.clean` is the same without one."""
        sigma, noise = self._sigma(len(made)), self.training.sampler.noise_like(made)
        with torch.no_grad():
            s = sigma[:, None, None, None, None]
            fake, real = (flow_of(networks, batch, noise, sigma) for networks in (self.critic, self.teacher))
            noisy = (1 - s) * batch.clean + s * noise
            clean = noisy - s * real  # as the teacher would have it
            size = (batch.clean - clean).abs().mean((1, 2, 3, 4), keepdim=True).clamp_min(1e-3)
            push = s * (real - fake) / size  # = (critic's clean - teacher's clean) / size
        weights = batch.weights[:, None]
        distance = (made - (batch.clean - push)).square()
        return 0.5 * (weights * distance).sum() / (weights.sum() * made.shape[1])

    def state_dict(self) -> dict:
        return {"critic": self.critic.state_dict(), "optimisers": [optimiser.state_dict() for optimiser in self.optimisers]}

    def load_state_dict(self, state: dict) -> None:
        self.critic.load_state_dict(state["critic"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)

    def _sigma(self, size: int) -> Tensor:
        base = torch.rand(size, generator=self.training.chance)
        return (5 * base / (1 + 4 * base)).clamp(LEAST_SIGMA, MOST_SIGMA).to(self.training.device)


def as_whole_clip(
    made: Tensor, clips: ClipLatents, conditioning: ChunkConditioning, anchor_position: int, settings: RolloutSettings
) -> Batch:
    """The first frames of streams, `made` [b, 16, f, h, w] without gradient, as teacher and critic see them."""
    b, _, frames = made.shape[:3]

    def take(tensor):
        return tensor.to(made.device, torch.float32)

    signals = {
        name: with_anchor(Signal(signal.features, _per_frame(signal.strength, b, frames, made.device)))
        for name in ("audio", "pose", "expression", "motion")
        if (signal := getattr(conditioning, name)) is not None
    }
    return Batch(
        layout=whole_clip(settings, frames),
        clean=made,
        past=made[:, :, :0],
        reference=take(clips.reference),
        knot=made[:, :, :1],
        knows_knot=torch.zeros(b, dtype=torch.bool, device=made.device),
        anchor_position=torch.full((b,), anchor_position, device=made.device),
        driving=ChunkConditioning(span=LatentSpan(-1, frames), **signals),
        weights=take(clips.weights[:, :frames]),
        mouth=take(clips.mouth[:, :frames]),
    )


def _per_frame(strength: float | Tensor, b: int, frames: int, device: torch.device) -> Tensor:
    if isinstance(strength, Tensor):
        return strength.to(device)
    return torch.full((b, frames), float(strength), device=device)
