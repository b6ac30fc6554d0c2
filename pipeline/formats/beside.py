"""Which of a user's files, such as label maps or joints, belongs to which image."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import PurePosixPath

from pipeline.core.errors import UserError

PERSON = "__"  # between the parts of an image's id where it is a path: PERSON__NAME


def _key(image_id: str) -> str:
    return str(PurePosixPath(image_id).with_suffix("")).replace("/", PERSON)


def find(
    names: Iterable[str],
    images: Sequence[tuple[str, str]],
    ending: str,
    where: str,
    what: str,
    others: Sequence[str] = (),
) -> tuple[dict[str, str], int]:
    """The file of `names` (`/`-separated paths) that belongs to each image, and how many such files are left over.

    images: (image id, split), "" for any split.  ending: of the files' names, such as ".png", in any case.
    NAME + ending belongs to NAME.jpg (or whatever its suffix), in a folder train/ or test/, wherever that lies, if the
    image's split has such a file, else in any folder. An image PERSON__NAME may have its file as PERSON/NAME + ending,
    or as NAME + ending if no other image is called so, those of `others` included.

    Raises UserError if an image has none (how many have none, the first, what its file should be called, and the file
    that is called most like it) or more than one, and for a file of two images.
    """
    keys = {image_id: _key(image_id) for image_id, _ in images}
    everybody = {*keys.values(), *map(_key, others)}
    people = {key.partition(PERSON)[0] for key in everybody if PERSON in key}
    short: dict[str, list[str]] = defaultdict(list)  # without the person
    for key in everybody:
        short[key.partition(PERSON)[2]].append(key)
    alone = {name: owners[0] for name, owners in short.items() if name and len(owners) == 1}
    wanted = set(keys.values())
    claims: dict[str, list[tuple[str, str]]] = defaultdict(list)  # key -> (file, the folder that it lies in)
    spare: dict[str, list[tuple[str, str]]] = defaultdict(list)
    seen = []
    for name in names:
        path = PurePosixPath(name)
        if not name.lower().endswith(ending) or path.name.startswith("."):
            continue
        parts = ("", *path.parts[:-1], path.name[: -len(ending)])
        seen.append(PERSON.join(parts[1:]))
        for first in range(1, len(parts)):
            key = PERSON.join(parts[first:])
            if key in wanted:
                claims[key].append((name, parts[first - 1]))
            elif key in alone and parts[first - 1] not in people:
                spare[alone[key]].append((name, parts[first - 1]))
    found: dict[str, str] = {}
    owner: dict[str, str] = {}
    missing = []
    for image_id, split in images:
        key = keys[image_id]
        candidates = claims[key] or spare[key]
        candidates = [one for one in candidates if split and one[1] == split] or candidates
        if len(candidates) > 1:
            both = " and ".join(file for file, _ in candidates[:2])
            raise UserError(f"{where}: {both} are both named as the image {image_id}; keep one")
        if candidates:
            file = found[image_id] = candidates[0][0]
            if owner.setdefault(file, image_id) != image_id:
                raise UserError(f"{where}: {file} is of {owner[file]} or of {image_id}; images differ in ending only")
        else:
            missing.append((image_id, split))
    if missing:
        image_id, split = missing[0]
        key = keys[image_id]
        forms = [key + ending, *([key.replace(PERSON, "/", 1) + ending] if PERSON in key else [])]
        near = get_close_matches(key, seen[:1000], 1, 0)
        there = f"nearest to it: {near[0]}{ending}" if near else f"there is no {ending} file at all"
        raise UserError(
            f"{where}: no {what} for {len(missing)} of {len(images)} images,"
            f" the first {split and f'{split}/'}{image_id}; want {' or '.join(forms)},"
            f" in train/ and test/ or in one folder; {there}"
        )
    return found, len(seen) - len(owner)
