"""Laws of fingerprints: every bit of what was given counts, no class's or field's name does, and no copy is made."""

import dataclasses
import hashlib
import importlib
import os
import pkgutil
import tracemalloc
import typing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import kf_core
from kf_core import content_id as module
from kf_core.checkpoints.read import read_header
from kf_core.conditioning.anchor import Anchor
from kf_core.conditioning.audio import AudioArray, AudioFile, LiveAudio, Silence
from kf_core.conditioning.control import ControlFrames
from kf_core.conditioning.driving import Driving
from kf_core.conditioning.expression import ExpressionTrack
from kf_core.conditioning.pose import HeadAngles, PoseFrames
from kf_core.conditioning.track import Held
from kf_core.content_id import LEFT_OUT, Unrepeatable, added_later, fingerprint, frozen_names, names_of, places
from kf_core.models.card import ModelCard
from kf_core.settings import RolloutSettings

from .cli.commands import write_voice
from .session.test_stream import CARD, stream  # noqa: F401

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.uint8, torch.int64, torch.bool]
SHAPES = {"plain": (6, 4), "0-dim": (), "empty": (0, 3), "one": (1,)}
PROTOCOLS = ("AudioSource", "PoseSource", "ControlSource", "Track")  # what a recipe may hold beside the classes that it names


def by_hand(tensor: torch.Tensor) -> str:
    """As the names of all saved streams were computed."""
    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return hashlib.sha256(b"<Tensor>" + f"{tensor.dtype} {list(tensor.shape)}".encode() + data + b"</>").hexdigest()[:32]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_numbers_keep_the_names_they_had(dtype, shape):
    torch.manual_seed(0)
    tensor = (10 * torch.randn(shape)).to(dtype)
    assert fingerprint(tensor) == by_hand(tensor)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_how_numbers_lie_in_memory_does_not_count(dtype):
    tensor = torch.randn(6, 4).to(dtype)
    for other in (tensor.t().contiguous().t(), torch.stack((tensor, tensor), -1)[..., 0], torch.cat((tensor, tensor))[6:]):
        assert fingerprint(other) == fingerprint(tensor) == by_hand(tensor)


def test_an_array_is_named_like_the_tensor_of_its_numbers():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    data = b"<ndarray>" + b"torch.float32 [3, 4]" + array.tobytes() + b"</>"
    assert fingerprint(array) == hashlib.sha256(data).hexdigest()[:32]


def test_large_tensors_are_not_copied():
    tensor = torch.zeros(2**24, dtype=torch.uint8)
    tracemalloc.start()
    fingerprint(tensor)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_numbers_of_numpy_are_named_like_pythons():
    assert fingerprint(np.float64(0.1)) == fingerprint(0.1) != fingerprint(0.2)


# ---- media ----


def write_old(path: Path, data: bytes) -> None:
    """A file that nobody has touched for a while."""
    path.write_bytes(data)
    os.utime(path, (1e9, 1e9 + path.stat().st_ino % 1000))


@pytest.mark.parametrize("share", [0.0, 0.137, 0.5, 0.999999])
def test_every_byte_of_a_file_counts(tmp_path, share):
    data = bytearray(8 * 2**20)
    write_old(tmp_path / "a.wav", data)
    before = fingerprint(tmp_path / "a.wav")
    data[int(share * len(data))] ^= 1
    (tmp_path / "other").mkdir()
    write_old(tmp_path / "other" / "b.wav", data)
    assert fingerprint(tmp_path / "other" / "b.wav") != before


@pytest.mark.parametrize("seconds", [1.0, 61.3])
def test_a_word_that_was_changed_in_a_voice_is_another_recipe(stream, tmp_path, seconds):  # noqa: F811
    """At any place of the recording, whatever its length."""
    write_voice(tmp_path / "voice.wav", seconds)

    def spoken_by():
        return replace(stream, driving=Driving(audio=AudioFile(tmp_path / "voice.wav"))).recipe()

    before, data = spoken_by(), bytearray((tmp_path / "voice.wav").read_bytes())
    for share in (0.2, 0.51, 0.93):
        changed = data.copy()
        changed[int(share * len(data)) : int(share * len(data)) + 3200] = bytes(3200)
        assert changed != data
        (tmp_path / "voice.wav").write_bytes(changed)
        assert spoken_by() != before
    (tmp_path / "voice.wav").write_bytes(data)
    assert spoken_by() == before


