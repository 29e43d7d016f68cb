"""The ear: it learns from speech, its features are of one size, a generator that gets it goes on as before and leaves it as it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kf_core.checkpoints.detect import sizes_of
from kf_core.checkpoints.known_models import kf_tiny
from kf_core.models.card import AudioSpec, ModelCard
from kf_core.models.shapes import shapes_of
from lab.kf_tiny.audio_pretrain import Heard, Takes, hearing_loss, how_well, report_of, standardise, steps_of, train_ear, with_ear
from lab.kf_tiny.speech_dataset import Library, Take
from lab.kf_tiny.student import StudentTraining

SPEC = AudioSpec(kind="log-mel", width=256, ear=(32, 8), code=16, first_layer=1, last_layer=5)


def library(seed: int = 0, frames: int = 400) -> Library:
    """A hum that is loud where the mouth is open: an ear that hears nothing else knows the mouth."""
    generator = np.random.default_rng(seed)
    opening = generator.integers(0, 3, frames // 4).repeat(4) / 2
    hum = np.sin(2 * np.pi * 300 * np.arange(1000 * frames) / 16_000)
    samples = (0.2 * hum * opening.repeat(1000)).astype(np.float16)
    mouth = np.stack([opening, 1 - opening, opening > 0.9]).astype(np.float32)
    return Library(samples, mouth, np.array([frames // 2, frames // 2]))


def a_batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    takes = list(library(seed).monologues())
    return torch.stack([steps_of(take) for take in takes]), torch.stack([torch.from_numpy(take.mouth.T) for take in takes])


def takes_of(seed: int) -> Takes:
    made = library(seed)
    generator = np.random.default_rng(seed)
    return Takes(lambda: made.cut(32, generator), torch.Generator().manual_seed(seed))


def test_an_ear_hears_what_it_was_never_told():
    torch.manual_seed(0)
    heard, takes = Heard(SPEC), takes_of(0)
    optimiser = torch.optim.AdamW(heard.parameters(), 5e-3)
    for _ in range(120):
        optimiser.zero_grad()
        hearing_loss(heard, *takes.draw()).backward()
        optimiser.step()
    found = how_well(heard, library(1))
    assert found["open"] > 0.9 and found["lowest"] > 0.85 and found["closed"] > 0.9


def test_an_ear_is_written_with_what_it_is_worth_and_with_nothing_else(tmp_path):
    report = train_ear(tmp_path / "ear.safetensors", SPEC, library(), library(1), minutes=0.005)
    assert report == report_of(tmp_path / "ear.safetensors") and report["minutes"] == 0.005 and -1 <= report["open"] <= 1
    assert {name: tuple(t.shape) for name, t in load_file(tmp_path / "ear.safetensors").items()} == {
        "0.weight": (32, 256), "0.bias": (32,), "2.weight": (8, 32), "2.bias": (8,),
    }  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["ear.safetensors"]


def test_an_ear_that_knows_nothing_is_told_so():
    torch.manual_seed(0)
    report = how_well(Heard(SPEC), library())
    assert report["open"] < 0.9 and 0.3 < report["closed"] < 0.7


def test_a_closed_mouth_that_is_taken_for_open_costs():
    heard, (steps, mouth) = Heard(SPEC), a_batch()

    def loss(bias):
        return hearing_loss(heard, steps, mouth * 0).item() if heard.closure.bias.data.fill_(bias) is not None else 0

    assert loss(-3.0) > loss(3.0)


def test_takes_are_kept_and_the_oldest_goes_first(monkeypatch):
    monkeypatch.setattr("lab.kf_tiny.audio_pretrain.KEPT", 6)
    made = iter(range(100))

    def make() -> Take:
        return Take(np.full(1000 * 9, 1e-3 * next(made), np.float32), np.full((3, 8), 0.0, np.float32))

    takes = Takes(make, torch.Generator().manual_seed(0))
    for _ in range(2):
        steps, mouths = takes.draw()
    assert steps.shape == (24, 8, 256) and mouths.shape == (24, 8, 3) and len(takes.kept) == 6
    assert next(made) == 8 and takes.oldest == 2


def test_features_get_mean_0_and_deviation_1():
    torch.manual_seed(0)
    ear, (steps, _) = Heard(SPEC).ear, a_batch()
    with torch.no_grad():
        standardise(ear, steps.flatten(0, 1))
        features = ear(steps.flatten(0, 1))
    assert features.mean(0).abs().max() < 1e-4 and (features.std(0) - 1).abs().max() < 1e-2


def test_a_generator_that_gets_an_ear_has_the_code_that_it_had():
    """Its code was a linear function of what this ear tells, so nothing of it may be lost."""
    torch.manual_seed(0)
    ear, told = torch.nn.Linear(256, 8), torch.nn.Linear(4 * 8, 16)
    steps, _ = a_batch()
    audio = steps.unflatten(1, (-1, 4)).flatten(2).flatten(0, 1)  # latent frames' steps
    weight, bias = told.weight @ torch.block_diag(*[ear.weight] * 4), told(ear.bias.repeat(4))
    given = with_ear(
        {"audio_proj.proj.weight": weight, "audio_proj.proj.bias": bias},
        replace(SPEC, ear=(8,)),
        {"0.weight": ear.weight.detach(), "0.bias": ear.bias.detach()},
        audio,
    )
    features = ear(audio.unflatten(-1, (4, -1))).flatten(-2)
    code = features @ given["audio_proj.proj.weight"].T + given["audio_proj.proj.bias"]
    wanted = audio @ weight.T + bias
    assert (code - wanted).square().mean() < 1e-2 * wanted.var()


def test_a_projection_that_fits_the_ear_is_left_alone():
    weights = {"audio_proj.proj.weight": torch.randn(16, 32), "audio_proj.proj.bias": torch.randn(16)}
    given = with_ear(weights, SPEC, Heard(SPEC).ear.state_dict(), torch.randn(8, 1024))
    assert all(torch.equal(given[name], tensor) for name, tensor in weights.items()) and len(given) == 6


def test_a_generator_that_gets_another_ear_of_the_same_width_has_the_code_that_it_had():
    """The other ear tells the same in another order, so the code can stay exactly as it was."""
    torch.manual_seed(0)
    spec, former = replace(SPEC, ear=(8,)), torch.nn.Linear(256, 8)
    order = torch.randperm(8)
    ear = {"0.weight": former.weight.detach()[order], "0.bias": former.bias.detach()[order]}
    weights = {"audio_proj.proj.weight": torch.randn(16, 32), "audio_proj.proj.bias": torch.randn(16)}
    weights |= {f"audio_proj.ear.0.{name}": tensor.detach() for name, tensor in former.named_parameters()}
    steps, _ = a_batch()
    audio = steps.unflatten(1, (-1, 4)).flatten(2).flatten(0, 1)
    given = with_ear(weights, spec, ear, audio)

    def code(of: dict[str, torch.Tensor]) -> torch.Tensor:
        heard = audio.unflatten(-1, (4, -1)) @ of["audio_proj.ear.0.weight"].T + of["audio_proj.ear.0.bias"]
        return heard.flatten(-2) @ of["audio_proj.proj.weight"].T + of["audio_proj.proj.bias"]

    wanted = code(weights)
    assert (code(given) - wanted).square().mean() < 1e-2 * wanted.var()
    assert (code(weights | {f"audio_proj.ear.{name}": tensor for name, tensor in ear.items()}) - wanted).square().mean() > wanted.var()


def test_an_ear_that_was_only_rounded_is_the_same_ear():
    ear = Heard(SPEC).ear.state_dict()
    weights = {"audio_proj.proj.weight": torch.randn(16, 32), "audio_proj.proj.bias": torch.randn(16)}
    given = with_ear(weights | {f"audio_proj.ear.{name}": tensor.half() for name, tensor in ear.items()}, SPEC, ear, torch.randn(8, 1024))
    assert all(torch.equal(given[name], tensor) for name, tensor in weights.items())


def test_a_student_leaves_its_ear_as_it_is():
    training = StudentTraining(kf_tiny(32))
    ear = training.networks.adapters.audio_proj.ear
    learning = {id(p) for optimiser in training.optimisers for group in optimiser.param_groups for p in group["params"]}
    assert not {id(p) for p in ear.parameters()} & learning
    assert {id(p) for p in training.networks.adapters.audio_proj.proj.parameters()} <= learning


@pytest.mark.parametrize("audio", [SPEC, replace(SPEC, ear=())])
def test_a_card_says_its_ear_only_where_it_has_one(audio):
    card = replace(kf_tiny(), audio=audio)
    assert ModelCard.from_json(card.to_json()) == card
    assert ('"ear"' in card.to_json()) == bool(audio.ear)


@pytest.mark.parametrize("audio", [kf_tiny().audio, replace(kf_tiny().audio, ear=())])
def test_the_sizes_of_a_file_tell_its_ear(audio):
    card = replace(kf_tiny(), audio=audio)
    assert sizes_of(shapes_of(card))["audio"] == audio
