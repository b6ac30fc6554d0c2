"""Where bytes come from: the user's own path, the folder $REPOSE_MIRROR, or a URL; a digest decides in every case.

Downloads go to `.work/downloads/`. One that was cut continues where it stopped (Range): the digest tells whether the
pieces are of one file, and if they are not it starts over. A file without a digest continues within one run only, if
the server says that it is the same one still.

A server may send anything: it is followed to no other scheme than http and https, and from https not to http; what is
too large, or comes too slowly, is given up. What an address keeps to itself is in no message and no record.
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
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pipeline.core import atomic, console, digests, environment, layout
from pipeline.core.errors import UserError
from pipeline.core.settings import setting

MIRROR = "REPOSE_MIRROR"
OFFLINE = "REPOSE_OFFLINE"  # set: no URL is asked
NO_ADDRESS = "no path, no url"  # how the reason begins where no download was allowed
TIMEOUT = 10.0  # seconds to connect; also seconds without a byte after which a connection counts as cut
TRIES = 3  # attempts in a row that bring fewer than STEP new bytes
PAUSE = 1.0  # seconds before the second attempt; doubles
STEP = 64 << 10
SLOW = 60.0  # seconds in which STEP bytes come, or the connection counts as cut
LARGEST = 64 << 30  # bytes of a file
LARGEST_UNTOLD = 4 << 30  # where the server does not say how many will come: they may have no end
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
        clause, detail = console.line(clause), console.line(detail)
        super().__init__(f"{clause} ({detail})" if detail else clause)
        self.clause = clause
        self.detail = detail


class _Cut(Exception):
    """The connection broke; what came so far is kept."""


class _Redirects(HTTPRedirectHandler):
    """Python's own also goes from https to http, and to ftp."""

    def redirect_request(self, request, response, code, reason, headers, address):
        old, new = (urlsplit(one).scheme for one in (request.full_url, address))
        if new not in ("https", old):
            raise HTTPError(request.full_url, code, f"{reason}, from {old} to {new}: refused", headers, response)
        return super().redirect_request(request, response, code, reason, headers, address)


_urls = build_opener(_Redirects)


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
    if ".." in Path(source.file).parts or Path(source.file).is_absolute():
        raise UserError(f"{layout.PARAMS}: {key}.file: {source.file} leads out of ${MIRROR}; give its name in there")
    if folder is not None and (folder / source.file).exists():
        return folder / source.file
    if source.url is not None:
        _check_address(source.url, key)
        if isinstance(source, Download) and source.sha256 is None:
            raise UserError(f"{layout.PARAMS}: {key}.url needs a {key}.sha256")
        if environment.is_on(OFFLINE) and not _downloaded(source.url).exists():
            raise Unavailable(f"{source.url}: downloads are switched off by ${OFFLINE}")
        return source.url
    where = f"not in ${MIRROR}" if folder else f"${MIRROR} is not set"
    raise Unavailable(f"{NO_ADDRESS}, and {where}")


def _check_address(url: str, key: str) -> None:
    """Raises UserError for what is no address, and for one with a password."""
    try:
        parts = urlsplit(url)
        whole = parts.hostname and parts.port != 0 and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        whole = False
    if not whole:
        raise UserError(f"{layout.PARAMS}: {key}.url is no whole address; write what is not ASCII in it as %XX")
    if "@" in parts.netloc:
        raise UserError(
            f"{layout.PARAMS}: {key}.url holds a name or a password, which the report and its readers would have;"
            f" download it by hand, and give {key}.path"
        )


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
    name = Path(urlsplit(url).path).name[-100:] or "download"
    return DOWNLOADS / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name}"


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
    failures, pause, resumed, connected, told = 0, PAUSE, part.exists(), False, {}
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(url, part, connected, told if sha256 is None else None)
        except _Cut as cut:
            after = part.stat().st_size if part.exists() else 0
            resumed = connected = True
            failures = 0 if after >= before + STEP else failures + 1
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
    """The response; of status 416, that there is nothing after what we have, too. Raises Unavailable or _Cut."""
    url = request.full_url
    try:
        return _urls.open(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416:
            return error
        if error.code in (408, 429) or error.code >= 500:
            raise _Cut(f"HTTP {error.code} {error.reason}") from None
        raise Unavailable(f"{url}: HTTP {error.code} {error.reason}") from None
    except URLError as error:  # no connection at all: trying again is no use, unless there was one a moment ago
        if connected:
            raise _Cut(f"cannot connect ({error.reason})") from None
        raise Unavailable(f"{url}: cannot connect", str(error.reason)) from None
    except (ValueError, OverflowError) as error:  # redirected to what is no address
        raise Unavailable(f"{url}: leads to no whole address", str(error)) from None
    except (OSError, HTTPException) as error:
        raise _Cut(f"no answer ({error or type(error).__name__})") from None


def _transfer(url: str, part: Path, connected: bool, told: dict[str, str | int | None] | None) -> None:
    """Bring `part` to the whole file: continue it if the server can, else start over. Raises Unavailable or _Cut.

    told: of a file without a digest, what the server said of it before, to know whether it is the same one still.
    """
    have = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"User-Agent": "repose", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with _open(request, connected) as response:
        sent = response.headers.get("Content-Range", "")
        length = getattr(response, "length", None)
        total = None if length is None else have * (response.status == 206) + length
        now = {"size": total} | {key: response.headers.get(key) for key in ("ETag", "Last-Modified")}
        if response.status == 416 and (told is None or sent == f"bytes */{have}"):
            return
        other = any(told[key] != now[key] for key in told or () if None not in (told[key], now[key]))
        elsewhere = sent and not sent.startswith(f"bytes {have}-")
        if response.status == 416 or (response.status == 206 and (other or elsewhere)):
            part.unlink()
            raise _Cut("what came does not belong to what was there")
        if told is not None:
            told |= now
        if response.status != 206:  # the server ignores ranges: from the start
            have = 0
        _receive(response, part, have, total, url)
    if total is not None and part.stat().st_size < total:
        raise _Cut(f"the connection broke after {part.stat().st_size} of {total} bytes")


def _receive(response, part: Path, have: int, total: int | None, url: str) -> None:
    """Write what comes behind the first `have` bytes of `part`. Raises Unavailable, if it is too much, or _Cut."""
    mebi = None if total is None else -(-total // _BLOCK)
    most = LARGEST_UNTOLD if total is None else LARGEST
    since, at = time.monotonic(), have
    with part.open("ab" if have else "wb") as handle, console.progress(f"{part.stem} (MiB)", mebi) as advance:
        advance(have // _BLOCK)
        while True:
            if max(have, total or 0) > most:
                part.unlink()
                raise Unavailable(f"{url}: more than {most >> 30} GiB: not the file that was wanted")
            try:
                block = response.read1(_BLOCK)
            except (OSError, HTTPException) as error:
                raise _Cut(f"the connection broke ({error or type(error).__name__})") from None
            if not block:
                break
            _write(handle, block, part)
            advance((have + len(block)) // _BLOCK - have // _BLOCK)
            have += len(block)
            if time.monotonic() - since > SLOW:
                if have - at < STEP:
                    raise _Cut(f"fewer than {STEP >> 10} KiB in {SLOW:.0f} s")
                since, at = time.monotonic(), have
        _write(handle, b"", part)


def _write(handle, block: bytes, path: Path) -> None:
    """Write and flush; if the disk is full, the error names the file."""
    try:
        handle.write(block)
        handle.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
