"""Laws of the finished file: an ordinary MP4 of the same samples, whole at every byte of the way there and back."""

import io
import os
import shutil
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from kf_core.errors import KnotForcingError
from kf_core.media import finish as finishing
from kf_core.media.boxes import box, boxes_in, boxes_of
from kf_core.media.finish import finish, unfinish
from kf_core.media.fragments import PLACEHOLDER, num_frames, read_fragments
from kf_core.media.header import FILE_TYPE, split
from kf_core.media.index import Runs, full_index
from kf_core.media.playback import metadata, probe
from kf_core.media.video import Provenance, VideoWriter

from .test_video import CHUNKS, FPS, RATE, SIZE, frames, numbers, sweep, write

FIVE_SECONDS = (9, 12, 12, 12, 12, 12, 11)
PROVENANCE = Provenance(model="tiny", seed=7, recipe="abcd")


def film(path: Path, chunks=CHUNKS, fps: Fraction | float = FPS, rate: int | None = RATE, channels: int = 1) -> Path:
    sound = sweep(sum(chunks) / float(fps) + 1)
    with VideoWriter(path, width=SIZE, height=SIZE, fps=fps, sample_rate=rate, channels=channels, provenance=PROVENANCE) as video:
        for index, count in enumerate(chunks):
            start, stop = video.sound_for(count)
            video.write(frames(sum(chunks[:index]), count), np.stack([sound[start:stop]] * channels, 1) if rate else None)
    assert video.is_finished
    return path


@pytest.fixture
def both(tmp_path) -> tuple[Path, Path]:
    """One film in its two forms: as it grew, and finished."""
    finished = film(tmp_path / "finished.mp4")
    growing = Path(shutil.copy(finished, tmp_path / "growing.mp4"))
    with open(growing, "r+b", buffering=0) as file:
        unfinish(file, read_fragments(file))
    return growing, finished


# ---- an ordinary MP4 ----


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("fps, chunks", [(16, FIVE_SECONDS), (25, (125,)), (Fraction(24), (1, 119)), (30, (40, 40, 40, 30))])
def test_a_film_of_five_seconds_says_five_seconds_in_every_place(tmp_path, fps, chunks, channels):
    path = film(tmp_path / "a.mp4", chunks, fps, channels=channels)
    said = durations(path)
    assert said["mvhd"] == said["tkhd"] == said["elst"] == 5, said
    assert said["mdhd"] == [5, 5 + Fraction(1024, RATE)], "the sound's medium has the encoder's run-in, which the edit list leaves out"
    with av.open(str(path)) as container:
        assert container.duration == 5 * av.time_base and container.start_time == 0
        for track in container.streams:
            assert track.duration * track.time_base == 5 and track.start_time == 0
        assert container.streams.video[0].frames == sum(chunks)
    assert (probe(path).seconds, probe(path).frames) == (5.0, sum(chunks))


def durations(path: Path) -> dict:
    """What the boxes say, in seconds."""
    data = path.read_bytes()
    moov = next(content for kind, content in list(boxes_of(data[data.rindex(b"moov") - 4 :])) if kind == b"moov")
    inner = list(boxes_of(moov))
    scale, length = struct.unpack_from(">II", dict(inner)[b"mvhd"], 12)
    said = {"mvhd": Fraction(length, scale), "tkhd": set(), "mdhd": [], "elst": set()}
    for track in (dict(boxes_of(content)) for kind, content in inner if kind == b"trak"):
        said["tkhd"].add(Fraction(struct.unpack_from(">I", track[b"tkhd"], 20)[0], scale))
        said["elst"].add(Fraction(struct.unpack_from(">I", dict(boxes_of(track[b"edts"]))[b"elst"], 8)[0], scale))
        clock, medium = struct.unpack_from(">II", dict(boxes_of(track[b"mdia"]))[b"mdhd"], 12)
        said["mdhd"].append(Fraction(medium, clock))
    return said | {name: said[name].pop() for name in ("tkhd", "elst") if len(said[name]) == 1}


