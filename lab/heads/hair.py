"""Grows hair, hats and veils: alpha-tested shells on a grid of rays through the scalp, angle round the head by rows from the crown down.

A row's `path` is about its arc length in mesh units: 0 the crown, 1.5 the height of the brows' upper edge, from where hair hangs. At every
angle hair ends at some path; what is left to that end thins it and makes it ragged.
"""

from dataclasses import dataclass

import numpy as np

from .mesh import HAIR, HAT
from .pack import CROWN_ROWS, HAIR_ANGLES, HANGING_ROWS, ROW_STEP, Pack
from .people import Person
from .skin import smooth_step

LAYERS = 3
ROWS = CROWN_ROWS + HANGING_ROWS
# thickness, where the sides end, where the nape's hair ends, curl: ranges
CUTS = {
    "bald": ((0.0, 0.0), (0, 0), (0, 0), (0, 0)),
    "buzz": ((0.02, 0.05), (1.55, 1.65), (2.4, 2.5), (0, 0)),
    "crop": ((0.10, 0.24), (1.58, 1.78), (2.4, 2.55), (0, 0.3)),
    "quiff": ((0.16, 0.34), (1.58, 1.7), (2.35, 2.5), (0, 0.3)),
    "curls": ((0.2, 0.38), (1.65, 2.1), (2.5, 2.8), (0.4, 0.7)),
    "afro": ((0.35, 0.75), (1.7, 2.2), (2.4, 2.8), (0.05, 0.2)),
    "bob": ((0.16, 0.36), (2.4, 3.0), (2.6, 3.1), (0, 0.35)),
    "waves": ((0.2, 0.4), (3.2, 4.2), (3.4, 4.2), (0.3, 0.6)),
    "long": ((0.14, 0.32), (3.4, 4.4), (3.4, 4.4), (0, 0.3)),
    "tied": ((0.06, 0.14), (1.55, 1.7), (2.3, 2.45), (0, 0.1)),
}  # fmt: skip
HANGING = ("bob", "waves", "long")
_CHANCES = {
    "man": {"bald": 0.13, "buzz": 0.15, "crop": 0.27, "quiff": 0.18, "curls": 0.12, "afro": 0.05, "bob": 0.04, "long": 0.04, "tied": 0.02},
    "woman": {
        "bald": 0.01, "buzz": 0.03, "crop": 0.09, "quiff": 0.03, "curls": 0.14, "afro": 0.07, "bob": 0.21, "waves": 0.15, "long": 0.15,
        "tied": 0.12,
    },
}  # fmt: skip
FRINGES = ("none", "none", "straight", "sweep", "sweep", "curtain")
HATS = ("beanie", "band", "veil")


@dataclass(frozen=True, eq=False)
class Grown:
    """Triangles that stand off the head and move with it as one."""

    vertices: np.ndarray  # [n, 3]
    attributes: np.ndarray  # [n, 4]
    triangles: np.ndarray  # [t, 3], of these vertices
    material: np.ndarray  # [t]


def grow(pack: Pack, person: Person, rng: np.random.Generator, hat: str | None = None) -> Grown:
    """Hair of a cut that suits nobody in particular, and over it a hat, if one is named."""
    chances = _CHANCES["man" if person.is_male else "woman"]
    cut = str(rng.choice(list(chances), p=np.array(list(chances.values())) / sum(chances.values())))
    if hat == "veil":
        cut = "bald"
    thick, side, nape, curl = (float(rng.uniform(*span)) for span in CUTS[cut])
    roots = (person.vertices[pack.hair_corners] * pack.hair_weights[..., None]).sum(2)  # [angles, rows, 3]
    angle = np.linspace(-np.pi, np.pi, HAIR_ANGLES)[:, None]
    path = np.concatenate([np.arange(CROWN_ROWS) / (CROWN_ROWS - 1) * 1.5, 1.5 + np.arange(1, HANGING_ROWS + 1) * ROW_STEP])[None]
    parts = []
    if cut != "bald":
        left = _ends(angle, rng, cut, side, nape) - path
        parts += _hair(roots, angle, path, left, rng, cut, thick * (0.35 if hat == "beanie" else 1), curl)
    if cut == "tied" and rng.random() < 0.7:
        parts.append(_bun(roots, rng))
    if hat is not None:
        parts.append(_hat(roots, angle, path, rng, hat, thick))
    return join(parts)