def test_every_number_of_an_array_counts():
    wave, frames = np.zeros((1, 500_000), np.float32), torch.zeros(4, 64, 64, 3)
    other_wave, other_frames = wave.copy(), frames.clone()
    other_wave[0, 123_457], other_frames[2, 33, 17, 1] = 1e-6, 1e-6
    assert fingerprint(AudioArray(wave, 16000)) == fingerprint(AudioArray(wave, 16000)) != fingerprint(AudioArray(other_wave, 16000))
    for kind in (PoseFrames, ControlFrames):
        assert fingerprint(kind(frames)) == fingerprint(kind(frames)) != fingerprint(kind(other_frames))
    assert fingerprint(Anchor(frames)) != fingerprint(Anchor(other_frames))


def test_a_file_is_read_once_and_again_when_it_has_changed(tmp_path, monkeypatch):
    read, reads = module._read, []
    monkeypatch.setattr(module, "_read", lambda path: reads.append(path) or read(path))
    write_old(tmp_path / "voice.wav", b"one word")
    first = fingerprint(tmp_path / "voice.wav")
    assert fingerprint(tmp_path / "voice.wav") == first and len(reads) == 1
    (tmp_path / "voice.wav").write_bytes(b"two word")  # as long, and just now
    assert fingerprint(tmp_path / "voice.wav") != first
    (tmp_path / "voice.wav").write_bytes(b"one word")  # within the same tick of the clock
    assert fingerprint(tmp_path / "voice.wav") == first
    write_old(tmp_path / "other.wav", b"six word")
    os.replace(tmp_path / "other.wav", tmp_path / "voice.wav")  # another file under the same name, as old and as long
    assert fingerprint(tmp_path / "voice.wav") != first


# ---- weights ----


def test_every_number_of_a_network_counts():
    network = torch.nn.Linear(300, 300)
    before = fingerprint(network)
    for row, column in ((0, 0), (17, 0), (17, 211), (299, 299)):
        changed = torch.nn.Linear(300, 300)
        changed.load_state_dict(network.state_dict())
        assert fingerprint(changed) == before
        with torch.no_grad():
            changed.weight[row, column] += 1e-3
        assert fingerprint(changed) != before
        with torch.no_grad():
            changed.weight.copy_(network.weight.roll(1, 0))
        assert fingerprint(changed) != before  # the same numbers in other places


def test_how_a_networks_weights_lie_in_memory_does_not_count():
    network = torch.nn.Conv2d(3, 5, 3)
    before = fingerprint(network)
    network.to(memory_format=torch.channels_last)
    assert not network.weight.is_contiguous() and fingerprint(network) == before


