"""Control frames lead through a VACE module in a real ComfyUI; a module of another size is refused where it meets the model."""

import pytest
import torch
from safetensors.torch import save_file

from kf_core.models.vace import Vace

from .conftest import CARD, also, talking


@pytest.fixture(scope="module")
def modules(host) -> None:
    """A random module for the tiny model, and one that is too wide."""
    torch.manual_seed(4)
    folder = host.folder / "models" / "diffusion_models"
    for name, dim in (("tiny-vace.safetensors", CARD.dim), ("wide-vace.safetensors", 2 * CARD.dim)):
        vace = Vace(dim=dim, ffn_dim=CARD.ffn_dim, heads=dim // 128, blocks=2)
        for parameter in vace.parameters():
            torch.nn.init.normal_(parameter, 0.0 if parameter.dim() > 1 else 0.5, 0.1)
        save_file({key: tensor.bfloat16() for key, tensor in vace.state_dict().items()}, folder / name)


def led(prefix: str, module: str = "tiny-vace.safetensors", **changed) -> dict:
    inputs = {"control_images": ["image", 0], "vae": ["load", 1], "module_name": module, "fps": 1.0, "strength": 1.0}
    inputs |= {"in_clean_pass": False, "driving": ["audio", 0]} | changed
    prompt = talking(seed=40, prefix=prefix, sampler={"driving": ["control", 0], "seconds": 0.8})
    return also(prompt, control=("KnotForcingVace", inputs))


def test_control_frames_lead_and_at_strength_0_they_do_not(host, modules):
    host.fresh()
    plain = host.run(talking(seed=40, prefix="unled", sampler={"seconds": 0.8})).outputs["decode"][1]
    strong = host.run(led("led"))
    assert strong.succeeded, strong.messages[-1]
    assert not torch.equal(strong.outputs["decode"][1], plain)
    assert torch.equal(host.run(led("weak", strength=0.0)).outputs["decode"][1], plain)
    assert not torch.equal(host.run(led("heard", in_clean_pass=True)).outputs["decode"][1], strong.outputs["decode"][1])


def test_what_cannot_lead_is_said_on_the_right_node(host, modules):
    host.fresh()
    ran = host.run(led("wide", "wide-vace.safetensors"))
    assert ran.error["node_id"] == "sampler" and "must be of one size" in ran.error["exception_message"]