def join(parts: list[Grown]) -> Grown:
    """Several as one."""
    if not parts:
        return Grown(np.zeros((0, 3), np.float32), np.zeros((0, 4), np.float32), np.zeros((0, 3), np.int32), np.zeros(0, np.int32))
    starts = np.cumsum([0] + [len(part.vertices) for part in parts])
    return Grown(
        np.concatenate([part.vertices for part in parts]).astype(np.float32),
        np.concatenate([part.attributes for part in parts]).astype(np.float32),
        np.concatenate([part.triangles + start for part, start in zip(parts, starts, strict=False)]).astype(np.int32),
        np.concatenate([part.material for part in parts]).astype(np.int32),
    )


def _ends(angle: np.ndarray, rng: np.random.Generator, cut: str, side: float, nape: float) -> np.ndarray:
    """The path at which hair ends, for every angle: [angles, 1]."""
    around = abs(angle)
    line = rng.uniform(1.0, 1.26) + rng.choice([0, 0.05]) * np.cos(3 * angle) - rng.choice([0, 0, 0.12]) * smooth_step(around, 0.2, 0.5)
    fringe = "none" if cut in ("buzz", "quiff", "tied", "afro") else FRINGES[rng.integers(len(FRINGES))]
    if fringe == "straight":
        line = rng.uniform(1.32, 1.62) + 0 * angle
    elif fringe == "sweep":
        line = line + (rng.choice([-1, 1]) * angle * rng.uniform(0.35, 0.6) + rng.uniform(0.1, 0.35)).clip(0, 0.55)
    elif fringe == "curtain":
        line = line + rng.uniform(0.35, 0.7) * smooth_step(abs(angle - rng.uniform(-0.2, 0.2)), 0.08, 0.75)
    line = line + 0.03 * np.sin(angle * rng.uniform(7, 17) + rng.uniform(0, 6)) + 0.03 * rng.standard_normal(angle.shape)
    edge = rng.uniform(0.9, 1.2) if cut in HANGING else rng.uniform(1.0, 1.15)  # the angle at which the face ends
    ends = line + (side - line) * smooth_step(around, edge - 0.42, edge + 0.02)
    return ends + (nape - ends) * smooth_step(around, 1.75, 2.1)


def _hair(roots, angle, path, left, rng: np.random.Generator, cut: str, thick: float, curl: float) -> list[Grown]:
    """The shells from the scalp outwards."""
    middle, outward, radius = _directions(roots)
    if cut in HANGING:  # hangs about straight, does not follow the neck inwards
        reference = radius[:, CROWN_ROWS - 1 : CROWN_ROWS]
        flare = 1 + rng.uniform(-0.1, 0.18) * np.linspace(0, 1, HANGING_ROWS)
        radius[:, CROWN_ROWS:] = np.minimum(np.maximum(radius[:, CROWN_ROWS:], reference * flare), reference * 1.35)
    on_scalp = _place(middle, outward, radius)
    lumps = curl * np.sin(rng.uniform(5, 13) * angle + rng.uniform(0, 6) + path * rng.uniform(1.5, 7))
    lumps = lumps + (0.35 * curl + 0.05) * rng.standard_normal(lumps.shape)
    volume = np.ones_like(lumps)
    if cut == "quiff":
        volume *= 0.6 + rng.uniform(0.6, 1.4) * np.exp(-((angle / 0.7) ** 2)) * smooth_step(path, 0.3, 1.1)
    if cut not in ("buzz", "afro", "curls") and rng.random() < 0.6:  # a parting
        away = on_scalp[..., 0] - rng.uniform(-0.4, 0.4)
        volume *= 1 - 0.85 * np.exp(-((away / 0.07) ** 2)) * (on_scalp[..., 2] > -0.1) * (path < 1.5)
    sweep, twist = rng.uniform(-0.12, 0.12), rng.uniform(0, 0.03) * curl
    made = []
    for layer in range(LAYERS):
        share = layer / (LAYERS - 1)
        stand = thick * (0.6 + 0.4 * share) * smooth_step(left, -0.02, 0.3) * volume * (1 + lumps) + 0.015
        across = angle / (2 * np.pi) + 0.5 + 0.07 * layer + sweep * path + twist * np.sin(path * 14)
        made.append(_shell(on_scalp + outward * stand[..., None], [across, path * 0.35, left, share], left, HAIR))
    return made[::-1]


