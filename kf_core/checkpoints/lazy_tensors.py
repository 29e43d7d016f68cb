"""The tensors of a file that goes beside a generator (VAE, text encoder, VACE module): by their own names, each read when it is looked at.

So a network of 11 GB is read with one tensor to spare, from one file or from several.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from .header import TensorFacts
from .key_maps import ENTRIES, wan_name
from .read import TensorFile


class StoredTensors(Mapping[str, Tensor]):
    """Tensors of a file by the names they are wanted under. Each is read when it is looked at, into memory of its own, and not kept."""

    def __init__(self, file: TensorFile, stored: Mapping[str, str]) -> None:
        self._file, self._stored = file, stored

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file's header says beside its tensors."""
        return self._file.metadata

    @property
    def facts(self) -> dict[str, TensorFacts]:
        return {name: self._file.tensors[stored] for name, stored in self._stored.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: facts.shape for name, facts in self.facts.items()}

    def renamed(self, new_name: Callable[[str], str]) -> "StoredTensors":
        return StoredTensors(self._file, {new_name(name): stored for name, stored in self._stored.items()})

    def where(self, is_wanted: Callable[[str], bool]) -> "StoredTensors":
        return StoredTensors(self._file, {name: stored for name, stored in self._stored.items() if is_wanted(name)})

    def __getitem__(self, name: str) -> Tensor:
        stored = self._stored[name]
        tensor = self._file.read(stored)
        return tensor.clone() if self._file.is_mapped(stored) else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def read_beside(path: Path | str) -> StoredTensors:
    """The tensors of a file that goes beside a generator, or of all shards of it, without whoever saved it in their names.

    Of a training checkpoint, those of its best dict. Raises KnotForcingError."""
    file = TensorFile(path)
    return StoredTensors(file, file.inside(file.entry(ENTRIES))).renamed(wan_name)
