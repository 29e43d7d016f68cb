"""What a bound recipe promises: any window equals the whole, memory stays flat, nothing is dropped in silence."""

import threading
import wave
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kf_core.conditioning.audio import AudioArray, AudioFile, LiveAudio, Silence
from kf_core.conditioning.driving import Driving
from kf_core.conditioning.expression import EXPRESSION, ExpressionTrack
from kf_core.conditioning.pose import HeadAngles, PoseFrames
from kf_core.conditioning.track import Keyframes
from kf_core.encoders.log_mel import LogMel
from kf_core.errors import KnotForcingError
from kf_core.models.card import AudioSpec, ModelCard, PoseSpec, TextSpec
from kf_core.settings import RolloutSettings
from kf_core.timeline import LatentSpan, PixelSpan
from kf_core.types import SAMPLE_RATE, ChunkConditioning

from ...held import counted

CARD = ModelCard(
    name="tiny",
    dim=128,
    ffn_dim=128,
    layers=2,
    heads=1,
    in_channels=33,
    text=TextSpec(kind="none"),
    audio=AudioSpec(kind="log-mel", width=256),
    pose=PoseSpec(),
    expression=EXPRESSION,
    motion_strength=True,
    rollout=RolloutSettings(schedule=((1.0, 1000.0),)),
)
DEAF = replace(CARD, name="deaf", audio=None, pose=None, expression=(), motion_strength=False)
READER = replace(DEAF, name="reader", text=TextSpec(kind="umt5"))
SCRIPT = "calm\n[00:01-00:02] smile, nod\n[2-4] look left, big frown, shake head\n[5-] close eyes, lively"


def voice(seconds: float = 6) -> AudioArray:
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return AudioArray(0.3 * np.sin(2 * np.pi * (150 + 40 * t) * t) * (1 + np.sin(9 * t)), SAMPLE_RATE)


def bind(driving: Driving, card: ModelCard = CARD, **options):
    return driving.bind(card, latent_height=6, latent_width=8, **options)


def signals(window: ChunkConditioning) -> dict[str, torch.Tensor]:
    return {name: getattr(window, name).features for name in ("audio", "pose", "expression", "motion") if getattr(window, name) is not None}


FULL = Driving(audio=voice(), script=SCRIPT, motion=1.2, expression=(ExpressionTrack("brows", ((0, 0.0), (3, 0.8))),))


def test_the_shapes_are_what_the_generator_takes():
    window = bind(FULL).window(LatentSpan(0, 4))
    shapes = {name: tuple(features.shape) for name, features in signals(window).items()}
    assert shapes == {"audio": (1, 4, 1024), "pose": (1, 4, 12, 6, 8), "expression": (1, 4, 40), "motion": (1, 4, 1)}
    assert window.span == LatentSpan(0, 4) and window.text is None
    assert all(features.dtype == torch.float32 for features in signals(window).values())
    assert bind(FULL, dtype=torch.bfloat16).window(LatentSpan(0, 1)).audio.features.dtype == torch.bfloat16


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.tuples(st.integers(0, 26), st.integers(1, 6)), min_size=1, max_size=5))
def test_any_window_in_any_order_equals_the_whole(cuts):
    whole, bound = signals(bind(FULL).window(LatentSpan(0, 32))), bind(FULL)
    for start, length in cuts:
        part = signals(bound.window(LatentSpan(start, start + length)))
        for name, features in part.items():
            assert torch.equal(features, whole[name][:, start : start + length]), name


def test_frame_f_hears_steps_4f_minus_3_to_4f_and_frame_0_hears_step_0_four_times():
    heard = bind(Driving(audio=voice())).window(LatentSpan(0, 3)).audio.features[0].reshape(3, 4, 256)
    steps = LogMel(voice().open(), 16).steps(PixelSpan(0, 9))
    assert torch.equal(heard[0], steps[:1].expand(4, -1))
    assert torch.equal(heard[1], steps[1:5]) and torch.equal(heard[2], steps[5:9])


