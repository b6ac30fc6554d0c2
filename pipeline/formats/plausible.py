"""Whether joints, label maps and pairs from outside can mean what they are taken for: checks of a whole data set.

A file can be whole and well-formed and still say something else: pixels of another picture, parts of its width, zeros
for joints that nobody found, ids of another label set. No single file shows it, a data set does. Each check gives
findings: `plain` ones, which nobody's photographs of people explain, are refused; doubtful ones are said, and stay in
the metadata of what is written, where the data card and the report find them (`settle`).

Beside each limit stands the worst of what is known to be right. Joints: Market-1501's two lists (32,668 images),
DeepFashion's test list on the canvas and on the crop (4,038), our renderer (648). Label maps: Clothing Co-Parsing's
hand-made ones (201), our parser's of Market-1501 (409) and of DeepFashion (376), our renderer's (648). Pairs: the
published test lists of both data sets (20,570).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.anatomy import labels, pose
from pipeline.core import console
from pipeline.core.errors import UserError

# Joints
ONE_PLACE = 2  # extent of all joints of a data set, in pixels: less is plain ([0, 1] and [-1, 1] are); right: 63
OUTSIDE, MOSTLY_OUTSIDE = 0.01, 0.5  # share outside the image: doubtful, plain; right lists: 0.0004
FAR, FAR_SHARE = 0.25, 0.1  # so far outside, in sides of the image, and how many: plain; right: none, 0.18 at most
NOWHERE, PLAINLY_NOWHERE = 0.005, 0.01  # share in the corner, or stacked on the border; right: 0.00005
OFF_CENTRE = 0.1  # the necks' median from the middle, in widths, or one split's from the other's; right: 0.02, 0.004
LYING, SWAPPED = 0.5, 0.9  # share of the torsos that lie, or stand on the head: doubtful, plain; right: 0.0003, 0
MIRRORED = 0.9  # share of the faces whose eyes are exchanged; right: 0.0015 (a renderer that sees through heads: 0.54)
SMALL = 0.15  # median size of a body in sides of the image; right: 0.77
NOBODY = 0.5  # share of the images without any joint; right: 0.17 (Market-1501's test images, junk among them)
SURE, SURE_SHARE = 1.1, 0.01  # a confidence above, and how many may be; OpenPose's end at about 1
# Label maps
HEADLESS, OTHER_SET = 0.7, (0.3, 0.8)  # share of noses on a head; plain: below, and above in another set; right: 0.97
THROAT = 0.3  # share of the throats on jumpsuits; right: 0.02
OTHER_SIDE = 0.5  # share of hands and feet on the other side's limb; right: 0.05
BACKGROUND, PLAINLY_BACKGROUND = 0.3, 0.9  # share of the joints on background; right: 0.11
STRAY = 0.25  # share of the labelled pixels far from the person; right: 0.025
SMOOTH = 0.1  # share of the borders with a value in between; right: 0.015, halved or doubled smoothly: 0.22 to 0.53
# Pairs
FEW = 0.01  # share of pairs of an image with itself that is plain; right: none
MOST = 0.5  # share of pairs of two people that is plain; right: none

LEAST, ENOUGH = 3, 50  # of what a share is taken of: to doubt, to be sure where a single photograph may look so
THROAT_AT = len(pose.JOINT_NAMES)  # a place of `under` beside the joints
_NOSE, _NECK, _EYES, _HIPS = 0, 1, (14, 15), (8, 11)
_HEAD = {"face", "hair", "hat", "sunglasses", "head"}


class Finding(NamedTuple):
    plain: bool
    text: str


def settle(findings: Sequence[Finding], where: str, remedy: str) -> list[str]:
    """What was found as text, said; all of it is doubtful. Raises UserError, with the remedy, if any of it is plain."""
    texts = [finding.text for finding in findings]
    if any(finding.plain for finding in findings):
        raise UserError(f"{where}: {'; '.join(texts)}; {remedy}")
    for text in texts:
        console.say(f"{where}: WARNING: {text}")
    return texts


def _share(which: np.ndarray) -> float:
    return float(which.mean()) if which.size else 0.0


# ---- joints


def joints(
    points: np.ndarray, scores: np.ndarray, sizes: np.ndarray, splits: np.ndarray | None = None, centred: bool = False
) -> list[Finding]:
    """What N images' joints give away.

    points: (N, 18, 2), (x, y).  scores: (N, 18), 0 where missing.  sizes: (N, 2), height and width of the images.
    splits: (N,) their splits' names.  centred: the images were cut around people, as the published data sets are.
    """
    valid = scores > 0
    if not valid.any():
        return []
    xy, score = points[valid].astype(np.float64), scores[valid]
    if not np.isfinite(xy).all():
        return [Finding(True, f"{_share(~np.isfinite(xy).all(axis=1)):.1%} of the joints are not finite")]
    side = np.broadcast_to(sizes[:, None, ::-1], points.shape)[valid].astype(np.float64)
    low, high = xy.min(axis=0), xy.max(axis=0)
    if len(xy) >= LEAST and (high - low).max() <= ONE_PLACE:
        normal = ": parts of width and height?" if np.abs(xy).max() <= ONE_PLACE else ";"
        text = f"all joints lie at x {low[0]:.4g} to {high[0]:.4g}, y {low[1]:.4g} to {high[1]:.4g} of {_size(sizes)}"
        return [Finding(True, f"{text}{normal} wanted are pixels of the stored image (OpenPose: --keypoint_scale 0)")]
    if (nowhere := _nowhere(points, valid, sizes)) and nowhere[0].plain:
        return nowhere  # which would lie outside and off the centre, too
    found = [
        *_scores(score),
        *nowhere,
        *_outside(xy, side, sizes),
        *_centre(points, valid, sizes, splits, centred),
        *_posture(points, valid),
    ]
    several = valid.sum(axis=1) >= 8
    if several.sum() >= LEAST:
        few = np.where(valid[..., None], points, np.nan)[several]
        body = ((np.nanmax(few, axis=1) - np.nanmin(few, axis=1)) / sizes[several, ::-1]).max(axis=1)
        if np.median(body) < SMALL:
            text = f"half of the bodies are smaller than {np.median(body):.0%} of their image"
            found.append(Finding(False, f"{text}: joints of a smaller picture?"))
        if len(points) >= LEAST and (points == points[0]).all():
            found.append(Finding(False, f"all {len(points)} images have the same joints"))
    nobody = _share(~valid.any(axis=1))
    if nobody > NOBODY:
        found.append(Finding(False, f"{nobody:.0%} of the images have no joint at all"))
    return found


def _size(sizes: np.ndarray) -> str:
    """Height and width of all images, or of the most frequent kind."""
    kinds, counts = np.unique(sizes, axis=0, return_counts=True)
    height, width = kinds[counts.argmax()].tolist()
    return f"{height}x{width} (height x width{', most of them' if len(kinds) > 1 else ''})"


def _scores(score: np.ndarray) -> list[Finding]:
    above = _share(score > SURE)
    if above <= SURE_SHARE:
        return []
    pixels = float(np.median(score)) > 2  # no flag either, as COCO has them: 2 for a joint that is seen
    advice = "three numbers a joint are x, y, confidence" if pixels else "flags of an annotation? 0 to 1 is wanted"
    return [Finding(pixels, f"{above:.1%} of the confidences are above 1, up to {score.max():.4g}; {advice}")]


def _nowhere(points: np.ndarray, valid: np.ndarray, sizes: np.ndarray) -> list[Finding]:
    """Joints that stand for missing ones: in the corner, at (-1, -1) and the like, or several of one image in one
    place on its border or outside.
    """
    x, y = points[..., 0], points[..., 1]
    corner = valid & (x == y) & (x <= 0)
    edge = valid & ((x <= 0) | (y <= 0) | (x >= sizes[:, 1:] - 1) | (y >= sizes[:, :1] - 1))
    rows = np.flatnonzero(edge.sum(axis=1) > 1)
    same = (points[rows, :, None] == points[rows, None]).all(axis=-1) & edge[rows, :, None] & edge[rows, None]
    corner[rows] |= same.sum(axis=2) > 1
    share = _share(corner[valid])
    if share <= NOWHERE:
        return []
    (at_x, at_y), _ = Counter(map(tuple, points[corner].tolist())).most_common(1)[0]
    text = f"{share:.1%} of the joints lie at ({at_x:.4g}, {at_y:.4g}) or the like: joints that were not found? in a"
    text += " CSV their x and y are -1, in OpenPose's files their confidence is 0, in JSON they are null"
    return [Finding(share > PLAINLY_NOWHERE, text)]


def _outside(xy: np.ndarray, side: np.ndarray, sizes: np.ndarray) -> list[Finding]:
    beyond = np.maximum(-0.5 - xy, xy - (side - 0.5)).max(axis=1)
    share, far = _share(beyond > 0), _share((np.maximum(-xy, xy - side) > FAR * side).any(axis=1))
    if share <= OUTSIDE:
        return []
    (left, top), (right, bottom) = xy.min(axis=0), xy.max(axis=0)
    text = f"{share:.1%} of the joints lie outside the image: x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}"
    text += f" of {_size(sizes)}; joints of the pictures in another size?"
    return [Finding(share > MOSTLY_OUTSIDE or far > FAR_SHARE, text)]


def _centre(
    points: np.ndarray, valid: np.ndarray, sizes: np.ndarray, splits: np.ndarray | None, centred: bool
) -> list[Finding]:
    necks, found, middles = valid[:, _NECK], [], {}
    if necks.sum() < LEAST:
        return []
    places = (points[:, _NECK] + 0.5) / sizes[:, ::-1]
    middle = float(np.median(places[necks, 0]))
    if abs(middle - 0.5) > OFF_CENTRE:
        width = int(np.median(sizes[:, 1]))
        text = f"the necks' median x is {middle * width - 0.5:.0f} of {width}, whose middle is {(width - 1) / 2:.0f}"
        found.append(Finding(centred, f"{text}: made for pictures about {max(0, 2 * middle * width):.0f} wide?"))
    for split in [] if splits is None else np.unique(splits):
        if (rows := necks & (splits == split)).sum() >= LEAST:
            middles[split] = np.median(places[rows], axis=0)
    if len(middles) == 2 and (apart := np.abs(np.subtract(*middles.values()))).max() > OFF_CENTRE:
        axis = int(apart.argmax())
        each = " and ".join(f"{place[axis]:.2f} ({split})" for split, place in middles.items())
        what, side = (("x", "width"), ("y", "height"))[axis]
        found.append(Finding(centred, f"the necks' median {what} is {each} of the {side}: lists of two sizes?"))
    return found


def _posture(points: np.ndarray, valid: np.ndarray) -> list[Finding]:
    """Axes or sides exchanged: torsos that lie or stand on the head, faces with the left eye on the right."""
    torso = valid[:, [_NECK, *_HIPS]].all(axis=1)
    down = points[torso][:, _HIPS].mean(axis=1) - points[torso, _NECK]
    lying, headlong = _share(np.abs(down[:, 0]) > np.abs(down[:, 1])), _share(down[:, 1] < -np.abs(down[:, 0]))
    # Where both eyes and the nose are seen, the face is: its right eye is on the left of the line from nose to neck,
    # whichever way the photograph is turned, unless axes or sides are exchanged.
    face = valid[:, [_NOSE, _NECK, *_EYES]].all(axis=1)
    across, along = points[face, _EYES[1]] - points[face, _EYES[0]], points[face, _NECK] - points[face, _NOSE]
    mirrored = _share(across[:, 0] * along[:, 1] < across[:, 1] * along[:, 0])
    exchanged = face.sum() >= LEAST and mirrored > MIRRORED
    if torso.sum() >= LEAST and lying > LYING:
        text = f"{lying:.0%} of the torsos lie: x and y exchanged, or photographs turned? the CSV has y before x"
        return [Finding(bool(lying > SWAPPED and exchanged), text)]
    if torso.sum() >= LEAST and headlong > LYING:
        text = f"{headlong:.0%} of the torsos have their hips above the neck: y is counted from the top"
        return [Finding(bool(headlong > SWAPPED and torso.sum() >= ENOUGH), text)]
    if exchanged:
        text = f"{mirrored:.0%} of {face.sum()} faces have their right eye where the left one is: left and right"
        return [Finding(bool(face.sum() >= ENOUGH), f"{text} exchanged? they are the person's, not the viewer's")]
    return []


# ---- label maps


def under(label_map: np.ndarray, points: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The label (H, W) at each of 18 joints, and last at the throat: (19,) int16, -1 where missing or outside."""
    height, width = label_map.shape
    throat = 0.4 * points[_NOSE] + 0.6 * points[_NECK]
    known = np.append(valid, valid[_NOSE] & valid[_NECK])
    x, y = np.rint(np.vstack([points, throat])).astype(np.int64).T
    known &= (x >= 0) & (y >= 0) & (x < width) & (y < height)
    return np.where(known, label_map[y.clip(0, height - 1), x.clip(0, width - 1)].astype(np.int16), np.int16(-1))


