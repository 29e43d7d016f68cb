import pytest
import torch

from kf_core.conditioning.head import HeadPose, keypoints, mean_shape
from kf_core.conditioning.openpose import JOINTS, LIMBS, draw_pose, reduce_pose
from kf_core.conditioning.pose import HeadAngles, PoseFrames, PoseVideo
from kf_core.errors import KnotForcingError
from kf_core.media.video import VideoWriter
from kf_core.timeline import PixelSpan
from kf_core.types import FrameChunk

SIDE = 512  # the size the standard is stated at


def some_heads(n=4):
    def values(scale, seed):
        return scale * torch.randn(n, generator=torch.Generator().manual_seed(seed))

    return HeadPose(
        yaw=values(0.2, 1),
        pitch=values(0.1, 2),
        roll=values(0.08, 3),
        shift_x=values(0.02, 4),
        shift_y=values(0.02, 5),
        blink=torch.zeros(n),
    )


def drawn_large(points, index):
    """The same pose the way OpenPose draws it: pixel by pixel, sticks and discs."""
    axis = ((torch.arange(SIDE) + 0.5) / SIDE * 2 - 1).double()
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    frame = torch.zeros(SIDE, SIDE, 3)
    for (a, b), colour in LIMBS.items():
        if points.body_visible[index, [a, b]].all():
            start, end = points.body[index, a].double(), points.body[index, b].double()
            along = ((pixels - start) @ (end - start) / (end - start).square().sum()).clamp(0, 1)
            near = (pixels - start - along[..., None] * (end - start)).norm(dim=-1) < 4 / 256
            frame[near] = torch.tensor(colour) / 255 * 0.6
    for joint, colour in JOINTS.items():
        if points.body_visible[index, joint]:
            frame[(pixels - points.body[index, joint]).norm(dim=-1) < 4 / 256] = torch.tensor(colour) / 255
    for dot in points.face[index]:
        frame[(pixels - dot).norm(dim=-1) < 3 / 256] = 1.0
    return frame


def test_drawing_on_the_latent_grid_equals_drawing_large_and_reducing():
    points = keypoints(mean_shape(4), some_heads())
    small = draw_pose(points, 12, 12)
    for index in range(2):
        large = reduce_pose(drawn_large(points, index)[None], 12, 12)[0]
        assert (small[index] - large).abs().max() < 0.08
        assert torch.corrcoef(torch.stack([small[index].flatten(), large.flatten()]))[0, 1] > 0.995


def test_a_wide_grid_holds_the_square_drawing_in_its_middle():
    points = keypoints(mean_shape(4), some_heads())
    wide = draw_pose(points, 12, 16)
    assert torch.allclose(wide[..., 2:14], draw_pose(points, 12, 12), atol=1e-5)


def test_frames_of_another_shape_are_fitted_with_black_bars_not_stretched():
    white = torch.ones(1, 40, 20, 3)
    reduced = reduce_pose(white, 8, 8)[0, 0]
    assert torch.equal(reduced[:, :2], torch.zeros(8, 2)) and torch.equal(reduced[:, 2:6], torch.ones(8, 4))


def test_angles_reach_their_keys_and_ease_between_them():
    turn = HeadAngles(keys=((1.0, 0, 0, 0), (2.0, 30, -10, 4)))
    angles = turn.angles(torch.tensor([0.0, 1.0, 1.25, 1.5, 2.0, 9.0], dtype=torch.float64))
    assert angles[:, 0].tolist() == pytest.approx([0, 0, 30 * 0.15625, 15, 30, 30])
    assert angles[3, 1:].tolist() == pytest.approx([-5, 2])


