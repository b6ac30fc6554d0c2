import json
import zipfile

import numpy as np
import pytest

from pipeline.anatomy import pose
from pipeline.core.errors import UserError
from pipeline.formats import archive, openpose_json

BODY_25 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe",
    "right_heel",
)  # fmt: skip


def random_person(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.random(18, dtype=np.float32) * (rng.random(18) < 0.7)
    return np.where((scores > 0)[:, None], rng.uniform(0, 400, (18, 2)), 0).astype(np.float32), scores


def document(*people: list) -> bytes:
    return json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": values} for values in people]}).encode()


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_is_written_is_read_to_the_bit(tmp_path, kind):
    names = ["b_1.jpg", "a.jpg.jpg", "c.d.png", "nobody.jpg"]
    given = [random_person(seed) for seed in range(3)] + [(np.zeros((18, 2), np.float32), np.zeros(18, np.float32))]
    files = {openpose_json.member(name): openpose_json.write(*one) for name, one in zip(names, given, strict=True)}
    assert set(files) == {f"{stem}_keypoints.json" for stem in ("b_1", "a.jpg", "c.d", "nobody")}
    path = tmp_path / f"files.{kind}"
    if kind == "zip":
        archive.write(path, [(f"some/folder/{name}", data) for name, data in files.items()])
    else:
        (path / "sub").mkdir(parents=True)
        (path / "readme.txt").write_text("passed over")
        for name, data in files.items():
            (path / "sub" / name).write_bytes(data)
    read = list(openpose_json.read(path, names))
    assert len(read[3][0]) == 0
    for (joints, scores), (people, values) in zip(given[:3], read[:3], strict=True):
        assert people.dtype == values.dtype == np.float32
        assert np.array_equal(people, joints[None])
        assert np.array_equal(values, scores[None])


def test_the_written_layout_is_openposes():
    joints, scores = random_person(1)
    content = json.loads(openpose_json.write(joints, scores))
    assert content["version"] == 1.3
    (person,) = content["people"]
    values = person["pose_keypoints_2d"]
    assert len(values) == 54
    for number in range(18):
        present = scores[number] > 0
        assert values[3 * number : 3 * number + 3] == ([*joints[number], scores[number]] if present else [0, 0, 0])
    assert person["person_id"] == [-1]
    assert person["face_keypoints_2d"] == person["hand_left_keypoints_2d"] == []


def test_body_25_by_joint_names():
    values = [part for number in range(25) for part in (100 + number, 200 + number, 0.5 + number / 100)]
    joints, scores = openpose_json.people(document(values))
    for number, name in enumerate(pose.JOINT_NAMES):
        where = BODY_25.index(name)
        assert joints[0, number].tolist() == [100 + where, 200 + where]
        assert scores[0, number] == np.float32(0.5 + where / 100)


def test_confidence_zero_is_missing_wherever_it_lies():
    values = [7.0, 8.0, 0.0] + [1.0, 2.0, 0.3] * 17
    joints, scores = openpose_json.people(document(values, [0] * 54))
    assert joints.shape == (2, 18, 2)
    assert not joints[0, 0].any()
    assert (scores > 0).sum(axis=1).tolist() == [17, 0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", r"sub/a_keypoints\.json: Expecting"),
        (b"\xff\xfe{", r"sub/a_keypoints\.json"),
        (b"[]", "no list `people`"),
        (b'{"people": {}}', "no list `people`"),
        (b'{"people": [3]}', "person 0 has no values"),
        (document([0] * 54, [0] * 51), r"person 1 has 51 values .* not 54 \(COCO\) or 75"),
        (document(["x"] * 54), "no numbers"),
        (document([None] * 54), "not finite"),
        (document([float("nan")] * 54), "not finite"),
        (b"[" * 200_000, r"sub/a_keypoints\.json"),
    ],
)
def test_a_broken_file_is_one_line_with_its_name(tmp_path, data, message):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a_keypoints.json").write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        list(openpose_json.read(tmp_path, ["a.jpg"]))
    assert "\n" not in str(error.value)


def test_missing_and_ambiguous_files(tmp_path):
    path = tmp_path / "x.zip"
    archive.write(path, [("a_keypoints.json", document())])
    with pytest.raises(UserError, match=r"no joints for 2 of 3 images, the first b\.jpg; want b_keypoints\.json"):
        list(openpose_json.read(path, ["a.jpg", "b.jpg", "c.jpg"]))
    with pytest.raises(UserError, match=r"is of a\.jpg or of a\.png"):
        list(openpose_json.read(path, ["a.jpg", "a.png"]))
    with zipfile.ZipFile(path, "a") as more:
        more.writestr("again/a_keypoints.json", document())
    with pytest.raises(UserError, match=r"both named as the image a\.jpg"):
        list(openpose_json.read(path, ["a.jpg"]))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("[" * 100_000, "nested too deep"),
        (f"[{', '.join(['1' + '0' * 400] * 54)}]", "values in pose_keypoints_2d that are no numbers"),
        (f"[{', '.join(['1e999'] * 54)}]", "that are not finite"),
        (f"[{', '.join(['{}'] * 54)}]", "that are no numbers"),
    ],
)
def test_numbers_that_nothing_holds_are_said(values, says):
    text = '{"people": [{"pose_keypoints_2d": ' + values
    with pytest.raises(ValueError, match=says):
        openpose_json.people((text if values[-1] == "[" else text + "}]}").encode())
