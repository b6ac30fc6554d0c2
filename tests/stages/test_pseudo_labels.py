import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from models.variants import COMPONENTS
from pipeline.anatomy import labels, pose
from pipeline.core import console, layout, params, schema, store
from pipeline.core.errors import UserError
from pipeline.stages import pseudo_labels
from pipeline.stand_ins import part_search
from pipeline.training import training_data
from tests.conftest import ROOT
from tests.fake_device import FakeCuda
from tests.stand_ins.test_body_parts import people
from tests.stand_ins.test_part_search import drawn

BLOCK = pseudo_labels.Params(rerank=8, frame=6, device="cpu")


def prepare(folder, count: int = 30, changed=None) -> list[str]:
    """Keypoints and parsing of `count` people, every fifth in the test split; `changed` may spoil some."""
    joints, valid = people(0, count, 8.0, 0.95)
    if changed:
        changed(joints, valid)
    names = [f"{i // 3 + 1:04d}_c1s1_{i:06d}_00.png" for i in range(count)]
    keypoints, parsing = [], []
    for i, name in enumerate(names):
        split = "test" if i % 5 == 4 else "train"
        scores = valid[i].astype(float).tolist()
        points = {"keypoints": pose.from_array(joints[i], valid[i]), "keypoint_scores": scores, "keypoint_source": "t"}
        keypoints.append({"image_id": name, "split": split, "person_id": name[:4], "row": i, **points})
        lip = labels.relabel(drawn(joints[i], i), labels.TO_LIP20["spt-10"])
        data = cv2.imencode(".png", lip)[1].tobytes()
        parsing.append({"image_id": name, "parsing": {"bytes": data, "path": name}, "label_source": "drawn"})
    store.write_table(folder / layout.keypoints("synthetic"), keypoints[::-1], schema.KEYPOINTS)  # any order
    store.write_shards(folder / layout.parsing("synthetic"), parsing, schema.PARSING)
    return [name for i, name in enumerate(names) if i % 5 != 4]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("params.yaml", "params.schema.yaml"):  # the graph asks which jobs there are
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents() -> list[bytes]:
    return [path.read_bytes() for path in store.parts(layout.pseudo_labels("synthetic", "equation"))]


def stored(rule: str) -> pa.Table:
    return store.read_table(layout.pseudo_labels("synthetic", rule))


def loaded(file) -> tuple[list[str], part_search.People]:
    return pseudo_labels.load(store.read_table(layout.keypoints("synthetic")), layout.parsing("synthetic"), file)


@pytest.mark.parametrize("rule", part_search.RULES)
def test_rows(folder, rule):
    def changed(joints, valid):
        valid[7, 2] = False  # no shoulder: neither source nor candidate

    names = prepare(folder, changed=changed)
    block = pseudo_labels.Params(rerank=30, frame=6, device="cpu")
    pseudo_labels.write("synthetic", rule, block)
    table = stored(rule)
    assert table.column("image_id").to_pylist() == names
    rows = table.to_pylist()
    assert rows[names.index("0003_c1s1_000007_00.png")] == {
        "image_id": "0003_c1s1_000007_00.png", "pseudo_id": None, "cost": None, "pose_distance": None,
    }  # fmt: skip
    chosen = {row["pseudo_id"] for row in rows}
    assert chosen <= {None, *names} - {"0003_c1s1_000007_00.png"}
    assert len(chosen) > 3
    found = [row for row in rows if row["pseudo_id"]]
    assert len(found) >= 12
    assert all(row["image_id"] != row["pseudo_id"] and row["pose_distance"] >= 0.25 for row in found)
    with Path("maps").open("w+b") as file:
        ids, everyone = loaded(file)
        source, other = (np.array([ids.index(row[key]) for row in found]) for key in ("image_id", "pseudo_id"))
        np.testing.assert_array_equal(part_search.cost(everyone, source, other), [row["cost"] for row in found])
    if rule == "equation":  # all were compared exactly: nothing admitted is cheaper
        for row, first in zip(found, source, strict=True):
            usable = np.array([i for i in range(len(ids)) if everyone.valid[i, 2]])
            costs = part_search.cost(everyone, np.full(len(usable), first), usable)
            distance, shared = part_search.pose_distance(everyone, np.full(len(usable), first), usable)
            assert row["cost"] == costs[(distance >= 0.25) & (shared >= 8)].min()


def test_the_search_on_a_gpu_finds_what_it_finds_on_a_cpu(folder):
    prepare(folder)
    found = []
    for where in ("cpu", "auto"):
        with FakeCuda() as device:
            pseudo_labels.write("synthetic", "equation", pseudo_labels.Params(rerank=30, frame=6, device=where))
        found.append((stored("equation").to_pylist(), sum(device.operations.values())))
        shutil.rmtree(layout.pseudo_labels("synthetic", "equation"))
    (expected, idle), (here, busy) = found
    assert here == expected
    assert idle == 0 < busy