def test_what_is_absent_or_at_strength_nought_is_no_signal_at_all():
    assert signals(bind(Driving(audio_strength=0)).window(LatentSpan(0, 2))) == {}
    off = replace(FULL, audio_strength=0, pose_strength=0, expression_strength=0)
    assert set(signals(bind(off).window(LatentSpan(0, 2)))) == {"motion"}
    assert bind(replace(FULL, audio_strength=1.5)).window(LatentSpan(0, 2)).audio.strength == 1.5


def test_without_a_sound_silence_is_heard():
    without, silent = (signals(bind(driving).window(LatentSpan(0, 3))) for driving in (Driving(), Driving(audio=Silence())))
    assert set(without) == {"audio"} and torch.equal(without["audio"], silent["audio"])


def test_after_the_sound_there_is_silence_and_after_the_pose_the_model_is_free():
    driving = Driving(audio=voice(1), pose=HeadAngles(keys=((0, 10, 0, 0),), stop=1.0))
    assert driving.seconds == 1
    window = bind(driving).window(LatentSpan(8, 12))
    assert window.audio.features.unique().tolist() == [-1.5] and not window.pose.features.any()


def test_two_bindings_of_one_recipe_do_not_disturb_each_other():
    one, other = bind(FULL), bind(FULL)
    whole = signals(bind(FULL).window(LatentSpan(0, 12)))
    for frame in range(12):
        for bound, asked in ((one, frame), (other, 11 - frame)):
            for name, features in signals(bound.window(LatentSpan(asked, asked + 1))).items():
                assert torch.equal(features[:, 0], whole[name][:, asked])


def test_the_script_becomes_tracks():
    window = signals(bind(Driving(script="[1-2] smile, nod\n[2-] lively")).window(LatentSpan(0, 13)))
    expression = window["expression"][0].reshape(13, 4, 2, 5)  # step, value or flag, name
    assert expression[6, :, 0, 0].tolist() == pytest.approx([0.7] * 4) and expression[6, :, 1, 0].tolist() == [1] * 4
    assert not expression[2].any() and not expression[:, :, :, 1:].any()
    assert window["pose"][0, 6].any() and not window["pose"][0, 2].any()
    assert window["motion"][0, 2, 0] == 1 and window["motion"][0, 12, 0] == pytest.approx(1.4)


def test_a_pose_source_covers_the_scripts_nods_and_says_so():
    pose = PoseFrames(torch.rand(200, 48, 64, 3, generator=torch.Generator().manual_seed(0)))
    both, alone = bind(Driving(pose=pose, script="nod")), bind(Driving(pose=pose))
    assert torch.equal(both.window(LatentSpan(0, 6)).pose.features, alone.window(LatentSpan(0, 6)).pose.features)
    assert any("pose source" in remark for remark in both.unused) and not alone.unused


def test_an_expression_track_covers_the_scripts_and_a_motion_track_too():
    given_ = Driving(script="smile, lively", expression=(ExpressionTrack("smile", -0.2),), motion=Keyframes(((0, 0.3),)))
    window = signals(bind(given_).window(LatentSpan(0, 2)))
    assert window["expression"][0, 1, 0] == pytest.approx(-0.2) and window["motion"].unique().tolist() == pytest.approx([0.3])
    over_a_number = signals(bind(Driving(script="[1-] calm", motion=1.5)).window(LatentSpan(0, 13)))["motion"][0, :, 0]
    assert over_a_number[0] == 1.5 and over_a_number[12] == pytest.approx(0.6)


def test_whatever_the_model_cannot_use_is_said_in_words():
    given_ = Driving(audio=voice(1), pose=HeadAngles(keys=((0, 0, 0, 0),)), motion=1.0, script="smile, nod, lively, juggle")
    remarks = " ".join(bind(given_, DEAF).unused)
    for word in ("does not listen", "takes no pose", "smile", "head movements", "motion strength", "juggle"):
        assert word in remarks
    assert bind(FULL).unused == ()
    assert "no text encoder" in bind(Driving(prompt="a woman"), READER).unused[0]


