"""The index of an ordinary MP4, gathered from the fragments of a growing one: where each sample lies, how long it is shown, where to seek.

    header's moov + the moofs  ->  a moov with lengths (mvhd, tkhd, mdhd, elst) and sample tables (stts, ctts, stss, stsz, stsc, co64)

What is said of codecs and of the film (stsd, udta, ...) is taken over as it is. Source: ISO/IEC 14496-12, 8.2 to 8.8.
"""

import struct
from array import array
from collections.abc import Iterable

import numpy as np

from .boxes import box, boxes_of, full_box
from .fragments import TrackFragment, track_fragments, track_of
from .header import edit_list

IS_NO_SYNC = 0x10000  # flag of a sample that cannot be decoded without others
LARGEST = 2**32 - 1


def full_index(header: bytes, moofs: Iterable[tuple[int, bytes]]) -> bytes:
    """A `moov` without fragments. `header`: content of the growing file's; `moofs`: place in the file and content of each.

    Raises ValueError for fragments of a kind that no film has."""
    parts = [(kind, bytes(content)) for kind, content in boxes_of(header)]
    tables = {table.track: table for table in (SampleTable(content) for content in _trex(parts))}
    for place, moof in moofs:
        for fragment in track_fragments(moof):
            tables[fragment.track].add(fragment, place)
    tracks = [_Track(content, tables) for kind, content in parts if kind == b"trak"]
    timescale = tracks[0].timescale  # the frames', so that the film's length is a whole number
    tracks = [track for track in tracks if track.table.num_samples]
    duration = max(track.shown(timescale) for track in tracks)
    boxes = []
    for kind, content in parts:
        if kind == b"mvhd":
            boxes.append(_timed(kind, content, duration, struct.pack(">I", timescale)))
        elif kind == b"trak":
            boxes += [track.box(timescale) for track in tracks if track.content is content]
        elif kind != b"mvex":
            boxes.append(box(kind, content))
    return box(b"moov", *boxes)


