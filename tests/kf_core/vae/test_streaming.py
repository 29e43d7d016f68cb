"""The laws of the streamed autoencoder, on a tiny network in double precision."""

import pytest
import torch
from safetensors.torch import load, save

from kf_core.timeline import LatentSpan, PixelSpan
from kf_core.types import LatentChunk
from kf_core.vae.streaming import DecoderState, EncoderState, VideoDecoder, decode_latents, encode_clip, encode_frames, prepare
from kf_core.vae.wan import Decoder, Encoder, Upsample, WanDecoder, WanVAE, extend, from_model_space, to_model_space

FRAMES = 17  # frames; 5 latent frames


def tiny_vae(dtype=torch.float64, seed=0) -> WanVAE:
    torch.manual_seed(seed)
    return prepare(WanVAE(dim=4), dtype).requires_grad_(False)


def clip(dtype=torch.float64, frames=FRAMES, seed=1) -> torch.Tensor:
    return torch.rand(1, 3, frames, 16, 24, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    return tiny_vae()


def decoding(is_alone: bool, dtype=torch.float64) -> WanVAE | WanDecoder:
    """What makes frames: a whole VAE, or a decoder alone of another width."""
    torch.manual_seed(6)
    return prepare(WanDecoder(dim=6), dtype).requires_grad_(False) if is_alone else tiny_vae(dtype)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("pushes", [(17,), (1, 4, 4, 4, 4), (5, 12), (9, 4, 4), (1, 16)])
def test_streamed_encoding_equals_the_whole_clip(pushes, dtype, tolerance):
    vae, frames, state = tiny_vae(dtype), clip(dtype), EncoderState()
    streamed = torch.cat([encode_frames(vae, piece, state) for piece in frames.split(pushes, dim=2)], dim=2)
    assert streamed.shape == (1, 16, 5, 2, 3) and state.next_frame == 5
    assert (streamed - encode_clip(vae, frames)).abs().max() < tolerance


@pytest.mark.parametrize("is_alone", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("pushes", [(5,), (1, 1, 1, 1, 1), (2, 3), (3, 1, 1), (1, 4)])
def test_streamed_decoding_equals_the_whole_clip(pushes, dtype, tolerance, is_alone):
    decoder, state = decoding(is_alone, dtype), DecoderState()
    latents = encode_clip(tiny_vae(dtype), clip(dtype)) * 30  # an untrained encoder says little
    streamed = torch.cat([decode_latents(decoder, piece, state) for piece in latents.split(pushes, dim=2)], dim=2)
    whole = decode_latents(decoder, latents, DecoderState())
    assert streamed.shape == (1, 3, FRAMES, 16, 24) and whole.std(dim=2).mean() > 1e-4
    assert (streamed - whole).abs().max() < tolerance


def test_a_prefix_does_not_depend_on_what_follows(vae):
    frames = clip()
    assert (encode_clip(vae, frames)[:, :, :3] - encode_clip(vae, frames[:, :, :9])).abs().max() < 1e-10


def test_every_frame_of_a_group_reaches_its_latent(vae):
    frames = clip()
    for frame in range(5, 9):
        changed = frames.clone()
        changed[:, :, frame] = 1 - changed[:, :, frame]
        difference = (encode_clip(vae, changed) - encode_clip(vae, frames)).abs().amax((0, 1, 3, 4))
        assert difference[:2].max() == 0 and difference[2] > 1e-6


def test_two_streams_on_one_network_do_not_disturb_each_other(vae):
    latents = [torch.randn(1, 16, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    states = [DecoderState(), DecoderState()]
    made = [[], []]
    for frame in range(3):
        for stream in (0, 1):
            made[stream].append(decode_latents(vae, latents[stream][:, :, frame : frame + 1], states[stream]))
    for stream in (0, 1):
        assert (torch.cat(made[stream], dim=2) - decode_latents(vae, latents[stream], DecoderState())).abs().max() < 1e-10


@pytest.mark.parametrize("is_alone", [False, True])
def test_a_stream_continued_from_a_saved_state_equals_the_uninterrupted_one(is_alone):
    latents, state = torch.randn(1, 16, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)), DecoderState()
    vae = decoding(is_alone)
    decode_latents(vae, latents[:, :, :2], state)
    saved = state.state_dict()
    tensors = load(save({name: value.contiguous() for name, value in saved.items() if isinstance(value, torch.Tensor)}))
    restored = DecoderState.from_state_dict({**tensors, "next_frame": saved["next_frame"]})
    assert torch.equal(decode_latents(vae, latents[:, :, 2:], restored), decode_latents(vae, latents[:, :, 2:], state))


def test_a_restored_first_frame_is_not_taken_for_a_new_stream(vae):
    latents, state = torch.randn(1, 16, 2, 2, 2, dtype=torch.float64), DecoderState()
    decode_latents(vae, latents[:, :, :1], state)
    restored = DecoderState.from_state_dict(state.state_dict())
    assert decode_latents(vae, latents[:, :, 1:], restored).shape[2] == 4


def test_the_state_does_not_grow(vae):
    state, sizes = DecoderState(), []
    for _ in range(6):
        decode_latents(vae, torch.randn(1, 16, 1, 2, 2, dtype=torch.float64), state)
        sizes.append(sum(kept.untyped_storage().nbytes() for kept in state.past.values()))
    assert sizes[2] == sizes[-1] > 0


def test_a_push_that_fails_leaves_the_state_as_it_was(vae, monkeypatch):
    latents, state = torch.randn(1, 16, 2, 2, 2, dtype=torch.float64), DecoderState()
    decode_latents(vae, latents[:, :, :1], state)
    before = state.state_dict()
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(vae.decoder.head[2], "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
        decode_latents(vae, latents[:, :, 1:], state)
    assert state.state_dict().keys() == before.keys() and all(torch.equal(state.past[n], before[n]) for n in state.past)


def test_a_chunk_becomes_the_frames_of_its_span():
    vae = tiny_vae(torch.float32)
    latents, state, decoder = torch.randn(1, 16, 5, 2, 2), DecoderState(), VideoDecoder(vae)
    first = decoder.decode(LatentChunk(0, LatentSpan(0, 3), latents[:, :, :3]), state)
    second = decoder.decode(LatentChunk(1, LatentSpan(3, 5), latents[:, :, 3:]), state)
    assert (first.span, second.span) == (PixelSpan(0, 9), PixelSpan(9, 17))
    assert first.frames.shape == (9, 16, 16, 3) and second.frames.shape == (8, 16, 16, 3)
    assert first.frames.dtype == torch.float32 and first.frames.min() >= 0 and first.frames.max() <= 1
    with pytest.raises(ValueError, match="out of order"):
        decoder.decode(LatentChunk(3, LatentSpan(6, 8), latents[:, :, :2]), state)


def test_pushes_that_do_not_fill_a_latent_are_refused(vae):
    state = EncoderState()
    for frames in (2, 4, 0):
        with pytest.raises(ValueError, match="4n frames"):
            encode_frames(vae, clip(frames=FRAMES)[:, :, :frames], state)
    encode_frames(vae, clip(frames=1), state)
    with pytest.raises(ValueError, match="4n frames"):
        encode_frames(vae, clip(frames=5), state)


def test_gradients_through_a_stream_equal_those_of_the_whole_clip():
    def gradient(pushes):
        vae = tiny_vae().requires_grad_(True)
        encoder_state, decoder_state = EncoderState(), DecoderState()
        made = []
        for piece in clip(frames=9).split(pushes, dim=2):
            made.append(decode_latents(vae, encode_frames(vae, piece, encoder_state), decoder_state))
        torch.cat(made, dim=2).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in vae.parameters() if p.grad is not None])

    whole, streamed = gradient((9,)), gradient((1, 4, 4))
    assert whole.abs().max() > 0 and (streamed - whole).abs().max() < 1e-10


def test_bfloat16_stays_close_to_double_precision():
    exact, rough = tiny_vae(), tiny_vae(torch.bfloat16)
    latents = torch.randn(1, 16, 3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    wanted, got = decode_latents(exact, latents, DecoderState()), decode_latents(rough, latents.float(), DecoderState())
    assert got.dtype == torch.float32 and wanted.std() > 1e-3
    assert (got - wanted).abs().mean() < 0.05 * wanted.std() + 2e-3


def test_model_space_is_wans_statistics_taken_out():
    raw = torch.randn(1, 16, 2, 2, 2, dtype=torch.float64)
    assert torch.allclose(from_model_space(to_model_space(raw)), raw)
    assert abs(to_model_space(torch.zeros(1, 16, 1, 1, 1))[0, 0].item() - 0.7571 / 2.8184) < 1e-6


@pytest.mark.parametrize("part", ["encoder", "decoder", "time_conv", "tiny"])
def test_a_convolution_without_a_name_fails_at_once(part):
    """All that have none would share one past."""
    frames, latents = torch.rand(1, 3, 1, 16, 16), torch.rand(1, 16, 2, 2, 2)
    tasks = {
        "encoder": lambda: Encoder(4)(frames, {}),
        "decoder": lambda: Decoder(4)(latents, {}),
        "time_conv": lambda: Upsample(4, in_time=True)(torch.rand(1, 4, 2, 2, 2), {}),
        "tiny": lambda: extend({}, "", latents, keep=1),
    }
    with pytest.raises(ValueError, match="name"):
        tasks[part]()
