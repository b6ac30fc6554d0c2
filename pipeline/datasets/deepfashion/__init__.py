"""DeepFashion In-shop Clothes Retrieval (Liu et al., CVPR 2016): 52,712 photographs, in the form that PATN gave them.

PATN's lists decide which image is in which split (48,674 train, 4,038 test), name it by its path without the separators
(`published_name`), and give 8,570 test pairs. Several forms of the images are in use (FORMS), and results differ:

canvas256   `img.zip` as it is: 256 x 256, the photograph in the middle, bands at its sides (Def-GAN, SPT, SPGNet)
crop176     its columns 40 to 215: 256 x 176 (PATN and who follows). Cropped without loss; PATN saved JPEGs again
squash256   `img_highres.zip` (750 x 1101) squeezed to 256 x 256 (GFLA, SPIG): Pillow's bicubic filter, which GFLA's
            author names as the one behind the images it is scored against; stored without loss
resize176   `img_highres.zip` resized to 256 x 176 and 512 x 352 (height x width) by the same filter from the published
resize352   JPEG (NTED, CFLD, MCLD); resize176-cv2-bilinear and the like: by another one (filters.py). Without loss

A joint at x on the canvas is at x - 40 on the crop, which may be outside (-31 to 205 in the test list). A photograph
takes the place of the crop in all else: squashed, a joint is at (x - 40) 256 / 176, at 512 x 352 at 2 (x - 40) and 2 y,
as the published code has it, though the photograph is 174.4 pixels wide on the canvas, not 176.

An identity (`person_id`) is one outfit, the name without the view: `fashionMENDenimid0000008001`. All ordered pairs of
an outfit's images with both shoulders and both hips, in the order of the keypoint list, shuffled by
numpy.random.RandomState(0).permutation, are PATN's 8,570 test pairs, line for line.

A set with images missing is refused unless `allow_partial`; then every list is cut to what is there. With no training
image at all, some of the test outfits stand in (`borrowed`), so that what is there trains and scores.
"""

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from pipeline.core import console, foreign, layout
from pipeline.core.digests import sha256
from pipeline.core.errors import UserError
from pipeline.core.settings import SHARE, setting
from pipeline.datasets import SPLITS, About
from pipeline.datasets.deepfashion.filters import FILTERS
from pipeline.fetching import download
from pipeline.fetching.download import Download, Source
from pipeline.formats import annotations, archive

JUNK = ()  # photographs of clothes alone have no joints, and so enter no pair
TERMS = "for non-commercial research only, not to be redistributed"
IMAGES_FROM = "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html"
DRIVE = "https://drive.google.com/drive/folders/0B7EVK8r0v71pYkd5TzBiclMzR00"
LISTS_FROM = "https://github.com/tengteng95/Pose-Transfer"
CANVAS = 256  # height and width of the images in img.zip
ABOUT = About(
    "Photographs of clothes from online shops, most of them worn by models, several views of an outfit.",
    ("Ziwei Liu", "Ping Luo", "Shi Qiu", "Xiaogang Wang", "Xiaoou Tang"),
    "Person",
    2016,
    IMAGES_FROM,
    IMAGES_FROM,
    "DeepFashion",
    (
        "Photographs of people, under an agreement: for non-commercial research only, not to be redistributed.",
        "An identity is an outfit, not a person: the same model can be in both splits.",
        "Models before plain walls, most of them women, in a catalogue's poses; many photographs show half a body.",
        "Several forms of the images are in use, whose numbers compare with none of each other (docs/data.md).",
    ),
)
LEFT, CROP = 40, 176  # the columns of the canvas that PATN keeps


@dataclass(frozen=True)
class Form:
    """One of the forms: which archive it is made from, its size, and by which of FILTERS (None: no pixel changes).

    `left`: the column of the canvas at which its left edge lies, and its right edge as far from the other side.
    """

    images: str  # key of the fetch block
    height: int = CANVAS
    width: int = CANVAS
    left: int = LEFT
    filter: str | None = None

    @property
    def scale(self) -> tuple[float, float]:
        """A joint at (x, y) on the canvas is at ((x - left) scale[0], y scale[1])."""
        return self.width / (CANVAS - 2 * self.left), self.height / CANVAS


