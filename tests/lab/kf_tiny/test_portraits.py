import pytest
import torch

from lab.kf_tiny.drawing import render
from lab.kf_tiny.portraits import identities, sample_identities, sample_motion, with_mouth

SIZE = 48


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def still(n, frames):
    return sample_motion(n, frames, seeded()).map(torch.zeros_like)


def crop(image, box):
    left, top, right, bottom = (int(round(float(edge))) for edge in box)
    return image[:, top:bottom, left:right]


def test_the_same_seed_is_the_same_face():
    seeds = torch.tensor([5, 123456789])
    alone = identities(seeds[1:])
    together = identities(seeds)
    moves = still(2, 1)
    assert torch.equal(render(alone, moves[1:], SIZE).frames, render(together, moves, SIZE).frames[1:])


def test_images_are_rgb_between_0_and_1_and_finite():
    drawn = render(sample_identities(20, seeded()), sample_motion(20, 2, seeded(), strength=2.0), SIZE).frames
    assert drawn.shape == (20, 2, 3, SIZE, SIZE) and drawn.isfinite().all()
    assert 0 <= drawn.min() and drawn.max() <= 1


def test_a_image_does_not_depend_on_the_block_it_is_drawn_in():
    who, moves = sample_identities(3, seeded()), sample_motion(3, 9, seeded(1))
    whole = render(who, moves, SIZE).frames
    assert torch.allclose(render(who[1:2], moves[1:2, 4:6], SIZE).frames[0], whole[1, 4:6], atol=1e-6)


def test_only_the_mouth_changes_when_only_the_mouth_moves():
    who = sample_identities(6, seeded())
    shut = render(who, still(6, 1), SIZE)
    opened = render(who, with_mouth(still(6, 1), torch.ones(6, 1), torch.zeros(6, 1)), SIZE)
    changed = (shut.frames - opened.frames).abs().sum(2)[:, 0]
    for difference, box in zip(changed, shut.mouth_box[:, 0], strict=True):
        inside = crop(difference[None], box).sum()
        assert inside > 20 and inside > 0.9 * difference.sum()


def test_a_mouth_that_is_shut_is_a_line_and_an_open_one_shows_a_dark_room():
    who = sample_identities(12, seeded())

    def dark(drawn):
        return torch.stack(
            [(crop(p, b).amax(0) < 0.4).float().mean() for p, b in zip(drawn.frames[:, 0], drawn.mouth_box[:, 0], strict=True)]
        )

    shut = render(who, still(12, 1), 96)
    opened = render(who, with_mouth(still(12, 1), torch.ones(12, 1), torch.zeros(12, 1)), 96)
    assert ((dark(opened) - dark(shut)) > 0.03).all()


def test_motion_strength_scales_the_head_and_leaves_the_mouth():
    calm, lively = (sample_motion(64, 64, seeded(), strength=s) for s in (0.0, 2.0))
    assert lively.yaw.diff().abs().mean() > 4 * calm.yaw.diff().abs().mean()
    assert torch.equal(calm.mouth_open, lively.mouth_open)


def test_eyes_blink_every_few_seconds_and_briefly():
    blink = sample_motion(32, 16 * 60, seeded()).blink
    starts = ((blink[:, 1:] > 0.5) & (blink[:, :-1] <= 0.5)).sum(1).float()  # per minute
    assert ((starts >= 11) & (starts <= 31)).all()
    assert 0.02 < (blink > 0.5).float().mean() < 0.12


def test_nothing_that_a_control_reveals_moves_the_background():
    who = sample_identities(2, seeded())
    moves = still(2, 2)
    moves.background_x[:, 1] = 1.0
    drawn = render(who, moves, SIZE)
    assert (drawn.frames[:, 0] - drawn.frames[:, 1]).abs().max() > 0.05
    assert torch.equal(drawn.keypoints.face[:, 0], drawn.keypoints.face[:, 1])


def test_weights_are_one_outside_and_one_plus_extra_in_the_middle_of_the_mouth():
    drawn = render(sample_identities(3, seeded()), still(3, 1), SIZE)
    weights = drawn.weights(extra=3.0)
    assert weights.shape == (3, 1, 1, SIZE, SIZE) and weights.min() == 1 and weights.max() <= 4
    for image, box in zip(weights[:, 0], drawn.mouth_box[:, 0], strict=True):
        assert image[0, int((box[1] + box[3]) / 2), int((box[0] + box[2]) / 2)] == pytest.approx(4.0)
