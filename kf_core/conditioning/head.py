"""How a head turns: points on an ellipsoid, turned, projected and placed in the image; OpenPose's points among them.

Image units: the image spans -1..1 both ways, x to the viewer's right, y down. The head's own frame has its origin in the
middle of the face. Angles in radians: yaw > 0 turns to the viewer's right, pitch > 0 looks down, roll > 0 tips clockwise.
Knows nothing of colours: portraits are drawn on it (training) and pose images are drawn from it (`pose.py`).
Source of the point layouts: OpenPose, COCO body 18 and face 70.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

FACE_POINTS, BODY_POINTS = 70, 18
NOSE, NECK, RIGHT_SHOULDER, LEFT_SHOULDER, RIGHT_EYE, LEFT_EYE, RIGHT_EAR, LEFT_EAR = (
    0,
    1,
    2,
    5,
    14,
    15,
    16,
    17,
)  # COCO 18; right: the sitter's
PIVOT_Y = 0.8  # a head tips about a point below its middle
LEAN = 0.06  # how far its middle follows when it turns


class Tensors:
    """A frozen dataclass whose fields are all tensors with the same leading axes."""

    def map(self, change) -> Self:
        return replace(self, **{field.name: change(getattr(self, field.name)) for field in fields(self)})

    def __getitem__(self, index) -> Self:
        return self.map(lambda tensor: tensor[index])

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))


@dataclass(frozen=True, kw_only=True)
class HeadShape(Tensors):
    """The proportions of heads at rest: every field [n], image units, in the head's frame."""

    centre_x: Tensor  # where the head is in the image
    centre_y: Tensor
    width: Tensor  # half axes of the ellipsoid: width, height, depth
    height: Tensor
    depth: Tensor
    eye_x: Tensor  # of the left eye; the right one mirrors it
    eye_y: Tensor
    eye_width: Tensor  # half axes of the open eye
    eye_height: Tensor
    brow_y: Tensor  # above the eye's middle
    brow_width: Tensor
    nose_y: Tensor
    nose_width: Tensor
    mouth_y: Tensor
    mouth_width: Tensor  # half


@dataclass(frozen=True, kw_only=True)
class HeadPose(Tensors):
    """How heads are held: every field [n]."""

    yaw: Tensor
    pitch: Tensor
    roll: Tensor
    shift_x: Tensor
    shift_y: Tensor
    blink: Tensor  # 0 open .. 1 shut


@dataclass(frozen=True)
class Keypoints(Tensors):
    """OpenPose points in image units."""

    face: Tensor  # [..., 70, 2]
    body: Tensor  # [..., 18, 2]
    face_visible: Tensor  # [..., 70] bool
    body_visible: Tensor  # [..., 18] bool


def mean_shape(n: int = 1) -> HeadShape:
    """The head that angles are drawn on: the middle of what the procedural portraits show."""
    values = dict(centre_x=0.0, centre_y=-0.03, width=0.60, height=0.66, depth=0.52, eye_x=0.265, eye_y=-0.05, eye_width=0.155)
    values |= dict(eye_height=0.17, brow_y=0.265, brow_width=0.14, nose_y=0.17, nose_width=0.06, mouth_y=0.38, mouth_width=0.23)
    return HeadShape(**{name: torch.full((n,), value) for name, value in values.items()})


