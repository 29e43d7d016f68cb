"""What an archive of PyTorch holds, by its table of contents: names, types and shapes, told without PyTorch and without its pickle machine.

    model.pt = zip:  model/data.pkl   dicts of dicts of tensors; of each its storage's number, its type, size, place and strides
                     model/data/0     a storage's bytes, as they are

The pickle is read as data: two dozen instructions build dicts, lists and facts, and none can call anything. An archive that holds what
they do not build, or that does not add up, is no case for this file: `ordinary` says None, and PyTorch looks itself (`tensors.py`).
Source: torch/serialization.py and torch/_utils.py (`_rebuild_tensor_v2`, `_rebuild_parameter`); Python's pickletools.
"""

import math
import pickletools
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from .header import BYTES, MOST_RANK, MOST_SHARED, TensorFacts, named

LONGEST_PICKLE = 50_000_000  # bytes
STORAGES = {"DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "LongStorage": "I64"}
STORAGES |= {"IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL"}
VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
PLAIN = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}  # the value is the argument
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
MARK = object()


class Class(NamedTuple):
    """A class or function that the pickle names. It is never looked up."""

    name: str


class Storage(NamedTuple):
    key: str
    dtype: str
    values: int


class View(NamedTuple):
    """A tensor: a part of a storage."""

    storage: Storage
    shape: tuple[int, ...]
    start: int
    stop: int  # the first value of the storage that it does not reach


class Unusual(ValueError):
    """Not what PyTorch writes for dicts of plain tensors."""


def ordinary(path: Path) -> list[tuple[str, str, TensorFacts]] | None:
    """The tensors of an archive: the dict each is in (names joined by points), its name, its facts. None: let PyTorch look."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = _contents(archive, path.stat().st_size)
    except Exception:  # noqa: BLE001  whatever nonsense makes its readers do: PyTorch looks, too, and says what is wrong
        return None
    return found or None


def _contents(archive: zipfile.ZipFile, size: int) -> list[tuple[str, str, TensorFacts]]:
    records = {info.filename: info for info in archive.infolist()}
    if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()) or sum(i.file_size for i in records.values()) > size:
        raise Unusual("it is compressed, or claims more than it holds")
    (pickled,) = (name for name in records if name.rpartition("/")[2] == "data.pkl")
    root = pickled.removesuffix("data.pkl")
    if records[pickled].file_size > LONGEST_PICKLE or archive.read(f"{root}byteorder") != b"little":
        raise Unusual("it is too long, or from another kind of machine")
    tensors: list[tuple[str, str, TensorFacts]] = []
    claimed = 0
    for entry, name, view in named(_built(archive.read(pickled)), View):
        storage, stored = view.storage, records[f"{root}data/{view.storage.key}"].file_size
        if not name or view.stop > storage.values or storage.values * _bytes(storage.dtype) > stored:
            raise Unusual(f"{name} claims more than it holds")
        facts = TensorFacts(storage.dtype, view.shape)
        claimed += facts.values * _bytes(facts.dtype)
        tensors.append((entry, name, facts))
    if claimed > MOST_SHARED * size:
        raise Unusual("its tensors claim more than it holds")
    return tensors


def _built(pickled: bytes) -> Any:
    """The value that a pickle describes, its tensors as Views. Raises Unusual, or what nonsense makes of a stack machine."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for code, word, _ in pickletools.genops(pickled):
        match code.name:
            case "PROTO":
                pass
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                stack.append(MARK)
            case "TUPLE":
                stack.append(tuple(_to_mark(stack)))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                count = TUPLES[name]
                stack[-count:] = [tuple(stack[-count:])]
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _put(stack[-1], [key, value])
            case "SETITEMS":
                pairs = _to_mark(stack)
                _put(stack[-1], pairs)
            case "APPEND" | "APPENDS" as name:
                more = [stack.pop()] if name == "APPEND" else _to_mark(stack)
                _list(stack[-1]).extend(more)
            case "BINPUT" | "LONG_BINPUT":
                memo[word] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[word])
            case "GLOBAL":
                stack.append(Class(word))
            case "BINPERSID":
                stack.append(_storage(*stack.pop()))
            case "REDUCE":
                words = stack.pop()
                stack.append(_made(stack.pop(), words))
            case "BUILD":
                stack.pop()  # what a dict remembers beside its items
                _put(stack[-1], [])
            case "STOP":
                (value,) = stack
                return value
            case name if name in VALUES:
                stack.append(VALUES[name])
            case name if name in PLAIN:
                stack.append(word)
            case name:
                raise Unusual(name)
    raise Unusual("it has no end")


def _made(what: Class, words: tuple) -> Any:
    """What a call would give, for the three calls that PyTorch writes."""
    match what, words:
        case Class("collections OrderedDict"), ():
            return {}
        case Class("torch._utils _rebuild_tensor_v2"), (Storage() as storage, int(start), tuple(shape), tuple(strides), bool(), {}, *_):
            sizes = (start, *shape, *strides)
            if len(shape) != len(strides) or len(shape) > MOST_RANK or any(type(size) is not int or size < 0 for size in sizes):
                raise Unusual("a tensor has no size")
            reach = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if math.prod(shape) else 0
            return View(storage, shape, start, start + reach)
        case Class("torch._utils _rebuild_parameter"), (View() as view, bool(), {}):
            return view
    raise Unusual(str(what))


def _storage(kind: str, what: Class, key: str, place: str, values: int) -> Storage:
    module, _, name = what.name.partition(" ")
    if kind != "storage" or module != "torch" or type(values) is not int or values < 0:
        raise Unusual("no storage")
    return Storage(key, STORAGES[name], values)


def _bytes(dtype: str) -> int:
    return BYTES.get(dtype, 1)


def _to_mark(stack: list) -> list:
    """Everything above the last mark, taken off together with it."""
    place = len(stack) - 1
    while stack[place] is not MARK:
        place -= 1
        if place < 0:
            raise Unusual("no mark")
    taken = stack[place + 1 :]
    del stack[place:]
    return taken


def _put(target: Any, pairs: list) -> None:
    if type(target) is not dict or len(pairs) % 2:
        raise Unusual("no dict")
    target.update(zip(pairs[::2], pairs[1::2], strict=True))


def _list(target: Any) -> list:
    if type(target) is not list:
        raise Unusual("no list")
    return target
