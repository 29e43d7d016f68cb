"""ModelCard: what a generator is and how it wants to be run.

kf-tiny's file carries its card in the header; `checkpoints/known.py` is a table of cards for files that carry none.
Nodes and command line read nothing else about a model.
"""

import contextlib
import dataclasses
import json
import math
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..content_id import LEFT_OUT, added_later, frozen_names, unused_fields
from ..errors import KnotForcingError
from ..settings import Ahead, Behind, Fixed, KnotForm, RolloutSettings

CARD_KEY = "knot_forcing"  # the safetensors metadata entry that holds a card as JSON
IMAGE_CHANNELS_KEY = "picture"  # what files call `image_channels`


@frozen_names("hearing", kind="kind", width="width", ear="ear", code="code", first_layer="first_layer", last_layer="last_layer")
@dataclass(frozen=True, kw_only=True)
class AudioSpec:
    """What the model hears. One feature vector per frame; four of them make a latent frame's input."""

    kind: Literal["log-mel", "wav2vec2"]
    width: int  # numbers per frame
    ear: tuple[int, ...] = added_later(())  # widths of the layers that listen to one frame's numbers first; none: they are used as they are
    code: int = 32  # width of the code between projection and layers
    first_layer: int = 2  # the code is added before layers first_layer .. last_layer
    last_layer: int = 15

    @property
    def features_width(self) -> int:
        """How many numbers of a frame's sound reach the projection."""
        return self.ear[-1] if self.ear else self.width


@frozen_names("seeing", standard="standard", channels="channels")
@dataclass(frozen=True, kw_only=True)
class PoseSpec:
    """How the model sees a pose: frames in OpenPose face-70 colours, drawn on the latent grid."""

    standard: Literal["openpose-face-70"] = "openpose-face-70"
    channels: int = 3


@frozen_names("reading", kind="kind", width="width", tokens="tokens")
@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """What the model reads. `none`: it has no text encoder, prompts become driving tracks by a fixed vocabulary."""

    kind: Literal["none", "umt5"]
    width: int = 4096
    tokens: int = 512


@frozen_names(
    "model",
    name=LEFT_OUT,
    dim="dim",
    ffn_dim="ffn_dim",
    layers="layers",
    heads="heads",
    in_channels="in_channels",
    out_channels="out_channels",
    image_channels="picture",
    freq_dim="freq_dim",
    text="text",
    audio="audio",
    pose="pose",
    expression="expression",
    motion_strength="motion_strength",
    rollout=LEFT_OUT,
    fps="fps",
    width=LEFT_OUT,
    height=LEFT_OUT,
    licence=LEFT_OUT,
    negative_prompt=LEFT_OUT,
    restricted=LEFT_OUT,
    note=LEFT_OUT,
    source=LEFT_OUT,
    verified=LEFT_OUT,
)
@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a generator is. Everything is a value; two equal cards describe interchangeable models."""

    name: str
    dim: int
    ffn_dim: int
    layers: int
    heads: int
    in_channels: Literal[16, 33, 36]  # noise; + image and mask (0 known); + mask x 4 (1 known) and image
    out_channels: int = 16
    image_channels: Literal["knot", "portrait"] = "knot"  # they hold the knot and nothing else, or the portrait on every frame
    freq_dim: int = 256
    text: TextSpec
    audio: AudioSpec | None = None
    pose: PoseSpec | None = None
    expression: tuple[str, ...] = ()  # the values it obeys, in order: smile, brows, ...
    motion_strength: bool = False
    rollout: RolloutSettings
    fps: float = 16
    width: int = 832
    height: int = 480
    licence: str = "Apache-2.0"
    negative_prompt: str = added_later("")  # what guidance leads away from where the user names nothing
    restricted: str = ""  # what the licence forbids or leaves unclear, a sentence: must be agreed to before the model is loaded
    note: str = ""  # shown to the user on loading: a warning about its limits
    source: str = ""  # where the file comes from, and where its constants stand
    verified: str = ""  # what was compared with its authors' code, and what was not

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    def under_knot_forcing(self) -> RolloutSettings:
        """The paper's rollout for this model: the anchor running ahead, a window of 6, and the knot in the form its channels allow."""
        own = self.rollout
        if own.knot is not None and own.anchor is not None:
            return own
        form: KnotForm = "pin" if self.image_channels == "portrait" else "blend" if self.in_channels == self.out_channels else "inpaint"
        denoised = own.chunk + 1
        return replace(
            own,
            knot=form,
            knot_frames=1,
            fuse=form != "pin",  # a knot that is copied has nothing to average
            anchor=Ahead(),
            window=max(6, denoised + 2),
            pinned=0,
            pinned_place="absolute",
            max_frames=None,
        )

    def to_json(self) -> str:
        """The card as text for a file's header; `from_json` restores an equal card."""
        data = dataclasses.asdict(self)
        if self.rollout.anchor is not None:
            data["rollout"]["anchor"]["rule"] = type(self.rollout.anchor).__name__
        for value, written in ((self, data), (self.rollout, data["rollout"]), (self.audio, data["audio"])):
            for name in unused_fields(value) if value is not None else ():
                del written[name]  # so that versions without it can read the card
        data[IMAGE_CHANNELS_KEY] = data.pop("image_channels")
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Raises KnotForcingError when the text is not a card this version understands."""
        try:
            data = json.loads(text)
            data["image_channels"] = data.pop(IMAGE_CHANNELS_KEY, "knot")
            rule = dict(data["rollout"])["anchor"]
            if rule is not None:
                data["rollout"]["anchor"] = _given({r.__name__: r for r in (Ahead, Behind, Fixed)}[rule.pop("rule")], rule)
            card = _given(cls, data)
            too_large = [name for name, most in MOST.items() if not 0 < getattr(card, name) <= most]
            if too_large or card.dim % card.heads or card.head_dim % 2:
                raise ValueError(f"its sizes make no model: {', '.join(too_large) or 'dim and heads'}")
            return card
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            raise KnotForcingError(
                f"The model's card cannot be read ({str(problem)[:200]}). The file was made by another version of Knot Forcing, or is "
                f"damaged; update the pack or download the file again."
            ) from problem


MOST = {"dim": 2**16, "ffn_dim": 2**18, "layers": 200, "heads": 1024, "freq_dim": 2**16, "out_channels": 1024, "fps": 1000}
MOST |= {"width": 2**16, "height": 2**16}


def _given(kind: Any, data: Any) -> Any:
    """Plain data from JSON as the type a field has. Raises TypeError, KeyError or ValueError for anything else."""
    parts = get_args(kind)
    if dataclasses.is_dataclass(kind):
        if isinstance(data, kind):
            return data
        kinds = get_type_hints(kind)
        return kind(**{name: _given(kinds[name], value) for name, value in dict(data).items()})
    if get_origin(kind) is Literal and data in parts:
        return data
    if get_origin(kind) is tuple and isinstance(data, list):
        kinds = [parts[0]] * len(data) if parts[-1] is Ellipsis else parts
        return tuple(_given(inner, value) for inner, value in zip(kinds, data, strict=True))
    if get_origin(kind) in (Union, UnionType):
        for inner in parts:
            with contextlib.suppress(TypeError):
                return _given(inner, data)
    if kind is NoneType and data is None or kind in (int, str, bool) and type(data) is kind:
        return data
    if kind is float and type(data) in (int, float) and math.isfinite(data):
        return float(data)
    raise TypeError(f"{str(data)[:60]} is no {getattr(kind, '__name__', kind)}")
