"""A script: what should happen when, in words.

    [00:10-00:20] slight smile, nod
    [00:20-] look at the camera
    calm

Minutes and seconds, seconds alone, or hours too; an open end lasts for ever, and so does a line without a time. Where lines
overlap, the later line wins for whatever both of them move. A model with a text encoder reads the words themselves
(`prompt_at`); one without gets tracks by a fixed vocabulary (`tracks`).
"""

import re
from dataclasses import dataclass
from functools import cached_property
from math import inf

from ..errors import KnotForcingError
from .expression import RANGES, ExpressionTrack
from .track import Layers, Track
from .vocabulary import Understanding, understand

FORM = "Write times as [00:10-00:20], minutes and seconds, or as [00:10-] for an open end."
_DASH = re.compile(r"\s*(?:-|–|—|\bto\b)\s*")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d+)?)s?")


@dataclass(frozen=True)
class Line:
    """Words and when they hold, in seconds."""

    words: str
    start: float = 0.0
    stop: float = inf


@dataclass(frozen=True)
class ScriptTracks:
    """What a script moves. Angles in degrees; motion strength 0..2."""

    expression: tuple[ExpressionTrack, ...]
    head: dict[str, Track]  # some of yaw, pitch, roll
    motion: Track | None


@dataclass(frozen=True)
class Script:
    """Lines in the order they were written."""

    lines: tuple[Line, ...] = ()

    def prompt_at(self, seconds: float) -> str:
        """The words that hold at this moment, in the order they were written."""
        return ", ".join(line.words for line in self.lines if line.start <= seconds < line.stop)

    def prompts(self) -> tuple[Line, ...]:
        """The stretches in which the words stay the same, from 0 to for ever; silent stretches have no words."""
        moments = sorted({0.0, *(line.start for line in self.lines), *(line.stop for line in self.lines if line.stop < inf)})
        stretches: list[Line] = []
        for start, stop in zip(moments, [*moments[1:], inf], strict=True):
            words = self.prompt_at(start)
            if stretches and stretches[-1].words == words:
                start = stretches.pop().start
            stretches.append(Line(words, start, stop))
        return tuple(stretches)

    def tracks(self) -> ScriptTracks:
        """The script as tracks, later lines over earlier ones."""
        layers: dict[str, list[Track]] = {}
        for line, meaning in zip(self.lines, self._meanings, strict=True):
            for action in meaning.actions:
                layers.setdefault(action.track, []).append(action.between(line.start, line.stop))
        tracks = {name: Layers(tuple(several)) for name, several in layers.items()}
        return ScriptTracks(
            expression=tuple(ExpressionTrack(name, tracks[name]) for name in RANGES if name in tracks),
            head={name: tracks[name] for name in ("yaw", "pitch", "roll") if name in tracks},
            motion=tracks.get("motion"),
        )

    @property
    def understood(self) -> tuple[str, ...]:
        """The phrases of the vocabulary that were found."""
        return tuple(dict.fromkeys(phrase for meaning in self._meanings for phrase in meaning.understood))

    @property
    def ignored(self) -> tuple[str, ...]:
        """The words that move nothing in a model without a text encoder."""
        return tuple(dict.fromkeys(words for meaning in self._meanings for words in meaning.ignored))

    @cached_property
    def _meanings(self) -> tuple[Understanding, ...]:
        return tuple(understand(line.words) for line in self.lines)


def parse_script(text: str) -> Script:
    """Raises KnotForcingError for a time that cannot be meant. Brackets without a digit are left as words."""
    lines: list[Line] = []
    for written in text.splitlines():
        pieces = re.split(r"\[([^\[\]]*\d[^\[\]]*)\]", written)  # words, time, words, time, words ...
        if words := _words(pieces[0]):
            lines.append(Line(words))
        for time, said in zip(pieces[1::2], pieces[2::2], strict=True):
            start, stop = _stretch(time)
            if words := _words(said):
                lines.append(Line(words, start, stop))
    return Script(tuple(lines))


def _words(text: str) -> str:
    return text.strip(" \t,;")


def _stretch(time: str) -> tuple[float, float]:
    start, *rest = _DASH.split(time.strip(), maxsplit=1)
    first = _seconds(start, time) if start else 0.0
    last = _seconds(rest[0], time) if rest and rest[0] else inf
    if last <= first:
        raise KnotForcingError(f"The script's [{time}] ends before it begins. Put the earlier time first. {FORM}")
    return first, last


def _seconds(clock: str, time: str) -> float:
    match = _CLOCK.fullmatch(clock.strip())
    if match is None:
        raise KnotForcingError(f"The script's [{time}] is not a time: {clock.strip()!r} cannot be read. {FORM}")
    hours, minutes, seconds = int(match[1] or 0), int(match[2] or 0), float(match[3].replace(",", "."))
    if (match[2] and seconds >= 60) or (match[1] and minutes >= 60):
        raise KnotForcingError(f"The script's [{time}] is not a time: in {clock.strip()!r} minutes and seconds must stay below 60. {FORM}")
    return 3600 * hours + 60 * minutes + seconds