def stray(label_map: np.ndarray, points: np.ndarray, valid: np.ndarray) -> float:
    """Share of the labelled pixels (H, W) that lie more than half a person away from the box of the joints; NaN where
    fewer than eight are known, or nothing is labelled.
    """
    labelled = np.count_nonzero(label_map)
    if valid.sum() < 8 or not labelled:
        return float("nan")
    low, high = points[valid].min(axis=0), points[valid].max(axis=0)
    left, top = np.maximum(0, low - (high - low) / 2).astype(int)
    right, bottom = np.maximum(0, high + (high - low) / 2).astype(int) + 1
    return 1 - np.count_nonzero(label_map[top:bottom, left:right]) / labelled


def smooth(label_map: np.ndarray) -> float:
    """Share of the borders along a row of (H, W) where the value in between is in between, too: a picture of ids that
    was scaled like a photograph has slivers of labels that nobody gave.
    """
    one, middle, other = label_map[:, :-2], label_map[:, 1:-1], label_map[:, 2:]
    between = ((one < middle) & (middle < other)) | ((one > middle) & (middle > other))
    return np.count_nonzero(between) / max(1, np.count_nonzero(one != other))


def label_maps(
    at: np.ndarray, strays: np.ndarray, smooths: np.ndarray, label_set: str, made_in: str, setting: str = ""
) -> list[Finding]:
    """What N label maps give away. at: (N, 19), as `under`.  strays, smooths: (N,) as `stray` and `smooth`.

    label_set: of the ids in `at`, of labels.STORED.  made_in: the set that they were taken to be in.  setting: where
    that is said.
    """
    names, found = labels.NAMES[label_set], []
    nose, throat = (column[column >= 0] for column in (at[:, _NOSE], at[:, THROAT_AT]))
    headed = _share(np.isin(nose, [names.index(name) for name in names if name in _HEAD]))
    if len(nose) >= LEAST and headed < HEADLESS:
        fits = {other: share for other in labels.NAMES if (share := _headed(nose, label_set, made_in, other)) > headed}
        best = max(fits, key=fits.__getitem__, default=made_in)
        below, above = OTHER_SET
        most = names[Counter(nose.tolist()).most_common(1)[0][0]]
        text = f"{headed:.0%} of {len(nose)} noses lie on face or hair, most on {most}: labels of another set"
        other = f", or of other images? in {best} it would be {fits[best]:.0%} ({setting})" if best != made_in else "?"
        found.append(Finding(headed < below and fits.get(best, 0) > above, text + other))
    if made_in == "lip-20" and len(throat) >= LEAST:
        jumpsuits = _share(throat == names.index("jumpsuits"))
        if jumpsuits > THROAT:
            text = f"{jumpsuits:.0%} of the throats lie on jumpsuits (10), which is torso skin in cihp-20"
            found.append(Finding(False, f"{text} ({setting})"))
    found += _sides(at, names)
    joint = at[:, :THROAT_AT]
    bare = _share(joint[joint >= 0] == 0)
    if bare > BACKGROUND:
        text = f"{bare:.0%} of the joints lie on background: label maps of other images, or of another size?"
        found.append(Finding(bare > PLAINLY_BACKGROUND, text))
    if (far := float(np.mean(strays[~np.isnan(strays)]) if (~np.isnan(strays)).any() else 0)) > STRAY:
        found.append(Finding(False, f"{far:.0%} of the labelled pixels lie far from the person: labels in a margin?"))
    if len(smooths) and smooths.mean() > SMOOTH:
        text = f"{smooths.mean():.0%} of the labels' borders have another label in between: scaled smoothly? ids are"
        found.append(Finding(False, f"{text} scaled by nearest neighbour"))
    return found


