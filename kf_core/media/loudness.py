"""How loud the voice in a sound is, where somebody speaks: pauses do not count, however long they are.

The mean power of the windows near the loud ones (the 95th percentile), in dB of full scale: down to 16 dB below, the margin of ITU-T P.56,
which measures active speech, and up to 6 dB above, so that a few clicks do not count either. Knows nothing of files.
"""

from collections.abc import Iterator

import numpy as np

WINDOW_SECONDS = 0.05
BELOW, ABOVE = 16.0, 6.0  # dB
SILENT = -100.0  # dBFS; below what 16 bits can hold
TOO_QUIET = -55.0  # dBFS; the mouth hardly moves
PLAINLY_LOUD = -50.0  # dBFS; windows of a voice that is too quiet do not reach it
ENOUGH = 20  # plainly loud windows, after which it pays to look whether the voice is loud enough
USUAL = -23.0  # dBFS


def voice_level(blocks: Iterator[np.ndarray], sample_rate: int, is_whole_wanted: bool = False) -> float:
    """dBFS of the voice in mono blocks [n]; -inf where all is silent. Reads no further than to a voice that is loud enough, unless
    `is_whole_wanted`."""
    length = max(1, round(WINDOW_SECONDS * sample_rate))
    powers: list[np.ndarray] = []
    held, loud, look_at = np.zeros(0, np.float32), 0, ENOUGH
    for block in blocks:
        held = np.concatenate((held, block))
        whole = len(held) // length * length
        powers.append(np.square(held[:whole].reshape(-1, length), dtype=np.float64).mean(1))
        held = held[whole:]
        loud += int((powers[-1] > 10 ** (PLAINLY_LOUD / 10)).sum())
        if loud >= look_at and not is_whole_wanted:
            if (level := _active(np.concatenate(powers))) > TOO_QUIET:
                return level
            look_at = 2 * loud
    if len(held):
        powers.append(np.square(held, dtype=np.float64).mean(keepdims=True))
    return _active(np.concatenate(powers)) if powers else -np.inf


def remark(level: float, name: str) -> str:
    """What the user wants to know of so loud a voice; empty where it is well."""
    if level < SILENT:
        return f"{name} is silent, so the mouth rests. Choose another sound if somebody should be heard."
    if level >= TOO_QUIET:
        return ""
    louder = round(USUAL - level)
    return (
        f"The voice in {name} is very quiet: {level:.0f} dBFS where somebody speaks, and {USUAL:.0f} is usual. "
        f"The mouth will hardly move. Make it about {louder} dB louder, for example with ffmpeg's `-af volume={louder}dB`."
    )


def _active(powers: np.ndarray) -> float:
    heard = powers[powers > 10 ** (SILENT / 10)]
    if not len(heard):
        return -np.inf
    loud = np.percentile(heard, 95)
    speaking = (heard >= loud * 10 ** (-BELOW / 10)) & (heard <= loud * 10 ** (ABOVE / 10))
    return float(10 * np.log10(heard[speaking].mean()))
