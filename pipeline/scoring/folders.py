"""Two folders of pictures as pairs to score: which file belongs to which, their poses, their pixels when asked for."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.core import console, foreign
from pipeline.core.errors import UserError
from pipeline.core.schema import JOINTS
from pipeline.extraction.openpose import central
from pipeline.formats import annotations, openpose_json, pictures, plausible
from pipeline.metrics.pckh import Joints
from pipeline.metrics.pose_mask import pose_masks
from pipeline.scoring import image_folder, numbering

COLUMNS = (("generated", "target"), ("from", "to"))  # of a list of pairs: either two; a third, `source`, with the first


@dataclass(frozen=True)
class FolderPairs:
    """As `judged.Pairs`. A pair without a source has its target there, which no metric looks at then.

    generated: each pair's file. files: of the real images, by row. target_joints: by row, None if nobody knows any.
    """

    generated: tuple[Path, ...]
    files: tuple[Path, ...]
    rows: np.ndarray
    size: tuple[int, int]
    has_sources: bool
    target_joints: Joints | None = None

    name = "test"

    @cached_property
    def ids(self) -> list[str]:
        return [file.name for file in self.files]

    @cached_property
    def pair_ids(self) -> list[int]:
        return list(range(len(self.rows)))

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Raises UserError for a file that does not decode or has another size."""
        return np.stack([_picture(self.files[row], self.size) for row in rows.tolist()])

    def joints(self, rows: np.ndarray) -> Joints | None:
        return self.target_joints and Joints(*(part[rows] for part in self.target_joints))

    def masks(self, rows: np.ndarray) -> np.ndarray | None:
        return self.target_joints and pose_masks(*self.joints(rows), *self.size)

    def labels(self, rows: np.ndarray) -> None:
        return None


