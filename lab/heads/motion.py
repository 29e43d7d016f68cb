"""What a face does over time, as a few tracks with the product's meanings, and these tracks as ARKit weights.

Signs as in kf_core/conditioning/head.py: yaw > 0 turns to the viewer's right, pitch > 0 looks down, roll > 0 tips clockwise; gaze x > 0
looks to the viewer's right, y > 0 down. Mouth as in lab/kf_tiny/visemes.py: open 0..1, wide -1 (round) .. 1, bite 0..1.
"""

from dataclasses import dataclass, fields

import numpy as np

from lab.kf_tiny.visemes import visemes

FPS = 16
_PHONEMES = list("mbpfvaæʌɔouyɛiəwjszʃɹtdnlkɡ") + [""]  # the last: a pause


@dataclass(frozen=True, eq=False)
class Performance:
    """Tracks of [f] each."""

    yaw: np.ndarray  # radians
    pitch: np.ndarray
    roll: np.ndarray
    shift_x: np.ndarray  # of the frame's side
    shift_y: np.ndarray
    open: np.ndarray
    wide: np.ndarray
    bite: np.ndarray
    blink_left: np.ndarray  # 0 open .. 1 shut; the person's left
    blink_right: np.ndarray
    gaze_x: np.ndarray
    gaze_y: np.ndarray
    brow: np.ndarray  # -1 drawn together .. 1 raised
    smile: np.ndarray  # -1 .. 1

    def table(self) -> np.ndarray:
        """All tracks side by side: [f, 14] float32, in the order of `TRACKS`."""
        return np.stack([getattr(self, name) for name in TRACKS], 1).astype(np.float32)

    def __getitem__(self, frames: slice) -> "Performance":
        return Performance(**{name: values[frames] for name, values in vars(self).items()})


TRACKS = tuple(field.name for field in fields(Performance))


def babble(frames: int, rng: np.random.Generator, liveliness: float | None = None) -> Performance:
    """A run of frames of somebody who talks without words, looks about and blinks."""
    lively = rng.uniform(0.2, 1.5) if liveliness is None else liveliness

    def wander(scale, seconds):
        return _smooth(frames, rng, seconds) * scale * lively

    mouth = _mouth(frames, rng) if rng.random() < 0.8 else np.zeros((frames, 3))
    blink = _blinks(frames, rng)
    wink = _blinks(frames, rng) * (rng.random() < 0.1)
    hold = rng.normal(0, [0.18, 0.1, 0.05])
    return Performance(
        yaw=hold[0] + wander(0.14, 1.2), pitch=hold[1] + wander(0.08, 1.0), roll=hold[2] + wander(0.05, 1.4),
        shift_x=wander(0.012, 1.5), shift_y=wander(0.01, 1.5),
        open=mouth[:, 0], wide=mouth[:, 1], bite=mouth[:, 2],
        blink_left=np.maximum(blink, wink), blink_right=blink,
        gaze_x=_saccades(frames, rng, 0.35), gaze_y=_saccades(frames, rng, 0.22),
        brow=(rng.normal(0, 0.15) + wander(0.35, 0.9)).clip(-1, 1), smile=(rng.normal(0.1, 0.25) + wander(0.3, 1.6)).clip(-0.6, 1),
    )  # fmt: skip


def moments(frames: int, rng: np.random.Generator) -> Performance:
    """Frames that have nothing to do with each other: the face in all kinds of states."""

    def sometimes(chance, draw):
        return np.where(rng.random(frames) < chance, draw, 0.0)

    blink = sometimes(0.25, rng.uniform(0, 1, frames))
    return Performance(
        yaw=rng.normal(0, 0.28, frames), pitch=rng.normal(0, 0.14, frames), roll=rng.normal(0, 0.08, frames),
        shift_x=np.zeros(frames), shift_y=np.zeros(frames),
        open=sometimes(0.6, rng.uniform(0, 1, frames)), wide=sometimes(0.7, rng.uniform(-1, 1, frames)),
        bite=sometimes(0.1, rng.uniform(0, 1, frames)),
        blink_left=np.where(rng.random(frames) < 0.08, rng.random(frames), blink), blink_right=blink,
        gaze_x=rng.normal(0, 0.35, frames).clip(-1, 1), gaze_y=rng.normal(0, 0.25, frames).clip(-1, 1),
        brow=sometimes(0.6, rng.uniform(-1, 1, frames)), smile=sometimes(0.6, rng.uniform(-0.6, 1, frames)),
    )  # fmt: skip


