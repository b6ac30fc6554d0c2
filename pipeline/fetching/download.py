"""Where bytes come from: the user's own path, the folder $REPOSE_MIRROR, or a URL; a digest decides in every case.

Downloads go to `.work/downloads/`. One that was cut continues where it stopped (Range): the digest tells whether the
pieces are of one file, and if they are not it starts over. A file without a digest continues within one run only.
"""

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from pipeline.core import atomic, console, digests, environment, layout
from pipeline.core.errors import UserError
from pipeline.core.settings import setting

MIRROR = "REPOSE_MIRROR"
OFFLINE = "REPOSE_OFFLINE"  # set: no URL is asked
NO_ADDRESS = "no path, no url"  # how the reason begins where no download was allowed
TIMEOUT = 10.0  # seconds to connect; also seconds without a byte after which a connection counts as cut
TRIES = 3  # attempts in a row that bring no new byte
PAUSE = 1.0  # seconds before the second attempt; doubles
DOWNLOADS = layout.WORK / "downloads"
SHA256 = {"pattern": "^[0-9a-f]{8,64}$"}  # eight or more leading digits
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a file or folder may come from; its content is checked by the caller."""

    path: str | None = setting("your own copy", None, minLength=1)
    file: str = setting("its name in the folder $REPOSE_MIRROR", minLength=1)
    url: str | None = setting("its address; null: it is not downloaded", None, pattern="^https?://")


@dataclass(frozen=True, kw_only=True)
class Download(Source):
    sha256: str | None = setting("its digest; null: your own copy is taken as it is", None, **SHA256)


class Unavailable(Exception):
    """The bytes cannot be had: no path, not in the mirror, and no URL, or one that does not answer.

    `clause` is the reason without what changes from one attempt or machine to the next; str() has that as well.
    """

    def __init__(self, clause: str, detail: str = ""):
        super().__init__(f"{clause} ({detail})" if detail else clause)
        self.clause = clause
        self.detail = detail


class _Cut(Exception):
    """The connection broke; what came so far is kept."""


def mirror() -> Path | None:
    """The mirror folder, or None where none is set. Raises UserError if it is set but not there."""
    value = os.environ.get(MIRROR)
    if not value:
        return None
    if not Path(value).is_dir():
        raise UserError(f"{MIRROR}={value}: no such folder; unset {MIRROR} or correct it")
    return Path(value)


def whereabouts(source: Source, key: str) -> Path | str:
    """The file that `source` stands for, or the address that it would be downloaded from; neither is read.

    `key` is where it stands in params.yaml, for messages. Raises UserError for a `path` that is not there or a `url`
    without a digest; Unavailable if there is no source at all, or none but an address while downloads are off.
    """
    if source.path is not None:
        path = environment.path(source.path)
        if not path.exists():
            raise UserError(f"{path}: no such file; correct {key}.path in {layout.PARAMS}")
        return path
    folder = mirror()
    if folder is not None and (folder / source.file).exists():
        return folder / source.file
    if source.url is not None:
        if isinstance(source, Download) and source.sha256 is None:
            raise UserError(f"{layout.PARAMS}: {key}.url needs a {key}.sha256")
        if environment.is_on(OFFLINE) and not _downloaded(source.url).exists():
            raise Unavailable(f"{source.url}: downloads are switched off by ${OFFLINE}")
        return source.url
    where = f"not in ${MIRROR}" if folder else f"${MIRROR} is not set"
    raise Unavailable(f"{NO_ADDRESS}, and {where}")


def obtain(source: Source, key: str) -> Path:
    """The file that `source` stands for, verified. Raises as `whereabouts` does, and UserError for a wrong digest."""
    found = whereabouts(source, key)
    wanted = source.sha256 if isinstance(source, Download) else None
    return download(found, wanted) if isinstance(found, str) else _verified(found, wanted, key)


def _verified(path: Path, wanted: str | None, key: str) -> Path:
    if wanted is None:
        return path
    if not path.is_file():
        raise UserError(f"{path}: not a file; {key} wants one")
    found = digests.sha256(path)
    if not found.startswith(wanted):
        raise UserError(f"{path}: sha256 is {found}, {key} wants {wanted}; damaged, or another file")
    return path


def place(path: Path, destination: Path) -> str:
    """Put a copy of `path` at `destination` and return its sha256 (a hard link for downloads: no second copy)."""
    if DOWNLOADS in path.parents:
        try:
            destination.hardlink_to(path)
            return digests.sha256(destination)
        except OSError:
            pass  # a file system without hard links
    shutil.copyfile(path, destination)
    return digests.sha256(destination)


def discard(path: Path) -> None:
    """Forget a download that turned out not to be what was wanted; anyone else's file is left alone."""
    if DOWNLOADS in path.parents:
        path.unlink(missing_ok=True)


