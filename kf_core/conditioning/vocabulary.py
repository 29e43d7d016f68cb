"""The words a model without a text encoder understands, and what each of them moves.

A fixed table, so that a script means the same in every version: phrases on the left, what they do on the right. Degrees
(slight, big) scale what follows or precedes them, negations (no, stop) bring it to rest. Left and right are the viewer's.
Angles in degrees. Knows nothing of time codes; see `script.py`.
"""

import re
from dataclasses import dataclass, replace
from functools import cache

from .expression import RANGES
from .track import Gesture, Held, Track

MOTION_AT_REST = 1.0
LIMITS = {**RANGES, "yaw": (-35.0, 35.0), "pitch": (-25.0, 25.0), "roll": (-25.0, 25.0), "motion": (0.0, 2.0)}


@dataclass(frozen=True)
class Action:
    """What a word moves: a track and how far."""

    track: str
    value: float
    gesture: Gesture | None = None  # None: it is held

    def scaled(self, degree: float) -> "Action":
        rest = MOTION_AT_REST if self.track == "motion" else 0.0
        lowest, highest = LIMITS[self.track]
        return replace(self, value=min(highest, max(lowest, rest + (self.value - rest) * degree)))

    def between(self, start: float, stop: float) -> Track:
        if self.gesture is None:
            return Held(self.value, start, stop)
        return replace(self.gesture, value=self.value, start=start, stop=stop)


NODDING = Gesture(1.0, hz=1.25, burst=1.6, period=2.6)
SHAKING = Gesture(1.0, hz=1.25, burst=1.6, period=2.6, is_two_sided=True)
BLINKING = Gesture(1.0, hz=4.0, burst=0.25, period=2.5)
LAUGHING = Gesture(1.0, hz=3.0, burst=1.0, period=2.0)

VOCABULARY: dict[str, tuple[Action, ...]] = {
    "smile | happy | joyful | friendly | cheerful": (Action("smile", 0.7),),
    "grin | delighted": (Action("smile", 1.0),),
    "laugh": (Action("smile", 1.0), Action("brows", 0.2), Action("pitch", 3.0, LAUGHING), Action("motion", 1.4)),
    "sad | unhappy | sorrow": (Action("smile", -0.7), Action("brows", 0.2)),
    "frown | worried | displeased": (Action("smile", -0.6), Action("brows", -0.5)),
    "angry | annoyed | furious": (Action("smile", -0.4), Action("brows", -0.9)),
    "serious | stern": (Action("smile", -0.15), Action("brows", -0.3)),
    "surprised | amazed | astonished | shocked": (Action("brows", 0.9),),
    "raise brow | raise eyebrow | brow up | eyebrow up | raised brow | raised eyebrow": (Action("brows", 0.8),),
    "lower brow | lower eyebrow | brow down | eyebrow down | knit brow": (Action("brows", -0.8),),
    "neutral | relaxed": (Action("smile", 0.0), Action("brows", 0.0)),
    "nod | say yes | agree": (Action("pitch", 12.0, NODDING),),
    "shake head | shake | say no | disagree": (Action("yaw", 13.0, SHAKING),),
    "look left | glance left | gaze left | eye left": (Action("gaze_x", -0.8),),
    "look right | glance right | gaze right | eye right": (Action("gaze_x", 0.8),),
    "look up | glance up | gaze up": (Action("gaze_y", -0.8),),
    "look down | glance down | gaze down": (Action("gaze_y", 0.8),),
    "look camera | look straight | look ahead | look viewer | look forward | eye contact": (Action("gaze_x", 0.0), Action("gaze_y", 0.0)),
    "turn left | turn head left | head left | face left": (Action("yaw", -20.0),),
    "turn right | turn head right | head right | face right": (Action("yaw", 20.0),),
    "head up | raise head | lift head | chin up": (Action("pitch", -12.0),),
    "head down | lower head | bow | chin down": (Action("pitch", 14.0),),
    "tilt | tilt head | tilt right | tilt head right": (Action("roll", 11.0),),
    "tilt left | tilt head left": (Action("roll", -11.0),),
    "face camera | face forward | head straight | face viewer | turn camera": (
        Action("yaw", 0.0),
        Action("pitch", 0.0),
        Action("roll", 0.0),
    ),
    "blink": (Action("blink", 1.0, BLINKING),),
    "close eye | eye closed | sleep | asleep": (Action("blink", 1.0),),
    "open eye | eye open": (Action("blink", 0.0),),
    "still | motionless | freeze": (Action("motion", 0.2),),
    "calm | quiet | serene": (Action("motion", 0.6),),
    "lively | animated": (Action("motion", 1.4),),
    "energetic | excited | vivid": (Action("motion", 1.8),),
}
DEGREES = {"slight": 0.5, "slightly": 0.5, "bit": 0.5, "little": 0.5, "soft": 0.5, "softly": 0.5, "gentle": 0.5, "gently": 0.5}
DEGREES |= {"small": 0.5, "faint": 0.35, "subtle": 0.35, "barely": 0.25, "half": 0.5}
DEGREES |= {"big": 1.45, "broad": 1.45, "wide": 1.45, "strong": 1.45, "strongly": 1.45, "very": 1.45, "really": 1.45, "extremely": 1.9}
DEGREES |= {"no": 0.0, "not": 0.0, "without": 0.0, "stop": 0.0, "stops": 0.0, "stopping": 0.0, "never": 0.0, "dont": 0.0, "doesnt": 0.0}
FILLERS = set("a an the to is are be of in at on do does his her their its he she they it him them for who as".split())
# What a face has and does anyway: named, but nothing to move.
UNMOVED = set("look head eye face expression talk speak say person man woman camera turn raise brow eyebrow".split())


