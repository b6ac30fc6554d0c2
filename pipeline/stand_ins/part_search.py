"""SPT's search for a stand-in parsing: of all candidates, the one that looks most like the source, part by part.

  cost(s, c) = sum over parts j of || B^j_c S_c - f_j(B^j_s S_s) ||^2                        (Song et al., CVPR 2019)

S is a one-hot parsing (SPT-10), B^j a part's binary mask, f_j the affine map from source part to candidate part
(`body_parts`). Outside its mask a part is all zeros, so a pixel costs 2 where the labels differ, 1 where only one side
has any, else 0; pixels outside the candidate's image do not exist, source pixels outside the source's image are zeros.
f_j takes the nearest pixel. A limb taken from the other side has its label mirrored, left arm to right arm.

f_j depends on both poses, but it nearly factors through a canonical frame of the part: source part -> frame ->
candidate part (exactly, for limbs). So with A the labels resampled in a frame of F x F cells and a_cj the pixels that
a cell of c covers,

  cost(s, c) ~ sum_j a_cj sum_cells ||A_cj - A_sj||^2 = const(c) + sum_j sum_cells A_sj . a_cj (1 - 2 A_cj),

one inner product: `rank` has all candidates by matrix products and keeps the best few, `cost` is the equation itself
for these. With a in steps of a power of two, the products are exact in float32: the ranking is the same on any device,
with any block size and number of threads.

As it stands, the sum is smallest for small people who show few parts, because fewer pixels can differ. Hence two
rules. `equation` takes the candidate of lowest cost. `balanced` divides the cost by the pixels in the candidate's
ten masks, and admits only candidates that show every part which the source shows.
"""

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.anatomy import labels
from pipeline.stand_ins import body_parts

RULES = ("equation", "balanced")
LABELS = len(labels.NAMES["spt-10"])
NOTHING = LABELS  # outside the mask or the image of the source: the zero vector
_BEYOND = LABELS + 1  # outside the candidate's image: no pixel to pay for
_AROUND_TORSO = 1.0, 0.25  # widths and heights that its canonical frame reaches beyond it, left and right, up and down
_FARTHEST = torch.iinfo(torch.int64).max
_BLOCK = 1024  # candidates at a time in `rank`
_PAIRS = 128  # at a time in `cost`: what they need stays in the processor's cache

_LABEL_BITS = 4  # of a pixel's code; the parts it lies in follow, a bit each
_FLIP = np.append(labels.FLIPS["spt-10"], NOTHING).astype(np.uint8)
_DIFFERENCE = np.full((16, 16), 2, np.uint8)
_DIFFERENCE[NOTHING] = _DIFFERENCE[:, NOTHING] = 1
np.fill_diagonal(_DIFFERENCE, 0)
_DIFFERENCE_MIRRORED = _DIFFERENCE.copy()
_DIFFERENCE_MIRRORED[:, : LABELS + 1] = _DIFFERENCE[:, _FLIP]


@dataclass(frozen=True)
class People:
    """Poses and label maps of M images of any sizes.

    joints: float32 (M, 18, 2), (x, y) in pixels; valid: bool (M, 18).
    codes: uint16 (sum of height x width,), `encode`d maps end to end, C order (may lie in a file: np.memmap).
    offset, height, width: int64 (M,): where each map starts, and its size.  area: int64 (M,), pixels in the ten masks.
    """

    joints: np.ndarray
    valid: np.ndarray
    codes: np.ndarray
    offset: np.ndarray
    height: np.ndarray
    width: np.ndarray
    area: np.ndarray


