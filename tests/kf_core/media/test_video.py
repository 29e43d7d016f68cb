"""Laws of the video file: on the disk at once, equally long sound, continued without a seam, whole after any end."""

import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kf_core.errors import KnotForcingError
from kf_core.media.fragments import read_fragments
from kf_core.media.playback import frames as frames_of
from kf_core.media.playback import probe
from kf_core.media.video import QUALITY, Provenance, VideoWriter

FPS, RATE, SIZE = 16, 48000, 64
CHUNKS = (9, 12, 12, 5)


def frames(start: int, count: int) -> torch.Tensor:
    """Frames whose grey tells their number: 2 steps of 255 apart, forty of them."""
    greys = (20 + 5 * (torch.arange(start, start + count) % 40)) / 255
    return greys[:, None, None, None].expand(count, SIZE, SIZE, 3)


def numbers(path) -> list[int]:
    return [round((frame.mean().item() * 255 - 20) / 5) for frame in frames_of(path)]


def sweep(seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.4 * np.sin(2 * np.pi * (200 * time + 300 * time**2))).astype(np.float32)


def write(path, sound=None, chunks=CHUNKS, first: int = 0, resume: bool = False, rate=RATE) -> None:
    with VideoWriter(path, width=SIZE, height=SIZE, fps=FPS, sample_rate=rate, resume=resume) as video:
        for index, count in enumerate(chunks):
            start = sum(chunks[:index])
            if start < first:
                continue
            span = video.sound_for(count)
            video.write(frames(start, count), None if sound is None else sound[slice(*span)])


