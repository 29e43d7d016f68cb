"""LiveTalk's hearing: equal to the published path up to half a minute, in windows beyond."""

import numpy as np
import pytest
import soundfile
import torch

from kf_core.conditioning.audio import AudioArray, AudioFile, LiveAudio, Silence
from kf_core.conditioning.driving import Driving
from kf_core.encoders import wav2vec2
from kf_core.encoders.wav2vec2 import Wav2Vec2, read_encoder
from kf_core.errors import KnotForcingError
from kf_core.media.sound import SoundFile
from kf_core.models.card import AudioSpec, ModelCard, TextSpec
from kf_core.settings import RolloutSettings
from kf_core.timeline import LatentSpan, PixelSpan
from kf_core.types import SAMPLE_RATE
from tests.reference.recordings import Recording

transformers = pytest.importorskip("transformers")
FPS = 16.0


def card(width: int) -> ModelCard:
    return ModelCard(
        name="listener", dim=128, ffn_dim=128, layers=2, heads=1, in_channels=33, text=TextSpec(kind="umt5"),
        audio=AudioSpec(kind="wav2vec2", width=width), rollout=RolloutSettings(schedule=((1.0, 1000.0),)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    return transformers.Wav2Vec2Model(config).eval()


def voice(seconds: float) -> np.ndarray:
    generator = np.random.default_rng(0)
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.2 * np.sin(2 * np.pi * 170 * t) * (1 + np.sin(5 * t)) + 0.02 * generator.standard_normal(len(t)) + 0.01).astype(np.float32)


@pytest.mark.reference
def test_bound_driving_equals_livetalks_recording():
    recorded = Recording.read("lt_audio")
    tensors, frames = recorded.tensors, int(recorded.metadata["frames"])
    encoder = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**recorded.config)).eval()
    answer = encoder.load_state_dict({name[2:]: tensor for name, tensor in tensors.items() if name.startswith("w.")}, strict=False)
    assert not answer.unexpected_keys and set(answer.missing_keys) <= {"masked_spec_embed"}
    expected = tensors["out.audio_embeddings"][0]  # [4F - 3, width]
    driving = Driving(audio=AudioArray(tensors["in.wave"], SAMPLE_RATE))
    bound = driving.bind(card(expected.shape[1]), latent_height=2, latent_width=2, encoder=encoder)
    heard = torch.cat([bound.window(LatentSpan(f, f + 3)).audio.features for f in range(0, frames, 3)], dim=1)
    prepended = torch.cat((expected[:1].expand(3, -1), expected)).reshape(1, frames, -1)
    assert (heard - prepended).abs().max() / expected.abs().max() < 1e-5


def test_any_window_equals_the_whole_within_and_beyond_the_exact_length(encoder):
    for seconds in (7.0, 45.0):
        source = AudioArray(voice(seconds), SAMPLE_RATE)
        frames = round(seconds * FPS) + 40
        whole = Wav2Vec2(source, FPS, encoder).steps(PixelSpan(0, frames))
        features = Wav2Vec2(source, FPS, encoder)
        for start in (frames - 30, 5, 100, frames - 60, 0):
            assert torch.equal(features.steps(PixelSpan(start, start + 20)), whole[start : start + 20])


def test_a_clip_is_encoded_whole_and_what_is_asked_beyond_it_does_not_change_it(encoder):
    clip = AudioArray(voice(7.0), SAMPLE_RATE)
    features = Wav2Vec2(clip, FPS, encoder)
    wave = clip.open().samples(0, 7 * SAMPLE_RATE).astype(np.float64)
    wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
    own_steps = (7 * SAMPLE_RATE - 400) // 320 + 1
    expected = wav2vec2.encode(encoder, torch.from_numpy(wave).float(), torch.linspace(0, own_steps - 1, 7 * 16 + 1))
    features.steps(PixelSpan(100, 200))
    assert torch.allclose(features.steps(PixelSpan(0, 7 * 16 + 1)), expected, atol=1e-4)


def test_windows_are_far_closer_to_the_whole_than_sound_12_ms_amiss(encoder, monkeypatch):
    span, sound = PixelSpan(0, 60 * 16), voice(60)
    windows = Wav2Vec2(AudioArray(sound, SAMPLE_RATE), FPS, encoder).steps(span)
    monkeypatch.setattr(wav2vec2, "EXACT_SECONDS", 60.0)
    whole = Wav2Vec2(AudioArray(sound, SAMPLE_RATE), FPS, encoder).steps(span)
    amiss = Wav2Vec2(AudioArray(np.roll(sound, 200), SAMPLE_RATE), FPS, encoder).steps(span)
    assert 0 < (windows - whole).norm() < 0.3 * (amiss - whole).norm()


def test_the_end_of_long_sound_is_heard_no_worse_than_the_rest(encoder, monkeypatch):
    seconds = 45  # which windows two seconds into each other would leave 9 s of for the last
    span, source = PixelSpan(0, seconds * 16), AudioArray(voice(seconds), SAMPLE_RATE)
    windows = Wav2Vec2(source, FPS, encoder).steps(span)
    monkeypatch.setattr(wav2vec2, "EXACT_SECONDS", seconds + 1.0)
    away = (windows - Wav2Vec2(source, FPS, encoder).steps(span)).norm(dim=1)
    assert away[-8 * 16 :].mean() < 1.5 * away.mean()


def test_windows_change_without_a_jump(encoder):
    steps = Wav2Vec2(AudioArray(voice(60), SAMPLE_RATE), FPS, encoder).steps(PixelSpan(0, 60 * 16))
    jumps = (steps[1:] - steps[:-1]).norm(dim=1)
    starts = [213, 427, 641]  # windows of 320 spread over 961 frames
    seams = [start + edge for start in starts for edge in (-1, 2 * 16 - 1)]
    assert max(jumps[seams]) < jumps.quantile(0.99) * 1.5


