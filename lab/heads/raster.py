"""The rasteriser: normals, a z-buffer with barycentrics, rays and shading, in numba. One thread; knows triangles and no people.

Drawn at twice the size and averaged. Hair is alpha tested against strand noise and a hash of the subpixel, so its edges are soft.
"""

import numpy as np
from numba import njit, prange

from .mesh import CLOTH, EYE, HAIR, HAT, LASH, METAL, MOUTH, SKIN, SOCKET, TEETH, TONGUE

# Rows of the colour table that `shade` reads; what is not a colour stands in the row's three numbers.
IRIS, SCLERA, HAIR_COLOUR, CLOTH_COLOUR, INSIDE, ENAMEL, CLOTH_PATTERN = range(7)
CLOTH_STRIPE, METAL_COLOUR, HAT_COLOUR, IRIS_RIM, HAIR_TIPS, EYE_FORM = range(7, 13)
# CLOTH_PATTERN: hair gloss, cloth noise, stripes a unit.  EYE_FORM: pupil radius, iris radius, iris streaks.
NUM_COLOURS = 13
TONES = 1024  # of the table that turns light 0..4 into display brightness


@njit(fastmath=True, cache=True)
def normals(vertices, triangles, out):
    """Smooth vertex normals into `out` [v, 3]."""
    out[:] = 0
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        wx, wy, wz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        x, y, z = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for v in (a, b, c):
            out[v, 0] += x
            out[v, 1] += y
            out[v, 2] += z
    for v in range(len(out)):
        scale = 1 / (np.sqrt(out[v, 0] ** 2 + out[v, 1] ** 2 + out[v, 2] ** 2) + 1e-9)
        out[v, 0] *= scale
        out[v, 1] *= scale
        out[v, 2] *= scale


@njit(fastmath=True, cache=True)
def rasterise(screen, triangles, material, attributes, strand, near, nearest, where):
    """Nearest triangle and its perspective barycentrics for every pixel.

    `screen` [v, 3]: x, y, 1 / depth. Out: `near` [h, w] 1 / depth, `nearest` [h, w] triangle or -1, `where` [h, w, 2]. Of hair,
    `attributes` hold: place across and along the strands, how much is left to its tip, which layer 0..1."""
    height, width = near.shape
    near[:] = 0
    nearest[:] = -1
    strand_h, strand_w = strand.shape
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, x1, y1, x2, y2 = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        m = material[t]
        if area == 0 or (area > 0 and m != HAIR and m != LASH and m != METAL and m != HAT):
            continue
        left, right = max(int(np.ceil(min(x0, x1, x2))), 0), min(int(max(x0, x1, x2)), width - 1)
        top, bottom = max(int(np.ceil(min(y0, y1, y2))), 0), min(int(max(y0, y1, y2)), height - 1)
        if right < left or bottom < top:
            continue
        inverse = 1 / area
        dp, dq = (y1 - y2) * inverse, (y2 - y0) * inverse
        z0, z1, z2 = screen[a, 2], screen[b, 2], screen[c, 2]
        for y in range(top, bottom + 1):
            p0 = ((x1 - left) * (y2 - y) - (x2 - left) * (y1 - y)) * inverse
            q0 = ((x2 - left) * (y0 - y) - (x0 - left) * (y2 - y)) * inverse
            for x in range(left, right + 1):
                p, q = p0 + (x - left) * dp, q0 + (x - left) * dq
                r = 1 - p - q
                if p < 0 or q < 0 or r < 0:
                    continue
                z = p * z0 + q * z1 + r * z2
                if z <= near[y, x]:
                    continue
                p *= z0 / z
                q *= z1 / z
                r *= z2 / z
                if m == HAIR:
                    u = p * attributes[a, 0] + q * attributes[b, 0] + r * attributes[c, 0]
                    v = p * attributes[a, 1] + q * attributes[b, 1] + r * attributes[c, 1]
                    left_over = p * attributes[a, 2] + q * attributes[b, 2] + r * attributes[c, 2]
                    layer = p * attributes[a, 3] + q * attributes[b, 3] + r * attributes[c, 3]
                    grain = strand[int(v * strand_h) % strand_h, int(u * strand_w) % strand_w]
                    dither = ((x * 7 + y * 13 + (x * y) % 11) % 17) / 17.0
                    if left_over < 0.2 * grain + 0.05 * dither - 0.03 or grain < 0.42 * layer + 0.12 * dither - 0.1:
                        continue
                near[y, x] = z
                nearest[y, x] = t
                where[y, x, 0] = p
                where[y, x, 1] = q


