"""What the pack's own wires carry from node to node, and their names on the canvas.

Values and recipes only, never something that runs: the host keeps what passed a wire and hands it out again.
"""

from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from ..kf_core.conditioning.anchor import Anchor
from ..kf_core.conditioning.driving import Driving
from ..kf_core.planning.presets import AUTO
from ..kf_core.settings import RolloutSettings

AnchorWire = io.Custom("KF_ANCHOR")  # kf_core's Anchor
DrivingWire = io.Custom("KF_DRIVING")  # Driver
StreamWire = io.Custom("KF_STREAM")  # Recipe
SegmentWire = io.Custom("KF_SEGMENT")  # Segment


@dataclass(frozen=True, kw_only=True, eq=False)
class Driver:
    """What drives a stream, and the host's encoders that its sound and its words may need."""

    driving: Driving = Driving()
    audio_encoder: Any = None  # the host's AUDIO_ENCODER, for models that hear through wav2vec 2.0
    clip: Any = None  # the host's CLIP, for models that read
    vace: Any = None  # a VaceModule, where control frames lead
    control_vae: Any = None  # the host's VAE that encodes them


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """All that decides a stream but the decoder, and how its frames are to be made."""

    model: Any  # the host's MODEL, with a card attached
    anchor: Anchor  # on the CPU
    driver: Driver
    settings: RolloutSettings
    seed: int
    seconds: float
    tune: str = AUTO  # a preset of kf_core: what the decoding is fitted to; decides no latent


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Some frames of a stream, as they went out for others to work on."""

    stream: str  # the name of the stream they are from
    model: str  # the generator's name
    seed: int
    index: int
    seconds: float  # of each segment
    start: int  # the first frame, counted from the beginning of the stream
    frames: int
    of: int  # frames in the whole stream
    fps: float
    driver: Driver  # has the sound of the whole stream
