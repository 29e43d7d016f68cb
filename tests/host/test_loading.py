"""Load KF Model opens files as the command line does: training checkpoints, a second file beside them, licences agreed to."""

import pytest
import torch
from safetensors.torch import save_file

from ..kf_core.checkpoints import containers
from .conftest import also, self_forcing_of_one_layer, talking
from .test_weights import ROUNDING, apart


@pytest.fixture(scope="module")
def published(host) -> None:
    """One generator as its authors might publish it: a .pt with a LoRA beside it; and with that folded in."""
    torch.manual_seed(4)
    weights = {name: tensor.float() for name, tensor in self_forcing_of_one_layer().items()}
    models = host.folder / "models"
    base, lora = containers.with_lora_beside(weights, models / "diffusion_models")
    lora.rename(models / "loras" / "lora.pt")
    save_file({name: tensor.bfloat16() for name, tensor in weights.items()}, models / "diffusion_models" / "merged.safetensors")


def run(host, load: dict, **sampler):
    """A short stream as latents, and what else came of it."""
    host.forget_streams()
    host.fresh()
    size = {"width": 32, "height": 32}
    prompt = talking(seed=7, load=load, anchor=size, sampler={"seconds": 0.5, "steps": 1} | sampler)
    del prompt["decode"]
    latent = ("KnotForcingToLatent", {"stream": ["sampler", 0], "vae": ["load", 1], "max_latents": 20})
    return host.run(also(prompt, latent=latent, kept=("SaveLatent", {"samples": ["latent", 0], "filename_prefix": "load"})))


def test_a_training_checkpoint_and_its_second_file_draw_what_the_merged_weights_draw(host, published):
    with_lora = run(host, {"model_name": "longlive_base.pt", "lora_name": "lora.pt"}, method="knot forcing")
    merged = run(host, {"model_name": "merged.safetensors", "known_as": "longlive"}, method="knot forcing")
    alone = run(host, {"model_name": "longlive_base.pt"})
    for ran in (with_lora, merged, alone):
        assert ran.succeeded, ran.error
    latents = [ran.outputs["latent"][0]["samples"] for ran in (with_lora, merged, alone)]
    assert apart(latents[0], latents[1]) < ROUNDING < apart(latents[2], latents[1])
    assert any("run by its authors with a second file, models/lora.pt" in line for line in alone.said("load"))
    by_them, by_us = (ran.outputs["sampler"][0].settings for ran in (alone, merged))
    assert (by_them.knot, by_them.anchor, by_them.pinned) == (None, None, 3)
    assert (by_us.knot, by_us.window, by_us.pinned) == ("blend", 6, 0) and by_us.anchor is not None


def test_a_restricted_model_waits_until_its_licence_was_read(host, published):
    file = {"model_name": "merged.safetensors", "known_as": "causvid"}
    refused = run(host, file)
    assert refused.error["node_id"] == "load" and "not for commercial use. Read its licence" in refused.error["exception_message"]
    agreed = run(host, file | {"accept_licence": True})
    assert agreed.succeeded and any("not for commercial use" in line for line in agreed.said("load"))


def test_a_node_that_wants_fixed_places_in_memory_loads_the_model_once_more(host, monkeypatch):
    """TorchCompileModel does so where the host's dynamic memory is on. What is drawn is the same: the blocks are called one by one."""
    prompt = talking(seed=8, prefix="compiled")
    plain = host.run(prompt)
    loaded = plain.outputs["load"][0]
    prompt = also(prompt, compiled=("TorchCompileModel", {"model": ["load", 0], "backend": "inductor"}))
    prompt["sampler"]["inputs"]["model"] = ["compiled", 0]
    host.forget_streams()
    # newer hosts tell dynamic models so, the last time when the next prompt begins
    loaded.set_in_use_by_current_prompt = lambda is_used: None
    with monkeypatch.context() as here:
        here.setattr(loaded, "is_dynamic", lambda: True)
        ran = host.run(prompt)
    assert ran.succeeded, ran.error
    assert "load" in ran.cached and ran.outputs["compiled"][0].model is not loaded.model
    assert torch.equal(ran.outputs["decode"][1], plain.outputs["decode"][1])
