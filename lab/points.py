"""The points that every world labels on a face: OpenPose's seventy, and ten more. Right and left are the person's own."""

FACE_POINTS = 70  # jaw 17 from the right ear, brows 5 + 5, bridge 4, nostrils 5, eyes 6 + 6, outer lips 12, inner lips 8, pupils
FURTHER_POINTS = (
    "right_ear", "left_ear", "neck", "right_shoulder", "left_shoulder", "forehead", "crown", "chin", "upper_teeth", "lower_teeth",
)  # fmt: skip
POINTS = [f"face_{k}" for k in range(FACE_POINTS - 2)] + ["right_eye", "left_eye", *FURTHER_POINTS]
PARTS = ("background", "skin", "eye", "mouth inside", "hair", "cloth", "worn")  # what a pixel of a part map shows
# Where every point lies in a mirrored image.
_PAIRS = [(k, 16 - k) for k in range(8)] + [(17 + k, 26 - k) for k in range(5)] + [(31, 35), (32, 34)]
_PAIRS += [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
_PAIRS += [(48, 54), (49, 53), (50, 52), (59, 55), (58, 56), (60, 64), (61, 63), (67, 65), (68, 69), (70, 71), (73, 74)]


def mirrored() -> list[int]:
    """Point k of a mirrored image is point `mirrored()[k]` of the image."""
    order = list(range(len(POINTS)))
    for a, b in _PAIRS:
        order[a], order[b] = b, a
    return order
