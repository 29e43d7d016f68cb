"""What drives a stream: sound, pose, expression, motion strength, prompts. A recipe, and what it becomes for one model.

`Driving` holds sources and strengths and knows no model. `bind(card)` opens the sources and returns features in windows, computed
when they are asked for: a stream of hours starts at once and takes the memory of seconds. The same window gives the same numbers again.

Priority: a source beats the script. A pose source replaces the script's nods and turns, an expression track its smiles, a motion
track its calm and lively; a plain motion number is the base under the script's. When a source ends the stream goes on: sound
continues as silence, pose as unknown (the model is free), tracks keep their last value. Without sound an audio-driven model gets
silence, and the mouth rests; it gets no audio at all only where `audio_strength` is 0.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from .. import timeline
from ..content_id import Removed, added_later, frozen_names
from ..device import to_device
from ..encoders.log_mel import LogMel
from ..encoders.text import Prompts, TextEncoder
from ..encoders.wav2vec2 import Wav2Vec2
from ..errors import KnotForcingError
from ..models.card import ModelCard
from ..timeline import PIXELS_PER_LATENT, LatentSpan, PixelSpan
from ..types import AudioSource, ChunkConditioning, Control, Signal, TextContext
from ..vae.wan import WanVAE
from .audio import AudioArray, AudioFile, Silence
from .control import ControlLatents, ControlSource
from .expression import ExpressionTrack, expression_steps, merged
from .idle import NATURAL, Idle
from .pose import PoseSource
from .script import Script, parse_script
from .scripted_head import ScriptedHead
from .track import Keyframes, Layers, Track, constant
from .vocabulary import MOTION_AT_REST

STRONGEST = 2.0
IGNORED_SHOWN = 8  # words of a script quoted in a remark


@frozen_names(
    "driving",
    audio="audio",
    pose="pose",
    expression="expression",
    motion="motion",
    prompt="prompt",
    script="script",
    negative_prompt="negative_prompt",
    idle="idle",
    audio_strength="audio_strength",
    pose_strength="pose_strength",
    expression_strength="expression_strength",
    control="control",
    control_strength="control_strength",
    control_in_clean_pass="control_in_clean_pass",
    control_restarts=Removed(False),
)
@dataclass(frozen=True, kw_only=True)
class Driving:
    """Sources and how strongly each is obeyed: 0 ignores it, 1 is usual, 2 is the most."""

    audio: AudioSource | None = None
    pose: PoseSource | None = None
    expression: tuple[ExpressionTrack, ...] = ()  # where two have one name, the later covers the earlier
    motion: float | Track | None = None  # 0 still .. 1 usual .. 2 lively; None: the model's choice
    prompt: str = ""  # holds for ever
    script: str = ""  # lines with times, see `script.py`
    negative_prompt: str | None = added_later(None)  # what guidance leads away from, for ever; None: what the model's card says
    idle: float = added_later(0.0)  # 0..1 of natural life in lids, eyes and head, where no pose is given; under all that is, see `idle.py`
    audio_strength: float = 1.0
    pose_strength: float = 1.0
    expression_strength: float = 1.0
    control: ControlSource | None = None  # frames for a VACE module
    control_strength: float = 1.0
    control_in_clean_pass: bool = False  # whether what is remembered of finished frames has heard the control, too

    def __post_init__(self) -> None:
        named = {"audio_strength": self.audio_strength, "pose_strength": self.pose_strength}
        named |= {"expression_strength": self.expression_strength, "control_strength": self.control_strength}
        if isinstance(self.motion, int | float):
            named["motion"] = self.motion
        elif isinstance(self.motion, Keyframes):
            named |= {f"motion at {moment:g} s": value for moment, value in self.motion.keys}
        if not 0 <= self.idle <= NATURAL:
            raise KnotForcingError(f"The idle life is {self.idle:g}; it must lie between 0 (none) and {NATURAL:g} (natural).")
        for name, value in named.items():
            if not 0 <= value <= STRONGEST:
                raise KnotForcingError(f"The {name} is {value:g}; it must lie between 0 and {STRONGEST:g}. 1 is usual.")
        _ = self.words  # a script that cannot be meant is refused here, not in the middle of a stream

    @property
    def seconds(self) -> float | None:
        """How long it drives: as long as the sound, or else the pose or the control; None: nobody knows yet, or for ever."""
        for source in (self.audio, self.pose, self.control):
            if source is not None:
                return source.seconds
        return None

    @cached_property
    def words(self) -> Script:
        """Prompt and script as one script."""
        return parse_script(f"{self.prompt}\n{self.script}")

    def bind(
        self,
        card: ModelCard,
        *,
        latent_height: int,
        latent_width: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        encoder: nn.Module | None = None,
        text_encoder: TextEncoder | None = None,
        control_encoder: WanVAE | None = None,
        against: str | None = None,
        seed: int = 0,
    ) -> "BoundDriving":
        """Open the sources for the model of `card`. `encoder` is its wav2vec 2.0, `text_encoder` its reader, where it has them;
        `control_encoder` is the VAE that encodes control frames, where the model has a VACE module for them. `against` is the prompt
        that guidance leads away from, where there is guidance. `seed` decides when an idle face blinks and where it looks."""
        grid = (latent_height, latent_width)
        return BoundDriving(self, card, grid, device, dtype, encoder, text_encoder, control_encoder, against, seed)


class BoundDriving:
    """A recipe's features for one model, window by window.

    Invariants
    - Windows of any cut equal the whole.
    - Memory does not grow with the length.
    - What the model cannot use is said in `unused`, never silently dropped.
    """

    def __init__(
        self,
        driving: Driving,
        card: ModelCard,
        grid: tuple[int, int],
        device: torch.device | str,
        dtype: torch.dtype,
        encoder: nn.Module | None,
        text_encoder: TextEncoder | None,
        control_encoder: WanVAE | None = None,
        against: str | None = None,
        seed: int = 0,
    ) -> None:
        self.driving = driving
        self.card = card
        self._grid = grid
        self._device, self._dtype = device, dtype
        reads = card.text.kind != "none"
        said = Script().tracks() if reads else driving.words.tracks()
        self._audio = self._bind_audio(encoder)
        idle = Idle(seed, driving.idle if driving.pose is None else 0.0)  # a pose has a life of its own
        looks = merged((*idle.expression(), *said.expression, *driving.expression))
        head = idle.head_under(said.head)
        self._expression = looks if card.expression else {}
        self._motion = _motion(driving.motion, said.motion) if card.motion_strength else None
        scripted = ScriptedHead(**head, blink=looks.get("blink", Layers(()))) if head else None
        pose = driving.pose if driving.pose is not None else scripted
        self._pose = pose.open() if pose is not None and card.pose is not None and driving.pose_strength > 0 else None
        self._prompts = Prompts(text_encoder, against) if reads and text_encoder is not None else None
        self._is_guided = against is not None
        self._control = None
        if driving.control is not None and control_encoder is not None and driving.control_strength > 0:
            self._control = ControlLatents(driving.control, control_encoder, card.fps, *grid)
        self._takes_control = control_encoder is not None
        self.unused = tuple(self._remarks())

    @property
    def seconds(self) -> float | None:
        return self.driving.seconds

    def window(self, span: LatentSpan) -> ChunkConditioning:
        """Everything that drives the frames of `span`. Blocks while a live source has not come so far."""
        return ChunkConditioning(
            span=span,
            text=self._text(span),
            audio=self._audio_signal(span),
            pose=self._pose_signal(span),
            expression=self._expression_signal(span),
            motion=self._motion_signal(span),
            control=self._control_signal(span),
        )

    def _audio_signal(self, span: LatentSpan) -> Signal | None:
        return None if self._audio is None else Signal(self._by_frame(span, self._audio.steps), self.driving.audio_strength)

    def _pose_signal(self, span: LatentSpan) -> Signal | None:
        if self._pose is None:
            return None
        between = partial(self._pose.between, fps=self.card.fps, latent_h=self._grid[0], latent_w=self._grid[1])
        return Signal(self._by_frame(span, between), self.driving.pose_strength)

    def _expression_signal(self, span: LatentSpan) -> Signal | None:
        if not self._expression or self.driving.expression_strength == 0:
            return None
        return Signal(self._by_frame(span, self._expression_steps), self.driving.expression_strength)

    def _expression_steps(self, steps: PixelSpan) -> Tensor:
        return expression_steps(self._expression, self.card.expression, self._times(steps))

    def _motion_signal(self, span: LatentSpan) -> Signal | None:
        return None if self._motion is None else Signal(self._by_frame(span, self._motion_steps).mean(-1, keepdim=True))

    def _motion_steps(self, steps: PixelSpan) -> Tensor:
        return torch.from_numpy(self._motion.at(self._times(steps)).values.clip(0, STRONGEST))[:, None]

    def _control_signal(self, span: LatentSpan) -> Control | None:
        if self._control is None:
            return None
        latents = to_device(self._control.frames(span), self._device, self._dtype)
        return Control(latents, self.driving.control_strength, self.driving.control_in_clean_pass)

    def _text(self, span: LatentSpan) -> TextContext | None:
        """The prompt at the time that the first frame of `span` is shown."""
        if self._prompts is None:
            return None
        return self._prompts.context(self.driving.words.prompt_at(timeline.seconds(timeline.pixels(span), self.card.fps)[0]))

    def _by_frame(self, span: LatentSpan, steps: Callable[[PixelSpan], Tensor]) -> Tensor:
        """Driving steps [s, c, ...] of the frames of `span`, four to a frame, time-major: [1, f, 4c, ...]. Steps below 0 are step 0."""
        wanted = timeline.groups(span)
        first = max(0, wanted.start)
        found = steps(PixelSpan(first, max(wanted.stop, first)))
        found = torch.cat((found[:1].expand(first - wanted.start, *found.shape[1:]), found))
        return rearrange(to_device(found, self._device, self._dtype), "(f p) c ... -> 1 f (p c) ...", p=PIXELS_PER_LATENT)

    def _times(self, steps: PixelSpan) -> np.ndarray:
        return np.arange(steps.start, steps.stop) / self.card.fps

    def _bind_audio(self, encoder: nn.Module | None) -> LogMel | Wav2Vec2 | None:
        spec = self.card.audio
        if spec is None or self.driving.audio_strength == 0:
            return None
        audio = Silence() if self.driving.audio is None else self.driving.audio
        if spec.kind == "wav2vec2" and encoder is None:
            raise KnotForcingError(
                f"{self.card.name} hears through wav2vec 2.0, silence too, and no such encoder is loaded. "
                f"Load facebook/wav2vec2-base-960h beside it."
            )
        features = LogMel(audio.open(), self.card.fps) if spec.kind == "log-mel" else Wav2Vec2(audio, self.card.fps, encoder)
        if features.width != spec.width:
            raise KnotForcingError(
                f"{self.card.name} hears {spec.width} numbers per frame, and the sound ({spec.kind}) gives {features.width}. "
                f"Load the encoder the model was trained with, or update the pack and the model to versions that belong together."
            )
        return features

    def _remarks(self) -> Iterator[str]:
        """What was given and is not used, or not all of it, in words."""
        driving, card, words = self.driving, self.card, self.driving.words
        moved = words.tracks()
        if isinstance(driving.audio, AudioFile | AudioArray) and driving.audio.note:
            yield driving.audio.note
        if driving.audio is not None and card.audio is None:
            yield f"{card.name} does not listen: the sound is put under the video but moves nothing."
        if driving.pose is not None and card.pose is None:
            yield f"{card.name} takes no pose: the pose source is not used."
        if driving.idle and "blink" not in card.expression and card.pose is None:
            yield f"{card.name} obeys neither lids nor head: the idle life is not used."
        if driving.control is not None and not self._takes_control:
            yield f"{card.name} has no VACE module loaded: the control frames are not used."
        if driving.pose is not None and card.pose is not None and moved.head and card.text.kind == "none":
            yield "Both a pose source and the script move the head: the pose source is used, the script's head movements are not."
        if card.text.kind == "none":
            if moved.head and card.pose is None:
                yield f"{card.name} takes no pose: the script's head movements are not used."
            if moved.motion is not None and not card.motion_strength:
                yield f"{card.name} has no motion strength: the script's words for it are not used."
            elif moved.motion is not None and driving.motion is not None and not isinstance(driving.motion, int | float):
                yield "Both a motion track and the script set the motion strength: the track is used, the script's words for it are not."
            if words.ignored:
                shown = ", ".join(f"'{ignored}'" for ignored in words.ignored[:IGNORED_SHOWN])
                more = f" and {len(words.ignored) - IGNORED_SHOWN} more" if len(words.ignored) > IGNORED_SHOWN else ""
                known = ", ".join(f"'{phrase}'" for phrase in words.understood) or "nothing"
                yield f"{card.name} reads by a fixed vocabulary. Understood: {known}. Not understood: {shown}{more}."
        elif self._prompts is None and words.lines:
            yield f"{card.name} reads prompts, but no text encoder is loaded: the words are not used. Load its UMT5 text encoder."
        if driving.negative_prompt and not self._is_guided:
            yield "A negative prompt is used by guidance alone, and that is off (1): it is not used."
        wanted = {track.name for track in driving.expression}
        if card.text.kind == "none":
            wanted |= {track.name for track in moved.expression}
        if unknown := sorted(wanted - set(card.expression)):
            yield f"{card.name} does not obey {', '.join(unknown)}: such expression is not used."
        if driving.motion is not None and not card.motion_strength:
            yield f"{card.name} has no motion strength: it is not used."


def _motion(given: float | Track | None, said: Track | None) -> Track | None:
    """A track that was given stands alone; a number is what the script's words lie over."""
    if given is not None and not isinstance(given, int | float):
        return given
    if given is None and said is None:
        return None
    base = constant(MOTION_AT_REST if given is None else given)
    return base if said is None else Layers((base, said))
