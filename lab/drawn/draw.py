"""Draws a character of a style, frame after frame, with all labels: polygons at three times the size, averaged.

A head is an ellipsoid as in kf_core/conditioning/head.py: what lies on its front slides over it when it turns. Units: the head's half
height; x to the viewer's right, y down.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from ..framing import TIGHT, Framing
from ..heads.motion import Performance
from .style import ANIMALS, Colour, Style

OVER = 3
BACKGROUND, SKIN, EYE, INSIDE, HAIR, CLOTH, WORN = range(7)


class Sheet:
    """One frame while it is drawn: the image, and beside it the part map."""

    def __init__(self, size: int, style: Style) -> None:
        self.side, self.style = size * OVER, style
        self.image = Image.new("RGB", (self.side, self.side), style.background)
        self.parts = Image.new("L", (self.side, self.side), BACKGROUND)
        self.line = max(1, round(style.line_width * size * OVER * 0.4)) if style.rendering != "flat" else 0

    def fill(self, points: np.ndarray, colour: Colour, part: int | None, outline: bool = True) -> None:
        """A closed shape of pixels [n, 2] of the frame."""
        corners = [tuple(point) for point in points * OVER]
        ImageDraw.Draw(self.image).polygon(corners, fill=colour)
        if part is not None:
            ImageDraw.Draw(self.parts).polygon(corners, fill=part)
        if outline and self.line:
            ImageDraw.Draw(self.image).line([*corners, *corners[:2]], fill=self.style.line, width=self.line, joint="curve")

    def stroke(self, points: np.ndarray, colour: Colour, width: float, part: int | None = None) -> None:
        """An open line, `width` in pixels of the frame."""
        corners, width = [tuple(point) for point in points * OVER], max(1, round(width * OVER))
        ImageDraw.Draw(self.image).line(corners, fill=colour, width=width, joint="curve")
        if part is not None:
            ImageDraw.Draw(self.parts).line(corners, fill=part, width=width)

    def darken(self, points: np.ndarray, moved: np.ndarray, colour: Colour) -> None:
        """Shade what lies in the first shape but not in the second."""
        masks = []
        for shape in (points, moved):
            mask = Image.new("L", self.image.size)
            ImageDraw.Draw(mask).polygon([tuple(point) for point in shape * OVER], fill=110)
            masks.append(mask)
        self.image.paste(Image.new("RGB", self.image.size, colour), mask=ImageChops.subtract(*masks))

    def finish(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The frame [h, w, 3] and its part map [h, w]."""
        size = self.side // OVER
        frame = np.asarray(self.image.resize((size, size), Image.Resampling.BOX), np.float32)
        if self.style.paper:
            frame = frame + np.random.default_rng(7).standard_normal((size, size, 1)) * 255 * self.style.paper
        return frame.clip(0, 255).astype(np.uint8), np.asarray(self.parts)[OVER // 2 :: OVER, OVER // 2 :: OVER].copy()


class Character:
    """Somebody drawn; `render` draws a performance."""

    def __init__(
        self, style: Style, rng: np.random.Generator, framing: Framing = TIGHT, scale: float = 1.0, shift=(0.0, 0.0), roll: float = 0.0
    ):
        self.style, self.rng, self.framing = style, rng, framing
        self.scale, self.shift, self.roll = scale, shift, roll
        self.moved = np.zeros(2)  # how far turning takes the first frame's eyes, of the image's side
        self.hair_waves = rng.uniform(0.5, 1.5, 3)
        self.spots = rng.uniform(-1, 1, (14, 2)) * [0.45, 0.16] + [0, 0.25]

    def render(self, performance: Performance, size: int = 128) -> dict[str, np.ndarray]:
        """`frames` [f, h, w, 3] uint8, `points` [f, points, 2], `parts` [f, h, w] uint8, `tracks` [f, tracks].

        The first frame's eyes lie where the framing has them, as in a portrait that was cut by its eyes."""
        self._aim({name: values[0] for name, values in vars(performance).items()}, size)
        middle = np.array([[0, self.style.eye_y]])
        self.moved = (self._on(middle) - self._place(middle))[0] / size
        made = [self._frame({name: values[i] for name, values in vars(performance).items()}, size) for i in range(len(performance.yaw))]
        frames, points, parts = (np.stack(values) for values in zip(*made, strict=True))
        return {"frames": frames, "points": points.astype(np.float32), "parts": parts, "tracks": performance.table()}

    # --- from the head's frame to pixels

    def _aim(self, now: dict[str, float], size: int) -> None:
        self.now, self.size = now, size
        self.unit = self.framing.eye_distance * self.scale * size / (2 * self.style.eye_x)

    def _place(self, points: np.ndarray) -> np.ndarray:
        """Points of the image plane, in the head's units about its resting middle -> pixels."""
        angle = self.roll
        turned = points - [0, self.style.eye_y]
        turned = turned @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        middle = np.array([0.5 + self.shift[0], self.framing.eye_line + self.shift[1]]) * self.size
        return middle + turned * self.unit + (np.array([self.now["shift_x"], self.now["shift_y"]]) - self.moved) * self.size

    def _tip(self, points: np.ndarray) -> np.ndarray:
        """The head tips about a point above the neck and leans the way it turns."""
        angle, pivot = self.now["roll"], np.array([0, 0.9])
        turned = (points + [0.06 * np.sin(self.now["yaw"]), 0] - pivot) @ np.array(
            [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        )
        return self._place(turned + pivot)

    def _on(self, points: Sequence, lift: float = 1.0) -> np.ndarray:
        """Points on the face's front [n, 2] -> pixels; `lift` > 1 stands off it, as a nose."""
        points, yaw, pitch = np.asarray(points, float), self.now["yaw"], self.now["pitch"]
        x, y = points[:, 0], points[:, 1]
        z = self.style.depth * lift * np.sqrt(np.maximum(1 - (x / self.style.width) ** 2 - y**2, 0.06))
        return self._tip(np.stack([x * np.cos(yaw) + z * np.sin(yaw), y * np.cos(pitch) + z * np.sin(pitch)], 1))

    def _outline(self, grow: float = 1.0, start: float = 0.0, end: float = 2 * np.pi, count: int = 60) -> np.ndarray:
        """Of the head, in its own units, from the viewer's left (pi) over the chin for angles growing: [n, 2]."""
        angle = np.linspace(start, end, count)

        def power(wave):
            return np.sign(wave) * abs(wave) ** (2 / self.style.squareness)

        x, y = power(np.cos(angle)), power(np.sin(angle))
        narrow = 1 - self.style.jaw * 0.45 * np.maximum(y, 0) ** 1.5
        return np.stack([x * self.style.width * narrow, y], 1) * grow

    # --- the drawing

    def _frame(self, now: dict[str, float], size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self._aim(now, size)
        sheet = Sheet(size, self.style)
        self._backdrop(sheet)
        self._hair_behind(sheet)
        self._body(sheet)
        self._ears(sheet)
        head = self._tip(self._outline())
        sheet.fill(head, self.style.skin, SKIN)
        if self.style.rendering == "shaded":
            shadow = tuple(int(value * 0.45) for value in self.style.skin)
            sheet.darken(head, head + np.array([self.style.shade_side * 0.28, -0.12]) * self.unit, shadow)
        self._details(sheet)
        eyes = [self._eye(sheet, side) for side in (-1, 1)]
        self._nose(sheet)
        outer, inner = self._mouth(sheet)
        brows = [self._brow(sheet, side) for side in (-1, 1)]
        self._hair_before(sheet)
        if self.style.glasses:
            for side in (-1, 1):
                ring = self._circle(
                    side * self.style.eye_x, self.style.eye_y, max(self.style.eye_w * 1.5, 0.24), max(self.style.eye_h * 1.4, 0.22)
                )
                sheet.stroke(np.concatenate([ring, ring[:2]]), self.style.line, 0.03 * self.unit, WORN)
        frame, parts = sheet.finish(self.rng)
        return frame, self._points(eyes, brows, outer, inner), parts

    def _backdrop(self, sheet: Sheet) -> None:
        style, size = self.style, self.size

        def square(left, top, right, bottom):
            return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float) * size

        if style.backdrop == "halves":
            sheet.fill(square(0, 0.5, 1, 1), style.background_2, None, outline=False)
        elif style.backdrop == "stripes":
            for k in range(0, 10, 2):
                sheet.fill(square(k / 10, 0, (k + 1) / 10, 1), style.background_2, None, outline=False)
        elif style.backdrop == "disc":
            turn = np.linspace(0, 2 * np.pi, 60)
            sheet.fill((0.5 + 0.42 * np.stack([np.cos(turn), np.sin(turn)], 1)) * size, style.background_2, None, outline=False)
        elif style.backdrop == "gradient":
            for k in range(24):
                share = k / 23
                mixed = tuple(int(a + (b - a) * share) for a, b in zip(style.background, style.background_2, strict=True))
                sheet.fill(square(0, k / 24, 1, (k + 1) / 24), mixed, None, outline=False)

    def _body(self, sheet: Sheet) -> None:
        style = self.style
        neck = 0.36 * style.width
        sheet.fill(self._place(np.array([[-neck, 0.6], [neck, 0.6], [neck * 1.1, 1.5], [-neck * 1.1, 1.5]])), style.skin_2, SKIN)
        x = np.linspace(-1.5, 1.5, 31)
        top = 1.28 + 0.25 * abs(x) ** 2.2 - 0.12 * np.exp(-((x / 0.35) ** 2)) * -1
        shoulders = np.concatenate([np.stack([x, top], 1), [[1.6, 3], [-1.6, 3]]])
        sheet.fill(self._place(shoulders), style.cloth, CLOTH)

    def _ears(self, sheet: Sheet) -> None:
        style, size = self.style, self.style.ear_size
        for side in (-1, 1):
            if style.kind == "cat":
                ear = np.array([[0.28, -0.85], [0.5, -0.95 - size], [0.85, -0.42]]) * [side * style.width, 1]
            elif style.kind == "rabbit":
                ear = self._ring(side * 0.4 * style.width, -0.95 - size, 0.16, size * 1.3)
            elif style.kind == "bear":
                ear = self._ring(side * 0.75 * style.width, -0.75, size * 0.8, size * 0.8)
            else:
                ear = self._ring(
                    side * style.width * 0.98 - 0.25 * np.sin(self.now["yaw"]) * style.depth, style.eye_y + 0.12, size * 0.7, size
                )
            sheet.fill(self._tip(ear), style.skin if style.kind != "robot" else style.skin_2, SKIN)

    def _details(self, sheet: Sheet) -> None:
        style = self.style

        def mix(colour, share):
            return tuple(int(a + (b - a) * share) for a, b in zip(style.skin, colour, strict=True))

        if style.kind in ANIMALS:
            sheet.fill(self._circle(0, style.mouth_y - 0.05, 0.36 * style.width, 0.3), style.skin_2, SKIN, outline=False)
        if style.blush:
            for side in (-1, 1):
                sheet.fill(
                    self._circle(side * style.eye_x * 1.35, style.eye_y + 0.36, 0.13, 0.09), mix((230, 90, 90), 0.4), SKIN, outline=False
                )
        if style.freckles:
            for x, y in self.spots:
                sheet.fill(self._circle(x, y, 0.018, 0.018), mix((110, 50, 20), 0.6), SKIN, outline=False)

    def _eye(self, sheet: Sheet, side: int) -> np.ndarray:
        """One eye; `side` -1 is the viewer's left, the person's right. Returns 7 pixels: six of the rim, from the viewer's left
        corner over the top, and the pupil."""
        style, now = self.style, self.now
        shut = float(now["blink_right" if side < 0 else "blink_left"])
        shut = max(shut, 0.35 * max(now["smile"], 0.0) * (style.eyes in ("dot", "line")))
        x, y, w, h = side * style.eye_x, style.eye_y, style.eye_w, style.eye_h
        gaze = np.array([now["gaze_x"] * 0.45 * w, now["gaze_y"] * 0.4 * h])
        open_h = h * (1 - shut)
        width = max(self.style.line_width * self.unit, 0.8)
        lid_y = y + 0.35 * h * shut
        if shut > 0.8 or style.eyes == "line":
            bow = np.linspace(-1, 1, 9)
            sheet.stroke(
                self._on(np.stack([x + w * bow, lid_y + 0.25 * h * (1 - bow**2) * (1 if style.eyes != "line" else -1)], 1)),
                style.line,
                1.3 * width,
                EYE,
            )
        elif style.eyes in ("dot", "oval"):
            sheet.fill(self._circle(x + 0.3 * gaze[0], lid_y + 0.3 * gaze[1], w, max(open_h, 0.02)), style.line, EYE, outline=False)
            if style.eyes == "oval" and open_h > 0.08:
                sheet.fill(
                    self._circle(x + 0.3 * gaze[0] + 0.3 * w, lid_y - 0.4 * open_h, 0.25 * w, 0.2 * open_h),
                    (250, 250, 250),
                    EYE,
                    outline=False,
                )
        else:
            rim = self._ring(x, lid_y, w, open_h, style.squareness if style.kind == "robot" else 2.2)
            sheet.fill(self._on(rim), (250, 249, 245), EYE)
            iris_r = h * (0.78 if style.eyes == "anime" else 0.62)
            iris = self._ring(x + gaze[0], y + gaze[1], min(iris_r, w * 0.85), iris_r)
            for radius, colour in ((1.0, style.iris), (style.pupil, (15, 12, 14))):
                grown = (iris - [x + gaze[0], y + gaze[1]]) * radius + [x + gaze[0], y + gaze[1]]
                sheet.fill(self._on(self._inside(grown, x, lid_y, w, open_h)), colour, EYE, outline=False)
            glint = self._ring(x + gaze[0] + 0.25 * w, y + gaze[1] - 0.3 * h, 0.16 * h, 0.2 * h)
            sheet.fill(self._on(self._inside(glint, x, lid_y, w, open_h)), (252, 252, 252), EYE, outline=False)
            upper = rim[(rim[:, 1] <= lid_y + 1e-9)]
            upper = upper[upper[:, 0].argsort()]
            sheet.stroke(self._on(upper), style.line, (2.2 if style.eyes == "anime" else 1.2) * width)
        rim_x = np.array([-1.0, -0.35, 0.35, 1.0, 0.35, -0.35])
        rim_y = np.array([0.0, -0.93, -0.93, 0.0, 0.93, 0.93])
        return self._on(np.concatenate([np.stack([x + w * rim_x, lid_y + open_h * rim_y], 1), [[x + gaze[0], y + gaze[1]]]]))

    def _brow(self, sheet: Sheet, side: int) -> np.ndarray:
        """One brow; returns 5 pixels from the viewer's left."""
        style, raised = self.style, self.now["brow"]
        t = np.linspace(-1, 1, 5)
        inner = -t * side  # 1 at the nose
        y = style.eye_y - style.eye_h - style.brow_y - 0.1 * raised - 0.05 * (1 - t**2) + 0.1 * max(-raised, 0) * inner
        line = self._on(np.stack([side * style.eye_x + style.brow_w * t, y], 1))
        if style.kind != "robot":
            sheet.stroke(line, style.hair if style.kind not in ANIMALS else style.line, style.brow_thick * self.unit)
        return line

    def _nose(self, sheet: Sheet) -> None:
        style, y, r = self.style, self.style.nose_y, self.style.nose_size
        width = max(style.line_width * self.unit, 0.8)
        if style.nose == "dot":
            sheet.fill(self._circle(0, y, r * 0.5, r * 0.4, 1.15), style.line, SKIN, outline=False)
        elif style.nose == "oval":
            sheet.fill(self._circle(0, y, r * 1.3, r, 1.15), style.skin_2, SKIN)
        elif style.nose == "triangle":
            sheet.fill(self._on([[-r, y - r], [r, y - r], [0, y + 0.6 * r]], 1.15), style.lips, SKIN)
        elif style.nose in ("line", "hook"):
            path = [[0, y - 2.5 * r], [style.shade_side * r, y], [-0.3 * r * style.shade_side, y + 0.2 * r]]
            sheet.stroke(self._on(path[: 3 if style.nose == "hook" else 2], 1.15), style.line, width)

    def _mouth(self, sheet: Sheet) -> tuple[np.ndarray, np.ndarray]:
        """The mouth; returns the pixels of the outer lips [12] and of the inner [8], from the viewer's left corner over the top."""
        style, now = self.style, self.now
        opened, wide, smile = float(now["open"]) * style.mouth_gap, now["wide"], now["smile"]
        half = style.mouth_w * (1 + 0.3 * max(wide, 0) - 0.5 * max(-wide, 0)) * (1 + 0.15 * max(smile, 0))
        roundness = 6 if style.kind == "robot" else 2

        def curve(t):
            return style.mouth_y + 0.16 * smile * (0.6 - np.asarray(t) ** 2)

        def bow(t):
            return 1 - abs(np.asarray(t)) ** roundness

        def upper(t, more=0.0):
            return curve(t) - (0.25 * opened + more) * bow(t)

        def lower(t, more=0.0):
            return curve(t) + (0.75 * opened + more) * bow(t)

        t = np.linspace(-1, 1, 15)

        def line(ys, ts=t):
            return np.stack([half * np.asarray(ts), ys], 1)

        width = max(style.line_width * self.unit, 0.8)
        lip = 0.05 if style.mouth == "lips" else 0.02
        if style.mouth == "lips":
            whole = np.concatenate([line(upper(t, lip)), line(lower(t, 1.3 * lip))[::-1]])
            sheet.fill(self._on(whole), style.lips, SKIN, outline=False)
        if opened > 0.02:
            hole = np.concatenate([line(upper(t)), line(lower(t))[::-1]])
            sheet.fill(self._on(hole), (70, 22, 28) if style.kind != "robot" else (25, 25, 30), INSIDE, outline=style.mouth != "lips")
            if style.mouth in ("teeth", "wedge") and opened > 0.06:
                teeth = np.concatenate([line(upper(t)), line(np.minimum(upper(t) + 0.07, lower(t)))[::-1]]) * [0.94, 1]
                sheet.fill(self._on(teeth), (248, 246, 238), INSIDE, outline=False)
            if style.mouth in ("wedge", "lips") and opened > 0.1:
                tongue = np.concatenate([line(np.maximum(lower(t) - 0.06, upper(t))), line(lower(t))[::-1]]) * [0.75, 1]
                sheet.fill(self._on(tongue), (205, 95, 100), INSIDE, outline=False)
        else:
            sheet.stroke(self._on(line(curve(t))), style.line, 1.3 * width, SKIN)
        if now["bite"] > 0.3:
            teeth = np.concatenate([line(curve(t) - 0.01), line(curve(t) + 0.06 * now["bite"])[::-1]]) * [0.5, 1]
            sheet.fill(self._on(teeth), (248, 246, 238), INSIDE)

        def ring(count):
            return np.pi - 2 * np.pi * np.arange(count) / count

        def along(angle, more):
            return np.stack([half * np.cos(angle), np.where(np.sin(angle) >= 0, upper(np.cos(angle), more), lower(np.cos(angle), more))], 1)

        return self._on(along(ring(12), lip)), self._on(along(ring(8), 0.0))

    def _hair_behind(self, sheet: Sheet) -> None:
        style = self.style
        if style.hair_cut in ("long", "curls"):
            volume = style.hair_volume + 0.08
            down = 1.7 if style.hair_cut == "long" else 0.7
            top = self._outline(1 + volume, np.pi, 2 * np.pi, 30)
            sides = np.array([[style.width + volume, down], [-style.width - volume, down]])
            sheet.fill(self._tip(np.concatenate([top, sides])), style.hair, HAIR)
        elif style.hair_cut == "bun":
            sheet.fill(self._tip(self._ring(0, -1.15, 0.32, 0.28)), style.hair, HAIR)

    def _hair_before(self, sheet: Sheet) -> None:
        """The cap of hair above the fringe's line."""
        style = self.style
        if style.hair_cut == "none":
            return
        crown = self._outline(1 + 0.35 * style.hair_volume + 0.02, np.pi + 0.15, 2 * np.pi - 0.15, 40)
        if style.hair_cut == "spikes":
            crown = crown * (1 + 0.16 * (np.arange(len(crown)) % 4 < 2))[:, None]
        elif style.hair_cut == "curls":
            crown = crown * (1.04 + 0.06 * np.sin(np.arange(len(crown)) * 1.9))[:, None]
        t = np.linspace(1, -1, 21)
        edge = style.fringe + (0.05 if style.hair_cut != "fringe" else 0.0) * np.sin(t * 9 * self.hair_waves[0])
        if style.hair_cut == "side":
            edge = style.fringe + 0.25 * style.shade_side * t * self.hair_waves[1]
        elif style.hair_cut == "fringe":
            edge = style.fringe + 0.06 * (np.arange(21) % 2)
        edge = edge - 0.14 * (1 - t**2) * (style.hair_cut in ("cap", "long", "bun"))
        reach = np.sqrt(np.maximum(1 - edge**2, 0.1))
        front = self._on(np.stack([t * style.width * reach * 0.98, edge], 1))
        sheet.fill(np.concatenate([self._tip(crown), front]), style.hair, HAIR)

    def _points(self, eyes, brows, outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
        """In the order of lab/points.py: [POINTS, 2]."""
        style = self.style
        jaw = self._tip(self._outline(1.0, np.radians(190), np.radians(-10), 17))
        bridge = self._on([[0, style.eye_y + (style.nose_y - style.eye_y) * share] for share in (0.1, 0.35, 0.6, 0.85)], 1.1)
        nostrils = self._on([[x * style.nose_size, style.nose_y + 0.02] for x in (-1, -0.5, 0, 0.5, 1)], 1.1)
        lids = np.concatenate([eyes[0][:6], eyes[1][:6]])
        pupils = np.stack([eyes[0][6], eyes[1][6]])
        ears = self._tip(np.array([[-style.width, style.eye_y + 0.12], [style.width, style.eye_y + 0.12]]))
        body = self._place(np.array([[0, 1.35], [-1.15, 1.6], [1.15, 1.6]]))
        further = np.concatenate([self._on([[0, -0.6]]), self._tip(np.array([[0, -1.0]])), jaw[8:9], inner[2:3], inner[6:7]])
        return np.concatenate([jaw, *brows, bridge, nostrils, lids, outer, inner, pupils, ears, body, further])

    def _ring(self, x: float, y: float, w: float, h: float, power: float = 2.0) -> np.ndarray:
        turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)

        def bend(wave):
            return np.sign(wave) * abs(wave) ** (2 / power)

        return np.stack([x + w * bend(np.cos(turn)), y + h * bend(np.sin(turn))], 1)

    def _circle(self, x: float, y: float, w: float, h: float, lift: float = 1.0) -> np.ndarray:
        return self._on(self._ring(x, y, w, h), lift)

    @staticmethod
    def _inside(points: np.ndarray, x: float, y: float, w: float, h: float) -> np.ndarray:
        """Points drawn into an ellipse: what would stick out lies on its rim."""
        across = ((points[:, 0] - x) / w).clip(-0.98, 0.98)
        reach = h * np.sqrt(1 - across**2)
        return np.stack([x + w * across, points[:, 1].clip(y - reach, y + reach)], 1)
