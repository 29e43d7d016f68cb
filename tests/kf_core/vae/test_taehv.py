"""The laws of the tiny decoder, on random weights: the same as of Wan's own."""

import pytest
import torch

from kf_core.timeline import LatentSpan, PixelSpan
from kf_core.types import LatentChunk
from kf_core.vae.streaming import DecoderState
from kf_core.vae.taehv import TinyDecoder, TinyVAE
from kf_core.vae.wan import from_model_space


def decoder(space="model", seed: int = 0) -> TinyDecoder:
    torch.manual_seed(seed)
    vae = TinyVAE(space, widths=(12, 8, 6, 4)).double()
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.12)
    last = vae.requires_grad_(False).decoder[22]
    drawn = vae.decode(latents(), {})
    last.weight *= 0.1 / drawn.std()  # round mid grey, so that nothing is cut off at black or white
    last.bias += 0.5 - vae.decode(latents(), {}).mean()
    return TinyDecoder(vae)


def latents(frames: int = 5, seed: int = 1) -> torch.Tensor:
    return torch.randn(1, 16, frames, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("pushes", [(1, 1, 1, 1, 1), (2, 3), (3, 1, 1), (1, 4), (4, 1)])
def test_streamed_equals_whole(pushes):
    tiny, state = decoder(), DecoderState()
    streamed = torch.cat([tiny.decode_latents(piece, state) for piece in latents().split(pushes, dim=2)], dim=2)
    whole = tiny.decode_latents(latents(), DecoderState())
    assert whole.shape == (1, 3, 1 + 4 * (5 - 1), 24, 32) and state.next_frame == 5
    assert whole.std() > 1e-2 and (streamed - whole).abs().max() < 1e-12


def test_what_came_before_matters_and_what_follows_does_not():
    tiny = decoder()
    whole, other = latents(), latents()
    other[:, :, 3:] += 1
    first, second = (tiny.decode_latents(x, DecoderState()) for x in (whole, other))
    assert torch.equal(first[:, :, :9], second[:, :, :9]) and not torch.allclose(first[:, :, 9:], second[:, :, 9:])
    forgot = tiny.decode_latents(whole[:, :, 1:], DecoderState())  # without frame 0's memory the same frames look different
    assert (forgot[:, :, -4:] - first[:, :, -4:]).abs().max() > 1e-6


def test_two_streams_do_not_disturb_each_other_and_a_saved_one_goes_on():
    tiny, states = decoder(), [DecoderState(), DecoderState()]
    made = [[], []]
    for frame in range(4):
        for stream in (0, 1):
            piece = latents(4, seed=stream)[:, :, frame : frame + 1]
            made[stream].append(tiny.decode_latents(piece, states[stream]))
            states[stream] = DecoderState.from_state_dict(states[stream].state_dict())
    for stream in (0, 1):
        assert (torch.cat(made[stream], dim=2) - tiny.decode_latents(latents(4, seed=stream), DecoderState())).abs().max() < 1e-12


def test_the_state_does_not_grow():
    tiny, state, sizes = decoder(), DecoderState(), []
    for _ in range(5):
        tiny.decode_latents(latents(3), state)
        sizes.append(sum(kept.untyped_storage().nbytes() for kept in state.past.values()))
    assert len(state.past) == 9 and len(set(sizes)) == 1


def test_a_chunk_becomes_the_frames_of_its_span():
    tiny, state = decoder(), DecoderState()
    first = tiny.decode(LatentChunk(0, LatentSpan(0, 3), latents(3)), state)
    second = tiny.decode(LatentChunk(1, LatentSpan(3, 5), latents(2)), state)
    assert (first.span, second.span) == (PixelSpan(0, 9), PixelSpan(9, 17)) and second.frames.shape == (8, 24, 32, 3)
    with pytest.raises(ValueError, match="out of order"):
        tiny.decode(LatentChunk(0, LatentSpan(0, 3), latents(3)), state)


def test_each_space_gets_its_own_latents():
    """The same weights as taew2_1 and as lighttaew2_1: the latter is handed Wan's raw latents."""
    model, raw = decoder("model"), decoder("raw")
    handed = raw.decode_latents(latents(), DecoderState())
    assert torch.allclose(handed, model.decode_latents(from_model_space(latents()), DecoderState()))
    assert not torch.allclose(handed, model.decode_latents(latents(), DecoderState()), atol=1e-3)
    assert model.vae.content_id != raw.vae.content_id
