"""Zip archives: other people's are read with care, our own are the same bytes whenever they are written.

A password opens what zip's traditional encryption closed. AES, which Python cannot read, is named as such.

Windows' `\\` in a name is a `/` here, and what is not UTF-8 in one is escaped: `caf\\xe9.jpg`.

An archive may not name a member outside its own folder, hold a link, be cut short, or unpack to far more than a file
of its size can honestly hold: each is one line (UserError). Nothing is ever unpacked to a path that an archive chose.
"""

import errno
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pipeline.core import foreign
from pipeline.core.console import readable
from pipeline.core.errors import UserError, is_shortage

T = TypeVar("T")
MAX_MEMBERS = 1_000_000
MAX_MEMBER_BYTES = foreign.PICTURE
MAX_BYTES = 64 << 30
MAX_RATIO = 100  # pictures hardly shrink; deflate reaches 1,000 only on a file made to fill a disk
_DATE = (1980, 1, 1, 0, 0, 0)
_DRIVE = re.compile(r"^[A-Za-z]:")
_ENCRYPTED = 0x1  # flag bit of a member
_AES = 99  # compression method that stands for WinZip's AES
# Python unpacks all other methods' data at once, however much that comes to.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def _by_name(members: Iterable[tuple[str, T]], where: Path) -> dict[str, T]:
    """Members by their names, `/`-separated and readable. Raises UserError for two that then have one name."""
    found: dict[str, T] = {}
    for written, member in members:
        name = readable(written.replace("\\", "/"))
        if name in found:
            raise UserError(f"{where}: two members are called {name}; keep one of them")
        found[name] = member
    return found


def _of_content(error: Exception) -> bool:
    """Whether an error is about what is in an archive, of which a damaged one can make zipfile raise any kind: not
    about the machine.
    """
    return not is_shortage(error) and getattr(error, "errno", None) in (None, errno.EINVAL)


def _place(path: Path) -> tuple[int, int]:
    """The same for the same file or folder, by whatever name."""
    status = path.stat()
    return status.st_dev, status.st_ino