FORMS = {
    "canvas256": Form("img", left=0),
    "crop176": Form("img", width=CROP),
    "squash256": Form("img_highres", filter="bicubic"),
    "resize176": Form("img_highres", 256, 176, filter="bicubic"),
    "resize176-cv2-bilinear": Form("img_highres", 256, 176, filter="cv2-bilinear"),
    "resize176-cv2-cubic": Form("img_highres", 256, 176, filter="cv2-cubic"),
    "resize176-squashed": Form("img_highres", 256, 176, filter="squashed"),
    "resize352": Form("img_highres", 512, 352, filter="bicubic"),
    "resize352-cv2-bilinear": Form("img_highres", 512, 352, filter="cv2-bilinear"),
    "resize352-cv2-cubic": Form("img_highres", 512, 352, filter="cv2-cubic"),
}


@dataclass(frozen=True)
class Fetch:
    """Block `fetch.deepfashion`: the form, where each file may come from, and its digest if it is known."""

    protocol: str = setting(
        "img.zip as it is, its middle, or img_highres.zip resized: docs/data.md", "canvas256", enum=[*FORMS]
    )
    allow_partial: bool = setting("true: with images missing, every list is cut to what is there", False)
    train_share: float = setting("of the test items, to train on where no training image is there", 0.6, **SHARE)
    password_env: str = setting(
        "environment variable that holds the archive's password",
        "DEEPFASHION_PASSWORD",
        pattern="^[A-Za-z_][A-Za-z0-9_]*$",
    )
    # Of the lines "<sha256 of an image's file>  <listed name>\n", names sorted bytewise.
    content_sha256: str | None = setting(
        "digest of the listed images; null: not checked (raw/source.json states yours)", None, **download.SHA256
    )
    img: Source = setting("img.zip or the unpacked folder: gated", Source(file="deepfashion/img.zip"))
    img_highres: Source = setting("img_highres.zip, likewise", Source(file="deepfashion/img_highres.zip"))
    train_list: Download = setting(
        "PATN's list of the training images",
        Download(
            file="deepfashion/train.lst",
            url="https://raw.githubusercontent.com/tengteng95/Pose-Transfer/master/fashion_data/train.lst",
            sha256="50f41143dc61c730935a4f97c02bf4c221b030e72af1dcfd6838949227f361d8",
        ),
    )
    test_list: Download = setting(
        "PATN's list of the test images",
        Download(
            file="deepfashion/test.lst",
            url="https://raw.githubusercontent.com/tengteng95/Pose-Transfer/master/fashion_data/test.lst",
            sha256="336650cb7febac6ea0456b9b8c85e1759454fb96bfe14f95243738a81008febf",
        ),
    )
    annotation_width: Literal[256, 176] | None = setting(
        "of the canvas that the keypoint lists count x on: 256, or 176 for the crop; null: by where necks lie", None
    )
    annotation_train: Download = setting(
        "PATN's keypoint list of the training images",
        Download(file="deepfashion/fasion-annotation-train.csv"),
    )
    annotation_test: Download = setting(
        "PATN's keypoint list of the test images",
        Download(
            file="deepfashion/fasion-annotation-test.csv",
            sha256="365e405fec44c94190ae8a261a0739ca180a3b645732e31b841e959e915aa45c",
        ),
    )
    pairs_train: Download = setting(
        "PATN's list of training pairs", Download(file="deepfashion/fashion-resize-pairs-train.csv")
    )
    pairs_test: Download = setting(
        "PATN's list of test pairs",
        Download(
            file="deepfashion/fashion-resize-pairs-test.csv",
            sha256="3da031d5b376d544a1cc6e24f2618d9909e8d3bd4f9f44d7f355c9e02be644ba",
        ),
    )


_LISTS = ("train_list", "test_list", "annotation_train", "annotation_test", "pairs_train", "pairs_test")
_OPTIONAL = ("annotation_train", "annotation_test", "pairs_train")


def person_id(name: str) -> str:
    """`fashionWOMENDressesid0000000202_1front.jpg` -> `fashionWOMENDressesid0000000202`: one outfit."""
    return name.rpartition("_")[0]


