"""Laws of going on: killed at any moment, with a log torn, lost or another's, the film is the one that nobody interrupted."""

import itertools
import shutil
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from kf_core.conditioning.audio import LiveAudio
from kf_core.conditioning.driving import Driving
from kf_core.errors import KnotForcingError
from kf_core.media.playback import frames, probe
from kf_core.session.executor import BackgroundExecutor, InlineExecutor
from kf_core.session.latent_log import LatentLog
from kf_core.session.sinks import video_file as module
from kf_core.session.sinks.segments import Segments
from kf_core.session.sinks.video_file import VideoFile
from kf_core.session.stream import Stream, StreamState
from kf_core.timeline import LatentSpan
from kf_core.types import FrameChunk, LatentChunk, Replayed, Step
from kf_core.vae.streaming import DecoderState, VideoDecoder, prepare
from kf_core.vae.taehv import TinyDecoder, TinyVAE
from kf_core.vae.wan import DECODER_REMEMBERS, WanVAE

from .test_stream import speech, stream  # noqa: F401  two seconds: three chunks


def film_in(folder: Path, stream: Stream, worker: type = InlineExecutor, **words) -> VideoFile:  # noqa: F811
    return VideoFile(stream=stream, path=folder / "film.mp4", state_file=folder / "film.mp4.resume", worker=worker, **words)


