import json

import numpy as np
import pytest
import torch

from kf_core.metrics.contact_sheet import contact_sheet
from kf_core.metrics.flicker import flicker
from kf_core.metrics.psnr import psnr
from kf_core.metrics.report import evaluate
from kf_core.metrics.seams import seams


@pytest.fixture
def video():
    return torch.rand(40, 16, 16, 3, generator=torch.Generator().manual_seed(0))


def test_one_pass_finds_what_each_measure_finds_alone(video):
    truth = (video + 0.05).clamp(0, 1)
    report = evaluate(iter(video.split(7)), fps=16, truth=truth, codec=truth)
    assert report.frames == 40
    assert report.flicker == flicker(video, 16) and report.seams == seams(video) and report.psnr == psnr(video, truth)
    assert report.seams_of_codec == seams(truth)


def test_what_is_not_known_is_left_out_of_the_table(video):
    report = evaluate(video, fps=16)
    table = report.to_markdown()
    assert "temporal flickering" in table and "motion" in table
    assert not any(word in table for word in ("mouth", "identity", "PSNR", "truth"))
    assert report.lip_sync is None and report.identity is None and report.psnr is None


def test_json_holds_every_number_and_is_json_even_where_the_result_is_perfect(video):
    data = json.loads(evaluate(video, fps=16, truth=video).to_json())
    assert data["psnr"]["whole"] is None and data["sharpness"]["ratio"] == pytest.approx(1)
    assert data["flicker"]["score"] < 100 and data["seams"]["ratio"] > 0


def test_flickering_never_stands_without_motion(video):
    names = [what for what, *_ in evaluate(video, fps=16).rows]
    assert names[names.index("temporal flickering") + 1] == "motion"


def test_a_video_without_frames_is_refused():
    with pytest.raises(ValueError, match="no frame"):
        evaluate(iter(()), fps=16)


def test_a_contact_sheet_shows_each_row_at_the_same_moments():
    red, blue = torch.zeros(2, 33, 20, 10, 3).unbind()
    red[..., 0], blue[16:, ..., 2] = 1, 1
    sheet = contact_sheet({"truth": red, "result": blue}, fps=16, moments=(0.0, 1.0, 9.0), side=40)
    pixels = torch.from_numpy(np.array(sheet)).int()
    is_red, is_blue, is_black = ((pixels == torch.tensor(colour)).all(-1) for colour in ((255, 0, 0), (0, 0, 255), (0, 0, 0)))
    assert is_red.sum() == 2 * 40 * 20 and is_blue.sum() == 40 * 20  # the third moment is past the end
    assert is_black.sum() >= 40 * 20
    assert is_red.any(1).nonzero().max() < is_blue.any(1).nonzero().min()


def test_a_contact_sheet_needs_frames():
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet({}, fps=16)
