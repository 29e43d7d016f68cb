"""The ablation on an untrained model: sitters do not disturb each other, nothing is done twice, and the page says what was found."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from kf_core.checkpoints.known_models import kf_tiny
from kf_core.errors import KnotForcingError
from kf_core.metrics.flicker import FlickerResult, compare
from kf_core.metrics.identity import verification_auc
from kf_core.metrics.reader import load_reader
from kf_core.models.adapters import Adapters
from kf_core.models.causal import Generator
from kf_core.models.wan import WanModel
from kf_core.timeline import PixelSpan
from kf_core.vae.streaming import DecoderState, decode_latents, encode_clip
from kf_core.vae.wan import WanVAE
from lab.kf_tiny import measure
from lab.kf_tiny.subjects import seat
from lab.protocols import ablation
from lab.protocols import batched_rollout as sitting
from lab.protocols.ablation import CODEC, POSE_AND_SOUND, RESULTS, Equipment, Plan
from lab.protocols.ablation_page import KEPT, PALETTE, WORN, _table, rows_of, write_page
from lab.protocols.batched_rollout import RUN_UP, play, through_codec
from lab.protocols.metric_curves import COURSES
from lab.protocols.variants import Trained, variants

SIZE, SECONDS = 32, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("speech")


@pytest.fixture(scope="module")
def sitters(folder):
    return [seat(seed, SECONDS, SIZE, folder) for seed in (1, 2)]


def equipment(seed=1):
    torch.manual_seed(seed)
    card = replace(kf_tiny(SIZE), dim=128, heads=1, ffn_dim=128, layers=2, audio=replace(kf_tiny().audio, first_layer=1, last_layer=1))
    return Equipment(Generator(card, WanModel(card), Adapters(card)), WanVAE(4).eval().requires_grad_(False), load_reader())


@pytest.fixture(scope="module")
def own():
    return equipment()


def whole(played):
    return torch.cat([frames for _, frames in played], 1)


def plan(own, names, seeds=(1, 2), **more):
    every = variants(own.model.card.rollout, 9)
    chosen = tuple(every[name] for name in names)
    return Plan(seconds=SECONDS, seeds=seeds, variants=chosen, conditions=(POSE_AND_SOUND,), together=2, **more)


def run(own, folder, names, **more):
    ablation.run(own, lambda seed: seat(seed, SECONDS, SIZE, folder / "speech"), plan(own, names, **more), folder)


def test_who_sits_beside_whom_changes_nothing(own, sitters):
    settings = own.model.card.rollout
    together = whole(play(own.model, own.vae, sitters, settings))
    for row, sitter in enumerate(sitters):
        torch.testing.assert_close(whole(play(own.model, own.vae, [sitter], settings))[0], together[row], rtol=0, atol=1e-4)
    assert together.shape == (2, 33, SIZE, SIZE, 3) and not torch.equal(together[0], together[1])


def test_what_nobody_asked_for_is_not_decoded_and_the_rest_is_as_it_was(own, folder, monkeypatch):
    one, settings = [seat(3, 16, SIZE, folder)], own.model.card.rollout
    everything = whole(play(own.model, own.vae, one, settings))
    decoded = []

    def watch(vae, latents, state):
        return (decoded.append(latents.shape[2]), decode_latents(vae, latents, state))[1]

    monkeypatch.setattr(sitting, "decode_latents", watch)
    played = list(play(own.model, own.vae, one, settings, only=(PixelSpan(0, 5), PixelSpan(250, 257))))
    assert [span for span, frames in played if frames.shape[1]] == [PixelSpan(0, 9), PixelSpan(249, 257)]
    for span, frames in played:
        if frames.shape[1]:
            torch.testing.assert_close(frames, everything[:, span.start : span.stop], rtol=0, atol=1e-5)
    assert 3 + RUN_UP < sum(decoded) < 3 + RUN_UP + 3 * settings.chunk and everything.shape[1] == 257


@torch.no_grad()
def test_a_decoder_that_begins_a_run_up_earlier_has_forgotten_nothing():
    torch.manual_seed(0)
    vae, frames = WanVAE(4).eval(), RUN_UP + 6
    latents = torch.randn(1, 16, frames, 2, 2, dtype=torch.float64)

    def decoded(begin):
        return decode_latents(vae.double(), latents[:, :, begin:], DecoderState())[:, :, -4:]

    whole_clip = decoded(0)
    torch.testing.assert_close(decoded(frames - 1 - RUN_UP), whole_clip, rtol=0, atol=1e-13)
    assert (decoded(frames - 1 - RUN_UP // 3) - whole_clip).abs().max() > 1e-12  # and that is not for want of a memory


def test_every_variant_starts_on_the_truth_through_the_autoencoder(own, sitters):
    truth = sitters[0].frames(PixelSpan(0, 9)).permute(3, 0, 1, 2)[None]
    expected = decode_latents(own.vae, encode_clip(own.vae, truth), DecoderState())[0].permute(1, 2, 3, 0)
    for variant in variants(own.model.card.rollout, 9).values():
        span, frames = next(play(own.model, own.vae, sitters[:1], variant.settings))
        assert span == PixelSpan(0, 9)
        torch.testing.assert_close(frames[0], expected, rtol=0, atol=1e-4)


def test_the_codec_of_several_is_the_codec_of_each(own, sitters):
    together = whole(through_codec(own.vae, sitters, chunk=3))
    for row, sitter in enumerate(sitters):
        alone = torch.cat(list(measure.through_codec(sitter.frames(PixelSpan(0, 33)), own.vae)))
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-4)


def test_a_run_that_was_stopped_goes_on_and_does_nothing_twice(own, tmp_path):
    run(own, tmp_path, ["full"])
    first = (tmp_path / RESULTS).read_text()
    (tmp_path / RESULTS).write_text(first + '{"seconds": 2, "vari')  # killed while it wrote
    run(own, tmp_path, ["full", "without-knot"], seeds=(1, 2, 3))
    lines = ablation.read(tmp_path)
    assert (tmp_path / RESULTS).read_text().startswith(first)
    assert sorted((line["variant"], line["seed"]) for line in lines) == [
        (name, seed) for name in (CODEC, "full", "without-knot") for seed in (1, 2, 3)
    ]


def test_a_sitter_measures_the_same_whoever_came_before(own, tmp_path):
    run(own, tmp_path / "a", ["full"], with_codec=False)
    run(own, tmp_path / "b", ["full"], seeds=(2,), with_codec=False)
    (other,), (mine,) = ([line for line in ablation.read(tmp_path / name) if line["seed"] == 2] for name in "ab")
    assert other["values"] == pytest.approx(mine["values"], rel=0.05, abs=0.02)


def test_results_of_other_weights_or_another_precision_are_refused(own, tmp_path):
    run(own, tmp_path, ["full"], seeds=(1,), with_codec=False)
    in_half = Generator(own.model.card, own.model.modules, own.model.adapters, dtype=torch.bfloat16)
    with pytest.raises(KnotForcingError, match="these are .* in bfloat16"):
        run(replace(own, model=in_half), tmp_path, ["full"], seeds=(1,), with_codec=False)
    with pytest.raises(KnotForcingError, match="other weights"):
        run(equipment(seed=2), tmp_path, ["full"], seeds=(1,), with_codec=False)


def test_the_page_says_what_was_found_and_what_was_not_trained(own, tmp_path):
    run(own, tmp_path, ["full", "without-anchor"], seeds=(1, 2, 3))
    every = variants(own.model.card.rollout, 9)
    summary = write_page(
        tmp_path,
        tmp_path / "page.md",
        changes={name: variant.change for name, variant in every.items()},
        coverage={name: Trained(0.0 if name == "without-anchor" else 0.4) for name in every},
        about={"note": "Nothing of this means anything.", "command": "evaluate --ablation DIR"},
        reader=own.reader,
    )
    text = (tmp_path / "page.md").read_text()
    assert "\nNothing of this means anything.\n" in text and "| **full**: the method | 40% of the samples |" in text
    assert text.index("| **codec**: the truth") < text.index("| **full**")
    assert summary["tables"][0]["rows"]["codec"]["seam ratio over the codec's"]["mean"] == pytest.approx(1)
    assert "| **without-anchor**" in text and "| untrained |" in text
    assert json.loads((tmp_path / "ablation.json").read_text()) == json.loads(json.dumps(summary))
    row = summary["tables"][0]["rows"]["without-anchor"]
    assert row["sitters"] == 3 and 0 <= row["verification AUC"] <= 1 and row["identity cosine"]["difference"]["low"] is not None
    assert (tmp_path / "page-2s-pose-and-sound.svg").exists()
    with Image.open(tmp_path / "page-2s-pose-and-sound.webp") as sheet:
        assert sheet.height % 3 == 0  # the truth and two variants


def test_the_end_of_a_long_video_is_held_against_its_beginning():
    course = {name: [0.9] * 2 + [0.8] * 16 + [0.72] * 2 for name in COURSES}
    values = {"identity cosine": 0.8, "motion": 1.0, "temporal flickering": 99.0}
    line = dict(variant="full", condition=POSE_AND_SOUND, seconds=600, course=course, values=values)
    row = rows_of([line | {"seed": seed} for seed in (1, 2, 3)], 600, POSE_AND_SOUND)["full"]
    assert row[KEPT]["mean"] == pytest.approx(0.8) and row[WORN]["mean"] == pytest.approx(0.72)
    assert row[PALETTE]["mean"] == pytest.approx(-0.18)


def test_flickering_of_a_variant_that_moves_less_is_not_given():
    def line(variant, motion, seed):
        return dict(
            variant=variant, condition=POSE_AND_SOUND, seconds=20, seed=seed, values={"motion": motion, "temporal flickering": 98 - motion}
        )

    lines = [line(*each, seed) for each in (("full", 10.0), ("alike", 9.7), ("calmer", 9.0)) for seed in (1, 2, 3)]
    table = {"seconds": 20, "condition": POSE_AND_SOUND, "rows": rows_of(lines, 20, POSE_AND_SOUND)}
    *_, full, alike, calmer, _ = _table(table, {"full": "", "alike": "", "calmer": ""}, None)
    assert "| 88.00 |" in full and "| 88.30 (**+0.30 [+0.30, +0.30]**) |" in alike
    assert "| – |" in calmer and "89.00" not in calmer


def test_verification_is_the_chance_to_tell_the_own_portrait():
    assert verification_auc(torch.tensor([0.9, 0.8]), torch.tensor([0.1, 0.2, 0.7])) == 1
    assert verification_auc(torch.tensor([0.9, 0.1]), torch.tensor([0.2, 0.3])) == 0.5


def test_flickering_is_compared_only_at_equal_motion():
    one, alike, calmer = (FlickerResult(score=score, step=1.0, motion=motion) for score, motion in ((98, 10.0), (98.5, 9.6), (99, 9.0)))
    assert compare(alike, one) == pytest.approx(0.5) and compare(calmer, one) is None