def published_name(path: str) -> str | None:
    """`img/WOMEN/Dresses/id_00000002/02_1_front.jpg` -> `fashionWOMENDressesid0000000202_1front.jpg`.

    Only the last four parts count. Underscores go from the item and, but for the first, from the view; a category keeps
    its own (`Tees_Tanks`). None if there are fewer than four parts.
    """
    parts = PurePosixPath(path.replace("\\", "/")).with_suffix(".jpg").parts[-4:]
    if len(parts) < 4:
        return None
    gender, category, item, view = parts
    outfit, _, rest = view.partition("_")
    return f"fashion{gender}{category}{item.replace('_', '')}{outfit}_{rest.replace('_', '')}"


def fetch(block: Fetch, raw: Path, dataset: str) -> dict:
    """Gather, check and normalise everything into `raw`; return what goes into `source.json`.

    Raises UserError: nothing to get it from (saying where to ask for it), a wrong digest or password, images that are
    missing or not of the form's kind.
    """
    form = FORMS[block.protocol]
    found, missing = {}, {}
    for key in (form.images, *_LISTS):
        try:
            found[key] = download.obtain(getattr(block, key), f"fetch.{dataset}.{key}")
        except download.Unavailable as reason:
            missing[key] = str(reason)
    if not missing.keys() <= set(_OPTIONAL):
        raise UserError(_how_to_get(block, dataset, form.images, missing))
    listed = {split: _names(found[f"{split}_list"]) for split in SPLITS}
    source = found[form.images]
    password = os.fsencode(os.environ.get(block.password_env, ""))
    with archive.reading(source, password) as content:
        if content.encrypted and not password:
            raise UserError(
                f"{source}: encrypted; put its password into the environment variable {block.password_env}, or unpack"
                f" it and give the folder as fetch.{dataset}.{form.images}.path"
            )
        if content.encrypted:
            console.say(f"{dataset}: decrypting at about 2 MB a second; to unpack it first is faster")
        members = _members(content.names, {*listed["train"], *listed["test"]}, form.images)
        splits, partial = _splits(listed, members, block, f"fetch.{dataset}", source)
        digest = _repack(content, members, splits, raw / "images.zip", block, dataset, source)
    counts = {split: sum(one == split for one in splits.values()) for split in SPLITS}
    kept = _write_keypoints(found, splits, raw, block, bool(partial), dataset)
    pairs = _write_pairs(found, splits, raw, partial)
    if partial:
        partial["pairs"] = pairs
        console.say(f"{dataset} is partial: {_described(partial, counts)}")
    for split in SPLITS:
        if split not in kept:
            console.say(
                f"{dataset}: no keypoint list for {split}: set keypoints.{dataset}.source in {layout.PARAMS} to"
                f" openpose, or get PATN's ({LISTS_FROM}) and give it as fetch.{dataset}.annotation_{split}.path"
            )
    return {
        "dataset": "DeepFashion In-shop",
        "protocol": block.protocol,
        "terms": TERMS,
        "homepage": IMAGES_FROM,
        "keypoints_and_pairs": LISTS_FROM,
        "height": form.height,
        "width": form.width,
        "images": {split: {"count": counts[split]} for split in SPLITS},
        "content_sha256": digest,
        "files": {key: sha256(found[key]) for key in _LISTS if key in found},
    } | ({"partial": partial} if partial else {})


def cannot_get(block: Fetch, dataset: str) -> str | None:
    """What there is no source of, and how to get it; None if nothing is missing. Nothing is read or downloaded."""
    images, missing = FORMS[block.protocol].images, {}
    for key in (images, *_LISTS):
        try:
            download.whereabouts(getattr(block, key), f"fetch.{dataset}.{key}")
        except download.Unavailable as reason:
            missing[key] = str(reason)
    return None if missing.keys() <= set(_OPTIONAL) else _how_to_get(block, dataset, images, missing)


