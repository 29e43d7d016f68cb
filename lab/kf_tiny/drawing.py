"""Draws procedural portraits: antialiased layers of signed distances, many images at once.

Small features are drawn in windows cut from the image, which is what makes it fast. Knows nothing of how identities or motion
are chosen (`portraits.py`) or of how a head turns (`conditioning/head.py`).
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from kf_core.conditioning.head import HeadPose, HeadShape, Keypoints, Tensors, keypoints, place, turn, unplace
from kf_core.device import to_device

from .portraits import Identities, Motion

_RARE = ("beard", "moustache", "glasses")  # left out of a block of images in which nobody has them
_BLOCK = 16  # images drawn at once on a processor: their planes stay in its cache
_PIXELS = 2**24  # drawn at once elsewhere, where every call costs and memory does not: some GB of planes
_WHITE, _INK, _MOUTH, _TONGUE, _BLUSH = (0.98, 0.98, 0.97), (0.13, 0.09, 0.10), (0.30, 0.06, 0.09), (0.86, 0.42, 0.44), (0.95, 0.42, 0.40)


@dataclass(frozen=True, eq=False)
class Rendering:
    """Images and where things are in them."""

    frames: Tensor  # [n, f, 3, size, size] RGB 0..1
    keypoints: Keypoints  # [n, frames, ...] image units (-1..1)
    mouth_box: Tensor  # [n, frames, 4] pixels: left, top, right, bottom; holds the open mouth
    eye_boxes: Tensor  # [n, frames, 2, 4] the viewer's left eye, then the right

    def weights(self, extra: float = 3.0, softness: float = 1.5) -> Tensor:
        """1 everywhere, 1 + extra in the boxes of mouth and eyes, with soft edges (pixels): [n, frames, 1, size, size]."""
        boxes = torch.cat([self.mouth_box[:, :, None], self.eye_boxes], 2)  # [n, frames, 3, 4]
        centres = torch.arange(self.frames.shape[-1], device=boxes.device) + 0.5

        def inside(low, high):
            return (torch.minimum(centres - low[..., None], high[..., None] - centres) / softness + 0.5).clamp(0, 1)

        left, top, right, bottom = boxes.unbind(-1)
        return 1 + extra * (inside(top, bottom)[..., :, None] * inside(left, right)[..., None, :]).amax(2)[:, :, None]


@torch.no_grad()
def render(identities: Identities, motion: Motion, size: int, device: str | torch.device = "cpu") -> Rendering:
    """Draw identities [n] doing motion [n, frames]. Memory beyond the images themselves is that of one block.

    Who wears what is asked before it goes to the `device`, which is therefore never waited for."""
    n, frames = motion.yaw.shape
    if len(identities) != n:
        raise ValueError(f"{len(identities)} identities for the motion of {n}")
    images = torch.empty(n * frames, 3, size, size, device=device)
    at_once = _BLOCK if images.device.type == "cpu" else max(1, _PIXELS // size**2)
    who = torch.arange(n).repeat_interleave(frames)
    flat = motion.map(lambda track: track.reshape(-1))
    drawn = []
    for start in range(0, n * frames, at_once):
        block = slice(start, start + at_once)
        faces, moves = identities[who[block]], flat[block]
        seen = [name for name in _RARE if bool(getattr(faces, name).any())]
        faces, moves = _sent(faces, images.device), _sent(moves, images.device)
        images[block] = _draw(faces, moves, size, seen)
        drawn.append((keypoints(faces.shape, moves.head), *_boxes(faces, moves, size)))
    points, mouths, eyes = zip(*drawn, strict=True)

    def unflatten(parts):
        return torch.cat(parts).unflatten(0, (n, frames))

    merged = Keypoints(*(unflatten([getattr(p, name) for p in points]) for name in Keypoints.__dataclass_fields__))
    return Rendering(images.unflatten(0, (n, frames)), merged, unflatten(mouths), unflatten(eyes))


def _sent(numbers: Tensors, device: torch.device) -> Tensors:
    """The same there, in one copy that nobody waits for; what is no fraction (a seed) is not drawn and stays."""
    if device.type == "cpu":
        return numbers
    columns: list[Tensor] = []
    numbers.map(lambda t: columns.append(t.flatten(1) if t.dim() > 1 else t[:, None]) if t.is_floating_point() else None)
    there = iter(to_device(torch.cat(columns, 1), device, torch.float32).split([column.shape[1] for column in columns], 1))
    return numbers.map(lambda t: next(there).view(t.shape) if t.is_floating_point() else t)


@cache
def _constant(colour: tuple[float, float, float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """RGB [3] there. Made once, since each copy of it would be waited for."""
    return torch.tensor(colour, dtype=dtype, device=device)


def _times(colours: Tensor, red: float, green: float, blue: float) -> Tensor:
    """Colours [n, 3], each channel so many times as bright."""
    return colours * _constant((red, green, blue), colours.dtype, colours.device)


class _Canvas:
    """Images being painted, with the coordinates of their pixels in image units."""

    def __init__(self, images: Tensor, x: Tensor, y: Tensor, pixels_per_unit: float) -> None:
        self.images, self.x, self.y = images, x, y  # [n, 3, h, w], [n, 1, w], [n, h, 1]
        self.pixels_per_unit = pixels_per_unit

    @classmethod
    def blank(cls, n: int, size: int, device: torch.device) -> "_Canvas":
        axis = (torch.arange(size, device=device) + 0.5) / size * 2 - 1
        return cls(torch.zeros(n, 3, size, size, device=device), axis.view(1, 1, -1), axis.view(1, -1, 1), size / 2)

    def cover(self, distance: Tensor) -> Tensor:
        """Signed distance (negative inside) -> how much of each pixel is covered."""
        return (0.5 - distance * self.pixels_per_unit).clamp_(0, 1)

    def paint(self, colour: Tensor | tuple, cover: Tensor) -> None:
        """Lay a colour ([n, 3], [n, 3, h, w] or RGB) over the images where `cover` [n, h, w] says."""
        if isinstance(colour, tuple):
            colour = _constant(colour, self.images.dtype, self.images.device)[None]
        if colour.dim() == 2:
            colour = colour[:, :, None, None]
        self.images.lerp_(colour.expand_as(self.images), cover[:, None].expand_as(self.images))

    def window(self, centre_x: Tensor, centre_y: Tensor, half: float) -> tuple["_Canvas", Tensor]:
        """A square of the images round the centres [n] as a canvas of its own, and its index for `put_back`."""
        n, _, size, _ = self.images.shape
        side = min(size, int(2 * half * self.pixels_per_unit) + 2)

        def corner(c):
            return ((c + 1) * self.pixels_per_unit - side / 2).round().long().clamp(0, size - side)[:, None] + torch.arange(
                side, device=c.device
            )

        columns, rows = corner(centre_x), corner(centre_y)
        index = (rows[:, :, None] * size + columns[:, None, :]).view(n, 1, -1).expand(n, 3, -1)
        cut = self.images.view(n, 3, -1).gather(2, index).view(n, 3, side, side)

        def unit(pixels):
            return (pixels + 0.5) / self.pixels_per_unit - 1

        return _Canvas(cut, unit(columns)[:, None, :], unit(rows)[:, :, None], self.pixels_per_unit), index

    def put_back(self, window: "_Canvas", index: Tensor) -> None:
        self.images.view(*self.images.shape[:2], -1).scatter_(2, index, window.images.flatten(2))


def _ellipse(x: Tensor, y: Tensor, radius_x: Tensor | float, radius_y: Tensor | float) -> Tensor:
    """Distance to an ellipse, exact to first order near its edge."""
    a, b = (x / radius_x).square(), (y / radius_y).square()
    return (a + b - 1) / (2 * (a / radius_x**2 + b / radius_y**2).sqrt() + 1e-3)


def _draw(who: Identities, motion: Motion, size: int, seen: list[str]) -> Tensor:
    n = len(motion)
    canvas = _Canvas.blank(n, size, motion.yaw.device)
    colours = who
    who, motion = who.map(_plane), motion.map(_plane)
    shape, pose = who.shape, motion.head
    _background(canvas, colours, who, motion)
    x, y = unplace(shape, pose, canvas.x, canvas.y)
    _behind(canvas, colours, who, motion, x, y)
    face_cover, skin = _face(canvas, colours, who, pose, x, y)
    if "beard" in seen:
        _beard(canvas, colours, who, pose, x, y, face_cover)
    _cheeks(canvas, colours, who, pose)
    for side in (-1, 1):
        _eye(canvas, colours, who, motion, side, skin)
    if "glasses" in seen:
        _glasses(canvas, who, pose)
    _nose(canvas, colours, who, pose)
    _mouth(canvas, colours, who, motion, "moustache" in seen)
    _fringe(canvas, colours, who, motion, x, y)
    for side in (-1, 1):
        _brow(canvas, colours, who, motion, side)
    return canvas.images.clamp_(0, 1)


def _plane(tensor: Tensor) -> Tensor:
    """[n] -> [n, 1, 1], to meet the pixels; colours stay [n, 3]."""
    return tensor[:, None, None] if tensor.dim() == 1 else tensor


def _feature(canvas: _Canvas, shape: HeadShape, pose: HeadPose, x: Tensor | float, y: Tensor, half: float):
    """A window round a point of the resting face: (window, index, pixel x, pixel y from the point, its scales)."""
    px, py, scale_x, scale_y = turn(shape, pose, torch.zeros_like(shape.width) + x, y)
    centre_x, centre_y = place(shape, pose, px, py)
    window, index = canvas.window(centre_x.view(-1), centre_y.view(-1), half)
    x_head, y_head = unplace(shape, pose, window.x, window.y)
    return window, index, x_head - px, y_head - py, scale_x, scale_y


def _background(canvas: _Canvas, colours: Identities, who: Identities, motion: Motion) -> None:
    x, y = canvas.x, canvas.y
    canvas.paint(colours.background, torch.ones_like(x + y))
    canvas.paint(colours.background_2, 0.85 * canvas.cover(_ellipse(x - who.disc_x, y - who.disc_y, who.disc_size, who.disc_size)))
    canvas.images.mul_(1.03 - 0.07 * y[:, None])
    middle_x, middle_y = who.object_x + 0.28 * motion.background_x, who.object_y + 0.28 * motion.background_y
    canvas.paint(colours.object, canvas.cover(_ellipse(x - middle_x, y - middle_y, who.object_size, who.object_size)))
    spot = 0.55 * who.object_size
    canvas.paint(colours.background * 0.5 + 0.5, 0.6 * canvas.cover(_ellipse(x - middle_x, y - middle_y, spot, spot)))


def _behind(canvas: _Canvas, colours: Identities, who: Identities, motion: Motion, x: Tensor, y: Tensor) -> None:
    """Hair at the back, ears, neck and clothes."""
    shape, pose, cover = who.shape, motion.head, canvas.cover
    dark = colours.hair * 0.72
    hairy = 1 - who.bald
    sway = 0.05 * motion.hair_sway * (y + 0.2).clamp(0, 1)
    swung, outer = x + 0.05 * pose.yaw.sin() - sway, shape.width + who.hair_volume
    bun_x, bun_y = swung - 0.25 * pose.yaw.sin(), y + shape.height + 0.12 + 0.10 * pose.pitch.sin()
    canvas.paint(dark * 1.1, cover(_ellipse(bun_x, bun_y, 0.23, 0.20)) * who.bun)
    cap = _ellipse(swung, y + 0.04, outer, shape.height + who.hair_volume)
    cap = torch.maximum(cap, y - who.hair_length.clamp(min=0.1) - 0.1)
    curtain = swung.abs() - outer * (1 + 0.05 * y.clamp(0, 1)) - who.hair_wave * (11 * y).sin()
    curtain = torch.maximum(torch.maximum(curtain, -y - 0.04), y - who.hair_length + 0.10 * (swung / outer).square().square())
    canvas.paint(dark, cover(torch.minimum(cap, curtain * 0.9)) * hairy)

    body_x = canvas.x - shape.centre_x - 0.6 * pose.shift_x
    body_y = canvas.y - shape.centre_y - shape.height
    neck = torch.maximum((0.5 * (x + body_x)).abs() - 0.21 - 0.25 * (body_y - 0.10).clamp(min=0).square(), -body_y - 0.35)
    canvas.paint(_times(colours.skin, 0.86, 0.78, 0.76), cover(neck))
    torso = _ellipse(body_x, body_y - 0.72, 1.02, 0.60)
    canvas.paint(colours.cloth, cover(torso))
    scoop = torch.where(who.v_neck > 0, body_x.abs() * 1.1 + body_y - 0.44, _ellipse(body_x, body_y - 0.10, 0.36, 0.20))
    canvas.paint(colours.collar, cover(torch.maximum((scoop - 0.06) * 0.8, torso - 0.02)))
    canvas.paint(_times(colours.skin, 0.92, 0.86, 0.84), cover(torch.maximum(scoop * 0.8, torso)))

    for side in (-1, 1):
        ear_x = side * shape.width * 0.98 * pose.yaw.cos() - 0.10 * pose.yaw.sin()
        ear_y = shape.eye_y + 0.10 - 0.20 * pose.pitch.sin()
        canvas.paint(colours.skin * 0.93, cover(_ellipse(x - ear_x, y - ear_y, 0.085, 0.125)))
        canvas.paint(_times(colours.skin, 0.80, 0.68, 0.66), 0.7 * cover(_ellipse(x - ear_x, y - ear_y, 0.040, 0.070)))
        ring_x = x - ear_x - 0.03 * motion.hair_sway
        canvas.paint(colours.collar, cover(_ellipse(ring_x, y - ear_y - 0.17, 0.032, 0.045)) * who.earrings)


def _face(canvas: _Canvas, colours: Identities, who: Identities, pose: HeadPose, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The head itself, with a soft shade on one side. Returns its cover and the shaded skin [n, 3, h, w]."""
    shape = who.shape
    below = (y / shape.height).clamp(0, 1)
    narrow = 1 - who.jaw * below.square()
    face = _ellipse((x - 0.05 * pose.yaw.sin() * below) / narrow, y, shape.width, shape.height) * 0.95
    light = 1.03 - 0.12 * ((x / shape.width * pose.yaw.cos() + 0.2 + 0.8 * pose.yaw.sin()) * 0.9).clamp(-0.6, 1) - 0.06 * below.square()
    skin = (colours.skin[:, :, None, None] * light[:, None]).clamp(0, 1)
    cover = canvas.cover(face)
    canvas.paint(_times(colours.skin, 0.74, 0.66, 0.64), canvas.cover(face - 0.012))
    canvas.paint(skin, cover)
    return cover, skin