def test_a_recording_that_is_cut_off_is_driven_as_far_as_it_goes_and_said(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "voice.flac", voice(6).waveform[0], SAMPLE_RATE)
    data = (tmp_path / "voice.flac").read_bytes()
    (tmp_path / "voice.flac").write_bytes(data[: len(data) // 2])
    bound = bind(Driving(audio=AudioFile(tmp_path / "voice.flac")))
    assert 1 < bound.seconds < 5 and "cut off" in bound.unused[0]
    assert bound.window(LatentSpan(30, 32)).audio.features.unique().tolist() == [-1.5]


def test_words_nobody_knows_are_listed_with_what_was_understood():
    (remark,) = bind(Driving(prompt="smile", script="[1-2] juggle, nod")).unused
    assert "'juggle'" in remark and "'smile', 'nod'" in remark


def test_a_model_that_reads_gets_timed_prompts_and_the_same_prompt_is_the_same_object():
    asked = []

    def encode(prompt: str) -> torch.Tensor:
        asked.append(prompt)
        return torch.full((1, 2, 4), float(len(prompt)))

    bound = bind(Driving(prompt="a woman speaks", script="[1-2] she smiles"), READER, text_encoder=encode)
    before, during, after = (bound.window(LatentSpan(frame, frame + 4)).text for frame in (0, 5, 9))
    assert before is after is bound.window(LatentSpan(1, 3)).text and before is not during
    assert asked == ["a woman speaks", "a woman speaks, she smiles"] and during.prompt == asked[1]
    assert bound.unused == () and signals(bound.window(LatentSpan(0, 1))) == {}


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"audio_strength": 2.5}, "audio_strength is 2.5"),
        ({"pose_strength": -1}, "between 0 and 2"),
        ({"motion": 3}, "motion is 3"),
        ({"motion": Keyframes(((0, 1.0), (4, 7.0)))}, "motion at 4 s is 7"),
        ({"expression_strength": float("nan")}, "expression_strength is nan"),
        ({"script": "[00:20-00:10] smile"}, "ends before it begins"),
    ],
)
def test_nonsense_is_refused_in_words_when_the_recipe_is_made(given_, words):
    with pytest.raises(KnotForcingError, match=words):
        Driving(**given_)


def test_a_card_of_another_width_is_refused_in_words():
    with pytest.raises(KnotForcingError, match="hears 80 numbers"):
        bind(Driving(audio=voice(1)), replace(CARD, audio=AudioSpec(kind="log-mel", width=80)))


def test_the_length_is_the_sounds_or_else_the_poses():
    pose = PoseFrames(torch.zeros(32, 8, 8, 3))
    assert Driving(audio=voice(6), pose=pose).seconds == 6 and Driving(pose=pose).seconds == 2
    assert Driving().seconds is None and Driving(audio=Silence()).seconds is None and Driving(audio=LiveAudio()).seconds is None


def test_a_window_waits_for_a_live_source_and_no_longer_than_it_must():
    live, sound = LiveAudio(), voice(3).open().samples(0, 3 * SAMPLE_RATE)
    bound, windows = bind(Driving(audio=live)), []
    thread = threading.Thread(target=lambda: windows.append(bound.window(LatentSpan(0, 4))))
    live.push(sound[:8_000])
    thread.start()
    thread.join(0.2)
    assert thread.is_alive(), "frames 0 .. 3 need 13 frames"
    live.push(sound[8_000 : 14 * 1_000 + 250])
    thread.join(60)
    assert torch.equal(windows[0].audio.features, bind(Driving(audio=voice(3))).window(LatentSpan(0, 4)).audio.features)


def test_a_long_recording_starts_at_once_and_is_driven_in_flat_memory(tmp_path):
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setparams((1, 1, 8_000, 0, "NONE", ""))
        for _ in range(6):
            file.writeframes(bytes([128]) * 8_000 * 60)
    bound = bind(Driving(audio=AudioFile(tmp_path / "long.wav"), script=SCRIPT, motion=1.0))

    def listen(first, last):
        return [bound.window(LatentSpan(4 * t, 4 * t + 4)).span for t in range(first, last, 10)]

    listen(0, 200)  # a chunk of every ten seconds, all of the sound read through
    with counted() as held:
        listen(200, 220)
        before = held()
        listen(220, 280)
        assert bound.seconds == 360 and held() - before < 5e5, "the samples of a minute are 3.8 MB"