class Folder:
    """An unpacked folder, read like an archive. `names`: paths of its files below it, `/`-separated, linked folders'
    too. `files`: where each lies. `unread`: what else is there, such as a link to nothing -> why it is no file to read.

    Raises UserError for two files whose names are one (see `_by_name`).
    """

    encrypted = False

    def __init__(self, path: Path):
        self.path = path
        self.unread: dict[str, str] = {}
        self.files = _by_name(((found.relative_to(path).as_posix(), found) for found in self._below(path)), path)
        self.names = sorted(self.files)

    def _below(self, folder: Path) -> Iterator[Path]:
        """The files below a folder, its linked folders' too, but for a link to a folder around it."""
        waiting: list[tuple[Path, tuple[tuple[int, int], ...]]] = [(folder, ())]  # with the folders around it
        for _ in range(MAX_MEMBERS):
            if not waiting:
                return
            path, around = waiting.pop()
            try:
                if not path.is_dir():
                    if path.is_file():
                        yield path
                    else:
                        self._leave(path, "is a link to nothing" if path.is_symlink() else "is no file")
                elif (place := _place(path)) in around:
                    self._leave(path, "is a link to a folder around it")
                else:
                    waiting += [(found, (*around, place)) for found in sorted(path.iterdir(), reverse=True)]
            except OSError as error:
                self._leave(path, f"cannot be read ({error.strerror})")
        raise UserError(f"{self.path}: more than {MAX_MEMBERS} files and folders, with what its links repeat; refused")

    def _leave(self, path: Path, why: str) -> None:
        self.unread[readable(path.relative_to(self.path).as_posix())] = why

    def size(self, name: str) -> int:
        """In bytes."""
        return self.files[name].stat().st_size

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises UserError above MAX_MEMBER_BYTES."""
        with self.files[name].open("rb") as handle:
            data = handle.read(MAX_MEMBER_BYTES + 1)
        if len(data) > MAX_MEMBER_BYTES:
            raise UserError(f"{self.path}: {name} is larger than {MAX_MEMBER_BYTES >> 20} MiB; not a picture")
        return data


class Archive:
    """A zip archive, checked on opening. `names`: its members that are files, in the archive's order, `/`-separated.
    `encrypted`: whether any of them is.

    Raises UserError if it is no whole zip archive, names a path outside its own folder (`..`, absolute, a drive),
    holds a link or two members of one name, is encrypted with AES, or would unpack to more than MAX_MEMBERS, MAX_BYTES
    or MAX_RATIO times its size on disk.
    """

    def __init__(self, path: Path, password: bytes = b""):
        self.path = path
        self._password = password
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:
            if not _of_content(error):
                raise
            raise UserError(f"{path}: not a whole zip archive ({error}); cut short? get it again") from None
        try:
            self._check()
            files = (info for info in self._zip.infolist() if info.filename[-1:] not in ("/", "\\"))
            self._members = _by_name(((info.filename, info) for info in files), path)
        except BaseException:
            self._zip.close()
            raise
        self.names = list(self._members)
        self.encrypted = any(info.flag_bits & _ENCRYPTED for info in self._zip.infolist())

    def _check(self) -> None:
        members = self._zip.infolist()
        if len(members) > MAX_MEMBERS:
            raise UserError(f"{self.path}: {len(members)} members, more than {MAX_MEMBERS}; refused")
        for info in members:
            parts = info.filename.replace("\\", "/").split("/")
            if ".." in parts or parts[0] == "" or _DRIVE.match(info.filename):
                raise UserError(f"{self.path}: member {info.filename!r} points outside the archive; refused")
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UserError(f"{self.path}: member {info.filename!r} is a link or a device; refused")
            if info.compress_type == _AES:
                raise UserError(f"{self.path}: encrypted with AES, which is not read here; unpack it with 7-Zip")
            if info.compress_type not in _METHODS:
                raise UserError(
                    f"{self.path}: member {info.filename!r} is packed by method {info.compress_type}, not stored or"
                    " deflated; unpack it, and give the folder"
                )
        total = sum(info.file_size for info in members)
        size = self.path.stat().st_size
        if total > MAX_BYTES or total > MAX_RATIO * size:
            raise UserError(
                f"{self.path}: {size} bytes that unpack to {total} (limits: {MAX_RATIO} times the archive, "
                f"{MAX_BYTES >> 30} GiB); a zip bomb? refused"
            )

    def size(self, name: str) -> int:
        """In bytes, as the archive has it."""
        return self._members[name].file_size

    def read(self, name: str) -> bytes:
        """All bytes of a member. Raises UserError if it is damaged, larger than MAX_MEMBER_BYTES, or encrypted and the
        password is not the right one.
        """
        member = self._members[name]
        closed = member.flag_bits & _ENCRYPTED
        try:
            with self._zip.open(member, pwd=self._password or None) as handle:
                data = handle.read(MAX_MEMBER_BYTES + 1)  # whatever size the header claims
        except Exception as error:
            if not _of_content(error):
                raise
            if closed:  # a wrong password shows in the first byte, or (one in 256) in the checksum at the end
                raise UserError(f"{self.path}: member {name!r} is encrypted; the password does not open it") from None
            raise UserError(f"{self.path}: member {name!r} cannot be read ({error}); get the archive again") from None
        if len(data) > MAX_MEMBER_BYTES:
            raise UserError(f"{self.path}: member {name!r} is larger than {MAX_MEMBER_BYTES >> 20} MiB; refused")
        return data

    def close(self) -> None:
        self._zip.close()


@contextmanager
def reading(path: Path, password: bytes = b"") -> Iterator[Archive | Folder]:
    """A zip archive or a folder, as something with `names`, `encrypted` and `read(name)`. Raises UserError (see
    Archive).
    """
    if path.is_dir():
        yield Folder(path)
        return
    archive = Archive(path, password)
    try:
        yield archive
    finally:
        archive.close()


def converted(
    content: Archive | Folder, names: Sequence[str], convert: Callable[[bytes], T], chunk: int = 64
) -> Iterator[tuple[bytes, T]]:
    """(bytes, convert(bytes)) of the members `names`, in order: read one after another, converted on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(names), chunk):
            some = [content.read(name) for name in names[first : first + chunk]]
            yield from zip(some, pool.map(convert, some), strict=True)


def write(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write `members` (name, bytes), uncompressed, in the order given: same members, same archive, byte for byte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name, date_time=_DATE)
            info.create_system = 3  # Unix, whatever machine writes it
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
