"""Market-1501 (Zheng et al., ICCV 2015): 32,668 crops of 1,501 people seen by six cameras, 128 x 64 pixels.

Keypoints and test pairs are those of PATN (Zhu et al., CVPR 2019), which every later paper uses. The images
are known by their content: any archive or folder that holds the published `bounding_box_train` and `bounding_box_test`
will do. A folder's digest is the SHA-256 of the lines "<sha256 of a file>  <its name>\\n", names sorted bytewise.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.core import console, layout
from pipeline.core.errors import UserError
from pipeline.core.settings import setting
from pipeline.datasets import SPLITS, About
from pipeline.fetching import download
from pipeline.formats import archive

HEIGHT, WIDTH = 128, 64
JUNK = ("-1", "0000")  # junk detections and distractors
FOLDERS = {"bounding_box_train": "train", "bounding_box_test": "test"}
TERMS = "for research only, not to be redistributed"
IMAGES_FROM = "https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html"
LISTS_FROM = "https://github.com/tengteng95/Pose-Transfer"
ABOUT = About(
    "Crops of pedestrians that six cameras before a supermarket took, a few of every person from each camera.",
    ("Liang Zheng", "Liyue Shen", "Lu Tian", "Shengjin Wang", "Jingdong Wang", "Qi Tian"),
    "Person",
    2015,
    IMAGES_FROM,
    IMAGES_FROM,
    "Market-1501",
    (
        "Photographs of people in public who were not asked: for research only, not to be redistributed.",
        "A detector's crops of 128 x 64 pixels: feet and heads can be cut off, a second person can be in a crop.",
        "Published joints are what OpenPose saw in these small pictures, with its errors.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Images(download.Source):
    train_sha256: str = setting("content digest of bounding_box_train", **download.SHA256)
    test_sha256: str = setting("content digest of bounding_box_test", **download.SHA256)


@dataclass(frozen=True)
class Fetch:
    """Block `fetch.market1501`: where each file may come from, and its digest."""

    images: Images = setting(
        "the official zip, any other packaging of the same images, or the unpacked folder",
        Images(
            file="market1501/Market-1501-v15.09.15.zip",
            train_sha256="db44dc1aa72e8e72bc61b2a69ae609798873741231dc6eec706be82debfbc972",
            test_sha256="d4e0084e534f7e6d1a70fdd330ebdf469f75d7b730a28ef2983e3038e377b504",
        ),
    )
    annotation_train: download.Download = setting(
        "PATN's keypoint list of the training images",
        download.Download(
            file="market1501/market-annotation-train.csv",
            sha256="ec1e10a86589bc4debf9137d92014f07335c63d1119bcfa2fb41218ba6553f1d",
        ),
    )
    annotation_test: download.Download = setting(
        "PATN's keypoint list of the test images",
        download.Download(
            file="market1501/market-annotation-test.csv",
            sha256="873b54ecd5b136c3c86a91f944a18507079ae40f0abcdc795015defa744ceb31",
        ),
    )
    pairs_test: download.Download = setting(
        "PATN's list of test pairs",
        download.Download(
            file="market1501/market-pairs-test.csv",
            sha256="3c5e5832a5d56e8fd30b033ec837866fbd321bcf68c5b81701f5f148e0804123",
        ),
    )


# Key of the block -> name in the raw folder.
_LISTS = {
    "annotation_train": "annotation-train.csv",
    "annotation_test": "annotation-test.csv",
    "pairs_test": "pairs-test.csv",
}


def person_id(name: str) -> str:
    """`0002_c1s1_000451_03.jpg` -> `0002`."""
    return name.partition("_")[0]


def fetch(block: Fetch, raw: Path, dataset: str) -> dict:
    """Gather, verify and normalise everything into `raw`; return what goes into `source.json`.

    Raises UserError: nothing to get it from (saying where to ask for it), a wrong digest, a broken archive.
    """
    found, missing = {}, []
    for key in ("images", *_LISTS):
        try:
            found[key] = download.obtain(getattr(block, key), f"fetch.{dataset}.{key}")
        except download.Unavailable as reason:
            missing.append((key, str(reason)))
    if missing:
        raise UserError(_how_to_get(block, missing))
    files = {name: download.place(found[key], raw / name) for key, name in _LISTS.items()}
    wanted = {split: getattr(block.images, f"{split}_sha256") for split in SPLITS}
    try:
        images = _repack(found["images"], raw / "images.zip", wanted)
    except UserError:
        download.discard(found["images"])
        raise
    return {
        "dataset": "Market-1501",
        "terms": TERMS,
        "homepage": IMAGES_FROM,
        "keypoints_and_pairs": LISTS_FROM,
        "height": HEIGHT,
        "width": WIDTH,
        "images": images,
        "files": files,
    }


def cannot_get(block: Fetch, dataset: str) -> str | None:
    """What there is no source of, and how to get it; None if nothing is missing. Nothing is read or downloaded."""
    missing = []
    for key in ("images", *_LISTS):
        try:
            download.whereabouts(getattr(block, key), f"fetch.{dataset}.{key}")
        except download.Unavailable as reason:
            missing.append((key, str(reason)))
    return _how_to_get(block, missing) if missing else None


def _how_to_get(block: Fetch, missing: list[tuple[str, str]]) -> str:
    keys = dict(missing)
    reasons = "; ".join(dict.fromkeys(keys.values()))
    message = f"market1501: cannot get {', '.join(keys)} ({reasons})."
    if "images" in keys:
        message += (
            f" Request the images at {IMAGES_FROM} ({TERMS}); give the zip or its unpacked folder as"
            f" fetch.market1501.images.path in {layout.PARAMS}, or put it at ${download.MIRROR}/{block.images.file}."
        )
    lists = [getattr(block, key).file for key in keys if key in _LISTS]
    if lists:
        message += (
            f" The keypoint and pair lists come with PATN ({LISTS_FROM}; for research only): give each as"
            f" fetch.market1501.<list>.path, or put {', '.join(lists)} into ${download.MIRROR}."
        )
    return message


def _members(names: list[str]) -> dict[str, str]:
    """`split/NAME` -> member, for the JPEGs whose own folder is one of FOLDERS, wherever in the archive that lies."""
    members: dict[str, str] = {}
    for member in names:
        path = PurePosixPath(member)
        split = FOLDERS.get(path.parent.name)
        if split is None or path.suffix.lower() != ".jpg" or path.name.startswith("."):
            continue  # queries, ground truth, Thumbs.db, what macOS adds
        if f"{split}/{path.name}" in members:
            raise UserError(f"two members for {split}/{path.name}: {members[f'{split}/{path.name}']} and {member}")
        members[f"{split}/{path.name}"] = member
    return members


def _repack(source: Path, target: Path, wanted: dict[str, str]) -> dict[str, dict]:
    """Copy the images of a zip or folder to the zip `target` in sorted order -> {split: {count, sha256}}."""
    lines = {split: hashlib.sha256() for split in SPLITS}
    counts = dict.fromkeys(SPLITS, 0)
    with archive.reading(source) as content:
        members = _members(content.names)
        if not members:
            raise UserError(f"{source}: no JPEG in a folder {' or '.join(FOLDERS)}; is this Market-1501?")

        def images(advance) -> Iterator[tuple[str, bytes]]:
            for name in sorted(members, key=str.encode):
                data = content.read(members[name])
                split, _, image_id = name.partition("/")
                lines[split].update(f"{hashlib.sha256(data).hexdigest()}  {image_id}\n".encode())
                counts[split] += 1
                yield name, data
                advance()

        with console.progress("images", len(members)) as advance:
            archive.write(target, images(advance))
    for folder, split in FOLDERS.items():
        found = lines[split].hexdigest()
        if not found.startswith(wanted[split]):
            raise UserError(
                f"{source}: {folder} ({counts[split]} images) has content digest {found},"
                f" fetch.market1501.images.{split}_sha256 says {wanted[split]}; images missing, added or changed"
            )
    return {split: {"count": counts[split], "sha256": lines[split].hexdigest()} for split in SPLITS}
