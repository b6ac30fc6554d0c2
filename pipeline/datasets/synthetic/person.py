"""A dressed, articulated person: skeleton, quadric body parts, and an exact orthographic rasteriser.

Axes everywhere: x right, y down, z away from the viewer. At yaw 0 the person faces the viewer, so the
person's left is +x and the front is -z. Lengths are fractions of the stature; angles are degrees.

Every part is a quadric of revolution x² + z² = α + βy + γy² cut to a range of y, under an affine map into the
frame of one rigid bone: frusta, barrels, ellipsoids and their caps. A ray along z meets it in closed form.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from pipeline.anatomy.labels import TORSO_SKIN, Lip
from pipeline.core.schema import JOINTS

BONES = (
    "pelvis", "chest", "head", "r_arm", "r_forearm", "r_hand", "l_arm", "l_forearm", "l_hand",
    "r_thigh", "r_shin", "r_foot", "l_thigh", "l_shin", "l_foot", "skirt",
)  # fmt: skip
PELVIS, CHEST, HEAD, SKIRT = 0, 1, 2, 15
ARM, LEG = (3, 6), (9, 12)  # first bone of the right and the left chain of three
SIDES = (-1.0, 1.0)  # sign of x of the right and the left side

# Materials of an identity, by index.
SKIN, HAIR, TOP, BOTTOM, OUTER, SHOE, HAT, SCARF, GLOVE, SOCK, GLASSES = range(11)
PLAIN, STRIPES, PINSTRIPES, CHECKS, DOTS, LOGO = range(6)
ONE_PIECE = (Lip.DRESS, Lip.JUMPSUITS)  # garments of torso and legs in one paint

LIMITS = {  # joint limits in degrees, one range per angle of each Pose field
    "spine": ((-20, 55), (-25, 25), (-35, 35)),
    "neck": ((-35, 40), (-25, 25), (-65, 65)),
    "arm": ((-10, 175), (-45, 160), (-90, 95), (0, 148), (-40, 60)),
    "leg": ((-12, 45), (-25, 110), (-25, 40), (0, 135), (-35, 20)),
}


@dataclass(frozen=True)
class Pose:
    """Joint angles in degrees, clipped to LIMITS. Sides are right, then left."""

    tilt: float  # pelvis, forwards
    spine: tuple[float, float, float]  # forwards, sideways, twist
    neck: tuple[float, float, float]  # nod, sideways, turn
    arms: tuple[tuple[float, ...], tuple[float, ...]]  # abduct, raise forwards, rotate inwards, elbow, wrist
    legs: tuple[tuple[float, ...], tuple[float, ...]]  # abduct, raise forwards, rotate outwards, knee, ankle


@dataclass(frozen=True)
class Material:
    """Paint of a surface: base colour, pattern in a second colour (RGB in 0..255), its period in statures."""

    base: tuple[float, float, float]
    pattern: int = PLAIN
    second: tuple[float, float, float] = (0.0, 0.0, 0.0)
    period: float = 0.04


@dataclass(frozen=True)
class Identity:
    """Proportions, hair, garments and paints of one person."""

    girth: float  # thickness of limbs and torso, 1 is average
    shoulder: float  # half the distance of the shoulder joints
    hip: float  # half the distance of the hip joints
    waist: float  # half width of the waist
    bust: float  # radius, 0 for none
    leg: float  # leg length factor
    head: float  # head size factor
    hair: str  # buzz, short, bob, long, bun, tail
    top: Lip  # what the torso wears: upper-clothes, dress, coat or jumpsuits
    bottom: Lip  # what is worn below: dress, pants, jumpsuits or skirt
    sleeve: float  # covered part of the arm: 0 none, 1 to the elbow, 2 to the wrist
    trouser: float  # covered part of the leg, as for the sleeve
    skirt: float  # length of the skirt, dress or coat below the hip in thigh lengths, 0 for none
    flare: float  # widening of the skirt at its hem
    opening: float  # half width of the open front of a coat, 0 when closed
    neckline: float  # depth of the V of the neckline
    loose: float  # air between garment and body
    hem: float  # length of the shirt worn over the trousers, 0 when tucked in
    hat: str  # "", beanie, brim, cap
    sunglasses: bool
    scarf: bool
    gloves: bool
    socks: float  # height, as a part of the shin
    shoes: str  # "", low, boot
    materials: tuple[Material, ...]


@dataclass(frozen=True, eq=False)
class Body:
    """The P parts of a dressed identity; does not depend on the pose.

    bone (P,); local (P, 3, 4): part to bone; profile (P, 3): α, β, γ; span (P, 2): range of y; label (P,):
    of lip-cihp-21; material (P,); strip (P, 4): where z < 0 and |x| < strip[0] + strip[1] * y in the bone frame, the
    front shows label strip[2] and material strip[3] instead.
    """

    bone: np.ndarray
    local: np.ndarray
    profile: np.ndarray
    span: np.ndarray
    label: np.ndarray
    material: np.ndarray
    strip: np.ndarray


def sizes(who: Identity) -> dict[str, float]:
    """Bone lengths in statures."""
    thigh, shin = 0.245 * who.leg, 0.235 * who.leg
    size = {"thigh": thigh, "shin": shin, "waist": 0.10, "chest": 0.43 - 0.24 * who.leg, "neck": 0.052}
    return size | {"arm": 0.165, "forearm": 0.145, "head": 0.060 * who.head}


def rotation(axis: int, degrees: float) -> np.ndarray:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn = np.eye(3)
    turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
    return turn


def bones(who: Identity, pose: Pose) -> np.ndarray:
    """Bone frames (16, 3, 4) float64, bone to body; the body frame has its origin between the hip joints."""
    size = sizes(who)
    out = np.zeros((len(BONES), 3, 4))

    def place(bone, parent, offset, *turns):
        turn = functools.reduce(np.matmul, turns, out[parent, :, :3])
        out[bone, :, :3] = turn
        out[bone, :, 3] = out[parent, :, :3] @ offset + out[parent, :, 3]

    out[PELVIS, :, :3] = rotation(0, pose.tilt)
    forwards, sideways, twist = pose.spine
    turns = rotation(1, twist), rotation(2, sideways), rotation(0, forwards)
    place(CHEST, PELVIS, (0, -size["waist"], 0), *turns)
    nod, sideways, turn = pose.neck
    turns = rotation(1, turn), rotation(2, sideways), rotation(0, nod)
    place(HEAD, CHEST, (0, -size["chest"] - size["neck"], -0.012), *turns)
    out[HEAD, :, 3] += out[HEAD, :, :3] @ (0, -size["head"], -0.008)
    for side, arm, leg, arm_angles, leg_angles in zip(SIDES, ARM, LEG, pose.arms, pose.legs, strict=True):
        abduct, flex, inwards, elbow, wrist = arm_angles
        turns = rotation(2, -side * abduct), rotation(0, -flex), rotation(1, side * inwards)
        # The shoulder rises with the arm, as the collar bone does.
        lift = 0.03 * max(0.0, max(abduct, flex) - 60) / 100
        place(arm, CHEST, (side * (who.shoulder - lift / 2), -size["chest"] - lift, 0), *turns)
        place(arm + 1, arm, (0, size["arm"], 0), rotation(0, -elbow))
        place(arm + 2, arm + 1, (0, size["forearm"], 0), rotation(0, -wrist))
        abduct, flex, outwards, knee, ankle = leg_angles
        turns = rotation(2, -side * abduct), rotation(0, -flex), rotation(1, -side * outwards)
        place(leg, PELVIS, (side * who.hip, 0, 0), *turns)
        place(leg + 1, leg, (0, size["thigh"], 0), rotation(0, knee))
        place(leg + 2, leg + 1, (0, size["shin"], 0), rotation(0, ankle))
    # A skirt hangs from the hips along the mean direction of the thighs.
    down = out[LEG[0], :, 1] + out[LEG[1], :, 1]
    down /= math.sqrt(down @ down)
    across = out[PELVIS, :, 0] - (out[PELVIS, :, 0] @ down) * down
    across /= math.sqrt(across @ across)
    out[SKIRT, :, :3] = np.stack([across, down, np.cross(across, down)], axis=1)
    out[SKIRT, :, 3] = out[PELVIS, :, 3]
    return out


def skeleton(who: Identity) -> tuple[np.ndarray, np.ndarray]:
    """The 18 OpenPose joints: their bones (18,) and places in the bone frames (18, 3)."""
    size, head = sizes(who), who.head
    bone = np.array([HEAD, CHEST, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, HEAD, HEAD, HEAD, HEAD])
    place = np.zeros((JOINTS, 3))
    place[1] = 0, -size["chest"], 0
    place[0] = 0, 0.010 * head, -0.058 * head
    place[14:16] = [(side * 0.018 * head, -0.008 * head, -0.042 * head) for side in SIDES]
    place[16:18] = [(side * 0.047 * head, 0.002 * head, 0.004 * head) for side in SIDES]
    return bone, place


class _Tailor:
    """Collects parts."""

    def __init__(self):
        self.rows = []

    def add(self, bone, columns, profile, span, label, material, strip=(0, 0, 0, 0)):
        self.rows.append((bone, np.stack(columns, axis=1), profile, span, label, material, strip))

    def cone(self, bone, top, end, radii, label, material, flat=1.0, strip=(0, 0, 0, 0)):
        """Between two points, with horizontal sections of half width r and half depth flat * r.

        Two radii make a frustum; with three, of the top, the middle and the end, the outline is curved.
        """
        top, end = np.asarray(top, float), np.asarray(end, float)
        columns = np.array([1.0, 0, 0]), end - top, np.array([0, 0, float(flat)]), top
        r0, r1 = radii[0], radii[-1]
        middle = radii[1] if len(radii) == 3 else (r0 + r1) / 2
        bend = 2 * (r0 * r0 + r1 * r1) - 4 * middle * middle
        profile = r0 * r0, r1 * r1 - r0 * r0 - bend, bend
        self.add(bone, columns, profile, (0.0, 1.0), label, material, strip)

    def ball(self, bone, centre, radii, label, material, tilt=0.0, cut=1.0, strip=(0, 0, 0, 0)):
        """Ellipsoid, tilted about x; of its height only y <= cut in units of the radius (1 is all)."""
        turn = rotation(0, tilt) * np.asarray(radii, float)
        columns = turn[:, 0], turn[:, 1], turn[:, 2], np.asarray(centre, float)
        self.add(bone, columns, (1.0, 0.0, -1.0), (-1.0, cut), label, material, strip)

    def limb(self, bone, lengths, radii, skin, cover, label, material, loose):
        """Two segments, each with the radii of its top, middle and end; the first `cover` of them are clothed."""
        for k, (length, r) in enumerate(zip(lengths, radii, strict=True)):
            t = min(max(cover - k, 0.0), 1.0)
            air, dress = (loose, (label, material)) if t > 0 else (0.0, (skin, SKIN))
            self.ball(bone + k, (0, 0, 0), (r[0] + air,) * 3, *dress)
            if t < 1:
                self.cone(bone + k, (0, 0, 0), (0, length, 0), r, skin, SKIN)
            if t > 0:
                bend = 2 * (r[0] - 2 * r[1] + r[2])
                sleeve = [r[0] + air + u * (r[2] - r[0] - bend) + u * u * bend for u in (0, t / 2, t)]
                self.cone(bone + k, (0, 0, 0), (0, t * length, 0), sleeve, *dress)


@functools.lru_cache(maxsize=512)
def dress(who: Identity) -> Body:
    """The dressed body of one identity."""
    tailor = _Tailor()
    _torso(tailor, who)
    _head(tailor, who)
    for side, arm, skin in zip(SIDES, ARM, (Lip.RIGHT_ARM, Lip.LEFT_ARM), strict=True):
        _arm(tailor, who, side, arm, skin)
    for leg, skin, shoe in zip(LEG, (Lip.RIGHT_LEG, Lip.LEFT_LEG), (Lip.RIGHT_SHOE, Lip.LEFT_SHOE), strict=True):
        _leg(tailor, who, leg, skin, shoe)
    columns = list(zip(*tailor.rows, strict=True))
    bone, local, profile, span, label, material, strip = (np.array(column) for column in columns)
    return Body(bone, local, profile, span, label, material, strip)


def _torso(tailor: _Tailor, who: Identity):
    size, top, paint = sizes(who), who.top, OUTER if who.top is Lip.COAT else TOP
    neck, g, w, sh, hip = -size["chest"], who.girth, who.waist, who.shoulder, who.hip + 0.044 * who.girth
    air = who.loose
    chest = 0.097 * (0.5 + 0.5 * g) * (0.4 + 0.6 * sh / 0.1)
    opening = (who.opening, 0.08, Lip.UPPER_CLOTHES, TOP) if who.opening else (0, 0, 0, 0)
    # A V that closes `neckline` below the shoulder line.
    vee = (0.7 * (neck + 0.012 + who.neckline), -0.7, TORSO_SKIN, SKIN) if who.neckline else (0, 0, 0, 0)
    front = opening if who.opening else vee
    dress = top, paint
    torso = w + air, chest + air, sh - 0.004 + air
    tailor.ball(CHEST, (0, 0.03, 0), (w + air, 0.05, 0.68 * (w + air)), *dress, strip=front)
    tailor.cone(CHEST, (0, 0.04, 0), (0, neck - 0.010, 0.002), torso, *dress, 0.68, front)
    slope = sh - 0.004 + air, 0.060 + 0.5 * air, 0.028
    tailor.cone(CHEST, (0, neck - 0.009, 0.002), (0, neck - 0.046, 0.002), slope, *dress, 0.68, front)
    if who.bust:
        for side in SIDES:
            radii = np.array((1.2, 1.2, 1.3)) * who.bust
            tailor.ball(CHEST, (side * 0.036, -0.100, -0.032 * g), radii, *dress, strip=front)
    tailor.cone(CHEST, (0, neck + 0.03, 0), (0, neck - 0.07, -0.010), (0.031 * g, 0.028 * g), TORSO_SKIN, SKIN)
    coat = top is Lip.COAT
    if coat:
        tailor.cone(CHEST, (0, neck + 0.004, 0.004), (0, neck - 0.046, 0.006), (0.052, 0.040), *dress, 0.95, front)
    if who.scarf:
        tailor.ball(CHEST, (0, neck - 0.022, -0.004), (0.056 * g, 0.026, 0.050 * g), Lip.SCARF, SCARF)
        tailor.ball(CHEST, (0, neck - 0.002, -0.006), (0.064 * g, 0.022, 0.056 * g), Lip.SCARF, SCARF)
        z = -0.060 * g - air
        tailor.cone(
            CHEST, (0.024, neck, z + 0.005), (0.030, neck + 0.13, z - 0.012), (0.017, 0.021), Lip.SCARF, SCARF, 0.5
        )

    # Below the waist.
    lower = (top, OUTER) if coat else (who.bottom, TOP if who.bottom in ONE_PIECE else BOTTOM)
    front = (who.opening, 0.08, who.bottom, BOTTOM) if coat and who.opening else (0, 0, 0, 0)
    out = air if coat else 0.0
    seat = w + 0.003 + out, hip - 0.006 + out, hip + out
    tailor.cone(PELVIS, (0, -0.125, 0), (0, 0.0, 0.006), seat, *lower, 0.74, front)
    tailor.ball(PELVIS, (0, 0.0, 0.008), (hip + out, 0.070, 0.068 * g + out), *lower, strip=front)
    if who.hem and top is Lip.UPPER_CLOTHES:
        tailor.cone(
            PELVIS,
            (0, -0.12, 0),
            (0, who.hem - 0.1, 0.006),
            (w + 0.006 + air, hip - 0.004 + air, hip + 0.006 + air),
            top,
            TOP,
            0.76,
        )
    if who.skirt:
        length = who.skirt * size["thigh"]
        wide = hip + who.flare
        tailor.cone(SKIRT, (0, -0.03, 0.004), (0, length, 0.004), (hip - 0.003 + out, wide), *lower, 0.75, front)
        part = min(length, size["thigh"])
        for side, leg in zip(SIDES, LEG, strict=True):
            r = 0.058 * g + 1.5 * out
            r1 = r - 0.012 + 0.5 * who.flare
            tailor.ball(leg, (0, 0, 0), (r,) * 3, *lower)
            tailor.cone(leg, (-side * 0.005, 0, 0), (-side * 0.005, part, 0), (r, r1), *lower)


def _head(tailor: _Tailor, who: Identity):
    k = who.head

    def ball(centre, radii, label, material, tilt=0.0, cut=1.0):
        tailor.ball(HEAD, np.multiply(centre, k), np.multiply(radii, k), label, material, tilt, cut)

    def cone(top, end, radii, label, material, flat=1.0):
        tailor.cone(HEAD, np.multiply(top, k), np.multiply(end, k), np.multiply(radii, k), label, material, flat)

    ball((0, -0.012, 0.006), (0.046, 0.055, 0.057), Lip.FACE, SKIN)
    ball((0, 0.018, -0.012), (0.038, 0.050, 0.044), Lip.FACE, SKIN)
    ball((0, 0.010, -0.058), (0.007, 0.012, 0.009), Lip.FACE, SKIN)
    for side in SIDES:
        ball((side * 0.046, 0.002, 0.004), (0.006, 0.013, 0.009), Lip.FACE, SKIN)
    thick = 0.001 if who.hair == "buzz" else 0.006
    ball((0, -0.014, 0.010), (0.046 + thick, 0.056 + thick, 0.056 + thick), Lip.HAIR, HAIR, -40, 0.22)
    if who.hair in ("bob", "long"):
        end = 0.058 if who.hair == "bob" else 0.135
        cone((0, -0.02, 0.020), (0, end, 0.034), (0.051, 0.052), Lip.HAIR, HAIR, 0.75)
        for side in SIDES:
            cone((side * 0.041, -0.035, 0.004), (side * 0.044, end, 0.004), (0.012, 0.016), Lip.HAIR, HAIR)
    elif who.hair == "bun":
        ball((0, -0.062, 0.050), (0.026, 0.026, 0.026), Lip.HAIR, HAIR)
    elif who.hair == "tail":
        ball((0, -0.028, 0.072), (0.016, 0.018, 0.016), Lip.HAIR, HAIR)
        cone((0, -0.025, 0.075), (0, 0.110, 0.080), (0.017, 0.008), Lip.HAIR, HAIR)
    if who.hat:
        tilt, cut = (-18, 0.05) if who.hat == "beanie" else (-8, -0.15)
        ball((0, -0.018, 0.008), (0.056, 0.064, 0.065), Lip.HAT, HAT, tilt, cut)
    if who.hat == "brim":
        ball((0, -0.030, 0.006), (0.096, 0.008, 0.100), Lip.HAT, HAT, -4)
        cone((0, -0.030, 0.006), (0, -0.088, 0.006), (0.056, 0.046), Lip.HAT, HAT, 1.12)
        ball((0, -0.086, 0.006), (0.046, 0.010, 0.051), Lip.HAT, HAT)
    elif who.hat == "cap":
        ball((0, -0.034, -0.058), (0.042, 0.007, 0.048), Lip.HAT, HAT, 10)
    if who.sunglasses:
        for side in SIDES:
            ball((side * 0.019, -0.007, -0.050), (0.0185, 0.0145, 0.013), Lip.SUNGLASSES, GLASSES)
            ball((side * 0.046, -0.010, -0.020), (0.004, 0.005, 0.034), Lip.SUNGLASSES, GLASSES)
        ball((0, -0.010, -0.054), (0.014, 0.004, 0.010), Lip.SUNGLASSES, GLASSES)


def _arm(tailor: _Tailor, who: Identity, side: float, arm: int, skin: int):
    size, g = sizes(who), who.girth
    paint = OUTER if who.top is Lip.COAT else TOP
    radii = np.array([(0.0265, 0.0295, 0.024), (0.024, 0.0245, 0.017)]) * g
    lengths = size["arm"], size["forearm"]
    tailor.limb(arm, lengths, radii, skin, who.sleeve, who.top, paint, 0.7 * who.loose + 0.002)
    cap = (who.top, paint) if who.sleeve else (skin, SKIN)
    deltoid = 0.033 * g + 0.5 * who.loose
    tailor.ball(arm, (-side * 0.008, 0.016, 0), (deltoid, 0.036 * g, deltoid), *cap)
    hand = (Lip.GLOVE, GLOVE) if who.gloves else (skin, SKIN)
    t = 1.15 if who.gloves else 1.0
    tailor.ball(arm + 2, (0, 0.030, 0), (0.012 * t, 0.038, 0.022 * t), *hand)
    tailor.ball(arm + 2, (0, 0.062, 0.001), (0.010 * t, 0.030, 0.018 * t), *hand)
    tailor.ball(arm + 2, (-side * 0.004, 0.034, -0.020), (0.008 * t, 0.024, 0.008 * t), *hand, tilt=-25)
    tailor.ball(arm + 2, (0, 0, 0), (0.017 * g,) * 3, *hand)
    if who.gloves:
        tailor.cone(arm + 1, (0, size["forearm"] - 0.030, 0), (0, size["forearm"], 0), (0.025 * g, 0.022 * g), *hand)


def _leg(tailor: _Tailor, who: Identity, leg: int, skin: int, shoe: int):
    size, g = sizes(who), who.girth
    label, paint = who.bottom, TOP if who.bottom in ONE_PIECE else BOTTOM
    radii = np.array([(0.054, 0.052, 0.040), (0.039, 0.038, 0.022)]) * g
    shin = size["shin"]
    cover = max(who.trouser, min(0.6 * who.skirt, 0.8))  # no bare hips under a skirt
    tailor.limb(leg, (size["thigh"], shin), radii, skin, cover, label, paint, 0.6 * who.loose)
    if who.trouser < 1.6:
        tailor.ball(leg + 1, (0, 0.080, 0.010), (0.036 * g, 0.065, 0.036 * g), skin, SKIN)
    foot = (shoe, SHOE) if who.shoes else (skin, SKIN)
    if who.socks:
        high = (1 - who.socks) * shin
        r = (0.039 + 0.012 * (1 - who.socks) - 0.029 * (1 - who.socks) ** 2) * g + 0.005
        tailor.cone(leg + 1, (0, high, 0), (0, shin, 0), (r, 0.6 * r + 0.011 * g, 0.026 * g), Lip.SOCKS, SOCK)
        if who.socks > 0.6:
            tailor.ball(leg + 1, (0, 0.086, 0.010), (0.038 * g, 0.065, 0.039 * g), Lip.SOCKS, SOCK)
        tailor.ball(leg + 2, (0, 0, 0), (0.028 * g,) * 3, Lip.SOCKS, SOCK)
    if who.shoes == "boot":
        high = 0.55 * shin
        tailor.cone(leg + 1, (0, high, 0), (0, shin, 0), (0.039 * g, 0.033 * g), *foot)
    tailor.ball(leg + 2, (0, 0, 0), (0.025 * g,) * 3, *((Lip.SOCKS, SOCK) if who.socks else foot))
    tailor.ball(leg + 2, (0, 0.020, -0.030), (0.025, 0.024, 0.052), *foot, tilt=6)
    tailor.ball(leg + 2, (0.0, 0.025, -0.068), (0.029, 0.017, 0.040), *foot)
    tailor.ball(leg + 2, (0, 0.014, 0.010), (0.026, 0.029, 0.030), *foot)


def raster(parts: np.ndarray, shape: Body, start: float, step: float, size: tuple[int, int]):
    """Nearest part and depth seen at the points (start + step * column, start + step * row).

    parts (P, 3, 4) maps part coordinates to image x, y and depth. Returns (part int16 (h, w), -1 where nothing
    is hit; depth float64 (h, w), infinite there). Intersections are closed form, exact up to float64 rounding.
    """
    height, width = size
    depth = np.full(size, np.inf)
    index = np.full(size, -1, np.int16)
    inverse = np.linalg.inv(parts[:, :, :3])
    ox, oy, d = inverse[:, :, 0], inverse[:, :, 1], inverse[:, :, 2]
    alpha, beta, gamma = shape.profile.T
    form = np.stack([np.ones_like(gamma), -gamma, np.ones_like(gamma)], axis=1)
    a = (form * d * d).sum(1)
    a = np.where(np.abs(a) < 1e-9, 1e-9, a)
    # Roots are m ± sqrt(e): m is linear and e quadratic in x and y, both relative to the part's origin.
    mx, my, m0 = -(form * ox * d).sum(1) / a, -(form * oy * d).sum(1) / a, beta / 2 * d[:, 1] / a
    exx = mx * mx - (form * ox * ox).sum(1) / a
    eyy = my * my - (form * oy * oy).sum(1) / a
    exy = 2 * mx * my - 2 * (form * ox * oy).sum(1) / a
    ex, ey = 2 * m0 * mx + beta * ox[:, 1] / a, 2 * m0 * my + beta * oy[:, 1] / a
    e0 = m0 * m0 + alpha / a
    low, high = bounds(parts, shape)
    low = np.maximum(np.floor((low - start) / step), 0).astype(int)
    high = np.minimum(np.ceil((high - start) / step) + 1, (width, height)).astype(int)
    whole = (shape.span[:, 0] < 0) & (shape.span[:, 1] >= 1)  # ellipsoids
    for k in range(len(parts)):
        (c0, r0), (c1, r1) = low[k], high[k]
        if c0 >= c1 or r0 >= r1:
            continue
        x = start + step * np.arange(c0, c1) - parts[k, 0, 3]
        y = (start + step * np.arange(r0, r1) - parts[k, 1, 3])[:, None]
        e = (exy[k] * y) * x
        e += (e0[k] + ex[k] * x) + exx[k] * x * x
        e += ey[k] * y + eyy[k] * y * y
        hit = e > 0
        root = np.sqrt(np.maximum(e, 0, out=e), out=e)
        middle = (m0[k] + mx[k] * x) + my[k] * y
        window = (slice(r0, r1), slice(c0, c1))
        near, seen = depth[window], index[window]
        z = middle - root
        if whole[k]:
            roots = [(z, hit)]
        else:
            along = ox[k, 1] * x + oy[k, 1] * y
            lo, hi = shape.span[k]
            t = along + d[k, 1] * z
            first = hit & (t >= lo) & (t <= hi)
            far = middle + root
            t = along + d[k, 1] * far
            # The far root is the inside of an open part.
            roots = [(z, first), (far, hit & (t >= lo) & (t <= hi))]
        for z, hit in roots:
            z += parts[k, 2, 3]
            hit = hit & (z < near)
            np.copyto(near, z, where=hit)
            np.copyto(seen, np.int16(k), where=hit)
    return index, depth


def bounds(parts: np.ndarray, shape: Body) -> tuple[np.ndarray, np.ndarray]:
    """Bounding boxes of the parts in the image, low and high (x, y), each (P, 2); safe, and nearly tight."""
    alpha, beta, gamma = shape.profile.T
    low, high = shape.span.T
    with np.errstate(divide="ignore", invalid="ignore"):
        widest = np.where(gamma < 0, np.clip(-beta / (2 * gamma), low, high), low)
    radius = np.sqrt(np.max([alpha + beta * y + gamma * y * y for y in (low, high, widest)], axis=0))[:, None]
    side = radius * np.hypot(parts[:, :2, 0], parts[:, :2, 2])
    tips = parts[:, :2, 1, None] * shape.span[:, None, :]
    ball = (shape.span[:, 0] < 0)[:, None]
    bound = np.where(ball, np.sqrt((parts[:, :2, :3] ** 2).sum(2)), np.inf)
    low, high = np.maximum(tips.min(2) - side, -bound), np.minimum(tips.max(2) + side, bound)
    return low + parts[:, :2, 3], high + parts[:, :2, 3]


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Affine maps (..., 3, 4): inner first, then outer."""
    out = outer[..., :3] @ inner
    out[..., 3] += outer[..., 3]
    return out
