import io
import os
import stat
import subprocess
import zipfile
import zlib

import pytest

from pipeline.core.errors import UserError
from pipeline.formats import archive


def zip_of(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members:
            file.writestr(zipfile.ZipInfo(name), data, compression)
    return path


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_zip_and_folder_read_alike(tmp_path):
    members = {"a/train/1.jpg": b"one", "a/test/2.jpg": b"two", "a/empty.txt": b""}
    for name, data in members.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    zip_of(tmp_path / "x.zip", [("a/", b""), *members.items()])
    for source in (tmp_path / "folder", tmp_path / "x.zip"):
        with archive.reading(source) as content:
            assert {name: content.read(name) for name in content.names} == members


def test_backslashes_are_slashes(tmp_path):
    """PowerShell 5 writes them into zips, and a tool that unpacks such a zip on Linux into the names of files."""
    members = {"a\\train\\1.jpg": b"one", "a\\2.jpg": b"two"}
    (tmp_path / "folder").mkdir()
    for name, data in members.items():
        (tmp_path / "folder" / name).write_bytes(data)
    zip_of(tmp_path / "x.zip", [("a\\", b""), *members.items()])
    for source in (tmp_path / "folder", tmp_path / "x.zip"):
        with archive.reading(source) as content:
            assert {name: content.read(name) for name in content.names} == {"a/train/1.jpg": b"one", "a/2.jpg": b"two"}
            assert [content.size(name) for name in content.names] == [3, 3]


def test_two_members_of_one_name_are_one_line(tmp_path):
    zip_of(tmp_path / "x.zip", [("a\\1.jpg", b"1"), ("a/1.jpg", b"2")])
    with pytest.raises(UserError) as error, archive.reading(tmp_path / "x.zip"):
        pass
    assert "two members are called a/1.jpg" in one_line(error)


def test_a_name_that_is_not_utf8_is_escaped_and_read(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"one")
    with archive.reading(tmp_path) as content:
        assert content.names == ["caf\\xe9.jpg"]
        assert content.read("caf\\xe9.jpg") == b"one"


def test_linked_folders_are_read_and_links_to_nothing_or_in_a_circle_are_told(tmp_path):
    for folder in ("in/a", "elsewhere/b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.jpg").write_bytes(b"one")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "in")
    (tmp_path / "in/a/gone.jpg").symlink_to(tmp_path / "gone.jpg")
    content = archive.Folder(tmp_path / "in")
    assert content.names == ["a/1.jpg", "linked/b/1.jpg"]
    assert content.read("linked/b/1.jpg") == b"one"
    assert content.unread == {"a/gone.jpg": "is a link to nothing", "linked/back": "is a link to a folder around it"}


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "a/../../evil.jpg", "/evil.jpg", "C:/evil.jpg", "c:evil", "a\\..\\evil"]
)
def test_path_outside_is_refused(tmp_path, name):
    zip_of(tmp_path / "x.zip", [("good.jpg", b"1"), (name, b"2")])
    with pytest.raises(UserError) as error, archive.reading(tmp_path / "x.zip"):
        pass
    assert "points outside the archive" in one_line(error)
    assert str(tmp_path / "x.zip") in one_line(error)


