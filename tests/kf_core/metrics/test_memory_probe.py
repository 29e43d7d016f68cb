from dataclasses import replace

from kf_core.metrics.memory_probe import held_after_chunks, last_change
from kf_core.vae.taehv import TinyDecoder

from .test_parity import stream


def test_after_the_third_chunk_a_stream_holds_the_same_to_the_byte():
    held = held_after_chunks(stream(), 8)
    assert len(held) == 8 and last_change(held) <= 3, held


def test_a_stream_that_remembers_every_frame_has_its_memory_from_the_beginning():
    endless = stream()
    growing = replace(endless, settings=replace(endless.settings, window=None, max_frames=20))
    assert last_change(held_after_chunks(growing, 5)) <= 3


def test_what_is_kept_of_each_chunk_is_seen():
    kept, ours = [], stream()

    class Keeping(TinyDecoder):
        def decode(self, chunk, state):
            kept.append(chunk.latents.clone())
            return super().decode(chunk, state)

    held = held_after_chunks(replace(ours, decoder=Keeping(ours.decoder.vae)), 6)
    assert last_change(held) == 6 and held[5] - held[4] == kept[-1].nbytes


def test_the_last_change_is_counted_from_one():
    assert last_change([5, 5, 5]) == 1 and last_change([5, 6, 7, 7, 7]) == 3 and last_change([5, 5, 5, 4]) == 4