def _picture(file: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    picture = pictures.decode_given(foreign.read(file, foreign.PICTURE), file)
    if size is not None and picture.shape[:2] != size:
        here, there = (f"{height} x {width}" for height, width in (picture.shape[:2], size))
        raise UserError(
            f"{file}: is {here}, other images are {there} (height x width); metrics compare images of one size"
        )
    return picture


def pictures_of(folder: Path, what: str, batch: int = 16) -> Iterator[np.ndarray]:
    """(n, H, W, 3) uint8 RGB, by name. Raises UserError for one that does not decode, or of another size."""
    files = _Folder(folder, what).files
    size = _picture(files[0]).shape[:2]
    with console.progress(what, len(files)) as advance:
        for first in range(0, len(files), batch):
            images = np.stack([_picture(file, size) for file in files[first : first + batch]])
            yield images
            advance(len(images))


class _Folder:
    """The pictures that lie directly in a folder, by name with or without ending. Raises UserError without any."""

    def __init__(self, folder: Path, what: str):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the folder of {what}")
        self.path = folder
        named = (path for path in folder.iterdir() if path.suffix.lower() in image_folder.ENDINGS)
        self.files = sorted(path for path in named if path.is_file())
        if not self.files:
            raise UserError(f"{folder}: no pictures ({' '.join(image_folder.ENDINGS)}); give the folder of {what}")
        self._by_name = {file.name: file for file in self.files}
        self.by_stem: dict[str, Path] = {}
        for file in self.files:
            if self.by_stem.setdefault(file.stem, file) != file:
                raise UserError(
                    f"{folder}: {self.by_stem[file.stem].name} and {file.name} have one name; keep one of them"
                )

    def get(self, name: str) -> Path | None:
        """By its whole name, or by that without ending, whatever ending either has."""
        stem = Path(name).stem if Path(name).suffix.lower() in image_folder.ENDINGS else name
        return self._by_name.get(name) or self.by_stem.get(stem)


@dataclass(frozen=True)
class Triple:
    """A pair's files."""

    generated: Path
    target: Path
    source: Path | None


def open_folders(
    generated: Path, targets: Path, pairs: Path | None, sources: Path | None, way: str | None = None
) -> tuple[FolderPairs, list[str]]:
    """The pairs of two folders, in the order of the list `pairs` or by name, and what was left out, a line each. way:
    what numbers in names count, as `numbering` names it; None: the pictures decide.

    Raises UserError: no pair, a list without the columns, a source that is not there, numbers that cannot be told.
    """
    made, real = _Folder(generated, "generated images"), _Folder(targets, "target images")
    given = _Folder(sources, "source images") if sources else None
    if pairs is None:
        target_of = _by_name(made, real, way)
        triples = [Triple(file, target, given.get(file.name) if given else None) for file, target in target_of.items()]
        used = set(target_of.values())
        left = [f"{made.path}: {file.stem} has no target" for file in made.files if file not in target_of]
        left += [f"{real.path}: {file.stem} was not generated" for file in real.files if file not in used]
        if not triples:
            raise UserError(
                f"{generated}, {targets}: no file name in common, such as {made.files[0].name} and"
                f" {real.files[0].name}; give the pairs as --pairs CSV with the columns generated,target"
            )
    else:
        triples, left = _listed(pairs, made, real, given, way)
    lacking = [one for one in triples if one.source is None]
    if lacking and given:
        raise UserError(
            f"{sources}: no source of {len(lacking)} of {len(triples)} pairs, the first of"
            f" {lacking[0].generated.name}; name them as the generated images, or in --pairs CSV"
        )
    files = tuple(dict.fromkeys([one.target for one in triples] + [one.source or one.target for one in triples]))
    row = {file: number for number, file in enumerate(files)}
    rows = np.array([(row[one.source or one.target], row[one.target]) for one in triples], np.int64)
    size = _picture(triples[0].target).shape[:2]
    return FolderPairs(tuple(one.generated for one in triples), files, rows, size, not lacking), left


def _by_name(made: _Folder, real: _Folder, way: str | None) -> dict[Path, Path]:
    """The target of each generated picture that has one, by name; where names are numbers, and not the same ones on
    both sides, by what the numbers count.
    """
    numbers = {file: numbering.number_of(stem) for stem, file in real.by_stem.items()}
    counted = sorted((file for file in numbers if numbers[file] is not None), key=numbers.__getitem__)
    if made.by_stem.keys() == real.by_stem.keys() or len(counted) < len(numbers):
        return {file: real.by_stem[stem] for stem, file in sorted(made.by_stem.items()) if stem in real.by_stem}
    ends, places = [(file.name, file.name) for file in counted], range(len(counted))
    shown = numbering.Listing(
        ends,
        [numbers[file] for file in counted],
        dict(zip(places, places, strict=True)),
        lambda place: (None, _picture(counted[place])),
        _picture(counted[0]).shape[:2],
    )
    _, positions = image_folder.numbered(made.files, {}, shown, None, way)
    return {file: counted[positions[file]] for file in made.files if positions.get(file) is not None}


def _listed(
    pairs: Path, made: _Folder, real: _Folder, given: _Folder | None, way: str | None
) -> tuple[list[Triple], list[str]]:
    """The pairs of a CSV whose files are there."""
    try:
        reader = csv.DictReader(io.StringIO(foreign.read(pairs).decode("utf-8-sig"), newline=""))
        columns, lines = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{pairs}: cannot be read ({error}); give a CSV of pairs") from None
    kind = next((both for both in COLUMNS if set(both) <= set(columns)), None)
    if kind is None or not lines:
        problem = "no pair" if kind else f"the columns are {', '.join(columns) or 'none'}"
        raise UserError(f"{pairs}: {problem}; wanted: generated,target (and source, if you like), or from,to")
    ends = [((line.get("source") if kind[0] == "generated" else line["from"]) or "", line[kind[1]]) for line in lines]
    if kind[0] == "generated":
        files = [made.get(line["generated"] or "") for line in lines]
    else:  # the field's list: the file's name spells out the pair
        names, places = image_folder.names_of(ends, None), range(len(ends))

        def shown(place: int) -> tuple[np.ndarray | None, ...]:
            found = (given or real).get(ends[place][0]), real.get(ends[place][1])
            return tuple(file and _picture(file) for file in found)

        listing = numbering.Listing(
            ends, places, dict(zip(places, places, strict=True)), shown, _picture(real.files[0]).shape[:2]
        )
        _, positions = image_folder.numbered(made.files, names, listing, None, way)
        matched, _, _ = image_folder.match(made.files, names, positions)
        files = [matched.get(position) for position in range(len(lines))]
    triples, left = [], []
    first: dict[tuple, int] = {}  # line of each pair
    for number, (file, (source, target)) in enumerate(zip(files, ends, strict=True), 2):
        found = real.get(target or "")
        if file and found and first.setdefault((file, source, found), number) != number:
            left.append(f"{pairs}: line {number}: the pair of line {first[file, source, found]} again, scored once")
            continue
        if file is None or found is None:
            missing = f"no generated image in {made.path}" if file is None else f"no target {target} in {real.path}"
            left.append(f"{pairs}: line {number}: {missing}")
        else:
            triples.append(
                Triple(file, found, (given or real).get(source) if source else given and given.get(file.name))
            )
    if not triples:
        turned = sum(bool(real.get(line[kind[0]] or "") and made.get(line[kind[1]] or "")) for line in lines)
        hint = f"; {turned} have them the other way round: columns exchanged?" if turned else ""
        raise UserError(f"{pairs}: not one of {len(lines)} pairs has both files; {left[0]}{hint}")
    return triples, left


def poses(path: Path, pairs: FolderPairs) -> Joints:
    """The joints of the targets from a file of the field: its CSV, OpenPose's folder or zip of NAME_keypoints.json, or
    one JSON object, image name -> 18 x [x, y] or null. A target that it does not list has none.

    Raises UserError, also if no target is listed.
    """
    targets = sorted(set(pairs.rows[:, 1].tolist()))
    xy = np.zeros((len(pairs.files), JOINTS, 2), np.float32)
    valid = np.zeros((len(pairs.files), JOINTS), bool)
    if path.is_dir() or path.suffix.lower() == ".zip":
        for row, people in zip(targets, openpose_json.read(path, [pairs.ids[row] for row in targets]), strict=True):
            joints, scores = central(*people, pairs.size[1])
            xy[row], valid[row] = joints, scores > 0
        return Joints(xy, valid)
    known = _from_json(path) if path.suffix.lower() == ".json" else _from_csv(path)
    by_stem = {Path(name).stem: name for name in known}
    for row in targets:
        name = pairs.ids[row] if pairs.ids[row] in known else by_stem.get(pairs.files[row].stem)
        if name is not None:
            xy[row], valid[row] = known[name]
    if not valid.any():
        raise UserError(
            f"{path}: no pose of a target, such as {pairs.ids[targets[0]]}; names must be those of the targets"
        )
    return Joints(xy, valid)


def look_at_poses(path: Path, pairs: FolderPairs) -> None:
    """Say what is doubtful about the targets' joints, read from `path`. Raises UserError where they are plainly not
    those of the targets.
    """
    xy, valid = pairs.joints(np.unique(pairs.rows[:, 1]))
    found = plausible.joints(xy, valid.astype(np.float32), np.tile(pairs.size, (len(xy), 1)))
    plausible.settle(found, str(path), "give the joints of the target images, in their pixels")


def _from_csv(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    if not path.exists():
        raise UserError(f"{path}: no such file; give poses as CSV or JSON")
    names, joints, valid = annotations.read_keypoints(path)
    return dict(zip(names, zip(joints, valid, strict=True), strict=True))


def _from_json(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    wanted = f"an object, image name -> {JOINTS} x [x, y] or null"
    try:
        content = json.loads(foreign.read(path))  # UTF-8, with or without a mark, or UTF-16
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); give {wanted}") from None
    known = {}
    for name, points in content.items() if isinstance(content, dict) else [("", None)]:
        try:
            valid = np.array([point is not None for point in points])
            joints = np.array([(0, 0) if point is None else point[:2] for point in points], np.float32)
        except (TypeError, ValueError, LookupError, OverflowError):
            joints = np.zeros(0)
        if joints.shape != (JOINTS, 2) or not np.isfinite(joints).all():
            raise UserError(f"{path}: {name or 'it'} is not what is wanted: {wanted}")
        known[name] = joints, valid
    return known


def found_poses(
    pairs: FolderPairs, find: Callable[[Sequence[np.ndarray]], tuple[np.ndarray, np.ndarray]], batch: int
) -> Joints:
    """The joints that `OpenPose.central_people` (`find`) gives for the targets, as in the stage `keypoints`."""
    targets = np.unique(pairs.rows[:, 1])
    xy = np.zeros((len(pairs.files), JOINTS, 2), np.float32)
    valid = np.zeros((len(pairs.files), JOINTS), bool)
    for first in range(0, len(targets), batch):
        rows = targets[first : first + batch]
        joints, scores = find(pairs.images(rows))
        xy[rows], valid[rows] = joints, scores > 0
    return Joints(xy, valid)


def other_size(pairs: FolderPairs) -> tuple[int, int] | None:
    """Height and width of the first generated image if it is neither of the targets' size nor a strip of such."""
    first, (source, target) = pairs.generated[0], pairs.images(pairs.rows[0])
    if not isinstance(image_folder.read(first, source, target), str):
        return None
    found = image_folder.read(first, source, target, any_size=True)
    return None if isinstance(found, str) else found[0].shape[:2]


def checked(pairs: FolderPairs) -> Mapping[int, image_folder.Found]:
    """Each pair's file, read once beside its target. Raises UserError for the first that cannot be scored."""
    found, problems = image_folder.check(pairs, dict(enumerate(pairs.generated)))
    if problems:
        path, why = problems[0]
        more = f" ({len(problems) - 1} more files cannot be scored)" if len(problems) > 1 else ""
        raise UserError(f"{path}: {why}{more}; correct it, or take it out")
    return found