def test_places_are_all_over_and_off_any_grid():
    assert places(4, 3) == [0, 1, 2] and places(4, 4) == [0, 1, 2, 3]
    chosen = places(256, 1536 * 1536)
    assert (chosen[0], chosen[-1]) == (0, 1536 * 1536 - 1) and chosen == sorted(set(chosen))
    assert all(b - a < 2 * 1536 * 1536 // 256 + 2 for a, b in zip(chosen, chosen[1:], strict=False))
    assert len({place % 1536 for place in chosen}) > 200  # not one column


@pytest.mark.parametrize("name", ["last.weight", "norm.weight", "block.7.weight"])
def test_a_tensor_that_was_changed_in_a_file_of_weights_is_seen(tmp_path, name):
    torch.manual_seed(0)
    weights = {f"block.{i}.weight": torch.randn(700, 700) for i in range(12)}
    weights |= {"norm.weight": torch.ones(40), "last.weight": torch.ones(9)}
    save_file(weights, tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "a.pt")
    changed = weights | {name: weights[name] + 1e-3}
    save_file(changed, tmp_path / "b.safetensors")
    torch.save(changed, tmp_path / "b.pt")
    for kind in ("safetensors", "pt"):
        assert read_header(tmp_path / f"a.{kind}").fingerprint != read_header(tmp_path / f"b.{kind}").fingerprint


def test_a_text_encoder_counts_where_the_model_reads(stream):  # noqa: F811
    class Reader:
        def __init__(self, name: str) -> None:
            self.content_id = name

        def __call__(self, prompt: str) -> torch.Tensor:
            return torch.zeros(1, 2, 8)

    reads = replace(CARD, text=replace(CARD.text, kind="umt5"))

    def by(card, reader):
        return replace(stream, model=replace_card(stream.model, card), text_encoder=reader).recipe()

    assert by(reads, Reader("a")) == by(reads, Reader("a")) != by(reads, Reader("b"))
    assert by(reads, None) != by(reads, Reader("a"))
    assert by(CARD, Reader("a")) == by(CARD, Reader("b")) == by(CARD, None)

    def nameless(prompt):
        return torch.zeros(1, 2, 8)

    assert by(reads, nameless) != by(reads, nameless)  # nobody can say that they are the same


def replace_card(model, card: ModelCard):
    return type(model)(card, model.modules, model.adapters, dtype=model.dtype)


# ---- names ----


def hashed_classes() -> set[type]:
    """All dataclasses of the pack that a recipe may hold: those its own types lead to, and every source and track."""
    for found in pkgutil.walk_packages(kf_core.conditioning.__path__, "kf_core.conditioning."):
        importlib.import_module(found.name)
    known = {c for name, m in list(vars_of_modules()) for c in vars(m).values() if isinstance(c, type) and c.__module__ == name}
    known = {c for c in known if not c.__module__.startswith("kf_core.training")}  # where a test before this one has imported it
    protocols = [c for c in known if c.__name__ in PROTOCOLS]

    def wanted(c):
        return any(all(hasattr(c, name) for name in methods(p)) for p in protocols) and c not in protocols

    reached, left = set(), [Driving, Anchor, RolloutSettings, ModelCard, *(c for c in known if dataclasses.is_dataclass(c) and wanted(c))]
    while left:
        cls = left.pop()
        if cls in reached or not dataclasses.is_dataclass(cls):
            continue
        reached.add(cls)
        for hint in typing.get_type_hints(cls).values():
            left += classes_in(hint)
    return reached


def vars_of_modules():
    import sys

    return [(name, m) for name, m in sys.modules.items() if name.startswith("kf_core.")]


def methods(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_")]


def classes_in(hint) -> list[type]:
    parts = typing.get_args(hint)
    return [c for part in parts for c in classes_in(part)] if parts else [hint] if isinstance(hint, type) else []


def test_every_class_that_is_hashed_has_frozen_names():
    found = hashed_classes()
    assert {Driving, ModelCard, RolloutSettings, HeadAngles, AudioFile, Held, ExpressionTrack} <= found
    lacking = [c.__name__ for c in found if names_of(c) is None and not hasattr(c, "content_id")]
    assert not lacking, f"without frozen names: {lacking}"
    kinds = [names_of(c)[0] for c in found if names_of(c)]
    assert len(set(kinds)) == len(kinds)


def test_a_field_without_a_frozen_name_is_refused_where_it_is_written():
    @dataclass(frozen=True)
    class Voice:
        pitch: float
        colour: str

    for names in (dict(pitch="pitch"), dict(pitch="pitch", colour="colour", gone="gone"), dict(pitch="same", colour="same")):
        with pytest.raises(TypeError, match="Voice has the fields"):
            frozen_names("voice", **names)(Voice)
    assert names_of(frozen_names("voice", pitch="pitch", colour=LEFT_OUT)(Voice)) is not None


def test_renaming_and_reordering_change_no_name_and_what_is_left_out_does_not_count():
    @frozen_names("voice", pitch="pitch", colour="colour", note=LEFT_OUT)
    @dataclass(frozen=True)
    class Voice:
        pitch: float
        colour: str
        note: str = ""

    @frozen_names("voice", timbre="colour", height="pitch", remark=LEFT_OUT, breath="breath")
    @dataclass(frozen=True)
    class Renamed:
        timbre: str
        height: float
        remark: str = ""
        breath: float = added_later(0.0)

    assert fingerprint(Voice(1.0, "warm")) == fingerprint(Voice(1.0, "warm", "x")) == fingerprint(Renamed("warm", 1.0, "y"))
    assert fingerprint(Voice(1.0, "warm")) != fingerprint(Voice(1.0, "cold"))
    assert fingerprint(Renamed("warm", 1.0, breath=1.0)) != fingerprint(Renamed("warm", 1.0))


def test_a_dataclass_without_frozen_names_has_no_fingerprint():
    @dataclass(frozen=True)
    class Voice:
        pitch: float = 1.0

    with pytest.raises(Unrepeatable, match="Voice"):
        fingerprint(Voice())

    @frozen_names("voice", pitch="pitch")
    @dataclass(frozen=True)
    class Named:
        pitch: float = 1.0

    class Deeper(Named):
        pass

    with pytest.raises(Unrepeatable, match="Deeper"):  # it may hold more than its base
        fingerprint(Deeper())


def test_names_are_for_ever():
    """These names stand in the files of users. A change here loses what they kept: then the version changes, too."""
    assert fingerprint(RolloutSettings(schedule=((1.0, 1000.0), (0.5, 500.0)))) == "04a20bb834b724f9ee54faf4bd55f57e"
    driving = Driving(audio=AudioArray(np.zeros((1, 4)), 16000), pose=HeadAngles(keys=((0.0, 1.0, 2.0, 3.0),)), script="smile")
    assert fingerprint(driving) == "afae7da785090e29cefdaa1b23b16a89"
    looks = (ExpressionTrack("smile", Held(0.5)),)
    assert fingerprint(replace(driving, expression=looks, motion=1.0)) == "97159c6448e5276db67ceecac096110c"
    assert fingerprint(CARD) == "361bff3c9de066f01e6c8d1eca6043fc"
    assert fingerprint(True, None, 1, 0.5, "a", b"b", (1, [2]), {"k": 3}) == "8c1b3cea6cafee453de378e216ec0e28"


def test_what_is_said_of_a_model_and_how_long_a_stream_is_do_not_count(stream):  # noqa: F811
    retold = replace(CARD, note="beware", licence="MIT", source="elsewhere", name="another")
    assert replace(stream, model=replace_card(stream.model, retold)).recipe() == stream.recipe()

    def unlimited(room):
        return replace(stream, settings=replace(stream.settings, window=None, max_frames=room)).recipe()

    assert unlimited(20) == unlimited(2000) != stream.recipe()

    def silent(seconds):
        return replace(stream, driving=Driving(audio=Silence(seconds)), seconds=seconds).recipe()

    assert silent(1.0) == silent(2.0)


def test_a_live_source_has_a_name_of_its_own(stream):  # noqa: F811
    first, second = LiveAudio(), LiveAudio()

    def by(source):
        return replace(stream, driving=Driving(audio=source)).recipe()

    assert by(first) == by(first) != by(second) and len(by(first)) == 32

    class Unknown:  # somebody's own source, which says no name
        seconds = None
        open, blocks = LiveAudio.open, LiveAudio.blocks

    source = Unknown()
    ours = replace(stream, driving=Driving(audio=source))
    assert ours.recipe() == ours.recipe() != by(source) and len(ours.recipe()) == 32


def test_a_stream_computes_its_recipe_once_and_a_changed_one_its_own(stream):  # noqa: F811
    asked = []

    @dataclass(frozen=True, eq=False)
    class Watched(ControlFrames):
        @property
        def content_id(self) -> str:
            asked.append(self)
            return "control"

    led = replace(stream, driving=replace(stream.driving, control=Watched(torch.zeros(2, 8, 8, 3))))
    assert led.recipe() == led.recipe() != stream.recipe() and len(asked) == 1
    assert replace(led, seed=4).recipe() != led.recipe()