@njit(fastmath=True, cache=True)
def shade(
    nearest, where, triangles, material, attributes, normal, place, skin, strand,
    background, light, colour, tone, depth, depth_place, softness,
):  # fmt: skip
    """Light what `rasterise` found: [h / 2, w / 2, 3] display brightness 0..255.

    `attributes` [v, 4]: of skin and cloth place in the texture, openness 0..1, how far below the collar; of eyes the direction from
    the eyeball's middle; of teeth x, height, openness; of hair as in `rasterise`. `light` [6, 3]: direction and colour of two lamps,
    light from above and from below. `depth` [k, k] is what the first lamp sees and `depth_place` [v, 3] where vertices lie in that;
    `softness` 0..1 fills its shadows."""
    height, width = nearest.shape
    texture_h, texture_w = skin.shape[0], skin.shape[1]
    strand_h, strand_w = strand.shape
    made = np.zeros((height // 2, width // 2, 3), np.float32)
    own, lit = np.zeros(3, np.float32), np.zeros(3, np.float32)
    for y in range(height):
        for x in range(width):
            t = nearest[y, x]
            if t < 0:
                for k in range(3):
                    made[y // 2, x // 2, k] += tone[int(min(background[y // 2, x // 2, k], 3.99) * TONES)]
                continue
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            p, q = where[y, x, 0], where[y, x, 1]
            r = 1 - p - q
            m = material[t]
            nx = p * normal[a, 0] + q * normal[b, 0] + r * normal[c, 0]
            ny = p * normal[a, 1] + q * normal[b, 1] + r * normal[c, 1]
            nz = p * normal[a, 2] + q * normal[b, 2] + r * normal[c, 2]
            if nz < 0 and (m == HAIR or m == METAL or m == HAT):
                nx, ny, nz = -nx, -ny, -nz
            scale = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-9)
            nx *= scale
            ny *= scale
            nz *= scale
            a0 = p * attributes[a, 0] + q * attributes[b, 0] + r * attributes[c, 0]
            a1 = p * attributes[a, 1] + q * attributes[b, 1] + r * attributes[c, 1]
            a2 = p * attributes[a, 2] + q * attributes[b, 2] + r * attributes[c, 2]
            a3 = p * attributes[a, 3] + q * attributes[b, 3] + r * attributes[c, 3]
            vx = -(p * place[a, 0] + q * place[b, 0] + r * place[c, 0])
            vy = -(p * place[a, 1] + q * place[b, 1] + r * place[c, 1])
            vz = -(p * place[a, 2] + q * place[b, 2] + r * place[c, 2])
            scale = 1 / np.sqrt(vx * vx + vy * vy + vz * vz)
            vx *= scale
            vy *= scale
            vz *= scale
            shine, openness, under, sharp = 0.0, a2, 0.0, 4  # under: light that comes back out of the skin
            if m == SKIN or m == SOCKET:
                if m == SKIN and a3 > 0:
                    m = CLOTH
                u0, u1, u2 = attributes[a, 0], attributes[b, 0], attributes[c, 0]
                if max(u0, u1, u2) - min(u0, u1, u2) > 0.5:  # the texture's seam at the back
                    a0 = p * (u0 + (u0 < 0.5)) + q * (u1 + (u1 < 0.5)) + r * (u2 + (u2 < 0.5))
                fx, fy = a0 * texture_w - 0.5, min(max(a1 * texture_h - 0.5, 0.0), texture_h - 2.0)
                ix, iy = int(np.floor(fx)), int(fy)
                fx -= ix
                fy -= iy
                i0, i1 = ix % texture_w, (ix + 1) % texture_w
                for k in range(3):
                    above = skin[iy, i0, k] * (1 - fx) + skin[iy, i1, k] * fx
                    below = skin[iy + 1, i0, k] * (1 - fx) + skin[iy + 1, i1, k] * fx
                    own[k] = above * (1 - fy) + below * fy
                shine, under = skin[iy, i0, 3], 1.0
            if m == CLOTH:
                noise = colour[CLOTH_PATTERN, 1]
                weave = 0.75 + 0.5 * strand[int(a1 * 5 * strand_h) % strand_h, int(a0 * 3 * strand_w) % strand_w] * noise - 0.25 * noise
                shine, under = 0.02, 0.0
                openness *= 0.6 + 0.4 * min(a3 * 8, 1.0)
                is_stripe = colour[CLOTH_PATTERN, 2] > 0 and int(a1 * colour[CLOTH_PATTERN, 2]) % 2 == 0
                for k in range(3):
                    own[k] = colour[CLOTH_STRIPE if is_stripe else CLOTH_COLOUR, k] * weave
            elif m == EYE:
                around = np.arctan2(a1, a0)
                off = np.sqrt(a0 * a0 + a1 * a1)
                scale = 1 / (np.sqrt(off * off + a2 * a2) + 1e-6)
                off *= scale
                openness, shine, sharp = 0.9 - 0.45 * min(max(a1 * scale * 2.6, 0.0), 1.0), 0.7, 8
                rim = colour[EYE_FORM, 1]
                in_iris = min(max((rim - off) * 12, 0.0), 1.0)
                in_pupil = min(max((colour[EYE_FORM, 0] - off) * 14, 0.0), 1.0)
                streak = 1 + colour[EYE_FORM, 2] * np.sin(around * 9 + 3 * np.sin(around * 5 + 1)) * np.sin(around * 23)
                inward = min(max((rim - 0.04 - off) * 5, 0.0), 1.0)
                for k in range(3):
                    white = colour[SCLERA, k] * (1 - 0.35 * min(max(abs(a0 * scale) - 0.35, 0.0) * 2, 1.0))
                    iris = (colour[IRIS_RIM, k] * (1 - inward) + colour[IRIS, k] * inward) * (0.55 + 0.9 * inward) * streak
                    own[k] = (white * (1 - in_iris) + iris * in_iris) * (1 - in_pupil) + 0.004 * in_pupil
                if a2 < 0:
                    openness = 0.2
            elif m == MOUTH or m == TONGUE:
                shine = 0.3 * a2
                for k in range(3):
                    own[k] = colour[INSIDE, k] * (1.3 if m == TONGUE else 0.8)
            elif m == TEETH:
                shine = 0.35
                across = abs(a0)
                tooth = (across / 0.085 if across < 0.17 else 2 + (across - 0.17) / 0.068) % 1.0
                gap = min(min(tooth, 1 - tooth) * 9, 1.0)
                gum = min(max((abs(a1) - 0.62) * 8, 0.0), 1.0)
                for k in range(3):
                    own[k] = colour[ENAMEL, k] * (0.62 + 0.38 * gap) * (1 - gum) + colour[INSIDE, k] * 1.4 * gum
            elif m == LASH:
                openness = 1.0
                for k in range(3):
                    own[k] = colour[HAIR_COLOUR, k] * 0.12
            elif m == METAL:
                shine, sharp, openness = 0.8, 6, 1.0
                for k in range(3):
                    own[k] = colour[METAL_COLOUR, k]
            elif m == HAT:
                weave = strand[int(a1 * 3 * strand_h) % strand_h, int(a0 * 5 * strand_w) % strand_w]
                openness = 0.85
                for k in range(3):
                    own[k] = colour[HAT_COLOUR, k] * (0.8 + 0.35 * weave)
            elif m == HAIR:
                grain = strand[int(a1 * strand_h) % strand_h, int(a0 * strand_w) % strand_w]
                lock = strand[int(a1 * 0.5 * strand_h) % strand_h, int(a0 * 0.37 * strand_w) % strand_w]
                openness = 0.55 + 0.45 * a3
                tips = min(max(1 - a2 * 0.8, 0.0), 1.0)
                nx += 0.6 * (lock - 0.5)
                for k in range(3):
                    root = colour[HAIR_COLOUR, k]
                    own[k] = (root + (colour[HAIR_TIPS, k] - root) * tips) * (0.45 + 0.7 * grain) * (0.7 + 0.6 * lock)

            # how much of the first lamp arrives: four neighbours of its depth image, blended
            facing = max(nx * light[0, 0] + ny * light[0, 1] + nz * light[0, 2], 0.0)
            sx = p * depth_place[a, 0] + q * depth_place[b, 0] + r * depth_place[c, 0] - 0.5
            sy = p * depth_place[a, 1] + q * depth_place[b, 1] + r * depth_place[c, 1] - 0.5
            sd = p * depth_place[a, 2] + q * depth_place[b, 2] + r * depth_place[c, 2] + (0.09 if m == HAIR else 0.03 + 0.07 * (1 - facing))
            ix, iy, last = int(sx), int(sy), len(depth) - 2
            arrives = 1.0
            if 0 <= ix <= last and 0 <= iy <= last:
                fx, fy = sx - ix, sy - iy
                upper = (depth[iy, ix] <= sd) * (1 - fx) + (depth[iy, ix + 1] <= sd) * fx
                lower = (depth[iy + 1, ix] <= sd) * (1 - fx) + (depth[iy + 1, ix + 1] <= sd) * fx
                arrives = upper * (1 - fy) + lower * fy
            if m == EYE or m == TEETH:
                arrives = 0.45 + 0.55 * arrives
            arrives = softness + (1 - softness) * arrives

            for k in range(3):
                lit[k] = 0
            edge = max(nx * vx + ny * vy + nz * vz, 0.0)
            for lamp in range(2):
                lx, ly, lz = light[2 * lamp, 0], light[2 * lamp, 1], light[2 * lamp, 2]
                towards = nx * lx + ny * ly + nz * lz
                hx, hy, hz = lx + vx, ly + vy, lz + vz
                scale = 1 / np.sqrt(hx * hx + hy * hy + hz * hz + 1e-9)
                share = arrives if lamp == 0 else 1.0
                if m == HAIR:  # a strand is a thin rod: Kajiya-Kay
                    tx, ty, tz = nx * ny, -1 + ny * ny, nz * ny
                    along = (tx * hx + ty * hy + tz * hz) * scale / np.sqrt(tx * tx + ty * ty + tz * tz + 1e-6)
                    spot = max(1 - along * along, 0.0) ** 8 * 0.5 * colour[CLOTH_PATTERN, 0] * grain * max(towards + 0.3, 0.0)
                    for k in range(3):
                        glint = spot * (0.04 + 0.5 * colour[HAIR_COLOUR, k])
                        lit[k] += share * light[2 * lamp + 1, k] * (own[k] * max(towards * 0.75 + 0.25, 0.0) + glint)
                    continue
                spot = max((nx * hx + ny * hy + nz * hz) * scale, 0.0)
                for _ in range(sharp):
                    spot *= spot
                spot *= shine * (0.35 + 0.65 * (1 - edge) ** 3) * (towards > 0) * (1.0 if sharp == 4 else 3.0)
                for k in range(3):
                    wrap = under * (0.28 if k == 0 else 0.12 if k == 1 else 0.06)  # red light goes deepest
                    diffuse = max((towards + wrap) / (1 + wrap), 0.0)
                    through = share + (1 - share) * wrap * 0.5
                    lit[k] += through * light[2 * lamp + 1, k] * (own[k] * diffuse * (0.4 + 0.6 * openness) + spot * openness)
            up = 0.5 + 0.5 * ny
            for k in range(3):
                ambient = (light[4, k] * up + light[5, k] * (1 - up)) * own[k] * openness
                made[y // 2, x // 2, k] += tone[int(min(max(lit[k] + ambient, 0.0), 3.99) * TONES)]
    return made * 0.25


@njit(fastmath=True, cache=True)
def ray(origin, direction, vertices, triangles, far):
    """The nearest triangle that a ray meets, or -1: (triangle, p, q, distance); the hit is (1-p-q) a + p b + q c."""
    best, best_p, best_q, best_far = -1, 0.0, 0.0, far
    for t in range(len(triangles)):
        a = vertices[triangles[t, 0]]
        e, f = vertices[triangles[t, 1]] - a, vertices[triangles[t, 2]] - a
        hx = direction[1] * f[2] - direction[2] * f[1]
        hy = direction[2] * f[0] - direction[0] * f[2]
        hz = direction[0] * f[1] - direction[1] * f[0]
        det = e[0] * hx + e[1] * hy + e[2] * hz
        if abs(det) < 1e-12:
            continue
        sx, sy, sz = origin[0] - a[0], origin[1] - a[1], origin[2] - a[2]
        p = (sx * hx + sy * hy + sz * hz) / det
        if p < 0 or p > 1:
            continue
        gx, gy, gz = sy * e[2] - sz * e[1], sz * e[0] - sx * e[2], sx * e[1] - sy * e[0]
        q = (direction[0] * gx + direction[1] * gy + direction[2] * gz) / det
        if q < 0 or p + q > 1:
            continue
        distance = (f[0] * gx + f[1] * gy + f[2] * gz) / det
        if 1e-3 < distance < best_far:
            best, best_p, best_q, best_far = t, p, q, distance
    return best, best_p, best_q, best_far


@njit(fastmath=True, cache=True, parallel=True)
def occlusion(vertices, normal, triangles, directions, far):
    """How open every vertex is, 0..1, by rays up to `far`."""
    out = np.zeros(len(vertices), np.float32)
    for i in prange(len(vertices)):
        seen = total = 0.0
        offset = vertices[triangles[:, 0]] - vertices[i]
        close = triangles[(offset[:, 0] ** 2 + offset[:, 1] ** 2 + offset[:, 2] ** 2) < (far + 0.25) ** 2]
        for direction in directions:
            cosine = direction[0] * normal[i, 0] + direction[1] * normal[i, 1] + direction[2] * normal[i, 2]
            if cosine <= 0:
                continue
            total += cosine
            hit, _, _, distance = ray(vertices[i] + normal[i] * np.float32(0.012), direction, vertices, close, far)
            seen += cosine if hit < 0 else cosine * (distance / far) * 0.8
        out[i] = seen / (total + 1e-6)
    return out
