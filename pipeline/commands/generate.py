"""Draw people of your own photographs in other poses, with a trained variant.

--image   a photograph with one person, or a folder of them (its sub-folders are not looked into)
--pose    where the pose comes from: an OpenPose file (NAME_keypoints.json, COCO or BODY_25, as `export --what
          openpose-json` writes), another photograph with one person, or a folder of either
--run     the trained variant: runs/DATASET/VARIANT. Its checkpoint is the one that stands for it in the tables (before
          scoring: the last); --step takes another
Every photograph is drawn in every pose: OUTPUT/IMAGE_to_POSE.png, of the size that the variant was trained for, and
with --strip IMAGE_to_POSE_strip.png beside it: source, pose, generated image.

Photographs are fitted to that size as those of the data set `folder` are: with a margin that repeats the border (pad),
or squeezed (squash). Joints are found by Lightweight OpenPose in the fitted photograph, with its weights from the
project or, which changes nothing there, from $REPOSE_MIRROR/weights; variants that read parsing get
that of the parser in the box. The joints of a pose file are taken for pixels of a picture of the variant's size; where
it was written for a picture of another one, --pose-size says which, and they are fitted as that picture would be.
A photograph with several people is refused, unless --central is given: then the one in the middle is drawn. In a
folder, what cannot be used is left out and said.

  repose generate --image me.jpg --pose dancer.jpg --run runs/market1501/spig --strip
  repose generate --image photographs --pose poses --run runs/folder/spgnet --output drawn
"""

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import chdir
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.commands import positive
from pipeline.core import foreign, layout
from pipeline.core.atomic import atomic_file
from pipeline.core.console import say
from pipeline.core.errors import UserError

if TYPE_CHECKING:
    from pipeline.extraction.openpose import OpenPose
    from pipeline.extraction.repose_parser import Parser
    from pipeline.loading.runs import Person, Pose, Trained

NECK, LEAST = 1, 5  # a group of fewer joints is no person in a photograph; one without a neck is no second person
JSON = ".json"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--image", required=True, type=Path, metavar="PATH", help="a photograph or a folder of them")
    parser.add_argument(
        "--pose", required=True, type=Path, metavar="PATH", help="an OpenPose JSON, a photograph, a folder"
    )
    parser.add_argument("--run", required=True, type=Path, metavar="FOLDER", help="such as runs/market1501/spig")
    parser.add_argument("--step", type=int, metavar="N", help="its checkpoint (default: the tables' choice)")
    parser.add_argument("--output", type=Path, default=Path("generated"), metavar="FOLDER", help="default: generated")
    parser.add_argument("--strip", action="store_true", help="also source, pose and generated image side by side")
    parser.add_argument("--fit", choices=("pad", "squash"), default="pad", help="of photographs (default: pad)")
    parser.add_argument(
        "--pose-size",
        type=positive,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the picture that pose files belong to",
    )
    parser.add_argument("--central", action="store_true", help="of several people, take the one in the middle")


# ---- what is drawn with


def _project(checkpoints: Path) -> Path:
    """The project that runs/D/V/checkpoints belongs to; else the working directory."""
    parents = checkpoints.resolve().parents
    root = parents[min(3, len(parents) - 1)]
    return root if (root / layout.PARAMS).exists() else Path()


def open_run(folder: Path, step: int | None) -> "Trained":
    """The run at `step`, or at the checkpoint that its project's tables choose. Raises UserError for anything else than
    a trained variant.
    """
    from pipeline.commands.figure import chosen_step
    from pipeline.loading import checkpoints, runs

    where = runs.checkpoints_of(folder)
    if checkpoints.meta(where)["kind"] != "variant":
        raise UserError(f"{folder}: a component, which draws no pictures; name the run of a variant")
    project, run = _project(where), where.resolve().parent
    if step is None and run == project.resolve() / layout.checkpoints(run.parent.name, run.name).parent:
        with chdir(project):
            step = chosen_step(run.parent.name, run.name)
    return runs.load_run(where, step)


