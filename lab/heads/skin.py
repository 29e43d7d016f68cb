"""Paints a person's skin into the texture: tone, blush, freckles, moles, brows, make-up, lips, stubble and beard, lines of age.

Colours are linear light 0..1. Places are given on the resting head (mesh.py), so paint moves with the face.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .pack import MASKS, TEXTURE_H, TEXTURE_W, Pack
from .people import Person

TONES = ((255, 228, 210), (246, 208, 180), (232, 184, 148), (206, 150, 112), (160, 106, 74), (108, 70, 49), (74, 49, 39), (54, 37, 31))
HAIR = ((14, 11, 10), (30, 20, 15), (60, 38, 24), (95, 62, 38), (150, 105, 60), (205, 165, 110), (140, 60, 30), (165, 75, 35))
LIPSTICKS = ((190, 60, 70), (150, 40, 55), (205, 100, 95), (170, 80, 80), (120, 35, 60), (215, 75, 110), (95, 40, 40))
SHADOWS = ((90, 60, 50), (70, 70, 110), (130, 70, 90), (60, 90, 80), (120, 90, 50), (50, 45, 45))
IRISES = ((70, 42, 22), (48, 28, 16), (100, 75, 45), (90, 125, 150), (95, 120, 85), (130, 100, 55), (120, 130, 140), (60, 100, 140))


def linear(colour) -> np.ndarray:
    """Display bytes -> linear light."""
    return (np.asarray(colour, np.float32) / 255) ** 2.2


def smooth_step(x, low, high):
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class Colouring:
    """What paint and hair share."""

    darkness: float  # 0 palest .. 1 darkest
    tone: np.ndarray  # linear
    hair: np.ndarray
    iris: np.ndarray
    brow_lift: float  # how far above the eyes' middles the brows lie, mesh units
    grey: float  # 0..1 of the hair


def draw_colouring(person: Person, rng: np.random.Generator) -> Colouring:
    darkness = float(np.clip(person.descent @ [0.8, 0.36, 0.2] + rng.normal(0, 0.14), 0, 1))
    tones = linear(TONES)
    place = darkness * (len(tones) - 1.01)
    tone = tones[int(place)] * (1 - place % 1) + tones[int(place) + 1] * (place % 1)
    undertone = rng.normal(0, 0.07)  # warm or cool, beside olive and ruddy
    tone = tone * np.exp(np.array([undertone, rng.normal(0, 0.03), -1.3 * undertone]) + rng.normal(0, 0.08))
    chances = [0.55, 0.28, 0.12, 0.03, 0.01, 0.01, 0, 0] if darkness > 0.45 else [0.07, 0.15, 0.2, 0.18, 0.14, 0.13, 0.07, 0.06]
    hair = linear(HAIR[rng.choice(len(HAIR), p=chances)]) * np.exp(rng.normal(0, 0.2))
    if rng.random() < 0.05:  # dyed
        hair = linear(rng.integers(30, 230, 3))
    grey = float(np.clip((person.age - 0.45) * 2.5 + rng.normal(0, 0.25), 0, 1)) if person.age > 0.35 else 0.0
    hair = hair * (1 - grey) + linear((168, 165, 160)) * grey * rng.uniform(0.6, 1.2)
    chances = [0.45, 0.42, 0.08, 0, 0, 0.05, 0, 0] if darkness > 0.45 else [0.22, 0.12, 0.14, 0.16, 0.12, 0.08, 0.08, 0.08]
    iris = linear(IRISES[rng.choice(len(IRISES), p=chances)]) * rng.uniform(0.7, 1.3)
    return Colouring(darkness, tone.clip(0.003, 0.95), hair, iris, float(rng.uniform(0.17, 0.27)), grey)


class Noise:
    """Smooth noise over the texture at five sizes, made once; `at` gives a shifted copy."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        scale = TEXTURE_H / 512
        made = [self._normal(rng, (size * scale, 1.3 * size * scale)) for size in (0.8, 2, 6, 20, 60)]
        self.layers = made
        strands = self._normal(rng, (40, 0.8)) + 0.6 * self._normal(rng, (90, 3))
        self.strand = (np.argsort(np.argsort(strands.ravel())) / strands.size).reshape(strands.shape).astype(np.float32)

    @staticmethod
    def _normal(rng: np.random.Generator, sigma) -> np.ndarray:
        field = ndimage.gaussian_filter(rng.standard_normal((TEXTURE_H, TEXTURE_W)), sigma, mode="wrap")
        return ((field - field.mean()) / field.std()).astype(np.float32)

    def at(self, layer: int, rng: np.random.Generator) -> np.ndarray:
        return np.roll(self.layers[layer], (int(rng.integers(TEXTURE_H)), int(rng.integers(TEXTURE_W))), (0, 1))