def heard(path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def test_sound_and_frames_are_equally_long(tmp_path):
    write(tmp_path / "a.mp4", sweep(sum(CHUNKS) / FPS))
    facts = probe(tmp_path / "a.mp4")
    assert facts.frames == sum(CHUNKS) and facts.seconds == sum(CHUNKS) / FPS
    assert abs(facts.sound_seconds - facts.seconds) < 1e-4
    assert len(heard(tmp_path / "a.mp4")) in range(round(facts.seconds * RATE), round(facts.seconds * RATE) + 1024)


def test_sound_stays_where_its_frames_are(tmp_path):
    sound = sweep(sum(CHUNKS) / FPS)
    write(tmp_path / "a.mp4", sound)
    assert np.corrcoef(heard(tmp_path / "a.mp4")[: len(sound)], sound)[0, 1] > 0.995


def test_the_frames_come_back_in_order_and_in_their_colours(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", width=SIZE, height=SIZE, fps=25) as video:
        colours = torch.tensor([[0.9, 0.6, 0.5], [0.2, 0.4, 0.8], [0.1, 0.7, 0.2]])
        video.write(colours[:, None, None, :].expand(3, SIZE, SIZE, 3))
    found = torch.stack([frame.mean((0, 1)) for frame in frames_of(tmp_path / "a.mp4")])
    assert (found - colours).abs().max() < 0.02


def test_writing_many_frames_takes_the_memory_of_one(tmp_path):
    many = frames(0, 40)
    with Largest() as largest, VideoWriter(tmp_path / "a.mp4", width=SIZE, height=SIZE, fps=FPS) as video:
        video.write(many)
    assert largest.values == SIZE * SIZE * 3 and numbers(tmp_path / "a.mp4") == list(range(40))


class Largest(TorchDispatchMode):
    """How many values the largest tensor has that is computed meanwhile."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.values = max(self.values, made.numel())
        return made


def test_missing_sound_is_silence(tmp_path):
    write(tmp_path / "a.mp4", sweep(1.0))
    sound = heard(tmp_path / "a.mp4")
    assert np.abs(sound[: RATE // 2]).max() > 0.2 and np.abs(sound[RATE + 4096 :]).max() < 1e-3


def test_a_film_without_sound_has_no_sound_track(tmp_path):
    write(tmp_path / "a.mp4", rate=None)
    assert not probe(tmp_path / "a.mp4").has_sound and numbers(tmp_path / "a.mp4") == list(range(38))


def test_each_chunk_is_a_fragment_on_the_disk_when_write_returns(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", width=SIZE, height=SIZE, fps=FPS, sample_rate=RATE) as video:
        for index, count in enumerate(CHUNKS):
            video.write(frames(sum(CHUNKS[:index]), count))
            assert probe(tmp_path / "a.mp4").frames == sum(CHUNKS[: index + 1])
            with open(tmp_path / "a.mp4", "rb") as file:
                assert [fragment.frames for fragment in read_fragments(file).whole] == list(CHUNKS[: index + 1])


@pytest.mark.parametrize("into", [3, 40, 300, 900])
def test_a_write_that_was_cut_off_anywhere_leaves_what_was_written_before(tmp_path, monkeypatch, into):
    """The process ends `into` bytes into the third fragment: the bytes that reached the disk are those that `write` had put there."""
    path = tmp_path / "a.mp4"
    with VideoWriter(path, width=SIZE, height=SIZE, fps=FPS, sample_rate=RATE) as video:
        for index, count in enumerate(CHUNKS[:2]):
            video.write(frames(sum(CHUNKS[:index]), count), sweep(3)[slice(*video.sound_for(count))])
        before = path.stat().st_size
        with monkeypatch.context() as watched:
            copies = []
            watched.setattr("os.fsync", lambda _: copies.append(path.read_bytes()[: before + into]))
            video.write(frames(21, 12))
        (tmp_path / "cut.mp4").write_bytes(copies[0])
    assert numbers(tmp_path / "cut.mp4") == list(range(21))
    with VideoWriter(tmp_path / "cut.mp4", width=SIZE, height=SIZE, fps=FPS, sample_rate=RATE, resume=True) as video:
        assert video.num_frames == 21


@pytest.mark.parametrize("cut", [10, 900, "whole 1", "inside 2", "closed"])
def test_a_continued_file_holds_every_frame_once_and_its_sound_without_a_seam(tmp_path, cut):
    path, sound = tmp_path / "a.mp4", sweep(sum(CHUNKS) / FPS)
    write(path, sound, CHUNKS[:3])
    with open(path, "rb") as file:
        whole = read_fragments(file).whole
    length = {"whole 1": whole[1].stop, "inside 2": whole[2].start + 100, "closed": None}.get(cut, cut)
    path.write_bytes(path.read_bytes()[:length])
    with VideoWriter(path, width=SIZE, height=SIZE, fps=FPS, sample_rate=RATE, resume=True) as video:
        there = video.num_frames
        assert there == {"whole 1": 21, "inside 2": 21, "closed": 33}.get(cut, 0)
        while video.num_frames < sum(CHUNKS):
            count = min(12, sum(CHUNKS) - video.num_frames)
            video.write(frames(video.num_frames, count), sound[slice(*video.sound_for(count))])
    assert numbers(path) == list(range(sum(CHUNKS)))
    assert abs(probe(path).sound_seconds - probe(path).seconds) < 1e-4
    back, joint = heard(path), round(there * RATE / FPS)
    around = slice(max(0, joint - 4096), joint + 4096)
    assert np.corrcoef(back[around], sound[around])[0, 1] > 0.995
    assert np.abs(np.diff(back[around])).max() < 1.2 * np.abs(np.diff(sound[around])).max()  # no click


@pytest.mark.parametrize("joint", [None, 9, 21])
def test_clear_tones_are_played_without_a_crackle_also_after_a_joint(tmp_path, joint):
    path, t = tmp_path / "a.mp4", np.arange(5 * RATE) / RATE
    tones = 0.4 * np.sin(2 * np.pi * (200 + 60 * t) * t), 0.3 * np.sin(2 * np.pi * (500 - 30 * t) * t)
    sound = np.stack(tones, 1).astype(np.float32)
    settings = {"width": SIZE, "height": SIZE, "fps": 16, "sample_rate": RATE, "channels": 2}
    for first, last in [(0, 80)] if joint is None else [(0, joint), (joint, 80)]:
        with VideoWriter(path, **settings, resume=True) as video:
            while (count := min(12, last - video.num_frames)) > 0:
                video.write(frames(first, count), sound[slice(*video.sound_for(count))])
    with av.open(str(path)) as container:
        back = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1).T
    assert np.abs(back[: len(sound)] - sound)[2000:-3000].max() < 0.02


@pytest.mark.parametrize("count", [1, 4, 12])
def test_who_has_no_sound_before_his_frames_goes_on_with_what_the_file_plays_there(tmp_path, count):
    path, tone = tmp_path / "a.mp4", sine(4 * count / FPS)
    for first in range(0, 4 * count, count):
        with VideoWriter(path, width=SIZE, height=SIZE, fps=FPS, sample_rate=RATE, resume=True) as video:
            (start, stop), joint = video.sound_for(count), round(first * RATE / FPS)
            own = np.zeros((stop - start, 1), np.float32)
            own[joint - start :, 0] = tone[joint:stop]
            there = video.sound_there()
            assert there.shape == (joint - start, 1), "from the beginning of the span to the first frame"
            own[: len(there)] = there
            video.write(frames(first, count), own)
    assert np.abs(loudness(heard(path)[: len(tone)]) - loudness(tone)).max() < 0.03


def test_a_file_that_broke_off_plays_less_than_was_asked_for_and_nothing_wrong(tmp_path):
    path, tone = tmp_path / "a.mp4", sine(2.0)
    write(path, tone, (12, 12, 8))
    with open(path, "rb") as file:
        second = read_fragments(file).whole[1]
    path.write_bytes(path.read_bytes()[: second.stop + 100])
    with VideoWriter(path, width=SIZE, height=SIZE, fps=FPS, sample_rate=RATE, resume=True) as video:
        start, joint = video.sound_for(0)
        there = video.sound_there()[:, 0]
    assert joint == 24 * RATE // FPS and 8 * 1024 <= len(there) < joint - start
    assert np.abs(there - tone[start : start + len(there)]).max() < 0.04


def test_a_film_that_begins_plays_nothing_yet(tmp_path):
    for resume in (False, True):
        with VideoWriter(tmp_path / "a.mp4", width=SIZE, height=SIZE, fps=FPS, sample_rate=RATE, channels=2, resume=resume) as video:
            assert video.sound_there().shape == (0, 2)


def sine(seconds: float) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def loudness(sound: np.ndarray) -> np.ndarray:
    """Of each hundredth of a second but the last, which an encoder fades."""
    return np.sqrt((sound[: len(sound) // 480 * 480].reshape(-1, 480) ** 2).mean(1))[:-1]


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux says how much a process has read; run it there")
def test_a_long_file_is_continued_without_reading_it_through(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, width=256, height=256, fps=FPS, sample_rate=RATE) as video:
        video.write(torch.rand(8, 256, 256, 3))
        video.write(torch.rand(8, 256, 256, 3))
    with open(path, "rb") as file:
        second = read_fragments(file).whole[1]
    data = path.read_bytes()
    path.write_bytes(data[: second.stop] + data[second.start : second.stop] * 100)
    before = bytes_read()
    with VideoWriter(path, width=256, height=256, fps=FPS, sample_rate=RATE, resume=True) as video:
        assert video.num_frames == 816
    assert path.stat().st_size > 3e7 and bytes_read() - before < path.stat().st_size / 4


def bytes_read() -> int:
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])


def test_a_fragment_depends_on_its_own_frames_only(tmp_path):
    write(tmp_path / "whole.mp4", rate=None)
    write(tmp_path / "joined.mp4", rate=None, chunks=CHUNKS[:2])
    write(tmp_path / "joined.mp4", rate=None, first=21, resume=True)
    assert (tmp_path / "joined.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_file_of_other_settings_is_not_continued(tmp_path):
    write(tmp_path / "a.mp4")
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(KnotForcingError, match="cannot be continued"):
        VideoWriter(tmp_path / "a.mp4", width=SIZE, height=32, fps=FPS, sample_rate=RATE, resume=True)
    assert (tmp_path / "a.mp4").read_bytes() == before


@pytest.mark.parametrize("is_video", [True, False])
def test_a_file_that_was_not_begun_here_is_not_touched(tmp_path, is_video):
    path = tmp_path / "holiday.mp4"
    if is_video:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=16)
            stream.width = stream.height = SIZE
            container.mux(stream.encode(av.VideoFrame(SIZE, SIZE, "yuv420p")))
            container.mux(stream.encode(None))
    else:
        path.write_text("notes, not a film")
    before = path.read_bytes()
    with pytest.raises(KnotForcingError, match="was not begun here"):
        VideoWriter(path, width=SIZE, height=SIZE, fps=16, resume=True)
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX file size limit")
def test_a_full_disk_is_said_in_words_and_loses_nothing(tmp_path):
    script = textwrap.dedent(
        f"""
        import resource, sys, torch
        from kf_core.errors import KnotForcingError
        from kf_core.media.video import VideoWriter
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        try:
            with VideoWriter(sys.argv[1], width={SIZE}, height={SIZE}, fps={FPS}, sample_rate={RATE}) as video:
                while True:
                    video.write(torch.rand(12, {SIZE}, {SIZE}, 3))
        except KnotForcingError as problem:
            print(video.num_frames, problem)
        """
    )
    out = subprocess.run([sys.executable, "-c", script, tmp_path / "a.mp4"], capture_output=True, text=True)
    count, _, sentence = out.stdout.partition(" ")
    assert "a file may not become larger" in sentence and "continue with resume" in sentence, out.stderr
    assert int(count) >= 12 and len(list(frames_of(tmp_path / "a.mp4"))) == int(count)
    with open(tmp_path / "a.mp4", "rb") as file:
        found = read_fragments(file)
        assert found.frames == int(count) and found.is_finished


def test_a_killed_writer_leaves_every_written_frame(tmp_path):
    script = textwrap.dedent(
        f"""
        import sys, time, torch
        from kf_core.media.video import VideoWriter
        video = VideoWriter(sys.argv[1], width={SIZE}, height={SIZE}, fps={FPS}, sample_rate={RATE})
        video.write(torch.rand(9, {SIZE}, {SIZE}, 3)); video.write(torch.rand(12, {SIZE}, {SIZE}, 3))
        print("written", flush=True); time.sleep(60)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path / "a.mp4"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    process.kill()
    process.wait()
    assert len(list(frames_of(tmp_path / "a.mp4"))) == 21


def test_an_unwritten_video_leaves_no_empty_file(tmp_path):
    VideoWriter(tmp_path / "a.mp4", width=SIZE, height=SIZE, fps=FPS).close()
    assert not (tmp_path / "a.mp4").exists()


def test_an_empty_file_is_gone_on_with(tmp_path):
    (tmp_path / "a.mp4").touch()
    with VideoWriter(tmp_path / "a.mp4", width=SIZE, height=SIZE, fps=FPS, resume=True) as video:
        video.write(frames(0, 5))
    assert numbers(tmp_path / "a.mp4") == list(range(5))


def test_the_file_says_that_it_is_made_by_a_machine(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", width=SIZE, height=SIZE, fps=16, provenance=Provenance(model="tiny", seed=7)) as video:
        video.write(frames(0, 9))
    comment = probe(tmp_path / "a.mp4").metadata["comment"]
    assert "AI-generated" in comment and "tiny" in comment and "seed 7" in comment


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [("no/such/a.mp4", 64, "does not exist"), ("", 64, "is a folder"), ("a.mp4", 63, "even sizes")],
)
def test_a_video_that_cannot_be_written_is_refused_in_words(tmp_path, name, size, sentence):
    with pytest.raises(KnotForcingError, match=sentence):
        VideoWriter(tmp_path / name, width=size, height=64, fps=16)


def test_what_cannot_be_played_is_refused_in_words(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no film")
    with pytest.raises(KnotForcingError, match="cannot be read as a video"):
        probe(tmp_path / "a.mp4")
    with pytest.raises(KnotForcingError, match="does not exist"):
        probe(tmp_path / "b.mp4")


def test_equal_frames_become_equal_bytes_whatever_lay_in_the_memory_before():
    random = np.random.default_rng(0)
    patches = random.random((12, 4, 6, 3)).repeat(8, 1).repeat(8, 2)
    rgb = (200 * patches + 55 * random.random((12, 32, 48, 3))).astype(np.uint8)
    small = [av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p").to_ndarray() for frame in rgb]
    found = set()
    for _ in range(200):
        left = [np.full(random.integers(100, 200_000), random.integers(256), np.uint8) for _ in range(60)]
        del left  # what an encoder takes next holds these numbers
        found.add(encoded(small))
    assert len(found) == 1


def encoded(frames: list[np.ndarray]) -> bytes:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 48, 32, "yuv420p", Fraction(1, FPS)
    encoder.options = QUALITY
    packets = []
    for number, frame in enumerate(frames):
        image = av.VideoFrame.from_ndarray(frame, format="yuv420p")
        image.pts = number
        packets += encoder.encode(image)
    return b"".join(bytes(packet) for packet in packets + encoder.encode(None))