def _headed(stored: np.ndarray, label_set: str, made_in: str, other: str) -> float:
    """Share of the labels `stored` that are a head's if the files were in the set `other`."""
    back = {int(kept): raw for raw, kept in reversed([*enumerate(_kept(made_in, label_set))])}
    heads = {number for number, name in enumerate(labels.NAMES[other]) if name in _HEAD}
    return _share(np.array([back.get(one, -1) in heads for one in stored.tolist()]))


def _kept(made_in: str, label_set: str) -> Sequence[int]:
    """The stored label of each label in the files."""
    return range(len(labels.NAMES[label_set])) if made_in == label_set else labels.TO_LIP20[made_in].tolist()


def _sides(at: np.ndarray, names: Sequence[str]) -> list[Finding]:
    """Hands and feet on the other side's arm, leg or shoe."""
    own = other = 0
    for left, right, parts in ((7, 4, ("arm",)), (13, 10, ("leg", "shoe"))):
        for part in parts:
            sides = [names.index(f"{side}-{part}") for side in ("left", "right")]
            for joint, mine, others in ((left, *sides), (right, *reversed(sides))):
                own += np.count_nonzero(at[:, joint] == mine)
                other += np.count_nonzero(at[:, joint] == others)
    if other < LEAST or other <= OTHER_SIDE * (own + other):
        return []
    text = f"{other} of {own + other} hands and feet lie on the other side's arm or leg: left and right exchanged?"
    return [Finding(False, f"{text} they are the person's, not the viewer's")]