def encode(parsing: np.ndarray, joints: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SPT-10 ids (N, H, W) of N images with their joints (N, 18, 2), (N, 18) -> codes uint16 (N, H, W): the label in
    the low four bits, and a bit for each part whose mask holds the pixel; int64 (N,) pixels in the ten masks.
    """
    masks = body_parts.masks(joints, valid, *parsing.shape[1:])
    codes = parsing.astype(np.uint16)
    for part in range(len(body_parts.PARTS)):
        codes |= masks[:, part].astype(np.uint16) << np.uint16(_LABEL_BITS + part)
    return codes, masks.sum(axis=(1, 2, 3))


def _label(codes: np.ndarray, part: int) -> np.ndarray:
    """Labels uint8 of codes, NOTHING outside the part."""
    found = (codes & np.uint16(15)).astype(np.uint8)
    found[(codes & np.uint16(1 << (_LABEL_BITS + part))) == 0] = NOTHING
    return found


def pose_distance(people: People, source: np.ndarray, candidate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean distance of the joints seen in both, in torso lengths of the source, float64 (n,); how many, int64 (n,)."""
    total, shared = np.zeros(len(source)), np.zeros(len(source), np.int64)
    for joint in range(people.valid.shape[1]):
        both = people.valid[source, joint] & people.valid[candidate, joint]
        away = (people.joints[source, joint] - people.joints[candidate, joint]).astype(np.float64)
        total += np.hypot(away[:, 0], away[:, 1]) * both
        shared += both
    return total / np.maximum(shared, 1) / body_parts.torso_length(people.joints[source]), shared


def cells(people: People, some: np.ndarray, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parts of images `some` (int64 (n,)) resampled in their canonical frames of `frame` x `frame` cells.

    Returns labels uint8 (n, 10, cells) of a source (missing limbs from the other side; NOTHING outside mask or image),
    the same of a candidate (no mirroring; _BEYOND outside the image), and float64 (n, 10) pixels per cell
    (candidate; 0 where the part is missing).
    """
    joints, valid = people.joints[some], people.valid[some]
    boxes, present = body_parts.corners(joints, valid)
    patches = _patches(joints, boxes)
    mirrored = ~present & present[:, body_parts.MIRROR]
    taken = _sample_cells(people, some, patches, frame)
    from_other = taken[0][:, body_parts.MIRROR]
    source = np.where(mirrored[..., None], _FLIP[from_other], taken[0])
    candidate = np.where(taken[1], taken[0], _BEYOND).astype(np.uint8)
    edges = patches[..., 1, :] - patches[..., 0, :], patches[..., 3, :] - patches[..., 0, :]
    area = np.abs(edges[0][..., 0] * edges[1][..., 1] - edges[0][..., 1] * edges[1][..., 0])
    return source, candidate, area * present / frame**2


def _patches(joints: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Corners (n, 10, 4, 2) of what each part's canonical frame covers in the image.

    Limbs: their rectangle. Head: its square, mirrored where the right shoulder is to the right (seen from behind).
    Torso: the parallelogram nearest to shoulders and hips, wider than it, because the mask is wider.
    """
    patches = boxes.copy()
    points = np.asarray(joints, np.float64)
    behind = points[:, 2, 0] > points[:, 5, 0]
    patches[behind, 1] = patches[behind, 1][:, [1, 0, 3, 2]]
    right_shoulder, left_shoulder, right_hip, left_hip = (points[:, joint] for joint in (2, 5, 8, 11))
    middle = (right_shoulder + left_shoulder + right_hip + left_hip) / 4
    across = (left_shoulder + left_hip - right_shoulder - right_hip) / 2
    down = (right_hip + left_hip - right_shoulder - left_shoulder) / 2
    wide, high = _AROUND_TORSO
    across, down = across * (0.5 + wide), down * (0.5 + high)
    ends = (middle - across - down, middle + across - down, middle + across + down, middle - across + down)
    patches[:, 0] = np.stack(ends, axis=1)
    return patches


def _sample_cells(people: People, some: np.ndarray, patches: np.ndarray, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels at the cells' centres, NOTHING outside the part's mask or the image; whether they are in the image."""
    grid = (np.arange(frame) + 0.5) / frame
    v, u = (axis.reshape(-1) for axis in np.meshgrid(grid, grid, indexing="ij"))
    origin = patches[..., 0, None, :]
    place = origin + (patches[..., 1, None, :] - origin) * u[:, None] + (patches[..., 3, None, :] - origin) * v[:, None]
    x, y = np.rint(place[..., 0]), np.rint(place[..., 1])
    height, width, offset = (size[some][:, None, None] for size in (people.height, people.width, people.offset))
    within = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    codes = people.codes[offset + np.where(within, y * width + x, 0).astype(np.int64)]
    found = np.stack([_label(codes[:, part], part) for part in range(len(body_parts.PARTS))], axis=1)
    found[~within] = NOTHING
    return found, within


@dataclass(frozen=True)
class Index:
    """What `rank` needs of all candidates, on the device: about 1.3 kB per image at frame 8.

    candidate: int64 (M,) rows of `People`.  source_cells (of every person), candidate_cells: uint8 (., 10, cells).
    weights: float32 (M, 10), pixels per cell, in whole steps.  step: pixels.
    present: float32 (of every person, 10), 1 where the part is shown.
    """

    people: People
    candidate: torch.Tensor
    present: torch.Tensor
    source_cells: torch.Tensor
    candidate_cells: torch.Tensor
    weights: torch.Tensor
    step: float


def index(people: People, candidate: np.ndarray, frame: int, device: torch.device) -> Index:
    """Resample all parts once. candidate: int64 rows of usable poses, ascending; any row may be a source."""
    everyone = np.arange(len(people.joints))
    rows = [cells(people, some, frame) for some in np.array_split(everyone, len(everyone) // 256 + 1)]
    source, target, area = (np.concatenate(part) for part in zip(*rows, strict=True))
    target, area = target[candidate], area[candidate]
    # All sums stay below 2^24 steps, where float32 counts without error.
    largest = 2 * (area.sum(axis=1) * frame**2).max(initial=1.0)
    step = 2.0 ** np.ceil(np.log2(largest / 2**23))
    return Index(
        people,
        torch.from_numpy(candidate).to(device),
        torch.from_numpy(body_parts.corners(people.joints, people.valid)[1].astype(np.float32)).to(device),
        torch.from_numpy(source).to(device),
        torch.from_numpy(target).to(device),
        torch.from_numpy(np.rint(area / step).astype(np.float32)).to(device),
        step,
    )


def rank(
    found: Index,
    source: np.ndarray,
    best: int,
    exclude_below: float,
    min_shared_joints: int,
    rule: str,
    block: int = 1024,
) -> np.ndarray:
    """The `best` candidates by `rule` on the approximate cost for each source: int64 (S, best) rows of `People`,
    -1 for none.

    Ties go to the lower row. Left out: the source itself, fewer than `min_shared_joints` joints in common, and poses
    nearer than `exclude_below` torso lengths (`pose_distance`; a 1e-5 share nearer, in float32, so check again).
    """
    device, everyone = found.candidate.device, found.people
    rows = torch.from_numpy(source).to(device)
    ids = torch.arange(LABELS, device=device, dtype=torch.uint8)
    wanted = (found.source_cells[rows][..., None] == ids).to(torch.float32).flatten(1)
    joints, valid = torch.from_numpy(everyone.joints).to(device), torch.from_numpy(everyone.valid).to(device)
    st = torch.from_numpy(body_parts.torso_length(everyone.joints[source]).astype(np.float32)).to(device)
    limit = st * (exclude_below * (1 - 1e-5))
    keys = torch.full((len(source), best), _FARTHEST, device=device)
    for first in range(0, len(found.candidate), block):
        candidate = found.candidate[first : first + block]
        offered, constant = _offered(found, slice(first, first + block), ids)
        costs = torch.addmm(constant, wanted, offered.T)
        total, shared = _apart(joints, valid, rows, candidate)
        out = (shared < min_shared_joints) | (total < limit[:, None] * shared) | (rows[:, None] == candidate)
        if rule == "balanced":
            out |= found.present[rows] @ (1 - found.present[candidate]).T > 0
            costs /= constant.clamp(min=1)
        bits = costs.view(torch.int32).to(torch.int64)  # floats that are not negative sort as their bits do
        key = (bits << 32) + candidate
        keys = torch.cat([keys, key.masked_fill_(out, _FARTHEST)], dim=1)
        keys = keys.topk(best, dim=1, largest=False).values
    return torch.where(keys == _FARTHEST, -1, keys & 0xFFFFFFFF).cpu().numpy()


def _offered(found: Index, block: slice, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """a (1 - 2 A) float32 (C, features) and the constant (C,) of a block of candidates, in steps."""
    labels_here, weight = found.candidate_cells[block], found.weights[block, :, None]
    exists = (labels_here != _BEYOND) * weight
    offered = (1 - 2 * (labels_here[..., None] == ids).to(torch.float32)) * exists[..., None]
    return offered.flatten(1), (exists * (labels_here < NOTHING)).flatten(1).sum(dim=1)


def _apart(joints, valid, rows, candidate) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the distances of joints seen in both, float32 (S, C) pixels, and their number."""
    total = torch.zeros(len(rows), len(candidate), device=joints.device)
    seen, seen_too = valid[rows].to(torch.float32), valid[candidate].to(torch.float32)
    for joint in range(joints.shape[1]):
        x = joints[rows, joint, 0, None] - joints[candidate, joint, 0]
        y = joints[rows, joint, 1, None] - joints[candidate, joint, 1]
        distance = x.square_().add_(y.square_()).sqrt_()
        total += distance.mul_(seen[:, joint, None]).mul_(seen_too[:, joint])
    return total, seen @ seen_too.T


def search(
    found: Index, source: np.ndarray, rerank: int, exclude_below: float, min_shared_joints: int, rule: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The stand-in of each source (int64 (S,), rows of usable poses): the best by `cost` of the `rerank` best by
    `rank`.

    Returns int64 (S,) rows of `People` (-1: there is none), int64 (S,) cost, float64 (S,) pose distance. Ties go to the
    lower row. Raises ValueError for an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"no rule {rule}; known: {', '.join(RULES)}")
    people = found.people
    ranked = rank(found, source, rerank, exclude_below, min_shared_joints, rule)
    number, place = np.nonzero(ranked >= 0)
    candidate = ranked[number, place]
    distance, _ = pose_distance(people, source[number], candidate)
    number, candidate, distance = (values[distance >= exclude_below] for values in (number, candidate, distance))
    costs = cost(people, source[number], candidate)
    value = costs / np.maximum(people.area[candidate], 1) if rule == "balanced" else costs
    order = np.lexsort((candidate, value, number))
    first = order[np.unique(number[order], return_index=True)[1]]
    chosen, paid, away = np.full(len(source), -1), np.zeros(len(source), np.int64), np.zeros(len(source))
    chosen[number[first]], paid[number[first]], away[number[first]] = candidate[first], costs[first], distance[first]
    return chosen, paid, away


def cost(people: People, source: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """The equation, pair by pair: int64 (n,) for source and candidate int64 (n,), rows of usable poses."""
    result = np.zeros(len(source), np.int64)
    for first in range(0, len(source), _PAIRS):
        some = slice(first, first + _PAIRS)
        result[some] = _cost(people, source[some], candidate[some]).sum(axis=1)
    return result


def _cost(people: People, source: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """The ten terms: int64 (n, 10)."""
    pose_s, pose_c = ((people.joints[rows], people.valid[rows]) for rows in (source, candidate))
    boxes_c, boxes_s = (body_parts.corners(*pose)[0] for pose in (pose_c, pose_s))
    maps, given, mirrored = body_parts.affine_maps(*pose_c, *pose_s)
    boxes_s = np.where(mirrored[..., None, None], boxes_s[:, body_parts.MIRROR], boxes_s) * given[..., None, None]
    reach_c = body_parts.frames(boxes_c)
    reach_s = _composed(_grown(body_parts.frames(boxes_s), boxes_s), maps)
    terms = np.zeros(given.shape, np.int64)
    for part, other in enumerate(body_parts.MIRROR):
        for taken, table, some in (
            (part, _DIFFERENCE, ~mirrored[:, part]),
            (other, _DIFFERENCE_MIRRORED, mirrored[:, part]),
        ):
            pairs = np.flatnonzero(some)
            if not len(pairs):
                continue
            rows = _rows_to_look_at(
                reach_c[pairs, part],
                reach_s[pairs, part],
                people.height[candidate[pairs]],
                people.width[candidate[pairs]],
            )
            terms[pairs, part] = _differences(
                people, source[pairs], candidate[pairs], maps[pairs, part], rows, part, taken, table
            )
    return terms


def _differences(people, source, candidate, maps, rows, part: int, taken: int, table: np.ndarray) -> np.ndarray:
    """Sum over the pixels of `rows` (of `_rows_to_look_at`) of what each costs by `table`: int64 (n,).

    Candidates show `part`, sources `taken`, through maps (n, 2, 3).
    """
    entry, y, left, count = rows
    ends = np.cumsum(count)
    start = ends - count
    total = int(count.sum())
    x = np.arange(total, dtype=np.float64) + np.repeat(left - start, count)
    here = people.codes[
        (x + np.repeat(people.offset[candidate][entry] + y * people.width[candidate][entry], count)).astype(np.int64)
    ]
    moved = []
    for axis in range(2):
        slope = np.repeat(maps[entry, axis, 0], count)
        slope *= x
        slope += np.repeat(maps[entry, axis, 1] * y + maps[entry, axis, 2], count)
        moved.append(np.rint(slope, out=slope))
    from_x, from_y = moved
    width, height, offset = (
        size[source[0]] if len(np.unique(size[source])) == 1 else np.repeat(size[source][entry], count)
        for size in (people.width, people.height, people.offset)
    )
    off_image = (from_x < 0) | (from_y < 0) | (from_x >= width) | (from_y >= height)
    from_y *= width
    from_y += from_x
    from_y += offset
    from_y[off_image] = 0
    there = _label(people.codes[from_y.astype(np.int64)], taken)
    there[off_image] = NOTHING
    paid = np.append(0, np.cumsum(table[_label(here, part), there], dtype=np.int64))
    return np.bincount(entry, weights=paid[ends] - paid[start], minlength=len(source)).astype(np.int64)


def _grown(frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Frames (..., 2, 3) of rectangles (..., 4, 2) with room for rounding to a pixel on every side."""
    room = np.sqrt(0.5)
    edges = np.stack([boxes[..., corner, :] - boxes[..., 0, :] for corner in (1, 3)], axis=-2)
    length = np.hypot(edges[..., 0], edges[..., 1])
    grown = frame * (length / (length + 2 * room))[..., None]
    grown[..., 2] += np.where(length > 0, room / (length + 2 * room), -1)
    return grown


def _composed(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Affine maps (..., 2, 3): `inner`, then `outer`."""
    result = outer[..., :, :2] @ inner
    result[..., 2] += outer[..., 2]
    return result


def _rows_to_look_at(one: np.ndarray, other: np.ndarray, height: np.ndarray, width: np.ndarray):
    """Image rows that cross either of two parallelograms (n, 2, 3), as runs of pixels that hold both.

    height, width: (n,). Returns per run its entry int64 (R,), y float64, first x float64 and length int64.
    """
    top, bottom = (pick(_rows(one)[i], _rows(other)[i]) for i, pick in enumerate((np.minimum, np.maximum)))
    top = np.maximum(np.ceil(top - 1e-6), 0)
    bottom = np.minimum(np.floor(bottom + 1e-6), height - 1)
    rows = np.maximum(bottom - top + 1, 0).astype(np.int64)
    entry = np.repeat(np.arange(len(rows)), rows)
    y = np.arange(len(entry)) + np.repeat(top - (np.cumsum(rows) - rows), rows)
    spans = _span(one, entry, y), _span(other, entry, y)
    left = np.maximum(np.ceil(np.minimum(spans[0][0], spans[1][0]) - 1e-6), 0)
    right = np.minimum(np.floor(np.maximum(spans[0][1], spans[1][1]) + 1e-6), width[entry] - 1)
    some = right >= left
    return entry[some], y[some], left[some], (right - left + 1)[some].astype(np.int64)


def _rows(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Topmost and lowest y of the parallelograms (n, 2, 3): from inf to -inf for one without area."""
    (a, _, e), (c, _, f) = (frame[:, i].T for i in range(2))
    determinant = a * frame[:, 1, 1] - frame[:, 0, 1] * c
    flat = determinant == 0
    by_u, by_v, shift = (
        np.divide(term, determinant, where=~flat, out=np.zeros_like(a)) for term in (-c, a, c * e - a * f)
    )
    top, bottom = (shift + pick(by_u, 0) + pick(by_v, 0) for pick in (np.minimum, np.maximum))
    return np.where(flat, np.inf, top), np.where(flat, -np.inf, bottom)


def _span(frame: np.ndarray, entry: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where row y (R,) of entry (R,) is in the parallelogram: from x (R,) to x (R,); from inf to -inf where nowhere."""
    left, right = np.full(len(y), -np.inf), np.full(len(y), np.inf)
    for axis in range(2):
        slope, shift = frame[entry, axis, 0], frame[entry, axis, 1] * y + frame[entry, axis, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = -shift / slope, (1 - shift) / slope
        never = (slope == 0) & ((shift < 0) | (shift > 1))
        low = np.where(slope == 0, np.where(never, np.inf, -np.inf), np.minimum(*ends))
        high = np.where(slope == 0, np.where(never, -np.inf, np.inf), np.maximum(*ends))
        left, right = np.maximum(left, low), np.minimum(right, high)
    nowhere = left > right
    return np.where(nowhere, np.inf, left), np.where(nowhere, -np.inf, right)
