"""The decoder of a CPU makes the plain modules' frames, in less work."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import kf_core
from kf_core.checkpoints.vaes import load_vae
from kf_core.vae import optimized_decoder, winograd
from kf_core.vae.streaming import DecoderState, decode_latents, prepare
from kf_core.vae.wan import WanDecoder, WanVAE, from_model_space

PRECISIONS = [(torch.float64, 1e-10), (torch.float32, 5e-5)]  # random weights of a few channels round more than kf-tiny's
ASSETS = Path(kf_core.__file__).parent / "assets"


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def network(is_alone: bool = False, dtype: torch.dtype = torch.float64, dim: int = 4) -> WanVAE | WanDecoder:
    torch.manual_seed(3)
    made = WanDecoder(dim + 2) if is_alone else WanVAE(dim)
    for parameter in made.parameters():  # gains and biases must matter too
        parameter += 0.1 * torch.randn_like(parameter)
    return prepare(made, dtype)


def latents(frames: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    made = torch.randn(1, 16, frames, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return made.to(dtype).contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("frames", range(1, 14))
def test_fewer_frame_convolutions_are_the_convolution_over_time(frames, kernel, has_bias):
    torch.manual_seed(frames)
    seen, weight = torch.randn(frames + 2, 5, 6, 7).double(), torch.randn(4, 5, 3, kernel, kernel).double()
    bias = torch.randn(4).double() if has_bias else None
    wanted = F.conv3d(seen.movedim(0, 1)[None], weight, bias, padding=(0, kernel // 2, kernel // 2))[0].movedim(1, 0)
    padding = (kernel // 2, kernel // 2)
    torch.testing.assert_close(winograd.convolve(seen, weight, bias, padding), wanted, rtol=0, atol=1e-11)
    onto = torch.ones_like(wanted)
    assert winograd.convolve(seen, weight, bias, padding, onto) is onto
    torch.testing.assert_close(onto, wanted + 1, rtol=0, atol=1e-11)


def test_rounding_stays_near_that_of_the_plain_sum():
    torch.manual_seed(0)
    seen, weight = F.silu(torch.randn(6, 32, 12, 12).double()), torch.randn(16, 32, 3, 3, 3).double() / 30
    wanted = F.conv3d(seen.movedim(0, 1)[None], weight, padding=(0, 1, 1))[0].movedim(1, 0)
    made = winograd.convolve(seen.float(), weight.float(), None, (1, 1)).double()
    assert (made - wanted).square().mean().sqrt() < 1e-6 * wanted.square().mean().sqrt()


def test_doubling_and_convolving_is_one_convolution_on_the_small_frame():
    layer = network().decoder.upsamples[3]
    x = torch.randn(3, 16, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(optimized_decoder._doubled(layer.resample[1], x), layer.resample(x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("is_alone", [False, True])
@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("pushes", [(7,), (1,) * 7, (3, 3, 1), (2, 5), (1, 4, 2)])
def test_frames_and_states_are_those_of_the_plain_modules(pushes, dtype, tolerance, is_alone):
    vae, plain, ours = network(is_alone, dtype), {}, {}
    for piece in latents(7, dtype).split(pushes, dim=2):
        wanted, made = vae.decode(piece, plain), optimized_decoder.decode(vae, piece, ours)
        torch.testing.assert_close(made, wanted, rtol=0, atol=tolerance * float(wanted.abs().max()))
    assert ours.keys() == plain.keys()
    for name, kept in plain.items():
        torch.testing.assert_close(ours[name], kept, rtol=0, atol=tolerance * max(1.0, float(kept.abs().max()) if kept.numel() else 0))


def test_kf_tinys_frames_are_the_same_within_1e_5_of_float32():
    vae, plain, ours = load_vae(ASSETS / "kf-tiny-vae.safetensors", dtype=torch.float32), {}, {}
    for piece in from_model_space(latents(6, torch.float32)).split(3, dim=2):
        wanted, made = vae.decode(piece, plain), optimized_decoder.decode(vae, piece, ours)
        assert wanted.std() > 0.05 and (made - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
def test_streamed_equals_the_whole_clip(dtype, tolerance):
    vae, state = network(dtype=dtype), DecoderState()
    streamed = torch.cat([decode_latents(vae, piece, state) for piece in latents(7, dtype).split((3, 1, 3), dim=2)], dim=2)
    assert (streamed - decode_latents(vae, latents(7, dtype), DecoderState())).abs().max() < tolerance


def test_a_stream_goes_on_under_either():
    vae, whole = network(), latents(6)
    wanted = decode_latents(vae, whole, DecoderState())
    for first in (True, False):
        state, made = DecoderState(), []
        for place, piece in enumerate(whole.split(3, dim=2)):
            with torch.set_grad_enabled((place == 0) == first):  # with gradients the plain modules run
                made.append(decode_latents(vae, piece, state).detach())
        torch.testing.assert_close(torch.cat(made, dim=2), wanted, rtol=0, atol=1e-10)


def test_a_saved_stream_goes_on_bit_for_bit():
    vae, state, whole = network(dtype=torch.float32), DecoderState(), latents(9, torch.float32)
    decode_latents(vae, whole[:, :, :3], state)
    saved = {name: kept.clone().contiguous() if isinstance(kept, torch.Tensor) else kept for name, kept in state.state_dict().items()}
    restored = DecoderState.from_state_dict(saved)
    for piece in whole[:, :, 3:].split(3, dim=2):
        assert torch.equal(decode_latents(vae, piece, state), decode_latents(vae, piece, restored))


def test_what_is_handed_in_stays_as_it_is_and_a_push_that_fails_spoils_no_state(monkeypatch):
    vae, state, whole = network(), DecoderState(), latents(6)
    decode_latents(vae, whole[:, :, :3], state)
    before = {name: kept.clone() for name, kept in state.past.items()}
    given = whole[:, :, 3:].clone()
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="has no name"):
        patch.setattr(vae.decoder.head[2], "name", "")
        decode_latents(vae, whole[:, :, 3:], state)
    assert state.next_frame == 3 and state.past.keys() == before.keys()
    assert all(torch.equal(state.past[name], kept) for name, kept in before.items()) and torch.equal(whole[:, :, 3:], given)


def test_what_is_kept_of_a_stream_does_not_hold_more():
    vae, plain, ours = network(), {}, {}
    for piece in latents(9).split(3, dim=2):
        vae.decode(piece, plain)
        optimized_decoder.decode(vae, piece, ours)

    def held(past):
        return sum(kept.untyped_storage().nbytes() for kept in past.values())

    assert held(ours) == held(plain)


def test_bfloat16_stays_as_close_as_the_plain_modules():
    exact, rough = network(), network(dtype=torch.bfloat16)
    wanted = exact.decode(latents(4), {})
    piece = latents(4, torch.bfloat16)

    def far(made):
        return float((made.double() - wanted).square().mean().sqrt())

    assert far(optimized_decoder.decode(rough, piece, {})) < 1.2 * far(rough.decode(piece, {})) < wanted.std()


def test_it_is_little_more_than_half_the_work():
    """Counted, so that no clock is needed: a chunk of a stream under way. At such a small size borders are a tenth of it."""
    vae, piece, work = network(dtype=torch.float32), latents(3, torch.float32), []
    for decode in (vae.decode, lambda *given: optimized_decoder.decode(vae, *given)):
        past = {}
        decode(piece, past)
        with FlopCounterMode(display=False) as counted:
            decode(piece, past)
        work.append(counted.get_total_flops())
    assert work[1] < 0.6 * work[0]


def test_gradients_and_batches_take_the_plain_modules():
    vae, two = network(), latents(3).repeat(2, 1, 1, 1, 1)
    assert not optimized_decoder.serves(two) and decode_latents(vae, two, DecoderState()).shape[0] == 2
    with torch.enable_grad():
        assert not optimized_decoder.serves(latents(3))
        decode_latents(vae, latents(3), DecoderState()).mean().backward()
    assert vae.decoder.conv1.weight.grad.abs().max() > 0
