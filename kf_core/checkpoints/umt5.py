"""A folder or a file becomes the UMT5 encoder that was saved, and its tokenizer. Never downloads.

Three layouts: a folder as Hugging Face lays it out, ComfyUI's single file (which carries its tokenizer as `spiece_model`), and Wan's own
`models_t5_umt5-xxl-enc-bf16.pth` with its tokenizer in `google/umt5-xxl` beside it. The network is transformers' `UMT5EncoderModel`.
Source: Wan 2.1, wan/modules/t5.py (names); ComfyUI, comfy/text_encoders/wan.py (`spiece_model`, `scale_weight`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..content_id import fingerprint
from ..errors import KnotForcingError
from .key_maps import MARKER
from .lazy_tensors import StoredTensors, read_beside

if TYPE_CHECKING:
    from transformers import UMT5EncoderModel

TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
TOKENIZER_FOLDERS = (".", "tokenizer", "../tokenizer", "google/umt5-xxl")  # where they may lie, seen from the weights
GET = "Download Wan-AI/Wan2.1-T2V-1.3B-Diffusers (folders text_encoder and tokenizer), or ComfyUI's umt5_xxl_fp16.safetensors."
FIRST = "encoder.block.0.layer.0.SelfAttention"
TABLE, SPIECE = "encoder.embed_tokens.weight", "spiece_model"
SCALES = (".scale_weight", ".scale_input")

Tokenize = Callable[[str], list[int]]


@dataclass(frozen=True, eq=False)
class NamedTokenizer:
    """A tokenizer that says which one it is."""

    tokenize: Tokenize
    content_id: str

    def __call__(self, text: str) -> list[int]:
        return self.tokenize(text)


def read_umt5(
    path: Path | str, *, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu"
) -> tuple[UMT5EncoderModel, NamedTokenizer]:
    """The text encoder in a folder or a file, and its tokenizer. Raises KnotForcingError when either cannot be had."""
    path = Path(path)
    if not path.exists():
        raise KnotForcingError(f"The text encoder {path} does not exist. {GET}")
    _refuse_without("transformers")
    path = path / "text_encoder" if (path / "text_encoder" / "config.json").is_file() else path
    model, spiece = _from_folder(path, dtype) if path.is_dir() else _from_file(path, dtype)
    tokenize = _tokenizer_beside(path) if spiece is None else NamedTokenizer(_sentencepiece(model_proto=spiece), fingerprint(spiece))
    return model.eval().requires_grad_(False).to(device), tokenize


def precision_word(version: str, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """How `from_pretrained` of this version of transformers is told a precision: `dtype` since 4.56, before it `torch_dtype`."""
    major, minor = (int(number) for number in version.split(".")[:2])
    return {"dtype" if (major, minor) >= (4, 56) else "torch_dtype": dtype}


def _from_folder(path: Path, dtype: torch.dtype) -> tuple[UMT5EncoderModel, None]:
    import transformers
    from transformers import UMT5EncoderModel

    if not (path / "config.json").is_file():
        raise KnotForcingError(f"There is no UMT5 text encoder in {path}: no config.json was found. {GET}")
    try:
        return UMT5EncoderModel.from_pretrained(path, local_files_only=True, **precision_word(transformers.__version__, dtype)), None
    except (OSError, ValueError, RuntimeError) as problem:
        raise KnotForcingError(f"The text encoder in {path} cannot be read ({str(problem).splitlines()[0][:120]}). {GET}") from problem


def _from_file(path: Path, dtype: torch.dtype) -> tuple[UMT5EncoderModel, bytes | None]:
    from transformers import UMT5EncoderModel

    stored = read_beside(path)
    if "token_embedding.weight" in stored:
        stored = stored.renamed(_huggingface_name)
    if "shared.weight" not in stored:  # the same table under another name
        stored = stored.renamed(lambda name: "shared.weight" if name == TABLE else name)
    lacking = [name for name in ("shared.weight", f"{FIRST}.relative_attention_bias.weight") if name not in stored]
    if lacking:
        raise KnotForcingError(f"{path.name} is no UMT5 text encoder: it has no `{lacking[0]}`. {GET}")
    weights = stored.where(lambda name: name != SPIECE and name != TABLE and name != MARKER and not name.endswith(SCALES))
    with torch.device("meta"):
        model = UMT5EncoderModel(_config(weights.shapes))
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name != TABLE}
    missing, surplus = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    misshapen = [name for name in wanted.keys() & weights.keys() if wanted[name] != weights.shapes[name]]
    if missing or surplus or misshapen:
        raise KnotForcingError(
            f"{path.name} does not fit UMT5: missing {missing[:3] or 'nothing'}, left over {surplus[:3] or 'nothing'}, "
            f"of another size {misshapen[:3] or 'nothing'}. {GET}"
        )
    made = {name: _unscaled(name, stored, dtype) for name in wanted}
    model.load_state_dict({**made, TABLE: made["shared.weight"]}, strict=True, assign=True)
    return model, stored[SPIECE].numpy().tobytes() if SPIECE in stored else None


def _config(shapes: dict[str, tuple[int, ...]]):
    from transformers import UMT5Config

    vocabulary, width = shapes["shared.weight"]
    heads = shapes[f"{FIRST}.relative_attention_bias.weight"][1]
    return UMT5Config(
        vocab_size=vocabulary,
        d_model=width,
        num_heads=heads,
        d_kv=shapes[f"{FIRST}.q.weight"][0] // heads,
        d_ff=shapes["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"][0],
        num_layers=1 + max(int(name.split(".")[2]) for name in shapes if name.startswith("encoder.block.")),
        relative_attention_num_buckets=shapes[f"{FIRST}.relative_attention_bias.weight"][0],
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


def _unscaled(name: str, stored: StoredTensors, dtype: torch.dtype) -> Tensor:
    """A weight in the precision asked for; of an fp8 weight with a scale beside it, the product."""
    scale = name.removesuffix(".weight") + SCALES[0]
    return (stored[name].float() * stored[scale].float() if scale in stored else stored[name]).to(dtype)


def _tokenizer_beside(path: Path) -> NamedTokenizer:
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
        return NamedTokenizer(_sentencepiece(model_file=str(found)), fingerprint(found))
    from tokenizers import Tokenizer  # comes with transformers

    try:
        tokenizer = Tokenizer.from_file(str(found))
    except Exception as problem:  # the library raises plain Exception for whatever it cannot read
        raise KnotForcingError(f"The tokenizer {found} cannot be read ({str(problem)[:100]}). Download it again.") from problem
    return NamedTokenizer(lambda text: tokenizer.encode(text).ids, fingerprint(found))


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
