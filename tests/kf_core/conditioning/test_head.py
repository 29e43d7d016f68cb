import torch

from kf_core.conditioning.head import LEFT_EAR, RIGHT_EAR, HeadPose, keypoints, mean_shape, place, turn, unplace

JAW, NOSE_TIP, EYES, MOUTH = slice(0, 17), 30, slice(36, 48), slice(48, 68)


def held(**values):
    zeros = {name: torch.zeros(1) for name in HeadPose.__dataclass_fields__}
    return HeadPose(**(zeros | {name: torch.tensor([value]) for name, value in values.items()}))


def test_unplace_undoes_place():
    shape, pose = mean_shape(), held(roll=0.2, shift_x=0.05, shift_y=-0.03)
    x, y = torch.tensor([0.3, -0.2]), torch.tensor([0.1, 0.7])
    assert torch.allclose(torch.stack(unplace(shape, pose, *place(shape, pose, x, y))), torch.stack([x, y]), atol=1e-6)


def test_a_head_that_turns_to_the_right_moves_its_nose_right_and_hides_the_far_ear():
    straight, turned = keypoints(mean_shape(), held()), keypoints(mean_shape(), held(yaw=0.5))
    assert turned.face[0, NOSE_TIP, 0] > straight.face[0, NOSE_TIP, 0] + 0.1
    assert straight.body_visible[0, [RIGHT_EAR, LEFT_EAR]].tolist() == [True, True]
    assert turned.body_visible[0, [RIGHT_EAR, LEFT_EAR]].tolist() == [True, False]


def test_a_head_that_looks_down_moves_its_nose_down():
    assert keypoints(mean_shape(), held(pitch=0.3)).face[0, NOSE_TIP, 1] > keypoints(mean_shape(), held()).face[0, NOSE_TIP, 1] + 0.05


def test_what_is_foreshortened_is_the_far_side():
    shape, pose = mean_shape(), held(yaw=0.4)
    *_, near, _ = turn(shape, pose, torch.tensor([-0.26]), torch.zeros(1))
    *_, far, _ = turn(shape, pose, torch.tensor([0.26]), torch.zeros(1))
    assert far < near


def test_a_blink_closes_the_lids_and_moves_nothing_else():
    open, shut = keypoints(mean_shape(), held()).face[0], keypoints(mean_shape(), held(blink=1.0)).face[0]
    moved = (open - shut).abs().sum(-1) > 1e-6
    assert moved[EYES].sum() == 4 and moved.sum() == 4
    assert torch.allclose(shut[37], shut[41], atol=1e-6) and (open[37] - open[41]).abs()[1] > 0.2