class Canvas:
    """The skin's texture while it is painted: linear colour and shine, [4, h, w]."""

    def __init__(self, pack: Pack, noise: Noise, tone: np.ndarray, shine: float) -> None:
        self.x, self.y, self.z = (np.ascontiguousarray(axis) for axis in np.moveaxis(pack.texture_place, -1, 0))
        self.side = abs(self.x)
        self.front = (self.z > 0.3).astype(np.float32)
        self.masks = dict(zip(MASKS, pack.masks, strict=True)) | {"lash_line": pack.lash_line}
        self.noise = noise
        self.paint = np.empty((4, TEXTURE_H, TEXTURE_W), np.float32)
        self.paint[:] = np.append(tone, shine)[:, None, None]

    def spot(self, x: float, y: float, width: float, height: float, mirrored: bool = True) -> np.ndarray:
        """A soft spot on the face's front, on both sides if `mirrored`."""
        across = self.side if mirrored else self.x
        return np.exp(-(((across - x) / width) ** 2) - ((self.y - y) / height) ** 2) * self.front

    def mix(self, cover: np.ndarray, colour) -> None:
        cover = np.clip(cover, 0, 0.97).astype(np.float32)
        for channel, value in zip(self.paint, colour, strict=False):
            channel += cover * (np.float32(value) - channel)

    def tint(self, amount: np.ndarray, exponents) -> None:
        for channel, exponent in zip(self.paint, exponents, strict=False):
            channel *= np.exp(amount * np.float32(exponent))


def paint_skin(pack: Pack, noise: Noise, person: Person, colouring: Colouring, rng: np.random.Generator) -> np.ndarray:
    """A skin of its own for everybody: [h, w, 4] linear colour and shine."""
    canvas = Canvas(pack, noise, colouring.tone, rng.uniform(0.08, 0.55))
    eye_x, eye_y = pack.mesh.eye_centres[0, :2]
    _flesh(canvas, person, colouring, rng, eye_x, eye_y)
    _age(canvas, person, rng, eye_x, eye_y)
    made_up = not person.is_child and rng.random() < (0.1 if person.is_male else 0.6)
    _eyes(canvas, person, colouring, rng, eye_x, eye_y, made_up)
    lips = canvas.masks["lips"].clip(0, 1)
    natural = colouring.tone * np.array([0.98, 0.62, 0.6]) * rng.uniform(0.75, 1.05)
    colour = linear(LIPSTICKS[rng.integers(len(LIPSTICKS))]) * rng.uniform(0.6, 1.1) if made_up and rng.random() < 0.8 else natural
    canvas.mix(lips * rng.uniform(0.5, 0.95), colour)
    canvas.paint[3] += lips * rng.uniform(0.05, 0.55)
    _brows(canvas, person, colouring, rng, eye_y)
    if person.is_male and not person.is_child:
        _beard(canvas, colouring, rng, lips)
    return np.ascontiguousarray(np.moveaxis(canvas.paint.clip(0.002, 1), 0, -1), np.float32)