def _beard(canvas: _Canvas, colours: Identities, who: Identities, pose: HeadPose, x: Tensor, y: Tensor, face: Tensor) -> None:
    shape = who.shape
    px, py, *_ = turn(shape, pose, torch.zeros_like(shape.width), shape.mouth_y - 0.04)
    edge = y - py - 0.06 + 0.55 * ((x - px) / shape.width).square()
    canvas.paint(colours.hair * 0.85, canvas.cover(-edge * 0.8) * face * who.beard * 0.9)


def _cheeks(canvas: _Canvas, colours: Identities, who: Identities, pose: HeadPose) -> None:
    shape = who.shape
    for side in (-1, 1):
        window, index, fx, fy, sx, _ = _feature(canvas, shape, pose, side * 0.36, shape.eye_y + 0.27, 0.24)
        blush = torch.exp(-((fx / (0.10 * sx)).square() + (fy / 0.075).square()))
        window.paint(_BLUSH, blush * who.cheeks)
        dots = (fx * 62).cos() * (fy * 62 + 1).cos()
        window.paint(colours.skin * 0.62, ((dots - 0.70) * 4).clamp(0, 0.45) * (blush * 2).clamp(0, 1) * who.freckles)
        canvas.put_back(window, index)


def _eye(canvas: _Canvas, colours: Identities, who: Identities, motion: Motion, side: int, skin: Tensor) -> None:
    """The open part lies between two lids, each an arc of the eye's outline that moves from its edge towards the middle."""
    shape, pose = who.shape, motion.head
    window, index, x, y, sx, sy = _feature(canvas, shape, pose, side * shape.eye_x, shape.eye_y, 0.26)
    cover = window.cover
    rx, ry = shape.eye_width * sx, shape.eye_height * sy
    arc = ry * (1 - (x / rx).square()).clamp(min=0).sqrt()
    open = (1 - motion.blink) * (1 - 0.10 * motion.smile.clamp(min=0))
    upper, lower = arc * (1 - 2 * open), arc * (1 - 0.28 * motion.smile.clamp(min=0))
    outline = _ellipse(x, y, rx, ry)
    white = torch.maximum(outline, torch.maximum(upper - y, y - lower))
    window.paint(_times(colours.skin, 0.84, 0.74, 0.72), 0.75 * cover(outline - 0.012))
    eye = cover(white)
    window.paint(_WHITE, eye)
    ix = x - 0.05 * motion.gaze_x * sx - 0.035 * pose.yaw.sin()
    iy = y - 0.04 * motion.gaze_y - 0.02 * pose.pitch.sin() - 0.005
    radius = who.iris_size * shape.eye_height
    iris = _ellipse(ix, iy, radius * sx * 0.92, radius)
    window.paint(colours.iris * 0.55, cover(iris) * eye)
    window.paint(colours.iris, cover(iris + 0.016) * eye)
    window.paint(
        (colours.iris * 1.35 + 0.08).clamp(0, 1), 0.7 * cover(_ellipse(ix, iy - radius * 0.45, radius * 0.6 * sx, radius * 0.4)) * eye
    )
    window.paint(_INK, cover(_ellipse(ix, iy, radius * 0.52 * sx, radius * 0.52)) * eye)
    window.paint(_WHITE, cover(_ellipse(ix + 0.035, iy + 0.045, 0.034, 0.034)) * eye)
    window.paint(_WHITE, 0.7 * cover(_ellipse(ix - 0.035, iy - 0.050, 0.017, 0.017)) * eye)
    lid = torch.maximum((y - upper).abs() - 0.018, outline - 0.016)
    window.paint(_INK, cover(lid))
    flick = torch.maximum(
        (y - upper * 0.5 + 0.9 * (side * x / sx - shape.eye_width) + 0.010).abs() * 0.75 - 0.014, (side * x - rx - 0.012).abs() - 0.035
    )
    window.paint(_INK, cover(flick) * who.lashes)
    canvas.put_back(window, index)