def _how_to_get(block: Fetch, dataset: str, images: str, missing: dict[str, str]) -> str:
    reasons = "; ".join(dict.fromkeys(missing.values()))
    message = f"{dataset}: cannot get {', '.join(missing)} ({reasons})."
    if images in missing:
        message += (
            f" Ask for the images at {IMAGES_FROM} (In-shop; {TERMS}): sign the research agreement, take the archive"
            f" from {DRIVE}, put the password that the owners send into the environment variable {block.password_env},"
            f" and give the archive or its unpacked folder as fetch.{dataset}.{images}.path in {layout.PARAMS}, or put"
            f" it at ${download.MIRROR}/{getattr(block, images).file}."
        )
    lists = [getattr(block, key).file for key in missing if key in _LISTS]
    if lists:
        message += (
            f" The lists come with PATN ({LISTS_FROM}; for research only): give each as fetch.{dataset}.<list>.path, or"
            f" put {', '.join(lists)} into ${download.MIRROR}"
        )
        spare = [key for key in missing if key in _OPTIONAL]
        message += f" ({', '.join(spare)} may stay away: docs/data.md)." if spare else "."
    return message


def _names(path: Path) -> list[str]:
    """The names in an image list, a line each. Raises UserError for a name that occurs twice or is no such name."""
    names = foreign.read(path).decode(errors="replace").split()
    if not names or len(set(names)) < len(names) or not all(name.endswith(".jpg") for name in names):
        raise UserError(
            f"{path}: not a list of different .jpg names, one a line; is this PATN's train.lst or test.lst?"
        )
    return names


def _members(names: Sequence[str], listed: Collection[str], folder: str) -> dict[str, str]:
    """Listed name -> member, wherever in the archive it lies, by its In-shop path or already under its listed name.

    Where img/ and img_highres/ lie side by side, `folder` says which of the two is wanted.
    """
    candidates: dict[str, list[str]] = {}
    for member in names:
        path = PurePosixPath(member)
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png") or path.name.startswith("."):
            continue
        for name in (path.with_suffix(".jpg").name, published_name(member)):
            if name in listed:
                candidates.setdefault(name, []).append(member)
    members = {}
    for name, several in candidates.items():
        if len(several) > 1:
            several = [member for member in several if folder in PurePosixPath(member).parts] or several
        if len(several) > 1:
            raise UserError(f"two members for {name}: {several[0]} and {several[1]}")
        members[name] = several[0]
    return members


def _splits(
    listed: dict[str, list[str]], members: Collection[str], block: Fetch, key: str, source: Path
) -> tuple[dict[str, str], dict]:
    """Listed name -> split of every image that is there, and what is partial about it (empty if nothing is)."""
    splits = {name: split for split in SPLITS for name in listed[split] if name in members}
    if not splits:
        raise UserError(f"{source}: none of the listed images is in it; is this DeepFashion In-shop (img/WOMEN/...)?")
    absent = {split: [name for name in listed[split] if name not in members] for split in SPLITS}
    if not any(absent.values()):
        return splits, {}
    if not block.allow_partial:
        counts = ", ".join(f"{len(absent[split])} of {len(listed[split])} {split}" for split in SPLITS)
        first = next(name for names in absent.values() for name in names)
        raise UserError(
            f"{source}: {counts} images are missing (such as {first}); {key}.allow_partial: true takes the rest"
        )
    partial = {
        "listed": {split: len(listed[split]) for split in SPLITS},
        "present": {split: len(listed[split]) - len(absent[split]) for split in SPLITS},
    }
    if not partial["present"]["train"]:
        stand_in = borrowed(list(splits), block.train_share)
        splits = {name: "train" if name in stand_in else "test" for name in splits}
        partial["train_share"] = block.train_share
    return splits, partial


def borrowed(names: Sequence[str], share: float) -> set[str]:
    """The images that stand in for a training split: those of the first round(share x number) items (at least one, not
    all) by the SHA-256 of their name. An item's outfits stay together, so no garment is on both sides.
    """
    item = {name: person_id(name)[:-2] for name in names}
    ranked = sorted(set(item.values()), key=lambda one: hashlib.sha256(one.encode()).digest())
    chosen = set(ranked[: max(1, min(round(share * len(ranked)), len(ranked) - 1))])
    return {name for name in names if item[name] in chosen}


def _described(partial: dict, counts: dict[str, int]) -> str:
    there = ", ".join(f"{partial['present'][split]} of {partial['listed'][split]} {split}" for split in SPLITS)
    text = f"{there} images are there"
    if "train_share" in partial:
        text += (
            f"; {counts['train']} of the test images stand in for the training split, {counts['test']} stay test images"
        )
    kept = ", ".join(f"{of['kept']} of {of['published']} {split} pairs" for split, of in partial["pairs"].items())
    if cut := partial["pairs"].get("test", {}).get("train_share"):
        kept += f" ({cut} were cut because images of theirs train now: train_share)"
    return f"{text}; kept {kept}. Scores on it compare with nothing published"