def _flesh(canvas: Canvas, person: Person, colouring: Colouring, rng: np.random.Generator, eye_x: float, eye_y: float) -> None:
    blush = rng.uniform(0.1, 1.3) * (canvas.spot(0.5, 6.95, 0.22, 0.2) + rng.uniform(0.3, 1) * canvas.spot(0, 6.95, 0.14, 0.12))
    blush += 0.6 * canvas.masks["ears"] + 0.25 * canvas.noise.at(4, rng).clip(0, 2) + 0.3 * canvas.spot(eye_x, eye_y - 0.2, 0.22, 0.07)
    canvas.tint(blush, np.array([-0.05, -0.24, -0.2]) * (1 - 0.5 * colouring.darkness))
    rough = rng.uniform(0.5, 1.8)
    mottled = 0.035 * rough * canvas.noise.at(0, rng) + 0.03 * rough * canvas.noise.at(1, rng)
    canvas.tint(mottled + 0.04 * canvas.noise.at(2, rng) + 0.06 * canvas.noise.at(3, rng), [1, 1, 1])
    if colouring.darkness < 0.55 and rng.random() < 0.28:  # freckles, here or there, few or many
        density = rng.uniform(0.9, 1.9)
        where = canvas.spot(0, 7 + rng.uniform(-0.1, 0.3), rng.uniform(0.4, 0.9), rng.uniform(0.2, 0.7))
        canvas.mix((canvas.noise.at(1, rng) > density) * rng.uniform(0.3, 0.7) * where, colouring.tone * [0.68, 0.47, 0.36])
    for _ in range(rng.poisson(1.2)):  # moles and spots
        size = rng.uniform(0.012, 0.035)
        mole = canvas.spot(rng.uniform(-0.7, 0.7), rng.uniform(6.2, 7.9), size, size, mirrored=False)
        reddish = rng.random() < 0.3
        canvas.mix(mole * rng.uniform(0.5, 0.9), colouring.tone * ([0.85, 0.45, 0.4] if reddish else [0.35, 0.25, 0.2]))
    if rng.random() < 0.03:  # a birthmark or a burn
        mark = canvas.spot(rng.uniform(-0.6, 0.6), rng.uniform(6.4, 8), 0.2, 0.25, mirrored=False) * (canvas.noise.at(3, rng) > -0.3)
        canvas.mix(mark * 0.5, colouring.tone * [0.8, 0.45, 0.45])


def _age(canvas: Canvas, person: Person, rng: np.random.Generator, eye_x: float, eye_y: float) -> None:
    def line(distance, width):
        return np.exp(-((distance / width) ** 2))

    tired = rng.uniform(0, 0.35) + 0.3 * max(person.age, 0)
    canvas.tint(tired * canvas.spot(eye_x, eye_y - 0.16, 0.17, 0.06), [-0.9, -1.0, -0.6])
    if person.age < 0.25:
        return
    depth = person.age * rng.uniform(0.5, 1.3)
    for height in (7.72, 7.84, 7.96):
        wave = canvas.y - height - 0.03 * np.sin(canvas.x * rng.uniform(3, 7) + rng.uniform(0, 6))
        canvas.tint(-0.35 * depth * line(wave, 0.013) * (canvas.side < rng.uniform(0.35, 0.6)) * canvas.front, [1, 1, 1])
    fold = canvas.side - (0.17 + 0.35 * (6.95 - canvas.y).clip(0, 1))  # from the nose to the mouth's corners
    canvas.tint(-0.5 * depth * line(fold, 0.022) * smooth_step(canvas.y, 6.55, 6.7) * (1 - smooth_step(canvas.y, 6.85, 6.97)), [1, 1, 1])
    crow = np.sin((canvas.y - eye_y) * 70 + canvas.side * 12)
    canvas.tint(-0.2 * depth * crow.clip(0, 1) * canvas.spot(eye_x + 0.27, eye_y, 0.08, 0.14), [1, 1, 1])
    if rng.random() < 0.5:
        canvas.mix((canvas.noise.at(2, rng) > 1.6) * 0.25 * depth * canvas.front, canvas.paint[:3].mean((1, 2)) * [0.7, 0.55, 0.45])


def _eyes(canvas: Canvas, person: Person, colouring: Colouring, rng, eye_x: float, eye_y: float, made_up: bool) -> None:
    """Lids, shadow, lash line and lashes."""
    lids = canvas.masks["eyelids"]
    canvas.mix(lids * rng.uniform(0.05, 0.35), colouring.tone * [0.62, 0.48, 0.46])
    canvas.mix(0.25 * canvas.spot(eye_x, eye_y + 0.1, 0.2, 0.035), colouring.tone * [0.55, 0.4, 0.38])
    if made_up and rng.random() < 0.7:
        shadow = linear(SHADOWS[rng.integers(len(SHADOWS))])
        canvas.mix(rng.uniform(0.3, 0.9) * lids + rng.uniform(0, 0.5) * canvas.spot(eye_x, eye_y + 0.13, 0.2, 0.06), shadow)
    if made_up and rng.random() < 0.4:
        canvas.mix(rng.uniform(0.2, 0.5) * canvas.spot(0.5, 6.98, 0.16, 0.12), colouring.tone * [1.0, 0.6, 0.6])
    strength = rng.uniform(0.75, 1.0) if made_up else rng.uniform(0.25, 0.6) if person.is_male else rng.uniform(0.5, 0.9)
    canvas.mix(lash_line(canvas, rng, made_up) * strength, colouring.hair * 0.25 if not made_up else linear((12, 9, 9)))