def _glasses(canvas: _Canvas, who: Identities, pose: HeadPose) -> None:
    shape = who.shape
    for side in (-1, 1):
        window, index, x, y, sx, sy = _feature(canvas, shape, pose, side * shape.eye_x, shape.eye_y + 0.02, 0.30)
        rim = _ellipse(x, y, (shape.eye_width + 0.055) * sx, (shape.eye_height + 0.035) * sy)
        window.paint(_WHITE, 0.10 * window.cover(rim) * who.glasses)
        frame = rim.abs() - 0.016
        inner = shape.eye_x - shape.eye_width - 0.055
        bridge = torch.maximum((y + 0.03).abs() - 0.014, (side * x + (shape.eye_x - inner / 2) * sx).abs() - 0.6 * inner - 0.02)
        window.paint(_INK, window.cover(torch.minimum(frame, bridge)) * who.glasses)
        canvas.put_back(window, index)


def _nose(canvas: _Canvas, colours: Identities, who: Identities, pose: HeadPose) -> None:
    shape = who.shape
    window, index, x, y, sx, _ = _feature(canvas, shape, pose, 0.0, shape.nose_y, 0.16)
    x, y = x - 0.07 * pose.yaw.sin(), y - 0.05 * pose.pitch.sin()
    window.paint(_times(colours.skin, 0.78, 0.64, 0.62), window.cover(_ellipse(x, y, shape.nose_width, 0.040)))
    window.paint((colours.skin * 1.02).clamp(0, 1), window.cover(_ellipse(x, y + 0.020, shape.nose_width * 1.02, 0.042)))
    canvas.put_back(window, index)


