"""A video file read back: what it is, and its frames, upright, each at the time that its stamp says.

    stamps   0 . . . 2.0 -- 2.1 -- 2.2 -- ...   a telephone's or a screen recording's rate changes; `shown` asks what is seen when

Time 0 is where a player begins, as for the sound of the file (`sound.py`). Knows nothing of how a file was made; any that PyAV opens does.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import KnotForcingError
from .opening import opened, start_of

LAST_AT_MOST = Fraction(1, 2)  # seconds; how long the last frame is shown at most, where only the one before tells


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What a video file holds, counted from its packets."""

    frames: int
    seconds: float  # of the frames
    fps: float
    width: int
    height: int
    sound_seconds: float  # 0: no sound
    sample_rate: int | None
    channels: int | None
    metadata: dict[str, str]

    @property
    def has_sound(self) -> bool:
        return self.sound_seconds > 0


@dataclass(frozen=True, kw_only=True)
class VideoFormat:
    """How a video file stores frames and sound."""

    rate: Fraction  # frames a second
    width: int
    height: int
    sample_rate: int | None  # None: no sound
    channels: int | None


def probe(path: Path | str) -> VideoFacts:
    """Count what is in a video file, decoding its first frame only."""
    with _open(path) as container:
        film = _film_track(container)
        sound = container.streams.audio[0] if container.streams.audio else None
        start = start_of(container)
        count, sound_end, own = 0, 0.0, Fraction(0)
        first: Fraction | None = None
        last: list[Fraction] = []  # the latest two stamps of frames
        for packet in container.demux():
            if packet.pts is None or not packet.size:
                continue
            if packet.stream is film and not packet.is_discard:
                count += 1
                stamp = packet.pts * packet.time_base
                first = stamp if first is None else min(first, stamp)
                last = sorted((*last, stamp))[-2:]
                if last[-1] == stamp:
                    own = (packet.duration or 0) * packet.time_base
            elif packet.stream is sound:
                sound_end = max(sound_end, float((packet.pts + packet.duration) * packet.time_base))
        with _open(path) as again:  # what was counted has been read to its end
            format = _format(container, _is_on_its_side(again))
        seconds = count / format.rate  # exact where the rate is constant; stamps may be rounded
        if last:
            by_stamps = last[-1] - first + _shown_for(own, last[-1] - last[0], format.rate)
            seconds = seconds if abs(seconds - by_stamps) < 2 * film.time_base else by_stamps
            seconds += first - Fraction(start)
        return VideoFacts(
            frames=count,
            seconds=float(seconds),
            fps=float(format.rate),
            width=format.width,
            height=format.height,
            sound_seconds=sound_end,
            sample_rate=format.sample_rate,
            channels=format.channels,
            metadata=dict(container.metadata),
        )


def format_of(path: Path | str) -> VideoFormat:
    """How a video file stores frames and sound, from its beginning alone: hours are opened in a moment."""
    with _open(path) as container:
        return _format(container, _is_on_its_side(container))


def metadata(path: Path | str) -> dict[str, str]:
    """What a video file says of itself, without counting what is in it."""
    with _open(path) as container:
        return dict(container.metadata)


def frames(path: Path | str, start: int = 0) -> Iterator[Tensor]:
    """The frames of a video file from number `start` on, one after the other: [h, w, 3] RGB 0..1. Those before are only decoded."""
    with _open(path) as container:
        for frame in islice(container.decode(_film_track(container)), start, None):
            yield _rgb(frame)


def shown(path: Path | str, fps: float, start: int = 0) -> Iterator[Tensor]:
    """What a video shows at each of our moments from number `start` on, `fps` a second, until it ends: [h, w, 3] RGB 0..1.

    A frame that is on show at several moments is the same tensor."""
    moment = start
    with _open(path) as container:
        film = _film_track(container)
        early = float(film.time_base) / 2 + 1e-6  # a stamp may be rounded up
        for frame, end in _with_ends(container, film):
            image = None
            while moment / fps + early < end:
                image = _rgb(frame) if image is None else image
                yield image
                moment += 1


def _with_ends(container, film) -> Iterator[tuple]:
    """Each frame, and when the next one takes its place. Before the first there is the first."""
    rate, start = film.average_rate or film.guessed_rate or Fraction(25), start_of(container)
    held, time, before = None, 0.0, 0.0
    for frame in container.decode(film):
        if held is not None:
            stamp = frame.time - start if frame.time is not None else time + float(1 / rate)
            before, time = time, max(time, stamp)
            yield held, time
        elif frame.time is not None:
            before = time = frame.time - start
        held = frame
    if held is not None:
        own = (held.duration or 0) * held.time_base if held.time_base else 0
        yield held, time + float(_shown_for(own, Fraction(time - before), rate))


def _shown_for(own: Fraction, before: Fraction, rate: Fraction) -> Fraction:
    """How long the last frame is shown: as it says itself, or, where that is far shorter (often one tick), as long as the one before."""
    before = min(before, LAST_AT_MOST)
    return (own if own > before / 2 else before) or 1 / rate


def _rgb(frame) -> Tensor:
    rgb = _turned(frame.reformat(format="rgb24").to_ndarray(), *_turn(frame))
    return torch.from_numpy(np.ascontiguousarray(rgb)).float() / 255


def _turn(frame) -> tuple[bool, bool, bool]:
    """Whether rows and columns change places, and what is then mirrored, left-right and upside down, as the display matrix says."""
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return False, False, False
    # FFmpeg's layout, of which the first two rows turn:  x' = a x + c y,  y' = b x + d y
    a, b, _, c, d = (int(value) for value in np.frombuffer(found, np.int32)[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _turned(rgb: np.ndarray, is_transposed: bool, is_mirrored: bool, is_upside_down: bool) -> np.ndarray:
    rgb = rgb.transpose(1, 0, 2) if is_transposed else rgb
    return rgb[:: -1 if is_upside_down else 1, :: -1 if is_mirrored else 1]


def _film_track(container):
    """The first track of frames that is a film, and not the cover of a song."""
    from av.stream import Disposition

    tracks = container.streams.video
    return next((track for track in tracks if not track.disposition & Disposition.attached_pic), tracks[0])


def _format(container, is_on_its_side: bool) -> VideoFormat:
    film = _film_track(container)
    sound = container.streams.audio[0] if container.streams.audio else None
    width, height = film.codec_context.width, film.codec_context.height
    if is_on_its_side:
        width, height = height, width
    return VideoFormat(
        rate=film.average_rate or film.guessed_rate,
        width=width,
        height=height,
        sample_rate=sound.codec_context.sample_rate if sound else None,
        channels=sound.codec_context.layout.nb_channels if sound else None,
    )


def _is_on_its_side(container) -> bool:
    """Whether a player turns the frames by a quarter, as the first one says."""
    import av

    try:
        first = next(container.decode(_film_track(container)), None)
    except av.FFmpegError:
        return False
    return first is not None and _turn(first)[0]


@contextmanager
def _open(path: Path | str):
    import av  # only here: who opens no video, as training does, needs no video library

    with ExitStack() as stack:
        try:
            container = stack.enter_context(opened(path, "video"))
        except (av.FFmpegError, OSError) as problem:
            raise KnotForcingError(f"{path} cannot be read as a video. It may be empty, cut off or of another kind.") from problem
        if not container.streams.video:
            raise KnotForcingError(f"{path} holds no frames. Give a video file.")
        yield container
