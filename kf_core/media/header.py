"""The header of a film's file, made of the one that a muxer wrote: with room for what makes an ordinary MP4 of it later.

    ftyp | boxes of the file itself | placeholder | moov

Source: ISO/IEC 14496-12, 4.3 and 8.6.6.
"""

import struct

from .boxes import box, boxes_of, full_box
from .fragments import PLACEHOLDER, SOUND_TRACK, track_of

# What a reader has to know of ISO's file format. iso5: offsets count from a fragment's beginning.
FILE_TYPE = box(b"ftyp", b"isom", struct.pack(">I", 512), b"isom", b"iso2", b"iso5", b"iso6", b"avc1", b"mp41", b"mp42")


def split(data: bytes, run_in: int = 0, extra: bytes = b"") -> tuple[bytes, bytes]:
    """A film's header and the fragments, of a fragmented MP4 in memory.

    `run_in`: samples at the beginning of the sound track that are not played. FFmpeg writes it only where the first fragment has sound.
    `extra`: boxes that belong to the file itself, as XMP's `uuid` does: before the placeholder, so that both forms have them on top."""
    start, moov = 0, b""
    while start + 8 <= len(data) and data[start + 4 : start + 8] != b"moof":
        stop = start + struct.unpack_from(">I", data, start)[0]
        if data[start + 4 : start + 8] == b"moov":
            moov = box(b"moov", *(_from(run_in, kind, content) for kind, content in boxes_of(data[start + 8 : stop])))
        start = stop
    return FILE_TYPE + extra + PLACEHOLDER + moov, data[start:]


def edit_list(start: int, duration: int) -> bytes:
    """Play `duration` (on the film's clock; 0: to the end) from `start` (on the track's) on."""
    is_long = max(start, duration) >= 2**31
    return box(b"edts", full_box(b"elst", int(is_long), struct.pack(">IQqI" if is_long else ">IIiI", 1, duration, start, 0x10000)))


def _from(run_in: int, kind: bytes, content: memoryview) -> bytes:
    """A box of the `moov`; the sound's track begins after the run-in."""
    if kind != b"trak" or track_of(content) != SOUND_TRACK or not run_in:
        return box(kind, content)
    (_, header), *others = ((name, inner) for name, inner in boxes_of(content) if name != b"edts")
    return box(kind, box(b"tkhd", header), edit_list(run_in, 0), *(box(name, inner) for name, inner in others))