def _mouth(canvas: _Canvas, colours: Identities, who: Identities, motion: Motion, has_moustache: bool) -> None:
    """Lips round a line when shut; open, a dark room with teeth above and a tongue below. A bite lays the upper teeth on the lower lip."""
    shape, pose = who.shape, motion.head
    window, index, x, y, sx, sy = _feature(canvas, shape, pose, 0.0, shape.mouth_y + 0.04, 0.40)
    y = y + 0.04
    cover, bite = window.cover, motion.lip_bite
    width = (
        shape.mouth_width * (1 + 0.22 * motion.mouth_wide.clamp(min=0) + 0.38 * motion.mouth_wide.clamp(max=0) + 0.08 * motion.smile) * sx
    )
    height = (0.27 * motion.mouth_open * (1 - 0.15 * motion.mouth_wide)).clamp(min=0.055 * bite) * sy
    u = (x / width).square()
    room = (1 - u).clamp(min=0)
    line = -0.085 * motion.smile * (u.clamp(max=1.3) - 0.4)  # where the lips meet: the corners lift with the smile
    bow = 0.45 * room + 0.55 * room.sqrt()
    top, bottom = line - 0.22 * height * bow, line + 0.78 * height * bow
    lip = who.lip_thickness * (1 - 0.3 * motion.mouth_wide.clamp(-0.6, 1))
    ends = (x.abs() - width) * 0.9
    lips = torch.maximum(torch.maximum(top - lip * bow * 1.1 - y, y - bottom - lip * bow * (1.5 - 0.9 * bite)) * 0.9, ends - 0.012)
    canvas_lips = cover(lips)
    if has_moustache:
        hair = torch.maximum((y - line + 0.085 + 0.22 * height).abs() - 0.045 * room.sqrt(), ends * 1.0)
        window.paint(colours.hair * 0.85, cover(hair) * who.moustache)
    window.paint(colours.lips, canvas_lips)
    window.paint(_times(colours.lips, 0.42, 0.30, 0.32), cover(torch.maximum((y - line).abs() - 0.011, ends)))
    inside = cover(torch.maximum(torch.maximum(top - y, y - bottom) * 0.9, ends)) * (height * 25).clamp(0, 1)
    window.paint(_MOUTH, inside)
    window.paint(_TONGUE, inside * cover(_ellipse(x, y - bottom.amax((1, 2), keepdim=True) + 0.01, width * 0.62, 0.10 * sy)) * (1 - bite))
    teeth = torch.maximum(y - top - (0.055 + 0.2 * bite * height), x.abs() - width * 0.80)
    window.paint(_WHITE, inside * cover(teeth * 0.95))
    canvas.put_back(window, index)


