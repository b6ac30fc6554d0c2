import io
import struct
import zlib

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.core import schema, store
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.scoring import image_folder


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    pixels = {f"{number:03d}.png": rng.integers(0, 256, (4, 3, 3), np.uint8) for number in range(150)}
    rows = [
        {
            "image_id": name,
            "split": "train",
            "person_id": "a",
            "image": {"bytes": cv2.imencode(".png", one[:, :, ::-1])[1].tobytes(), "path": name},
            "height": 4,
            "width": 3,
        }
        for name, one in pixels.items()
    ]
    store.write_shards(tmp_path / "images", rows, schema.IMAGES)
    return tmp_path / "images", pixels


def test_images_are_read_by_id_whatever_row_group_they_lie_in(images):
    folder, pixels = images
    wanted = ["000.png", "063.png", "064.png", "149.png"]
    for name, picture in zip(wanted, pictures.read(folder, wanted), strict=True):
        np.testing.assert_array_equal(picture, pixels[name])
        np.testing.assert_array_equal(pictures.read(folder, [name])[0], picture)  # first and last of a row group alone


def test_a_missing_image_is_named(images):
    with pytest.raises(UserError, match=r"no image 777\.png"):
        pictures.read(images[0], ["000.png", "777.png"])


def test_row_groups_without_a_wanted_image_are_not_read(images, monkeypatch):
    read = []
    original = pa.parquet.ParquetFile.read_row_group
    monkeypatch.setattr(
        pa.parquet.ParquetFile,
        "read_row_group",
        lambda self, group, **options: (read.append(group), original(self, group, **options))[1],
    )
    pictures.read(images[0], ["070.png"])
    assert set(read) == {1}


def test_bytes_that_do_not_decode_name_the_image():
    with pytest.raises(UserError, match=r"image a\.jpg does not decode"):
        pictures.decode_stored(b"no image", "a.jpg")


@pytest.mark.parametrize("data", [b"", b"no image"])
def test_what_is_no_picture_is_none(data):
    assert pictures.decode(data) is None


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tiff", "ppm", "jp2", "gif"])
def test_of_a_picture_that_is_cut_off_only_we_speak(suffix, capfd, recwarn):
    """OpenCV's codecs and Pillow would each write lines of their own, which name no file."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    whole = cv2.imencode(f".{suffix}", noise)[1].tobytes()
    assert pictures.decode(whole).shape == noise.shape
    assert pictures.decode(whole[: len(whole) // 2]) is None
    assert pictures.decode(whole[:20]) is None
    assert capfd.readouterr() == ("", "")
    assert pictures.decode(whole[:-3]) is None  # of this libpng speaks, which cannot be kept from it
    assert not recwarn.list


def test_colours_are_rgb_in_and_out():
    picture = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    for encoded in (pictures.encode_png(picture), pictures.encode_webp(picture)):
        np.testing.assert_array_equal(pictures.decode(encoded), picture)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), picture)


def test_label_maps_round_trip_and_anything_else_is_one_line():
    label_map = np.random.default_rng(0).integers(0, 20, (6, 4), np.uint8)
    for encoded in (pictures.encode_labels(label_map), pictures.encode_png(label_map)):
        np.testing.assert_array_equal(pictures.decode_labels(encoded, "x", (6, 4)), label_map)
    for wrong, size, message in (
        (b"", None, r"^x is no 8-bit label map; run it$"),
        (b"no image", (6, 4), r"^x is no 8-bit label map of 6 x 4; run it$"),
        (pictures.encode_png(label_map), (4, 6), r"^x is no 8-bit label map of 4 x 6; run it$"),
        (pictures.encode_png(np.zeros((6, 4, 3), np.uint8)), None, "no 8-bit label map"),
        (pictures.encode_png(np.zeros((6, 4), np.uint16)), None, "no 8-bit label map"),
        (pictures.encode_png(label_map + np.uint8(1)), None, r"^x holds label 20, LIP-20 ends at 19; run it$"),
    ):
        with pytest.raises(UserError, match=message):
            pictures.decode_labels(wrong, "x", size, "run it")


def test_an_exif_turn_turns_nothing():
    """Joints belong to the stored pixels."""
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    encoded, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    Image.fromarray(pixels).save(encoded, "PNG", exif=exif)
    np.testing.assert_array_equal(pictures.decode(encoded.getvalue()), pixels)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", exif=exif)
    assert pictures.decode(encoded.getvalue()).shape == (2, 4, 3)


def claiming(width: int, height: int) -> bytes:
    """A PNG of 100 bytes whose header claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize(
    ("width", "height", "says"),
    [(40000, 40000, "more than 128 million"), (12000, 12000, "144 million pixels (12000 x 12000), more than 128")],
)
def test_a_size_beyond_reason_is_named_before_memory_is_taken(tmp_path, width, height, says):
    data = claiming(width, height)
    with pytest.raises(UserError) as caught:
        pictures.decode_given(data, "a.png")
    assert says in str(caught.value)
    (tmp_path / "a.png").write_bytes(data)
    small = np.zeros((8, 8, 3), np.uint8)
    assert says in image_folder.read(tmp_path / "a.png", small, small)


def test_what_is_no_picture_is_not_called_large():
    assert pictures.refused(b"no picture") == "does not decode as a picture"
    assert pictures.refused(claiming(8, 8)) == ""
    with pytest.raises(UserError, match=r"^a\.png: does not decode as a picture; "):
        pictures.decode_given(claiming(8, 8), "a.png")


def test_without_memory_a_whole_picture_is_not_called_broken(monkeypatch):
    """OpenCV says the same of both: None. `index` would leave the picture out."""
    data = cv2.imencode(".jpg", np.zeros((32, 16, 3), np.uint8))[1].tobytes()

    def no_memory(size, _):
        assert size == (32, 16, 12)
        raise MemoryError

    monkeypatch.setattr(pictures.cv2, "imdecode", lambda *_: None)
    assert pictures.decode(data) is None
    monkeypatch.setattr(pictures.np, "empty", no_memory)
    assert pictures.decode(b"no picture") is None
    with pytest.raises(MemoryError):
        pictures.decode(data)


def test_a_format_that_nobody_uses_is_not_decoded():
    """OpenCV would: a Sun raster of few bytes may claim any size, and Pillow's limit is not for it."""
    sun = b"".join(number.to_bytes(4) for number in (0x59A66A95, 8, 8, 24, 192, 1, 0, 0)) + bytes(192)
    assert pictures.decode(sun) is not None
    assert pictures.refused(sun) == "does not decode as a picture"
    assert pictures.decode_foreign(sun) is None