def test_killed_and_started_again(folder, monkeypatch):
    names = prepare(folder)
    monkeypatch.setattr(pseudo_labels, "CHUNK", 5)
    pseudo_labels.write("synthetic", "equation", BLOCK)
    whole = contents()
    assert not layout.work("pseudo_labels", "synthetic", "equation").exists()
    monkeypatch.setattr(pseudo_labels, "CHUNK", 1024)
    pseudo_labels.write("synthetic", "equation", BLOCK)
    assert contents() == whole

    monkeypatch.setattr(pseudo_labels, "CHUNK", 5)
    seen, real = [], pseudo_labels.rows

    def rows(ids, index, block, rule, some):
        if len(seen) == 15:
            raise KeyboardInterrupt
        seen.extend(some)
        return real(ids, index, block, rule, some)

    layout.pseudo_labels("synthetic", "equation").rename("before")
    with monkeypatch.context() as patch:
        patch.setattr(pseudo_labels, "rows", rows)
        with pytest.raises(KeyboardInterrupt):
            pseudo_labels.write("synthetic", "equation", BLOCK)
    assert not layout.pseudo_labels("synthetic", "equation").exists()

    def rest(ids, index, block, rule, some):
        seen.extend(some)
        return real(ids, index, block, rule, some)

    monkeypatch.setattr(pseudo_labels, "rows", rest)
    said = []
    monkeypatch.setattr(console, "say", said.append)
    pseudo_labels.write("synthetic", "equation", BLOCK)
    assert seen == list(range(len(names)))  # each once
    assert contents() == whole
    assert said[0] == f"going on: 15 of {len(names)} done before"
    assert sorted(path.name for path in layout.work("pseudo_labels", "synthetic").iterdir()) == []


def test_people_who_are_nobody_are_no_candidates(folder):
    names = prepare(folder)
    with Path("maps").open("w+b") as file:
        ids, everyone = loaded(file)
        assert ids == names
        everybody = pseudo_labels.candidates(ids, everyone, (), BLOCK).candidate.tolist()
        some = pseudo_labels.candidates(ids, everyone, ("0001", "0002"), BLOCK).candidate.tolist()
    assert everybody == list(range(len(names)))
    assert some == [i for i, name in enumerate(names) if name[:4] not in ("0001", "0002")]


def test_label_maps_come_back_as_stored(folder):
    names = prepare(folder)
    with Path("maps").open("w+b") as file:
        ids, everyone = loaded(file)
        joints, valid = people(0, 30, 8.0, 0.95)
        rows = [i for i in range(30) if i % 5 != 4]
        np.testing.assert_array_equal(everyone.joints[everyone.valid], joints[rows][valid[rows]])
        for place, i in enumerate(rows):
            start = everyone.offset[place]
            codes = everyone.codes[start : start + 128 * 64].reshape(128, 64)
            np.testing.assert_array_equal(codes & 15, drawn(joints[i], i))
    assert ids == names


def test_without_parsing_it_says_what_to_set(folder):
    prepare(folder)
    store.write_shards(layout.parsing("synthetic"), [], schema.PARSING)
    with pytest.raises(UserError, match=r"no parsing of a training image; set parsing\.source"):
        pseudo_labels.write("synthetic", "equation", BLOCK)
    assert not layout.pseudo_labels("synthetic", "equation").exists()


def test_without_hips_it_says_so(folder):
    def changed(joints, valid):
        valid[:, 8] = False

    prepare(folder, changed=changed)
    with pytest.raises(UserError, match="no training image shows both shoulders and both hips"):
        pseudo_labels.write("synthetic", "equation", BLOCK)


def test_each_rule_has_an_output_which_the_component_that_reads_it_asks_for(folder):
    """And neither rule's depends on what is asked of the other."""
    assert set(pseudo_labels.READER) == set(part_search.RULES) == set(layout.RULES)
    for rule, component in pseudo_labels.READER.items():
        assert training_data.RULES[COMPONENTS[component].data] == rule
    names = prepare(folder)
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["variants"]["spt"] = []  # which would need one of them
    for asked in ([False, True], [True, False], [True, True]):
        values["components"] |= dict(zip(pseudo_labels.READER.values(), asked, strict=True))
        Path("params.yaml").write_text(yaml.safe_dump(values))
        params.load.cache_clear()
        for rule, searched in zip(pseudo_labels.READER, asked, strict=True):
            pseudo_labels.run("synthetic", rule)
            assert stored(rule)["image_id"].to_pylist() == (names if searched else [])
            assert (
                pq.read_schema(store.parts(layout.pseudo_labels("synthetic", rule))[0]).metadata[b"rule"]
                == rule.encode()
            )
    params.load.cache_clear()
    assert stored("equation")["pseudo_id"] != stored("balanced")["pseudo_id"]
