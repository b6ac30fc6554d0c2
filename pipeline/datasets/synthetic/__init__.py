"""The built-in data set: our own renderings of dressed, articulated people, with exact truth.

Everything follows from (seed, person, view), to the byte. Joints, parsing and surface points are taken at the
pixel centres (integer coordinates), not from the antialiased image. Bodies are made in person.py.
"""

import colorsys
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pipeline.anatomy import labels
from pipeline.anatomy.labels import Lip
from pipeline.core.errors import UserError
from pipeline.core.schema import JOINTS
from pipeline.datasets.synthetic import person as body
from pipeline.datasets.synthetic.person import Identity, Material, Pose

NAME = "synthetic"
SPLITS = {"train": 1, "test": 5001}  # the first person of each split; a split has at most 4999
VIEWS = 40_000
CAMERAS, SEQUENCES, FRAMES = 6, 6, 25
TOLERANCE = 1.5  # pixels of depth


@dataclass(frozen=True)
class Camera:
    """Orthographic: a body point p is seen at the image centre + height * (scale * roll pitch yaw p + shift)."""

    yaw: float  # degrees; 0 faces the viewer, 90 turns the person's left towards the viewer
    pitch: float  # degrees, positive looks down
    roll: float
    scale: float  # one stature in image heights
    shift: tuple[float, float]  # image heights


@dataclass(frozen=True)
class Light:
    towards: tuple[float, float, float]  # unit vector towards the light
    ambient: float
    diffuse: float
    tint: tuple[float, float, float]


@dataclass(frozen=True)
class Background:
    kind: str
    noise: int  # seed of its texture
    horizon: float  # image heights from the top
    colours: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Scene:
    """Everything that determines one image."""

    seed: int
    person: int
    view: int
    identity: Identity
    pose: Pose
    camera: Camera
    light: Light
    background: Background


@dataclass(frozen=True, eq=False)
class Rendering:
    """One image of size (H, W) and its truth, all at the pixel centres."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    labels: np.ndarray  # (H, W) uint8 of lip-cihp-21
    joints: np.ndarray  # (18, 2) float32 (x, y) in pixels, NaN where not in the image
    occluded: np.ndarray  # (18,) bool: hidden by the person's own body or clothes; False outside the image
    part: np.ndarray  # (H, W) int8 rigid bone, -1 on the background
    surface: np.ndarray  # (H, W, 3) float32 point of the surface in the frame of its bone, in statures
    depth: np.ndarray  # (H, W) float32 pixels away from the viewer, infinite on the background
    bones: np.ndarray  # (16, 3, 4) float64: bone frame to pixel x, y and depth
    identity: Identity

    @property
    def parsing(self) -> np.ndarray:
        """The labels (H, W) uint8 in LIP-20."""
        return labels.relabel(self.labels, labels.TO_LIP20[labels.EVERY])


def scenes(seed: int, split: str, identities: int, views: int, plain: Collection[str] = ()) -> list[Scene]:
    """All scenes of a split, person by person. Persons of "train" and "test" are disjoint.

    plain: "background" puts the same people, in the same poses and light, into one garden, "clothes" takes off what
    they wear whatever one view shows and another hides, or what only a few pixels tell: stripes, checks, dots and
    prints, gloves and scarves; coats are closed and shoes dark. Raises UserError for an unknown split or more persons
    or views than there are names for.
    """
    if split not in SPLITS:
        raise UserError(f"synthetic: split '{split}' is unknown; use one of {', '.join(SPLITS)}")
    if not 0 < identities < 5000 or not 0 < views <= VIEWS:
        raise UserError(f"synthetic: {identities} identities with {views} views; at most 4999 and {VIEWS}")
    first = SPLITS[split]
    found = [_scene(seed, first + person, view) for person in range(identities) for view in range(views)]
    if "background" in plain:
        found = [replace(scene, background=GARDEN) for scene in found]
    if "clothes" in plain:
        found = [replace(scene, identity=_in_plain_clothes(scene.identity)) for scene in found]
    return found


def name(scene: Scene) -> str:
    """File name in Market-1501's pattern, unique over the set: person, camera, sequence, frame."""
    camera, sequence = scene.view % CAMERAS + 1, scene.view // CAMERAS % SEQUENCES + 1
    frame = FRAMES * scene.view + 7 * scene.person % FRAMES
    return f"{scene.person:04d}_c{camera}s{sequence}_{frame:06d}_00.png"


