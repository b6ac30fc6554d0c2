"""Who is who among one's own images: by sub-folders, or by a CSV.

A name is compared in Unicode's composed form and without blanks at its ends. Two people whose names differ in letter
case, blanks or leading zeros alone are refused: nobody else can know whether they are one.
"""

import csv
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from pipeline.core import console, environment, foreign, layout
from pipeline.core.errors import UserError
from pipeline.datasets import SPLITS

# Names of folders, in small letters.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainset", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "tst", "query", "gallery"), "test"),
}
WITH_SPLITS = {"images", "image", "imgs", "img", "photos", "set", "split", "data", "bounding", "box"}  # train_images
AROUND = {
    *("data", "dataset", "datasets", "image", "images", "img", "imgs", "jpegimages", "jpg", "jpeg", "png", "photo"),
    *("photos", "photographs", "picture", "pictures", "pics", "people", "person", "persons", "identities"),
}
NO_PICTURES = {
    *("label", "labels", "labelmaps", "mask", "masks", "annotation", "annotations", "parsing", "parsings", "seg"),
    *("segmentation", "segmentations", "segmentationclass", "gt", "keypoints", "joints", "openpose", "densepose"),
    *("skeletons", "heatmaps"),
}


@dataclass(frozen=True)
class Place:
    """What is known of a picture: whose it is, what its id says after that, and the split, where it is given."""

    person: str
    rest: str
    split: str | None = None


def clean(text: str) -> str:
    """A name as it is compared: in Unicode's composed form (NFC), without blanks at its ends."""
    return unicodedata.normalize("NFC", text).strip()


def _parts(path: str) -> list[str]:
    return [clean(part) for part in path.split("/")]


def _alike(person: str) -> str:
    """What names share that differ in letter case, blanks, width or leading zeros alone."""
    folded = " ".join(unicodedata.normalize("NFKC", person).casefold().split())
    return re.sub(r"(?<!\d)0+(?=\d)", "", folded)


