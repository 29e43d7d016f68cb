"""Who is rendered: a person as numbers drawn from one generator, shape first, looks after. Knows nothing of pixels.

Sex, age and descent blend MakeHuman's macro shapes; some two hundred axes of nose, mouth, eyes, cheeks, chin, forehead and ears are
drawn one by one. Left and right share an axis but for a little. `STRENGTH` times the standard deviation that merely looks plausible:
two people should be two people to a judge of faces too.
"""

from dataclasses import dataclass

import numpy as np

from .mesh import Mesh

STRENGTH = 1.2
SIGMA, LIMIT = 0.32, 0.85
_SIGNS = {
    "decr": -1, "down": -1, "backward": -1, "out": -1, "concave": -1, "compress": -1,
    "incr": 1, "up": 1, "forward": 1, "in": 1, "convex": 1, "uncompress": 1,
}  # fmt: skip
_OUTLINES = ("round", "square", "oval", "diamond", "rectangular", "triangular", "invertedtriangular")
# What makes a face crooked or a head deformed long before it makes it another person's.
_TAMED = (("asym", 0.4), ("head-trans", 0.25), ("neck-trans", 0.25), ("measure", 0.25), ("head-age", 0.25), ("head-scale", 0.6))
_TAMED += (("head-back", 0.5), ("eye-trans", 0.6), ("eye-push", 0.5), ("neck", 0.5), ("head-fat", 0.45), ("nose", 0.85))
_TAMED += (("forehead", 0.6), ("cheek", 0.8), ("mouth-scale", 0.8))
_STIFF = ("nose-trans", "mouth-trans", "head-angle")


@dataclass(frozen=True, eq=False)
class Person:
    """A body of somebody; `looks` are drawn from its generator later, in the order in which they are painted."""

    vertices: np.ndarray  # [v, 3] at rest
    masculine: float  # 0..1
    age: float  # -0.35 a child .. 0 young .. 0.9 old
    descent: np.ndarray  # [3] shares of African, Asian, European shapes

    @property
    def is_male(self) -> bool:
        return self.masculine > 0.5

    @property
    def is_child(self) -> bool:
        return self.age < 0


def draw_person(mesh: Mesh, rng: np.random.Generator, strength: float = STRENGTH) -> Person:
    """Somebody new."""
    masculine = float(np.clip(rng.normal(rng.integers(2), 0.15), 0, 1))
    age = float(rng.choice([rng.uniform(0, 0.35), rng.uniform(0, 0.9), rng.uniform(-0.35, 0)], p=[0.48, 0.44, 0.08]))
    descent = rng.dirichlet([0.5] * 3)
    weight, muscle = np.clip(rng.normal(0.5, 0.24, 2), 0, 1)

    macro = {"child": max(-age, 0) / 0.5, "old": max(age, 0), "male": masculine, "female": 1 - masculine, "universal": 1.0, "baby": 0.0}
    macro["young"] = 1 - macro["child"] - macro["old"]
    macro |= dict(zip(("african", "asian", "caucasian"), descent, strict=True))
    for name, value in (("weight", weight), ("muscle", muscle)):
        macro |= {f"min{name}": max(1 - 2 * value, 0), f"average{name}": 1 - abs(2 * value - 1), f"max{name}": max(2 * value - 1, 0)}

    outlines = rng.permutation(_OUTLINES)[:2]
    axes: dict[str, float] = {}
    weights = np.array([_weight(name, macro, outlines, axes, rng, strength) for name in mesh.target_names], np.float32)
    vertices = mesh.vertices + (weights @ mesh.targets).reshape(-1, 3)
    vertices[mesh.groups["helper-upper-teeth"], 1] -= rng.uniform(0.01, 0.06)  # at rest they hide behind the lip, open mouths and all
    return Person(vertices.astype(np.float32), masculine, age, descent)


def _weight(name: str, macro: dict, outlines, axes: dict[str, float], rng: np.random.Generator, strength: float) -> float:
    """How much of one target; the two targets of an axis, and left and right, share one number in `axes`."""
    parts = name.split("-")
    if parts[0] in macro and len(parts) >= 3 and (parts[0] == "universal" or parts[1] in ("male", "female")):
        return float(np.prod([macro[part] for part in parts]))
    if parts[0] == "head" and parts[-1] in _OUTLINES:
        return rng.uniform(0, 0.45) * strength if parts[1] in outlines else 0.0
    if parts[-1] not in _SIGNS:
        return max(rng.normal(0, 0.2), 0.0) if parts[0] in "lr" else 0.0
    axis = name[: name.rfind("-")]
    paired = axis[:2] in ("l-", "r-")
    axis = axis[2:] if paired else axis
    if axis not in axes:
        axes[axis] = float(np.clip(rng.normal(0, SIGMA), -LIMIT, LIMIT)) * strength
    value = axes[axis] + (rng.normal(0, 0.05) if paired else 0.0)
    if axis in _STIFF:
        value *= 0.25
    value *= next((factor for start, factor in _TAMED if axis.startswith(start)), 1.0)
    return abs(value) if value * _SIGNS[parts[-1]] > 0 else 0.0