class SampleTable:
    """What one track's fragments hold: 4 bytes are kept of a sample, and a few more of a fragment.

    Invariant: samples come in order of decoding, and each lasts until the next one begins."""

    def __init__(self, defaults: bytes) -> None:  # content of `trex`
        self.track, *self._defaults = struct.unpack_from(">5I", defaults, 4)
        self.duration = 0  # on the track's clock, in order of decoding
        self.stop = 0  # where the last sample is shown to
        self.num_samples = 0
        self._durations, self._offsets, self._chunks = Runs(), Runs(), Runs()
        self._sizes = bytearray()  # as they are written: four bytes each, the large one first
        self._sync = array("I")  # numbers of the samples that can be decoded without others
        self._places = array("Q")  # in the file, of each chunk

    def add(self, fragment: TrackFragment, place: int) -> None:
        """The samples of a fragment whose `moof` begins at byte `place`."""
        entry, duration, size, flags = self._of(fragment.header)
        self._begin_at(fragment.time)
        for run in fragment.runs:
            given, count = struct.unpack_from(">II", run)
            if not count:
                continue
            if not given & 1:
                raise ValueError("a run of samples that does not say where they are")
            own = _columns(run[16 if given & 4 else 12 :], [bit for bit in (0x100, 0x200, 0x400, 0x800) if given & bit])
            self._sizes += own.get(0x200, struct.pack(">I", size) * count)
            self._chunks.append((count, entry), 1)
            self._places.append(place + struct.unpack_from(">i", run, 8)[0])
            self._note_sync(own.get(0x400), flags, struct.unpack_from(">I", run, 12)[0] if given & 4 else None, count)
            self._note_times(own.get(0x100), own.get(0x800), duration, count)
            self.num_samples += count

    def _note_sync(self, flags: bytes | memoryview | None, default: int, first: int | None, count: int) -> None:
        """Which of the next samples can be decoded without others. `flags`: of each, where they are given."""
        number = self.num_samples + 1
        if first is not None and not first & IS_NO_SYNC:
            self._sync.append(number)
        skipped = int(first is not None)
        if flags is None:
            self._sync.extend(range(number + skipped, number + count) if not default & IS_NO_SYNC else ())
        else:
            is_sync = np.frombuffer(flags, ">u4")[skipped:] & IS_NO_SYNC == 0
            self._sync.extend((number + skipped + np.flatnonzero(is_sync)).tolist())

    def _note_times(self, durations: bytes | memoryview | None, offsets: bytes | memoryview | None, default: int, count: int) -> None:
        """How long the next samples last, and how much later than decoded they are shown."""
        if durations is None and offsets is None:
            self._durations.append(default, count)
            self._offsets.append(0, count)
            self.duration += default * count
            self.stop = max(self.stop, self.duration)
            return
        lasting = np.full(count, default) if durations is None else np.frombuffer(durations, ">u4").astype(np.int64)
        later = np.zeros(count, np.int64) if offsets is None else np.frombuffer(offsets, ">i4").astype(np.int64)
        self._durations.extend(lasting)
        self._offsets.extend(later)
        stops = self.duration + np.cumsum(lasting)
        self.duration, self.stop = int(stops[-1]), max(self.stop, int((stops + later).max()))

    def boxes(self, description: bytes) -> list[bytes]:
        """Contents of `stbl`. `description`: of `stsd`."""
        counted = struct.pack(">I", self.num_samples)
        chunks, first = [], 1
        for (samples, entry), times in self._chunks.runs:
            chunks.append((first, samples, entry))
            first += times
        times = [(count, duration) for duration, count in self._durations.runs]
        offsets = [(count, offset) for offset, count in self._offsets.runs]
        is_far = len(self._places) > 0 and self._places[-1] > LARGEST
        boxes = [box(b"stsd", description), _table(b"stts", times)]
        if any(offset for _, offset in offsets):
            boxes.append(_table(b"ctts", offsets, version=int(any(offset < 0 for _, offset in offsets))))
        if len(self._sync) < self.num_samples:
            boxes.append(full_box(b"stss", 0, struct.pack(">I", len(self._sync)), _big_endian(self._sync, ">u4")))
        boxes.append(_table(b"stsc", chunks))
        boxes.append(full_box(b"stsz", 0, bytes(4), counted, self._sizes))
        places = _big_endian(self._places, ">u8" if is_far else ">u4")
        return [*boxes, full_box(b"co64" if is_far else b"stco", 0, struct.pack(">I", len(self._places)), places)]

    def _of(self, header: memoryview) -> list[int]:
        """Entry of `stsd`, duration, size and flags of samples of which the run does not say another."""
        given = struct.unpack_from(">I", header)[0] & 0xFFFFFF
        if not given & 0x20000 or given & 1:
            raise ValueError("a fragment whose samples are not counted from its own beginning")
        values, place = list(self._defaults), 8
        for number, bit in enumerate((0x2, 0x8, 0x10, 0x20)):
            if given & bit:
                values[number] = struct.unpack_from(">I", header, place)[0]
                place += 4
        return values

    def _begin_at(self, time: int) -> None:
        """The next sample begins there: the one before lasts longer, or less long, than it was said to."""
        if time != self.duration:
            last, _ = self._durations.runs[-1] if self.num_samples else (0, 0)
            if not self.num_samples or last + time - self.duration < 0:
                raise ValueError(f"track {self.track} goes on at {time}, and what is there ends at {self.duration}")
            self._durations.pop()
            self._durations.append(last + time - self.duration, 1)
            self.duration, self.stop = time, max(self.stop, time)


class Runs:
    """A list in which equal neighbours are kept once, with their number."""

    def __init__(self) -> None:
        self.runs: list[tuple] = []  # value, how often

    def append(self, value, count: int) -> None:
        if self.runs and self.runs[-1][0] == value:
            count += self.runs.pop()[1]
        self.runs.append((value, count))

    def extend(self, values: np.ndarray) -> None:
        starts = np.flatnonzero(np.diff(values, prepend=values[:1] - 1))
        for start, count in zip(starts, np.diff(starts, append=len(values)), strict=True):
            self.append(int(values[start]), int(count))

    def pop(self) -> None:
        """Take the last value away."""
        value, count = self.runs.pop()
        if count > 1:
            self.runs.append((value, count - 1))