def there(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def same(ours: Path, theirs: Path) -> bool:
    return all(torch.equal(a, b) for a, b in zip(frames(ours), frames(theirs), strict=True))


def passes(items) -> tuple[list[int], int]:
    """The chunks that were drawn from noise, by their first frames, and how many were replayed."""
    items = list(items)
    drawn = [item.span.start for item in items if isinstance(item, Step) and item.index == 0]
    return drawn, sum(isinstance(item, Replayed) for item in items)


@pytest.fixture(scope="module")
def killed(stream, tmp_path_factory) -> list[Path]:  # noqa: F811
    """What lies on the disk after each thing that happens, as a kill would leave it; the last one is the whole film."""
    folder, left = tmp_path_factory.mktemp("whole"), []
    for number, _ in enumerate(film_in(folder, stream).record()):
        left.append(tmp_path_factory.mktemp("killed") / str(number))
        shutil.copytree(folder, left[-1])
    return [*left, folder]


def test_while_it_grows_the_log_lies_beside_it_and_of_a_whole_film_nothing_is_left(killed):
    lock = "film.mp4.resume.lock"
    assert there(killed[0]) in ([lock], ["film.mp4", lock])
    assert set(there(killed[-2])) <= {"film.mp4", "film.mp4.resume.latents", lock}
    assert "film.mp4.resume.latents" in {name for folder in killed[:-1] for name in there(folder)}
    assert there(killed[-1]) == ["film.mp4"]


@pytest.mark.parametrize("moment", [1, 3, 5, 6, 8, 10])
def test_killed_at_any_moment_it_goes_on_to_the_same_film_and_draws_nothing_twice(stream, killed, tmp_path, moment):  # noqa: F811
    shutil.copytree(killed[moment], tmp_path / "left")
    film = film_in(tmp_path / "left", stream)
    logged = film.log.stop
    assert film.remark() == ""
    drawn, replayed = passes(film.record())
    assert drawn == [span_start for span_start in (0, 3, 6) if span_start >= 3 * logged]
    assert replayed == (logged if drawn else 0)
    assert same(film.path, killed[-1] / "film.mp4") and there(tmp_path / "left") == ["film.mp4"]


def test_killed_after_the_last_frame_nothing_is_drawn_and_nothing_stays(stream, killed, tmp_path):  # noqa: F811
    shutil.copytree(killed[-2], tmp_path / "left")
    film = film_in(tmp_path / "left", stream)
    StreamState.start(stream).save(film.state_file, stream)
    assert film.is_whole() and film.log.path.exists() and film.remark() == ""
    film.finish()
    assert there(tmp_path / "left") == ["film.mp4"] and same(film.path, killed[-1] / "film.mp4")


@pytest.mark.parametrize("cut", [1, 0.6, 0.97])
def test_a_log_that_is_torn_at_its_end_is_used_as_far_as_it_goes(stream, killed, tmp_path, cut):  # noqa: F811
    shutil.copytree(killed[11], tmp_path / "left")  # three chunks were drawn, and two are in the film
    film = film_in(tmp_path / "left", stream)
    log = film.log.path
    assert film.log.stop == 3
    log.write_bytes(log.read_bytes()[: round(cut * log.stat().st_size) - 1])
    whole = film.log.stop
    assert whole == {1: 2, 0.6: 1, 0.97: 2}[cut]
    drawn, replayed = passes(film.record())
    assert drawn == [0, 3, 6][whole:] and replayed == whole
    assert same(film.path, killed[-1] / "film.mp4")


@pytest.mark.parametrize("how", ["missing", "of another recipe", "rotten"])
def test_where_the_log_is_lost_it_is_said_and_drawn_once_more(stream, killed, tmp_path, how):  # noqa: F811
    shutil.copytree(killed[9], tmp_path / "left")
    film = film_in(tmp_path / "left", stream)
    log = film.log
    if how == "missing":
        log.path.unlink()
    elif how == "rotten":
        log.path.write_bytes(bytes(log.num_bytes))
    else:
        chunks = [log.read(index) for index in range(log.stop)]
        log.remove()
        for chunk in chunks:
            LatentLog.beside(log.path, "0" * 32).append(chunk)
    before = film.frames
    seconds = before / stream.fps
    assert film.remark() == (
        f"film.mp4.resume, from which the video would go on, is missing: the frames from 0.0 s to {seconds:.1f} s are denoised once more "
        f"before new ones come. The video stays as it is, and that takes about as long as making these {seconds:.1f} s did."
    )
    items = list(film.record())
    assert passes(items) == ([0, 3, 6], 0)
    assert all(item.span.stop > before for item in items if isinstance(item, FrameChunk))
    assert same(film.path, killed[-1] / "film.mp4")


@pytest.fixture
def stopped(stream, tmp_path) -> VideoFile:  # noqa: F811
    """Stopped by its user after 9 of 32 frames, while the next chunk was drawn."""
    film, made = film_in(tmp_path, stream), 0
    with closing(film.record()) as happening:
        for item in happening:
            made += isinstance(item, FrameChunk)
            if made == 2 and isinstance(item, Step):
                break
    return film


def test_stopping_saves_the_state_and_empties_the_log(stopped):
    assert there(stopped.path.parent) == ["film.mp4", "film.mp4.resume", "film.mp4.resume.latents"]
    assert StreamState.look_at(stopped.state_file)["chunk"] == 1 and len(stopped.log) == 0 and stopped.remark() == ""
    assert passes(stopped.record()) == ([3, 6], 0)


@pytest.mark.parametrize("how, words", [("foreign", "belongs to another one"), ("broken", "is damaged"), ("missing", "is missing")])
def test_a_state_that_is_none_is_named(stopped, killed, how, words):
    if how == "foreign":
        other = replace(stopped.stream, seed=9)
        StreamState.start(other).save(stopped.state_file, other)
    elif how == "broken":
        stopped.state_file.write_bytes(stopped.state_file.read_bytes()[:-40])
    else:
        stopped.state_file.unlink()
    assert stopped.remark().startswith(f"film.mp4.resume, from which the video would go on, {words}: the frames from 0.0 s to 0.6 s")
    assert passes(stopped.record()) == ([0, 3, 6], 0)
    assert same(stopped.path, killed[-1] / "film.mp4")


def test_a_log_that_was_lost_after_the_state_was_saved_is_named(stopped, killed, tmp_path):
    folder = tmp_path / "later"
    for item in stopped.record():
        if isinstance(item, FrameChunk):
            folder.mkdir()
            for file in there(tmp_path):
                if file != "later":
                    shutil.copy(tmp_path / file, folder)
            break
    film = film_in(folder, stopped.stream)
    film.log.path.unlink()
    assert film.frames == 21
    assert film.remark().startswith("film.mp4.resume.latents, which holds what was denoised since film.mp4.resume was saved, is missing")
    assert "from 0.6 s to 1.3 s" in film.remark()
    assert passes(film.record()) == ([3, 6], 0)
    assert same(film.path, killed[-1] / "film.mp4")


def test_a_state_that_is_ahead_of_the_file_is_named(stopped, stream, tmp_path):  # noqa: F811
    state = StreamState.start(stream)
    for _ in stream.frames(state):
        if state.next_frame >= 21:
            break
    state.save(stopped.state_file, stream)
    assert "was saved later than the end of the video was written: the frames from 0.0 s to 0.6 s" in stopped.remark()
    assert passes(stopped.record()) == ([0, 3, 6], 0)


@pytest.mark.parametrize("worker", [InlineExecutor, BackgroundExecutor])
def test_the_state_is_saved_now_and_then_and_the_log_holds_what_came_since(stream, tmp_path, monkeypatch, killed, worker):  # noqa: F811
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(module, "SAVE_SHARE", 0)
    film, saved, number = film_in(tmp_path, stream, worker), 0, 0
    for item in film.record():
        said = StreamState.look_at(film.state_file)
        if said is not None:
            log = film.log
            saved += 1
            assert log.first <= said["chunk"] or len(log) == 0
            assert len(log) <= 2
        if isinstance(item, FrameChunk):
            number += 1
            shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-{number}")
    assert saved and there(tmp_path) == ["film.mp4"]
    for left in range(2, number):
        again = film_in(tmp_path.parent / f"{tmp_path.name}-{left}", stream, worker)
        assert again.remark() == ""
        list(again.record())
        assert same(again.path, killed[-1] / "film.mp4")


def test_a_spool_of_the_users_takes_the_logs_place(stream, tmp_path, killed):  # noqa: F811
    film = film_in(tmp_path, stream, spool=LatentLog(tmp_path / "kept", stream.recipe()))
    with closing(film.record()) as happening:
        for item in happening:
            if isinstance(item, LatentChunk) and item.index == 1:
                break
    film.state_file.unlink(missing_ok=True)
    assert not film.log.path.exists() and film.remark() == ""
    assert passes(film.record()) == ([6], 2)
    assert same(film.path, killed[-1] / "film.mp4") and len(film.spool) == 3


def test_an_unlimited_window_goes_on_with_more_room_bit_for_bit(stream, tmp_path):  # noqa: F811
    """A longer film of the same recipe needs a larger cache, and takes up what the smaller one remembered."""

    def unlimited(seconds, room):
        return replace(stream, seconds=seconds, settings=replace(stream.settings, window=None, max_frames=room))

    short, long = unlimited(1.0, 6), unlimited(2.0, 30)
    assert short.recipe() == long.recipe()
    whole = torch.cat([chunk.frames for chunk in long])
    state = StreamState.start(short)
    first = torch.cat([chunk.frames for chunk in short.frames(state)])
    state.save(tmp_path / "state", short)
    again = StreamState.load(tmp_path / "state", long)
    assert again.next_frame == 21 and again.rollout.cache.num_bytes > state.rollout.cache.num_bytes
    assert torch.equal(first, whole[:16])
    assert torch.equal(torch.cat([chunk.frames for chunk in long.frames(again)]), whole[21:])
    for _ in long.frames(again := StreamState.start(long)):
        pass
    again.save(tmp_path / "state", long)
    assert StreamState.load(tmp_path / "state", short) is None  # no room for all of it


# ---- the decoder ----


def wan_decoder(seed: int = 5) -> VideoDecoder:
    torch.manual_seed(seed)
    return VideoDecoder(prepare(WanVAE(dim=2).eval(), torch.float32))


def tiny_decoder() -> TinyDecoder:
    torch.manual_seed(5)
    return TinyDecoder(TinyVAE("model", (8, 8, 8, 8)).eval())


@pytest.mark.parametrize("decoder", [wan_decoder, tiny_decoder])
def test_a_decoder_that_begins_late_makes_the_same_frames_once_it_has_seen_enough(decoder):
    decoder, chunks = decoder(), (DECODER_REMEMBERS + 2) // 3 + 3
    latents = torch.randn(1, 16, 3 * chunks, 2, 2)
    begin = 2

    def made(first: int) -> list[torch.Tensor]:
        state = DecoderState(next_frame=3 * first)
        spans = [LatentSpan(3 * index, 3 * index + 3) for index in range(first, chunks)]

        def decode(span):
            return decoder.decode(LatentChunk(span.start // 3, span, latents[:, :, span.start : span.stop]), state)

        return [decode(span).frames for span in spans]

    whole, late = made(0)[begin:], made(begin)
    enough = -(-DECODER_REMEMBERS // 3)
    assert all(torch.equal(a, b) for a, b in zip(whole[enough:], late[enough:], strict=True))
    assert not torch.equal(whole[1], late[1])


def test_a_long_film_that_was_killed_decodes_only_what_the_decoder_remembers(stream, tmp_path):  # noqa: F811
    long = replace(stream, decoder=wan_decoder(), driving=Driving(audio=speech(22.75)))  # 31 chunks
    whole, film = film_in(tmp_path / "whole", long), film_in(tmp_path / "film", long)
    decoded = []

    class Watched(VideoDecoder):
        def decode(self, chunk, state):
            decoded.append(chunk.index)
            return super().decode(chunk, state)

    for folder in ("whole", "film"):
        (tmp_path / folder).mkdir()
    for item in whole.record():
        if isinstance(item, FrameChunk) and item.index == 29:
            for file in there(tmp_path / "whole"):
                shutil.copy(tmp_path / "whole" / file, tmp_path / "film")
    film = replace(film, stream=replace(long, decoder=Watched(long.decoder.vae)))
    drawn, replayed = passes(film.record())
    assert drawn == [90] and replayed == 30
    assert decoded[0] == 3 and decoded == list(range(3, 31))  # 27 chunks hold the 80 frames that it remembers
    assert same(film.path, whole.path)


# ---- live ----


def speak(source: LiveAudio, seconds: float) -> None:
    for block in np.array_split(speech(seconds).waveform[0], 10):
        source.push(block)
    source.close()


@pytest.mark.parametrize("worker", [InlineExecutor, BackgroundExecutor])
def test_a_live_film_goes_on_until_its_source_ends_with_its_sound(stream, tmp_path, worker):  # noqa: F811
    source = LiveAudio(patience_seconds=60)
    film = film_in(tmp_path, replace(stream, driving=Driving(audio=source, script="[00:01-] smile")), worker)
    speaker = threading.Thread(target=speak, args=(source, 2.0))
    assert film.stream.num_frames is None and not film.is_whole()
    speaker.start()
    list(film.record())
    speaker.join()
    facts = probe(film.path)
    assert film.is_whole() and film.frames == facts.frames == 32 and there(tmp_path) == ["film.mp4"]
    assert facts.sound_seconds == pytest.approx(2.0, abs=0.05)
    recorded = film_in(tmp_path, stream)
    assert recorded.is_other()  # the same sound from a file is another performance


def test_a_live_film_goes_on_after_its_beginning_has_been_forgotten(stream, tmp_path):  # noqa: F811
    source, spoken = LiveAudio(kept_seconds=4), iter(np.array_split(speech(6.0).waveform[0], 24))  # a quarter of a second each
    film = film_in(tmp_path, replace(stream, driving=Driving(audio=source)))

    def hear(quarters):
        return [source.push(quarter) for quarter in itertools.islice(spoken, quarters)]

    hear(6)
    with closing(film.record()) as happening:
        for item in happening:
            if isinstance(item, FrameChunk) and item.span.stop >= 57:
                break
            hear(3 * isinstance(item, FrameChunk))
    assert film.frames == 57 and film.remark() == ""
    with pytest.raises(KnotForcingError, match="has been forgotten"):
        source.samples(0, 16_000)
    hear(24)
    source.close()
    list(film.record())
    assert film.is_whole()
    with av.open(str(film.path)) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    wanted = np.concatenate(list(speech(6.0).blocks(48_000)))[:, 0]
    assert np.corrcoef(heard[: len(wanted)], wanted)[0, 1] > 0.99


@pytest.mark.parametrize("sound", ["ended", "none"])
def test_a_film_goes_on_longer_than_its_sound(stream, tmp_path, sound):  # noqa: F811
    driving = Driving(audio=speech(0.3)) if sound == "ended" else Driving()
    long = replace(stream, driving=driving, seconds=2.0)
    film = film_in(tmp_path, long)
    with closing(film.record()) as happening:
        for item in happening:
            if isinstance(item, FrameChunk) and item.span.stop >= 21:
                break
    list(film.record())
    facts = probe(film.path)
    assert film.is_whole() and facts.seconds == 2.0 and facts.sound_seconds == pytest.approx(2.0, abs=1e-3)


def test_two_live_films_never_join(stream, tmp_path):  # noqa: F811
    first, second = (film_in(tmp_path, replace(stream, driving=Driving(audio=LiveAudio()))) for _ in range(2))
    speak(first.stream.driving.audio, 0.5)
    speak(second.stream.driving.audio, 0.5)
    list(first.record())
    assert not first.is_other() and second.is_other()


def test_a_film_that_says_nothing_of_its_recipe_is_another(stream, tmp_path, monkeypatch):  # noqa: F811
    film = film_in(tmp_path, replace(stream, seconds=0.5))
    list(film.record())
    assert not film.is_other()
    for said in ("", f" Recipe {film.stream.recipe()[:-1]}. Decoder 01234567.", f"Recipe {film.stream.recipe()}"):
        monkeypatch.setattr(module, "metadata", lambda path, said=said: {"comment": said})
        assert film.is_other()


def test_latents_and_pieces_of_a_live_source_end_with_it(stream, tmp_path):  # noqa: F811
    source = LiveAudio()
    live = replace(stream, driving=Driving(audio=source, script="[00:01-] smile"))
    pieces = Segments(stream=live, seconds=0.7, folder=tmp_path, spool=LatentLog(tmp_path, live.recipe()))
    assert pieces.count is None and pieces.span(2).stop == 34
    speak(source, 2.0)
    assert pieces.count == 3 and pieces.span(2).stop == 32
    latents = [item.latents for item in live.latents(pieces.spool) if isinstance(item, LatentChunk)]
    assert torch.cat(latents, 2).shape[2] == 9
    made = [item.frames for index in range(3) for item in pieces.take(index) if isinstance(item, FrameChunk)]
    assert torch.equal(torch.cat(made), torch.cat([chunk.frames for chunk in live]))
