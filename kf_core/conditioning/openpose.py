"""The pose standard: OpenPose frames of head and shoulders, drawn on and reduced onto the latent grid.

`openpose-face-70`: limbs and joints of head, neck and shoulders in the colours of OpenPose's body 18, the 70 points of the face as
white dots, on black, sizes as drawn on 512 pixels. Such a frame is averaged over each latent cell and the root is taken, because a
dot fills less than a fiftieth of a cell. Frames that OpenPose or DWPose made go the same way, so they drive the model too.

What a pose tells, in the drawings that models are trained on: place, size and turn of the head, and the lids (blinks). Mouth, brows and
pupils are drawn at rest: the mouth belongs to the sound, brows and gaze to the expression. Knows nothing of time (see `pose.py`).
Sources: CMU OpenPose (layout, colours); controlnet_aux and DWPose (stick width 4, limbs at 60 %, face dots of radius 3).
"""

import math

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pad

from .head import (
    LEFT_EAR,
    LEFT_EYE,
    LEFT_SHOULDER,
    NECK,
    NOSE,
    RIGHT_EAR,
    RIGHT_EYE,
    RIGHT_SHOULDER,
    HeadPose,
    HeadShape,
    Keypoints,
    keypoints,
    mean_shape,
)  # fmt: skip

# the part of OpenPose's body that a portrait shows: joint -> colour, limb -> colour
JOINTS = {
    NOSE: (255, 0, 0), NECK: (255, 85, 0), RIGHT_SHOULDER: (255, 170, 0), LEFT_SHOULDER: (85, 255, 0),
    RIGHT_EYE: (170, 0, 255), LEFT_EYE: (255, 0, 255), RIGHT_EAR: (255, 0, 170), LEFT_EAR: (255, 0, 85),
}  # fmt: skip
LIMBS = {
    (NECK, RIGHT_SHOULDER): (255, 0, 0), (NECK, LEFT_SHOULDER): (255, 85, 0), (NECK, NOSE): (0, 0, 255), (NOSE, RIGHT_EYE): (85, 0, 255),
    (RIGHT_EYE, RIGHT_EAR): (170, 0, 255), (NOSE, LEFT_EYE): (255, 0, 255), (LEFT_EYE, LEFT_EAR): (255, 0, 170),
}  # fmt: skip
_LIMB_LIGHT = 0.6
_STICK, _JOINT, _DOT = 4 / 256, 4 / 256, 3 / 256  # half widths and radii in image units: pixels of a 512-pixel frame
_PARTS = 16  # little squares a limb is made of


def draw_pose(points: Keypoints, latent_h: int, latent_w: int, thickness: float | Tensor = 1.0) -> Tensor:
    """Draw [n] poses straight onto the latent grid: [n, 3, h, w] 0..1.

    Equals drawing large and reducing, nearly: a dot becomes a square of its area, a limb a row of squares, and the share of a square
    that falls into a cell is a product of two lengths. What lies on top of each other adds up. `thickness` [n] or a number."""
    light, body = points.face.new_tensor, points.body
    limbs = torch.tensor(list(LIMBS), device=body.device)
    ends = body[:, limbs]  # [n, limb, 2, xy]
    along = (torch.arange(_PARTS, device=body.device) + 0.5) / _PARTS
    sticks = torch.lerp(ends[:, :, :1], ends[:, :, 1:], along[:, None]).flatten(1, 2)
    thickness = torch.as_tensor(thickness, device=body.device, dtype=body.dtype).view(-1, 1)
    side = 2 * _STICK * thickness
    length = (ends[:, :, 1] - ends[:, :, 0]).norm(dim=-1) / _PARTS
    drawn = points.body_visible[:, limbs].all(-1)
    weight = (length / side * drawn).repeat_interleave(_PARTS, 1)  # squares may overlap or leave gaps; their sum is the limb's area
    joints = torch.tensor(list(JOINTS), device=body.device)
    centres = torch.cat([sticks, body[:, joints], points.face], 1)
    sides = torch.cat(
        [
            side.expand_as(weight),
            (math.sqrt(math.pi) * _JOINT * thickness).expand(len(body), len(JOINTS)),
            (math.sqrt(math.pi) * _DOT * thickness).expand(*points.face.shape[:2]),
        ],
        1,
    )
    weights = torch.cat([weight, points.body_visible[:, joints].to(body), points.face_visible.to(body)], 1)
    colours = torch.cat(
        [
            light(list(LIMBS.values())).repeat_interleave(_PARTS, 0) * _LIMB_LIGHT / 255,
            light(list(JOINTS.values())) / 255,
            light([[1.0, 1.0, 1.0]]).expand(points.face.shape[1], 3),
        ]
    )
    cells = min(latent_h, latent_w) / 2  # latent cells per frame unit; a square portrait stands in the middle
    columns = _shares(centres[..., 0] * cells + latent_w / 2, sides * cells, latent_w)
    rows = _shares(centres[..., 1] * cells + latent_h / 2, sides * cells, latent_h)
    coloured = rearrange(columns[:, :, None] * colours[:, :, None], "n p c w -> n p (c w)")
    cover = (rows * weights[..., None]).transpose(1, 2) @ coloured
    return _visible_range(rearrange(cover, "n h (c w) -> n c h w", c=3))


def reduce_pose(frames: Tensor, latent_h: int, latent_w: int) -> Tensor:
    """Pose frames [f, h, w, 3] 0..1 -> the latent grid [f, 3, h, w]: fitted into its shape with black bars, averaged, root taken."""
    frames = frames.movedim(-1, 1).float()
    height, width = frames.shape[-2:]
    bar_x = max(0, round(height * latent_w / latent_h) - width)
    bar_y = max(0, round(width * latent_h / latent_w) - height)
    frames = pad(frames, (bar_x // 2, bar_x - bar_x // 2, bar_y // 2, bar_y - bar_y // 2))
    return _visible_range(adaptive_avg_pool2d(frames, (latent_h, latent_w)))


def keypoints_from_angles(
    yaw: Tensor, pitch: Tensor, roll: Tensor, *, blink: Tensor | None = None, shape: HeadShape | None = None
) -> Keypoints:
    """The points of a mean head that is held so (radians [n]; signs in `head.py`), where `pose.blink` may close its eyes."""
    still = torch.zeros_like(yaw)
    pose = HeadPose(yaw=yaw, pitch=pitch, roll=roll, shift_x=still, shift_y=still, blink=still if blink is None else blink)
    return keypoints(shape or mean_shape().map(lambda value: value.to(yaw).expand(len(yaw))), pose)


def _shares(middle: Tensor, side: Tensor, cells: int) -> Tensor:
    """How much of each cell the spans middle +- side/2 cover, all in cells: [n, points] -> [n, points, cells]."""
    edges = torch.arange(cells, device=middle.device, dtype=middle.dtype)
    low, high = (middle - side / 2)[..., None], (middle + side / 2)[..., None]
    return (torch.minimum(high, edges + 1) - torch.maximum(low, edges)).clamp(min=0)


def _visible_range(cover: Tensor) -> Tensor:
    """Faint averages -> numbers a network can see; 0 stays 0 and 1 stays 1."""
    return cover.clamp(0, 1).sqrt()
