"""What a value is, as a short text: equal values have equal fingerprints, on any day, in any process and on any system.

    media     files and arrays: every byte counts. A file is read once per process; it is read again when its size or time changed
    networks  the sum of all their bits, and samples of each tensor, which tell the order
    records   dataclasses by `frozen_names`: names that are written down, so that renaming a class or a field renames nothing here
    others    say their own name (`content_id`)

What cannot be repeated (a live source without a name) has no fingerprint. A field that came `later` than the first names counts only
where it is used, so that names given before still hold. Files of weights are sampled: see `fingerprint_of_weights`.
"""

import dataclasses
import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

READ_BYTES = 2**20  # of a file at a time
SETTLED_SECONDS = 2.0  # a file that was changed within them may change again without another time
SAMPLED_VALUES = 256  # looked at in each tensor of a network
EDGE_BYTES = 2**20  # of a file of weights that count wholly, at its beginning and its end
SAMPLES, SAMPLE_BYTES = 4, 1024  # blocks looked at in each tensor of a file of weights
PARTS = 1024  # of a file of weights whose tensors lie in places that are not known
NAMES = "_names_in_recipe"  # where a class keeps its frozen names
LEFT_OUT = None  # stands for the name of a field that does not count


@dataclasses.dataclass(frozen=True)
class Removed:
    """Stands for the name of a field that is gone. It counts under its old name with the value that it had by default."""

    value: Any


Kind = TypeVar("Kind")


class Unrepeatable(ValueError):
    """The value is not one that another run could have again."""


def added_later(default: Any) -> Any:
    """A dataclass field with this default that came when values of its class had names already."""
    return dataclasses.field(default=default, metadata={"later": True})


def unused_fields(value: Any) -> list[str]:
    """The fields of a dataclass's value that came later and are not used."""
    fields = dataclasses.fields(value)
    return [field.name for field in fields if field.metadata.get("later") and getattr(value, field.name) == field.default]


def frozen_names(kind: str, /, **names: str | Removed | None) -> Callable[[type[Kind]], type[Kind]]:
    """Declares how a dataclass and its fields are called in fingerprints, for ever: field -> name, or LEFT_OUT, or Removed.

    When a field is renamed, its keyword here is renamed with it and the text stays. Raises TypeError where the two do not fit."""

    def declare(cls: type[Kind]) -> type[Kind]:
        fields = {field.name for field in dataclasses.fields(cls)}
        own = {field for field, name in names.items() if not isinstance(name, Removed)}
        said = [name for name in names.values() if name is not LEFT_OUT]
        if fields != own or len(set(said)) < len(said):
            raise TypeError(f"{cls.__name__} has the fields {sorted(fields)}, and frozen names for {sorted(names)}: {said}")
        setattr(cls, NAMES, (kind, names))
        return cls

    return declare


def names_of(cls: type) -> tuple[str, dict[str, str | None]] | None:
    """The class's own frozen names; a subclass does not have those of its base."""
    return vars(cls).get(NAMES)


def fingerprint(*values) -> str:
    """32 hexadecimal digits. Raises Unrepeatable."""
    digest = hashlib.sha256()
    for value in values:
        _feed(digest, value)
    return digest.hexdigest()[:32]