def turn(shape: HeadShape, pose: HeadPose, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the point (x, y) of the resting face is when the head has turned, and how much it is foreshortened there.

    Returns x, y in the head's frame before it tips, and scales of widths and heights. Everything broadcasts."""
    u, v = x / shape.width, y / shape.height
    z = (1 - u.square() - v.square()).clamp(min=0.06).sqrt()
    sin_yaw, cos_yaw, sin_pitch, cos_pitch = pose.yaw.sin(), pose.yaw.cos(), pose.pitch.sin(), pose.pitch.cos()
    turned_x = x * cos_yaw + shape.depth * z * sin_yaw
    turned_y = y * cos_pitch + shape.depth * z * sin_pitch
    scale_x = (cos_yaw - shape.depth / shape.width * u / z * sin_yaw).clamp(0.35, 1.2)
    scale_y = (cos_pitch - shape.depth / shape.height * v / z * sin_pitch).clamp(0.5, 1.2)
    return turned_x, turned_y, scale_x, scale_y


def place(shape: HeadShape, pose: HeadPose, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A point of the head's frame -> the image: the head leans the way it turns, tips about its neck and is shifted."""
    sin, cos = pose.roll.sin(), pose.roll.cos()
    x, y = x + LEAN * pose.yaw.sin(), y - PIVOT_Y
    return shape.centre_x + pose.shift_x + cos * x - sin * y, shape.centre_y + pose.shift_y + sin * x + cos * y + PIVOT_Y


def unplace(shape: HeadShape, pose: HeadPose, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A point of the image -> the head's frame; undoes `place`."""
    sin, cos = pose.roll.sin(), pose.roll.cos()
    x, y = x - shape.centre_x - pose.shift_x, y - shape.centre_y - pose.shift_y - PIVOT_Y
    return cos * x + sin * y - LEAN * pose.yaw.sin(), -sin * x + cos * y + PIVOT_Y


def keypoints(shape: HeadShape, pose: HeadPose) -> Keypoints:
    """OpenPose's points on these heads, [n, ...]. Lids follow the blink; mouth, brows and pupils are at rest.

    At rest, because a pose must not give away what other signals own: the mouth is the sound's, brows and gaze the expression's."""
    device, dtype = shape.width.device, shape.width.dtype
    shape, pose = shape.map(lambda t: t[:, None]), pose.map(lambda t: t[:, None])

    def tensor(values):
        return torch.tensor(values, device=device, dtype=dtype)[None]

    eye_x, mouth_w, mouth_y, nose_w = shape.eye_x, shape.mouth_width, shape.mouth_y, shape.nose_width

    angle = tensor([math.pi * (0.98 - 0.06 * i) for i in range(17)])  # from the sitter's right ear along the chin
    jaw = 0.95 * shape.width * angle.cos(), 0.95 * shape.height * angle.sin()
    arch = tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
    brow = arch * shape.brow_width, shape.eye_y - shape.brow_y + 0.03 * arch.square()
    bridge = tensor([0.0] * 4), shape.eye_y + (shape.nose_y - shape.eye_y) * tensor([0.1, 0.35, 0.6, 0.85])
    nostrils = arch * nose_w, shape.nose_y + tensor([0.02, 0.03, 0.035, 0.03, 0.02])
    corner = tensor([-1.0, -0.5, 0.5, 1.0, 0.5, -0.5])  # clockwise from the outer corner of the sitter's right eye
    lid = tensor([0.0, -0.87, -0.87, 0.0, 0.87, 0.87])
    closed = torch.where(lid < 0, -lid, lid)  # the upper lid comes down onto the lower one
    eye = corner * shape.eye_width, shape.eye_y + shape.eye_height * torch.lerp(lid, closed, pose.blink)
    outer = tensor([math.pi * (1 + i / 6) for i in range(12)])
    inner = tensor([math.pi * (1 + i / 4) for i in range(8)])
    lips = (
        torch.cat([outer.cos() * mouth_w, 0.85 * inner.cos() * mouth_w], 1),
        torch.cat([mouth_y + 0.05 * outer.sin(), mouth_y + 0.005 * inner.sin()], 1),
    )
    pupil = tensor([-1.0, 1.0]) * eye_x, shape.eye_y.expand(-1, 2)

    x = [
        jaw[0],
        brow[0] - eye_x,
        brow[0] + eye_x,
        bridge[0].expand(len(eye_x), 4),
        nostrils[0],
        eye[0] - eye_x,
        eye[0] + eye_x,
        lips[0],
        pupil[0],
    ]
    y = [jaw[1], brow[1], brow[1], bridge[1], nostrils[1], eye[1], eye[1], lips[1], pupil[1]]
    face_x, face_y, *_ = turn(shape, pose, torch.cat(x, 1), torch.cat(y, 1))
    face = torch.stack(place(shape, pose, face_x, face_y), -1)

    body = torch.zeros(len(face), BODY_POINTS, 2, device=device, dtype=dtype)
    seen = torch.zeros(len(face), BODY_POINTS, device=device, dtype=torch.bool)
    body[:, NOSE], body[:, RIGHT_EYE], body[:, LEFT_EYE] = face[:, 30], face[:, 68], face[:, 69]
    side = tensor([-1.0, 1.0])
    ears = side * shape.width * pose.yaw.cos(), shape.eye_y + 0.08 - 0.25 * shape.depth * pose.pitch.sin()
    body[:, [RIGHT_EAR, LEFT_EAR]] = torch.stack(place(shape, pose, ears[0], ears[1].expand(-1, 2)), -1)
    neck_x, neck_y = shape.centre_x + 0.6 * pose.shift_x, shape.centre_y + shape.height + 0.22
    body[:, NECK] = torch.cat([neck_x, neck_y], 1)
    body[:, [RIGHT_SHOULDER, LEFT_SHOULDER]] = torch.stack([neck_x + 0.7 * side, (neck_y + 0.12).expand(-1, 2)], -1)
    seen[:, [NOSE, NECK, RIGHT_SHOULDER, LEFT_SHOULDER, RIGHT_EYE, LEFT_EYE]] = True
    seen[:, [RIGHT_EAR, LEFT_EAR]] = side * pose.yaw < 0.3  # the ear towards which the head turns goes behind the cheek
    return Keypoints(face, body, torch.ones(len(face), FACE_POINTS, device=device, dtype=torch.bool), seen)