def convert(data: bytes, protocol: str) -> tuple[bytes, tuple[int, int] | None]:
    """An image's file in one of FORMS: (bytes to store, (height, width) as received or None if it does not decode).

    canvas256 keeps the bytes. An image that the form does not take stays as it is too: `index` rejects it by its size.
    """
    from PIL import Image

    form, converted = FORMS[protocol], BytesIO()
    try:
        with Image.open(BytesIO(data)) as image:
            size = image.height, image.width
            if protocol == "canvas256" or not _takes(form, size):
                return data, size
            picture = image.convert("RGB")
            if form.filter is None:
                picture = picture.crop((form.left, 0, form.left + form.width, form.height))
            else:
                picture = Image.fromarray(FILTERS[form.filter](np.asarray(picture), form.height, form.width))
            picture.save(converted, "PNG", compress_level=3)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return data, None
    return converted.getvalue(), size


def _takes(form: Form, size: tuple[int, int]) -> bool:
    """Whether the form is made from images of this size: 256 x 256, or the shape of 750 x 1101 within 3 %."""
    if form.filter:
        return abs(size[1] * 1101 / (size[0] * 750) - 1) < 0.03
    return size == (CANVAS, CANVAS)


def _repack(
    content, members: dict[str, str], splits: dict[str, str], target: Path, block: Fetch, dataset: str, source: Path
) -> str:
    """Write the images in sorted order to the zip `target`; return the digest of their files as received."""
    ordered = sorted(splits, key=lambda name: f"{splits[name]}/{name}".encode())
    digests: dict[str, str] = {}
    sizes: dict[tuple[int, int] | None, int] = {}

    def images(advance) -> Iterator[tuple[str, bytes]]:
        converted = archive.converted(
            content, [members[name] for name in ordered], lambda d: convert(d, block.protocol)
        )
        for name, (received, (stored, size)) in zip(ordered, converted, strict=True):
            digests[name] = hashlib.sha256(received).hexdigest()
            sizes[size] = sizes.get(size, 0) + 1
            yield f"{splits[name]}/{name}", stored
            advance()

    with console.progress("images", len(ordered)) as advance:
        archive.write(target, images(advance))
    form = FORMS[block.protocol]
    resized_twice = form.filter and (CANVAS, CANVAS) in sizes  # the other archive's among them
    if resized_twice or not any(size and _takes(form, size) for size in sizes):
        size = (CANVAS, CANVAS) if resized_twice else max(sizes, key=sizes.__getitem__)
        wanted = "750 x 1101 (img_highres.zip)" if form.filter else "256 x 256 (img.zip)"
        shown = f"{size[1]} x {size[0]}" if size else "not readable"
        raise UserError(
            f"{source}: its images are {shown}; fetch.{dataset}.protocol {block.protocol} is made from {wanted}"
        )
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests, key=str.encode))
    digest = hashlib.sha256(lines.encode()).hexdigest()
    if block.content_sha256 and not digest.startswith(block.content_sha256):
        raise UserError(
            f"{source}: its {len(digests)} listed images have content digest {digest}, fetch.{dataset}.content_sha256"
            f" says {block.content_sha256}; images missing or changed"
        )
    return digest


def _left_of(path: Path, joints: np.ndarray, valid: np.ndarray, width: int | None, key: str) -> int:
    """The canvas's column from which a keypoint list counts x: 0 or LEFT. joints (N, 18, 2), valid (N, 18).

    People stand in the middle of the photograph, so their necks tell: half of those of PATN's test list lie within 8
    columns of the canvas's middle. Raises UserError where the list counts from neither, or contradicts `width`.
    """
    necks = joints[valid[:, 1], 1, 0]
    if not len(necks):
        return LEFT if width == CROP else 0
    middle = float(np.median(necks))
    told = next((wide for wide in (CANVAS, CROP) if abs(middle - (wide - 1) / 2) < LEFT / 2), None)
    if told is None or width not in (None, told):
        wanted = f"{(CANVAS - 1) / 2} on the {CANVAS}-wide canvas, {(CROP - 1) / 2} on the {CROP}-wide crop"
        remedy = f"set {key}.annotation_width to null or {told}" if told else "get PATN's list"
        raise UserError(f"{path}: half of the necks lie left of x {middle:.0f}, not of {wanted}; {remedy}")
    return 0 if told == CANVAS else LEFT


