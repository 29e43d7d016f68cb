"""The same weights in the files of each family: its dicts, its prefixes, its wrappers, its LoRA left apart."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

Weights = dict[str, Tensor]
RANK = 4


def _other(weights: Weights) -> Weights:
    """What lies beside the right weights and must not be taken."""
    return {name: tensor + 1 for name, tensor in weights.items()}


def _under(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def flat(weights: Weights, folder: Path) -> Path:
    save_file(weights, folder / "model.safetensors")
    return folder / "model.safetensors"


def comfyui(weights: Weights, folder: Path) -> Path:
    save_file(_under("model.diffusion_model.", weights), folder / "model.safetensors")
    return folder / "model.safetensors"


def self_forcing(weights: Weights, folder: Path) -> Path:
    """The running mean is used."""
    data = {"generator": _under("model.", _other(weights)), "generator_ema": _under("model.", weights), "critic": _under("model.", weights)}
    torch.save(data, folder / "model.pt")
    return folder / "model.pt"


def causal_forcing(weights: Weights, folder: Path) -> Path:
    """The chunkwise one: `generator`, even where a running mean lies beside it."""
    data = {"generator": _under("model.", weights), "generator_ema": _under("model.", _other(weights))}
    torch.save(data, folder / "model.pt")
    return folder / "model.pt"


def framewise(weights: Weights, folder: Path) -> Path:
    data = {"generator": _under("model.", _other(weights)), "generator_ema": _under("model._fsdp_wrapped_module.", weights), "step": 1000}
    torch.save(data, folder / "model.pt")
    return folder / "model.pt"


def rolling_forcing(weights: Weights, folder: Path) -> Path:
    """Wrapped block by block."""
    wrapped = {name.replace(".self_attn", "._fsdp_wrapped_module.self_attn"): t for name, t in weights.items()}
    torch.save({"generator_ema": _under("model._fsdp_wrapped_module.", wrapped)}, folder / "model.pt")
    return folder / "model.pt"


def compiled(weights: Weights, folder: Path) -> Path:
    torch.save(
        _under("_orig_mod.", {n.replace("blocks.0.", "blocks.0._checkpoint_wrapped_module."): t for n, t in weights.items()}),
        folder / "a.pth",
    )
    return folder / "a.pth"


def sharded(weights: Weights, folder: Path) -> Path:
    names, index = sorted(weights), {}
    for part in range(3):
        file = f"diffusion_pytorch_model-{part + 1:05}-of-00003.safetensors"
        save_file({name: weights[name].contiguous() for name in names[part::3]}, folder / file)
        index |= dict.fromkeys(names[part::3], file)
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder / "diffusion_pytorch_model-00002-of-00003.safetensors"


def with_lora_inside(weights: Weights, folder: Path, alpha: float = 64) -> Path:
    """AvatarForcing: PEFT's layers as they stood in training; alpha is nowhere in the file."""
    base, lora = _apart(weights, alpha / RANK)
    saved = {f"model.{_based(name) if name.removesuffix('.weight') in lora else name}": tensor for name, tensor in base.items()}
    for module, (down, up) in lora.items():
        saved[f"model.{module}.lora_A.default.weight"], saved[f"model.{module}.lora_B.default.weight"] = down, up
        if f"model.{module}.bias" in saved:
            saved[f"model.{module}.base_layer.bias"] = saved.pop(f"model.{module}.bias")
    torch.save({"generator": saved}, folder / "model.pt")
    return folder / "model.pt"


def with_lora_beside(weights: Weights, folder: Path) -> tuple[Path, Path]:
    """LongLive: the base in one file, PEFT's corrections in another."""
    base, lora = _apart(weights, 1)
    torch.save({"generator": _under("model.", base)}, folder / "longlive_base.pt")
    saved = {}
    for module, (down, up) in lora.items():
        saved[f"base_model.model.{module}.lora_A.weight"], saved[f"base_model.model.{module}.lora_B.weight"] = down, up
    torch.save({"generator_lora": saved, "critic_lora": _other(saved)}, folder / "lora.pt")
    return folder / "longlive_base.pt", folder / "lora.pt"


def _based(name: str) -> str:
    return name.removesuffix("weight") + "base_layer.weight"


def _apart(weights: Weights, scale: float) -> tuple[Weights, dict[str, tuple[Tensor, Tensor]]]:
    """Weights that become these when the corrections are folded in."""
    base, lora, draw = dict(weights), {}, torch.Generator().manual_seed(3)
    for name, tensor in weights.items():
        if name.startswith("blocks.") and name.endswith(
            (".q.weight", ".k.weight", ".v.weight", ".o.weight", "ffn.0.weight", "ffn.2.weight")
        ):
            down, up = (torch.randn(shape, generator=draw) * 0.02 for shape in ((RANK, tensor.shape[1]), (tensor.shape[0], RANK)))
            lora[name.removesuffix(".weight")] = (down, up)
            base[name] = tensor - scale * (up @ down)
    return base, lora


def fp8(weights: Weights, folder: Path, name: str = "scale_weight", per_row: bool = False) -> Path:
    """Scaled fp8 as ComfyUI saves it: matrices in e4m3 with a scale beside them, the rest as it was."""
    saved = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for key, tensor in weights.items():
        if key.endswith(".weight") and tensor.dim() == 2 and key.startswith("blocks."):
            largest = tensor.abs().amax(dim=1, keepdim=True) if per_row else tensor.abs().max()
            scale = largest / 448
            saved[key] = (tensor / scale).to(torch.float8_e4m3fn)
            saved[f"{key.removesuffix('.weight')}.{name}"] = scale.float()
            saved[f"{key.removesuffix('.weight')}.scale_input"] = torch.ones(())
        else:
            saved[key] = tensor
    save_file(_under("model.diffusion_model.", saved), folder / "fp8.safetensors")
    return folder / "fp8.safetensors"


WHOLE: dict[str, Callable[[Weights, Path], Path]] = {
    f.__name__: f for f in (flat, comfyui, self_forcing, causal_forcing, framewise, rolling_forcing, compiled, sharded, with_lora_inside)
}
KNOWN_AS = {"causal_forcing": "causal-forcing", "framewise": "causal-forcing-framewise", "rolling_forcing": "rolling-forcing"}
