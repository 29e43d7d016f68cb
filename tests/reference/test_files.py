"""Recordings of the reference implementations, from files as each family publishes them, through the way in that everybody uses.

The recordings are of small models, whose sizes no table has: what they are is said by name, as a user may (`known_as`), and everything
else (chunk, window, steps, what is pinned) is then the table's.
"""

from pathlib import Path

import pytest
import torch

from kf_core.checkpoints.load import load_generator
from kf_core.conditioning.anchor import Anchor
from kf_core.models.causal import Generator
from kf_core.sampling.rollout import prefill, rollout
from kf_core.types import TextContext

from ..kf_core.checkpoints import containers
from .recordings import Recording, relative_error, take
from .test_rollouts import RecordedDriving

pytestmark = pytest.mark.reference


def loaded(path: Path, known_as: str, **more) -> Generator:
    return load_generator(path, known_as=known_as, accept_licence=True, dtype=torch.float32, **more)


def self_forcing_error(model: Generator, frames: int | None = None) -> float:
    """How far a Self-Forcing rollout, with the settings of the model's own card, is from the recording."""
    recording = Recording.read("sf_global3_f32")
    theirs = recording.latents("out.latents")[:, :, :frames]
    driving = RecordedDriving(TextContext(recording.tensors["in.context"]))
    settings = model.card.rollout
    ours = take(rollout(model, Anchor(torch.zeros_like(theirs[:, :, :1])), driving, settings, recording.tape(4, 3)), theirs.shape[2])
    return relative_error(ours, theirs)


def livetalk_error(model: Generator) -> float:
    recording = Recording.read("lt_global3_f32t")
    theirs = recording.latents("out.latents")
    driving = RecordedDriving(TextContext(recording.tensors["in.context"]), recording.tensors["in.audio_features"])
    ours = take(
        rollout(model, Anchor(recording.tensors["in.ref_latent"]), driving, model.card.rollout, recording.tape(4, 3)), theirs.shape[2]
    )
    return relative_error(ours, theirs)


@pytest.mark.parametrize("container", ["flat", "comfyui", "self_forcing", "sharded", "compiled"])
def test_self_forcing_from_a_file_rolls_out_as_recorded(container, tmp_path):
    path = containers.WHOLE[container](Recording.read("sf_weights").tensors, tmp_path)
    assert self_forcing_error(loaded(path, "self-forcing")) < 1e-5


def test_causal_forcing_takes_the_weights_its_authors_take(tmp_path):
    """Chunkwise: the same rollout as Self-Forcing's, from `generator` although there is a running mean."""
    path = containers.causal_forcing(Recording.read("sf_weights").tensors, tmp_path)
    assert self_forcing_error(loaded(path, "causal-forcing"), 3) < 1e-5
    assert self_forcing_error(loaded(path, "self-forcing"), 3) > 1e-2


def test_causal_forcing_framewise_goes_on_from_a_frame_as_recorded(tmp_path):
    recording = Recording.read("sf_i2v_frame_f32")
    model = loaded(containers.framewise(Recording.read("sf_weights").tensors, tmp_path), "causal-forcing-framewise")
    theirs, first = recording.latents("out.latents"), recording.latents("in.initial_latent")
    driving, settings = RecordedDriving(TextContext(recording.tensors["in.context"])), model.card.rollout
    state = prefill(model, Anchor(first), driving, settings, first)
    ours = take(rollout(model, Anchor(first), driving, settings, recording.tape(4, 1, first_frame=1), state), theirs.shape[2] - 1)
    assert relative_error(torch.cat((first, ours), dim=2), theirs) < 1e-5


def test_wrappers_anywhere_in_a_name_do_not_matter(tmp_path):
    weights = Recording.read("sf_weights").tensors
    model = loaded(containers.rolling_forcing(weights, tmp_path), "rolling-forcing")
    assert all(torch.equal(model.modules.state_dict()[name], tensor) for name, tensor in weights.items())


def test_a_lora_in_a_second_file_is_folded_in(tmp_path):
    base, lora = containers.with_lora_beside(Recording.read("sf_weights").tensors, tmp_path)
    assert self_forcing_error(loaded(base, "self-forcing", lora=lora)) < 1e-5
    assert self_forcing_error(loaded(base, "self-forcing"), 3) > 1e-3  # it matters


def test_livetalk_from_a_file_rolls_out_as_recorded(tmp_path):
    assert livetalk_error(loaded(containers.flat(Recording.read("lt_weights").tensors, tmp_path), "livetalk")) < 1e-5


def test_a_lora_left_apart_in_training_is_folded_in(tmp_path):
    """AvatarForcing's file, whose alpha only the table knows; its own rollout is another, so LiveTalk's settings are compared."""
    weights = Recording.read("lt_weights").tensors
    model = loaded(containers.with_lora_inside(weights, tmp_path), "avatar-forcing")
    found = {**model.modules.state_dict(), **model.adapters.state_dict()}
    assert found.keys() == weights.keys()
    assert max(relative_error(found[name], tensor) for name, tensor in weights.items()) < 1e-6