def _listed(names: Iterable[str]) -> str:
    """`anna/, bo/, carla/ and 4 more`."""
    names = sorted(names)
    return ", ".join(f"{name}/" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# ---- by sub-folders


def at_level(pictures: Collection[str], level: int, left_out: dict[str, str]) -> dict[str, Place]:
    """Path -> place, the person being sub-folder number `level`. Raises UserError for people who may be one."""
    places = {}
    for path in pictures:
        parts = _parts(path)
        if len(parts) > level:
            places[path] = Place(parts[level - 1], "__".join(parts[: level - 1] + parts[level:]))
        else:
            left_out[path] = f"lies in no sub-folder number {level}: whose is it?"
    _refuse_alike(places.values())
    return places


def of_folders(pictures: Collection[str], left_out: dict[str, str], doubts: list[str]) -> dict[str, Place]:
    """Path -> place, as the sub-folders are named. Raises UserError where they leave it open who is a person."""
    paths: dict[str, list[str]] = {}  # path -> its parts, without folders around the people
    for path in pictures:
        parts = _parts(path)
        beside = next((part for part in parts[:-1] if part.casefold() in NO_PICTURES), None)
        if beside is None:
            paths[path] = parts
        else:
            left_out[path] = f"lies in {beside}/, not with the pictures; label maps are given as parsing.folder.path"
    splits: dict[str, str] = {}  # path -> split, as its folder is named
    named: set[str] = set()
    depth = 0  # folders that were taken off
    while True:
        for path in [path for path, parts in paths.items() if len(parts) == 1]:
            left_out[path] = "is in no sub-folder: whose is it?"
            del paths[path]
        tops = {parts[0] for parts in paths.values()}
        words = {top: word for top in tops if not splits and (word := split_word(top))}
        around = {top for top in tops - set(words) if top.casefold() in AROUND}
        if not words and not around:
            break
        if tops not in (set(words), around):
            odd = set(words) or around
            raise UserError(
                f"folder: {_listed(odd)} beside {_listed(tops - odd)}: people, too? If so, set fetch.folder.level:"
                f" {depth + 1} in {layout.PARAMS}; if not, move or rename {'it' if len(odd) == 1 else 'them'}"
            )
        if words:
            named, splits = tops, {path: words[parts[0]] for path, parts in paths.items()}
        paths, depth = {path: parts[1:] for path, parts in paths.items()}, depth + 1
    if named and not paths:
        raise UserError(
            f"folder: {_listed(named)} are splits, and hold no sub-folder a person; make one for each, or say who is"
            " who in a CSV (fetch.folder.identity: csv)"
        )
    _groups(paths.values(), depth, doubts)
    if "test" not in splits.values():
        splits = {path: "test" if word == "val" else word for path, word in splits.items()}
    if "val" in splits.values():
        console.say("folder: the people in validation folders train, too: `pairs` chooses its own for validation")
        splits = {path: "train" if word == "val" else word for path, word in splits.items()}
    if len({*splits.values()}) < 2:
        splits = {}  # all in train/, or all in test/: nothing is divided by that
    places = {path: Place(parts[0], "__".join(parts[1:]), splits.get(path)) for path, parts in paths.items()}
    _refuse_both(places.values(), named, depth)
    _refuse_alike(places.values())
    if splits:
        console.say(f"folder: {_listed(named)} are taken for splits, the sub-folders in them for people")
    return places


def split_word(folder: str) -> str | None:
    """`train` of "Train", "train_images" and "bounding_box_train"; None of a folder that is not named as a split."""
    words = set(re.findall(r"[^\W\d_]+", folder.casefold())) - WITH_SPLITS
    return SPLIT_WORDS.get(words.pop()) if len(words) == 1 else None


def _groups(paths: Iterable[list[str]], depth: int, doubts: list[str]) -> None:
    """Look for folders of several people. Raises UserError if every first folder may be one, since none holds a picture
    itself and some hold several folders; a few of them among others are a doubt.
    """
    below: dict[str, set[str | None]] = defaultdict(set)
    for parts in paths:
        below[parts[0]].add(parts[1] if len(parts) > 2 else None)  # None: a picture of its own
    groups = {top for top, inside in below.items() if None not in inside and len(inside) > 1}
    if not groups:
        return
    inside = {one for top in groups for one in below[top] if one}
    setting = f"fetch.folder.level in {layout.PARAMS}"
    if all(None not in one for one in below.values()):
        raise UserError(
            f"folder: who are the people, {_listed(below)} or the folders in them, {_listed(inside)}? Set {setting}:"
            f" {depth + 1} for the former, {depth + 2} for the latter"
        )
    doubts.append(
        f"{_listed(groups)} taken for a person each, with several sub-folders: {_listed(inside)}; if those are the"
        f" people, move them up, and if not, {setting}: {depth + 1} says so"
    )


def _refuse_both(places: Iterable[Place], named: Collection[str], depth: int) -> None:
    """Raises UserError if somebody is in two splits."""
    given: dict[str, set[str | None]] = defaultdict(set)
    for place in places:
        given[place.person].add(place.split)
    both = sorted(person for person, splits in given.items() if len(splits) > 1)
    if both:
        raise UserError(
            f"folder: {len(both)} of {len(given)} people are in several of {_listed(named)}, such as {both[0]}, but a"
            f" person is either trained or tested on; fetch.folder.level: {depth + 1} in {layout.PARAMS} puts each"
            " person's pictures together, and test_share of the people aside for testing"
        )


def _refuse_alike(places: Iterable[Place]) -> None:
    """Raises UserError for two people whose names are nearly the same."""
    spelled: dict[str, str] = {}
    for place in places:
        before = spelled.setdefault(_alike(place.person), place.person)
        if before != place.person:
            raise UserError(
                f"folder: {before!r} and {place.person!r} differ in letter case, blanks or zeros alone: one person or"
                " two? Give the folders the same name, or names that differ more"
            )


# ---- by a CSV


def of_csv(csv_path: str | None, folder: str, pictures: Collection[str], left_out: dict[str, str]) -> dict[str, Place]:
    """Path -> place. Neither blanks around a field matter nor a file name's letter case and Unicode form, as long as it
    is clear which file is meant. Raises UserError, naming the line.
    """
    if csv_path is None:
        raise UserError(f"folder: identity is csv, but fetch.folder.csv in {layout.PARAMS} names no file")
    path = environment.path(csv_path)
    try:
        lines = foreign.read(path).decode("utf-8-sig").splitlines()
        first = lines[0] if lines else ""
        reader = csv.reader(lines, delimiter=next((one for one in ",;\t" if one in first), ","))
        rows = [([clean(field) for field in row], reader.line_num) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}: no CSV ({error}); correct it (fetch.folder.csv)") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); correct fetch.folder.csv") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not in UTF-8; save it so (fetch.folder.csv)") from None
    header = [field.casefold() for field in rows[0][0]] if rows else []
    if header not in (["name", "identity"], ["name", "identity", "split"]):
        raise UserError(f"{path}: line 1 is {first!r}, not the header name,identity or name,identity,split")
    known: dict[str, list[str]] = defaultdict(list)
    for name in (*pictures, *left_out):
        known[clean(name).casefold()].append(name)
    places: dict[str, Place] = {}
    spelled: dict[str, tuple[str, int]] = {}  # -> a person, as written first, and in which line
    given: dict[str, str] = {}
    for fields, number in rows[1:]:
        if not any(fields):
            continue
        where = f"{path}: line {number}"
        if len(fields) != len(header) or not all(fields):
            raise UserError(f"{where} has not the columns {','.join(header)}; correct it")
        written, person = fields[0].replace("\\", "/").removeprefix("./"), fields[1]
        name = _meant(written, known, where, folder)
        usual, line = spelled.setdefault(_alike(person), (person, number))
        if usual != person:
            raise UserError(f"{where}: {person!r} here, {usual!r} in line {line}: one person or two? Write it the same")
        split = fields[2].casefold() if len(fields) == 3 else None
        if split and (split not in SPLITS or given.setdefault(person, split) != split):
            raise UserError(f"{where}: a person's split is train or test, the same in every line; {person} has {split}")
        place = places.setdefault(name, Place(person, clean(name).replace("/", "__"), split))
        if place.person != person:
            raise UserError(f"{where}: {written} is {place.person} in a line before, {person} here")
    left_out |= {name: "is not in the CSV" for name in pictures if name not in places}
    return {name: place for name, place in places.items() if name not in left_out}


def _meant(written: str, known: Mapping[str, list[str]], where: str, folder: str) -> str:
    """The file that a CSV names. Raises UserError if there is none, or several."""
    found = known.get(written.casefold(), [])
    found = [name for name in found if clean(name) == written] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{where}: {written} may be {found[0]} or {found[1]}; write it as the file is named")
    end = written.casefold().rpartition("/")[2]
    near = sorted(names[0] for key, names in known.items() if key.rpartition("/")[2] == end)
    hint = f"{near[0]} is there: name the path below that folder" if near else "correct the name or remove the line"
    raise UserError(f"{where}: no image {written} in {folder}; {hint}")
