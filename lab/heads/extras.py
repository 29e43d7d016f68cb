"""What people wear on their heads besides hair: glasses and ear rings, as tubes."""

import numpy as np

from .hair import Grown, join
from .mesh import METAL
from .pack import Pack
from .people import Person


def wear(pack: Pack, person: Person, rng: np.random.Generator, glasses: bool, ear_rings: bool) -> Grown:
    """The tubes of what is worn, on a person's own face."""
    parts = []
    if glasses:
        parts += _glasses(pack, person, rng)
    if ear_rings:
        parts += _ear_rings(pack, person, rng)
    return join(parts)


def _glasses(pack: Pack, person: Person, rng: np.random.Generator) -> list[Grown]:
    eyes = np.stack([person.vertices[pack.mesh.groups[f"helper-{side}-eye"]].mean(0) for side in "lr"])
    apart = eyes[0, 0] - eyes[1, 0]
    width, height = apart * rng.uniform(0.3, 0.44), apart * rng.uniform(0.22, 0.36)
    corners = rng.uniform(2, 5)  # 2: round, 5: nearly a box
    droop, thick = rng.uniform(-0.2, 0.25), rng.uniform(0.012, 0.035)
    nose = (person.vertices[pack.point_corners[28]] * pack.point_weights[28][:, None]).sum(0)
    front = max(eyes[:, 2].max() + 0.2, nose[2] - 0.02)
    turn = np.linspace(0, 2 * np.pi, 29)

    def power(wave):
        return np.sign(wave) * abs(wave) ** (2 / corners)

    parts, y = [], eyes[:, 1].mean() - 0.03
    for side in (1, -1):
        middle = side * apart / 2 * 1.04
        x, up = power(np.cos(turn)) * width, power(np.sin(turn)) * height
        up = up * (1 + droop * (np.cos(turn) * 1.0 * (up < 0)))
        place = np.stack([middle + side * x, y + up, front - 0.12 * (abs(middle + side * x)) ** 2], 1)
        parts.append(tube(place, thick * rng.uniform(0.8, 1.2)))
        outer = middle + side * width
        ear = np.array([side * max(abs(outer) + 0.05, abs(person.vertices[pack.point_corners[70], 0]).max() * 0.93), y + 0.06, 0.35])
        hinge = np.array([outer, y + 0.1 * height, front - 0.12 * outer**2])
        parts.append(tube(hinge + (ear - hinge) * np.linspace(0, 1, 6)[:, None], thick))
    inner = apart / 2 * 1.04 - width
    across = np.linspace(-inner, inner, 7)
    parts.append(tube(np.stack([across, y + 0.25 * height + 0.03 * (1 - (across / inner) ** 2), front + 0 * across], 1), thick))
    return parts


def _ear_rings(pack: Pack, person: Person, rng: np.random.Generator) -> list[Grown]:
    size, hangs = rng.uniform(0.035, 0.16), rng.random() < 0.6
    parts = []
    for side in (1, -1):
        base = pack.mesh.vertices
        ear = np.flatnonzero((base[:, 0] * side > 0.62) & (base[:, 1] > 6.6) & (base[:, 1] < 7.3) & (abs(base[:, 2] - 0.35) < 0.35))
        lobe = person.vertices[ear[person.vertices[ear, 1].argmin()]] + [side * 0.02, 0.0, 0.03]
        turn = np.linspace(0, 2 * np.pi, 17)
        if hangs:  # a hoop below the lobe
            parts.append(tube(lobe + np.stack([0 * turn, size * (np.cos(turn) - 1), size * np.sin(turn)], 1), size * 0.18 + 0.012))
        else:  # a stud
            parts.append(tube(lobe + np.array([[side * 0.0, 0, 0], [side * 0.03, 0, 0.01], [side * 0.05, 0, 0.015]]), size * 0.5))
    return parts


def tube(path: np.ndarray, radius: float, sides: int = 5) -> Grown:
    """A tube along points [n, 3]."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    helper = np.where(abs(along[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]])
    right = np.cross(along, helper)
    right /= np.linalg.norm(right, axis=1, keepdims=True) + 1e-9
    up = np.cross(along, right)
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    points = path[:, None] + radius * (right[:, None] * np.cos(turn)[:, None] + up[:, None] * np.sin(turn)[:, None])
    i, k = np.meshgrid(np.arange(len(path) - 1), np.arange(sides), indexing="ij")
    a, b = (i * sides + k).ravel(), (i * sides + (k + 1) % sides).ravel()
    triangles = np.concatenate([np.stack([a, b, a + sides], 1), np.stack([b, b + sides, a + sides], 1)])
    return Grown(points.reshape(-1, 3), np.zeros((points.size // 3, 4)), triangles, np.full(len(triangles), METAL))