def decoded(path: Path) -> tuple[list, np.ndarray]:
    """Every frame's time and bytes, and the sound with the time of its first sample."""
    with av.open(str(path)) as container:
        shown = [(frame.pts * frame.time_base, frame.key_frame, frame.to_ndarray().tobytes()) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return shown, np.zeros(0)
        blocks = [(frame.pts * frame.time_base, frame.to_ndarray()) for frame in container.decode(audio=0)]
    assert blocks[0][0] == 0
    return shown, np.concatenate([block for _, block in blocks], axis=1)


def test_it_holds_the_samples_of_the_growing_file_bit_for_bit(both):
    growing, finished = map(decoded, both)
    assert growing[0] == finished[0] and len(finished[0]) == sum(CHUNKS)
    length = round(sum(CHUNKS) / FPS * RATE)
    assert finished[1].shape == growing[1].shape and finished[1].shape[1] >= length
    assert np.array_equal(finished[1], growing[1])
    assert np.corrcoef(finished[1][0, :length], sweep(length / RATE))[0, 1] > 0.995  # sample n of the sound is sample n of the file


@pytest.mark.parametrize("first", [1, 2, 9])
def test_sound_begins_with_the_first_frame_however_short_the_first_chunk_is(tmp_path, first):
    """A frame at 30 a second is too short for a packet of sound, and the header has to know the encoder's run-in all the same."""
    path, sound = tmp_path / "a.mp4", sweep(1.0)
    with VideoWriter(path, width=SIZE, height=SIZE, fps=30, sample_rate=RATE) as video:
        for count in (first, 30 - first):
            video.write(frames(video.num_frames, count), sound[slice(*video.sound_for(count))])
            growing = path.read_bytes()
    growing_path = tmp_path / "growing.mp4"
    growing_path.write_bytes(growing)
    for form in (path, growing_path):
        back = decoded(form)[1][0]
        assert np.corrcoef(back[: RATE // 2], sound[: RATE // 2])[0, 1] > 0.995
    assert durations(path)["elst"] == 1


def test_its_packets_lie_where_those_of_the_growing_file_lie(both):
    assert packets(both[1]) == packets(both[0])


def packets(path: Path, stream: int | None = None) -> list:
    with av.open(str(path)) as container:
        found = [(p.stream.index, p.pts, p.dts, p.pos, p.size, p.is_keyframe) for p in container.demux() if p.size]
    return sorted(found)


def test_a_silent_film_is_finished_too(tmp_path):
    path = film(tmp_path / "a.mp4", rate=None)
    assert durations(path)["mvhd"] == durations(path)["tkhd"] == Fraction(sum(CHUNKS), FPS)
    assert numbers(path) == list(range(sum(CHUNKS)))


def test_both_forms_say_the_same_of_themselves(both):
    assert metadata(both[0]) == metadata(both[1]) and "seed 7" in metadata(both[1])["comment"]
    for path in both:
        with open(path, "rb") as file:
            assert num_frames(file) == read_fragments(file).frames == sum(CHUNKS)


def test_one_seeks_to_any_frame_of_it(both):
    with av.open(str(both[1])) as container:
        track = container.streams.video[0]
        for number in (30, 3, 20, 37):
            container.seek(int(number / FPS / track.time_base), stream=track)
            frame = next(frame for frame in container.decode(track) if frame.pts * track.time_base >= Fraction(number, FPS))
            assert frame.pts * track.time_base == Fraction(number, FPS)


def test_frames_that_are_not_stored_in_the_order_they_are_shown_keep_their_times(tmp_path):
    memory = io.BytesIO()
    flags = "frag_custom+delay_moov+default_base_moof+skip_trailer"
    with av.open(memory, "w", format="mp4", options={"movflags": flags}) as container:
        track = container.add_stream("libx264", rate=FPS, options={"bf": "2", "g": "12"})
        track.width = track.height = SIZE
        for number, shade in enumerate(np.random.default_rng(0).integers(0, 255, (30, 1, 1, 3), np.uint8)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.broadcast_to(shade, (SIZE, SIZE, 3))), format="rgb24")
            frame.pts = number
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    path = tmp_path / "a.mp4"
    path.write_bytes(b"".join(split(memory.getvalue())))
    before, laid = decoded(path), packets(path)
    with open(path, "r+b", buffering=0) as file:
        assert finish(file)
    assert decoded(path)[0] == before[0] and packets(path) == laid
    assert len({pts - dts for _, pts, dts, *_ in laid}) > 1, "not in order"
    assert durations(path)["mvhd"] == Fraction(30, FPS)


# ---- opened at once ----


class Counted(io.FileIO):
    """A file that counts how often it is read and asked to go elsewhere."""

    reads = seeks = 0

    def read(self, size: int = -1) -> bytes:
        self.reads += 1
        return super().read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        self.seeks += place != self.tell() or whence != 0
        return super().seek(place, whence)


@pytest.fixture(scope="module")
def ten_minutes(tmp_path_factory) -> Path:
    """Ten minutes of 800 fragments: one is made, and comes again with other times."""
    path = tmp_path_factory.mktemp("long") / "a.mp4"
    with VideoWriter(path, width=SIZE, height=SIZE, fps=FPS, provenance=PROVENANCE) as video:
        video.write(frames(0, 12))
    with open(path, "r+b", buffering=0) as file:
        found = read_fragments(file)
        unfinish(file, found)
        file.seek(found.header_length)
        fragment = file.read()
        clock = fragment.index(b"tfdt") + 8
        step = 12 * 1024
        for number in range(1, 800):
            file.write(fragment[:clock] + struct.pack(">Q", number * step) + fragment[clock + 8 :])
    return path


def test_opening_ten_minutes_takes_a_handful_of_seeks(ten_minutes):
    grown = opened(ten_minutes)
    with open(ten_minutes, "r+b", buffering=0) as file:
        assert finish(file)
    done = opened(ten_minutes)
    assert grown.seeks > 800 and done.seeks <= 12 and done.reads <= 24, (grown.seeks, done.seeks, done.reads)
    with Counted(ten_minutes) as file:
        assert num_frames(file) == 9600 and file.reads <= 60  # of the index's heads; there are 800 fragments
    assert durations(ten_minutes)["mvhd"] == 600


def opened(path: Path) -> Counted:
    with Counted(path) as file, av.open(file) as container:
        assert container.streams.video[0].average_rate == FPS
        return file


# ---- on the way there and back ----


class Recorded(io.FileIO):
    """A file that keeps what was done to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r+b")
        self.done: list[tuple[int, bytes | None]] = []  # where and what was written; None: cut there

    def write(self, data) -> int:
        self.done.append((self.tell(), bytes(data)))
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self.done.append((size, None))
        return super().truncate(size)


def states(before: bytes, done) -> list[bytes]:
    """What is on the disk after each byte of small writes, and after some of large ones."""
    found, now = [before], before
    for place, data in done:
        if data is None:
            found.append(now := now[:place])
            continue
        step = max(1, len(data) // 12)
        found += [now[:place] + data[:n] + now[place + n :] for n in (*range(1, len(data), step), len(data))]
        now = found[-1]
    return found


def test_stopped_at_any_byte_of_finishing_it_plays_and_goes_on(both, tmp_path):
    before = both[0].read_bytes()
    with Recorded(both[0]) as file:
        assert finish(file)
    assert both[0].read_bytes() == both[1].read_bytes()
    all_plays_and_goes_on(states(before, file.done), tmp_path / "stopped.mp4", before)


def test_stopped_at_any_byte_of_going_on_it_plays_and_goes_on(both, tmp_path):
    finished, growing = both[1].read_bytes(), both[0].read_bytes()
    with Recorded(both[1]) as file:
        unfinish(file, read_fragments(file))
    assert both[1].read_bytes() == growing
    all_plays_and_goes_on(states(finished, file.done), tmp_path / "stopped.mp4", growing)


def all_plays_and_goes_on(found: list[bytes], path: Path, growing: bytes) -> None:
    assert len(found) > 12
    for state in found:
        path.write_bytes(state)
        assert probe(path).frames == sum(CHUNKS)
        with open(path, "r+b", buffering=0) as file:
            assert read_fragments(file).is_fragmented and num_frames(file) == sum(CHUNKS)
            unfinish(file, read_fragments(file))
        assert path.read_bytes() == growing
    for state in found[:: len(found) // 6]:
        path.write_bytes(state)
        write(path, sweep(4), (*CHUNKS, 2), first=sum(CHUNKS), resume=True)
        assert numbers(path) == list(range(sum(CHUNKS) + 2))
        assert abs(probe(path).sound_seconds - probe(path).seconds) < 1e-4 and durations(path)["mvhd"] == Fraction(sum(CHUNKS) + 2, FPS)


@pytest.mark.parametrize("failing", range(4))
@pytest.mark.parametrize("where", ["os.fsync", "write"])
def test_a_disk_that_fails_meanwhile_leaves_the_growing_file(both, monkeypatch, failing, where):
    before, calls = both[0].read_bytes(), []

    def once(task):
        def failed(*given):
            calls.append(given)
            if len(calls) == failing + 1 + (where == "os.fsync"):  # the first fsync is that of `unfinish`
                raise OSError(28, "No space left on device")
            return task(*given)

        return failed

    if where == "write":
        monkeypatch.setattr(finishing, "write_at", once(finishing.write_at))
    else:
        monkeypatch.setattr("os.fsync", once(os.fsync))
    with pytest.raises(OSError, match="No space"), open(both[0], "r+b", buffering=0) as file:
        finish(file)
    assert both[0].read_bytes() == before
    monkeypatch.undo()
    with open(both[0], "r+b", buffering=0) as file:
        assert finish(file) and finish(file)
    assert both[0].read_bytes() == both[1].read_bytes()


def test_a_film_for_whose_index_there_is_no_room_is_whole_all_the_same(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk, VideoWriter(tmp_path / "a.mp4", width=SIZE, height=SIZE, fps=FPS, sample_rate=RATE) as video:
        video.write(frames(0, 12))
        disk.setattr(finishing, "write_at", full)
        video.close()
    assert not video.is_finished and numbers(tmp_path / "a.mp4") == list(range(12))
    with VideoWriter(tmp_path / "a.mp4", width=SIZE, height=SIZE, fps=FPS, sample_rate=RATE, resume=True) as video:
        assert video.num_frames == 12
    assert video.is_finished and numbers(tmp_path / "a.mp4") == list(range(12))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_finished_film_that_was_cut_off_keeps_its_whole_fragments(both, share):
    """No player opens an MP4 without its index; going on with it finds what there is."""
    data = both[1].read_bytes()
    both[1].write_bytes(data[: int(len(data) * share)])
    with open(both[1], "rb") as file:
        whole = read_fragments(file)
    with VideoWriter(both[1], width=SIZE, height=SIZE, fps=FPS, sample_rate=RATE, resume=True, provenance=PROVENANCE) as video:
        assert video.num_frames == whole.frames
        video.write(frames(video.num_frames, 2))
    assert numbers(both[1]) == list(range(whole.frames + 2)) and video.is_finished


def test_finished_or_not_a_film_goes_on_to_the_same_bytes(tmp_path):
    sound, whole, joined = sweep(4), tmp_path / "whole.mp4", tmp_path / "joined.mp4"
    write(whole, rate=None)
    for last in range(1, len(CHUNKS) + 1):
        write(joined, rate=None, chunks=CHUNKS[:last], first=sum(CHUNKS[: last - 1]), resume=True)
        with open(joined, "rb") as file:
            assert read_fragments(file).is_finished and num_frames(file) == sum(CHUNKS[:last])
    assert joined.read_bytes() == whole.read_bytes()
    write(tmp_path / "sounding.mp4", sound, CHUNKS[:2])
    write(tmp_path / "sounding.mp4", sound, first=21, resume=True)
    assert decoded(tmp_path / "sounding.mp4")[0] == [*decoded(whole)[0]]


def test_opened_and_closed_again_a_film_is_as_it_was(both):
    before = both[1].read_bytes()
    with VideoWriter(both[1], width=SIZE, height=SIZE, fps=FPS, sample_rate=RATE, resume=True) as video:
        assert video.num_frames == sum(CHUNKS) and len(video.sound_there()) > 0
    assert both[1].read_bytes() == before


def test_other_settings_do_not_touch_a_finished_film(both):
    before = both[1].read_bytes()
    with pytest.raises(KnotForcingError, match="cannot be continued"):
        VideoWriter(both[1], width=SIZE, height=SIZE, fps=25, sample_rate=RATE, resume=True)
    assert both[1].read_bytes() == before


def test_a_film_from_before_there_was_a_placeholder_goes_on_and_stays_as_it_was(both):
    data = both[0].read_bytes()
    both[0].write_bytes(data.replace(FILE_TYPE + PLACEHOLDER, box(b"ftyp", b"iso5", bytes(4), b"iso5", b"iso6", b"mp41"), 1))
    write(both[0], sweep(4), (*CHUNKS, 2), first=sum(CHUNKS), resume=True)
    assert numbers(both[0]) == list(range(sum(CHUNKS) + 2))
    with open(both[0], "rb") as file:
        found = read_fragments(file)
    assert found.placeholder is None and not found.is_finished and found.is_fragmented


def test_boxes_of_the_file_itself_are_on_top_in_both_forms(both):
    mark = box(b"uuid", bytes(range(16)), b"<x:xmpmeta/>")
    data = both[0].read_bytes()
    both[0].write_bytes(b"".join(split(data, extra=mark)))
    shown = decoded(both[0])
    with open(both[0], "r+b", buffering=0) as file:
        before = file.read()
        assert finish(file) and read_fragments(file).is_finished and num_frames(file) == sum(CHUNKS)
        assert [found.kind for found in boxes_in(file, 0, file.seek(0, 2))] == [b"ftyp", b"uuid", b"mdat", b"moov"]
        again = decoded(both[0])
        unfinish(file, read_fragments(file))
    assert again[0] == shown[0] and np.array_equal(again[1], shown[1]) and both[0].read_bytes() == before


# ---- far and long ----


def test_what_lies_behind_four_gigabytes_is_found(both, tmp_path):
    """The first fragment's bytes are followed by five gigabytes of nothing, which take no room on the disk."""
    path = tmp_path / "far.mp4"
    with open(both[0], "rb") as file:
        found = read_fragments(file)
        first = found.whole[0]
        *_, data = boxes_in(file, first.start, first.stop)
        file.seek(0)
        head, media, tail = file.read(data.start), file.read(data.stop - data.start)[8:], file.read()
    gap = 5 * 2**30
    with open(path, "w+b", buffering=0) as file:
        moof = bytearray(head[first.start :])
        for kind in range(2):  # its head is 8 bytes longer, so its samples lie 8 bytes further on
            place = [n for n in range(len(moof)) if moof[n : n + 4] == b"trun"][kind] + 12
            moof[place : place + 4] = struct.pack(">I", struct.unpack_from(">I", moof, place)[0] + 8)
        file.write(head[: first.start] + moof + struct.pack(">I4sQ", 1, b"mdat", 16 + len(media) + gap) + media)
        file.seek(gap, 1)
        file.write(tail)
        if os.fstat(file.fileno()).st_blocks * 512 > gap // 2:
            pytest.skip("this file system stores empty bytes")
        assert finish(file) and num_frames(file) == sum(CHUNKS) and read_fragments(file).is_finished
        file.seek(-100_000, 2)
        assert b"co64" in file.read() and durations_end(file) == Fraction(sum(CHUNKS), FPS)
    assert numbers(path) == list(range(sum(CHUNKS)))
    near, far = decoded(both[1]), decoded(path)
    assert near[0] == far[0] and np.array_equal(near[1], far[1])


def durations_end(file) -> Fraction:
    file.seek(-100_000, 2)
    end = file.read()
    place = end.rindex(b"mvhd") + 16
    return Fraction(*reversed(struct.unpack_from(">II", end, place)))


def test_days_of_film_have_lengths_of_sixty_four_bits(both):
    """Four days of fragments, one an hour: only their clocks are far apart."""
    with open(both[0], "rb") as file:
        found = read_fragments(file)
        header = next(content for kind, content in boxes_of(file.read(found.header_length)) if kind == b"moov")
        file.seek(found.whole[0].start)
        moof = next(content for _, content in boxes_of(file.read(found.whole[0].stop - found.whole[0].start)))
    clocks = [place + 8 for place in range(len(moof)) if moof[place : place + 4] == b"tfdt"]

    def at(hour: int) -> bytes:
        made = bytearray(moof)
        for place, scale in zip(clocks, (16384, RATE), strict=True):
            made[place : place + 8] = struct.pack(">Q", hour * 3600 * scale)
        return bytes(made)

    made = full_index(bytes(header), ((hour * 2**30, at(hour)) for hour in range(100)))
    moov = next(content for _, content in boxes_of(made))
    lengths = dict(boxes_of(moov))[b"mvhd"]
    assert lengths[0] == 1 and struct.unpack_from(">IQ", lengths, 20)[1] > 2**32
    tracks = [dict(boxes_of(content)) for kind, content in boxes_of(moov) if kind == b"trak"]
    assert [track[b"tkhd"][0] for track in tracks] == [1, 1]
    assert all(b"co64" in bytes(track[b"mdia"]) and bytes(track[b"edts"])[8] == 1 for track in tracks)
    assert len(made) < 100_000


def test_the_index_takes_a_few_bytes_a_sample(ten_minutes):
    with open(ten_minutes, "r+b", buffering=0) as file:
        finish(file)
        found = read_fragments(file)
    assert (found.length - found.stop) / 9600 < 6


def test_equal_neighbours_are_kept_once():
    runs = Runs()
    for values in ([3, 3, 3], [3], [5, 3, 3], []):
        runs.extend(np.array(values, np.int64))
    runs.append(3, 2)
    assert runs.runs == [(3, 4), (5, 1), (3, 4)]
    runs.pop()
    runs.pop()
    assert runs.runs == [(3, 4), (5, 1), (3, 2)]


# ---- other readers ----


@pytest.mark.parametrize("form", [0, 1])
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg; install it to ask it, too")
def test_the_ffmpeg_of_the_machine_finds_nothing_wrong_in_either_form(both, form):
    done = subprocess.run(["ffmpeg", "-v", "warning", "-i", both[form], "-f", "null", "-"], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.skipif(not shutil.which("exiftool"), reason="no exiftool; install it to ask it, too")
def test_a_film_that_another_program_rewrote_plays_and_is_not_touched(both):
    """exiftool puts the index in front and shifts the rest; there is no growing file to go back to."""
    subprocess.run(["exiftool", "-q", "-overwrite_original", "-Title=mine", both[1]], check=True)
    before = both[1].read_bytes()
    assert numbers(both[1]) == list(range(sum(CHUNKS)))
    with pytest.raises(KnotForcingError, match="another program has rewritten it"):
        write(both[1], sweep(4), (*CHUNKS, 2), first=sum(CHUNKS), resume=True)
    assert both[1].read_bytes() == before