# ---- pairs


def pairs(
    listed: Sequence[tuple[str, str]], split: str, splits: Mapping[str, str], people: Mapping[str, str]
) -> list[Finding]:
    """What a list of (source, target) for `split` gives away; splits, people: of each image."""
    total = len(listed)

    def first(which: list[tuple[str, str]]) -> str:
        return f"{len(which)} of {total} {split} pairs, the first {which[0][0]} -> {which[0][1]}"

    found = []
    if foreign := [pair for pair in listed if {splits[pair[0]], splits[pair[1]]} != {split}]:
        other = next(splits[name] for name in foreign[0] if splits[name] != split)
        found.append(Finding(True, f"{first(foreign)}, have images of the {other} split: a list of another split?"))
    if itself := [pair for pair in listed if pair[0] == pair[1]]:
        found.append(Finding(len(itself) > FEW * total, f"{first(itself)}, are an image with itself"))
    if strangers := [pair for pair in listed if people[pair[0]] != people[pair[1]]]:
        found.append(Finding(len(strangers) > MOST * total, f"{first(strangers)}, show two people"))
    if twice := [pair for pair, count in Counter(listed).items() if count > 1]:
        found.append(Finding(False, f"{len(twice)} {split} pairs are listed more than once, the first {twice[0]}"))
    return found
