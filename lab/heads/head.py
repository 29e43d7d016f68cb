"""Somebody in front of a camera: dressed, lit, framed, then frame after frame with everything that is known of it.

person -> shape under ARKit weights -> turned about the neck -> projected -> rasterised -> lit -> [h, w, 3] uint8 and labels
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..framing import TIGHT, Framing
from . import raster
from .extras import wear
from .hair import HATS, grow, join
from .mesh import CLOTH, EYE, HAIR, HAT, LASH, METAL, MOUTH, SKIN, SOCKET, TEETH, TONGUE
from .motion import Performance, arkit
from .pack import BROW_HEIGHTS, Pack
from .people import Person, draw_person
from .skin import Noise, draw_colouring, linear, paint_skin, smooth_step

# Of lab/points.PARTS: brows and lips are skin, and have points.
_PART_OF = {SKIN: 1, SOCKET: 1, EYE: 2, LASH: 2, MOUTH: 3, TEETH: 3, TONGUE: 3, HAIR: 4, CLOTH: 5, METAL: 6, HAT: 6}
SHADOW_SIDE = 208
_TONE = (np.clip(1 - np.exp(-1.25 * np.linspace(0, 4, 4 * raster.TONES)), 0, 1) ** (1 / 2.2) * 255).astype(np.float32)


@dataclass(frozen=True)
class Camera:
    """Where the resting face lies in the image, and how."""

    framing: Framing
    scale: float = 1.0  # of the framing's eye distance
    shift: tuple[float, float] = (0.0, 0.0)  # of the side, right and down
    roll: float = 0.0  # radians, clockwise
    field: float = 0.4  # angle of view, radians


def draw_camera(rng: np.random.Generator, framing: Framing = TIGHT, loose: float = 1.0) -> Camera:
    """About the aligned framing: scale .85 to 1.15, shift 5 %, roll 8 degrees; `loose` times that."""
    scale = float(np.exp(rng.uniform(-0.15, 0.14) * loose))
    shift = rng.uniform(-0.05, 0.05, 2) * loose
    return Camera(
        framing, scale, (float(shift[0]), float(shift[1])), float(np.radians(rng.uniform(-8, 8)) * loose), float(rng.uniform(0.2, 0.6))
    )


class Studio:
    """What all people share: the pack and the noise that they are painted with."""

    def __init__(self, pack: Pack, backgrounds: list[np.ndarray] | None = None) -> None:
        """`backgrounds`: photographs [h, w, 3] uint8 that may stand behind heads, out of focus."""
        self.pack, self.noise, self.backgrounds = pack, Noise(), backgrounds or []

    def invite(self, rng: np.random.Generator) -> "Head":
        """Somebody new, with a look and a light of their own."""
        return Head(self, draw_person(self.pack.mesh, rng), rng)


class Head:
    """One person, painted and dressed; `frame` renders."""

    def __init__(self, studio: Studio, person: Person, rng: np.random.Generator) -> None:
        self.studio, self.person, self.rng = studio, person, rng
        pack, mesh = studio.pack, studio.pack.mesh
        self.colouring = draw_colouring(person, rng)
        self.skin = paint_skin(pack, studio.noise, person, self.colouring, rng)
        self.strand = np.roll(studio.noise.strand, int(rng.integers(studio.noise.strand.shape[1])), 1)
        hat = str(HATS[rng.integers(len(HATS))]) if rng.random() < 0.09 else None
        glasses = rng.random() < (0.05 if person.is_child else 0.2)
        rings = hat != "veil" and rng.random() < (0.06 if person.is_male else 0.35)
        worn = join([grow(pack, person, rng, hat), wear(pack, person, rng, glasses, rings)])
        self.wears = {"hat": hat, "glasses": bool(glasses), "ear_rings": bool(rings)}
        self.colour = self._colours()
        self.relight()

        v = len(mesh.vertices)
        shown = mesh.material != LASH  # painted: as triangles they flicker at this size
        self.triangles = np.concatenate([mesh.triangles[shown], worn.triangles + v]).astype(np.int32)
        self.material = np.concatenate([mesh.material[shown], worn.material]).astype(np.int32)
        self.attributes = np.concatenate([self._attributes(), worn.attributes]).astype(np.float32)
        self.worn = worn.vertices
        raster.normals(worn.vertices, worn.triangles, worn_normal := np.zeros_like(worn.vertices))
        self.worn_normal = worn_normal
        is_cloth = self.attributes[:v, 3:] > 0
        raster.normals(person.vertices.astype(np.float32), mesh.triangles, resting := np.zeros((v, 3), np.float32))
        self.thickness = resting * np.where(is_cloth, 0.05 * smooth_step(self.attributes[:v, 3:], 0, 0.06), 0).astype(np.float32)
        self.eyes = np.stack([person.vertices[mesh.groups[f"helper-{side}-eye"]].mean(0) for side in "lr"])
        self._set_points()

    def relight(self) -> None:
        """Another light and another background."""
        rng = self.rng

        def towards(angle, up):
            return [np.sin(angle) * np.cos(up), np.sin(up), np.cos(angle) * np.cos(up)]

        angle, up, warm, key = rng.uniform(-1.3, 1.3), rng.uniform(-0.15, 0.9), rng.normal(0, 0.1), rng.uniform(0.5, 1.5)
        tint = np.array([1 + warm, 1, 1 - warm])
        fill = np.array([1 - warm, 1, 1 + warm]) * rng.uniform(0.05, 0.5)
        if rng.random() < 0.08:  # coloured light
            fill = rng.uniform(0, 0.8, 3)
        sky = tint * rng.uniform(0.15, 0.6)
        self.light = np.array(
            [towards(angle, up), tint * key, towards(-angle * rng.uniform(0.6, 1.6), rng.uniform(-0.3, 0.5)), fill, sky, [0.24, 0.21, 0.2]],
            np.float32,
        )
        self.light[5] *= rng.uniform(0.4, 1.4)
        self.softness = float(rng.choice([0.0, rng.uniform(0.2, 0.6), rng.uniform(0.6, 1.0)]))
        self._background: np.ndarray | None = None

    def render(self, performance: Performance, camera: Camera, size: int = 128) -> dict[str, np.ndarray]:
        """Every frame of a performance, the first one's eyes where the framing has them, as in a portrait that was cut by its eyes.

        `frames` [f, h, w, 3] uint8, `points` [f, points, 2], `parts` [f, h, w] uint8, `tracks` [f, tracks], `units` [f, units]."""
        units = arkit(performance, self.studio.pack.mesh.unit_names)
        turns = np.stack([performance.yaw, performance.pitch, performance.roll], 1)
        sway = np.stack([performance.shift_x, performance.shift_y], 1) - self._eyes_moved(*turns[0], camera)
        made = [self.frame(units[i], *turns[i], camera, size, sway[i]) for i in range(len(units))]
        frames, points, parts = (np.stack(values) for values in zip(*made, strict=True))
        return {"frames": frames, "points": points, "parts": parts, "tracks": performance.table(), "units": units}

    def frame(self, units: np.ndarray, yaw: float, pitch: float, roll: float, camera: Camera, size: int = 128, sway=(0.0, 0.0)):
        """One frame [h, w, 3] uint8, the named points [POINTS, 2] in pixels, the part map [h, w]."""
        mesh = self.studio.pack.mesh
        v = len(mesh.vertices)
        vertices = np.concatenate([mesh.expressed(self.person.vertices, units) + self.thickness, self.worn])
        turn = _rotation(yaw, pitch, -roll)
        vertices = self._turned(vertices, turn).astype(np.float32)

        apart = np.linalg.norm(self.eyes[0] - self.eyes[1])
        half = apart / (camera.framing.eye_distance * camera.scale) / 2  # of the image's side, at the eyes
        distance = half / np.tan(camera.field / 2)
        middle = self.eyes.mean(0)
        look_at = np.array([middle[0], middle[1] - (1 - 2 * camera.framing.eye_line) * half, middle[2] + 0.1 + distance])
        place = (vertices - look_at).astype(np.float32)
        double = 2 * size
        near = -1 / place[:, 2]
        focal = size / np.tan(camera.field / 2)
        x, y = focal * place[:, 0] * near, -focal * place[:, 1] * near
        cos, sin = np.cos(camera.roll), np.sin(camera.roll)
        dx, dy = (double * (shift + moved) for shift, moved in zip(camera.shift, sway, strict=True))
        screen = np.stack([size + cos * x - sin * y + dx, size + sin * x + cos * y + dy, near], 1).astype(np.float32)

        normal = np.zeros_like(place)
        raster.normals(place[:v], mesh.triangles, normal[:v])
        normal[v:] = self.worn_normal @ turn.T
        nearest, where = np.empty((double, double), np.int32), np.zeros((double, double, 2), np.float32)
        depth = np.empty((double, double), np.float32)
        raster.rasterise(screen, self.triangles, self.material, self.attributes, self.strand, depth, nearest, where)
        lamp, seen = self._shadow(vertices)
        image = raster.shade(
            nearest, where, self.triangles, self.material, self.attributes, normal, place, self.skin, self.strand,
            self._behind(size), self.light, self.colour, _TONE, lamp, seen, np.float32(self.softness),
        )  # fmt: skip
        points = (screen[self.point_corners, :2] * self.point_weights[..., None]).sum(1) / 2
        return image.clip(0, 255).astype(np.uint8), points.astype(np.float32), self._parts(nearest, where)

    def _eyes_moved(self, yaw: float, pitch: float, roll: float, camera: Camera) -> np.ndarray:
        """How far turning the head takes the eyes' middle, in shares of the image's side: [2] right and down."""
        moved = self._turned(self.eyes, _rotation(yaw, pitch, -roll)).mean(0) - self.eyes.mean(0)
        apart = np.linalg.norm(self.eyes[0] - self.eyes[1])
        right, down = np.array([moved[0], -moved[1]]) / apart * camera.framing.eye_distance * camera.scale
        cos, sin = np.cos(camera.roll), np.sin(camera.roll)
        return np.array([cos * right - sin * down, sin * right + cos * down])

    def _turned(self, vertices: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """The head turns about the top of the neck, which follows by and by."""
        lift = self.eyes[0, 1] - self.studio.pack.mesh.eye_centres[0, 1]
        share = smooth_step(vertices[:, 1] - lift - 5.7 + 0.55 * np.clip(vertices[:, 2] - 0.4, 0, 1), 0, 0.85)[:, None]
        pivot = np.array([0, 6.3 + lift, 0.1])
        return vertices + share * ((vertices - pivot) @ turn.T + pivot - vertices)

    def _shadow(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the first lamp sees: its depth image, and where vertices lie in that."""
        towards = self.light[0]
        right = np.cross([0, 1, 0], towards)
        right /= np.linalg.norm(right)
        offset = vertices - self.eyes.mean(0).astype(np.float32)
        half, scale = SHADOW_SIDE / 2, SHADOW_SIDE / 4.4
        seen = np.stack([half + scale * (offset @ right), half - scale * (offset @ np.cross(towards, right)), 10 + offset @ towards], 1)
        shape = (SHADOW_SIDE, SHADOW_SIDE)
        depth, nearest, where = np.empty(shape, np.float32), np.empty(shape, np.int32), np.empty((*shape, 2), np.float32)
        seen = seen.astype(np.float32)
        raster.rasterise(seen, self.triangles, self.material, self.attributes, self.strand, depth, nearest, where)
        return depth, seen

    def _behind(self, size: int) -> np.ndarray:
        """The background, in linear light [h, w, 3]: a gradient with clouds or discs, or a photograph out of focus."""
        if self._background is not None and len(self._background) == size:
            return self._background
        rng = self.rng
        down, across = np.mgrid[0:size, 0:size] / size - 0.5
        grey = rng.random() ** 0.7
        first, second, third = linear(rng.integers(10, 245, (3, 3)) * (1 - grey) + rng.integers(15, 245, (3, 1)) * grey)
        angle = rng.uniform(0, 2 * np.pi)
        share = (np.cos(angle) * across + np.sin(angle) * down + 0.5).clip(0, 1)[..., None]
        made = first * (1 - share) + second * share
        kind = rng.random()
        if kind < 0.45 and self.studio.backgrounds:
            photograph = self.studio.backgrounds[rng.integers(len(self.studio.backgrounds))]
            side = int(min(photograph.shape[:2]) * rng.uniform(0.3, 1))
            top, left = (int(rng.integers(extent - side + 1)) for extent in photograph.shape[:2])
            square = photograph[top : top + side, left : left + side]
            small = ndimage.zoom(square.astype(np.float32), (size / side, size / side, 1), order=1)[:size, :size]
            made = linear(ndimage.gaussian_filter(small, (*[rng.uniform(0, 5) * size / 128] * 2, 0)).clip(0, 255))
        elif kind < 0.65:
            cloud = ndimage.zoom(self.studio.noise.at(3, rng)[:64, :64], size / 64, order=1)[:size, :size]
            made = made + (third - made) * 0.6 * smooth_step(cloud, -0.3, 0.3)[..., None]
        elif kind < 0.8:
            for _ in range(int(rng.integers(2, 9))):
                x, y, radius = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(0.03, 0.25)
                disc = smooth_step(radius - np.hypot(across - x, down - y), 0, rng.uniform(0.005, 0.1))[..., None]
                made = made + (linear(rng.integers(10, 245, 3)) - made) * disc * rng.uniform(0.3, 1)
        self._background = np.ascontiguousarray(made, np.float32)
        return self._background

    def _parts(self, nearest: np.ndarray, where: np.ndarray) -> np.ndarray:
        triangle, at = nearest[::2, ::2], where[::2, ::2]
        table = np.array([_PART_OF[material] for material in range(len(_PART_OF))], np.uint8)
        part = np.where(triangle < 0, 0, table[self.material[triangle]])
        below = (self.attributes[self.triangles[triangle], 3] * np.concatenate([at, 1 - at.sum(-1, keepdims=True)], -1)).sum(-1)
        dressed = (triangle >= 0) & (self.material[triangle] == SKIN) & (below > 0)
        return np.where(dressed, 5, part).astype(np.uint8)

    def _colours(self) -> np.ndarray:
        rng, colour = self.rng, np.zeros((raster.NUM_COLOURS, 3), np.float32)
        iris, hair = self.colouring.iris, self.colouring.hair * 1.5 + 0.004
        colour[raster.IRIS], colour[raster.IRIS_RIM] = iris, iris * rng.uniform(0.25, 0.8)
        colour[raster.EYE_FORM] = rng.uniform(0.14, 0.26), rng.uniform(0.46, 0.54), rng.uniform(0, 0.4)
        colour[raster.SCLERA] = linear((240, rng.uniform(222, 236), rng.uniform(215, 232))) * rng.uniform(0.75, 1.1)
        colour[raster.HAIR_COLOUR], colour[raster.HAIR_TIPS] = hair, hair * (np.exp(rng.normal(0, 0.4)) if rng.random() < 0.4 else 1)

        def cloth():
            return linear(rng.integers(12, 238, 3) if rng.random() < 0.6 else np.repeat(rng.integers(12, 245), 3))

        colour[raster.CLOTH_COLOUR], colour[raster.CLOTH_STRIPE], colour[raster.HAT_COLOUR] = cloth(), cloth(), cloth()
        colour[raster.CLOTH_PATTERN] = rng.uniform(0.2, 1.2), rng.uniform(0.1, 1), rng.choice([0, 0, 0, 0, 40, 90])
        colour[raster.INSIDE] = linear((150, 70, 66)) * rng.uniform(0.4, 1.0)
        colour[raster.ENAMEL] = linear((238, rng.uniform(220, 234), rng.uniform(185, 225))) * rng.uniform(0.7, 1.0)
        metals = ((15, 14, 14), (60, 40, 25), (150, 120, 60), (160, 160, 165), (120, 30, 35), (30, 40, 80))
        colour[raster.METAL_COLOUR] = linear(metals[rng.integers(len(metals))]) if rng.random() < 0.8 else linear(rng.integers(10, 230, 3))
        return colour

    def _attributes(self) -> np.ndarray:
        """Of the mesh's own vertices, as `raster.shade` reads them: [v, 4]."""
        pack, rng = self.studio.pack, self.rng
        mesh, resting = pack.mesh, pack.mesh.vertices
        out = np.zeros((len(resting), 4), np.float32)
        out[:, :2] = pack.cylinder
        out[:, 2] = 0.25 + 0.75 * pack.openness
        collar, slope, v_neck = rng.uniform(5.3, 5.85), rng.uniform(0.05, 0.25), rng.uniform(0, 1.2) * (rng.random() < 0.5)
        out[:, 3] = collar + slope * abs(resting[:, 0]) + 0.25 * (resting[:, 2] < 0) - resting[:, 1]
        out[:, 3] -= v_neck * 0.35 * np.exp(-((resting[:, 0] / 0.3) ** 2)) * (resting[:, 2] > 0)
        of_vertex = np.full(len(resting), SKIN)
        of_vertex[mesh.triangles.ravel()] = np.repeat(mesh.material, 3)
        for side, centre in zip("lr", mesh.eye_centres, strict=True):
            eye = mesh.groups[f"helper-{side}-eye"]
            out[eye, :3] = (resting[eye] - centre) / 0.14
        inside = np.isin(of_vertex, (TEETH, TONGUE, MOUTH))
        out[inside, 0] = resting[inside, 0]
        out[inside, 2] = 0.03 + 0.6 * smooth_step(resting[inside, 2], 0.85, 1.55) ** 2
        for name, sign in (("upper", 1), ("lower", -1)):
            teeth = mesh.groups[f"helper-{name}-teeth"]
            height = sign * resting[teeth, 1]
            out[teeth, 1] = (height - height.min()) / np.ptp(height)  # 0 at the biting edge, 1 in the gum
            out[teeth, 2] += 0.2 if sign > 0 else 0.08
        out[of_vertex == SOCKET, 2] *= 0.5
        out[of_vertex == SOCKET, 3] = -1
        return out

    def _set_points(self) -> None:
        pack = self.studio.pack
        corners, weights = pack.point_corners.copy(), pack.point_weights.copy()
        row = int(abs(BROW_HEIGHTS - self.colouring.brow_lift - 0.03).argmin())
        corners[17:22], weights[17:22] = pack.brow_corners[0, row, ::-1], pack.brow_weights[0, row, ::-1]
        corners[22:27], weights[22:27] = pack.brow_corners[1, row], pack.brow_weights[1, row]
        self.point_corners, self.point_weights = corners, weights


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return about_y @ about_x @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
