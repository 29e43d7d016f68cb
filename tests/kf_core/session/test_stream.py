"""Laws of a stream: repeatable, exact in length, continued bit for bit, read from its spool instead of computed."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kf_core.conditioning.audio import AudioArray
from kf_core.conditioning.driving import Driving
from kf_core.session.latent_log import LatentLog
from kf_core.session.stream import Stream, StreamState
from kf_core.timeline import PixelSpan
from kf_core.types import FrameChunk, LatentChunk, Step, gather
from kf_core.vae.streaming import VideoDecoder, prepare
from kf_core.vae.wan import WanVAE

from .. import tiny

CARD = replace(tiny.CARD, audio=replace(tiny.CARD.audio, width=256))


def decoder(seed: int = 5) -> VideoDecoder:
    torch.manual_seed(seed)
    return VideoDecoder(prepare(WanVAE(dim=4).eval(), torch.float32))


def speech(seconds: float) -> AudioArray:
    time = np.arange(round(seconds * 16000)) / 16000
    return AudioArray(0.4 * np.sin(2 * np.pi * 300 * time) * np.sin(2 * np.pi * 3 * time), 16000)


@pytest.fixture(scope="module")
def stream() -> Stream:
    model = tiny.generator(CARD, torch.float32)
    driving = Driving(audio=speech(2.0), script="[00:01-] smile")
    return Stream(model=model, decoder=decoder(), anchor=tiny.portrait(torch.float32), driving=driving, settings=CARD.rollout, seed=3)


@pytest.fixture(scope="module")
def whole(stream) -> torch.Tensor:
    return frames(stream.frames())


def frames(chunks) -> torch.Tensor:
    return torch.cat([chunk.frames for chunk in chunks])


def run_to(stream: Stream, state: StreamState, count: int, spool: LatentLog | None = None) -> torch.Tensor:
    """Frames until at least `count` of the stream have been made."""
    made = []
    for chunk in stream.frames(state, spool):
        made.append(chunk)
        if state.next_frame >= count:
            break
    return frames(made)


def test_the_length_is_that_of_the_sound_to_the_frame(stream, whole):
    assert len(whole) == stream.num_frames == 32
    assert len(frames(replace(stream, seconds=0.05))) == 1


def test_iterating_again_gives_the_same_frames(stream, whole):
    assert torch.equal(frames(stream), whole)


def test_a_prefix_does_not_depend_on_the_length_asked_for(stream, whole):
    assert torch.equal(frames(replace(stream, seconds=1.3)), whole[:21])


def test_spans_meet_and_count_every_frame_once(stream):
    spans = [chunk.span for chunk in stream]
    assert spans[0].start == 0 and spans[-1].stop == 32
    assert all(a.stop == b.start for a, b in itertools.pairwise(spans))


def test_gathered_frames_are_the_whole_and_lie_where_the_first_made_room(stream, whole):
    gathered, places = None, set()
    for chunk in stream:
        gathered = gather(gathered, chunk, PixelSpan(0, stream.num_frames))
        places.add(gathered.data_ptr())
    assert torch.equal(gathered, whole) and gathered.dtype == torch.float32 and len(places) == 1


def test_a_stream_without_end_goes_on(stream):
    endless = replace(stream, driving=Driving())
    assert endless.num_frames is None
    assert [chunk.span.stop for chunk in itertools.islice(endless, 7)] == [1, 9, 21, 33, 45, 57, 69]


def test_the_first_frame_is_there_before_the_others_are_decoded(stream):
    kinds = [type(item) for item in itertools.islice(stream.steps(), 5)]
    assert kinds == [Step, Step, LatentChunk, FrameChunk, FrameChunk]
    assert next(stream.frames()).span.length == 1


def test_two_streams_on_one_model_do_not_disturb_each_other(stream, whole):
    other = replace(stream, seed=4)
    alternating = [(a, b) for a, b in zip(stream, other, strict=True)]
    assert torch.equal(frames(a for a, _ in alternating), whole)
    assert not torch.equal(frames(b for _, b in alternating), whole)


@pytest.mark.parametrize("stop", [9, 21])
def test_continued_from_a_saved_state_equals_uninterrupted(stream, whole, tmp_path, stop):
    state = StreamState.start(stream)
    first = run_to(stream, state, stop)
    state.save(tmp_path / "state", stream)
    again = StreamState.load(tmp_path / "state", stream)
    assert again.next_frame == len(first) == stop
    assert torch.equal(torch.cat((first, frames(stream.frames(again)))), whole)


def test_a_state_saved_between_two_steps_is_that_of_the_last_chunk(stream, whole, tmp_path):
    state, seen = StreamState.start(stream), 0
    for item in stream.steps(state):
        seen += isinstance(item, FrameChunk)
        if isinstance(item, Step) and seen == 2 and item.index == 1:
            break
    state.save(tmp_path / "state", stream)
    assert torch.equal(frames(stream.frames(StreamState.load(tmp_path / "state", stream))), whole[9:])


def test_a_longer_stream_goes_on_from_the_state_of_a_shorter_one(stream, whole, tmp_path):
    short, state = replace(stream, seconds=1.0), StreamState.start(stream)
    assert len(frames(short.frames(state))) == 16
    state.save(tmp_path / "state", short)
    again = StreamState.load(tmp_path / "state", stream)
    assert again.next_frame == 21  # whole chunks, though 16 frames were shown
    assert torch.equal(frames(stream.frames(again)), whole[21:])


def test_a_state_is_taken_only_by_its_own_recipe(stream, tmp_path):
    StreamState.start(stream).save(tmp_path / "state", stream)
    for other in (
        replace(stream, seed=9),
        replace(stream, driving=Driving(audio=speech(2.1))),
        replace(stream, settings=replace(stream.settings, fuse=False)),
        replace(stream, anchor=tiny.portrait(torch.float32, seed=8)),
        replace(stream, model=tiny.generator(CARD, torch.float32, seed=8)),
    ):
        assert StreamState.load(tmp_path / "state", other) is None
    assert StreamState.load(tmp_path / "state", replace(stream, seconds=99)) is not None


@pytest.mark.parametrize("broken", [b"", b"\xff" * 8, None])
def test_a_broken_state_is_no_state(stream, tmp_path, broken):
    StreamState.start(stream).save(tmp_path / "state", stream)
    data = (tmp_path / "state").read_bytes()
    (tmp_path / "state").write_bytes(data[:-40] if broken is None else broken)
    assert StreamState.load(tmp_path / "state", stream) is None
    assert StreamState.load(tmp_path / "none", stream) is None


def test_what_the_spool_holds_is_read_and_not_drawn(stream, whole, tmp_path):
    spool = LatentLog(tmp_path, stream.recipe())
    assert torch.equal(frames(stream.frames(spool=spool)), whole) and len(spool) == 3
    again = list(stream.steps(spool=LatentLog(tmp_path, stream.recipe())))
    assert not any(isinstance(item, Step) for item in again)
    assert torch.equal(frames(item for item in again if isinstance(item, FrameChunk)), whole)


def test_a_spool_that_ends_early_is_continued(stream, whole, tmp_path):
    spool = LatentLog(tmp_path, "a")
    run_to(stream, StreamState.start(stream), 21, spool)
    assert len(spool) == 2
    assert torch.equal(frames(stream.frames(spool=spool)), whole) and len(spool) == 3


def test_another_decoder_reads_the_latents_of_the_first(stream, tmp_path):
    spool, state = LatentLog(tmp_path, "a"), StreamState.start(stream)
    run_to(stream, state, 21, spool)
    state.save(tmp_path / "state", stream)
    other = replace(stream, decoder=decoder(seed=6))
    again = StreamState.load(tmp_path / "state", other)
    assert again.next_frame == 0 and again.rollout.chunk == 2
    assert torch.equal(frames(other.frames(again, spool)), frames(other))


def test_latents_that_are_nowhere_are_asked_for_in_vain(stream, tmp_path):
    state = StreamState.start(stream)
    run_to(stream, state, 21)
    state.decoder = StreamState.start(stream).decoder
    with pytest.raises(ValueError, match="chunk 0 are nowhere"):
        next(stream.frames(state))


def test_a_record_that_was_cut_off_is_written_again(stream, tmp_path):
    spool = LatentLog(tmp_path, "a")
    run_to(stream, StreamState.start(stream), 21, spool)
    data = spool.path.read_bytes()
    for cut in (3, len(data) // 2 + 30, len(data) - 1):
        spool.path.write_bytes(data[:cut])
        again = LatentLog(tmp_path, "a")
        assert len(again) == (0 if cut == 3 else 1)
        run_to(stream, StreamState.start(stream), 21, again)
        assert spool.path.read_bytes() == data


def test_a_record_whose_bytes_have_changed_is_not_there(stream, tmp_path):
    spool = LatentLog(tmp_path, "a")
    run_to(stream, StreamState.start(stream), 21, spool)
    data = bytearray(spool.path.read_bytes())
    data[-5] ^= 1
    spool.path.write_bytes(data)
    assert len(LatentLog(tmp_path, "a")) == 1


@pytest.mark.parametrize("index", [0, 1])
def test_a_record_that_changed_before_others_is_not_there_once_it_is_read_and_is_written_over(stream, whole, tmp_path, index):
    spool = LatentLog(tmp_path, "a")
    frames(stream.frames(spool=spool))
    data = spool.path.read_bytes()
    spool.path.write_bytes(changed_in_record(data, index))
    again = LatentLog(tmp_path, "a")
    assert again.read(2) is not None and not again.holds(index, 3)
    assert len(again) == index and again.read(index) is None and again.read(2) is None
    assert torch.equal(frames(stream.frames(spool=LatentLog(tmp_path, "a"))), whole)
    assert spool.path.read_bytes() == data


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux says how much a process has read; run it there")
def test_a_long_spool_is_opened_without_reading_it_through(tmp_path):
    spool = LatentLog(tmp_path, "a")
    for index in range(30):
        spool.append(LatentChunk(index, stream_span(index), torch.full((1, 16, 3, 40, 60), float(index))))
    before = bytes_read()
    assert len(LatentLog(tmp_path, "a")) == 30
    assert bytes_read() - before < spool.path.stat().st_size / 4


def changed_in_record(data: bytes, index: int) -> bytes:
    """The same with one bit of record `index` of three turned over; the first record is as long as the others."""
    place = round(len(data) * (index + 0.5) / 3)
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def bytes_read() -> int:
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])


def test_a_reader_sees_the_spool_grow(stream, tmp_path):
    writer, reader = LatentLog(tmp_path, "a"), LatentLog(tmp_path, "a")
    assert reader.read(0) is None
    for item in stream.steps(spool=writer):
        if isinstance(item, LatentChunk):
            assert torch.equal(reader.read(item.index).latents, item.latents) and reader.read(item.index + 1) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_spool_keeps_every_bit(tmp_path, dtype):
    spool, latents = LatentLog(tmp_path, "a"), torch.randn(1, 16, 3, 4, 6).to(dtype)
    spool.append(LatentChunk(0, stream_span(0), latents))
    assert torch.equal(spool.read(0).latents, latents) and spool.read(0).latents.dtype == dtype
    with pytest.raises(ValueError, match="number 2 cannot be appended"):
        spool.append(LatentChunk(2, stream_span(2), latents))


def test_equal_recipes_have_equal_names(stream):
    same = replace(stream, driving=Driving(audio=speech(2.0), script="[00:01-] smile"), model=tiny.generator(CARD, torch.float32))
    assert same.recipe() == stream.recipe() and len(stream.recipe()) == 32


# ---- guided ----


class Reader:
    """Words as numbers: a text encoder in the small."""

    content_id = "by length"

    def __call__(self, prompt: str) -> torch.Tensor:
        return torch.sin(torch.arange(16.0) * (1 + len(prompt))).reshape(1, 2, 8)


@pytest.fixture(scope="module")
def guided(stream) -> Stream:
    card = replace(CARD, text=replace(CARD.text, kind="umt5"), negative_prompt="blurred")
    driving = replace(stream.driving, script="[00:00-00:01] hello\n[00:01-] and good bye")
    settings = replace(stream.settings, guidance=4.0)
    return replace(stream, model=tiny.generator(card, torch.float32), driving=driving, settings=settings, text_encoder=Reader())


def test_a_guided_stream_resumed_equals_uninterrupted_and_is_read_from_its_spool(guided, tmp_path):
    whole, state, spool = frames(guided), StreamState.start(guided), LatentLog(tmp_path, guided.recipe())
    first = run_to(guided, state, 9, spool)
    state.save(tmp_path / "state", guided)
    again = StreamState.load(tmp_path / "state", guided)
    assert torch.equal(torch.cat((first, frames(guided.frames(again, spool)))), whole)
    assert not any(isinstance(item, Step) for item in guided.steps(spool=LatentLog(tmp_path, guided.recipe())))
    unguided = replace(guided, settings=replace(guided.settings, guidance=1.0))
    assert StreamState.load(tmp_path / "state", unguided) is None and not torch.equal(frames(unguided), whole)


def test_the_negative_prompt_is_the_users_or_the_cards_and_counts_only_under_guidance(guided):
    def said(stream, words):
        return replace(stream, driving=replace(stream.driving, negative_prompt=words))

    assert torch.equal(frames(said(guided, "blurred")), frames(guided))
    other = said(guided, "out of focus")
    assert not torch.equal(frames(other), frames(guided)) and other.recipe() != guided.recipe()
    unguided = replace(guided, settings=replace(guided.settings, guidance=1.0))
    assert said(unguided, "out of focus").recipe() == unguided.recipe()
    assert any("guidance alone" in remark for remark in said(unguided, "out of focus").remarks())
    assert any("twice as long" in remark for remark in guided.remarks()) and len(unguided.remarks()) == len(guided.remarks()) - 1


def stream_span(index: int):
    return CARD.rollout.output_span(index)
