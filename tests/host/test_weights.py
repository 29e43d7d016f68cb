"""The host's ways with weights: LoRA, fp8, scaled fp8, GGUF. A generator of any of these kinds draws what its values say."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from kf_core.models.card import CARD_KEY

from .conftest import CARD, also, self_forcing_of_one_layer, talking
from .weights import as_fp8, as_scaled_fp8, plain, write_gguf

ROUNDING = 0.02  # relative, of what rounding to bf16 in another order does to one layer


def drawn(host, prefix: str, load: dict, lora: str = "", wide: bool = False, **nodes: tuple[str, dict]) -> torch.Tensor:
    """What a short stream draws, as latents; never from the spool."""
    host.forget_streams()
    host.fresh()
    return _latents(host, prefix, load, lora, wide, **nodes)


def _latents(host, prefix: str, load: dict, lora: str = "", wide: bool = False, **nodes: tuple[str, dict]) -> torch.Tensor:
    size = {"width": 32, "height": 32}
    prompt = talking(seed=7, load=load, anchor=size, sampler={"seconds": 0.5} | ({"steps": 1} if wide else {}))
    del prompt["decode"]
    if lora:
        nodes["lora"] = ("LoraLoaderModelOnly", {"model": ["load", 0], "lora_name": lora, "strength_model": 1.0})
        prompt["sampler"]["inputs"]["model"] = ["lora", 0]
    stream = {"stream": ["sampler", 0], "vae": ["load", 1], "max_latents": 20}
    ran = host.run(
        also(
            prompt,
            latent=("KnotForcingToLatent", stream),
            kept=("SaveLatent", {"samples": ["latent", 0], "filename_prefix": prefix}),
            **nodes,
        )
    )
    assert ran.succeeded, ran.error
    return ran.outputs["latent"][0]["samples"]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far two drawings are from each other, relative to their size."""
    assert one.isfinite().all() and other.isfinite().all() and other.std() > 0.01
    distance = ((one - other).norm() / other.norm()).item()
    print(f"{distance:.5f} apart")
    return distance


@pytest.fixture(scope="module")
def models(host) -> dict[str, dict[str, torch.Tensor]]:
    """The same random weights in each form: `tiny` with a card and adapters, `wide` as the host's own loaders take it."""
    folder = host.folder / "models" / "diffusion_models"
    tiny = load_file(folder / "tiny.safetensors")
    forms = {"fp8": as_fp8(tiny), "scaled": as_scaled_fp8(tiny)}
    forms |= {f"{name}-values": plain(tensors) for name, tensors in forms.items()}
    for name, tensors in forms.items():
        save_file(tensors, folder / f"tiny-{name}.safetensors", metadata={CARD_KEY: replace(CARD, name=name).to_json()})
    torch.manual_seed(1)
    wide = self_forcing_of_one_layer()
    others = {"wide": wide, "wide-fp8": as_fp8(wide), "wide-scaled": as_scaled_fp8(wide)}
    others |= {f"{name}-values": plain(others[name], torch.bfloat16) for name in ("wide-fp8", "wide-scaled")}
    for name, tensors in others.items():
        save_file(tensors, folder / f"{name}.safetensors")
    name = "diffusion_model.blocks.0.ffn.2.lora_{}.weight"
    lora = {name.format("A"): torch.randn(4, 256), name.format("B"): torch.randn(1536, 4)}
    save_file(lora, host.folder / "models" / "loras" / "wide.safetensors")
    return forms | others


def from_unet_loader(host, name: str) -> torch.Tensor:
    unet = ("UNETLoader", {"unet_name": f"{name}.safetensors", "weight_dtype": "default"})
    return drawn(host, name, {"model": ["unet", 0]}, wide=True, unet=unet)


def test_a_lora_changes_what_is_drawn_and_without_it_all_is_exactly_as_before(host):
    before = drawn(host, "lora", {})
    host.forget_streams()
    assert apart(_latents(host, "lora", {}, "random.safetensors"), before) > 0.01
    host.forget_streams()
    assert torch.equal(_latents(host, "unloaded", {}), before), "the same MODEL, from the cache"
    assert torch.equal(drawn(host, "again", {}), before), "the file loaded anew"


