"""A media file as PyAV gets it: opened here, so that no name and no content makes FFmpeg open anything else.

Given a name, FFmpeg takes `take 2: final.wav`, `concat:a|b` and `http://..` for protocols and `%03d` for a row of files; given a playlist,
it opens the addresses that stand in it. So it gets an open file, and may open none by itself. A name that the system's encoding cannot
write is no hindrance, either. PyAV is imported where a file is read: who opens none, as training does, needs no video library.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import KnotForcingError

if TYPE_CHECKING:
    from av.container import InputContainer

NO_PROTOCOL = {"protocol_whitelist": "none"}


@contextmanager
def opened(path: Path | str, kind: str, **options) -> Iterator[InputContainer]:
    """What is in a media file. `kind`: what the user calls it, such as "video". Raises KnotForcingError where there is no such file, and
    PyAV's FFmpegError where it cannot be read."""
    import av

    with _regular_file(Path(path), kind) as file, av.open(file, options=NO_PROTOCOL, **options) as container:
        yield container


def start_of(container: InputContainer) -> float:
    """What the file's clock shows where a player begins, in seconds: with its first frame or its first sound, whichever comes first."""
    from av.stream import Disposition

    no_film = Disposition.attached_pic | Disposition.still_image  # the cover of a song
    tracks = [*container.streams.audio, *(track for track in container.streams.video if not track.disposition & no_film)]
    return min((float(track.start_time * track.time_base) for track in tracks if track.start_time is not None), default=0.0)


def _regular_file(path: Path, kind: str) -> BinaryIO:
    """The file, open. A pipe or a device is not opened: that could wait for ever, and nothing in it can be read twice."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise KnotForcingError(f"{path} is a folder. Give the {kind} file in it.")
        if not stat.S_ISREG(mode):
            raise KnotForcingError(f"{path} is a pipe or a device, and the {kind} file is read more than once. Save it as a file first.")
        return open(path, "rb", buffering=0)
    except FileNotFoundError as problem:
        raise KnotForcingError(f"The {kind} file {path} does not exist. Check its name and folder.") from problem
    except OSError as problem:
        raise KnotForcingError(f"The {kind} file {path} cannot be opened ({problem.strerror}).") from problem