def _hat(roots, angle, path, rng: np.random.Generator, hat: str, thick: float) -> Grown:
    around = abs(angle)
    front = rng.uniform(1.0, 1.3)
    if hat == "veil":
        ends = front + (4.2 - front) * smooth_step(around, rng.uniform(0.75, 0.95), 1.1)
        stand = 0.08
    else:
        ends = front + (rng.uniform(1.6, 1.9) - front) * smooth_step(around, 0.6, 2.0)
        stand = 0.07 + min(thick, 0.2) * (0.4 if hat == "beanie" else 1)
    left = ends - path
    middle, outward, radius = _directions(roots)
    if hat == "veil":
        reference = radius[:, CROWN_ROWS - 1 : CROWN_ROWS]
        radius[:, CROWN_ROWS:] = np.clip(radius[:, CROWN_ROWS:], reference * 0.85, reference * 1.3)
    folds = 1 + 0.25 * np.sin(angle * rng.integers(5, 14) + path * rng.uniform(0, 4)) * (0.3 if hat == "band" else 1)
    shown = left if hat != "band" else np.minimum(left, 0.28 - left)
    surface = _place(middle, outward, radius) + outward * (stand * folds)[..., None]
    return _shell(surface, [angle / (2 * np.pi) + 0.5, path * 0.35, shown, 1.0], shown + 0.06, HAT)


def _bun(roots: np.ndarray, rng: np.random.Generator) -> Grown:
    """A knot of hair at the crown or behind it."""
    back = rng.uniform(0, 0.9)
    centre = np.array([0, roots[:, 0, 1].mean() + 0.12 - 0.35 * back**2, -0.05 - 0.75 * back])
    size = rng.uniform(0.22, 0.36)
    around, down = np.meshgrid(np.linspace(0, 2 * np.pi, 17), np.linspace(0.02, np.pi - 0.02, 9), indexing="ij")
    unit = np.stack([np.sin(down) * np.cos(around), np.cos(down), np.sin(down) * np.sin(around)], -1)
    return _shell(centre + size * unit, [around, down, 1.0, 0.0], np.ones_like(around), HAIR)


def _directions(roots: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middles that hair stands away from, unit directions, and how far the scalp is: [.., 3], [.., 3], [..]."""
    middle = np.zeros_like(roots)
    middle[..., 2] = 0.15
    level = roots[:, CROWN_ROWS - 1, 1].mean()
    middle[:, :CROWN_ROWS, 1] = level
    middle[:, CROWN_ROWS:, 1] = level - np.arange(1, HANGING_ROWS + 1) * ROW_STEP
    away = roots - middle
    away[:, CROWN_ROWS:, 1] = 0
    radius = np.linalg.norm(away, axis=-1)
    return middle, away / radius[..., None], radius


def _place(middle: np.ndarray, outward: np.ndarray, radius: np.ndarray) -> np.ndarray:
    return middle + outward * radius[..., None]


def _shell(points: np.ndarray, attributes: list, left: np.ndarray, material: int) -> Grown:
    """A grid of points [a, r, 3] as triangles, where anything is `left`."""
    columns, rows = points.shape[:2]
    i, k = np.meshgrid(np.arange(columns - 1), np.arange(rows - 1), indexing="ij")
    corner = (i * rows + k).ravel()
    triangles = np.concatenate(
        [np.stack([corner, corner + 1, corner + rows], 1), np.stack([corner + 1, corner + rows + 1, corner + rows], 1)]
    )
    triangles = triangles[np.broadcast_to(left, (columns, rows)).ravel()[triangles].max(1) > -0.02]
    stacked = np.stack(np.broadcast_arrays(*attributes, np.zeros((columns, rows)))[:4], -1).reshape(-1, 4)
    return Grown(points.reshape(-1, 3), stacked, triangles, np.full(len(triangles), material))
