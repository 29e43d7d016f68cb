"""One sound at another sample rate, second by second, from any sample on without what comes long before it.

A resampler's filter hears a few hundredths of a second, so one that begins a second or two early gives the numbers of one that began at
the beginning, to 1e-6. Knows nothing of files.
"""

from collections.abc import Callable, Generator, Iterator

import numpy as np
import soxr


def resampled(
    seconds: Iterator[np.ndarray], rate: int, sample_rate: int, channels: int, mix: Callable[[np.ndarray], np.ndarray], start: int = 0
) -> Generator[np.ndarray, None, int]:
    """Pieces of one second at `rate`, the last one shorter, as [n, channels] at `sample_rate` from sample `start` on.

    `mix` makes the channels of each piece that is needed. Returns how much of `start` lies beyond the end."""
    stream = soxr.ResampleStream(rate, sample_rate, channels, dtype="float32") if rate != sample_rate else None
    before: list[np.ndarray] = []  # what the filter hears before the first sample that is wanted
    made: int | None = None
    for number, (piece, is_last) in enumerate(_with_last(seconds)):
        if (number + 2) * sample_rate <= start and not is_last:
            before = [piece]
            continue
        made = (number - len(before)) * sample_rate if made is None else made
        for part in (*before, piece):
            made_now = mix(part)
            if stream is not None:
                made_now = stream.resample_chunk(made_now, last=is_last and part is piece)
            wanted = made_now[max(0, start - made) :]
            made += len(made_now)
            if len(wanted):
                yield wanted
        before = []
    return max(0, start - (made or 0))


def _with_last(pieces: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    held = next(pieces, None)
    for piece in pieces:
        yield held, False
        held = piece
    if held is not None:
        yield held, True