class _Track:
    """A `trak` of the growing file, with what its samples are."""

    def __init__(self, content: bytes, tables: dict[int, SampleTable]) -> None:
        self.content = content
        self.table = tables[track_of(content)]
        clock = _inside(content, b"mdia", b"mdhd")
        self.timescale = struct.unpack_from(">I", clock, 20 if clock[0] else 12)[0]
        edits = _inside(content, b"edts", b"elst")
        self._from = 0 if edits is None else struct.unpack_from(">q" if edits[0] else ">i", edits, 16 if edits[0] else 12)[0]

    def shown(self, timescale: int) -> int:
        """How long it is played, on the film's clock: without the encoder's run-in."""
        return round((self.table.stop - self._from) * timescale / self.timescale)

    def box(self, timescale: int) -> bytes:
        duration = self.shown(timescale)
        boxes = []
        for kind, content in boxes_of(self.content):
            if kind == b"tkhd":
                boxes.append(_timed(kind, content, duration, content[20:28] if content[0] else content[12:20]))
                boxes.append(edit_list(self._from, duration))
            elif kind == b"mdia":
                boxes.append(box(kind, *map(self._media, *zip(*boxes_of(content), strict=True))))
            elif kind != b"edts":
                boxes.append(box(kind, content))
        return box(b"trak", *boxes)

    def _media(self, kind: bytes, content: memoryview) -> bytes:
        if kind == b"mdhd":
            return _timed(kind, content, self.table.duration, struct.pack(">I", self.timescale))
        if kind == b"minf":
            return box(kind, *(self._media(*inner) for inner in boxes_of(content)))
        if kind == b"stbl":
            return box(kind, *self.table.boxes(next(inner for name, inner in boxes_of(content) if name == b"stsd")))
        return box(kind, content)


def _timed(kind: bytes, content: bytes | memoryview, duration: int, middle: bytes | memoryview) -> bytes:
    """`mvhd`, `tkhd` or `mdhd` with another duration. `middle`: what stands between the dates and the duration."""
    width = 8 if content[0] else 4
    dates = struct.unpack_from(">QQ" if content[0] else ">II", content, 4)
    rest = content[4 + 2 * width + len(middle) + width :]
    form = ">II" if max(duration, *dates) <= LARGEST else ">QQ"
    flags = content[1:4]
    version = bytes((0 if form == ">II" else 1,))
    return box(kind, version, flags, struct.pack(form, *dates), middle, struct.pack(form[:2], duration), rest)


def _table(kind: bytes, rows: list[tuple[int, ...]], version: int = 0) -> bytes:
    return full_box(kind, version, struct.pack(">I", len(rows)), np.array(rows, np.int64).astype(">u4").tobytes())


def _big_endian(values: array, form: str) -> bytes:
    return np.frombuffer(values, values.typecode).astype(form).tobytes() if values else b""


def _columns(rows: memoryview, bits: list[int]) -> dict[int, bytes | memoryview]:
    """What a run says of each of its samples, four bytes each, by the flag that stands for it."""
    if len(bits) == 1:
        return {bits[0]: rows}
    values = np.frombuffer(rows, ">u4").reshape(-1, max(1, len(bits)))
    return {bit: values[:, column].tobytes() for column, bit in enumerate(bits)}


def _trex(parts: list[tuple[bytes, bytes]]) -> list[memoryview]:
    return [content for kind, outer in parts if kind == b"mvex" for name, content in boxes_of(outer) if name == b"trex"]


def _inside(content: bytes | memoryview, *path: bytes) -> memoryview | None:
    """The content of a box in a box; None: it is not there."""
    for kind in path:
        content = next((inner for name, inner in boxes_of(content) if name == kind), None)
        if content is None:
            return None
    return content
