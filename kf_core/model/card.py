"""ModelCard: what a generator is and how it wants to be run.

kf-tiny's file carries its card in the header; `checkpoints/known.py` is a table of cards for files that carry none.
Nodes and command line read nothing else about a model.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

from ..errors import KnotForcingError
from ..settings import Ahead, Behind, Fixed, RolloutSettings

CARD_KEY = "knot_forcing"  # the safetensors metadata entry that holds a card as JSON


@dataclass(frozen=True, kw_only=True)
class AudioSpec:
    """What the model hears. One feature vector per picture; four of them make a latent frame's input."""

    kind: Literal["log-mel", "wav2vec2"]
    width: int  # numbers per picture
    code: int = 32  # width of the code between projection and layers
    first_layer: int = 2  # the code is added before layers first_layer .. last_layer
    last_layer: int = 15


@dataclass(frozen=True, kw_only=True)
class PoseSpec:
    """How the model sees a pose: pictures in OpenPose face-70 colours, drawn on the latent grid."""

    standard: Literal["openpose-face-70"] = "openpose-face-70"
    channels: int = 3


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """What the model reads. `none`: it has no text encoder, prompts become driving tracks by a fixed vocabulary."""

    kind: Literal["none", "umt5"]
    width: int = 4096
    tokens: int = 512


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a generator is. Everything is a value; two equal cards describe interchangeable models."""

    name: str
    dim: int
    ffn_dim: int
    layers: int
    heads: int
    in_channels: Literal[16, 33, 36]  # noise; + picture and mask (0 known); + mask x 4 (1 known) and picture
    out_channels: int = 16
    picture: Literal["knot", "portrait"] = "knot"  # the picture channels hold the knot and nothing else, or the portrait on every frame
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
    note: str = ""  # shown to the user on loading; a warning about the licence or the limits
    source: str = ""  # where the file comes from

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    def to_json(self) -> str:
        """The card as text for a file's header; `from_json` restores an equal card."""
        data = dataclasses.asdict(self)
        if self.rollout.anchor is not None:
            data["rollout"]["anchor"]["rule"] = type(self.rollout.anchor).__name__
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Raises KnotForcingError when the text is not a card this version understands."""
        try:
            data = json.loads(text)
            rollout = dict(data.pop("rollout"))
            if rollout["anchor"] is not None:
                rule = dict(rollout["anchor"])
                rollout["anchor"] = {r.__name__: r for r in (Ahead, Behind, Fixed)}[rule.pop("rule")](**rule)
            for name in ("schedule", "first_schedule"):
                if rollout[name] is not None:
                    rollout[name] = tuple(tuple(step) for step in rollout[name])
            for name, spec in (("text", TextSpec), ("audio", AudioSpec), ("pose", PoseSpec)):
                data[name] = spec(**data[name]) if data[name] is not None else None
            data["expression"] = tuple(data["expression"])
            return cls(rollout=RolloutSettings(**rollout), **data)
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise KnotForcingError(
                f"The model's card cannot be read ({problem}). The file was made by another version of Knot Forcing, or is damaged; "
                f"update the pack or download the file again."
            ) from problem
