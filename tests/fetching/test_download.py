import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.core import console, layout
from pipeline.core.errors import UserError
from pipeline.fetching import download
from pipeline.fetching.download import Download

CONTENT = os.urandom(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content` at any path. What it can do and how it fails is set by the attributes."""

    content = CONTENT
    ranges = True
    length = True  # sends Content-Length
    cuts: list[int]  # break off the next answers after so many bytes
    status: list[int]  # answer the next requests with these
    redirect_to: str | None = None
    answer: Callable[["Handler"], None] | None = None  # instead of all else

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts, self.status, self.requests = [], [], []

    def url(self, name="file.bin"):
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        if server.answer:
            server.answer(self)
            self.close_connection = True
            return
        if server.status:
            status = server.status.pop(0)
            self.send_error(status)
            return
        if server.redirect_to:
            self.send_response(302)
            self.send_header("Location", server.redirect_to)
            self.end_headers()
            return
        data, start = server.content, 0
        asked = self.headers.get("Range")
        if asked and server.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
        else:
            self.send_response(200)
        body = data[start:]
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.cuts:
            body = body[: server.cuts.pop(0)]
        self.wfile.write(body)
        self.close_connection = True


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.delenv(download.MIRROR, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def parts():
    return sorted(path.name for path in Path(".work/downloads").iterdir())


def test_whole_file_and_nothing_else(server):
    path = download.download(server.url(), DIGEST)
    assert path.read_bytes() == CONTENT
    assert parts() == [path.name]
    download.download(server.url(), DIGEST)
    assert len(server.requests) == 1  # the second time from what is there


@pytest.mark.parametrize("length", [8, 20, 64])
def test_leading_digits_of_the_digest_will_do(server, length):
    assert download.download(server.url(), DIGEST[:length]).read_bytes() == CONTENT


@pytest.mark.parametrize("digest", [DIGEST, None], ids=["digest", "none"])  # the digest is another in every process
def test_cut_connection_continues_where_it_stopped(server, digest):
    server.cuts = [1_000_000, 500_000]
    assert download.download(server.url(), digest).read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [None, "bytes=1000000-", "bytes=1500000-"]


def test_next_run_continues_what_the_last_one_left(server):
    server.cuts = [1_000_000, 0, 0, 0]
    with pytest.raises(download.Unavailable, match="gave up") as error:
        download.download(server.url(), DIGEST)
    assert "1000000 of 3000000 bytes" in str(error.value)
    assert any(name.endswith(".part") for name in parts())
    before = len(server.requests)
    assert download.download(server.url(), DIGEST).read_bytes() == CONTENT
    assert [request["Range"] for request in server.requests[before:]] == ["bytes=1000000-"]


def test_server_without_ranges_starts_over(server):
    server.ranges = False
    server.cuts = [1_000_000]
    assert download.download(server.url(), DIGEST).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("size", [3_000_000, 1000])
@pytest.mark.parametrize("known", [True, False])
def test_file_that_changed_between_two_runs_starts_over(server, size, known):
    """By its digest; without one the second run does not go on with the piece that the first one left."""
    server.cuts = [1_000_000, 0, 0, 0]
    with pytest.raises(download.Unavailable):
        download.download(server.url(), DIGEST)
    server.content = CONTENT[::-1][:size]
    digest = hashlib.sha256(server.content).hexdigest() if known else None
    assert download.download(server.url(), digest).read_bytes() == server.content


def test_part_that_is_already_whole(server):
    """Killed between the last byte and the move: the server has nothing more, and that is fine."""
    path = download.download(server.url(), DIGEST)
    path.rename(path.with_name(path.name + ".part"))
    assert download.download(server.url(), DIGEST) == path
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_no_content_length(server):
    server.length = False
    assert download.download(server.url(), DIGEST).read_bytes() == CONTENT


def test_server_error_is_tried_again(server):
    server.status = [503, 500]
    assert download.download(server.url(), DIGEST).read_bytes() == CONTENT
    server.status = [503] * 5
    with pytest.raises(download.Unavailable, match="503"):
        download.download(server.url("other"), DIGEST)
    assert len(server.requests) == 3 + download.TRIES


@pytest.mark.parametrize("status", [404, 403, 410])
def test_file_that_is_not_there_is_not_tried_again(server, status):
    server.status = [status]
    with pytest.raises(download.Unavailable, match=f"HTTP {status}"):
        download.download(server.url(), DIGEST)
    assert len(server.requests) == 1
    assert parts() == []


def test_redirect_to_another_host_keeps_the_range(server, monkeypatch):
    with Server() as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        server.redirect_to = other.url("moved").replace("127.0.0.1", "localhost")
        other.cuts = [1_000_000]
        assert download.download(server.url(), DIGEST).read_bytes() == CONTENT
        assert other.requests[1]["Range"] == "bytes=1000000-"
        other.shutdown()


def test_wrong_file_is_never_kept(server):
    with pytest.raises(download.Unavailable, match="not the file that was wanted") as error:
        download.download(server.url(), "0" * 64)
    assert DIGEST in str(error.value)
    assert DIGEST not in error.value.clause  # what is recorded does not vary
    assert parts() == []
    assert len(server.requests) == 1


def test_damaged_download_is_not_trusted_later(server):
    path = download.download(server.url(), DIGEST)
    path.write_bytes(b"x" + CONTENT[1:])
    assert download.download(server.url(), DIGEST).read_bytes() == CONTENT


def test_no_connection_fails_at_once(server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(download.Unavailable, match="cannot connect") as error:
        download.download(f"http://127.0.0.1:{port}/x", DIGEST)
    assert "\n" not in str(error.value)


def test_server_that_falls_silent_counts_as_cut(server, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(download.Unavailable, match="gave up"):
        download.download(f"http://127.0.0.1:{silent.getsockname()[1]}/x", DIGEST)


def test_order_of_sources(server, tmp_path, monkeypatch):
    for name in ("mine", "mirror/sub/file.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(CONTENT)
    source = Download(path=str(tmp_path / "mine"), file="sub/file.bin", url=server.url(), sha256=DIGEST[:8])
    monkeypatch.setenv(download.MIRROR, str(tmp_path / "mirror"))
    assert download.obtain(source, "weights.x") == tmp_path / "mine"
    source = replace(source, path=None)
    assert download.obtain(source, "weights.x") == tmp_path / "mirror/sub/file.bin"
    assert server.requests == []
    (tmp_path / "mirror/sub/file.bin").unlink()
    assert download.obtain(source, "weights.x").read_bytes() == CONTENT
    assert len(server.requests) == 1
    source = replace(source, url=None)
    with pytest.raises(download.Unavailable, match="not in"):
        download.obtain(source, "weights.x")
    monkeypatch.delenv(download.MIRROR)
    with pytest.raises(download.Unavailable, match="is not set"):
        download.obtain(source, "weights.x")


def test_switched_off_nothing_is_asked_but_what_is_there_is_used(server, monkeypatch):
    monkeypatch.setenv(download.OFFLINE, "1")
    with pytest.raises(download.Unavailable, match=r"switched off by \$REPOSE_OFFLINE"):
        download.download(server.url(), DIGEST)
    assert server.requests == []
    monkeypatch.delenv(download.OFFLINE)
    done = download.download(server.url(), DIGEST)
    monkeypatch.setenv(download.OFFLINE, "1")
    assert download.download(server.url(), DIGEST) == done


@pytest.mark.parametrize("where", ["path", "mirror"])
def test_wrong_digest_of_a_local_file_is_an_error(tmp_path, monkeypatch, where):
    (tmp_path / "f").write_bytes(b"abc")
    monkeypatch.setenv(download.MIRROR, str(tmp_path))
    source = Download(path=str(tmp_path / "f") if where == "path" else None, file="f", sha256="12345678")
    with pytest.raises(UserError, match=r"sha256 is ba7816bf.*weights\.x wants 12345678"):
        download.obtain(source, "weights.x")


def test_path_and_mirror_that_are_not_there(tmp_path, monkeypatch):
    source = Download(path=str(tmp_path / "none"), file="f", sha256="12345678")
    with pytest.raises(UserError, match=r"no such file; correct weights\.x\.path"):
        download.obtain(source, "weights.x")
    monkeypatch.setenv(download.MIRROR, str(tmp_path / "none"))
    with pytest.raises(UserError, match="no such folder"):
        download.obtain(replace(source, path=None), "weights.x")


def test_an_address_without_a_digest_is_refused():
    with pytest.raises(UserError, match=r"weights\.x\.url needs a weights\.x\.sha256"):
        download.obtain(Download(file="f", url="https://127.0.0.1:9/f"), "weights.x")


def test_place_links_downloads_and_copies_the_rest(server, tmp_path):
    path = download.download(server.url(), DIGEST)
    assert download.place(path, tmp_path / "a") == DIGEST
    assert (tmp_path / "a").stat().st_ino == path.stat().st_ino
    (tmp_path / "mine").write_bytes(CONTENT)
    assert download.place(tmp_path / "mine", tmp_path / "b") == DIGEST
    assert (tmp_path / "b").stat().st_ino != (tmp_path / "mine").stat().st_ino
    download.discard(tmp_path / "mine")
    download.discard(path)
    assert (tmp_path / "mine").exists()
    assert not path.exists()


# ---- servers that mean harm


def sends(status: int = 200, body: bytes = b"", **headers: str) -> Callable[[Handler], None]:
    """An answer of these; `_` in a header's name is a dash."""

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def given_up(url: str, digest: str | None = DIGEST) -> str:
    with pytest.raises(download.Unavailable) as error:
        download.download(url, digest)
    assert console.line(str(error.value)) == str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("ftp://127.0.0.1/x", "from http to ftp: refused"),
        ("file:///etc/passwd", "HTTP 302"),
        ("http://[::1", "leads to no whole address"),
        ("http://127.0.0.1:99999/x", "cannot connect"),
        ("http://" + "a" * 70 + ".example/x", "leads to no whole address"),
        ("data:text/plain,x", "HTTP 302"),
    ],
)
def test_a_redirect_to_what_is_no_web_address_is_not_followed(server, to, says):
    server.redirect_to = to
    assert says in given_up(server.url())
    assert len(server.requests) == 1
    assert parts() == []


def test_a_redirect_from_https_to_http_is_refused():
    request = download.Request("https://127.0.0.1/x")
    with pytest.raises(download.HTTPError, match="from https to http: refused"):
        download._Redirects().redirect_request(request, None, 302, "Found", {}, "http://127.0.0.1/x")
    assert download._Redirects().redirect_request(request, None, 302, "Found", {}, "https://127.0.0.1/y")


@pytest.mark.parametrize("length", ["abc", "-5", "1e9", "9" * 30])
def test_a_length_that_is_none_is_no_fault_of_ours(server, length):
    server.answer = sends(200, CONTENT[:1000], Content_Length=length)
    given_up(server.url())


def test_an_error_page_that_says_200_is_not_taken_for_the_file(server):
    server.answer = sends(200, b"<html>log in</html>")
    assert "not the file that was wanted" in given_up(server.url())
    assert parts() == []


def test_a_body_without_an_end_is_given_up_and_removed(server, monkeypatch):
    monkeypatch.setattr(download, "LARGEST_UNTOLD", 3 << 20)
    monkeypatch.setattr(download, "LARGEST", 1 << 30)

    def endless(handler: Handler) -> None:
        sends()(handler)
        with suppress(OSError):
            while True:
                handler.wfile.write(bytes(1 << 20))

    server.answer = endless
    assert "more than 0 GiB" in given_up(server.url())
    assert parts() == []
    server.answer = sends(200, b"", Content_Length=str(2 << 30))  # too much, before a byte of it
    assert "more than 1 GiB" in given_up(server.url())
    assert parts() == []


def test_a_few_bytes_now_and_then_are_given_up(server, monkeypatch):
    monkeypatch.setattr(download, "SLOW", 0.05)

    def slow(handler: Handler) -> None:
        sends(206 if "Range" in handler.headers else 200)(handler)
        with suppress(OSError):
            for _ in range(200):
                handler.wfile.write(b"x")
                time.sleep(0.01)

    server.answer = slow
    assert "fewer than 64 KiB in 0 s, 3 times" in given_up(server.url())
    assert len(server.requests) == download.TRIES


def test_a_connection_that_breaks_after_every_byte_is_given_up(server):
    server.cuts = [1] * 100
    assert "gave up" in given_up(server.url())
    assert len(server.requests) == download.TRIES


@pytest.mark.parametrize("change", ["ETag", "Last-Modified", "size", "place"])
def test_without_a_digest_pieces_of_two_files_are_not_put_together(server, change):
    """What comes at last is one of the two, whole; a piece from elsewhere than was asked for is none of either."""
    first, second = CONTENT[:1_000_000], CONTENT[::-1][: 1_000_000 if change != "size" else 900_000]

    def changing(handler: Handler) -> None:
        asked = int(handler.headers["Range"][6:-1]) if "Range" in handler.headers else 0
        content = second if len(server.requests) > 1 else first
        start = asked - 1000 if change == "place" else asked
        named = {change.replace("-", "_"): str(content is first)} if change in ("ETag", "Last-Modified") else {}
        whole = content[start:][: len(content) - asked] if asked else content  # as long as what was asked for
        where = {"Content_Range": f"bytes {start}-{start + len(whole) - 1}/{len(content)}"} if asked else {}
        body = whole[:300_000] if len(server.requests) == 1 else whole
        sends(206 if asked else 200, body, Content_Length=str(len(whole)), **named, **where)(handler)

    server.answer = changing
    assert download.download(server.url(), None).read_bytes() == second
    assert ["Range" in request for request in server.requests] == [False, True, False]


@pytest.mark.parametrize("digest", [True, False])
def test_a_part_that_is_too_long_is_no_file(server, digest):
    """The server's file has become shorter than what came of it: it answers 416."""
    short = CONTENT[:500_000]

    def shrunk(handler: Handler) -> None:
        if len(server.requests) == 1:
            sends(200, CONTENT[:1_000_000], Content_Length=str(len(CONTENT)))(handler)
        elif "Range" in handler.headers:
            sends(416, b"no such range", Content_Range=f"bytes */{len(short)}")(handler)
        else:
            sends(200, short, Content_Length=str(len(short)))(handler)

    server.answer = shrunk
    wanted = hashlib.sha256(short).hexdigest() if digest else None
    assert download.download(server.url(), wanted).read_bytes() == short


def test_what_an_address_keeps_to_itself_is_in_no_message(server, capsys, monkeypatch):
    server.status = [404]
    secret = f"{server.url()}?token=geheim&sig=geheim"
    said = given_up(secret)
    assert "geheim" not in said
    assert said.startswith(f"{server.url()}?...")
    server.redirect_to = "ftp://me:geheim@127.0.0.1/x?k=geheim"
    assert "geheim" not in given_up(secret)
    console.say(f"from {secret} and https://me:geheim@127.0.0.1/x")
    assert "geheim" not in capsys.readouterr().err
    with pytest.raises(UserError, match=r"weights\.x\.url holds a name or a password") as error:
        download.whereabouts(Download(file="f", url="https://me:geheim@127.0.0.1/x", sha256=DIGEST), "weights.x")
    assert "geheim" not in str(error.value)
    monkeypatch.setenv(download.OFFLINE, "1")
    with pytest.raises(download.Unavailable) as error:
        download.whereabouts(Download(file="f", url=secret, sha256=DIGEST), "weights.x")
    assert "geheim" not in error.value.clause  # which is recorded


@pytest.mark.parametrize("url", ["http://", "http://[", "http://h:x/", "http://h:70000/", "http://h/ä", "http://h/a b"])
def test_what_is_no_address_is_one_line(url):
    with pytest.raises(UserError, match=r"weights\.x\.url is no whole address"):
        download.whereabouts(Download(file="f", url=url, sha256=DIGEST), "weights.x")


@pytest.mark.parametrize("name", ["a" * 300, "..", "%2e%2e%2fx", "-rf", "[/red]"])
def test_a_download_stays_in_its_folder_whatever_its_address_ends_with(server, name):
    path = download.download(f"{server.url()}/{name}", DIGEST)
    assert path.resolve().parent == (Path(".work") / "downloads").resolve()
    assert parts() == [path.name]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret"])
def test_a_name_in_the_mirror_cannot_leave_it(tmp_path, monkeypatch, name):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "secret").write_bytes(CONTENT)
    monkeypatch.setenv(download.MIRROR, str(tmp_path / "mirror"))
    with pytest.raises(UserError, match=rf"{layout.PARAMS}: weights\.x\.file: .* leads out of \$REPOSE_MIRROR"):
        download.obtain(Download(file=name, sha256=DIGEST), "weights.x")
