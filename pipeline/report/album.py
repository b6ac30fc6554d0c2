"""The pictures and drawn poses of a page, each kept once: in the page, or in the folder beside it."""

import base64
import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.anatomy import pose
from pipeline.core import layout, schema
from pipeline.core.errors import UserError
from pipeline.formats import pictures

EMBEDDED = 8 * 2**20  # characters of pictures in a page; the rest goes into the folder beside it

LONG = 200_000  # bytes of a csv file, from which on it is compressed


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def download(path: Path) -> dict[str, str]:
    """A csv file as a link that holds it: compressed if it is long. Without a time stamp: equal files, equal bytes."""
    content = path.read_bytes()
    if len(content) > LONG:
        return {"name": f"{path.name}.gz", "uri": data_uri(gzip.compress(content, mtime=0), "application/gzip")}
    return {"name": path.name, "uri": data_uri(content, "text/csv")}


@dataclass
class Picture:
    """One stored picture; sizes in pixels. A page draws one with several `uses` from one copy."""

    id: str
    uri: str
    height: int
    width: int
    embedded: bool
    uses: int = 0


def skeleton(keypoints: list, height: int, width: int) -> dict:
    """Joints as coloured lines and dots for the template's SVG."""
    joints, valid = pose.to_array(keypoints)
    point = [(round(float(x), 1), round(float(y), 1)) for x, y in joints]
    limbs = [
        {"from": point[a], "to": point[b], "hue": round(360 * index / len(pose.SKELETON))}
        for index, (a, b) in enumerate(pose.SKELETON)
        if valid[a] and valid[b]
    ]
    dots = [point[joint] for joint in range(schema.JOINTS) if valid[joint]]
    return {"limbs": limbs, "dots": dots, "height": height, "width": width, "seen": int(valid.sum())}


class Album:
    """Collects what a page shows. `beside`: file name -> bytes of the pictures that it links."""

    def __init__(self, limit: int = EMBEDDED):
        self.limit = limit
        self.size = 0  # characters embedded
        self.over = 0  # pictures that went beside the page because it was full
        self.beside: dict[str, bytes] = {}
        self._pictures: dict[tuple[str, bool], Picture] = {}
        self._poses: dict[str, dict] = {}

    def add(self, content: bytes, what: str, link: bool) -> Picture:
        """A stored picture, encoded. link: into the folder, whatever its size. Raises UserError, naming `what`, if it
        does not decode.
        """
        digest = hashlib.sha256(content or b"").hexdigest()[:24]
        picture = self._pictures.get((digest, link))
        if picture is None:
            picture = self._pictures[digest, link] = self._take(content or b"", digest, what, link)
        picture.uses += 1
        return picture

    def _take(self, content: bytes, digest: str, what: str, link: bool) -> Picture:
        array = pictures.decode(content)
        if array is None:
            raise UserError(f"{what}: does not decode as a picture; run score again")
        kind = {b"\x89PNG": "png", b"RIFF": "webp"}.get(content[:4], "jpeg")
        uri = data_uri(content, f"image/{kind}")
        full = self.size + len(uri) > self.limit
        self.over += full and not link
        if link or full:
            name = f"{digest}.{kind}"
            self.beside[name] = content
            uri = f"{layout.REPORT_PICTURES.name}/{name}"
        else:
            self.size += len(uri)
        return Picture(digest, uri, *array.shape[:2], embedded=not (link or full))

    def add_pose(self, keypoints: list, height: int, width: int) -> dict:
        """`skeleton` of a stored pose, with its `id` and `uses`."""
        digest = hashlib.sha256(repr((keypoints, height, width)).encode()).hexdigest()[:24]
        found = self._poses.setdefault(digest, skeleton(keypoints, height, width) | {"id": digest, "uses": 0})
        found["uses"] += 1
        return found

    @property
    def shared_poses(self) -> list[dict]:
        """Poses that the page draws more than once."""
        return [pose for pose in self._poses.values() if pose["uses"] > 1]

    @property
    def shared(self) -> list[Picture]:
        """Embedded pictures that the page shows more than once."""
        return [picture for picture in self._pictures.values() if picture.embedded and picture.uses > 1]

    @property
    def embedded(self) -> int:
        """How many pictures the page holds."""
        return sum(picture.embedded for picture in self._pictures.values())
