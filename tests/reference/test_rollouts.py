"""The rollout that `animate` uses equals the reference implementations, under either forward: only settings and noise tape differ."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from kf_core.conditioning.anchor import Anchor
from kf_core.models.adapters import Adapters
from kf_core.models.card import AudioSpec, ModelCard, TextSpec
from kf_core.models.causal import Generator
from kf_core.models.optimized_forward import OptimizedGenerator
from kf_core.models.wan import WanModel
from kf_core.sampling.rollout import prefill, rollout
from kf_core.settings import RolloutSettings
from kf_core.timeline import LatentSpan, groups
from kf_core.types import ChunkConditioning, Signal, TextContext

from .recordings import Recording, relative_error, take

pytestmark = pytest.mark.reference


@dataclass(frozen=True, eq=False)
class RecordedDriving:
    """The prompt and the audio features of a recording."""

    text: TextContext
    audio: Tensor | None = None  # [b, frames, width]

    def window(self, span: LatentSpan) -> ChunkConditioning:
        audio = None
        if self.audio is not None:
            steps = torch.tensor([max(0, step) for step in groups(span)])
            audio = Signal(self.audio[:, steps].unflatten(1, (span.length, 4)).flatten(2))
        return ChunkConditioning(span=span, text=self.text, audio=audio)


def settings_of(recording: Recording, **changes) -> RolloutSettings:
    """No knot, no anchor: the rollout is then Self Forcing's."""
    timesteps = eval_floats(recording.metadata["denoising_timesteps"])
    sigmas = eval_floats(recording.metadata.get("scheduler_sigmas", "[]")) or [t / 1000 for t in timesteps]
    schedule = tuple(zip(sigmas, timesteps, strict=True))
    return RolloutSettings(chunk=int(recording.metadata["block"]), knot=None, anchor=None, fuse=False, schedule=schedule, **changes)


def eval_floats(text: str) -> list[float]:
    return [float(number) for number in text.strip("[]").split(",") if number.strip()]


@pytest.fixture(params=(Generator, OptimizedGenerator), ids=("plain", "optimized forward"))
def forward(request) -> type[Generator]:
    return request.param


def generator(forward: type[Generator], weights: Recording, settings: RolloutSettings, audio: AudioSpec | None = None) -> Generator:
    c = weights.config
    card = ModelCard(
        name="recorded",
        dim=c["dim"],
        ffn_dim=c["ffn_dim"],
        layers=c["num_layers"],
        heads=c["num_heads"],
        in_channels=c["in_dim"],
        image_channels="portrait" if c["in_dim"] == 33 else "knot",
        text=TextSpec(kind="umt5", width=c["text_dim"], tokens=32),
        audio=audio,
        rollout=settings,
    )
    model = WanModel(card)
    adapters = Adapters(card) if audio else None
    own = set(adapters.state_dict()) if adapters else set()
    model.load_state_dict({k: v for k, v in weights.tensors.items() if k not in own})
    if adapters:
        adapters.load_state_dict({k: weights.tensors[k] for k in own})
    return forward(card, model, adapters)


@pytest.mark.parametrize(
    "name, changes",
    [
        ("sf_global3_f32", dict(window=None, max_frames=9)),
        ("sf_local6_f32", dict(window=6)),
        ("sf_local9sink3_f32", dict(window=6, pinned=3)),
    ],
)
def test_a_self_forcing_rollout_equals_its_reference(forward, name, changes):
    recording = Recording.read(name)
    settings = settings_of(recording, **changes)
    model = generator(forward, Recording.read("sf_weights"), settings)
    theirs = recording.latents("out.latents")
    portrait = Anchor(torch.zeros_like(theirs[:, :, :1]))
    driving = RecordedDriving(TextContext(recording.tensors["in.context"]))
    ours = take(rollout(model, portrait, driving, settings, recording.tape(4, settings.chunk)), theirs.shape[2])
    assert relative_error(ours, theirs) < 1e-5


def test_a_rollout_from_a_prefilled_frame_equals_its_reference(forward):
    recording = Recording.read("sf_i2v_frame_f32")
    settings = settings_of(recording, window=None, max_frames=4)
    model = generator(forward, Recording.read("sf_weights"), settings)
    theirs, first = recording.latents("out.latents"), recording.latents("in.initial_latent")
    portrait, driving = Anchor(first), RecordedDriving(TextContext(recording.tensors["in.context"]))
    state = prefill(model, portrait, driving, settings, first)
    ours = take(rollout(model, portrait, driving, settings, recording.tape(4, 1, first_frame=1), state), theirs.shape[2] - 1)
    assert relative_error(torch.cat((first, ours), dim=2), theirs) < 1e-5


def livetalk(forward: type[Generator], changes: dict):
    recording = Recording.read("lt_global3_f32t")
    settings = settings_of(recording, first_frame="pin", **changes)
    model = generator(
        forward, Recording.read("lt_weights"), settings, AudioSpec(kind="wav2vec2", width=10752, code=32, first_layer=2, last_layer=3)
    )
    portrait = Anchor(recording.tensors["in.ref_latent"])
    driving = RecordedDriving(TextContext(recording.tensors["in.context"]), recording.tensors["in.audio_features"])
    return recording, settings, model, portrait, driving


@pytest.mark.parametrize("changes", [dict(window=None, max_frames=9), dict(window=6, pinned=9)])
def test_a_livetalk_rollout_equals_its_reference(forward, changes):
    recording, settings, model, portrait, driving = livetalk(forward, changes)
    theirs = recording.latents("out.latents")
    ours = take(rollout(model, portrait, driving, settings, recording.tape(4, 3)), theirs.shape[2])
    assert relative_error(ours, theirs) < 1e-5


def test_a_mistake_in_time_would_be_seen(forward):
    """The recordings are sharp enough: telling the network whole numbers of t moves the result far beyond the tolerance."""
    recording = Recording.read("sf_global3_f32")
    exact = settings_of(recording, window=None, max_frames=9)
    rounded = RolloutSettings(
        knot=None, anchor=None, fuse=False, window=None, max_frames=9, schedule=tuple((s, float(int(t))) for s, t in exact.schedule)
    )
    model = generator(forward, Recording.read("sf_weights"), rounded)
    theirs = recording.latents("out.latents")
    driving = RecordedDriving(TextContext(recording.tensors["in.context"]))
    ours = take(rollout(model, Anchor(torch.zeros_like(theirs[:, :, :1])), driving, rounded, recording.tape(4, 3)), 9)
    assert relative_error(ours, theirs) > 1e-3