def _fringe(canvas: _Canvas, colours: Identities, who: Identities, motion: Motion, x: Tensor, y: Tensor) -> None:
    """Hair over the forehead: a cap cut off at a hairline that never falls onto the eyes."""
    shape, pose = who.shape, motion.head
    u = (x - 0.30 * pose.yaw.sin()) / shape.width
    across = u - 0.05 * motion.hair_sway
    line = shape.height * (who.fringe + who.fringe_slant * across) + 0.30 * u.square().square().clamp(max=1.6)
    line = line + who.fringe_wave * (across * 13).cos() + 0.34 * pose.pitch.sin()
    cap = _ellipse(x + 0.01, y + 0.04, shape.width + 0.75 * who.hair_volume, shape.height + 0.75 * who.hair_volume)
    cut = torch.maximum(cap, (y - line) * 0.9)
    gloss = 1 + 0.10 * (across * 12).cos() + 0.16 * torch.exp(-((y + 0.62 * shape.height + 0.18 * u.square()) / 0.07).square())
    hairy = 1 - who.bald
    canvas.paint(colours.hair * 0.70, canvas.cover(torch.maximum(cap, (y - line) * 0.9 - 0.018)) * hairy)
    canvas.paint((colours.hair[:, :, None, None] * gloss[:, None]).clamp(0, 1), canvas.cover(cut) * hairy)


