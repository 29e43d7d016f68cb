"""What a mouth does while it speaks: phonemes become opening, width and bite, one value per frame.

m, b and p close the lips, f and v set the teeth on the lip, and a pause is a closed mouth, whatever smoothing says.
Knows IPA names as espeak-ng gives them; knows nothing of frames.
"""

import numpy as np

from .speech import ACTIVE_RMS, SAMPLE_RATE_HZ, SILENCE, Speech

GRID = 8  # points per frame on which targets are smoothed
CO_ARTICULATION_SECONDS = 0.075  # neighbouring sounds blend over this length

CLOSED = (0.0, 0.0, 0.0)  # open 0..1, wide -1..1, bite 0..1
LIP_CLOSURES = "mbp"
LIP_BITES = "fv"

# One symbol, one target; a diphthong or an affricate is two symbols after another.
_TARGETS: dict[str, tuple[float, float, float]] = {
    **dict.fromkeys("mbp", CLOSED),
    **dict.fromkeys("fvɱ", (0.12, 0.1, 1.0)),
    **dict.fromkeys("aɑæɐä", (1.0, 0.15, 0.0)),
    **dict.fromkeys("ʌ", (0.75, 0.05, 0.0)),
    **dict.fromkeys("ɔɒ", (0.75, -0.55, 0.0)),
    **dict.fromkeys("oɵɤ", (0.5, -0.8, 0.0)),
    **dict.fromkeys("uʊʉ", (0.28, -1.0, 0.0)),
    **dict.fromkeys("yʏøœ", (0.3, -0.85, 0.0)),
    **dict.fromkeys("ɛeɜ", (0.55, 0.55, 0.0)),
    **dict.fromkeys("iɪɨᵻ", (0.28, 1.0, 0.0)),
    **dict.fromkeys("əɚɝ", (0.4, 0.0, 0.0)),
    **dict.fromkeys("wʍɥ", (0.14, -1.0, 0.0)),
    **dict.fromkeys("jʎ", (0.22, 0.7, 0.0)),
    **dict.fromkeys("sz", (0.12, 0.6, 0.0)),
    **dict.fromkeys("ʃʒçɕʑ", (0.2, -0.7, 0.0)),
    **dict.fromkeys("ɹrɾʁʀɻ", (0.25, -0.35, 0.0)),
    **dict.fromkeys("tdnlθðɲʔɬɫ", (0.2, 0.15, 0.0)),
    **dict.fromkeys("kɡgŋxɣhβ", (0.32, 0.05, 0.0)),
}


def visemes(phoneme: str) -> list[tuple[float, float, float]]:
    """The mouth shapes of one phoneme, in order; a pause or an unknown name is a closed mouth."""
    if phoneme == SILENCE:
        return [CLOSED]
    # In "aɪ" the two follow each other; length and stress marks move no lip.
    return [_TARGETS[symbol] for symbol in phoneme if symbol in _TARGETS] or [CLOSED]


def mouth_track(speech: Speech, frames: int, fps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(open 0..1, wide -1..1, bite 0..1), each [frames] float32: the mouth at the times 0, 1/fps, 2/fps, ...

    Louder speech opens wider. Beyond the end of the speech the mouth is closed."""
    starts, shapes = [], []
    ends = [seconds for seconds, _ in speech.phonemes[1:]] + [speech.seconds]
    for (start, name), end in zip(speech.phonemes, ends, strict=True):
        parts = visemes(name)
        starts += [start + (end - start) * part / len(parts) for part in range(len(parts))]
        shapes += parts
    starts.append(speech.seconds)
    shapes.append(CLOSED)

    times = np.arange(frames * GRID) / (fps * GRID)
    fine = np.asarray(shapes, np.float32)[np.searchsorted(starts, times, side="right") - 1]  # [frames * GRID, 3]
    width = max(1, round(CO_ARTICULATION_SECONDS * fps * GRID)) | 1
    kernel = np.hanning(width + 2)[1:-1]
    kernel /= kernel.sum()
    smooth = np.stack([np.convolve(np.pad(fine[:, i], width // 2, "edge"), kernel, "valid") for i in range(3)], -1)[::GRID]
    smooth[:, 0] *= 0.7 + 0.3 * np.clip(_loudness(speech, frames, fps) / ACTIVE_RMS, 0, 1.3)
    track = np.clip(smooth, (0, -1, 0), 1).astype(np.float32)

    spans = [(name, start, end) for (start, name), end in zip(speech.phonemes, ends, strict=True)]
    frame_times = np.arange(frames) / fps
    for symbols, shape in ((LIP_BITES, (0.12, 0.1, 1.0)), (LIP_CLOSURES, CLOSED)):  # closures last: they win
        for name, start, end in spans:
            frame = round((start + end) / 2 * fps)
            if name and name[0] in symbols and frame < frames:
                track[frame] = shape
    for name, start, end in spans + [(SILENCE, speech.seconds, np.inf)]:
        if name == SILENCE:
            track[(frame_times >= start) & (frame_times < end)] = CLOSED
    return track[:, 0], track[:, 1], track[:, 2]


def _loudness(speech: Speech, frames: int, fps: float) -> np.ndarray:
    """RMS of the sound within 40 ms of each frame's time: [frames]."""
    power = np.concatenate([[0.0], np.cumsum(speech.samples.astype(np.float64) ** 2)])
    centres = np.arange(frames) / fps * SAMPLE_RATE_HZ
    reach = 0.04 * SAMPLE_RATE_HZ
    low, high = (np.clip(centres + side * reach, 0, len(power) - 1).astype(int) for side in (-1, 1))
    return np.sqrt(np.maximum(power[high] - power[low], 0) / (2 * reach))
