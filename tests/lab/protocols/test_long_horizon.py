"""The last minute beside the first: exact on results whose answer is known, and repeatable on an untrained model."""

import pytest
import torch
from PIL import Image

from kf_core.timeline import PixelSpan
from lab.kf_tiny.subjects import HeldOutSitter, seat
from lab.protocols import long_horizon as first_and_last
from lab.protocols.ablation import POSE_AND_SOUND, SOUND_ONLY
from lab.protocols.long_horizon import FIRST, LAST, MADE, RESULTS, TRUTH, Plan, ends
from lab.protocols.long_horizon_page import KEPT, SHEET_BYTES, VERIFICATION, lines_of, numbers, table, write_sheet
from lab.protocols.metric_curves import COURSES

from .test_ablation import SIZE, equipment

SECONDS, FPS = 3, 16


@pytest.fixture(scope="module")
def own():
    return equipment()


def run(own, folder, seeds, sit=None):
    sit = sit or (lambda seed: seat(seed, SECONDS, SIZE, folder / "speech"))
    first_and_last.run(own, sit, Plan(seconds=SECONDS, seeds=seeds, together=2), folder)


def test_ten_minutes_have_a_first_and_a_last_minute_and_a_short_clip_two_halves():
    assert ends(9601, FPS) == {FIRST: PixelSpan(0, 960), LAST: PixelSpan(8641, 9601)}
    assert ends(49, FPS) == {FIRST: PixelSpan(0, 24), LAST: PixelSpan(25, 49)}


def test_a_run_that_was_stopped_goes_on_and_shows_what_was_made(own, tmp_path):
    run(own, tmp_path, (1,))
    first = (tmp_path / RESULTS).read_text()
    (tmp_path / RESULTS).write_text(first + '{"seconds": 3, "cond')  # killed while it wrote
    run(own, tmp_path, (1, 2, 3))
    assert (tmp_path / RESULTS).read_text().startswith(first)
    lines = lines_of(tmp_path, SECONDS, POSE_AND_SOUND)
    assert [line["seed"] for line in lines] == [1, 2, 3] and lines_of(tmp_path, SECONDS, SOUND_ONLY) == []
    found = numbers(lines, POSE_AND_SOUND)
    assert set(found) == {*COURSES, "PSNR", KEPT, VERIFICATION}
    assert found[VERIFICATION][TRUTH][0] > 0.9  # the faces themselves are told apart
    assert found["sharpness against truth"][LAST]["low"] is not None
    assert "| identity cosine, last over first |" in table(found, 1.5)
    write_sheet(tmp_path, lines, FPS, tmp_path / "sheet.webp")
    with Image.open(tmp_path / "sheet.webp") as sheet:
        assert sheet.width > 9 * 96 and sheet.height > 3 * 96
    assert (tmp_path / "sheet.webp").stat().st_size <= SHEET_BYTES


class WatchedSitter(HeldOutSitter):
    """A held-out sitter that notes of which frames the truth was asked for."""

    def frames(self, span):
        self.asked.update(span)
        return super().frames(span)


def test_the_truth_is_asked_for_only_where_it_is_measured(own, tmp_path, monkeypatch):
    monkeypatch.setattr(first_and_last, "MINUTE", 0.75)  # seconds: the middle of the clip is then not measured
    plain = seat(1, SECONDS, SIZE, tmp_path / "speech")
    watched = WatchedSitter(plain.seed, plain.size, plain.face, plain.motion, plain.voiced)
    object.__setattr__(watched, "asked", set())
    run(own, tmp_path, (1,), sit=lambda seed: watched)
    assert watched.asked == {*range(12), *range(37, 49)}


def line(seed, first, last, truth=0.98):
    portrait = torch.nn.functional.one_hot(torch.tensor(seed), 64).tolist()

    def minute(value):
        return {
            "frames": 960,
            "values": {MADE: dict.fromkeys(COURSES, value) | {"PSNR": 25.0}, TRUTH: dict.fromkeys(COURSES, truth)},
            "embeddings": {MADE: [portrait] * 2, TRUTH: [portrait] * 2},
        }

    return {"seed": seed, "portrait": portrait, FIRST: minute(first), LAST: minute(last)}


def test_what_is_lost_is_the_last_minute_over_the_first_sitter_by_sitter():
    found = numbers([line(1, 0.9, 0.9), line(2, 0.8, 0.4), line(3, 1.0, 1.0)], POSE_AND_SOUND)
    assert found[KEPT][LAST]["mean"] == pytest.approx((1 + 0.5 + 1) / 3) and found[KEPT]["lowest of a sitter"] == 0.5
    assert found["palette error"]["change"]["mean"] == pytest.approx(-0.4 / 3) and found[KEPT][TRUTH] == [None, 1]
    assert found[VERIFICATION][LAST]["mean"] == 1 and "PSNR" not in numbers([line(1, 1.0, 1.0)], SOUND_ONLY)


def test_a_face_that_became_another_is_not_verified():
    one, two = line(1, 0.9, 0.9), line(2, 0.9, 0.9)
    swapped = [{**a, LAST: {**a[LAST], "embeddings": b[LAST]["embeddings"]}} for a, b in ((one, two), (two, one))]
    found = numbers(swapped, POSE_AND_SOUND)
    assert found[VERIFICATION][FIRST]["mean"] == 1 and found[VERIFICATION][LAST]["mean"] == 0