class Reader:
    """Makes people and poses of files, for one run. Its networks are opened for the first photograph."""

    def __init__(self, trained: "Trained", project: Path, fit: str, central: bool, pose_size: Sequence[int] | None):
        self.trained, self.project, self.fit, self.central = trained, project, fit, central
        self.pose_size = tuple(pose_size or (trained.height, trained.width))

    @cached_property
    def _detector(self) -> "OpenPose":
        """Raises UserError if its weights are not there."""
        from pipeline.extraction.openpose import OpenPose
        from pipeline.fetching import networks
        from pipeline.loading import published_weights

        with chdir(self.project):
            known = (layout.weights("openpose") / "source.json").exists()
            files = published_weights.files("openpose") if known else None
        if files is not None:
            return OpenPose([self.project / file for file in files])
        files = networks.in_folders("openpose", None)
        if files is None:
            raise UserError(
                "generate: joints are found by Lightweight OpenPose, whose weights are neither in "
                f"{self.project / layout.weights('openpose')} nor in $REPOSE_MIRROR/weights: put "
                f"{networks.named('openpose')} into the latter; or run `repose weights --net openpose` in the project, "
                "but then all that may read these weights is stale there and runs again"
            )
        return OpenPose(files)

    @cached_property
    def _parser(self) -> "Parser":
        from pipeline.extraction import repose_parser

        return repose_parser.load(self.trained.device)

    def photograph(self, path: Path, parsing: bool) -> "Person":
        """The person in a photograph, fitted, with joints and, if asked for, parsing. Raises UserError: it cannot be
        read, shows nobody or several people.
        """
        from pipeline.anatomy import labels
        from pipeline.datasets.folder import photograph
        from pipeline.extraction import openpose
        from pipeline.formats import pictures
        from pipeline.loading.runs import Person

        data, (height, width) = foreign.read(path, foreign.PICTURE), (self.trained.height, self.trained.width)
        reason = photograph.no_picture(data[: photograph.HEAD], path.name)
        if not reason:
            file, reason, box = photograph.fitted(data, height, width, self.fit)
        if reason:
            raise UserError(f"{path}: {reason}; give a photograph as JPEG, PNG, WebP or BMP")
        size = photograph.upright_size(data)
        if size != (height, width):
            inner = box[2:]
            margin = "" if inner == (height, width) else f" as {inner[0]} x {inner[1]} and a margin"
            say(f"{path}: {size[0]} x {size[1]} (height x width) fitted to {height} x {width}{margin}")
        picture = pictures.decode(file)
        heatmaps, fields, pixels_per_cell = self._detector.mean_maps(picture)
        found = openpose.everybody(heatmaps, fields, picture.shape[:2], pixels_per_cell)
        joints, valid = self._one(path, *found, width, LEAST, "no person found; try a photograph that shows one whole")
        parsed = labels.within(self._parser([picture], joints[None], valid[None])[0], box) if parsing else None
        return Person(path.stem, joints, valid, picture, parsed)

    def pose_file(self, path: Path) -> "Pose":
        """The pose of the person in an OpenPose file, fitted. Raises UserError: no such file, nobody or several people
        in it, joints far outside the picture.
        """
        from pipeline.datasets.folder import photograph
        from pipeline.formats import openpose_json, plausible
        from pipeline.loading.runs import Pose

        if self.trained.reads_target_parsing:
            variant = self.trained.variant
            raise UserError(f"{path}: {variant} is given the target's parsing, too; give a photograph as --pose")
        try:
            found = openpose_json.people(foreign.read(path, foreign.PICTURE))
        except ValueError as error:
            raise UserError(f"{path}: no pose file of OpenPose's: {error}; write it again") from None
        joints, valid = self._one(path, *found, self.pose_size[1], 1, "holds no person")
        height, width = self.pose_size
        beyond = np.abs(joints[valid] / (width, height) - 0.5).max()
        if beyond > 1:  # half a picture outside
            x, y = joints[valid].max(axis=0)
            raise UserError(
                f"{path}: joints reach x {x:.0f}, y {y:.0f}, far outside {height} x {width} (height x width); say with "
                "--pose-size HEIGHT WIDTH of what picture they are"
            )
        found = plausible.joints(joints[None], valid[None].astype(np.float32), np.array([self.pose_size]))
        plain = [one for one in found if one.plain]  # of one pose nothing else is sure
        plausible.settle(plain, str(path), "say with --pose-size HEIGHT WIDTH of what picture the joints are")
        top, left, inner_height, inner_width = photograph.box(
            self.pose_size, self.trained.height, self.trained.width, self.fit
        )
        scale = np.array([inner_width / width, inner_height / height])
        moved = ((joints + 0.5) * scale - 0.5 + (left, top)).astype(np.float32)
        name = path.name.removesuffix(openpose_json.SUFFIX).removesuffix(JSON)
        return Pose(name, np.where(valid[:, None], moved, np.float32(0)), valid)

    def _one(
        self, path: Path, joints: np.ndarray, scores: np.ndarray, width: int, least: int, nobody: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Joints (18, 2) float32 and valid (18,) of the one person among P groups of joints."""
        from pipeline.extraction import openpose

        known = scores > 0
        seen = known.sum(axis=1) >= least
        if not seen.any():
            raise UserError(f"{path}: {nobody}")
        several = int((seen & known[:, NECK]).sum())
        if several > 1 and not self.central:
            raise UserError(f"{path}: {several} people; cut it to one, or take the one in the middle with --central")
        chosen, sure = openpose.central(joints[seen], scores[seen], width)
        return chosen.astype(np.float32), sure > 0


# ---- the files


def _listed(path: Path, option: str) -> list[Path]:
    """The files that `path` stands for: itself, or those in the folder but for hidden ones and the system's, sorted.
    Raises UserError.
    """
    from pipeline.datasets import folder

    if path.is_dir():
        files = (file for file in path.iterdir() if file.is_file() and file.name[0] != ".")
        found = sorted(file for file in files if not folder.of_system(file.name))
        if not found:
            raise UserError(f"{option} {path}: no file in it")
        return found
    if not path.is_file():
        raise UserError(f"{option} {path}: not there")
    return [path]


def _read(given: Path, option: str, files: Sequence[Path], read: "Callable[[Path], Pose]") -> "list[Pose]":
    """What `read` makes of the files. Of a folder, what cannot be used is said and left out; UserError if all is."""
    found = []
    for file in files:
        try:
            found.append(read(file))
        except UserError as error:
            if not given.is_dir():
                raise
            say(f"left out: {error}")
    if not found:
        raise UserError(f"{option} {given}: none of {len(files)} files can be used; see above")
    return found


def _strip(trained: "Trained", source: "Person", target: "Pose", generated: np.ndarray) -> np.ndarray:
    """Source, pose and generated image side by side, under their names."""
    from pipeline import drawing
    from pipeline.figures import subject

    panels = {
        "source": subject.enlarged(source.picture),
        "pose": subject.skeleton(target, trained.height, trained.width),
        f"{trained.variant}, step {trained.step}": subject.enlarged(generated),
    }
    return drawing.beside([drawing.titled(panel, title) for title, panel in panels.items()])


def run(
    image: Path,
    pose: Path,
    run: Path,
    step: int | None,
    output: Path,
    strip: bool,
    fit: str,
    pose_size: Sequence[int] | None,
    central: bool,
) -> None:
    """Draw every photograph in every pose. Raises UserError for a run, photograph or pose that cannot be used."""
    from pipeline.formats import pictures
    from pipeline.loading import runs

    photographs, poses = _listed(image, "--image"), _listed(pose, "--pose")
    trained = open_run(run, step)
    reader = Reader(trained, _project(runs.checkpoints_of(run)), fit, central, pose_size)

    def posed(path: Path) -> "Pose":
        if path.suffix.lower() == JSON:
            return reader.pose_file(path)
        return reader.photograph(path, parsing=trained.reads_target_parsing)

    targets = _read(pose, "--pose", poses, posed)
    sources = _read(image, "--image", photographs, partial(reader.photograph, parsing=trained.reads_parsing))
    names = [f"{source.image_id}_to_{target.image_id}" for source in sources for target in targets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"{output / twice}.png: would be two pictures; rename one of the files that give it its name")
    for name, (source, target) in zip(names, ((s, t) for s in sources for t in targets), strict=True):
        drawn = runs.as_picture(runs.look(trained, source, target).image)
        made = {name: drawn} | ({f"{name}_strip": _strip(trained, source, target, drawn)} if strip else {})
        for stem, picture in made.items():
            with atomic_file(output / f"{stem}.png") as partial_file:
                partial_file.write_bytes(pictures.encode_png(picture))
    what = f"{output / names[0]}.png:"
    if len(names) > 1:
        what = f"{output}: {len(names)} pictures, {len(sources)} photographs in {len(targets)} poses, of"
    say(f"{what} {trained.height} x {trained.width} (height x width) by {trained.title}")