@dataclass(frozen=True)
class Understanding:
    actions: tuple[Action, ...]
    understood: tuple[str, ...]  # phrases of the table
    ignored: tuple[str, ...]  # the user's words that move nothing


def understand(text: str) -> Understanding:
    """What `text` asks for. Clauses are parted by commas, "and" and the like; a degree does not reach beyond its clause."""
    actions: list[Action] = []
    understood: list[str] = []
    ignored: list[str] = []
    for clause in re.split(r"[,;.:!?/\n]+|\b(?:and|then|while|with)\b", text.lower()):
        _clause(clause, actions, understood, ignored)
    return Understanding(tuple(actions), tuple(dict.fromkeys(understood)), tuple(dict.fromkeys(ignored)))


def _clause(clause: str, actions: list[Action], understood: list[str], ignored: list[str]) -> None:
    raw = [word for word in re.findall(r"[^\W_]+", clause.replace("'", "").replace("’", "")) if word not in FILLERS]
    words = [_stem(word) for word in raw]
    degree, first_of_clause, unknown = 1.0, len(actions), []

    def note_unknown() -> None:
        if unknown:
            ignored.append(" ".join(unknown))
            unknown.clear()

    index, is_pending = 0, False
    while index < len(words):
        size = next((n for n in (3, 2, 1) if tuple(words[index : index + n]) in _phrases()), 0)
        if size:
            note_unknown()
            phrase = tuple(words[index : index + size])
            first_of_last = len(actions)
            actions += [action.scaled(degree) for action in _phrases()[phrase]]
            understood.append(" ".join(phrase))
            degree, is_pending, index = 1.0, False, index + size
            continue
        if raw[index] in DEGREES:
            note_unknown()
            factor = DEGREES[raw[index]]
            is_last_word = index == len(words) - 1
            if is_last_word and not is_pending and len(actions) > first_of_clause:  # "smile slightly"
                actions[first_of_last:] = [action.scaled(factor) for action in actions[first_of_last:]]
            else:
                degree, is_pending, degree_word = degree * factor, True, raw[index]
        elif words[index] not in UNMOVED:
            unknown.append(raw[index])
        index += 1
    if is_pending:
        unknown.append(degree_word)
    note_unknown()


@cache
def _phrases() -> dict[tuple[str, ...], tuple[Action, ...]]:
    return {tuple(phrase.split()): actions for phrases, actions in VOCABULARY.items() for phrase in phrases.split(" | ")}


@cache
def _words() -> frozenset[str]:
    return frozenset(word for phrase in _phrases() for word in phrase) | UNMOVED


def _stem(word: str) -> str:
    """The form of `word` that the table holds: smiling, smiles, smiled -> smile; nodding -> nod."""
    if word in _words():
        return word
    for ending in ("s", "es", "d", "ed", "ing", "ly"):
        stem = word.removesuffix(ending)
        if stem != word:
            doubled = stem[:-1] if len(stem) > 2 and stem[-1] == stem[-2] else stem
            for form in (stem, stem + "e", doubled):
                if form in _words():
                    return form
    return word
