"""Cards of known generators, for files that carry none: nothing in the tensors tells chunk length, window or schedule.

Constants are those of the authors' configurations. Source of each is in its card.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ..model.card import AudioSpec, ModelCard, PoseSpec, TextSpec
from ..schedule import warped
from ..settings import Ahead, RolloutSettings

EXPRESSION = ("smile", "brows", "gaze_x", "gaze_y", "blink")
WAN_1_3B = dict(dim=1536, ffn_dim=8960, layers=30, heads=12)


def kf_tiny(size: int = 96) -> ModelCard:
    """The bundled model: the same code at small dims, trained by this project on cartoon portraits it draws itself."""
    return ModelCard(
        name="kf-tiny",
        dim=256,
        ffn_dim=1024,
        layers=6,
        heads=2,
        in_channels=33,
        text=TextSpec(kind="none", width=64, tokens=1),
        audio=AudioSpec(kind="log-mel", width=256, code=64, first_layer=1, last_layer=5),
        pose=PoseSpec(),
        expression=EXPRESSION,
        motion_strength=True,
        rollout=RolloutSettings(schedule=warped(), anchor=Ahead(20, 20)),
        width=size,
        height=size,
        note="kf-tiny draws cartoons: it was trained on procedural cartoon portraits and is not meant for photographs.",
        source="bundled; made by `python -m kf_core.training kf-tiny`",
    )


def self_forcing() -> ModelCard:
    """Self-Forcing DMD, as its authors run it: every frame is remembered."""
    return ModelCard(
        name="Self-Forcing 1.3B",
        **WAN_1_3B,
        in_channels=16,
        text=TextSpec(kind="umt5"),
        rollout=RolloutSettings(knot=None, fuse=False, anchor=None, window=None, max_frames=21, schedule=warped()),
        source="gdhe17/Self-Forcing, checkpoints/self_forcing_dmd.pt",
    )


def livetalk() -> ModelCard:
    """LiveTalk 1.3B, as its authors run it: the first 9 frames pinned, 6 in the window, frame 0 is the portrait."""
    schedule = ((1.0, 1000.0), (0.9375, 936.0), (5 / 6, 832.0), (0.625, 624.0))  # t was rounded to bf16 in training
    return ModelCard(
        name="LiveTalk 1.3B",
        **WAN_1_3B,
        in_channels=33,
        picture="portrait",
        text=TextSpec(kind="umt5"),
        audio=AudioSpec(kind="wav2vec2", width=14 * 768, code=32, first_layer=2, last_layer=15),
        rollout=RolloutSettings(knot=None, fuse=False, anchor=None, window=6, pinned=9, first_frame="pin", schedule=schedule),
        width=512,
        height=512,
        licence="README: Apache-2.0; LICENSE file: CC BY-NC-SA 4.0",
        note="LiveTalk's README says Apache-2.0, its LICENSE file CC BY-NC-SA 4.0 (non-commercial): ask its authors before commercial use.",
        source="GAIR/LiveTalk-1.3B-V0.1, model.safetensors",
    )


@dataclass(frozen=True)
class Known:
    """A checkpoint that can be told by the shapes of a few of its tensors, or by its file name."""

    card: ModelCard
    file_names: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]

    def fits(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        return all(tuple(shapes.get(name, ())) == shape for name, shape in self.shapes.items()) and (
            ("audio_proj.proj.weight" in shapes) == ("audio_proj.proj.weight" in self.shapes)
        )


def known() -> tuple[Known, ...]:
    """All known checkpoints. Those that share their shapes are told apart by file name; the first is assumed."""
    return (
        Known(self_forcing(), ("self_forcing_dmd",), {"patch_embedding.weight": (1536, 16, 1, 2, 2)}),
        Known(livetalk(), ("livetalk",), {"patch_embedding.weight": (1536, 33, 1, 2, 2), "audio_proj.proj.weight": (32, 43008)}),
    )


def recognise(shapes: Mapping[str, tuple[int, ...]], file_name: str = "") -> ModelCard | None:
    """The card of a checkpoint by the shapes of its tensors (Wan's own names) and its file name, or None."""
    fitting = [k for k in known() if k.fits(shapes)]
    named = [k for k in fitting if any(part in file_name.lower() for part in k.file_names)]
    return next((k.card for k in named + fitting), None)