def lash_line(canvas: Canvas, rng: np.random.Generator, made_up: bool) -> np.ndarray:
    line = canvas.masks["lash_line"]
    return line ** rng.uniform(0.4, 0.7) if made_up else line


def _brows(canvas: Canvas, person: Person, colouring: Colouring, rng: np.random.Generator, eye_y: float) -> None:
    """From a thin arch to a bush that meets its neighbour."""
    thickness = rng.uniform(0.018, 0.05) * (1.25 if person.is_male else 0.85)
    start, length = rng.uniform(0.04, 0.14), rng.uniform(0.34, 0.48)
    q = ((canvas.side - start) / length).clip(-0.3, 1.3)
    peak = rng.uniform(0.5, 0.75)
    arch = rng.uniform(0.0, 0.07) * (1 - ((q - peak) / peak) ** 2).clip(-0.5, 1) - rng.uniform(-0.03, 0.05) * q
    taper = rng.uniform(0.3, 0.8)
    shape = np.exp(-(((canvas.y - eye_y - colouring.brow_lift - arch) / (thickness * (1.25 - taper * q.clip(0, 1)))) ** 4))
    shape *= smooth_step(q, -0.08, 0.08) * (1 - smooth_step(q, 0.82, 1.08)) * canvas.front
    hairs = 0.9 + rng.uniform(0.03, 0.15) * canvas.noise.at(1, rng)
    colour = np.minimum(colouring.hair * rng.uniform(0.4, 0.9), colouring.tone * rng.uniform(0.4, 0.7)) + 0.002
    if rng.random() < 0.06:
        return  # none to be seen
    canvas.mix(shape * hairs * rng.uniform(0.45, 0.97), colour)


def _beard(canvas: Canvas, colouring: Colouring, rng: np.random.Generator, lips: np.ndarray) -> None:
    """Stubble, moustache, goatee, chin strap or a full beard, as paint."""
    kind = rng.choice(["none", "stubble", "moustache", "goatee", "strap", "full"], p=[0.34, 0.26, 0.08, 0.1, 0.05, 0.17])
    if kind == "none":
        return
    area = smooth_step(-canvas.y, -6.97, -6.72) * smooth_step(canvas.y, 5.95, 6.2) * (1 - lips) * smooth_step(canvas.z, 0.15, 0.5)
    area *= 1 - smooth_step(canvas.side, 0.75, 1.0)
    area *= 1 - canvas.spot(0.42, 6.85 + rng.uniform(-0.05, 0.05), 0.22, 0.17) * 0.9
    moustache = canvas.spot(0, 6.76, 0.3, 0.05) * (1 - lips)
    chin = canvas.spot(0, 6.33, 0.22, 0.2) * (1 - lips)
    area = {
        "moustache": moustache * 1.4,
        "goatee": (chin * 1.3 + moustache * rng.choice([0.0, 1.2])),
        "strap": area * (1 - canvas.spot(0, 6.7, 0.45, 0.35)),
    }.get(kind, area)
    if rng.random() < 0.3:
        area = area * (1 - canvas.spot(0, 6.5, 0.12, 0.04) * 0.6)
    grain = 0.82 + 0.16 * canvas.noise.at(0, rng) + 0.08 * canvas.noise.at(1, rng)
    density = rng.uniform(0.1, 0.4) if kind == "stubble" else rng.uniform(0.5, 0.95)
    colour = colouring.hair * rng.uniform(0.5, 1.0) + (colouring.tone * 0.15 if kind == "stubble" else 0)
    canvas.mix(area.clip(0, 1) * grain * density, colour)
    canvas.paint[3] *= 1 - 0.7 * area.clip(0, 1) * density
