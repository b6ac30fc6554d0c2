import hashlib
import os
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

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
