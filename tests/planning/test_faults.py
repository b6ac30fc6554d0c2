"""What would stop a run is said before it runs: a line each, with what to set; and what only may not be meant."""

import json
from pathlib import Path

import pytest

from pipeline.core import layout, params
from pipeline.planning import faults
from pipeline.stages import plan
from tests.conftest import ROOT
from tests.methods.made import Bundle, write_method
from tests.small_project import enter

NOTHING = {family: [] for family in ("floors", "spgnet", "spig", "spt", "sgw_gan", "patn", "gfla", "def_gan", "vunet")}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Enter a project of the synthetic data set with these settings, offline, with an empty mirror: its folder."""
    mirror = tmp_path / "mirror"
    (mirror / "weights").mkdir(parents=True)
    monkeypatch.setenv("REPOSE_MIRROR", str(mirror))
    monkeypatch.setenv("REPOSE_OFFLINE", "1")
    (tmp_path / "project").mkdir()

    def project(variants: dict, datasets=("synthetic",), **settings) -> Path:
        changes = {"datasets": [*datasets], "variants": NOTHING | variants, **settings}
        enter(tmp_path / "project", monkeypatch, **changes)
        params.check(params.load())
        return mirror

    yield project
    params.load.cache_clear()


def found() -> list[str]:
    return faults.faults(params.load())


def one() -> str:
    lines = found()
    assert len(lines) == 1, lines
    assert "\n" not in lines[0]
    return lines[0]


def test_a_method_that_cannot_be_run_is_said_first(project):
    """Its file, and the size of its images, before anything is trained or drawn."""
    project({}, methods=["mine"])
    assert one().startswith("draw: methods/mine/method.yaml: not there; docs/methods.md says how to add a method")
    bundle = Bundle(Path("theirs.bundle"), "0" * 40, "")
    bundle.path.touch()
    write_method(Path("methods/mine"), bundle)
    assert found() == []
    write_method(Path("methods/mine"), bundle, height=256, width=176)
    assert one() == "draw synthetic mine: takes images of 256 x 176 (height x width), those of synthetic are 64 x 32"


def record(net: str, status: str) -> None:
    layout.weights(net).mkdir(parents=True, exist_ok=True)
    said = {"status": status, "reason": "", "files": {"a.pth": "0"} if status == "present" else {}}
    (layout.weights(net) / "source.json").write_text(json.dumps(said))


STOPS = {
    "train__synthetic__patn__features": None,
    "train__synthetic__patn__missing_weights": "stop",
    "weights__vgg19__download": True,
}


def test_the_project_as_it_is_runs(project, monkeypatch):
    project({})
    monkeypatch.chdir(ROOT)
    params.load.cache_clear()
    assert found() == []


def test_a_loss_whose_network_cannot_be_had(project):
    mirror = project({"patn": ["patn", "patn-seed1"]}, **STOPS)
    line = one()
    assert line.startswith("train synthetic patn, train synthetic patn-seed1 need the published network vgg19: ")
    assert "downloads are switched off by $REPOSE_OFFLINE" in line
    assert "set weights.vgg19.path in params.yaml, or train.synthetic.patn.missing_weights to seeded" in line
    (mirror / "weights/vgg19-dcbb9e9d.pth").write_bytes(b"looked at by nobody yet")
    assert found() == []


def test_a_loss_that_takes_random_features_instead_stops_nothing(project):
    project({"patn": ["patn"]}, train__synthetic__patn__missing_weights="seeded")
    assert found() == []
    assert (
        "train synthetic patn: the published network squeezenet1_1 is not to be had: random features stand in, marked"
        in (faults.warnings(params.load()))
    )


def test_a_network_that_may_be_downloaded_is_no_fault(project, monkeypatch):
    project({"patn": ["patn"]}, **STOPS)
    monkeypatch.delenv("REPOSE_OFFLINE")
    assert found() == []
    for not_asked_for in (False, "papers"):  # no paper has numbers on synthetic images
        params.load()["weights"]["vgg19"]["download"] = not_asked_for
        assert "set weights.vgg19.path in params.yaml, or weights.vgg19.download to true" in one()


def test_a_network_that_is_standard_on_deepfashion_alone(project, monkeypatch):
    monkeypatch.delenv("REPOSE_OFFLINE")
    monkeypatch.delenv("REPOSE_MIRROR")
    for datasets, loaded in ((["market1501"], False), (["deepfashion-resize176"], True)):
        project({}, datasets)
        assert ("inception_v3" in plan.downloads(params.load())) == loaded
        assert "inception" in plan.downloads(params.load())
    project({}, ["market1501"], reference__market1501__metrics=["fid-train-tv"])
    assert any("or weights.inception_v3.download to true" in line for line in found())


def test_a_network_that_was_not_asked_for_then_is_looked_for_now(project, monkeypatch):
    project({"patn": ["patn"]}, **STOPS)
    monkeypatch.delenv("REPOSE_OFFLINE")
    record("vgg19", "missing")
    assert "run `rm -r data/weights/vgg19`" in one()
    source = layout.weights("vgg19") / "source.json"
    source.write_text(json.dumps({"status": "missing", "reason": "no path, no url, and not in $REPOSE_MIRROR"}))
    assert found() == []


def test_what_the_stage_weights_found_counts(project):
    mirror = project({"patn": ["patn"]}, **STOPS)
    record("vgg19", "present")
    assert found() == []
    record("vgg19", "missing")
    assert "need" in one()
    (mirror / "weights/vgg19-dcbb9e9d.pth").write_bytes(b"came later: no engine looks again by itself")
    assert "run `rm -r data/weights/vgg19` and then this again" in one()


def test_a_path_of_the_users_that_is_not_there(project, tmp_path):
    project({"patn": ["patn"]}, weights__vgg19__path=str(tmp_path / "vgg.pth"), **STOPS)
    assert "vgg.pth: no such file; correct weights.vgg19.path" in one()


def test_a_components_loss_counts_only_if_the_component_is_trained(project):
    settings = {"pretrain__synthetic__gfla_flow__missing_weights": "stop"}
    project({}, **settings)
    assert found() == []
    project({"gfla": ["gfla"]}, **settings)
    assert one().startswith("pretrain synthetic gfla_flow needs the published network squeezenet1_1: ")


def test_metrics_and_detectors_count(project):
    project(
        {},
        reference__synthetic__missing_weights="stop",
        reference__synthetic__lpips="squeeze",
        reference__synthetic__metrics=["identity-target"],
        pretrain__synthetic__detector__source="openpose",
        keypoints__synthetic__source="topdown",
    )
    nets = [line.partition(" published network ")[2].partition(":")[0] for line in found()]
    assert sorted(nets) == ["inception", "openpose", "reid", "squeezenet1_1", "topdown"]
    assert any("or reference.synthetic.missing_weights to skip" in line for line in found())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"parsing__synthetic__source": "none"}, "parsing.synthetic.source is none, and train synthetic spgnet needs"),
        ({"parsing__synthetic__source": "files"}, "parsing.synthetic.path is null"),
        (
            {"keypoints__synthetic__path": "nowhere"},
            "nowhere: no such file or folder; correct keypoints.synthetic.path",
        ),
        ({"pairs__synthetic__path": "nowhere"}, "nowhere: no such file or folder; correct pairs.synthetic.path"),
        ({"pretrain__synthetic__spatn__width": 0.5}, "spgnet.width is 0.25, and pretrain.synthetic.spatn.width is 0.5"),
        ({"train__synthetic__spgnet__accumulate": 16}, "a batch of 8 cannot be split into 16 micro-batches"),
        ({"train__synthetic__spgnet__tracker": "dvclive"}, "tracker is dvclive, which is not installed"),
        ({"pretrain__synthetic__detector__steps": 0}, "pretrain.synthetic.detector.steps is 0"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "-",
)
def test_settings_that_would_stop_a_job_hours_later(project, monkeypatch, settings, says):
    monkeypatch.setattr(faults, "find_spec", lambda name: None)
    project({"spgnet": ["spgnet"]}, **settings)
    assert says in one()
    project({}, **{key: value for key, value in settings.items() if "spgnet" in key or "spatn" in key})
    assert found() == []


def test_label_maps_that_were_read_may_be_gone(project):
    project({}, parsing__synthetic__source="files", parsing__synthetic__path="gone")
    assert "gone: no such file or folder; correct parsing.synthetic.path" in one()
    layout.parsing("synthetic").mkdir(parents=True)
    assert found() == []


def test_only_rendered_images_have_an_oracle(project):
    project({}, ["synthetic-plain"], **{"fetch__synthetic-plain__clothes": "plain"})
    assert found() == []
    project({}, ["folder"], parsing__folder__source="oracle", keypoints__folder__source="oracle")
    assert sum("is oracle, which only rendered images have" in line for line in found()) == 2


def test_a_metric_that_reads_parsing_needs_it(project):
    project({}, parsing__synthetic__source="none", reference__synthetic__metrics=["parsing-miou"])
    assert "parsing.synthetic.source is none, and reference synthetic needs human parsing" in one()


def test_a_width_of_one_runs_own_counts(project):
    project({"spgnet": ["spgnet"]}, named__spgnet={"spgnet-wide": {"width": 1.0}})
    assert one().startswith("params.yaml: named.spgnet.spgnet-wide.width is 1, and pretrain.synthetic.spatn.width is")


def test_data_that_must_be_asked_for(project):
    trained = {"source": "trained", "steps": 5}
    project({}, ["market1501"], reference__market1501__missing_weights="skip", pretrain__market1501__detector=trained)
    line = one()
    assert line.startswith("fetch market1501: cannot get images, annotation_train")
    assert "Request the images at https://" in line
    layout.raw("market1501").mkdir(parents=True)
    assert found() == []


@pytest.mark.parametrize("path", [None, "nowhere"])
def test_own_images_that_are_not_there(project, path):
    project(
        {},
        ["folder"],
        fetch__folder__path=path,
        reference__folder__missing_weights="skip",
        weights__openpose__path=__file__,
    )
    assert any(line.startswith("fetch folder: ") and "fetch.folder.path" in line for line in found())


def test_what_is_made_for_nobody_is_said(project):
    project({"spig": ["spig"]}, components__spig_flow=True, parsing__synthetic__source="repose")
    assert [line for line in faults.warnings(params.load()) if "components." in line] == []
    project({"spig": ["spig"]}, components__gfla_flow=True, parsing__synthetic__source="repose")
    said = faults.warnings(params.load())
    assert any(
        line.startswith("components.gfla_flow is true: pretrain synthetic gfla_flow trains, and no") for line in said
    )
    assert any(line.startswith("parsing synthetic: no variant or metric reads it") for line in said)