def test_memory_holds_a_few_windows_whatever_the_length(encoder):
    features = Wav2Vec2(AudioArray(voice(120), SAMPLE_RATE), FPS, encoder)
    for second in range(0, 120, 3):
        features.steps(PixelSpan(16 * second, 16 * second + 16))
    assert len(features._remembered) == wav2vec2.REMEMBERED


@pytest.mark.parametrize("begins", [0, 60])
def test_a_long_file_is_read_once_from_front_to_back(encoder, tmp_path, monkeypatch, begins):
    soundfile.write(tmp_path / "long.wav", voice(100), SAMPLE_RATE)
    openings, blocks = [], SoundFile.blocks
    monkeypatch.setattr(SoundFile, "blocks", lambda *words: openings.append(words) or blocks(*words))
    features = Wav2Vec2(AudioFile(tmp_path / "long.wav"), FPS, encoder)
    heard = [features.steps(PixelSpan(start, start + 12)) for start in range(16 * begins, 16 * 100, 12)]
    assert len(openings) == 1
    at_once = Wav2Vec2(AudioFile(tmp_path / "long.wav"), FPS, encoder).steps(PixelSpan(16 * begins, 16 * 100))
    assert torch.equal(torch.cat(heard)[: len(at_once)], at_once)


def test_a_live_source_is_heard_once_a_window_has_come_and_however_it_comes(encoder):
    live, sound = LiveAudio(patience_seconds=0.05), voice(45)
    features = Wav2Vec2(live, FPS, encoder)
    live.push(sound[: 10 * SAMPLE_RATE])
    with pytest.raises(KnotForcingError, match="needs it up to"):
        features.steps(PixelSpan(0, 4))
    live.push(sound[10 * SAMPLE_RATE : 25 * SAMPLE_RATE])
    first = features.steps(PixelSpan(0, 200))
    live.push(sound[25 * SAMPLE_RATE :])
    live.close()
    at_once = LiveAudio()
    features_at_once = Wav2Vec2(at_once, FPS, encoder)
    at_once.push(sound)
    at_once.close()
    expected = features_at_once.steps(PixelSpan(0, 800))
    assert torch.equal(torch.cat((first, features.steps(PixelSpan(200, 800)))), expected)


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.3])
def test_the_shortest_sounds_are_heard(encoder, seconds):
    steps = Wav2Vec2(AudioArray(voice(seconds), SAMPLE_RATE), FPS, encoder).steps(PixelSpan(0, 40))
    assert steps.shape == (40, 64) and steps.isfinite().all()


def test_silence_is_heard_without_dividing_by_nought(encoder):
    assert Wav2Vec2(AudioArray(np.zeros(SAMPLE_RATE), SAMPLE_RATE), FPS, encoder).steps(PixelSpan(0, 16)).isfinite().all()


def movement(steps: torch.Tensor) -> float:
    """How much what is heard changes from frame to frame, for its size."""
    return ((steps[1:] - steps[:-1]).norm(dim=1).mean() / steps.norm(dim=1).mean()).item()


def test_silence_is_heard_as_something_still_and_so_is_a_room_without_a_voice(encoder, monkeypatch):
    seconds, frames = 6, PixelSpan(16, 5 * 16)  # away from the clip's ends
    hiss = np.random.default_rng(1).standard_normal(seconds * SAMPLE_RATE) * 10 ** (-80 / 20)  # a quiet room with a good microphone

    def of(wave):
        return movement(Wav2Vec2(AudioArray(wave, SAMPLE_RATE), FPS, encoder).steps(frames))

    speech, silence, room = of(voice(seconds)), of(np.zeros(seconds * SAMPLE_RATE)), of(hiss)
    monkeypatch.setattr(wav2vec2, "QUIETEST", 0.0)
    room_made_loud = of(hiss)
    assert max(silence, room) < 1e-6 and room_made_loud > 0.5 * speech and of(voice(seconds)) == speech
    print(f"moves from frame to frame: speech {speech:.3f}, silence {silence:.1e}, room {room:.4f}, made loud {room_made_loud:.3f}")


def test_a_model_that_listens_hears_silence_where_no_voice_is_connected(encoder):
    span, place = LatentSpan(2, 5), dict(latent_height=2, latent_width=2, encoder=encoder)
    without = Driving().bind(card(64), **place).window(span).audio
    silent = Driving(audio=Silence()).bind(card(64), **place).window(span).audio
    assert torch.equal(without.features, silent.features) and without.features.abs().max() > 0
    assert Driving(audio_strength=0).bind(card(64), **place).window(span).audio is None


def test_what_is_missing_is_said_in_words(tmp_path, encoder):
    driving = Driving(audio=AudioArray(voice(1), SAMPLE_RATE))
    for each in (driving, Driving()):
        with pytest.raises(KnotForcingError, match="silence too, and no such encoder is loaded"):
            each.bind(card(64), latent_height=2, latent_width=2)
    with pytest.raises(KnotForcingError, match="hears 10752 numbers"):
        driving.bind(card(10752), latent_height=2, latent_width=2, encoder=encoder)
    with pytest.raises(KnotForcingError, match="config.json"):
        read_encoder(tmp_path)


def test_an_encoder_is_read_from_its_folder(tmp_path, encoder):
    encoder.save_pretrained(tmp_path)
    read = read_encoder(tmp_path)
    wave, places = torch.from_numpy(voice(1)), torch.arange(17) * 2.5
    assert torch.allclose(wav2vec2.encode(read, wave, places), wav2vec2.encode(encoder, wave, places))
