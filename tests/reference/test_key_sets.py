"""The modules have exactly the tensors of the published files, at full size."""

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kf_core.checkpoints.checkpoint import identify
from kf_core.checkpoints.detect import recognise
from kf_core.checkpoints.known_models import KNOWN, WAN_14B, livetalk, self_forcing, unknown_wan
from kf_core.errors import KnotForcingError
from kf_core.models.shapes import shapes_of

from ..wrong import listed
from .recordings import FOLDER

pytestmark = pytest.mark.reference

SETS = [(self_forcing(), "selfforcing_keys.json", 825), (livetalk(), "livetalk_keys.json", 857)]


def published(file: str) -> dict[str, tuple[int, ...]]:
    if not (FOLDER / file).exists():
        pytest.skip(f"NO PARITY RECORDING at {FOLDER / file}: set KF_PARITY to the folder that holds it")
    return {name: tuple(shape) for name, shape in json.loads((FOLDER / file).read_text()).items()}


def hollow(shapes: dict[str, tuple[int, ...]], path: Path) -> Path:
    """A safetensors file of full size in bf16 that takes no room on the disk: after the header there is a hole."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        header[name], end = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}, end + size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


@pytest.mark.parametrize("card, file, count", SETS)
def test_nothing_is_missing_and_nothing_left_over(card, file, count, tmp_path):
    shapes = published(file)
    assert shapes_of(card) == shapes and len(shapes) == count
    assert recognise(shapes).card == card
    found = identify(hollow({f"model.{name}": shape for name, shape in shapes.items()}, tmp_path / "model.safetensors"))
    found.refuse_misfit(shapes_of(found.card))
    assert found.card == card and found.recognised.told_by == "its sizes"


def test_every_known_file_is_told_by_its_path_at_full_size(tmp_path):
    """Named as its authors name it (the file after the comma in `source`), wherever its folder lies."""
    wrong = [f"{row.key}: {what}" for row in KNOWN for what in mistaken(row, tmp_path / row.key)]
    assert not wrong, listed(wrong)


def mistaken(row, tmp_path: Path) -> Iterator[str]:
    """What is not seen in a file of this row."""
    names = [part.strip(" ;") for part in row.card().source.split(", ")[1].split(";")[0].split(" and ")]
    path = tmp_path / row.card().source.split("/")[1].split(",")[0] / names[0]
    if row.key == "longlive-infinity":
        path = path.with_name("longlive_infinity.pt")
    path.parent.mkdir(parents=True)
    found = identify(hollow(shapes_of(row.card()), path))
    if row.has_lora and found.card.audio is None:
        yield "it does not hear"
    if not row.has_lora and (found.card != row.card() or found.recognised.told_by != "its name"):
        yield f"taken for {found.card.name}, told by {found.recognised.told_by}"
    try:
        found.refuse_misfit(shapes_of(found.card))
    except KnotForcingError as problem:
        yield str(problem)


def test_a_model_that_nobody_knows_is_run_under_knot_forcing_by_its_sizes(tmp_path):
    """One that is to come: 36 channels, and the sizes of Wan 14B."""
    card = replace(unknown_wan(), **WAN_14B, in_channels=36)
    found = identify(hollow(shapes_of(card), tmp_path / "tomorrow.safetensors"))
    found.refuse_misfit(shapes_of(found.card))
    assert (found.card.dim, found.card.layers, found.card.in_channels) == (5120, 40, 36)
    assert found.card.name == "A Wan 2.1 generator" and found.card.under_knot_forcing().knot == "inpaint"


@pytest.mark.parametrize("card, file, count", SETS)
def test_what_is_missing_is_said_with_the_nearest_known_model(card, file, count, tmp_path):
    shapes = published(file)
    lost = shapes.pop("blocks.29.ffn.2.weight")
    found = identify(hollow(shapes | {"vace_patch_embedding.weight": lost}, tmp_path / "model.safetensors"))
    with pytest.raises(
        KnotForcingError, match=f"1 missing .blocks.29.ffn.2.weight.; 1 left over .vace_.*looks most like {card.name} .100%"
    ):
        found.refuse_misfit(shapes_of(found.card))
