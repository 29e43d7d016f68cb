"""While a chunk is drawn the host never waits for the device.

Held without a card: PyTorch's meta device has no numbers, so asking it for one is an error, and every copy to it is seen.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kf_core.conditioning.anchor import Anchor
from kf_core.conditioning.audio import Silence
from kf_core.conditioning.driving import Driving
from kf_core.models.adapters import Adapters
from kf_core.models.optimized_forward import OptimizedGenerator
from kf_core.models.wan import WanModel
from kf_core.sampling.rollout import rollout
from kf_core.sampling.state import RolloutState
from kf_core.types import LatentChunk, Step
from tests.kf_core.tiny import CARD, HEIGHT, SETTINGS, WIDTH, frames, generator, noise

META = torch.device("meta")
HEARING = replace(CARD, audio=replace(CARD.audio, width=256))
PER_CHUNK = 12  # copies: signals twice (denoised and committed), noise, angles; one more where the portrait moves on


class Traffic(TorchDispatchMode):
    """Counts numbers that are read one at a time, and copies from the CPU to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.read = self.sent = self.waited = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        self.read += func is torch.ops.aten._local_scalar_dense.default
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[1] if func is torch.ops.aten.copy_.default else args[0]
            if source.device.type == "cpu" and made.device.type != "cpu":
                does_not_wait = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
                self.sent += 1
                self.waited += not does_not_wait
        assert not any(t.device.type == "cpu" for t in tree_leaves(made) if isinstance(t, Tensor)) or not any(
            t.device == META for t in tree_leaves(args) if isinstance(t, Tensor)
        ), f"{func} brings the device's numbers to the host"
        return made


def on_meta() -> tuple[OptimizedGenerator, Anchor, object]:
    with META:
        modules, adapters = WanModel(HEARING), Adapters(HEARING)
        anchor = Anchor(torch.empty(1, 16, 1, HEIGHT, WIDTH))
    driving = Driving(audio=Silence(), script="smile, nod", motion=1.2)
    bound = driving.bind(HEARING, latent_height=HEIGHT, latent_width=WIDTH, device=META)
    return OptimizedGenerator(HEARING, modules, adapters, device=META), anchor, bound


def test_nothing_that_a_chunk_needs_makes_the_host_wait():
    model, anchor, driving = on_meta()
    per_step, per_chunk = [], []
    with torch.no_grad():
        stream = rollout(model, anchor, driving, SETTINGS, noise(), RolloutState.start(model, anchor, SETTINGS))
        while len(per_chunk) < 5:
            with Traffic() as seen:
                item = next(stream)
            assert seen.waited == 0
            per_step.append((isinstance(item, Step) and item.index > 0, seen.sent))
            if isinstance(item, LatentChunk):
                per_chunk.append(sum(sent for _, sent in per_step))
                assert len(per_chunk) == 1 or not any(sent for is_later_step, sent in per_step if is_later_step)
                per_step = []
    assert set(per_chunk[1:]) == {PER_CHUNK, PER_CHUNK + 1}


def test_numbers_are_not_read_one_at_a_time_on_a_cpu_either():
    model = generator(dtype=torch.float32)
    with Traffic() as seen:
        frames(9, model=OptimizedGenerator(model.card, model.modules, model.adapters))
    assert seen.read == 0
