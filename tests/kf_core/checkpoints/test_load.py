"""A file becomes the generator that was saved, or a sentence says why not."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from kf_core.checkpoints import detect as recognise
from kf_core.checkpoints.checkpoint import identify
from kf_core.checkpoints.key_maps import wan_name
from kf_core.checkpoints.known_models import KNOWN, self_forcing
from kf_core.checkpoints.load import load_generator
from kf_core.checkpoints.vaes import load_vae
from kf_core.checkpoints.weights import as_stored, whole
from kf_core.errors import KnotForcingError
from kf_core.models.card import CARD_KEY, ModelCard
from kf_core.models.wan import WanModel
from kf_core.settings import Ahead
from kf_core.vae.wan import WanVAE

from ..models.test_causal import segment
from ..tiny import CARD, generator
from . import containers


@pytest.fixture
def tensors():
    model = generator(dtype=torch.float32)
    return {**model.modules.state_dict(), **model.adapters.state_dict()}


@pytest.fixture
def wan():
    """A causal student as others publish it, at small sizes."""
    torch.manual_seed(2)
    card = self_forcing()
    card = replace(card, dim=128, heads=1, ffn_dim=96, layers=2, text=replace(card.text, width=24))
    return {name: torch.randn_like(tensor) / 8 for name, tensor in WanModel(card).state_dict().items()}


def save(tensors, path, card=CARD):
    metadata = {CARD_KEY: card.to_json()} if card else None
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path


def test_a_loaded_generator_is_the_one_that_was_saved(tensors, tmp_path):
    loaded = load_generator(save(tensors, tmp_path / "tiny.safetensors"), dtype=torch.float64)
    saved = generator(dtype=torch.float32)
    assert loaded.card == CARD
    for theirs, ours in ((saved.modules, loaded.modules), (saved.adapters, loaded.adapters)):
        assert all(torch.equal(ours.state_dict()[name], tensor.double()) for name, tensor in theirs.state_dict().items())
    assert not any(p.requires_grad for p in loaded.modules.parameters())


@pytest.mark.parametrize("prefix", ["model.", "model.diffusion_model.", "diffusion_model.", "model._fsdp_wrapped_module.", "_orig_mod."])
def test_the_names_of_whoever_saved_it_do_not_matter(prefix, tensors, tmp_path):
    renamed = {prefix + name: tensor for name, tensor in tensors.items()}
    load_generator(save(renamed, tmp_path / "named.safetensors"))


def test_a_training_checkpoint_gives_its_running_mean(tensors, tmp_path):
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    path = tmp_path / "training.pt"
    torch.save(
        {"generator": {f"model.{n}": t for n, t in other.items()}, "generator_ema": {f"model.{n}": t for n, t in tensors.items()}}, path
    )
    with pytest.raises(KnotForcingError, match="not a generator this version knows"):  # a .pt carries no card, and these sizes are nobody's
        load_generator(path)


def test_a_low_precision_generator_still_draws(tensors, tmp_path):
    loaded = load_generator(save(tensors, tmp_path / "tiny.safetensors"), dtype=torch.bfloat16)
    (flow,) = loaded.forward([segment(0, 2)], loaded.encode_text(None))
    (exact,) = generator().forward([segment(0, 2)], generator().encode_text(None))
    assert flow.dtype == torch.float32 and (flow - exact).norm() / exact.norm() < 0.1


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda t: t.pop("head.head.bias"), "1 missing.*head.head.bias"),
        (lambda t: t.update({"surplus.weight": torch.zeros(2)}), "1 left over.*surplus.weight"),
        (lambda t: t.update({"head.head.bias": torch.zeros(3)}), "1 of another size.*head.head.bias is \\(3,\\), not \\(64,\\)"),
        (lambda t: t["head.head.bias"].fill_(float("nan")), "damaged.*not finite.*head.head.bias"),
    ],
)
def test_what_does_not_fit_is_said_in_words(damage, words, tensors, tmp_path):
    damage(tensors)
    with pytest.raises(KnotForcingError, match=words):
        load_generator(save(tensors, tmp_path / "damaged.safetensors"))


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    path = save({"conv.weight": torch.zeros(3, 3)}, tmp_path / "upscaler.safetensors", card=None)
    with pytest.raises(KnotForcingError, match="upscaler.safetensors is not a generator this version knows"):
        load_generator(path)
    with pytest.raises(KnotForcingError, match="upscaler.safetensors is not a Wan VAE"):
        load_vae(path)


def test_a_vae_tells_its_own_size(tmp_path):
    torch.manual_seed(0)
    vae = WanVAE(4)
    loaded = load_vae(save(vae.state_dict(), tmp_path / "vae.safetensors", card=None), dtype=torch.float32)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in vae.state_dict().items())


def test_names_lose_wrappers_and_prefixes_and_nothing_else():
    assert wan_name("model._fsdp_wrapped_module.blocks.0.self_attn.q.weight") == "blocks.0.self_attn.q.weight"
    assert wan_name("blocks.0.ffn.0.weight") == "blocks.0.ffn.0.weight"


@pytest.mark.parametrize("name, per_row", [("scale_weight", False), ("weight_scale", False), ("scale_weight", True)])
def test_fp8_weights_are_made_whole(name, per_row, wan, tmp_path):
    loaded = load_generator(containers.fp8(wan, tmp_path, name, per_row), known_as="self-forcing", dtype=torch.float32)
    for key, tensor in loaded.modules.state_dict().items():
        assert (tensor - wan[key]).abs().max() <= wan[key].abs().max() / 14, key  # e4m3 keeps 3 bits
    assert torch.equal(loaded.modules.state_dict()["head.head.weight"], wan["head.head.weight"])


@pytest.mark.parametrize("container", containers.WHOLE)
def test_every_container_gives_the_same_weights(container, wan, tmp_path):
    known_as = containers.KNOWN_AS.get(container, "self-forcing")
    path = containers.WHOLE[container](wan, tmp_path, **({"alpha": containers.RANK} if container == "with_lora_inside" else {}))
    loaded = load_generator(path, known_as=known_as, accept_licence=True, dtype=torch.float32).modules.state_dict()
    assert loaded.keys() == wan.keys()
    assert all(torch.allclose(loaded[name], tensor, atol=1e-6) for name, tensor in wan.items())


def test_any_of_several_files_stands_for_all(wan, tmp_path):
    any_of_them = containers.sharded(wan, tmp_path)
    for path in (any_of_them, tmp_path / "diffusion_pytorch_model.safetensors.index.json", tmp_path):
        assert len(load_generator(path, known_as="self-forcing").modules.state_dict()) == len(wan)
    any_of_them.unlink()
    with pytest.raises(KnotForcingError, match="one of 3 files of a model, and diffusion_pytorch_model-00002-of-00003.safetensors is not"):
        load_generator(tmp_path / "diffusion_pytorch_model-00001-of-00003.safetensors")


def test_an_index_names_files_beside_it_and_nowhere_else(tmp_path):
    (tmp_path / "a.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(KnotForcingError, match="outside its folder"):
        load_generator(tmp_path / "a.safetensors.index.json")


def test_a_lora_must_fit_the_model_it_corrects(wan, tmp_path):
    base, lora = containers.with_lora_beside(wan, tmp_path)
    with pytest.raises(KnotForcingError, match="longlive_base.pt is no LoRA for this model"):
        load_generator(base, known_as="longlive", lora=base)
    (tmp_path / "other").mkdir()
    other = containers.with_lora_beside({**wan, "blocks.0.ffn.2.weight": torch.zeros(128, 97)}, tmp_path / "other")[1]
    with pytest.raises(KnotForcingError, match="the LoRA of blocks.0.ffn.2.weight does not fit it"):
        load_generator(base, known_as="longlive", lora=other)
    assert "its authors with a second file, models/lora.pt" in identify(base, known_as="longlive").remarks[-1]
    assert not identify(base, lora=lora, known_as="longlive").remarks


def test_what_is_known_of_a_models_own_corrections_does_not_scale_another_lora(wan, tmp_path, monkeypatch):
    monkeypatch.setattr(recognise, "KNOWN", tuple(replace(row, lora_alpha=64) for row in KNOWN))
    base, lora = containers.with_lora_beside(wan, tmp_path)
    opened = identify(base, lora=lora, known_as="longlive")
    assert opened.recognised.row.lora_alpha == 64
    assert all(torch.allclose(whole(opened, name, torch.float32), wan[name], atol=1e-6) for name in opened.lora.parts)


def test_a_host_is_handed_what_lies_in_the_file_and_no_half_corrections(wan, tmp_path):
    path = containers.fp8(wan, tmp_path)
    stored = as_stored(identify(path, known_as="self-forcing"))
    assert stored["blocks.0.ffn.0.weight"].dtype == torch.float8_e4m3fn and "blocks.0.ffn.0.scale_weight" in stored
    opened = identify(containers.with_lora_inside(wan, tmp_path, containers.RANK), known_as="self-forcing")
    assert as_stored(opened).keys() == wan.keys()
    torch.save({"generator": {**wan, "blocks.0.ffn.0.lora_A.weight": torch.zeros(4, 128)}}, tmp_path / "half.pt")
    with pytest.raises(KnotForcingError, match="left over .blocks.0.ffn.0.weight"):
        as_stored(identify(tmp_path / "half.pt", known_as="self-forcing"))


def test_a_restricted_model_waits_until_its_licence_was_read(wan, tmp_path):
    path = containers.causal_forcing(wan, tmp_path)
    with pytest.raises(KnotForcingError, match="CausVid is licensed under CC BY-NC-SA 4.0.*accept_licence.*--accept-licence"):
        load_generator(path, known_as="causvid")
    assert load_generator(path, known_as="causvid", accept_licence=True).card.name == "CausVid 1.3B"


def test_what_a_file_is_can_be_said_but_not_against_its_channels(wan, tmp_path):
    path = containers.flat(wan, tmp_path)
    with pytest.raises(KnotForcingError, match="model.safetensors is not a generator this version knows"):  # its sizes are nobody's
        load_generator(path)
    with pytest.raises(KnotForcingError, match="is not LiveTalk 1.3B: it has 16 input channels and does not listen"):
        load_generator(path, known_as="livetalk", accept_licence=True)
    with pytest.raises(KnotForcingError, match="'gpt' is no model this version knows. It knows self-forcing, "):
        load_generator(path, known_as="gpt")


def test_two_tensors_of_one_name_are_refused(wan, tmp_path):
    path = save({**wan, **{f"model.{name}": tensor.clone() for name, tensor in wan.items()}}, tmp_path / "twice.safetensors", card=None)
    with pytest.raises(KnotForcingError, match="left over .model."):
        load_generator(path, known_as="self-forcing")


@pytest.mark.parametrize(
    "field, value", [("layers", 10**9), ("heads", 5), ("dim", "256"), ("fps", float("nan")), ("rollout", {"chunk": 3}), ("surprise", 1)]
)
def test_a_card_of_nonsense_is_refused_in_words(field, value, tensors, tmp_path):
    card = {**json.loads(CARD.to_json()), field: value}
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, metadata={CARD_KEY: json.dumps(card)})
    with pytest.raises(KnotForcingError, match="The model's card cannot be read"):
        load_generator(path)


def test_every_known_card_survives_a_header():
    for row in KNOWN:
        assert ModelCard.from_json(row.card().to_json()) == row.card()


def test_under_knot_forcing_every_known_model_has_a_knot_and_a_portrait_ahead():
    for row in KNOWN:
        card, settings = row.card(), row.card().under_knot_forcing()
        assert settings.knot == ("pin" if card.image_channels == "portrait" else "blend") and settings.anchor == Ahead()
        assert settings.window >= 6 and settings.schedule == card.rollout.schedule and settings.chunk == card.rollout.chunk
