import torch

from kf_core.models.visibility import training_mask, visible
from kf_core.schedule import warped
from kf_core.settings import RolloutSettings
from kf_core.timeline import LatentSpan

SETTINGS = RolloutSettings(schedule=warped())


def test_the_six_frames_that_a_chunk_sees_are_contiguous():
    assert [key for key in range(12) if visible(3, key, SETTINGS)] == [1, 2, 3, 4, 5, 6]
    assert [key for key in range(12) if visible(6, key, SETTINGS)] == [4, 5, 6, 7, 8, 9]
    assert [key for key in range(12) if visible(0, key, SETTINGS)] == [0, 1, 2, 3]


def test_all_frames_of_a_chunk_see_the_same():
    for chunk in range(4):
        seen = {tuple(key for key in range(20) if visible(query, key, SETTINGS)) for query in SETTINGS.output_span(chunk)}
        assert len(seen) == 1


def test_pinned_frames_are_always_seen():
    settings = RolloutSettings(schedule=warped(), knot=None, fuse=False, anchor=None, pinned=3, window=6)
    assert [key for key in range(20) if visible(12, key, settings)] == [0, 1, 2, 9, 10, 11, 12, 13, 14]


def test_the_training_mask_repeats_what_the_rollout_sees():
    mask = training_mask(LatentSpan(4, 9), LatentSpan(9, 13), SETTINGS)  # anchor | 4 5, 6 7 8 | 9 10 11 12
    rows = ["".join("x" if cell else "." for cell in row) for row in mask.tolist()]
    assert rows == [
        "x.........",  # the anchor sees only itself
        "xxx.......",
        "xxx.......",
        "xxxxxx....",  # 6 7 8 see 4 5, and not the knot that did not exist any more
        "xxxxxx....",
        "xxxxxx....",
        "x...xxxxxx",
        "x...xxxxxx",
        "x...xxxxxx",
        "x...xxxxxx",
    ]


def test_without_an_anchor_nothing_sees_the_portrait():
    settings = RolloutSettings(schedule=warped(), anchor=None)
    mask = training_mask(LatentSpan(1, 3), LatentSpan(3, 7), settings)
    assert mask[:, 0].tolist() == [True] + [False] * 6
    assert torch.equal(mask[1:, 1:], training_mask(LatentSpan(1, 3), LatentSpan(3, 7), SETTINGS)[1:, 1:])
