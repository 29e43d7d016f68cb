"""How a stream is rolled out, as values: every switch of the method and of its ablations.

Lengths are in latent frames. A `ModelCard` carries the settings its model was trained with; a user changes one with
`dataclasses.replace`. Source: Knot Forcing, arXiv 2512.21734; the presets name whose rollout they equal.
"""

from dataclasses import dataclass
from typing import Literal

from .content_id import LEFT_OUT, added_later, frozen_names
from .errors import KnotForcingError
from .timeline import LatentSpan

KnotForm = Literal["inpaint", "blend", "pin"]
STRONGEST_GUIDANCE = 30.0


@frozen_names("anchor ahead", start="start", stride="stride")
@dataclass(frozen=True)
class Ahead:
    """The anchor stands at `start` and jumps on by `stride` whenever the rollout reaches it ("running ahead")."""

    start: int = 20  # last latent index of an 81-frame training clip
    stride: int = 20  # = start, so that the lead runs through the whole trained range 1..20

    def __post_init__(self) -> None:
        if self.start < 1 or self.stride < 1:
            raise KnotForcingError(
                f"The anchor runs ahead from {self.start} in strides of {self.stride} latent frames; both must be at least 1."
            )

    def position(self, stop: int) -> int:
        """The anchor's position while frames up to `stop - 1` are denoised: always beyond them."""
        if stop <= self.start:
            return self.start
        return self.start + self.stride * -(-(stop - self.start) // self.stride)


@frozen_names("anchor behind", gap="gap")
@dataclass(frozen=True)
class Behind:
    """The anchor follows `gap` latent frames behind the first frame that is denoised (ablation)."""

    gap: int = 4

    def position(self, start: int) -> int:
        return start - self.gap


@frozen_names("anchor fixed", position="position")
@dataclass(frozen=True)
class Fixed:
    """The anchor never moves (ablation)."""

    position: int = 0


AnchorRule = Ahead | Behind | Fixed


@frozen_names(
    "rollout",
    chunk="chunk",
    first_chunk="first_chunk",
    knot_frames="knot_frames",
    knot="knot",
    fuse="fuse",
    window="window",
    anchor="anchor",
    pinned="pinned",
    pinned_place="pinned_place",
    first_frame="first_frame",
    schedule="schedule",
    first_schedule="first_schedule",
    max_frames=LEFT_OUT,  # room for the frames, which decides none of them
    renoise="renoise",
    shift=LEFT_OUT,  # the schedule that came of it counts
    guidance="guidance",
)
@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """How a stream is rolled out. Lengths in latent frames."""

    chunk: int = 3
    first_chunk: int | None = None  # length of the first chunk, where it differs (AvatarForcing: 1, then 4)
    knot_frames: int = 1  # frames denoised twice: the end of one chunk, the start of the next
    knot: KnotForm | None = "inpaint"  # how the handed-over frames enter the next chunk; None: no knot
    fuse: bool = True  # average the frames denoised twice (Eq. 5); otherwise the second estimate stands
    window: int | None = 6  # frames attended, past and current, without what is pinned; None: all of them
    anchor: AnchorRule | None = Ahead()  # where the portrait stands in time; None: no anchor is cached
    pinned: int = 0  # the first committed frames that are never evicted (others call them a sink)
    pinned_place: Literal["absolute", "in front"] = "absolute"  # "in front": just before the window (LongLive's endless mode)
    # "pin": frame 0 is the portrait at every step and in the result (LiveTalk); "tie": the portrait is the first chunk's knot
    first_frame: Literal["free", "pin", "tie"] = "free"
    schedule: tuple[tuple[float, float], ...]  # (sigma, t) of each step; t is what the network is told
    first_schedule: tuple[tuple[float, float], ...] | None = None  # for the first chunk, where it differs (Causal-Forcing++)
    max_frames: int | None = None  # only with an unlimited window: its cache is allocated once
    renoise: bool = added_later(True)  # between steps: the estimate under fresh noise (few-step students), or an Euler step along the flow
    shift: float = added_later(5.0)  # how the steps of the schedule are spaced, for one of another length
    guidance: float = added_later(1.0)  # how far the flow goes from the negative prompt's to the prompt's; 1: there, without asking both

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise KnotForcingError(f"A chunk of {self.chunk} latent frames denoises nothing. `chunk` must be at least 1.")
        if self.first_chunk is not None and not self.knot_length <= self.first_chunk <= self.chunk:
            raise KnotForcingError(
                f"The first chunk ({self.first_chunk} latent frames) must lie between the knot ({self.knot_length}) "
                f"and the chunk ({self.chunk})."
            )
        if self.knot_frames < 0 or (self.knot is not None and self.knot_frames == 0):
            raise KnotForcingError(f"A knot of {self.knot_frames} latent frames ties nothing. Set `knot_frames` to 1, or `knot` to none.")
        if self.knot_length > self.chunk:
            raise KnotForcingError(
                f"The knot ({self.knot_frames} latent frames) cannot be longer than the chunk ({self.chunk}). "
                f"Lower `knot_frames` or raise `chunk`."
            )
        if self.knot == "pin" and self.fuse:
            raise KnotForcingError(
                "A knot that is pinned is copied, so there is nothing to average. Set `fuse` to off, or `knot` to inpaint or blend."
            )
        if self.window is not None and self.window < self.denoised:
            raise KnotForcingError(
                f"The window ({self.window}) is smaller than the frames denoised at once (chunk {self.chunk} + knot {self.knot_length}). "
                f"Raise `window` to at least {self.denoised}."
            )
        if self.window is None and self.max_frames is None:
            raise KnotForcingError("An unlimited window remembers every frame, so it needs `max_frames`. Set it, or set a `window`.")
        if not 1 <= self.guidance <= STRONGEST_GUIDANCE:
            raise KnotForcingError(
                f"The guidance is {self.guidance:g}; it must lie between 1 (off) and {STRONGEST_GUIDANCE:g}. Plain Wan 2.1 uses 6."
            )
        if not self.schedule:
            raise KnotForcingError("The schedule has no step. At least 1 step is needed; 4 is what the models were trained with.")

    @property
    def knot_length(self) -> int:
        """Frames that each chunk denoises beyond its output."""
        return self.knot_frames if self.knot is not None else 0

    @property
    def begins_on_portrait(self) -> bool:
        """Whether the portrait is handed to the first chunk as its knot; a stream that has none begins freely."""
        return self.first_frame == "tie" and self.knot is not None

    @property
    def is_guided(self) -> bool:
        """Whether each step asks the model twice."""
        return self.guidance != 1

    @property
    def denoised(self) -> int:
        """Frames that one chunk denoises."""
        return self.chunk + self.knot_length

    def output_span(self, chunk: int) -> LatentSpan:
        """The frames that chunk number `chunk` outputs and commits."""
        first = self.chunk if self.first_chunk is None else self.first_chunk
        start = 0 if chunk == 0 else first + (chunk - 1) * self.chunk
        return LatentSpan(start, start + (first if chunk == 0 else self.chunk))

    def chunk_of(self, frame: int) -> int:
        """The chunk that outputs `frame`."""
        first = self.chunk if self.first_chunk is None else self.first_chunk
        return 0 if frame < first else 1 + (frame - first) // self.chunk

    def steps(self, chunk: int) -> tuple[tuple[float, float], ...]:
        """The (sigma, t) of each denoising step of chunk number `chunk`."""
        return self.first_schedule if chunk == 0 and self.first_schedule is not None else self.schedule

    @property
    def past(self) -> int:
        """Committed frames that one chunk may read, without what is pinned."""
        return self.max_frames if self.window is None else self.window - self.denoised
