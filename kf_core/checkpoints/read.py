"""Reading a file of weights safely: safetensors by its header, `.pt` and `.pth` without ever running what is in them.

Every size that a file claims is checked against the file before a byte is taken on trust. Several files that are one model (shards) are
read as one. Knows nothing of networks or names. Source: safetensors' format description; PyTorch's `weights_only` unpickler.
"""

import json
import math
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..errors import KnotForcingError
from ..fingerprint import fingerprint
from .shards import files_of

LONGEST_HEADER = 100_000_000  # bytes, safetensors' own limit
MOST_RANK = 16  # axes of a tensor
DEEPEST = 8  # dicts inside dicts
MOST_SHARED = 2  # times the file's size that tensors may claim together: some share their bytes
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

    entries: tuple[str, ...] = ()  # dicts inside a PyTorch file that hold tensors, by their names joined by points
    num_files: int = 1

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: facts.shape for name, facts in self.tensors.items()}

    @property
    def values(self) -> int:
        return sum(facts.values for facts in self.tensors.values())


class TensorFile:
    """The tensors of a file, or of all shards of one, read one at a time. Raises KnotForcingError for what is no such file.

    Made from the header alone; nothing stays open."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.files = files_of(self.path)
        self._places: dict[str, tuple[Path, int]] = {}  # file and offset of the tensors of safetensors
        self._loaded: dict[str, Tensor] = {}  # those of PyTorch files, mapped into memory and not read yet
        self._tensors: dict[str, TensorFacts] = {}
        self._entries: list[str] = []
        self.metadata: dict[str, str] = {}
        self.kind = "safetensors"
        for file in self.files:
            self._add_pytorch(file) if _is_pytorch(file) else self._add_safetensors(file)

    @cached_property
    def facts(self) -> FileFacts:
        """What the file says about itself."""
        size = sum(file.stat().st_size for file in self.files)
        name = fingerprint(self.files[0]) if len(self.files) == 1 else fingerprint(list(self.files))
        return FileFacts(self.kind, size, self.metadata, self._tensors, name, tuple(self._entries), len(self.files))

    @property
    def tensors(self) -> Mapping[str, TensorFacts]:
        return self._tensors

    @property
    def entries(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def read(self, name: str) -> Tensor:
        """A tensor, in memory of its own where it is from safetensors; one of a PyTorch file is mapped."""
        if name in self._loaded:
            return self._loaded[name]
        path, offset = self._places[name]
        facts = self._tensors[name]
        tensor = torch.empty(facts.shape, dtype=_dtype(path, facts.dtype))
        if tensor.numel():
            with path.open("rb") as file:
                file.seek(offset)
                if file.readinto(tensor.reshape(-1).view(torch.uint8).numpy()) != tensor.numel() * tensor.element_size():
                    raise KnotForcingError(f"{path.name} grew shorter while it was read. Download it again.")
        return tensor

    def is_mapped(self, name: str) -> bool:
        """Whether `read` gives a tensor that lies in the file, and not in memory of its own."""
        return name in self._loaded

    def mapped(self) -> dict[str, Tensor]:
        """All tensors, mapped into memory: none is read before it is looked at. For those who copy them themselves."""
        found = dict(self._loaded)
        for file in dict.fromkeys(path for path, _ in self._places.values()):
            try:
                with safe_open(file, framework="pt") as opened:
                    found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  no dict
            except (SafetensorError, OSError) as problem:
                raise KnotForcingError(f"{file.name} cannot be read ({problem}). It may be damaged; download it again.") from problem
        return found

    def _add_safetensors(self, file: Path) -> None:
        metadata, tensors, places = _safetensors_places(file)
        for name, facts in tensors.items():
            if name in self._tensors:
                raise KnotForcingError(f"{name} stands in two files of {self.path.name}. Download them again, from one place.")
            self._tensors[name], self._places[name] = facts, (file, places[name])
        self.metadata |= metadata

    def _add_pytorch(self, file: Path) -> None:
        self.kind = "PyTorch"
        for entry, name, tensor in _flat(_load_pytorch(file)):
            whole = f"{entry}.{name}" if entry else name
            if whole in self._tensors:
                raise KnotForcingError(f"{whole} stands in {self.path.name} twice. Download it again.")
            self._loaded[whole] = tensor
            self._tensors[whole] = TensorFacts(_DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))
            if entry and entry not in self._entries:
                self._entries.append(entry)


def read_header(path: Path | str) -> FileFacts:
    """What is in a file of weights, without reading the weights. Raises KnotForcingError."""
    return TensorFile(path).facts


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
    # One safetensors header in 32 has a length whose first byte is a pickle's too; but then comes a brace, and no pickle has it there.
    is_header = head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= LONGEST_HEADER
    return not is_header and head.startswith((b"PK\x03\x04", b"\x80"))


def _safetensors_header(path: Path) -> tuple[dict[str, str], dict[str, TensorFacts]]:
    metadata, tensors, _ = _safetensors_places(path)
    return metadata, tensors


def _safetensors_places(path: Path) -> tuple[dict[str, str], dict[str, TensorFacts], dict[str, int]]:
    """Metadata, tensors, and where in the file each begins."""
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
            tensors, places, stop, used = {}, {}, 0, 0
            for name, entry in header.items():
                facts = TensorFacts(str(entry["dtype"]), tuple(int(size) for size in entry["shape"]))
                begin, end = (int(offset) for offset in entry["data_offsets"])
                size = BYTES.get(facts.dtype, 1 if facts.dtype in ONE_BYTE else None)
                if min((begin, *facts.shape)) < 0 or end < begin or (size is not None and end - begin != size * facts.values):
                    raise ValueError(f"{name} does not fill its place")
                if not name:
                    raise ValueError("a tensor has no name")
                if len(facts.shape) > MOST_RANK:
                    raise ValueError(f"{name} has {len(facts.shape)} axes")
                tensors[name], places[name] = facts, 8 + claimed + begin
                stop, used = max(stop, end), used + end - begin
            if used > stop:
                raise ValueError("tensors lie on one another")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            raise KnotForcingError(
                f"{path.name} is not a safetensors file: its header makes no sense ({str(problem)[:100]}). "
                f"Give a .safetensors, .pt or .pth file."
            ) from problem
    if 8 + claimed + stop > length:
        raise KnotForcingError(
            f"{path.name} is cut off: {8 + claimed + stop:,} bytes are needed and the file has {length:,}. Download it again."
        )
    return metadata, tensors, places


def _load_pytorch(path: Path) -> Mapping[str, Any]:
    try:
        _refuse_bomb(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old or odd pickles; what matters of them is said below
            data = _mapped_or_read(path)
        found = list(_flat(data)) if isinstance(data, Mapping) else []
        if any(not name for _, name, _ in found):
            raise ValueError("a tensor has no name")
        tensors = [tensor for _, _, tensor in found]
        _refuse_more_than_there_is(path, tensors)
    except pickle.UnpicklingError as problem:
        if "GLOBAL" not in str(problem) and "global" not in str(problem) and "REDUCE" not in str(problem):
            raise _damaged(path, problem) from problem
        raise KnotForcingError(
            f"{path.name} holds program code and not only weights, so it was refused and none of it was run. "
            f"Ask for the model as .safetensors, or convert it where you trust it."
        ) from problem
    except Exception as problem:  # whatever a damaged pickle or archive makes its reader do
        raise _damaged(path, problem) from problem
    if not tensors:
        raise KnotForcingError(f"{path.name} holds no named tensors. A checkpoint as .safetensors, .pt or .pth is needed.")
    return data


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


def _flat(data: Any, entry: str = "", depth: int = 0) -> Iterator[tuple[str, str, Tensor]]:
    """All tensors of a dict of dicts: the dict they are in (names joined by points), their name, themselves."""
    if depth > DEEPEST:
        raise ValueError(f"dicts lie {depth} deep inside dicts")
    for name, value in data.items():
        if isinstance(value, Tensor):
            yield entry, str(name), value
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{entry}.{name}" if entry else str(name), depth + 1)


def _dtype(path: Path, name: str) -> torch.dtype:
    found = next((dtype for dtype, known in _DTYPE_NAMES.items() if known == name), None)
    if found is None:
        raise KnotForcingError(f"{path.name} holds tensors of type {name}, which this version cannot read. Use one in bf16, fp16 or fp8.")
    return found


_DTYPE_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
_DTYPE_NAMES |= {torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}
_DTYPE_NAMES |= {torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}