def arkit(performance: Performance, names: tuple[str, ...]) -> np.ndarray:
    """The tracks as weights of ARKit's units: [f, units]. A name without Left or Right moves both sides."""
    weights = np.zeros((len(performance.yaw), len(names)), np.float32)

    def add(name: str, value: np.ndarray) -> None:
        for full in (name, name + "Left", name + "Right"):
            if full in names:
                weights[:, names.index(full)] += value

    p = performance
    open_, round_, spread = p.open, np.maximum(-p.wide, 0), np.maximum(p.wide, 0)
    add("jawOpen", 0.72 * open_ * (1 - 0.35 * round_) + 0.06 * p.bite)
    add("mouthPucker", 0.75 * round_)
    add("mouthFunnel", 0.4 * round_ * open_ + 0.1 * round_)
    add("mouthStretch", 0.4 * spread)
    add("mouthUpperUp", 0.3 * open_ * (1 - round_) + 0.35 * p.bite + 0.4 * np.maximum(p.smile, 0))  # upper teeth show first
    add("mouthLowerDown", 0.12 * open_ * (1 - p.bite))
    add("mouthRollLower", 0.9 * p.bite)
    add("mouthPress", 0.3 * (open_ < 0.05) * (p.bite < 0.1))
    smile, sad = np.maximum(p.smile, 0), np.maximum(-p.smile, 0)
    add("mouthSmile", 0.9 * smile)
    add("cheekSquint", 0.5 * smile)
    add("mouthFrown", sad)
    raised, drawn = np.maximum(p.brow, 0), np.maximum(-p.brow, 0)
    add("browInnerUp", 0.8 * raised)
    add("browOuterUp", 0.6 * raised)
    add("browDown", 0.9 * drawn)
    add("eyeSquint", 0.3 * drawn + 0.25 * smile)
    add("eyeWide", 0.4 * raised * (p.blink_right < 0.1))
    add("eyeBlinkLeft", p.blink_left)
    add("eyeBlinkRight", p.blink_right)
    to_right, to_left = np.maximum(p.gaze_x, 0), np.maximum(-p.gaze_x, 0)  # the viewer's
    add("eyeLookOutLeft", to_right)
    add("eyeLookInRight", to_right)
    add("eyeLookInLeft", to_left)
    add("eyeLookOutRight", to_left)
    add("eyeLookDown", np.maximum(p.gaze_y, 0))
    add("eyeLookUp", np.maximum(-p.gaze_y, 0))
    return weights.clip(0, 1)


def _smooth(frames: int, rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Unit normal noise that changes over about so many seconds."""
    keys = rng.standard_normal(int(frames / FPS / seconds) + 3)
    place = np.linspace(0, frames / FPS / seconds, frames) + rng.uniform(0, 1)
    i, share = place.astype(int), place % 1
    share = share * share * (3 - 2 * share)
    return keys[i.clip(0, len(keys) - 1)] * (1 - share) + keys[(i + 1).clip(0, len(keys) - 1)] * share


def _mouth(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Phonemes in random order, blended: [f, 3] open, wide, bite."""
    fine = 4
    shapes = []
    while len(shapes) < frames * fine:
        phoneme = _PHONEMES[rng.integers(len(_PHONEMES))]
        length = int(fine * FPS * (rng.uniform(0.15, 0.6) if not phoneme else rng.uniform(0.06, 0.16)))
        shapes += [(visemes(phoneme) if phoneme else [(0.0, 0.0, 0.0)])[0]] * max(length, 1)
    track = np.array(shapes[: frames * fine], float)
    kernel = np.hanning(7)[1:-1]
    kernel /= kernel.sum()
    padded = np.pad(track, ((2, 2), (0, 0)), "edge")
    smooth = np.stack([np.convolve(padded[:, k], kernel, "valid") for k in range(3)], 1)
    return smooth[::fine] * [rng.uniform(0.6, 1.1), 1, 1]


def _blinks(frames: int, rng: np.random.Generator) -> np.ndarray:
    track = np.zeros(frames)
    at = rng.uniform(-0.5, 2.5)
    while at * FPS < frames:
        t = np.arange(frames) / FPS - at
        track = np.maximum(track, np.clip(1.3 - abs(t) / rng.uniform(0.07, 0.12), 0, 1))
        at += rng.exponential(2.2) + 0.3
    return track


def _saccades(frames: int, rng: np.random.Generator, scale: float) -> np.ndarray:
    """The eyes rest somewhere and jump."""
    track, at = np.zeros(frames), 0
    while at < frames:
        length = int(FPS * (0.2 + rng.exponential(0.7))) + 1
        track[at : at + length] = rng.normal(0, scale)
        at += length
    return track.clip(-1, 1)
