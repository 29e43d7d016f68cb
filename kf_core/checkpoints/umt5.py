"""A folder or a file becomes the UMT5 encoder that was saved, and its tokenizer. Never downloads.

Three layouts: a folder as Hugging Face lays it out, ComfyUI's single file (which carries its tokenizer as `spiece_model`), and Wan's own
`models_t5_umt5-xxl-enc-bf16.pth` with its tokenizer in `google/umt5-xxl` beside it. The network is transformers' `UMT5EncoderModel`.
Source: Wan 2.1, wan/modules/t5.py (names); ComfyUI, comfy/text_encoders/wan.py (`spiece_model`, `scale_weight`).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import KnotForcingError
from .key_maps import unpacked
from .tensors import read_tensors

if TYPE_CHECKING:
    from transformers import UMT5EncoderModel

TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
TOKENIZER_FOLDERS = (".", "tokenizer", "../tokenizer", "google/umt5-xxl")  # where they may lie, seen from the weights
GET = "Download Wan-AI/Wan2.1-T2V-1.3B-Diffusers (folders text_encoder and tokenizer), or ComfyUI's umt5_xxl_fp16.safetensors."
FIRST = "encoder.block.0.layer.0.SelfAttention"

Tokenize = Callable[[str], list[int]]


def read_umt5(
    path: Path | str, *, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu"
) -> tuple[UMT5EncoderModel, Tokenize]:
    """The text encoder in a folder or a file, and its tokenizer. Raises KnotForcingError when either cannot be had."""
    path = Path(path)
    if not path.exists():
        raise KnotForcingError(f"The text encoder {path} does not exist. {GET}")
    _refuse_without("transformers")
    path = path / "text_encoder" if (path / "text_encoder" / "config.json").is_file() else path
    model, spiece = _from_folder(path, dtype) if path.is_dir() else _from_file(path, dtype)
    tokenize = _tokenizer_beside(path) if spiece is None else _sentencepiece(model_proto=spiece)
    return model.eval().requires_grad_(False).to(device), tokenize


def _from_folder(path: Path, dtype: torch.dtype) -> tuple[UMT5EncoderModel, None]:
    from transformers import UMT5EncoderModel

    if not (path / "config.json").is_file():
        raise KnotForcingError(f"There is no UMT5 text encoder in {path}: no config.json was found. {GET}")
    try:
        return UMT5EncoderModel.from_pretrained(path, local_files_only=True, dtype=dtype), None
    except (OSError, ValueError, RuntimeError) as problem:
        raise KnotForcingError(f"The text encoder in {path} cannot be read ({str(problem).splitlines()[0][:120]}). {GET}") from problem


def _from_file(path: Path, dtype: torch.dtype) -> tuple[UMT5EncoderModel, bytes | None]:
    from transformers import UMT5EncoderModel

    tensors = {name: tensor for name, tensor in unpacked(read_tensors(path)[0]).items() if isinstance(tensor, Tensor)}
    spiece = tensors.pop("spiece_model", None)
    if "token_embedding.weight" in tensors:
        tensors = {_huggingface_name(name): tensor for name, tensor in tensors.items()}
    table = tensors.pop("encoder.embed_tokens.weight", None)  # the same table under another name
    if "shared.weight" not in tensors and table is not None:
        tensors["shared.weight"] = table
    lacking = [name for name in ("shared.weight", f"{FIRST}.relative_attention_bias.weight") if name not in tensors]
    if lacking:
        raise KnotForcingError(f"{path.name} is no UMT5 text encoder: it has no `{lacking[0]}`. {GET}")
    tensors = _unscaled(tensors, dtype)
    with torch.device("meta"):
        model = UMT5EncoderModel(_config(tensors))
    named = {**tensors, "encoder.embed_tokens.weight": tensors["shared.weight"]}
    wanted = model.state_dict().keys()
    missing, surplus = sorted(wanted - named.keys()), sorted(tensors.keys() - wanted)
    if missing or surplus:
        raise KnotForcingError(
            f"{path.name} does not fit UMT5: missing {missing[:3] or 'nothing'}, left over {surplus[:3] or 'nothing'}. {GET}"
        )
    model.load_state_dict({name: named[name] for name in wanted}, strict=True, assign=True)
    return model, None if spiece is None else spiece.numpy().tobytes()


def _config(tensors: dict[str, Tensor]):
    from transformers import UMT5Config

    vocabulary, width = tensors["shared.weight"].shape
    heads = tensors[f"{FIRST}.relative_attention_bias.weight"].shape[1]
    return UMT5Config(
        vocab_size=vocabulary,
        d_model=width,
        num_heads=heads,
        d_kv=tensors[f"{FIRST}.q.weight"].shape[0] // heads,
        d_ff=tensors["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"].shape[0],
        num_layers=1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.block.")),
        relative_attention_num_buckets=tensors[f"{FIRST}.relative_attention_bias.weight"].shape[0],
    )


WANS_NAMES = {  # Wan's own names of a layer's parts -> Hugging Face's
    "norm1": "layer.0.layer_norm",
    "attn.q": "layer.0.SelfAttention.q",
    "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v",
    "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}


def _huggingface_name(name: str) -> str:
    outer = {"token_embedding.weight": "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
    if name in outer or not name.startswith("blocks."):
        return outer.get(name, name)
    _, layer, rest = name.split(".", 2)
    part = rest.removesuffix(".weight")
    return f"encoder.block.{layer}.{WANS_NAMES.get(part, part)}.weight"


def _unscaled(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Numbers in the precision asked for; of fp8 weights with a scale beside them, the product."""
    scales = {name.removesuffix(".scale_weight"): tensor for name, tensor in tensors.items() if name.endswith(".scale_weight")}
    kept = {
        name: tensor for name, tensor in tensors.items() if not name.endswith((".scale_weight", ".scale_input")) and name != "scaled_fp8"
    }
    unscale = lambda name, tensor: tensor.float() * scales[name].float() if name in scales else tensor
    return {name: unscale(name.removesuffix(".weight"), tensor).to(dtype) for name, tensor in kept.items()}


def _tokenizer_beside(path: Path) -> Tokenize:
    """The tokenizer that lies with the weights, in one of the places where publishers put it."""
    home = path if path.is_dir() else path.parent
    found = next(
        (home / folder / name for folder in TOKENIZER_FOLDERS for name in TOKENIZER_FILES if (home / folder / name).is_file()), None
    )
    if found is None:
        raise KnotForcingError(
            f"The text encoder {path} has no tokenizer: neither {' nor '.join(TOKENIZER_FILES)} was found in {home} or beside it. {GET}"
        )
    if found.name == "spiece.model":
        return _sentencepiece(model_file=str(found))
    from tokenizers import Tokenizer  # comes with transformers

    try:
        tokenizer = Tokenizer.from_file(str(found))
    except Exception as problem:  # the library raises plain Exception for whatever it cannot read
        raise KnotForcingError(f"The tokenizer {found} cannot be read ({str(problem)[:100]}). Download it again.") from problem
    return lambda text: tokenizer.encode(text).ids


def _sentencepiece(**source) -> Tokenize:
    _refuse_without("sentencepiece")
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(add_eos=True, **source)
    except (RuntimeError, OSError) as problem:
        raise KnotForcingError(f"The text encoder's tokenizer cannot be read ({str(problem)[:100]}). {GET}") from problem
    return processor.encode


def _refuse_without(package: str) -> None:
    if find_spec(package) is None:
        raise KnotForcingError(
            f"This model reads through UMT5, which needs the package `{package}`, and it is not installed. "
            f"Run `pip install {package}` in this Python and start again."
        )
