"""Your own images: a folder with one sub-folder per person, or any folder with a CSV that says who is on which image.

The person is the first sub-folder on the way to a picture, but for these: folders named as splits (train, val, test)
divide the people below them, folders such as images/ around all people count for nothing, and what lies in labels/,
masks/ and the like is no picture. Where the names leave it open who is a person, `fetch` stops and says so, and `level`
tells it. Names are compared in one Unicode form and without blanks at their ends (people.py).

An image's id is `PERSON__REST`: its path below the person's folder with `/` written `__`, or the whole path where a CSV
names the people. The id alone thus says who an image shows.

What is a picture its content decides, not its ending. An 8-bit sRGB JPEG, PNG, WebP or BMP of the wanted size goes in
as it is; any other is fitted and stored as PNG, without loss (photograph.py). boxes.json says where the picture lies
between the bands of `pad`. Every file that is not used is listed, with its reason, in data/folder/raw/source.json, but
for the system's own, such as Thumbs.db.

People are put in the test split by the SHA-256 of their names: the first `test_share` of those with two images or more
(at least one of them, not all), unless folders or the CSV's column `split` say it. Joints are found by a detector, or
are yours: keypoints.folder.path. Repose does not watch the folder: after a change in it run fetch again (`snakemake
--forcerun fetch`, `dvc repro --force fetch@folder`).
"""

import hashlib
import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.core import console, environment, layout
from pipeline.core.errors import UserError
from pipeline.core.settings import SHARE, setting
from pipeline.datasets import SPLITS, About
from pipeline.datasets.folder import people, photograph
from pipeline.formats import archive