def _brow(canvas: _Canvas, colours: Identities, who: Identities, motion: Motion, side: int) -> None:
    shape = who.shape
    window, index, x, y, sx, _ = _feature(canvas, shape, motion.head, side * shape.eye_x, shape.eye_y - shape.brow_y, 0.25)
    outward = side * x
    y = y + 0.055 * motion.brows - (who.brow_slant + 0.22 * motion.brows.clamp(max=0)) * outward
    half = shape.brow_width * sx
    thickness = who.brow_thickness * (1 - 0.45 * (outward / half).clamp(-1, 1).square())
    stroke = torch.maximum((y - 1.6 * x.square()).abs() - thickness, x.abs() - half)
    window.paint(colours.hair * 0.55, window.cover(stroke))
    canvas.put_back(window, index)


def _boxes(who: Identities, motion: Motion, size: int) -> tuple[Tensor, Tensor]:
    """Pixels [n, 4] round the mouth and [n, 2, 4] round the eyes: large enough for the widest and widest open."""
    shape, pose = who.shape, motion.head

    def box(x: Tensor, y: Tensor, half_x: Tensor, half_y: Tensor) -> Tensor:
        px, py, sx, sy = turn(shape, pose, x, y)
        cx, cy = place(shape, pose, px, py)
        half_x, half_y = half_x * sx, half_y * sy
        return ((torch.stack([cx - half_x, cy - half_y, cx + half_x, cy + half_y], -1) + 1) * size / 2).clamp(0, size)

    mouth = box(torch.zeros_like(shape.width), shape.mouth_y + 0.07, 1.2 * shape.mouth_width, torch.full_like(shape.width, 0.19))
    eyes = [box(side * shape.eye_x, shape.eye_y, 1.15 * shape.eye_width, 1.15 * shape.eye_height) for side in (-1, 1)]
    return mouth, torch.stack(eyes, 1)