def _downloaded(url: str) -> Path:
    """Where a finished download lies."""
    return DOWNLOADS / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{Path(urlsplit(url).path).name or 'download'}"


def download(url: str, sha256: str | None = None) -> Path:
    """Download `url` (http, https) to `.work/downloads/`, or find it there. `sha256`: eight or more leading digits.

    Raises Unavailable if the server cannot be reached, does not have the file, stops answering or gives another file.
    """
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    done = _downloaded(url)
    if done.exists():
        if sha256 is None or digests.sha256(done).startswith(sha256):
            return done
        done.unlink()
    if environment.is_on(OFFLINE):
        raise Unavailable(f"{url}: downloads are switched off by ${OFFLINE}")
    part = done.with_name(done.name + ".part")
    if sha256 is None:
        part.unlink(missing_ok=True)
    failures, pause, resumed, connected = 0, PAUSE, part.exists(), False
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(url, part, connected)
        except _Cut as cut:
            after = part.stat().st_size if part.exists() else 0
            resumed = connected = True
            failures = 0 if after > before else failures + 1
            if failures == TRIES:
                raise Unavailable(f"{url}: gave up", f"{cut}, {TRIES} times") from None
            if failures:
                time.sleep(pause)
                pause *= 2
            continue
        found = digests.sha256(part)
        if sha256 is not None and not found.startswith(sha256):
            part.unlink()
            if resumed:  # pieces of two different files? once more from the start
                resumed = False
                continue
            raise Unavailable(f"{url}: not the file that was wanted", f"sha256 {found}, not {sha256}")
        atomic.sync(part)
        part.replace(done)
        return done


def _open(request: Request, connected: bool):
    """The response, or None if there is nothing after what we have. Raises Unavailable or _Cut."""
    url = request.full_url
    try:
        return urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416:
            return None
        if error.code in (408, 429) or error.code >= 500:
            raise _Cut(f"HTTP {error.code} {error.reason}") from None
        raise Unavailable(f"{url}: HTTP {error.code} {error.reason}") from None
    except URLError as error:  # no connection at all: trying again is no use, unless there was one a moment ago
        if connected:
            raise _Cut(f"cannot connect ({error.reason})") from None
        raise Unavailable(f"{url}: cannot connect", str(error.reason)) from None
    except (OSError, HTTPException) as error:
        raise _Cut(f"no answer ({error or type(error).__name__})") from None


def _transfer(url: str, part: Path, connected: bool) -> None:
    """Bring `part` to the whole file: continue it if the server can, else start over. Raises Unavailable or _Cut."""
    have = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"User-Agent": "repose", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    response = _open(request, connected)
    if response is None:
        return
    with response:
        if response.status != 206:  # the server ignores ranges: from the start
            have = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        mebi = None if total is None else -(-total // _BLOCK)
        with part.open("ab" if have else "wb") as handle, console.progress(f"{part.stem} (MiB)", mebi) as advance:
            advance(have // _BLOCK)
            while True:
                try:
                    block = response.read1(_BLOCK)
                except (OSError, HTTPException) as error:
                    raise _Cut(f"the connection broke ({error or type(error).__name__})") from None
                if not block:
                    break
                _write(handle, block, part)
                advance((have + len(block)) // _BLOCK - have // _BLOCK)
                have += len(block)
            _write(handle, b"", part)
    if total is not None and have < total:
        raise _Cut(f"the connection broke after {have} of {total} bytes")


def _write(handle, block: bytes, path: Path) -> None:
    """Write and flush; if the disk is full, the error names the file."""
    try:
        handle.write(block)
        handle.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
