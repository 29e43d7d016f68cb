"""What was done once at fixed addresses is done again as it was recorded, with other numbers at the same addresses.

    given, by name ---copied---> fixed tensors ---the deed, as recorded---> fixed results

A recording knows addresses and sizes, and nothing else: a number that the host computes would stay what it was when it was recorded. So all
that differs between two passes is either a tensor that is copied to its fixed place before, or part of the key under which a recording is
kept. Who records, and what is recorded, is not known here (`graphs.py` and `hot_path.py` say so).
"""

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

KEPT = 8  # recordings of a stream: denoising and committing, for each fill of a window that takes three chunks to fill

Deed = Callable[[], object]
Named = Mapping[Hashable, Tensor]
Made = TypeVar("Made")


class Form(NamedTuple):
    """What a fixed tensor must be."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class Recorder(Protocol):
    """Records deeds, so that they can be repeated."""

    def rehearse(self, deed: Deed) -> None:
        """Do it where it will be recorded, so that all that happens the first time only has happened."""
        ...

    def record(self, deed: Deed) -> Deed:
        """What does it again, on the same tensors; recording is not doing. Raises RuntimeError where it cannot be recorded."""
        ...

    def close(self) -> None:
        """Give back what recordings that failed had taken. Called when nothing else that was recorded is left."""
        ...


class NotRecorded(Exception):
    """Why a deed could not be recorded. It is still to be done."""


@dataclass(eq=False)
class Fixed:
    """A tensor that stays where it is, and whose numbers it holds."""

    tensor: Tensor
    source: Tensor | None = None


@dataclass(eq=False)
class Recording:
    given: Mapping[Hashable, Fixed]
    results: Mapping[Hashable, Fixed]
    deed: Deed
    is_rehearsed: bool = False
    repeat: Deed | None = None


class Recordings:
    """Those of one stream.

    Invariants
    - A deed is rehearsed the first time, recorded the second, and repeated since: what is done once is not recorded.
    - What other addresses or sizes would be read or written under is another key, and another recording.
    - Memory does not grow: the recordings used last are kept, and they share their fixed tensors where those are alike.
    - Where one cannot be recorded, all are let go.
    """

    def __init__(self, make_recorder: Callable[[], Recorder], device: torch.device) -> None:
        self._make_recorder, self._recorder, self._device = make_recorder, make_recorder(), device
        self._recordings: dict[Hashable, Recording] = {}
        self._fixed: WeakValueDictionary[Hashable, Fixed] = WeakValueDictionary()
        self._world: Hashable = None

    def __len__(self) -> int:
        """Recordings that can be repeated."""
        return sum(recording.repeat is not None for recording in self._recordings.values())

    @property
    def num_bytes(self) -> int:
        """Of the fixed tensors."""
        return sum(fixed.tensor.nbytes for fixed in self._fixed.values())

    def run(
        self,
        deed: Callable[[Named, Named], object],
        given: Named,
        results: Mapping[Hashable, Form],
        *,
        key: Hashable,
        world: Hashable,
        fresh: Collection[Hashable] = (),
    ) -> dict[Hashable, Tensor]:
        """What `deed` makes of what is `given`: fixed tensors that it wrote its results to, which hold them until the next run.

        `key`: what else it depends on. `world`: what all recordings rely on; when it is another one, they are made anew. `fresh`: names of
        what may have been changed in place; of all others a tensor that was copied before is not copied again. Raises NotRecorded."""
        if self._world not in (None, world):
            self._let_go()
        self._world = world
        forms = {name: Form(tensor.shape, tensor.dtype) for name, tensor in given.items()}
        key = (key, *forms.items(), *results.items())
        recording = self._recordings.pop(key, None) or self._tried(self._prepared, deed, forms, results)
        self._recordings[key] = recording  # the one that was used last stands last
        for name, tensor in given.items():
            place = recording.given[name]
            if place.source is not tensor or name in fresh:
                place.tensor.copy_(tensor)
                place.source = tensor
        if not recording.is_rehearsed:
            self._tried(self._recorder.rehearse, recording.deed)
            recording.is_rehearsed = True
        else:
            if recording.repeat is None:
                recording.repeat = self._tried(self._recorder.record, recording.deed)
            recording.repeat()
        return _tensors(recording.results)

    def _prepared(
        self, deed: Callable[[Named, Named], object], given: Mapping[Hashable, Form], results: Mapping[Hashable, Form]
    ) -> Recording:
        while len(self._recordings) >= KEPT:
            del self._recordings[next(iter(self._recordings))]
        places = [{name: self._place(name, form) for name, form in forms.items()} for forms in (given, results)]
        return Recording(*places, partial(deed, *map(_tensors, places)))

    def _place(self, name: Hashable, form: Form) -> Fixed:
        """The fixed tensor of that name and form, as long as any recording holds it."""
        found = self._fixed.get((name, form))
        if found is None:
            with torch.inference_mode(False):  # or it could not be written to outside of that mode
                found = Fixed(torch.empty(form.shape, dtype=form.dtype, device=self._device))
            self._fixed[name, form] = found
        return found

    def _tried(self, step: Callable[..., Made], *words) -> Made:
        try:
            return step(*words)
        except RuntimeError as problem:
            reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        self._let_go()  # after the error, which holds on to all that the attempt had made
        raise NotRecorded(reason)

    def _let_go(self) -> None:
        self._recordings.clear()
        self._recorder.close()
        self._recorder = self._make_recorder()


def _tensors(places: Mapping[Hashable, Fixed]) -> dict[Hashable, Tensor]:
    return {name: place.tensor for name, place in places.items()}
