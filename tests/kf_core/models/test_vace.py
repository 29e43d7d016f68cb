"""The laws of control frames on a causal backbone, and equality with ComfyUI's VACE model in one pass over a clip."""

from dataclasses import replace

import pytest
import torch

from kf_core.models.causal import Generator, Segment
from kf_core.models.vace import Vace
from kf_core.models.wan import WanModel
from kf_core.sampling.rollout import rollout
from kf_core.timeline import LatentSpan
from kf_core.types import ChunkConditioning, Control

from ...host.place import enter_host
from .. import tiny
from ..tiny import HEIGHT, WIDTH, generator, noise, portrait

CARD = replace(tiny.CARD, layers=4, in_channels=16, audio=None, pose=None, expression=(), motion_strength=False)
CARD = replace(CARD, rollout=replace(CARD.rollout, knot="blend"))


def random_vace(dtype=torch.float64) -> Vace:
    torch.manual_seed(5)
    vace = Vace(dim=CARD.dim, ffn_dim=CARD.ffn_dim, heads=CARD.heads, blocks=2)
    for parameter in vace.parameters():
        torch.nn.init.normal_(parameter, 0.5 if parameter.dim() == 1 else 0.0, 0.15)
    return vace.to(dtype).requires_grad_(False)


def led() -> Generator:
    return generator(CARD).with_vace(random_vace())


def features(start: int, stop: int, seed: int = 3) -> torch.Tensor:
    frames = [torch.randn(1, 1, 32, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(100 * seed + f)) for f in range(start, stop)]
    return torch.cat(frames, dim=1).double()


class Controlled:
    """Driving by control frames alone."""

    def __init__(self, until: int = 10**6, **options) -> None:
        self.until, self.options = until, options

    def window(self, span: LatentSpan) -> ChunkConditioning:
        control = features(span.start, span.stop)
        if span.stop > self.until:
            control = control + 1.0
        return ChunkConditioning(span=span, control=Control(control, **self.options))


def segment(start: int, stop: int, **options) -> Segment:
    latents = torch.randn(1, 16, stop - start, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(start)).double()
    driving = ChunkConditioning(span=LatentSpan(start, stop), control=Control(features(start, stop), **options))
    return Segment(latents=latents, positions=torch.arange(start, stop).double(), t=torch.full((stop - start,), 700.0), driving=driving)


def flow(model: Generator, *segments: Segment) -> list[torch.Tensor]:
    return model.forward(list(segments), model.encode_text(None))


def emitted(model: Generator, driving, chunks: int = 4) -> torch.Tensor:
    made = []
    for item in rollout(model, portrait(), driving, CARD.rollout, noise()):
        made += [item.latents] if hasattr(item, "latents") else []
        if len(made) == chunks:
            return torch.cat(made, dim=2)


@pytest.fixture(scope="module")
def model() -> Generator:
    return led()


def test_control_leads_and_strength_0_is_no_control(model):
    (with_control,) = flow(model, segment(3, 6))
    (weak,) = flow(model, segment(3, 6, strength=0.0))
    (without,) = flow(model, replace(segment(3, 6), driving=None))
    assert torch.equal(weak, without) and (with_control - without).norm() > 0.05 * without.norm()
    (half,) = flow(model, segment(3, 6, strength=0.5))
    assert 0 < (half - without).norm() < (with_control - without).norm()


def test_segments_with_and_without_control_share_a_pass_and_do_not_disturb_each_other(model):
    led_one, free = segment(0, 3), replace(segment(3, 5), driving=None)
    together = flow(model, free, led_one, segment(7, 8, strength=0.3))
    alone = [flow(model, s)[0] for s in (free, led_one, segment(7, 8, strength=0.3))]
    for ours, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_a_chunk_is_drawn_by_its_own_control_alone(model):
    short, changed = emitted(model, Controlled()), emitted(model, Controlled(until=8))
    assert torch.equal(short[:, :, :6], changed[:, :, :6]) and not torch.allclose(short[:, :, 6:9], changed[:, :, 6:9])


def test_the_clean_pass_hears_the_control_only_where_it_is_asked_to(model):
    plain, heard = emitted(model, Controlled()), emitted(model, Controlled(in_clean_pass=True))
    assert torch.equal(plain[:, :, :3], heard[:, :, :3])  # the first chunk remembers nothing
    assert not torch.allclose(plain[:, :, 3:6], heard[:, :, 3:6])


def test_the_taps_are_spread_over_the_backbone():
    with torch.device("meta"):
        published = Vace(dim=1536, ffn_dim=8960, heads=12, blocks=15)
    assert published.injection_layers(30) == tuple(range(0, 30, 2))
    names = published.state_dict()
    assert names["vace_patch_embedding.weight"].shape == (1536, 96, 1, 2, 2)
    assert "vace_blocks.0.before_proj.weight" in names and "vace_blocks.1.before_proj.weight" not in names
    assert "vace_blocks.14.after_proj.bias" in names and len(names) == 2 + 15 * 29 + 2


@pytest.mark.reference
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_one_pass_over_a_clip_equals_comfyuis_vace_model(strength):
    enter_host("comfy.ldm.wan.model", "comfy.ops")
    import comfy.ldm.wan.model as wan
    import comfy.ops

    card = replace(CARD, dim=48, heads=2, text=replace(CARD.text, tokens=7, width=20))
    ours, vace = WanModel(card), random_vace(torch.float32)
    torch.manual_seed(1)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, 0.5 if parameter.dim() == 1 else 0.0, 0.15)
    theirs = wan.VaceWanModel(
        in_dim=16, dim=card.dim, ffn_dim=card.ffn_dim, freq_dim=card.freq_dim, text_dim=20, out_dim=16, num_heads=card.heads,
        num_layers=card.layers, vace_layers=2, vace_in_dim=96, operations=comfy.ops.disable_weight_init, device="cpu", dtype=torch.float32,
    )  # fmt: skip
    theirs.load_state_dict({**ours.state_dict(), **vace.state_dict()}, strict=True)
    latents, text, control = torch.randn(1, 16, 5, HEIGHT, WIDTH), torch.randn(1, 7, 20), features(0, 5).float()
    context = torch.cat((control.transpose(1, 2), torch.ones(1, 64, 5, HEIGHT, WIDTH)), dim=1)
    model = Generator(card, ours, vace=vace)
    from kf_core.types import TextContext

    with torch.no_grad():
        expected = theirs(latents, torch.tensor([625.0]), text, vace_context=context[:, None], vace_strength=[strength])
        driving = ChunkConditioning(span=LatentSpan(0, 5), control=Control(control, strength))
        whole = Segment(latents=latents, positions=torch.arange(5), t=torch.full((5,), 625.0), driving=driving)
        (drawn,) = model.forward([whole], model.encode_text(TextContext(text)))
        (plain,) = model.forward([replace(whole, driving=None)], model.encode_text(TextContext(text)))
    error = (drawn - expected).norm() / expected.norm()
    assert error < 1e-5 and (plain - expected).norm() > 0.05 * expected.norm()
    print(f"relative error {error:.1e}")
