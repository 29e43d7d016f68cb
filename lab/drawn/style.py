"""Who is drawn and how: one character in one style, as numbers drawn from one generator. Knows no pixels.

Lengths are in units of the head's half height; colours are display RGB 0..255.
"""

import colorsys
from dataclasses import dataclass

import numpy as np

KINDS = ("person", "person", "person", "person", "anime", "anime", "cat", "bear", "rabbit", "robot", "monster")
EYES = ("dot", "oval", "white", "white", "anime", "line")
MOUTHS = ("line", "wedge", "lips", "teeth")
NOSES = ("none", "dot", "line", "hook", "triangle", "oval")
RENDERINGS = ("flat", "outlined", "outlined", "shaded", "sketch")
HAIR_CUTS = ("none", "cap", "fringe", "side", "long", "spikes", "curls", "bun")
ANIMALS = ("cat", "bear", "rabbit")
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Style:
    """One character; fixed while it moves."""

    kind: str
    rendering: str
    eyes: str
    mouth: str
    nose: str
    hair_cut: str
    width: float  # of the head, half
    jaw: float  # 0 round .. 1 pointed
    squareness: float  # exponent of the outline: 2 an ellipse, 5 nearly a box
    depth: float  # how much turning shows
    eye_x: float
    eye_y: float
    eye_w: float
    eye_h: float
    pupil: float  # of the eye's height
    brow_y: float  # above the eyes' upper edge
    brow_w: float
    brow_thick: float
    nose_y: float
    nose_size: float
    mouth_y: float
    mouth_w: float
    mouth_gap: float  # how far it opens
    ear_size: float
    line_width: float
    fringe: float
    hair_volume: float
    skin: Colour
    skin_2: Colour  # muzzle, shadow side, plates
    hair: Colour
    iris: Colour
    lips: Colour
    line: Colour
    cloth: Colour
    background: Colour
    background_2: Colour
    backdrop: str  # plain, halves, disc, stripes, gradient
    blush: bool
    freckles: bool
    glasses: bool
    shade_side: int  # -1, 1
    paper: float  # strength of the paper's grain


def draw_style(rng: np.random.Generator) -> Style:
    """A new character."""
    kind = str(rng.choice(KINDS))

    def pick(options):
        return str(options[rng.integers(len(options))])

    def u(low, high):
        return float(rng.uniform(low, high))

    robot, anime, animal = kind == "robot", kind == "anime", kind in ANIMALS
    natural = not (animal or robot or kind == "monster") and rng.random() < 0.85
    skin = _skin(rng) if natural else _any(rng)
    rendering = pick(RENDERINGS)
    eyes = "anime" if anime else pick(EYES)
    eye_h = u(0.2, 0.34) if eyes == "anime" else u(0.05, 0.09) if eyes in ("dot", "line") else u(0.11, 0.24)
    dark_line = rng.random() < 0.8
    return Style(
        kind=kind, rendering=rendering, eyes=eyes, mouth=pick(MOUTHS), nose=pick(("triangle", "oval", "dot")) if animal else pick(NOSES),
        hair_cut="none" if animal or robot else pick(HAIR_CUTS), width=u(0.72, 1.0), jaw=u(0, 0.9 if anime else 0.5),
        squareness=u(3, 6) if robot else u(1.9, 2.8), depth=u(0.5, 0.95), eye_x=u(0.3, 0.42), eye_y=u(-0.1, 0.12), eye_h=eye_h,
        eye_w=eye_h * (u(0.8, 1.1) if eyes in ("dot", "anime") else u(0.8, 1.7)), pupil=u(0.3, 0.8),
        brow_y=u(0.05, 0.16), brow_w=u(0.12, 0.22),
        brow_thick=u(0.015, 0.06), nose_y=u(0.26, 0.36), nose_size=u(0.03, 0.1), mouth_y=u(0.52, 0.62), mouth_w=u(0.12, 0.3),
        mouth_gap=u(0.16, 0.32), ear_size=u(0.12, 0.2) if not animal else u(0.25, 0.5), line_width=u(0.012, 0.05), fringe=u(-0.62, -0.3),
        hair_volume=u(0.05, 0.3), skin=skin, skin_2=_shift(skin, rng, 0.15), hair=_hair(rng) if natural else _any(rng), iris=_any(rng),
        lips=_shift((190, 70, 80), rng, 0.2), line=_dark(rng) if dark_line else _any(rng), cloth=_any(rng), background=_any(rng),
        background_2=_any(rng), backdrop=pick(("plain", "halves", "disc", "stripes", "gradient")), blush=bool(rng.random() < 0.3),
        freckles=bool(rng.random() < 0.12), glasses=bool(rng.random() < 0.15), shade_side=int(rng.choice([-1, 1])),
        paper=float(rng.choice([0, 0, u(0.01, 0.06)])),
    )  # fmt: skip


def _bytes(rgb) -> Colour:
    return tuple(int(round(255 * float(np.clip(value, 0, 1)))) for value in rgb)


def _any(rng: np.random.Generator) -> Colour:
    """Any colour, pale and grey ones among them."""
    return _bytes(colorsys.hsv_to_rgb(rng.random(), rng.random() ** 1.3, rng.uniform(0.12, 1)))


def _dark(rng: np.random.Generator) -> Colour:
    return _bytes(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.6), rng.uniform(0.02, 0.3)))


def _skin(rng: np.random.Generator) -> Colour:
    light = rng.random()
    return _bytes(colorsys.hsv_to_rgb(rng.uniform(0.035, 0.1), 0.22 + 0.4 * (1 - light) + rng.normal(0, 0.06), 0.38 + 0.6 * light))


def _hair(rng: np.random.Generator) -> Colour:
    if rng.random() < 0.25:
        return _any(rng)
    return _bytes(colorsys.hsv_to_rgb(rng.uniform(0.02, 0.13), rng.uniform(0.1, 0.8), rng.uniform(0.08, 0.85)))


def _shift(colour: Colour, rng: np.random.Generator, amount: float) -> Colour:
    return tuple(int(np.clip(value * (1 + rng.normal(0, amount)), 0, 255)) for value in colour)