JUNK = ()  # every image is wanted
ABOUT = About(
    "The user's own photographs, fitted to one size.",
    gaps=("What the photographs show, and whose they are, only those know who brought them.",),
)
SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", ".directory", ".nomedia", ".picasa.ini", "icon\r"}
SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", ".thumbnails", ".trashes", ".git"}


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Block `fetch.folder`."""

    path: str | None = setting("the folder of your images", minLength=1)
    identity: Literal["subfolder", "csv"] = setting("who is who: a sub-folder a person, or a list", "subfolder")
    level: int | None = setting(
        "which sub-folder on the way to a picture is the person: 1, the first, 2, the next, ...; the split is by"
        " test_share then. null: as the folders are named",
        None,
        minimum=1,
        maximum=100,
    )
    csv: str | None = setting(
        "the list: header name,identity or name,identity,split; name = path below the folder", None, minLength=1
    )
    test_share: float = setting("share of the people that is kept for testing, where nothing says their split", **SHARE)
    height: int = setting("that the images are fitted to, in pixels", minimum=64, maximum=512, multipleOf=32)
    width: int = setting("likewise", minimum=32, maximum=512, multipleOf=32)
    fit: Literal["pad", "squash"] = setting("with a margin, or squeezed", "pad")


def person_id(name: str) -> str:
    """`anna__beach__1.jpg` -> `anna`."""
    return name.partition("__")[0]


def fetch(block: Fetch, raw: Path, dataset: str) -> dict:
    """Fit the images into `raw`; return what goes into `source.json`.

    Raises UserError: no folder, nobody in it, a broken CSV, people in doubt, names that make no id.
    """
    if block.path is None:
        raise UserError(f"{dataset}: say where your images are: fetch.{dataset}.path in {layout.PARAMS}")
    root = environment.path(block.path)
    if not root.is_dir():
        what = "is a file; unpack it, and name the folder in" if root.is_file() else "no such folder; correct"
        raise UserError(f"{root}: {what} fetch.{dataset}.path in {layout.PARAMS}")
    left_out: dict[str, str] = {}  # path below the folder -> reason
    doubts: list[str] = []
    content = archive.Folder(root)
    pictures = _pictures(content, block, left_out)
    if block.identity == "csv":
        places = people.of_csv(block.csv, block.path, pictures, left_out)
    elif block.level is not None:
        places = people.at_level(pictures, block.level, left_out)
    else:
        places = people.of_folders(pictures, left_out, doubts)
    if not places:
        hint = "fetch.folder.csv names none of them" if block.identity == "csv" else "a sub-folder a person?"
        raise UserError(f"{root}: no image of anybody: {hint} ({len(left_out)} files left out{_some(left_out)})")
    files = _ids(places)
    _show(files, doubts)
    boxes = _convert(content, files, block, raw / "unsorted.zip", left_out)
    given = {place.person: place.split for place in places.values() if place.split}
    splits = _splits(Counter(map(person_id, boxes)), given, block.test_share)
    counts: dict[str, Counter] = {split: Counter() for split in SPLITS}
    members = {}
    for image_id in boxes:
        person = person_id(image_id)
        counts[splits[person]][person] += 1
        members[f"{splits[person]}/{image_id}"] = image_id
    with zipfile.ZipFile(raw / "unsorted.zip") as unsorted:
        ordered = sorted(members, key=str.encode)
        archive.write(raw / "images.zip", ((member, unsorted.read(members[member])) for member in ordered))
        doubts += _of_several(unsorted, files)
    (raw / "unsorted.zip").unlink()
    banded = {image_id: box for image_id, box in boxes.items() if box != (0, 0, block.height, block.width)}
    (raw / "boxes.json").write_text(json.dumps(banded, ensure_ascii=False, sort_keys=True), encoding="utf-8")
    if left_out:
        console.say(f"{dataset}: {len(left_out)} files left out{_some(left_out)}")
    single = sum(number == 1 for each in counts.values() for number in each.values())
    if single:
        console.say(f"{dataset}: {single} people have a single image: no pairs of them")
    return {
        "dataset": "own images",
        "terms": "yours to know",
        "height": block.height,
        "width": block.width,
        "fit": block.fit,
        "images": {split: {"count": each.total(), "people": len(each)} for split, each in counts.items()},
        "people_with_one_image": single,
        "left_out": left_out,
        **({"doubts": doubts} if doubts else {}),
    }


def _some(left_out: Mapping[str, str]) -> str:
    """`: NAME REASON; ...`, three of them."""
    shown = "; ".join(f"{name} {reason}" for name, reason in sorted(left_out.items())[:3])
    return f": {shown}{'; ...' if len(left_out) > 3 else ''}" if shown else ""


def _pictures(content: archive.Folder, block: Fetch, left_out: dict[str, str]) -> list[str]:
    """The files that begin as pictures do, sorted. Others are listed, but for the system's own and the CSV."""
    pictures = []
    left_out |= {name: reason for name, reason in content.unread.items() if not of_system(name)}
    listed = environment.path(block.csv) if block.csv else None
    for name, path in sorted(content.files.items()):
        if of_system(name) or (listed and listed.exists() and path.samefile(listed)):
            continue
        try:
            with path.open("rb") as handle:
                head = handle.read(photograph.HEAD)
        except OSError as error:
            left_out[name] = f"cannot be read ({error.strerror})"
            continue
        if "\\" in name:  # escaped
            left_out[name] = "has a name that is not UTF-8, or with control characters; rename it"
        elif any(part.startswith(".") for part in name.split("/")):
            left_out[name] = "is hidden: its name, or that of a folder around it, begins with a dot"
        elif reason := photograph.no_picture(head, name):
            left_out[name] = reason
        elif content.size(name) > archive.MAX_MEMBER_BYTES:
            left_out[name] = f"is larger than {archive.MAX_MEMBER_BYTES >> 20} MiB"
        else:
            pictures.append(name)
    return pictures


def of_system(name: str) -> bool:
    """Whether a file (its path) is one that an operating system leaves behind, and nobody's."""
    *folders, file = name.lower().split("/")
    return file in SYSTEM or file.startswith("._") or not SYSTEM_FOLDERS.isdisjoint(folders)