def test_angles_draw_what_is_turned_and_are_black_outside_their_length():
    turn = HeadAngles(keys=((0.0, 25, 0, 0),), start=0.5, stop=1.0, blink_every=0)
    drawn = turn.between(PixelSpan(-3, 24), 16, 12, 12)
    lit = drawn.flatten(1).amax(1) > 0
    assert lit.tolist() == [False] * 11 + [True] * 8 + [False] * 8  # frame 8 is shown at 0.5 s
    straight = HeadAngles(keys=((0.0, 0, 0, 0),), blink_every=0).between(PixelSpan(8, 9), 16, 12, 12)[0]

    def centre(frame):
        return (frame.sum((0, 1)) * torch.arange(12)).sum() / frame.sum()

    assert centre(drawn[12]) > centre(straight) + 0.2


def test_angles_blink_now_and_then():
    drawn = HeadAngles(keys=((0.0, 0, 0, 0),)).between(PixelSpan(0, 16 * 20), 16, 12, 12)
    changed = (drawn - drawn[:1]).abs().flatten(1).amax(1) > 0.03
    starts = (changed[1:] & ~changed[:-1]).sum()
    assert 4 <= starts <= 7 and changed.float().mean() < 0.15


def test_keys_that_make_no_sense_are_refused_in_words():
    for keys in ((), ((1.0, 0, 0, 0), (1.0, 5, 0, 0)), ((0.0, 90, 0, 0),)):
        with pytest.raises(KnotForcingError):
            HeadAngles(keys=keys)


def numbered(count, side=16):
    """Frames whose grey tells their number."""
    return (torch.arange(count) / 100).view(-1, 1, 1, 1).expand(count, side, side, 3)


def test_frames_at_their_own_rate_are_shown_at_their_own_moments():
    source = PoseFrames(numbered(30), fps=30)  # one second
    shown = source.between(PixelSpan(-3, 20), 16, 2, 2)[:, 0, 0, 0].square() * 100
    expected = [0, 0, 0] + [int(k / 16 * 30 + 1e-6) for k in range(16)] + [0, 0, 0, 0]
    assert shown.round().int().tolist() == expected


def test_frames_of_another_form_are_refused_in_words():
    with pytest.raises(KnotForcingError, match="at least one frame"):
        PoseFrames(torch.zeros(0, 8, 8, 3))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("pose") / "pose.mp4"
    frames = (torch.linspace(0.1, 0.9, 48)).view(-1, 1, 1, 1).expand(48, 32, 32, 3)
    with VideoWriter(path, width=32, height=32, fps=24) as writer:
        writer.write(FrameChunk(0, PixelSpan(0, 48), frames))
    return PoseVideo(path)


def test_a_video_answers_the_same_whatever_was_asked_before(video):
    whole = video.open().between(PixelSpan(0, 40), 16, 2, 2)
    reader = video.open()
    for start, stop in ((0, 9), (5, 21), (30, 40), (2, 4), (21, 33)):
        assert torch.equal(reader.between(PixelSpan(start, stop), 16, 2, 2), whole[start:stop])


def test_a_video_that_is_taken_up_late_is_read_to_there_and_not_kept(video, monkeypatch):
    whole, reader, most = video.open().between(PixelSpan(0, 30), 16, 2, 2), video.open(), 0
    monkeypatch.setattr("kf_core.conditioning.pose._KEPT_SECONDS", 0.25)

    def watched(*words):
        nonlocal most
        most = max(most, len(reader._kept) + 1)
        return reduce_pose(*words)

    monkeypatch.setattr("kf_core.conditioning.pose.reduce_pose", watched)
    assert torch.equal(reader.between(PixelSpan(26, 30), 16, 2, 2), whole[26:])
    assert most <= 7  # a quarter of a second at 24 frames a second


def test_a_video_equals_the_same_frames_in_memory_and_ends_in_black(video):
    frames = (torch.linspace(0.1, 0.9, 48)).view(-1, 1, 1, 1).expand(48, 32, 32, 3)
    span = PixelSpan(0, 36)
    from_file, from_memory = video.open().between(span, 16, 2, 2), PoseFrames(frames, fps=24).between(span, 16, 2, 2)
    assert (from_file - from_memory).abs().max() < 0.03
    assert from_file[32:].max() == 0 and from_file[:32].min() > 0
