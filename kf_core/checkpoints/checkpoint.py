"""A file becomes a generator in waiting: what it is, and whose tensors are where. The header is enough for all of that.

    file --TensorFile--> names --gathered--> parts of each weight --recognise--> card
                                                  |
                                                  '-- whole (weights.py): read, scaled (fp8), corrected (LoRA), one at a time

`open_checkpoint` is the one way in, for the command line and for nodes alike. Loading is strict: `refuse_misfit` says in words what is
missing, what is left over, and which known model the file looks most like.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..content_id import fingerprint
from ..errors import KnotForcingError
from ..models.card import ModelCard
from ..models.shapes import shapes_of
from .detect import Recognised, Shapes, recognise
from .key_maps import ENTRIES, Parts, gathered
from .known_models import KNOWN
from .read import TensorFile

NAMES_SHOWN = 4
FP8 = ("F8_E4M3", "F8_E5M2")
FLOATS = ("F64", "F32", "F16", "BF16", *FP8)


@dataclass(frozen=True, eq=False)
class Lora:
    """A second file that corrects the weights of the first."""

    file: TensorFile
    parts: Mapping[str, Parts]


@dataclass(frozen=True, eq=False, kw_only=True)
class Checkpoint:
    """An opened file of a generator. Only its header was read."""

    file: TensorFile
    recognised: Recognised
    parts: Mapping[str, Parts]  # Wan's names -> the file's
    entry: str = ""  # the dict of a training checkpoint whose tensors these are
    twice: tuple[str, ...] = ()  # names in the file that another one claims too
    lora: Lora | None = None
    remarks: tuple[str, ...] = field(default=())

    @property
    def card(self) -> ModelCard:
        return self.recognised.card

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Wan's names and their shapes; what is only a LoRA stands under the name of its first tensor."""
        return _shapes(self.file, self.parts)

    @property
    def content_id(self) -> str:
        """A name for the weights that come of this: of the file, or of both files."""
        own = self.file.facts.fingerprint
        return own if self.lora is None else fingerprint(own, self.lora.file.facts.fingerprint)

    @property
    def is_fp8(self) -> bool:
        return any(self.file.tensors[parts.stored].dtype in FP8 for parts in self.parts.values() if parts.stored)

    @property
    def has_lora(self) -> bool:
        return self.lora is not None or any(parts.lora for parts in self.parts.values())

    def refuse_misfit(self, wanted: Shapes) -> None:
        """Raises KnotForcingError unless the file has exactly the wanted tensors (Wan's names), each as large as wanted."""
        found = self.shapes
        whole = {name for name, parts in self.parts.items() if parts.stored and (parts.lora is None or parts.lora.is_whole)}
        missing = sorted(wanted.keys() - whole)
        surplus = sorted((found.keys() - wanted.keys()) | (found.keys() - whole)) + list(self.twice)
        misshapen = [f"{n} is {found[n]}, not {wanted[n]}" for n in sorted(wanted.keys() & whole) if wanted[n] != found[n]]
        misshapen += [f"the LoRA of {n} does not fit it" for n in sorted(wanted.keys() & whole) if not self._lora_fits(n, wanted[n])]
        strange = [f"{n} as {self.file.tensors[self.parts[n].stored].dtype}" for n in sorted(wanted.keys() & whole)]
        strange = [said for said in strange if said.rpartition(" ")[2] not in FLOATS]
        if missing or surplus or misshapen or strange:
            problems = [_listing("missing", missing), _listing("left over", surplus), _listing("of another size", misshapen)]
            problems += [_listing("in a type that cannot be read", strange)]
            raise KnotForcingError(
                f"{self.file.path.name} does not fit {self.card.name}: {'; '.join(filter(None, problems))}. {self._nearest()}"
                f"The file is damaged or of another model; download it again or choose another."
            )

    def _lora_fits(self, name: str, shape: tuple[int, ...]) -> bool:
        for file, parts in [(self.file, self.parts)] + ([(self.lora.file, self.lora.parts)] if self.lora else []):
            lora = parts[name].lora if name in parts else None
            if lora is not None:
                down, up = (file.tensors[side].shape for side in (lora.down, lora.up))
                if len(down) != 2 or len(up) != 2 or (up[0], down[1]) != shape or up[1] != down[0] or not down[0]:
                    return False
                if lora.alpha and file.tensors[lora.alpha].values != 1:
                    return False
        scale = self.parts[name].scale
        return not scale or _fits(self.file.tensors[scale].shape, shape)

    def _nearest(self) -> str:
        return nearest(self.shapes)


def open_checkpoint(
    path: Path | str,
    *,
    lora: Path | str | None = None,
    known_as: str | None = None,
    card: ModelCard | None = None,
    accept_licence: bool = False,
) -> Checkpoint:
    """Open a file of a generator and say what it is. Raises KnotForcingError.

    `lora`: a second file that corrects it. `known_as`: a key of the table (`known.py`), where the file does not tell. `card`: given
    whole, for sizes that no table has. `accept_licence`: the user has read what the card's `restricted` says."""
    found = identify(path, lora=lora, known_as=known_as, card=card)
    if found is None:
        file = TensorFile(path)
        raise KnotForcingError(
            f"{file.path.name} is not a generator this version knows: it has {len(file.tensors)} tensors and no Knot Forcing card. "
            f"{nearest(file.facts.shapes)}Use kf-tiny, or one of the checkpoints in docs/checkpoints.md."
        )
    refuse_without_consent(found.card, accept_licence)
    return found