def fingerprint_of_weights(files: Sequence[Path], tensors: Iterable[tuple[Path, int]] = ()) -> str:
    """A name for files of weights, and for where in them each tensor begins, as far as that is known.

    Looked at are the lengths, the first and the last megabyte of each file (names, shapes, PyTorch's checksum of each tensor), and four
    blocks of a kilobyte in each tensor, one in each quarter at a place that the tensor's number decides. So a change is always seen
    that goes through a whole tensor (training, merging, another precision), or through half of one in a row; a few changed numbers
    may not be. Where no tensor's place is known, a file counts as 1024 equal ones."""
    digest, inside = hashlib.sha256(), {}
    for path, start in tensors:
        inside.setdefault(path, []).append(start)
    for path in files:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            digest.update(f"<weights {size}>".encode())
            for place, length in _looked_at(size, inside.get(path) or [size * part // PARTS for part in range(PARTS)]):
                file.seek(place)
                digest.update(file.read(length))
    return digest.hexdigest()[:32]


def places(count: int, of: int) -> list[int]:
    """`count` places in 0 .. `of` - 1, one in each of as many equal parts: the first, the last, and others off any regular grid.

    Regular steps would fall on one column of a matrix, and a change of the others would go unseen. All places where there are fewer."""
    if of <= count:
        return list(range(of))
    edges = itertools.pairwise(part * of // count for part in range(count + 1))
    inner = [start + _scattered(part) % (stop - start) for part, (start, stop) in enumerate(edges)]
    return [0, *inner[1:-1], of - 1]


def _feed(digest, value) -> None:
    """Adds a value between marks. Its kind is a word that is written down, so that no class's name gets into a fingerprint."""
    kind = "NoneType" if value is None else next((word for plain, word in PLAIN.items() if isinstance(value, plain)), None)
    own_name = getattr(value, "content_id", None) if kind is None else None
    if kind in ("NoneType", "bool", "int", "str"):
        _add(digest, kind, repr(value).encode())
    elif kind == "float":
        _add(digest, kind, repr(float(value)).encode())  # NumPy's own calls itself otherwise
    elif kind == "bytes":
        _add(digest, kind, value)
    elif kind == "file":
        _add(digest, kind, _content(value))
    elif kind in ("tuple", "list"):
        digest.update(f"<{kind}>".encode())
        for item in value:
            _feed(digest, item)
        digest.update(b"</>")
    elif kind == "dict":
        digest.update(b"<dict>")
        for key in sorted(value):
            _feed(digest, key)
            _feed(digest, value[key])
        digest.update(b"</>")
    elif isinstance(own_name, str):
        _add(digest, "named", own_name.encode())
    elif names_of(type(value)) is not None:
        _add(digest, names_of(type(value))[0], _record(value))
    else:
        _feed_numbers(digest, value)


PLAIN = {bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes", Path: "file", tuple: "tuple", list: "list", dict: "dict"}


def _add(digest, kind: str, content: bytes) -> None:
    digest.update(f"<{kind}>".encode() + content + b"</>")


_known: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()  # records that hold arrays are compared by identity, and read once


def _record(value) -> bytes:
    is_itself = type(value).__hash__ is object.__hash__
    if is_itself and value in _known:
        return _known[value]
    digest = hashlib.sha256()
    _, names = names_of(type(value))
    left_out = unused_fields(value)
    said = {name: getattr(value, field) for field, name in names.items() if isinstance(name, str) and field not in left_out}
    said |= {field: name.value for field, name in names.items() if isinstance(name, Removed)}
    for name in sorted(said):
        digest.update(name.encode())
        _feed(digest, said[name])
    if is_itself:
        _known[value] = digest.digest()
    return digest.digest()


def _content(path: Path) -> bytes:
    """What is in a file, all of it."""
    facts = path.stat()
    if time.time() - facts.st_mtime < SETTLED_SECONDS:
        return _read(path)
    return _known_content(path.resolve(), facts.st_size, facts.st_mtime_ns, facts.st_ino)


@lru_cache(maxsize=256)
def _known_content(path: Path, *_facts: int) -> bytes:
    return _read(path)


def _read(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.digest()


def _feed_numbers(digest, value) -> None:
    """Arrays, tensors and networks. Raises Unrepeatable for anything else."""
    import numpy as np
    import torch  # only here: a file has its name without PyTorch

    if isinstance(value, torch.nn.Module):
        digest.update(b"<network>")
        for name, tensor in value.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} {_sum_of_bits(tensor)}".encode())
            chosen = torch.tensor(places(SAMPLED_VALUES, tensor.numel()), dtype=torch.int64, device=tensor.device)
            _feed_numbers(digest, tensor.detach().reshape(-1)[chosen])
    elif isinstance(value, np.ndarray | torch.Tensor):
        tensor = torch.as_tensor(value).detach().cpu().contiguous()
        kind = "ndarray" if isinstance(value, np.ndarray) else "Tensor"
        digest.update(f"<{kind}>{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b"")  # the memory itself, which may be gigabytes
    else:
        raise Unrepeatable(f"a {type(value).__name__} has no fingerprint")
    digest.update(b"</>")


def _sum_of_bits(tensor) -> int:
    """All bits of a tensor as whole numbers of eight bytes, added where they are; addition of those has no order."""
    import torch

    tensor = tensor.cpu() if tensor.device.type == "mps" else tensor  # which cannot look at numbers as others of another size
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else torch.zeros(0, dtype=torch.uint8)
    whole = len(raw) // 8 * 8
    rest = bytes(raw[whole:].cpu().tolist())
    words = raw[:whole] if raw.data_ptr() % 8 == 0 else raw[:whole].clone()
    return int(words.view(torch.int64).sum()) + int.from_bytes(rest, "little")


def _looked_at(size: int, starts: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Where to look in a file of weights, as places and numbers of bytes: both ends, then tensor by tensor."""
    yield 0, EDGE_BYTES
    yield max(0, size - EDGE_BYTES), EDGE_BYTES
    for number, (start, stop) in enumerate(itertools.pairwise([*sorted(starts), size])):
        for part in range(SAMPLES):
            first, last = (start + edge * (stop - start) // SAMPLES for edge in (part, part + 1))
            room = last - first - SAMPLE_BYTES
            yield first + (_scattered(SAMPLES * number + part) % room if room > 0 else 0), min(SAMPLE_BYTES, last - first)


def _scattered(number: int) -> int:
    """A large number that follows no grid, for ever the same. Source: Knuth, TAOCP 6.4, multiplicative hashing."""
    return (number * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64 >> 17
