"""A file of weights, or all shards of one, as names with tensors behind them, read one at a time.

Made from headers alone; PyTorch is needed only when a tensor is asked for, or to look into a PyTorch file that is out of the ordinary.
Knows nothing of networks or of other people's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..content_id import fingerprint_of_weights
from ..errors import KnotForcingError
from .archive import ordinary
from .header import FileFacts, TensorFacts, is_pytorch, safetensors_header
from .shards import files_of

if TYPE_CHECKING:  # `tensors.py`, where it is needed, is imported then: to name a file takes no PyTorch
    from torch import Tensor


class TensorFile:
    """The tensors of a file, or of all shards of one, read one at a time. Raises KnotForcingError for what is no such file.

    Made from the header alone; nothing stays open."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.files = files_of(self.path)
        self._places: dict[str, tuple[Path, int]] = {}  # file and offset of the tensors of safetensors
        self._pytorch: dict[str, Path] = {}  # file of the tensors of PyTorch files
        self._loaded: dict[Path, dict[str, Tensor]] = {}  # those that were asked for, mapped into memory and not read yet
        self._tensors: dict[str, TensorFacts] = {}
        self._entries: list[str] = []
        self.metadata: dict[str, str] = {}
        self.kind = "safetensors"
        for file in self.files:
            self._add_pytorch(file) if is_pytorch(file) else self._add_safetensors(file)

    @cached_property
    def facts(self) -> FileFacts:
        """What the file says about itself."""
        size = sum(file.stat().st_size for file in self.files)
        name = fingerprint_of_weights(self.files, self._places.values())
        return FileFacts(self.kind, size, self.metadata, self._tensors, name, tuple(self._entries), len(self.files))

    @property
    def tensors(self) -> Mapping[str, TensorFacts]:
        return self._tensors

    @property
    def entries(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def entry(self, preferred: tuple[str, ...]) -> str:
        """The dict of a PyTorch file that is the best of these; empty: the file has none of them, and itself holds its tensors."""

        def ends(entry, wanted):
            return entry == wanted or entry.endswith(f".{wanted}")

        return next((entry for wanted in preferred for entry in self._entries if ends(entry, wanted)), "")

    def inside(self, entry: str) -> dict[str, str]:
        """The names that tensors have in a dict of the file -> their whole names."""
        prefix = f"{entry}." if entry else ""
        return {name.removeprefix(prefix): name for name in self._tensors if name.startswith(prefix)}

    def read(self, name: str) -> Tensor:
        """A tensor, in memory of its own where it is from safetensors; one of a PyTorch file is mapped."""
        if name in self._pytorch:
            return self._mapped(self._pytorch[name])[name]
        from .tensors import read_at

        path, offset = self._places[name]
        return read_at(path, offset, self._tensors[name])

    def is_mapped(self, name: str) -> bool:
        """Whether `read` gives a tensor that lies in the file, and not in memory of its own."""
        return name in self._pytorch

    def mapped(self) -> dict[str, Tensor]:
        """All tensors, mapped into memory: none is read before it is looked at. For those who copy them themselves."""
        from .tensors import map_safetensors

        found = {name: self._mapped(file)[name] for name, file in self._pytorch.items()}
        for file in dict.fromkeys(path for path, _ in self._places.values()):
            found |= map_safetensors(file)
        return found

    def _add_safetensors(self, file: Path) -> None:
        metadata, tensors, places = safetensors_header(file)
        for name, facts in tensors.items():
            if name in self._tensors:
                raise KnotForcingError(f"{name} stands in two files of {self.path.name}. Download them again, from one place.")
            self._tensors[name], self._places[name] = facts, (file, places[name])
        self.metadata |= metadata

    def _add_pytorch(self, file: Path) -> None:
        self.kind = "PyTorch"
        for entry, name, facts in ordinary(file) or self._as_pytorch_sees_it(file):
            whole = _joined(entry, name)
            if whole in self._tensors:
                raise KnotForcingError(f"{whole} stands in {self.path.name} twice. Download it again.")
            self._tensors[whole], self._pytorch[whole] = facts, file
            if entry and entry not in self._entries:
                self._entries.append(entry)

    def _as_pytorch_sees_it(self, file: Path) -> list[tuple[str, str, TensorFacts]]:
        from .tensors import facts_of, pytorch_tensors

        found = pytorch_tensors(file)
        self._loaded[file] = {_joined(entry, name): tensor for entry, name, tensor in found}
        return [(entry, name, facts_of(tensor)) for entry, name, tensor in found]

    def _mapped(self, file: Path) -> dict[str, Tensor]:
        """A PyTorch file's tensors, mapped into memory and not read yet."""
        if file not in self._loaded:
            seen = {_joined(entry, name): facts for entry, name, facts in self._as_pytorch_sees_it(file)}
            if seen != {name: self._tensors[name] for name, place in self._pytorch.items() if place == file}:
                raise KnotForcingError(f"{file.name} does not hold what it announces. Download it again.")
        return self._loaded[file]


def _joined(entry: str, name: str) -> str:
    return f"{entry}.{name}" if entry else name


def read_header(path: Path | str) -> FileFacts:
    """What is in a file of weights, without reading the weights. Raises KnotForcingError."""
    return TensorFile(path).facts