@pytest.mark.parametrize("form", ["fp8", "scaled"])
def test_eight_bits_in_load_kf_model_draw_what_their_values_draw(host, models, form):
    eight = drawn(host, form, {"model_name": f"tiny-{form}.safetensors"})
    values = drawn(host, form, {"model_name": f"tiny-{form}-values.safetensors"})
    assert apart(eight, values) < ROUNDING
    assert apart(eight, drawn(host, "whole", {})) > 1e-4, "the eight bits were used"


def test_a_lora_on_scaled_eight_bits_changes_what_is_drawn_and_can_be_taken_off(host, models):
    load = {"model_name": "tiny-scaled.safetensors"}
    before = drawn(host, "scaled", load)
    host.forget_streams()
    assert apart(_latents(host, "scaled", load, "random.safetensors"), before) > 0.01
    host.forget_streams()
    assert torch.equal(_latents(host, "unloaded", load), before)


@pytest.mark.parametrize("form", ["wide-fp8", "wide-scaled"])
def test_eight_bits_from_the_hosts_own_loader_draw_what_their_values_draw(host, models, form):
    assert apart(from_unet_loader(host, form), from_unet_loader(host, f"{form}-values")) < ROUNDING


def test_a_gguf_file_draws_nearly_what_it_was_made_of(host, models):
    host.load_another_pack("ComfyUI-GGUF", needs="gguf")
    write_gguf(models["wide"], host.folder / "models" / "diffusion_models" / "wide-Q8_0.gguf")
    unet = ("UnetLoaderGGUF", {"unet_name": "wide-Q8_0.gguf"})
    packed = drawn(host, "gguf", {"model": ["unet", 0]}, wide=True, unet=unet)
    assert 1e-5 < apart(packed, from_unet_loader(host, "wide")) < 0.05
    assert apart(drawn(host, "gguf", {"model": ["unet", 0]}, "wide.safetensors", wide=True, unet=unet), packed) > 0.01
    host.forget_streams()
    assert torch.equal(_latents(host, "unloaded", {"model": ["unet", 0]}, wide=True, unet=unet), packed)


def test_a_quantised_file_that_lacks_a_tensor_is_refused_in_words(host, models):
    folder = host.folder / "models" / "diffusion_models"
    broken = {name: tensor for name, tensor in models["scaled"].items() if not name.startswith("blocks.1.ffn.2.")}
    save_file(broken, folder / "tiny-broken.safetensors", metadata={CARD_KEY: CARD.to_json()})
    host.fresh()
    ran = host.run(talking(load={"model_name": "tiny-broken.safetensors"}))
    assert not ran.succeeded and ran.error["node_id"] == "load"
    assert "2 missing (blocks.1.ffn.2.bias, blocks.1.ffn.2.weight" in ran.error["exception_message"]


def test_generator_and_adapters_are_loaded_at_once_with_room_for_decoder_and_memory(host, monkeypatch):
    management = host.of_pack("host.models").management
    load, asked = management.load_models_gpu, []

    def listening(models, *words, **options):
        asked.append(([type(patcher.model).__name__ for patcher in models], options.get("memory_required", 0)))
        return load(models, *words, **options)

    monkeypatch.setattr(management, "load_models_gpu", listening)
    host.fresh()
    host.forget_streams()
    ran = host.run(talking(prefix="loads"))
    assert ran.succeeded, ran.error
    drawing = [(kinds, needed) for kinds, needed in asked if "Adapters" in kinds]
    assert [kinds for kinds, _ in drawing] == [["WAN21", "Adapters"]], "once, together"
    assert drawing[0][1] > ran.outputs["load"][1].model_size(), "and room for what the VAE becomes"
    assert sum("WAN21" in kinds for kinds, _ in asked) == 1