def identify(
    path: Path | str, *, lora: Path | str | None = None, known_as: str | None = None, card: ModelCard | None = None
) -> Checkpoint | None:
    """What a file is, by its header; None when it is no generator. Nothing is asked or refused but a file that cannot be read."""
    file = TensorFile(path)
    outside, entries = _entry(file, ENTRIES), file.entries
    for _ in range(2):  # what it is decides which of its dicts is taken; all of them have the same shapes
        parts, twice = _gathered(file, outside)
        shapes = _shapes(file, parts)
        unmerged = any(p.lora for p in parts.values())
        if card is not None:
            found = Recognised(card, "you")
        else:
            found = recognise(shapes, file.path, file.metadata, known_as=known_as, has_lora=unmerged, entries=entries)
        if found is None:
            return None
        wanted = _entry(file, found.row.entries if found.row else ENTRIES)
        if wanted == outside:
            break
        outside = wanted
    correction = None if lora is None else _lora(lora, parts)
    return Checkpoint(
        file=file,
        recognised=found,
        parts=parts,
        entry=outside,
        twice=tuple(twice),
        lora=correction,
        remarks=tuple(_remarks(file, found, outside, correction is not None or unmerged)),
    )


def refuse_without_consent(card: ModelCard, accepted: bool) -> None:
    """Raises KnotForcingError for a model whose licence forbids something, until the user says that it was read."""
    if card.restricted and not accepted:
        raise KnotForcingError(
            f"{card.restricted} Read its licence. If you may use it, say so: `accept_licence` on Load KF Model, --accept-licence on the "
            f"command line."
        )


def nearest(shapes: Shapes) -> str:
    """Which known model these tensors look most like, as a sentence; empty where they look like none."""
    best, score, said = None, 0.0, set()
    for row in KNOWN:
        card = row.card()
        sizes = (card.dim, card.ffn_dim, card.layers, card.in_channels, card.audio)
        if sizes in said:
            continue
        said.add(sizes)
        wanted = shapes_of(card)
        common = sum(1 + (shapes[name] == shape) for name, shape in wanted.items() if name in shapes) / 2
        likeness = common / max(1, len(wanted.keys() | shapes.keys()))
        if likeness > score:
            best, score = card, likeness
    return "" if best is None or score < 0.1 else f"It looks most like {best.name} ({score:.0%} of the tensors). "


def _entry(file: TensorFile, preferred: tuple[str, ...]) -> str:
    """The dict of a PyTorch file that holds the generator, or a LoRA alone; empty: the file itself does."""
    return file.entry((*preferred, "generator_lora"))


def _gathered(file: TensorFile, entry: str) -> tuple[dict[str, Parts], list[str]]:
    inside = file.inside(entry)
    parts, twice = gathered(inside)
    if not entry:
        return parts, twice

    def back(name):
        return inside[name] if name else ""

    for name, part in parts.items():
        lora = part.lora and type(part.lora)(back(part.lora.down), back(part.lora.up), back(part.lora.alpha))
        parts[name] = Parts(back(part.stored), back(part.scale), lora)
    return parts, [inside[name] for name in twice]


def _shapes(file: TensorFile, parts: Mapping[str, Parts]) -> dict[str, tuple[int, ...]]:
    def first(part):
        return part.stored or part.scale or (part.lora.down or part.lora.up)

    return {name: file.tensors[first(part)].shape for name, part in parts.items()}


def _lora(path: Path | str, weights: Mapping[str, Parts]) -> Lora:
    """A file of corrections. Raises KnotForcingError unless every one of them is whole and has its weight."""
    file = TensorFile(path)
    entry = _entry(file, ("generator_lora", "generator_ema_lora", *ENTRIES))
    parts, twice = _gathered(file, entry)
    loras = {name: part for name, part in parts.items() if part.lora and part.lora.is_whole and not part.stored and not part.scale}
    surplus = sorted(parts.keys() - loras.keys()) + twice + sorted(loras.keys() - weights.keys())
    if not loras or surplus:
        raise KnotForcingError(
            f"{file.path.name} is no LoRA for this model: it has {len(loras)} corrections"
            f"{', and ' + _listing('left over', surplus) if surplus else ''}. Choose another file, or none."
        )
    return Lora(file, loras)


def _remarks(file: TensorFile, found: Recognised, entry: str, has_lora: bool):
    row = found.row
    if row is None:
        return
    if found.told_by == "its sizes" and not row.has_lora:
        yield f"{file.path.name} does not say what it is; by its sizes it is taken for {found.card.name}. If it is another, say which."
    if row.wants_lora and not has_lora:
        yield f"{found.card.name} is run by its authors with a second file, {row.wants_lora}: choose it as LoRA."
    if file.entries and entry.rpartition(".")[2] != row.entries[0]:
        yield f"{file.path.name} has no `{row.entries[0]}`, which its authors use; its `{entry or 'tensors'}` are taken."


def _fits(scale: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """One number, or one for each row."""
    count = 1
    for size in scale:
        count *= size
    return count == 1 or (len(weight) == 2 and scale in ((weight[0],), (weight[0], 1)))


def _listing(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:NAMES_SHOWN])}{more})"