def test_two_dots_inside_a_name_are_no_path(tmp_path):
    zip_of(tmp_path / "x.zip", [("a/b..c.jpg", b"1")])
    with archive.reading(tmp_path / "x.zip") as content:
        assert content.read("a/b..c.jpg") == b"1"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_a_link_or_a_device_is_refused(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        info = zipfile.ZipInfo("train/1.jpg")
        info.external_attr = (kind | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(UserError) as error, archive.reading(tmp_path / "x.zip"):
        pass
    assert "is a link" in one_line(error)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_zip_is_one_line(tmp_path, keep):
    path = zip_of(tmp_path / "x.zip", [(f"{i}.jpg", os.urandom(1000)) for i in range(20)])
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    with pytest.raises(UserError) as error, archive.reading(path):
        pass
    assert "not a whole zip archive" in one_line(error)


def test_bomb_is_refused_before_it_unpacks(tmp_path):
    path = zip_of(tmp_path / "x.zip", [("a.jpg", bytes(30 << 20)), ("b.jpg", bytes(30 << 20))])
    with pytest.raises(UserError) as error, archive.reading(path):
        pass
    assert "zip bomb" in one_line(error)


def test_size_in_the_header_is_not_believed(tmp_path):
    """A member that claims 10 bytes and inflates to 60 MiB: reading stops, with one line."""
    path = zip_of(tmp_path / "x.zip", [("a.jpg", bytes(60 << 20))])
    data = bytearray(path.read_bytes())
    directory = data.rfind(b"PK\x01\x02")
    for offset in (22, directory + 24):  # uncompressed size in the local header and in the directory
        assert int.from_bytes(data[offset : offset + 4], "little") == 60 << 20
        data[offset : offset + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    with archive.reading(path) as content, pytest.raises(UserError) as error:
        content.read("a.jpg")
    assert "cannot be read" in one_line(error)


def test_damaged_member_is_one_line(tmp_path):
    path = zip_of(tmp_path / "x.zip", [("a.jpg", b"x" * 1000)], zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    with archive.reading(path) as content, pytest.raises(UserError) as error:
        content.read("a.jpg")
    assert "'a.jpg' cannot be read" in one_line(error)


def test_encrypted_member_is_one_line(tmp_path):
    path = zip_of(tmp_path / "x.zip", [("a.jpg", b"x" * 100)], zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    for offset in (6, data.rfind(b"PK\x01\x02") + 8):  # the flag "encrypted"
        data[offset] |= 1
    path.write_bytes(data)
    with archive.reading(path) as content, pytest.raises(UserError) as error:
        content.read("a.jpg")
    assert "'a.jpg' is encrypted; the password does not open it" in one_line(error)


class ZipCrypto:
    """Encryption as PKWARE's APPNOTE 6.1 defines it: what `zip -e` writes."""

    def __init__(self, password: bytes):
        self.keys = [0x12345678, 0x23456789, 0x34567890]
        for byte in password:
            self._update(byte)

    @staticmethod
    def _crc(crc: int, byte: int) -> int:
        return zlib.crc32(bytes([byte]), crc ^ 0xFFFFFFFF) ^ 0xFFFFFFFF

    def _update(self, byte: int) -> None:
        first, second, third = self.keys
        first = self._crc(first, byte)
        second = ((second + (first & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        self.keys = [first, second, self._crc(third, second >> 24)]

    def encrypt(self, data: bytes) -> bytes:
        sealed = bytearray()
        for byte in data:
            word = self.keys[2] | 2
            sealed.append(byte ^ ((word * (word ^ 1)) >> 8 & 0xFF))
            self._update(byte)
        return bytes(sealed)


def encrypted_zip(path, members, password: bytes):
    """A zip whose members are stored, encrypted the traditional way; written as plain, then sealed in place."""
    zip_of(path, [(name, bytes(12) + data) for name, data in members], zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    directory = raw.find(b"PK\x01\x02")
    for name, data in members:
        checksum = zlib.crc32(data)
        local = raw.find(name.encode()) - 30
        head = bytes(11) + bytes([checksum >> 24])  # the last of 12 header bytes is what a reader checks first
        start = local + 30 + len(name)
        raw[start : start + 12 + len(data)] = ZipCrypto(password).encrypt(head + data)
        for flags, crc, size in ((local + 6, local + 14, local + 22), (directory + 8, directory + 16, directory + 24)):
            raw[flags] |= 1
            raw[crc : crc + 4] = checksum.to_bytes(4, "little")
            raw[size : size + 4] = len(data).to_bytes(4, "little")
        directory += 46 + len(name)
    path.write_bytes(raw)
    return path


SECRETS = [("a/1.jpg", b"one" * 100), ("a/2.jpg", b"two")]


def test_encrypted_zip_opens_with_its_password(tmp_path):
    path = encrypted_zip(tmp_path / "x.zip", SECRETS, b"in-shop")
    with archive.reading(path, b"in-shop") as content:
        assert content.encrypted
        assert [(name, content.read(name)) for name in content.names] == SECRETS
    with archive.reading(zip_of(tmp_path / "y.zip", SECRETS), b"needless") as content:
        assert not content.encrypted
        assert content.read("a/2.jpg") == b"two"


@pytest.mark.parametrize("number", range(3))
def test_wrong_password_is_one_line_without_it(tmp_path, number):
    path = encrypted_zip(tmp_path / "x.zip", SECRETS, b"in-shop")
    wrong = b"guess-%d" % number
    with archive.reading(path, wrong) as content, pytest.raises(UserError) as error:
        content.read("a/1.jpg")
    assert "is encrypted; the password does not open it" in one_line(error)
    assert wrong.decode() not in str(error.value)


def test_aes_zip_says_how_to_unpack_it(tmp_path):
    path = zip_of(tmp_path / "x.zip", SECRETS, zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    directory = raw.find(b"PK\x01\x02")
    raw[directory + 8] |= 1
    raw[directory + 10] = 99
    path.write_bytes(raw)
    with pytest.raises(UserError) as error, archive.reading(path, b"in-shop"):
        pass
    assert "encrypted with AES, which is not read here; unpack it with 7-Zip" in one_line(error)


def test_converted_keeps_order_over_chunks(tmp_path):
    members = [(f"{i:03d}", os.urandom(8)) for i in range(100)]
    path = zip_of(tmp_path / "x.zip", members)
    wanted = dict(reversed(members))
    with archive.reading(path) as content:
        found = list(archive.converted(content, list(wanted), lambda data: data[::-1], chunk=7))
    assert found == [(data, data[::-1]) for data in wanted.values()]


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_member_larger_than_any_picture(tmp_path, monkeypatch, form):
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 100)
    (tmp_path / "folder").mkdir()
    for name, size in (("small", 100), ("large", 101)):
        (tmp_path / "folder" / name).write_bytes(os.urandom(size))
    source = tmp_path / "folder"
    if form == "zip":
        source = zip_of(tmp_path / "x.zip", [(path.name, path.read_bytes()) for path in source.iterdir()])
    with archive.reading(source) as content:
        assert len(content.read("small")) == 100
        with pytest.raises(UserError):
            content.read("large")


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    zip_of(tmp_path / "x.zip", [(str(i), b"") for i in range(4)])
    with pytest.raises(UserError) as error, archive.reading(tmp_path / "x.zip"):
        pass
    assert "4 members" in one_line(error)


def test_written_archive_is_the_same_at_any_time(tmp_path, monkeypatch):
    members = [("train/1.jpg", b"abc"), ("test/2.jpg", b"")]
    archive.write(tmp_path / "a.zip", members)
    monkeypatch.setattr("time.time", lambda: 2e9)
    archive.write(tmp_path / "b.zip", iter(members))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO((tmp_path / "a.zip").read_bytes())) as file:
        assert [(info.filename, file.read(info)) for info in file.infolist()] == members
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packing_that_unfolds_at_once_is_refused_before_it_does(tmp_path, kind):
    """Python unpacks all that is there of it before it counts: 800 bytes that claim to be 10 come to 1 GiB by bzip2."""
    path = zip_of(tmp_path / "x.zip", [("a.jpg", b"")], kind)
    with pytest.raises(UserError) as error, archive.reading(path):
        pass
    assert f"'a.jpg' is packed by method {kind}, not stored or deflated" in one_line(error)


@pytest.mark.parametrize("version", [64, 255])
def test_a_zip_of_a_later_version_is_one_line(tmp_path, version):
    path = zip_of(tmp_path / "x.zip", [("a.jpg", b"a")])
    data = bytearray(path.read_bytes())
    data[data.rfind(b"PK\x01\x02") + 6] = version
    path.write_bytes(data)
    with pytest.raises(UserError) as error, archive.reading(path):
        pass
    assert "not a whole zip archive (zip file version" in one_line(error)


def test_a_name_with_control_characters_is_escaped(tmp_path):
    (tmp_path / "a\n\x1b.jpg").write_bytes(b"one")
    with archive.reading(tmp_path) as content:
        assert content.names == ["a\\x0a\\x1b.jpg"]
        assert content.read("a\\x0a\\x1b.jpg") == b"one"


def test_a_folder_deeper_than_python_recurses_is_read(tmp_path):
    (tmp_path / "deep").mkdir()
    where = os.open(tmp_path / "deep", os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("a", dir_fd=where)
        below = os.open("a", os.O_RDONLY, dir_fd=where)
        os.close(where)
        where = below
    os.close(os.open("1.jpg", os.O_CREAT, dir_fd=where))
    os.close(where)
    try:
        assert archive.Folder(tmp_path).names == ["deep/" + "a/" * 1200 + "1.jpg"]
    finally:
        subprocess.run(["rm", "-r", tmp_path / "deep"], check=True)  # which pytest, in Python, could not


def test_folders_that_link_to_each_other_come_to_an_end(tmp_path, monkeypatch):
    """Of twelve there would be 12! ways through them."""
    monkeypatch.setattr(archive, "MAX_MEMBERS", 5000)
    for one in range(12):
        (tmp_path / str(one)).mkdir()
    for one in range(12):
        for other in range(12):
            (tmp_path / f"{one}/{other}").symlink_to(tmp_path / str(other))
    with pytest.raises(UserError) as error:
        archive.Folder(tmp_path)
    assert "more than 5000 files and folders, with what its links repeat" in one_line(error)


def test_pipes_and_devices_in_a_folder_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    content = archive.Folder(tmp_path)
    assert content.names == []
    assert set(content.unread) == {"pipe.jpg", "zero.jpg"}


def test_many_members_are_no_hindrance(tmp_path):
    path = zip_of(tmp_path / "x.zip", [(f"{number}.jpg", b"") for number in range(20_000)], zipfile.ZIP_STORED)
    with archive.reading(path) as content:
        assert len(content.names) == 20_000
