"""Reading a file of weights safely: safetensors by its header, `.pt` and `.pth` without ever running what is in them.

Every size that a file claims is checked against the file before a byte is taken on trust. Knows nothing of networks or names.
Source: safetensors' format description; PyTorch's `weights_only` unpickler.
"""

import json
import math
import pickle
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import KnotForcingError
from ..fingerprint import fingerprint

LONGEST_HEADER = 100_000_000  # bytes, safetensors' own limit
BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
ONE_BYTE = {"F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"}
OTHER_KINDS = {
    b"GGUF": "a GGUF file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"<!DO": "a web page",
    b"<htm": "a web page",
}
OTHER_KINDS |= {b"version https://git-lfs": "a Git LFS pointer, not the file itself"}


@dataclass(frozen=True)
class TensorFacts:
    dtype: str  # as safetensors writes it: F32, BF16, ...
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class FileFacts:
    """What a file of weights says about itself."""

    kind: str  # "safetensors" or "PyTorch"
    num_bytes: int
    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorFacts]  # in a PyTorch file, names inside a dict are joined by a point
    fingerprint: str  # of the content, by samples: two files with the same one are the same

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: facts.shape for name, facts in self.tensors.items()}

    @property
    def values(self) -> int:
        return sum(facts.values for facts in self.tensors.values())


def read_header(path: Path | str) -> FileFacts:
    """What is in a file of weights, without reading the weights of a safetensors file. Raises KnotForcingError."""
    path = Path(path)
    if _is_pytorch(path):
        found = {}
        for name, tensor in _flat(_load_pytorch(path)):
            found[name] = TensorFacts(_DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))
        return FileFacts("PyTorch", path.stat().st_size, {}, found, fingerprint(path))
    metadata, tensors = _safetensors_header(path)
    return FileFacts("safetensors", path.stat().st_size, metadata, tensors, fingerprint(path))


def read_tensors(path: Path | str) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """The tensors of a file, and its metadata. A PyTorch file is given as it is, dicts inside dicts. Raises KnotForcingError."""
    path = Path(path)
    if _is_pytorch(path):
        return _load_pytorch(path), {}
    metadata, _ = _safetensors_header(path)
    try:
        return load_file(path), metadata
    except (SafetensorError, OSError) as problem:
        raise KnotForcingError(f"{path.name} cannot be read ({problem}). It may be damaged; download it again.") from problem


def _is_pytorch(path: Path) -> bool:
    """By its first bytes, not by its name: a zip archive, or a pickle, or an old tar."""
    if path.is_dir():
        raise KnotForcingError(f"{path} is a folder. Give the file of weights in it.")
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except FileNotFoundError as problem:
        raise KnotForcingError(f"The checkpoint {path} does not exist. Check its name and folder.") from problem
    except OSError as problem:
        raise KnotForcingError(f"The checkpoint {path} cannot be opened ({problem.strerror}).") from problem
    if not head:
        raise KnotForcingError(f"The checkpoint {path.name} is empty. Download it again.")
    for mark, kind in OTHER_KINDS.items():
        if head.startswith(mark):
            raise KnotForcingError(f"{path.name} is {kind}. A checkpoint as .safetensors, .pt or .pth is needed.")
    return head.startswith((b"PK\x03\x04", b"\x80"))


def _safetensors_header(path: Path) -> tuple[dict[str, str], dict[str, TensorFacts]]:
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        claimed = struct.unpack("<Q", head)[0] if len(head) == 8 else length
        if claimed > min(length - 8, LONGEST_HEADER):
            raise KnotForcingError(
                f"{path.name} is not a safetensors file, or only the beginning of one: its header claims {claimed:,} bytes "
                f"and the file has {length:,}. Download it again, or give a .safetensors, .pt or .pth file."
            )
        try:
            header = json.loads(file.read(claimed))
            metadata = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
            tensors, stop = {}, 0
            for name, entry in header.items():
                facts = TensorFacts(str(entry["dtype"]), tuple(int(size) for size in entry["shape"]))
                begin, end = (int(offset) for offset in entry["data_offsets"])
                size = BYTES.get(facts.dtype, 1 if facts.dtype in ONE_BYTE else None)
                if min((begin, *facts.shape)) < 0 or end < begin or (size is not None and end - begin != size * facts.values):
                    raise ValueError(f"{name} does not fill its place")
                tensors[name], stop = facts, max(stop, end)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            raise KnotForcingError(
                f"{path.name} is not a safetensors file: its header makes no sense ({str(problem)[:100]}). "
                f"Give a .safetensors, .pt or .pth file."
            ) from problem
    if 8 + claimed + stop > length:
        raise KnotForcingError(
            f"{path.name} is cut off: {8 + claimed + stop:,} bytes are needed and the file has {length:,}. Download it again."
        )
    return metadata, tensors


def _load_pytorch(path: Path) -> Mapping[str, Any]:
    try:
        data = _mapped_or_read(path)
    except pickle.UnpicklingError as problem:
        if "GLOBAL" not in str(problem) and "global" not in str(problem) and "REDUCE" not in str(problem):
            raise _damaged(path, problem) from problem
        raise KnotForcingError(
            f"{path.name} holds program code and not only weights, so it was refused and none of it was run. "
            f"Ask for the model as .safetensors, or convert it where you trust it."
        ) from problem
    except Exception as problem:  # whatever a damaged pickle or archive makes its reader do
        raise _damaged(path, problem) from problem
    if not isinstance(data, Mapping) or not any(True for _ in _flat(data)):
        raise KnotForcingError(f"{path.name} holds no named tensors. A checkpoint as .safetensors, .pt or .pth is needed.")
    return data


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


def _flat(data: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(data, Tensor):
        yield prefix, data
    elif isinstance(data, Mapping):
        for name, value in data.items():
            yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))


_DTYPE_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
_DTYPE_NAMES |= {torch.int32: "I32", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}
