"""What a file of weights is: told by the card in its header, by what the user says, by its path, or by the sizes of its tensors.

Sizes are always the file's own; how the model wants to be run comes from the table (`known.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from ..errors import KnotForcingError
from ..models.card import CARD_KEY, AudioSpec, ModelCard, PoseSpec
from .known_models import EXPRESSION, KNOWN, Known, ours, unknown_wan

HEAD_DIM = 128  # of every published Wan model; nothing in the tensors tells it
PUBLISHED_DIMS = (1536, 5120)  # Wan 2.1's two sizes; a model of another that says nothing of itself is not guessed at
MOST_LAYERS = 200
PATH_PARTS = 3  # folders say what some file names do not: framewise/causal_forcing.pt

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Recognised:
    card: ModelCard
    told_by: str  # "its card", "you", "its name" or "its sizes"
    row: Known | None = None


def recognise(
    shapes: Shapes,
    path: Path | str = "",
    metadata: Mapping[str, str] | None = None,
    *,
    known_as: str | None = None,
    has_lora: bool = False,
    entries: tuple[str, ...] = (),
) -> Recognised | None:
    """What the tensors of these shapes (Wan's own names) are, or None. Raises KnotForcingError for a card that cannot be read.

    `has_lora`: a LoRA lies beside the weights; `entries`: the dicts of a training checkpoint."""
    if metadata and CARD_KEY in metadata:
        return Recognised(ModelCard.from_json(metadata[CARD_KEY]), "its card")
    sizes = sizes_of(shapes)
    if sizes is None:
        return None
    if known_as:
        row = row_of(known_as)
        card = _sized(row.card(), sizes)
        if (sizes["in_channels"], sizes["audio"] is None) != (row.card().in_channels, row.card().audio is None):
            raise KnotForcingError(
                f"This file is not {row.card().name}: it has {sizes['in_channels']} input channels and {_hears(sizes['audio'])}, and "
                f"{row.card().name} has {row.card().in_channels} and {_hears(row.card().audio)}. Choose what it is, or let it tell itself."
            )
        return Recognised(card, "you", row)
    candidates = [row for row in KNOWN if _may_be(row.card(), sizes)]
    place = "/".join(Path(path).parts[-PATH_PARTS:]).lower()
    named = [(len(name), _agrees(row, has_lora, entries), row) for row in candidates for name in row.names if name in place]
    if named:
        row = max(named, key=lambda found: found[:2])[2]
        return Recognised(_sized(row.card(), sizes), "its name", row)
    row = next((row for row in candidates if row.has_lora and has_lora), None)
    row = row or next((row for row in candidates if row.is_assumed), None)
    if row is None and sizes["dim"] not in PUBLISHED_DIMS:
        return None
    if row is None:
        return Recognised(ours(_sized(unknown_wan(), sizes)), "its sizes")
    return Recognised(_sized(row.card(), sizes), "its sizes", row)


def row_of(key: str) -> Known:
    """The row of the table with this key. Raises KnotForcingError."""
    row = next((row for row in KNOWN if row.key == key), None)
    if row is None:
        raise KnotForcingError(f"'{key}' is no model this version knows. It knows {', '.join(row.key for row in KNOWN)}.")
    return row


def sizes_of(shapes: Shapes) -> dict | None:
    """The fields of a card that the tensors of a Wan generator tell; None when they are not one's."""
    patches, ffn, head = (shapes.get(name, ()) for name in ("patch_embedding.weight", "blocks.0.ffn.0.weight", "head.head.weight"))
    text, time = (shapes.get(f"{name}_embedding.0.weight", ()) for name in ("text", "time"))
    if (len(patches), len(ffn), len(head), len(text), len(time)) != (5, 2, 2, 2, 2):
        return None
    dim, in_channels = patches[0], patches[1]
    layers = sum(1 for index in range(MOST_LAYERS + 1) if f"blocks.{index}.self_attn.q.weight" in shapes)
    if dim % HEAD_DIM or not 0 < dim <= 2**16 or in_channels not in (16, 33, 36) or not 0 < layers <= MOST_LAYERS:
        return None
    heard = shapes.get("audio_proj.proj.weight", ())
    audio = None
    if len(heard) == 2 and heard[1] % 4 == 0:
        count = sum(1 for index in range(layers) if f"audio_cond_projs.{index}.weight" in shapes)
        ear = _widths(shapes)
        width = shapes["audio_proj.ear.0.weight"][1] if ear else heard[1] // 4
        kind = "wav2vec2" if width % 768 == 0 and width > 768 else "log-mel"
        first = 2 if kind == "wav2vec2" else 1  # LiveTalk's rule: before blocks 2 .. layers / 2; kf-tiny's: from block 1
        audio = AudioSpec(kind=kind, width=width, ear=ear, code=heard[0], first_layer=first, last_layer=first + count - 1)
    expression = shapes.get("expression_embedding.0.weight", ())
    return dict(
        dim=dim,
        ffn_dim=ffn[0],
        layers=layers,
        heads=dim // HEAD_DIM,
        in_channels=in_channels,
        out_channels=head[0] // 4,
        freq_dim=time[1],
        text_width=text[1],
        audio=audio,
        pose=PoseSpec() if "pose_embedding.0.weight" in shapes else None,
        expression=EXPRESSION if expression[1:] == (8 * len(EXPRESSION),) else (),
        motion_strength="motion_embedding.0.weight" in shapes,
    )


def _widths(shapes: Shapes) -> tuple[int, ...]:
    """Of the layers of the model's own ear, none if it has none."""
    layers = [shapes.get(f"audio_proj.ear.{2 * index}.weight", ()) for index in range(MOST_LAYERS)]
    return tuple(layer[0] for layer in takewhile(lambda layer: len(layer) == 2, layers))


def _sized(card: ModelCard, sizes: dict) -> ModelCard:
    """The card at the file's own sizes. Where only the number of layers differs, some are missing, and the card's stands."""
    sizes = dict(sizes)
    text = replace(card.text, width=sizes.pop("text_width"))
    if (card.dim, card.ffn_dim) == (sizes["dim"], sizes["ffn_dim"]):
        sizes["layers"], sizes["audio"] = card.layers, card.audio or sizes["audio"]
    return replace(card, text=text, **sizes)


def _may_be(card: ModelCard, sizes: dict) -> bool:
    return (card.dim, card.in_channels) == (sizes["dim"], sizes["in_channels"]) and _width(card.audio) == _width(sizes["audio"])


def _width(audio: AudioSpec | None) -> int:
    return 0 if audio is None else audio.width


def _hears(audio: AudioSpec | None) -> str:
    return "does not listen" if audio is None else f"hears {audio.kind}"


def _agrees(row: Known, has_lora: bool, entries: tuple[str, ...]) -> int:
    """Of rows whose name is equally long, the one whose file looks like this one."""
    return (row.has_lora == has_lora) + (not entries or row.entries[0] in entries)
