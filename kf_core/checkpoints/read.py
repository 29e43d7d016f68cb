"""A file of weights, or all shards of one, as names with tensors behind them, read one at a time.

Made from headers alone; PyTorch is needed only when a tensor is asked for, or where a file is PyTorch's own. Knows nothing of networks
or of other people's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import KnotForcingError
from ..fingerprint import fingerprint
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
        self._loaded: dict[str, Tensor] = {}  # those of PyTorch files, mapped into memory and not read yet
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
        from .tensors import read_at

        path, offset = self._places[name]
        return read_at(path, offset, self._tensors[name])

    def is_mapped(self, name: str) -> bool:
        """Whether `read` gives a tensor that lies in the file, and not in memory of its own."""
        return name in self._loaded

    def mapped(self) -> dict[str, Tensor]:
        """All tensors, mapped into memory: none is read before it is looked at. For those who copy them themselves."""
        from .tensors import map_safetensors

        found = dict(self._loaded)
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
        from .tensors import facts_of, flat, load_pytorch

        self.kind = "PyTorch"
        for entry, name, tensor in flat(load_pytorch(file)):
            whole = f"{entry}.{name}" if entry else name
            if whole in self._tensors:
                raise KnotForcingError(f"{whole} stands in {self.path.name} twice. Download it again.")
            self._loaded[whole] = tensor
            self._tensors[whole] = facts_of(tensor)
            if entry and entry not in self._entries:
                self._entries.append(entry)


def read_header(path: Path | str) -> FileFacts:
    """What is in a file of weights, without reading the weights. Raises KnotForcingError."""
    return TensorFile(path).facts
