"""Tensors out of files by PyTorch: read at their place or mapped where they lie, and never with code that a file brings along.

Knows nothing of names, shards or networks. Source: PyTorch's `weights_only` unpickler.
"""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import KnotForcingError
from .header import MOST_RANK, MOST_SHARED, TensorFacts, named

DTYPE_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
DTYPE_NAMES |= {torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}
DTYPE_NAMES |= {torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}


def read_at(path: Path, offset: int, facts: TensorFacts) -> Tensor:
    """The tensor of these facts that begins at `offset`, in memory of its own. Raises KnotForcingError."""
    tensor = torch.empty(facts.shape, dtype=_dtype(path, facts.dtype))
    if tensor.numel():
        with path.open("rb") as file:
            file.seek(offset)
            if file.readinto(tensor.reshape(-1).view(torch.uint8).numpy()) != tensor.numel() * tensor.element_size():
                raise KnotForcingError(f"{path.name} grew shorter while it was read. Download it again.")
    return tensor


def map_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, mapped into memory: none is read before it is looked at. Raises KnotForcingError."""
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  no dict
    except (SafetensorError, OSError) as problem:
        raise KnotForcingError(f"{path.name} cannot be read ({problem}). It may be damaged; download it again.") from problem


def facts_of(tensor: Tensor) -> TensorFacts:
    return TensorFacts(DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))


def pytorch_tensors(path: Path) -> list[tuple[str, str, Tensor]]:
    """All tensors of a PyTorch file, mapped where its age allows it: the dict each is in (names joined by points), its name, itself.

    Raises KnotForcingError for a file that wants to run code, and for what else it may be."""
    try:
        _refuse_bomb(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old or odd pickles; what matters of them is said below
            found = named(_mapped_or_read(path), Tensor)
        if any(not name for _, name, _ in found):
            raise ValueError("a tensor has no name")
        _refuse_more_than_there_is(path, [tensor for _, _, tensor in found])
    except pickle.UnpicklingError as problem:
        if "GLOBAL" not in str(problem) and "global" not in str(problem) and "REDUCE" not in str(problem):
            raise _damaged(path, problem) from problem
        raise KnotForcingError(
            f"{path.name} holds program code and not only weights, so it was refused and none of it was run. "
            f"Ask for the model as .safetensors, or convert it where you trust it."
        ) from problem
    except Exception as problem:  # whatever a damaged pickle or archive makes its reader do
        raise _damaged(path, problem) from problem
    if not found:
        raise KnotForcingError(f"{path.name} holds no named tensors. A checkpoint as .safetensors, .pt or .pth is needed.")
    return found


def _refuse_bomb(path: Path) -> None:
    """PyTorch never compresses: an archive that does, or that claims more than the file has, is not opened. Raises ValueError."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    with zipfile.ZipFile(path) as archive:
        inside = archive.infolist()
    if any(info.compress_type != zipfile.ZIP_STORED for info in inside) or sum(info.file_size for info in inside) > path.stat().st_size:
        raise ValueError("it is compressed, or claims more than it holds")


def _refuse_more_than_there_is(path: Path, tensors: list[Tensor]) -> None:
    """A view can claim any size of a few bytes, and many views the same bytes. Raises ValueError."""
    claimed = 0
    for tensor in tensors:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu" or tensor.dim() > MOST_RANK:
            raise ValueError(f"a tensor of {tensor.layout} on {tensor.device} holds no plain weights")
        size = tensor.numel() * tensor.element_size()
        if size > tensor.untyped_storage().nbytes():
            raise ValueError("a tensor claims more than it holds")
        claimed += size
    if claimed > MOST_SHARED * path.stat().st_size:
        raise ValueError("its tensors claim more than it holds")


def _mapped_or_read(path: Path) -> Any:
    if path.suffix != ".safetensors":  # PyTorch would go by the name
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as problem:
            if "mmap" not in str(problem):  # files older than PyTorch 1.6 cannot be mapped
                raise
    with path.open("rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)


def _damaged(path: Path, problem: Exception) -> KnotForcingError:
    reason = (str(problem).splitlines() or [type(problem).__name__])[0][:120]
    return KnotForcingError(f"{path.name} is damaged or cut off, or no PyTorch file ({reason}). Download it again.")


def _dtype(path: Path, name: str) -> torch.dtype:
    found = next((dtype for dtype, known in DTYPE_NAMES.items() if known == name), None)
    if found is None:
        raise KnotForcingError(f"{path.name} holds tensors of type {name}, which this version cannot read. Use one in bf16, fp16 or fp8.")
    return found