def _random(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _scene(seed: int, person: int, view: int) -> Scene:
    who = _identity(seed, person)
    rng = _random(seed, 2, person, view)
    pose = _pose(rng)
    camera = _camera(rng, who, pose)
    number = view % CAMERAS
    light, background = _light(rng, seed, number), _background(rng, seed, number)
    return Scene(seed, person, view, who, pose, camera, light, background)


# Who: proportions and clothes.

SKINS = ((244, 212, 188), (232, 190, 160), (214, 166, 130), (184, 132, 96), (140, 94, 66), (94, 62, 46))
HAIRS = (
    (28, 24, 24), (54, 38, 28), (92, 62, 38), (140, 96, 52), (206, 170, 104), (150, 146, 142), (122, 52, 30),
)  # fmt: skip
DARK_SHOES = Material((38.0, 34.0, 34.0))
HATS = ("beanie", "cap", "brim")


class Outfit(NamedTuple):
    """The garments of `Identity`, each length as a range to draw from."""

    top: Lip
    bottom: Lip
    sleeve: tuple[float, float]
    trouser: tuple[float, float]
    skirt: tuple[float, float]
    hem: float
    women: bool = False  # worn by women only
    bare_legs: str = ""  # may show: "socks", or are in "boots"


OUTFITS = {
    "T-shirt and trousers": Outfit(Lip.UPPER_CLOTHES, Lip.PANTS, (0.4, 0.6), (1.85, 1.95), (0, 0), 0.09),
    "shirt and skirt": Outfit(Lip.UPPER_CLOTHES, Lip.SKIRT, (0.4, 2.0), (0, 0), (0.6, 1.2), 0.0, True, "boots"),
    "coat over trousers": Outfit(Lip.COAT, Lip.PANTS, (1.9, 1.95), (1.85, 1.95), (0.3, 0.9), 0.0),
    "dress": Outfit(Lip.DRESS, Lip.DRESS, (0.0, 0.7), (0, 0), (0.7, 1.35), 0.0, True, "socks"),
    "T-shirt and shorts": Outfit(Lip.UPPER_CLOTHES, Lip.PANTS, (0.3, 0.6), (0.6, 0.95), (0, 0), 0.1, False, "socks"),
    "jumpsuit": Outfit(Lip.JUMPSUITS, Lip.JUMPSUITS, (0.4, 1.95), (1.8, 1.95), (0, 0), 0.0),
    "pullover and trousers": Outfit(Lip.UPPER_CLOTHES, Lip.PANTS, (1.9, 1.95), (1.85, 1.95), (0, 0), 0.1),
    "coat over a skirt": Outfit(Lip.COAT, Lip.SKIRT, (1.9, 1.95), (0, 0), (0.8, 1.2), 0.0, True, "socks"),
}
# Who wears it: of every 3, 5, ... consecutive people the ones at these places.
WORN_BY = {
    "hat": (3, (0,)), "sunglasses": (5, (1, 4)), "scarf": (5, (3,)), "gloves": (7, (2, 5)), "no shoes": (11, (5,)),
}  # fmt: skip


def _cloth(rng: np.random.Generator, patterned: float, logo: bool = False) -> Material:
    """A random paint; its second colour differs clearly in brightness."""
    colours = []
    value = rng.uniform(0.15, 0.95)
    hue, vivid = rng.random(), rng.uniform(0.0, 0.85) if rng.random() < 0.75 else 0.04
    for v in (value, value - 0.45 if value > 0.55 else value + 0.45):
        colours.append(tuple(255.0 * c for c in colorsys.hsv_to_rgb(hue, vivid, v)))
        hue, vivid = (hue + rng.uniform(0.0, 0.5)) % 1, vivid * rng.uniform(0.2, 1.0)
    kinds = (body.STRIPES, body.PINSTRIPES, body.CHECKS, body.DOTS) + (body.LOGO,) * (2 * logo)
    kind = kinds[rng.integers(len(kinds))] if rng.random() < patterned else body.PLAIN
    return Material(colours[0], kind, colours[1], rng.uniform(0.035, 0.065))


def _in_plain_clothes(who: Identity) -> Identity:
    paints = [replace(paint, pattern=body.PLAIN) for paint in who.materials]
    paints[body.SHOE] = DARK_SHOES
    return replace(who, materials=tuple(paints), gloves=False, scarf=False, opening=0.0)


def _identity(seed: int, person: int) -> Identity:
    rng = _random(seed, 1, person)
    # Consecutive people take turns in outfits and accessories, so that small sets have every label.
    turn = person + int(_random(seed, 0).integers(840))
    outfit = list(OUTFITS.values())[turn % len(OUTFITS)]
    wears = {item: turn % every in places for item, (every, places) in WORN_BY.items()}
    female = outfit.women or rng.random() < 0.4
    hat = HATS[turn // 3 % 3] if wears["hat"] else ""
    top, coat = outfit.top, outfit.top is Lip.COAT
    hair = ("bob", "long", "bun", "tail", "long") if female else ("short", "short", "buzz", "short", "bob")
    hair = hair[rng.integers(5)]
    if hat and hair == "bun":
        hair = "bob"
    shade = HAIRS[rng.integers(len(HAIRS))]
    outer = _cloth(rng, 0.15)
    girth = rng.uniform(0.86, 1.08) if female else rng.uniform(0.95, 1.22)
    materials = (
        Material(tuple(c * rng.uniform(0.97, 1.03) for c in SKINS[rng.integers(len(SKINS))])),
        Material(shade, body.PINSTRIPES, tuple(0.82 * c for c in shade), 0.022),
        _cloth(rng, 0.65, logo=top is Lip.UPPER_CLOTHES),
        _cloth(rng, 0.3),
        outer,
        _cloth(rng, 0.0),
        _cloth(rng, 0.1),
        _cloth(rng, 0.6),
        _cloth(rng, 0.0),
        _cloth(rng, 0.5),
        Material((22.0, 22.0, 26.0)),
    )
    return Identity(
        girth=girth,
        shoulder=rng.uniform(0.088, 0.098) if female else rng.uniform(0.100, 0.112),
        hip=rng.uniform(0.052, 0.060) if female else rng.uniform(0.048, 0.054),
        waist=(0.068 if female else 0.078) * girth * rng.uniform(0.95, 1.08),
        bust=rng.uniform(0.030, 0.038) if female else 0.0,
        leg=rng.uniform(0.95, 1.04),
        head=rng.uniform(0.94, 1.06),
        hair=hair,
        top=top,
        bottom=outfit.bottom,
        sleeve=rng.uniform(*outfit.sleeve),
        trouser=rng.uniform(*outfit.trouser),
        skirt=rng.uniform(*outfit.skirt),
        flare=rng.uniform(0.01, 0.03) if coat else rng.uniform(0.015, 0.07),
        opening=rng.uniform(0.022, 0.04) if coat and rng.random() < 0.7 else 0.0,
        neckline=rng.uniform(0.0, 0.05) if not coat else 0.0,
        loose=rng.uniform(0.008, 0.014) if coat else rng.uniform(0.002, 0.010),
        hem=outfit.hem * rng.uniform(0.7, 1.0),
        hat=hat,
        sunglasses=wears["sunglasses"],
        scarf=wears["scarf"],
        gloves=wears["gloves"],
        socks=float(rng.choice((0.3, 0.45, 0.75, 0.9))) if outfit.bare_legs == "socks" else 0.0,
        shoes="" if wears["no shoes"] else ("boot" if outfit.bare_legs == "boots" else "low"),
        materials=materials,
    )


# How: pose, camera, light, background.


def _pose(rng: np.random.Generator) -> Pose:
    """A random pose: a way to stand, move or sit, and something to do for each arm."""
    u = rng.uniform
    tilt, spine, neck = u(-3, 4), [u(-3, 8), u(-4, 4), u(-8, 8)], [u(-8, 14), u(-5, 5), u(-35, 35)]
    legs = [[u(-2, 3), u(-4, 4), u(0, 12), u(0, 8), u(-3, 3)] for _ in range(2)]
    swing = [u(-6, 10), u(-6, 10)]
    lead = int(rng.integers(2))
    stance = rng.choice(("stand", "walk", "contrapposto", "apart", "stride", "step", "lean", "sit"),
                        p=(0.22, 0.30, 0.12, 0.08, 0.08, 0.06, 0.06, 0.08))  # fmt: skip
    if stance in ("walk", "stride"):
        reach = u(14, 27) if stance == "walk" else u(28, 45)
        legs[lead][1:4:2] = reach, u(4, 14)
        legs[1 - lead][1:4:2] = -0.7 * reach, u(0.6, 1.6) * reach
        swing = [u(0.6, 1.1) * reach * (1 if side != lead else -1) for side in range(2)]
        spine[0] += 0.15 * reach
    elif stance == "contrapposto":
        legs[lead][:4] = u(4, 10), u(6, 16), u(10, 30), u(12, 28)
        spine[1] = (-1 if lead else 1) * u(3, 9)
    elif stance == "apart":
        legs = [[u(10, 19), u(-3, 6), u(5, 18), u(0, 10), 0] for _ in range(2)]
    elif stance == "step":
        legs[lead][1:4:2] = u(45, 85), u(50, 95)
    elif stance == "lean":
        lean = u(18, 42)
        spine[0], tilt, neck[0] = 0.6 * lean, 0.4 * lean, -0.4 * lean
        for leg in legs:
            leg[1:4:2] = 0.4 * lean + u(0, 14), u(2, 18)
    elif stance == "sit":
        knees = u(72, 92)
        tilt = u(-6, 6)
        for leg in legs:
            leg[:4] = u(2, 14), knees + u(-6, 6), u(0, 12), knees + u(-8, 16)
    arms = []
    both = rng.choice(ARMS, p=ARM_SHARES)
    for side in range(2):
        kind = both if rng.random() < 0.65 else rng.choice(ARMS, p=ARM_SHARES)
        arms.append(_arm_angles(rng, kind, swing[side], stance))
    clip = body.LIMITS
    return Pose(
        tilt,
        tuple(np.clip(spine, *zip(*clip["spine"], strict=True)).tolist()),
        tuple(np.clip(neck, *zip(*clip["neck"], strict=True)).tolist()),
        tuple(tuple(np.clip(arm, *zip(*clip["arm"], strict=True)).tolist()) for arm in arms),
        tuple(tuple(np.clip(leg, *zip(*clip["leg"], strict=True)).tolist()) for leg in legs),
    )


ARMS = ("hang", "hip", "up", "wave", "forward", "side", "fold", "face", "back")
ARM_SHARES = (0.48, 0.13, 0.05, 0.06, 0.07, 0.05, 0.07, 0.06, 0.03)


def _arm_angles(rng: np.random.Generator, kind: str, swing: float, stance: str) -> tuple[float, ...]:
    u = rng.uniform
    wrist = u(-6, 10)
    if kind == "hang" and stance == "sit":
        return u(6, 16), u(18, 36), u(10, 30), u(35, 60), wrist
    return {
        "hang": (u(7, 15), swing, u(-5, 30), u(8, 26) + max(0.0, 0.5 * swing), wrist),
        "hip": (u(40, 52), u(-18, -6), u(62, 82), u(92, 112), u(-20, 0)),
        "up": (u(148, 172), u(0, 12), u(-60, 0), u(8, 55), wrist),
        "wave": (u(70, 105), u(0, 10), u(-90, -65), u(55, 110), wrist),
        "forward": (u(0, 14), u(45, 95), u(-10, 20), u(5, 60), wrist),
        "side": (u(62, 98), u(-5, 10), u(-30, 20), u(4, 40), wrist),
        "fold": (u(8, 18), u(22, 38), u(50, 72), u(88, 112), wrist),
        "face": (u(10, 30), u(45, 75), u(25, 50), u(118, 142), u(0, 25)),
        "back": (u(16, 26), u(-38, -25), u(50, 80), u(50, 80), u(0, 20)),
    }[kind]


def _view_matrix(camera: Camera) -> np.ndarray:
    turn = body.rotation
    return turn(2, camera.roll) @ turn(0, camera.pitch) @ turn(1, camera.yaw)


def _camera(rng: np.random.Generator, who: Identity, pose: Pose) -> Camera:
    """Frames the person as a detector's box does in a 2:1 image; one view in eight is a close-up."""
    u = rng.uniform
    camera = Camera(u(0, 360), u(-3, 14), u(-2, 2), 1.0, (0.0, 0.0))
    frames = np.concatenate([_view_matrix(camera), np.zeros((3, 1))], axis=1)
    shape = body.dress(who)
    parts = body.compose(body.compose(frames, body.bones(who, pose))[shape.bone], shape.local)
    low, high = body.bounds(parts, shape)
    low, high = low.min(0), high.max(0)
    width, height = high - low
    scale = max(min(u(0.84, 0.97) / height, 0.50 / width, 1.15), 0.62)
    middle = (low + high) / 2
    x, y = u(-0.02, 0.02) - scale * middle[0], u(-0.015, 0.015) - scale * middle[1]
    if rng.random() < 0.12:
        zoom = u(1.15, 1.7)
        x, scale = x * zoom, scale * zoom
        y = -0.5 + u(0.02, 0.08) - scale * low[1]  # the head stays in, the legs go out
    return Camera(camera.yaw, camera.pitch, camera.roll, scale, (x, y))


def _light(rng: np.random.Generator, seed: int, number: int) -> Light:
    place = _random(seed, 3, number)
    azimuth = math.radians(place.uniform(-75, 75) + rng.uniform(-20, 20))
    height = math.radians(place.uniform(25, 60))
    towards = math.sin(azimuth) * math.cos(height), -math.sin(height), -math.cos(azimuth) * math.cos(height)
    gain, warm = place.uniform(0.9, 1.06) * rng.uniform(0.96, 1.04), place.uniform(-0.04, 0.04)
    return Light(towards, 0.52, 0.55, (gain * (1 + warm), gain, gain * (1 - warm)))


KINDS = ("street", "studio", "park", "shop", "floor", "tiles")
# Three colours, none a mixture of the others: beside them an instance norm keeps how far a garment's colour is from
# grey, which it does not before a bare wall.
GARDEN = Background(
    "garden", 0, 0.72, ((188.0, 212.0, 228.0), (164.0, 92.0, 66.0), (70.0, 66.0, 70.0), (84.0, 142.0, 78.0))
)


def _background(rng: np.random.Generator, seed: int, number: int) -> Background:
    place = _random(seed, 4, number)
    kind = KINDS[(number + int(_random(seed, 5).integers(6))) % 6]
    colours = []
    for lightness in (0.62, 0.5, 0.42, 0.7):
        value = np.clip(lightness + place.uniform(-0.15, 0.2) + rng.uniform(-0.05, 0.05), 0, 1)
        hue = 0.3 + place.uniform(-0.06, 0.06) if kind == "park" else place.random()
        vivid = place.uniform(0.25, 0.5) if kind == "park" else place.uniform(0.02, 0.22)
        colours.append(tuple(255.0 * c for c in colorsys.hsv_to_rgb(hue, vivid, value)))
    return Background(
        kind, int(rng.integers(2**31)), place.uniform(0.5, 0.8) + rng.uniform(-0.05, 0.05), tuple(colours)
    )


# Drawing.


def render(scene: Scene, height: int = 128, width: int = 64) -> Rendering:
    """Draws a scene. Lengths scale with the height; a wider image shows more of the background."""
    who, camera = scene.identity, scene.camera
    shape = body.dress(who)
    view = np.empty((3, 4))
    view[:, :3] = height * camera.scale * _view_matrix(camera)
    x, y = camera.shift
    view[:, 3] = (width - 1) / 2 + height * x, (height - 1) / 2 + height * y, 0.0
    bones = body.compose(view, body.bones(who, scene.pose))
    parts = body.compose(bones[shape.bone], shape.local)
    # Samples half a pixel apart: the odd ones are the pixel centres, and hold the truth.
    index, depth = body.raster(parts, shape, -0.5, 0.5, (2 * height + 1, 2 * width + 1))
    rows, columns = np.nonzero(index >= 0)
    k = index[rows, columns]
    points = np.stack([0.5 * columns - 0.5, 0.5 * rows - 0.5, depth[rows, columns]], axis=1)
    bone = shape.bone[k]
    local = _times(np.linalg.inv(bones[:, :, :3])[bone], points - bones[bone, :, 3])
    label, material = _garment(shape, k, local)
    paint = _albedo(who, bone, label, material, local)
    paint *= _shading(scene.light, shape, parts, k, points)[:, None]

    samples = np.zeros((*index.shape, 4), np.float32)
    samples[rows, columns, :3] = paint
    samples[rows, columns, 3] = 1
    samples = _tent(_tent(samples).transpose(1, 0, 2)).transpose(1, 0, 2)
    image = samples[..., :3] + (1 - samples[..., 3:]) * _backdrop(scene, bones, height, width)
    image *= np.array(scene.light.tint, np.float32)
    image = np.clip(image + 0.5, 0, 255).astype(np.uint8)

    centre = (rows & columns & 1) == 1
    at = rows[centre] // 2, columns[centre] // 2
    seen = np.zeros((height, width), np.uint8)
    seen[at] = label[centre]
    part = np.full((height, width), -1, np.int8)
    part[at] = bone[centre]
    surface = np.zeros((height, width, 3), np.float32)
    surface[at] = local[centre]
    depth = depth[1::2, 1::2].astype(np.float32)
    joints, occluded = _joints(who, bones, part, depth)
    return Rendering(image, seen, joints, occluded, part, surface, depth, bones, who)


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.einsum("nij,nj->ni", matrices, vectors)


def _tent(samples: np.ndarray) -> np.ndarray:
    """Halves the first axis with weights 1 2 1 around the odd samples."""
    return 0.25 * (samples[:-1:2] + samples[2::2]) + 0.5 * samples[1::2]


def _garment(shape: body.Body, k: np.ndarray, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label and material of the samples: the part's, or those of the strip down its front."""
    strip = shape.strip[k]
    front = (local[:, 2] < 0) & (np.abs(local[:, 0]) < strip[:, 0] + strip[:, 1] * local[:, 1])
    front &= strip[:, 2] > 0
    label = np.where(front, strip[:, 2], shape.label[k]).astype(np.uint8)
    return label, np.where(front, strip[:, 3], shape.material[k]).astype(np.int64)


# Radius that turns the angle around a bone into a length, so that a pattern runs on over its parts.
GIRTHS = np.array([0.08, 0.08, 0.05] + [0.028, 0.022, 0.02] * 2 + [0.05, 0.035, 0.03] * 2 + [0.1])


def _albedo(who: Identity, bone, label, material, local) -> np.ndarray:
    """Unlit colours (n, 3) of points on the surface; they depend on the point alone, so they move with it."""
    x, y, z = local.T
    base = np.array([m.base for m in who.materials])
    second = np.array([m.second for m in who.materials])
    kind = np.array([m.pattern for m in who.materials])[material]
    period = np.array([m.period for m in who.materials])[material]
    # The angle from the front in quarter turns, by ratios alone: exact arithmetic, the same on every machine.
    angle = x / (np.abs(x) + np.abs(z) + 1e-9)
    angle = np.where(z < 0, angle, np.copysign(2.0, x) - angle)
    u = 0.5 * np.pi * GIRTHS[bone] * angle / period
    v = y / period
    odd_u, odd_v = np.floor(2 * u) % 2 == 1, np.floor(2 * v) % 2 == 1
    dot = (u - np.floor(u) - 0.5) ** 2 + (v - np.floor(v) - 0.5) ** 2 < 0.09
    lx, ly = x / 0.034, (y + 0.105) / 0.034
    logo = (lx * lx + ly * ly < 1) & ((np.abs(lx) > 0.28) | (ly < -0.3)) & (z < 0) & (bone == body.CHEST)
    on = np.select([kind == k for k in range(1, 6)], [odd_v, odd_u, odd_u ^ odd_v, dot, logo], False)
    colour = np.where(on[:, None], second[material], base[material])

    face = np.nonzero((bone == body.HEAD) & (label == Lip.FACE) & (z < -0.015))[0]
    x, y = np.abs(x[face]) / who.head, y[face] / who.head
    dark = np.array((40.0, 30.0, 30.0))
    eye = ((x - 0.018) / 0.0085) ** 2 + ((y + 0.008) / 0.0055) ** 2 < 1
    brow = (np.abs(x - 0.019) < 0.011) & (np.abs(y + 0.0225) < 0.0032)
    mouth = (x < 0.014 - 30 * (y - 0.038) ** 2) & (np.abs(y - 0.038) < 0.0042)
    colour[face[eye]] = dark
    colour[face[brow]] = 0.8 * base[body.HAIR]
    colour[face[mouth]] = 0.55 * base[body.SKIN] + 0.35 * np.array((170.0, 40.0, 50.0))
    return colour


def _shading(light: Light, shape: body.Body, parts, k, points) -> np.ndarray:
    inverse = np.linalg.inv(parts[:, :, :3])
    inside = _times(inverse[k], points - parts[k, :, 3])
    profile = shape.profile[k]
    inside[:, 1] = -0.5 * profile[:, 1] - profile[:, 2] * inside[:, 1]  # half the gradient of the quadric
    normal = _times(inverse.transpose(0, 2, 1)[k], inside)
    normal *= (-np.copysign(1.0, normal[:, 2]) / np.sqrt((normal * normal).sum(1)))[:, None]
    towards = normal @ np.array(light.towards)
    # Half wrapped around, and darker where the surface turns away: limbs look round under any light.
    lit = light.ambient + light.diffuse * np.maximum(0.0, 0.75 * towards + 0.25)
    return lit * (0.78 - 0.22 * normal[:, 2])


# How far in front of a joint's centre its own body and clothes reach, in statures: what lies farther in front hides it.
REACH = np.array([0.02, 0.10, *(0.075, 0.05, 0.045) * 2, *(0.125, 0.07, 0.06) * 2, 0.035, 0.035, 0.025, 0.025])


def _joints(who: Identity, bones, part, depth) -> tuple[np.ndarray, np.ndarray]:
    height, width = part.shape
    bone, place = body.skeleton(who)
    points = _times(bones[bone, :, :3], place) + bones[bone, :, 3]
    column, row = np.floor(points[:, :2] + 0.5).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    at = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
    stature = math.sqrt((bones[0, :, 0] ** 2).sum())
    front = points[:, 2] - depth[at]
    occluded = inside & (front > REACH * stature)
    # An arm or a hand before a joint of the trunk or the legs hides it however close it is.
    seen = part[at]
    arm = (seen >= 3) & (seen < 9)
    for side, first in enumerate(body.ARM):
        own = np.zeros(JOINTS, bool)
        own[[1, *range(2 + 3 * side, 5 + 3 * side)]] = True
        occluded |= inside & arm & (seen >= first) & (seen < first + 3) & ~own & (front > 0)
    return np.where(inside[:, None], points[:, :2], np.nan).astype(np.float32), occluded


def _backdrop(scene: Scene, bones, height: int, width: int) -> np.ndarray:
    """Background (height, width, 3) float32, with a stool behind people who sit and a soft shadow under the feet."""
    ground = scene.background
    rng = _random(ground.noise)
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    x = ((np.arange(width, dtype=np.float32) - (width - 1) / 2) / height)[None]
    wall, floor, dark, light = np.array(ground.colours, np.float32)
    horizon = ground.horizon
    below = (y > horizon).astype(np.float32) * np.ones_like(x)
    fade = 1.0 - 0.25 * (y - horizon) * (y > horizon) + 0.12 * (horizon - y)
    value = fade - 0.15 + 0.2 * _noise(rng, height, width, 5) + 0.1 * _noise(rng, height, width, 17)
    offset, period = rng.random(), rng.uniform(0.12, 0.3)
    if ground.kind == "garden":
        value = np.ones_like(value)
    elif ground.kind == "studio":
        below *= np.clip((y - horizon) / 0.12, 0, 1)
        value = 1 + 0.4 * (value - 1)
    elif ground.kind == "tiles":
        row = 1 / np.maximum(y - horizon + 0.12, 0.02)
        lines = (np.abs((row * 0.35 + offset) % 0.5 - 0.25) < 0.02) | (np.abs((x * row + offset) % 1.0 - 0.5) < 0.04)
        value = np.where((y > horizon) & lines, 0.82 * value, value)
    elif ground.kind == "park":
        leaves = _noise(rng, height, width, 11) + 0.7 * _noise(rng, height, width, 31) - 0.85
        value = value + 0.4 * leaves * (1 - 0.6 * below)
    picture = (wall + (floor - wall) * below[..., None]) * value[..., None]
    if ground.kind == "garden":
        picture = np.where((np.abs(y - horizon + 0.09) < 0.09)[..., None], light, picture)  # a hedge behind the path
    if ground.kind in ("street", "shop", "floor"):
        column = (x + 2 + offset) % period / period
        window = (column > 0.2) & (column < 0.8) & (y < horizon - 0.06) & (y > 0.08)
        if ground.kind == "street":
            window &= (y + offset) % 0.22 > 0.07
        if ground.kind == "floor":
            window = (column > 0.88) & (y < horizon)
        colour = light if ground.kind == "shop" else dark
        picture = np.where(window[..., None], colour * (0.4 + 0.6 * value[..., None]), picture)
        picture *= (1 - 0.25 * (np.abs(y - horizon) < 0.012))[..., None]
    feet = bones[[11, 14], :, 3]
    stature = math.sqrt((bones[0, :, 0] ** 2).sum())
    cx, cy = feet[:, 0].mean(), feet[:, 1].max() + 0.03 * stature
    rx, ry = 0.5 * abs(float(feet[0, 0] - feet[1, 0])) + 0.16 * stature, 0.045 * stature
    if min(leg[1] for leg in scene.pose.legs) > 60:  # a stool
        across = np.abs(x * height + (width - 1) / 2 - bones[0, 0, 3]) / stature
        down = (y * height - 0.5 - bones[0, 1, 3]) / stature
        stool = (down > 0.06) & (down < 0.10) & (across < 0.13)
        stool |= (down > 0.06) & (y * height < cy + 0.01 * stature) & (np.abs(across - 0.09) < 0.018)
        picture = np.where(stool[..., None], 0.7 * dark, picture)
    shadow = ((x * height + (width - 1) / 2 - cx) / rx) ** 2 + ((y * height - 0.5 - cy) / ry) ** 2
    return (picture * (1 - 0.4 * np.clip(1 - shadow, 0, 1))[..., None]).astype(np.float32)


def _noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Smooth noise in 0..1 with about `cells` cells down the image."""
    grid = rng.random((cells + 2, max(2, -(-cells * width // height)) + 2)).astype(np.float32)
    for size in (height, width):
        place = (np.arange(size, dtype=np.float32) + 0.5) * (cells / height)
        first = place.astype(int)
        first = np.minimum(first, len(grid) - 2)
        part = (place - first)[:, None]
        part = part * part * (3 - 2 * part)
        grid = (grid[first] * (1 - part) + grid[first + 1] * part).T
    return grid


def flow(source: Rendering, target: Rendering) -> tuple[np.ndarray, np.ndarray]:
    """Where each target pixel's surface point lies in the source.

    Returns (flow (H, W, 2) float32, visibility (H, W) uint8) at the target's pixels: source position =
    (x, y) + flow[y, x]. Visibility is 0 where the source shows the point, 1 where it is on the person but hidden
    or outside in the source, and 2 on the background, where the flow is 0.

    The flow is exact: the target's ray meets the surface in closed form, and the point moves with its rigid bone;
    what is left is the rounding of float32 (about 1e-4 pixels). Visibility compares the point's depth with the
    source's depth at the nearest pixel centre and allows TOLERANCE = 1.5 pixels: it is decided at pixel resolution.
    Raises ValueError where the two show different persons.
    """
    if source.identity != target.identity:
        raise ValueError("flow: the two renderings are of different persons")
    out = np.zeros((*target.part.shape, 2), np.float32)
    visibility = np.full(target.part.shape, 2, np.uint8)
    rows, columns = np.nonzero(target.part >= 0)
    bone = target.part[rows, columns]
    points = _times(source.bones[bone, :, :3], target.surface[rows, columns].astype(np.float64))
    points += source.bones[bone, :, 3]
    out[rows, columns] = points[:, :2] - np.stack([columns, rows], axis=1)
    height, width = source.part.shape
    column, row = np.floor(points[:, :2] + 0.5).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    depth = source.depth[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    visibility[rows, columns] = ~(inside & (np.abs(points[:, 2] - depth) <= TOLERANCE))
    return out, visibility
