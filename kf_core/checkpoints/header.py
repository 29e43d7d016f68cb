"""What a file of weights says of itself, read from its first bytes: its kind, its tensors' names, types and shapes.

Every size that a file claims is checked against the file before a byte is taken on trust. Takes no PyTorch and reads no weight.
Source: safetensors' format description.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import KnotForcingError

LONGEST_HEADER = 100_000_000  # bytes, safetensors' own limit
MOST_RANK = 16  # axes of a tensor
MOST_SHARED = 2  # times the file's size that tensors may claim together: some share their bytes
DEEPEST = 8  # dicts inside dicts
MOST_NAMES = 200_000  # looked at in dicts inside dicts: the same one may lie in many places
BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
ONE_BYTE = {"F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"}
OTHER_KINDS = {
    b"GGUF": "a GGUF file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"<!DO": "a web page",
    b"<htm": "a web page",
}
OTHER_KINDS |= {b"version https://git-lfs": "a Git LFS pointer, not the file itself"}

Leaf = TypeVar("Leaf")


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
    fingerprint: str  # of the content, by samples of every tensor; see `fingerprint_of_weights`

    entries: tuple[str, ...] = ()  # dicts inside a PyTorch file that hold tensors, by their names joined by points
    num_files: int = 1

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: facts.shape for name, facts in self.tensors.items()}

    @property
    def values(self) -> int:
        return sum(facts.values for facts in self.tensors.values())


def is_pytorch(path: Path) -> bool:
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


def safetensors_header(path: Path) -> tuple[dict[str, str], dict[str, TensorFacts], dict[str, int]]:
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


def named(data: Any, leaf: type[Leaf]) -> list[tuple[str, str, Leaf]]:
    """All leaves of a dict of dicts: the dict they are in (names joined by points), their name, themselves. Raises ValueError."""
    found: list[tuple[str, str, Leaf]] = []
    looked_at = 0

    def look(inside: Mapping, entry: str, depth: int) -> None:
        nonlocal looked_at
        looked_at += len(inside)
        if depth > DEEPEST or looked_at > MOST_NAMES:
            raise ValueError(f"dicts lie {depth} deep inside dicts, with {looked_at:,} names")
        for name, value in inside.items():
            if isinstance(value, leaf):
                found.append((entry, str(name), value))
            elif isinstance(value, Mapping):
                look(value, f"{entry}.{name}" if entry else str(name), depth + 1)

    if isinstance(data, Mapping):
        look(data, "", 0)
    return found