def _ids(places: Mapping[str, people.Place]) -> dict[str, str]:
    """Image id -> path. Raises UserError for a name that makes no id, and for two that make the same."""
    files: dict[str, str] = {}
    for path, place in places.items():
        image_id = f"{place.person}__{place.rest}"
        if person_id(image_id) != place.person:
            raise UserError(f"folder: rename the person {place.person!r}: no '__' in it, no '_' at its end")
        if not image_id.isprintable() or set(image_id) & set('/\\,"'):
            raise UserError(
                f"folder: rename {path!r}: no comma, quote, slash or unprintable character in people and files"
            )
        if image_id in files:
            raise UserError(f"folder: {files[image_id]} and {path} both make the id {image_id}; rename one")
        files[image_id] = path
    return files


def _show(files: Mapping[str, str], doubts: list[str]) -> None:
    """Say how the pictures are grouped, with three people, before any picture is read whole."""
    of_person: dict[str, list[str]] = defaultdict(list)
    for image_id, path in files.items():
        of_person[person_id(image_id)].append(path)
    most = sorted(of_person, key=lambda person: (-len(of_person[person]), person))
    shown = ", ".join(f"{person} ({len(of_person[person])}: {of_person[person][0]})" for person in most[:3])
    more = ", ..." if len(most) > 3 else ""
    console.say(f"folder: {len(files)} pictures of {len(most)} people: {shown}{more}")
    for doubt in doubts:
        console.say(f"folder: WARNING: {doubt}")


def _splits(images: Counter, given: Mapping[str, str], share: float) -> dict[str, str]:
    """Person -> split. Raises UserError where one of the splits has nobody."""
    if given:
        splits = dict(given)
    else:
        able = [person for person, number in images.items() if number > 1]
        ranked = sorted(able, key=lambda person: hashlib.sha256(person.encode()).digest())
        test = set(ranked[: max(1, min(round(share * len(ranked)), len(ranked) - 1))])
        splits = {person: "test" if person in test else "train" for person in images}
    lacking = [split for split in SPLITS if split not in {splits[person] for person in images}]
    if lacking:
        raise UserError(
            f"folder: {len(images)} people with {images.total()} images give nobody for the {lacking[0]} split; three"
            " people with two images or more are the least: to train on, to choose by, to test on"
        )
    return splits


def _convert(
    content: archive.Folder, files: Mapping[str, str], block: Fetch, target: Path, left_out: dict[str, str]
) -> dict[str, tuple[int, int, int, int]]:
    """Write the pictures that can be used to the zip `target`, by their ids, a person's second copy of one left out;
    return where each lies on its canvas (`photograph.box`).
    """
    boxes: dict[str, tuple[int, int, int, int]] = {}
    seen: dict[tuple[str, bytes], str] = {}  # person and digest -> path
    ordered = sorted(files, key=str.encode)

    def one(data: bytes) -> tuple[bytes | None, str, tuple[int, int, int, int] | None]:
        return photograph.fitted(data, block.height, block.width, block.fit)

    def pictures(advance) -> Iterator[tuple[str, bytes]]:
        paths = [files[image_id] for image_id in ordered]
        converted = archive.converted(content, paths, one)
        for image_id, (_, (data, reason, box)) in zip(ordered, converted, strict=True):
            advance()
            if data is None:
                left_out[files[image_id]] = reason
                continue
            first = seen.setdefault((person_id(image_id), hashlib.sha256(data).digest()), files[image_id])
            if first != files[image_id]:
                left_out[files[image_id]] = f"is the same picture as {first}"
                continue
            boxes[image_id] = box
            yield image_id, data

    with console.progress("images", len(ordered)) as advance:
        archive.write(target, pictures(advance))
    return boxes


def _of_several(pictures: zipfile.ZipFile, files: Mapping[str, str]) -> list[str]:
    """A sentence, which is said, too, if one picture is there under two people."""
    same: dict[tuple[int, int], list[str]] = defaultdict(list)
    for info in pictures.infolist():
        same[info.CRC, info.file_size].append(info.filename)
    groups = [[files[image_id] for image_id in group] for group in same.values() if len(group) > 1]
    if not groups:
        return []
    shown = "; ".join(" and ".join(group[:2]) for group in groups[:3])
    doubt = f"{len(groups)} pictures are there under two people or more: {shown}{'; ...' if len(groups) > 3 else ''}"
    console.say(f"folder: WARNING: {doubt}")
    return [doubt]