def _write_keypoints(
    found: dict, splits: dict[str, str], raw: Path, block: Fetch, partial: bool, dataset: str
) -> list[str]:
    """Write `annotation-SPLIT.csv` on the form's canvas for every split that has one; return those splits.

    A whole list on its own canvas is copied byte for byte. Raises UserError for a list of another canvas.
    """
    lists = [key for key in ("annotation_train", "annotation_test") if key in found]
    if not lists:
        return []
    form = FORMS[block.protocol]
    parts = [annotations.read_keypoints(found[key]) for key in lists]
    lefts = [
        _left_of(found[key], *part[1:], block.annotation_width, f"fetch.{dataset}")
        for key, part in zip(lists, parts, strict=True)
    ]
    if not partial and all((form.left, form.scale) == (left, (1, 1)) for left in lefts):
        for key in lists:
            download.place(found[key], raw / f"{key.replace('_', '-')}.csv")
        return [key.removeprefix("annotation_") for key in lists]
    if len(set(lefts)) > 1:
        each = (
            f"{key} counts x on pictures {CROP if left else CANVAS} wide"
            for key, left in zip(lists, lefts, strict=True)
        )
        console.say(f"{dataset}: by where necks lie, {' and '.join(each)}; moved onto one canvas")
    for (_, joints, _), left in zip(parts, lefts, strict=True):
        joints[..., 0] += left - form.left
        joints *= form.scale
    names = [name for part in parts for name in part[0]]
    joints, valid = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    written = []
    for split in SPLITS:
        rows = [row for row, name in enumerate(names) if splits.get(name) == split]
        if rows:
            lines = annotations.keypoint_lines(
                [names[row] for row in rows],
                joints[rows],
                valid[rows],
                decimals=0 if all(scale == round(scale) for scale in form.scale) else 3,
            )
            (raw / f"annotation-{split}.csv").write_text("".join(lines), encoding="utf-8", newline="\n")
            written.append(split)
    return written


def _write_pairs(found: dict, splits: dict[str, str], raw: Path, partial: dict) -> dict[str, dict[str, int]]:
    """Write `pairs-SPLIT.csv`, without the pairs that lack an image; return {split: {published, kept}}, and under
    `train_share` how many were cut because images of theirs stand in for training images.

    Raises UserError for a list with pairs of another split.
    """
    counts = {}
    for split in SPLITS:
        if f"pairs_{split}" not in found:
            continue
        target = raw / f"pairs-{split}.csv"
        pairs = annotations.read_pairs(found[f"pairs_{split}"])
        kept = [pair for pair in pairs if splits.get(pair[0]) == splits.get(pair[1]) == split]
        counts[split] = {"published": len(pairs), "kept": len(kept)}
        foreign = [pair for pair in pairs if {splits.get(name, split) for name in pair} != {split}]
        if foreign and "train_share" not in partial:
            source, target = foreign[0]
            raise UserError(
                f"{found[f'pairs_{split}']}: {len(foreign)} of {len(pairs)} pairs, the first {source},{target}, are not"
                f" both in the {split} list: the pairs of another split?"
            )
        if foreign and split == "test":
            counts[split]["train_share"] = sum(splits.keys() >= set(pair) for pair in foreign)
        if not kept and split == "train":
            continue  # others stand in for the training images: their pairs come by the rule
        if partial:
            target.write_text("".join(annotations.pair_lines(kept)), encoding="utf-8", newline="\n")
        elif len(kept) < len(pairs):
            other = next(pair for pair in pairs if not splits.get(pair[0]) == splits.get(pair[1]) == split)
            raise UserError(f"{found[f'pairs_{split}']}: {other[0]},{other[1]} are not both in the {split} list")
        else:
            download.place(found[f"pairs_{split}"], target)
    return counts
