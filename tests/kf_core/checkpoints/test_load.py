"""A file becomes the generator that was saved, or a sentence says why not."""

import pytest
import torch
from safetensors.torch import save_file

from kf_core.checkpoints.key_maps import wan_name
from kf_core.checkpoints.known import livetalk, recognise, self_forcing
from kf_core.checkpoints.load import load_generator
from kf_core.checkpoints.vaes import load_vae
from kf_core.errors import KnotForcingError
from kf_core.model.card import CARD_KEY
from kf_core.vae.wan import WanVAE

from ..model.test_causal import segment
from ..tiny import CARD, generator


@pytest.fixture
def tensors():
    model = generator(dtype=torch.float32)
    return {**model.modules.state_dict(), **model.adapters.state_dict()}


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
    (flow,) = loaded.forward([segment(0, 2)], loaded.read_text(None))
    (exact,) = generator().forward([segment(0, 2)], generator().read_text(None))
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


def test_known_checkpoints_are_told_apart_by_their_shapes():
    plain = {"patch_embedding.weight": (1536, 16, 1, 2, 2)}
    heard = {"patch_embedding.weight": (1536, 33, 1, 2, 2), "audio_proj.proj.weight": (32, 43008)}
    assert recognise(plain) == self_forcing() and recognise(heard) == livetalk() and recognise({"a": (1,)}) is None


def test_names_lose_wrappers_and_prefixes_and_nothing_else():
    assert wan_name("model._fsdp_wrapped_module.blocks.0.self_attn.q.weight") == "blocks.0.self_attn.q.weight"
    assert wan_name("blocks.0.ffn.0.weight") == "blocks.0.ffn.0.weight"
