"""`repose status`: every state told from the others, by what the engines and the stages leave behind."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from pipeline import __main__ as command_line
from pipeline.commands import engines, status
from pipeline.core import console, digests, graph, layout, needs, params, seals, store
from pipeline.core.schema import SCORES
from pipeline.tables import papers
from tests.conftest import copy_project, working_in
from tests.stages.test_tables import REFERENCE, training_run, write_reference


@pytest.fixture
def clone(project) -> Path:
    """A fresh clone as the working folder: nothing made yet."""
    with working_in(project):
        yield project


def write(path: Path, text: str, when: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (when, when))


def pretend(jobs: list[graph.Job], record: bool = True) -> None:
    """Outputs of all jobs, a second apart, the log of each, and Snakemake's records of them."""
    start, writers = time.time() - 3600, graph.Writers(jobs)
    for number, job in enumerate(jobs):
        for output in job.outputs:
            file = Path(output) if Path(output).suffix else Path(output) / ".snakemake_timestamp"
            says = needs.text(needs.said(params.load(), output)) if needs.is_file(output) else str(job)
            write(file, says, start + number)
            if record:
                snakemake_record(job, output, start + number, writers)
        write(job.log, "said\nwall 1.0 s, peak memory 1 MiB\n", start + number)


def snakemake_record(job: graph.Job, output: str, when: float, writers: graph.Writers) -> None:
    inputs = writers.files(job)
    digests = {name: digest for name in inputs if (digest := engines._sha256(Path(name))) is not None}
    record = {"shellcmd": job.command, "params": [repr(job.command), repr(job.deciding)], "input": inputs}
    record |= {"input_checksums": digests, "endtime": when, "record_format_version": 6}
    path = engines._entry("metadata", output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A project that Snakemake has built. Tests have copies, which keep the times."""
    folder = copy_project(tmp_path_factory.mktemp("built"))
    for path in (path for path in folder.rglob("*") if ".git" not in path.parts and ".venv" not in path.parts):
        os.utime(path, (0, 0))
    with working_in(folder):
        pretend(graph.jobs(params.load()))
    return folder


@pytest.fixture
def made(built, tmp_path) -> Path:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    with working_in(tmp_path):
        yield tmp_path


def found() -> dict[str, status.State]:
    """State by a job's name, such as "train synthetic spig"."""
    params.load.cache_clear()
    jobs = graph.jobs(params.load())
    states = status.states(jobs)
    return {str(job): states[job.name] for job in jobs}


def other_than_done() -> dict[str, str]:
    return {name: state.name for name, state in found().items() if state.name != "done"}


def shown(capsys) -> str:
    assert command_line.main(["status"]) == 0
    return capsys.readouterr().out


def set_in_params(old: str, new: str) -> None:
    text = Path("params.yaml").read_text()
    assert text.count(old) == 1
    Path("params.yaml").write_text(text.replace(old, new))
    params.load.cache_clear()


AFTER_SPIG = {"train synthetic spig", "score synthetic spig", "tables", "report"}


# ---- states


def test_in_a_fresh_clone_all_is_missing(clone, capsys):
    assert {state.name for state in found().values()} == {"missing"}
    text = shown(capsys)
    assert "missing needs, fetch, index, keypoints, parsing, pairs" in " ".join(text.split())
    assert text.endswith("next: make demo\n")
    set_in_params("datasets: [synthetic]", "datasets: [synthetic, market1501]")
    text = shown(capsys)
    assert text.count("market1501") == 1  # it heads its rows, and nothing is said twice
    assert text.endswith("next: .venv/bin/snakemake --cores all\n")


def test_what_an_engine_vouches_for_is_done(made, capsys):
    assert other_than_done() == {}
    assert shown(capsys).endswith(f"next: nothing to run; open {layout.REPORT}\n")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(Path.unlink, "gone"), (lambda path: path.write_bytes(b""), "damaged (0 bytes, of 5)")],
    ids=["gone", "emptied"],
)
def test_a_file_that_is_gone_from_a_finished_folder_is_damage(made, capsys, spoil, says):
    """Neither engine looks into a folder for it."""
    folder = layout.checkpoints("synthetic", "spgnet")
    stamp = (folder / ".snakemake_timestamp").stat()
    (folder / "step-0000050.safetensors").write_bytes(b"whole")
    seals.write_list(folder)
    os.utime(folder / ".snakemake_timestamp", (stamp.st_atime, stamp.st_mtime))
    assert other_than_done() == {}
    spoil(folder / "step-0000050.safetensors")
    assert found()["train synthetic spgnet"].name == "damaged"
    assert found()["score synthetic spgnet"].name == "stale"
    text, command = shown(capsys), "repose train --dataset synthetic --variant spgnet"
    assert f"damaged train synthetic spgnet: {folder}/step-0000050.safetensors: {says}; run: {command}\n" in text
    assert text.endswith(f"next: {command}\n")


def test_a_network_that_could_not_be_had_is_not_called_done(made, capsys):
    folder = layout.weights("vgg19")
    record = folder / "source.json"
    for said, state in (("missing", "unavailable"), ("present", "done")):
        before = (folder / ".snakemake_timestamp").stat()
        record.write_text(json.dumps({"status": said, "reason": "", "files": {}}))
        os.utime(folder / ".snakemake_timestamp", (before.st_atime, before.st_mtime))
        assert found()["weights vgg19"].name == state
        text = shown(capsys)
        assert ("unavailable vgg19" in " ".join(text.split())) == (said == "missing")
        assert text.endswith(f"next: nothing to run; open {layout.REPORT}\n")  # neither engine would look again


def test_a_check_that_is_due_again_makes_nothing_stale(made):
    """Neither `plan`, which an edit of params.yaml runs again, nor `needs`, whose answers stay the same."""
    set_in_params("  spgnet: [spgnet] ", "  spgnet: [spgnet, spgnet-seed1] ")
    states = found()
    assert states["plan"].name == states["needs synthetic"].name == "stale"
    assert {states[name].name for name in states if name.startswith(("pretrain ", "parsing ", "pairs "))} == {"done"}
    assert states["train synthetic spgnet"].name == "done"
    assert states["train synthetic spgnet-seed1"].name == "missing"


def test_what_a_further_variant_needs_is_stale(made):
    set_in_params("  spig: [spig] ", "  spig: [spig, spig_no_part] ")
    states = found()
    assert states["pretrain synthetic spig_flow_whole"].name == "stale"
    assert states["pretrain synthetic spig_flow_whole"].why == "data/synthetic/needs/spig_flow_whole.json changes"
    assert states["pretrain synthetic spig_flow"].name == "done"
    assert states["pretrain synthetic spatn"].name == "done"


def test_a_touched_source_changes_nothing(made):
    os.utime("pipeline/stages/index.py")
    assert other_than_done() == {}


def test_an_edited_source_makes_stale_what_it_concerns(made, capsys):
    path = Path("pipeline/stages/report.py")
    path.write_text(path.read_text() + "# edited\n")
    assert other_than_done() == {"report": "stale"}
    text = shown(capsys)
    assert "stale report: pipeline/stages/report.py changed\n" in text
    assert text.endswith("next: .venv/bin/snakemake --cores all\n")


def test_an_edited_parameter_makes_stale_what_follows(made, capsys):
    set_in_params("    spig: {<<: *demo_features, steps: 150,", "    spig: {<<: *demo_features, steps: 151,")
    # params.yaml is an input of the report, too
    assert other_than_done() == dict.fromkeys(AFTER_SPIG | {"plan", "needs synthetic"}, "stale")
    assert found()["score synthetic spig"].why == "train synthetic spig is stale"
    text = shown(capsys)
    assert "stale train synthetic spig: params.yaml: train.synthetic.spig changed\n" in text
    assert "score synthetic spig:" not in text  # the cause is enough


def test_a_new_source_of_a_data_set_is_seen(made):
    Path("pipeline/datasets/synthetic/more.py").write_text("")
    assert found()["fetch synthetic"] == status.State("stale", "pipeline/datasets/synthetic/more.py is new")


def test_an_input_that_was_replaced_is_seen(made):
    os.utime("data/synthetic/pairs.parquet")  # newer, but the bytes are those on record
    assert found()["train synthetic copy_source"].name == "done"
    Path("data/synthetic/pairs.parquet").write_text("others")
    assert found()["train synthetic copy_source"] == status.State("stale", "data/synthetic/pairs.parquet changed")


def test_a_job_that_snakemake_did_not_see_end_is_stale(made):
    mark = engines._entry("incomplete", "data/synthetic/pairs.parquet")
    mark.parent.mkdir()
    mark.write_text("{}")
    assert found()["pairs synthetic"] == status.State("stale", "Snakemake did not see it end")


def test_what_is_gone_and_no_longer_needed_leaves_the_rest_done(made, capsys):
    Path("data/synthetic/pairs.parquet").unlink()
    assert other_than_done() == {"pairs synthetic": "missing"}
    assert shown(capsys).endswith("next: .venv/bin/snakemake --cores all data/synthetic/pairs.parquet\n")


def test_outputs_without_a_record_are_unrecorded(clone, capsys):
    pretend(graph.jobs(params.load()), record=False)
    assert {state.name for state in found().values()} == {"unrecorded"}
    assert "next: .venv/bin/snakemake --cores all --touch" in shown(capsys)


# ---- failed and running


def test_a_failure_shows_its_reason(made, capsys):
    with pytest.raises(ValueError, match="no luck"), console.logging_to(layout.log("train", "synthetic", "spig")):
        raise ValueError("no luck")
    assert found()["train synthetic spig"] == status.State("failed", "ValueError: no luck")
    assert {name for name, state in other_than_done().items() if state == "stale"} == AFTER_SPIG - {
        "train synthetic spig"
    }
    assert "failed train synthetic spig: ValueError: no luck\n" in shown(capsys)


def test_a_wrong_input_is_a_failure_in_the_users_words(clone):
    assert command_line.main(["index", "--dataset", "synthetic"]) == 2
    assert found()["index synthetic"] == status.State(
        "failed", "data/synthetic/raw: no images.zip; run: repose fetch --dataset synthetic"
    )


def test_a_failure_before_newer_outputs_is_past(made):
    log = layout.log("pairs", "synthetic")
    made_at = Path("data/synthetic/pairs.parquet").stat().st_mtime
    write(log, "failed: ValueError: x\nwall 1.0 s, peak memory 1 MiB\n", made_at - 1)
    assert found()["pairs synthetic"].name == "done"
    os.utime(log, (made_at + 1, made_at + 1))
    assert found()["pairs synthetic"].name == "failed"


WORKER = """
import sys, time
from pathlib import Path
from pipeline.core import console
with console.logging_to(Path(sys.argv[1])):
    console.say("step 3 of 9")
    print(flush=True)
    time.sleep(600)
"""


@pytest.fixture
def worker(made):
    """A process that runs `train synthetic spig`."""
    log = str(layout.log("train", "synthetic", "spig"))
    process = subprocess.Popen([sys.executable, "-c", WORKER, log], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def test_a_stage_runs_as_long_as_its_process(worker, capsys):
    assert found()["train synthetic spig"] == status.State("running", "step 3 of 9")
    assert found()["score synthetic spig"] == status.State("stale", "train synthetic spig is running")
    assert shown(capsys).endswith("next: wait; to look on: tail -f logs/train/synthetic-spig.log\n")
    worker.kill()
    worker.wait()
    killed = found()["train synthetic spig"]
    assert (killed.name, killed.why.partition(":")[0]) == ("failed", "stopped without a last word")


def test_looking_does_not_disturb(made):
    log = layout.log("pairs", "synthetic")
    with console.logging_to(log):
        assert console.is_written(log)
        assert console.is_written(log)
    assert not console.is_written(log)
    assert log.read_text().startswith("wall ")
    assert not console.is_written(layout.log("pairs", "nothing"))


# ---- DVC's book, as it writes it


@pytest.fixture
def repro(made, monkeypatch) -> dict:
    """The same, built by DVC: its lock, as a dict; call `save_lock` after a change."""
    for path in engines.SNAKEMAKE.rglob("*"):
        if path.is_file():
            path.unlink()
    entries = {}
    for job in graph.jobs(params.load()):
        outs = [{"path": out, "md5": engines._md5(Path(out)), "size": engines._size(Path(out))} for out in job.outputs]
        code = graph.code_of_data_set(job.axes.get("dataset", ""))
        read = [path for path in job.inputs if path not in code]
        deps = [{"path": path, "md5": engines._md5(Path(path)), "size": engines._size(Path(path))} for path in read]
        parameters: dict[str, dict] = {"params.yaml": {}, "data/synthetic/settings.yaml": {}}
        for key, value in job.params.items():
            file = "data/synthetic/settings.yaml" if ".synthetic" in key else "params.yaml"
            parameters[file][key.replace(".synthetic", "")] = value
        if len(read) < len(job.inputs):
            parameters["data/synthetic/settings.yaml"]["code"] = digests.code(code)
        entries[str(job)] = {"cmd": job.command, "deps": deps, "outs": outs, "params": parameters}
    save_lock(entries)
    return entries


def save_lock(entries: dict, schema: str = "2.0") -> None:
    engines.DVC_LOCK.write_text(yaml.safe_dump({"schema": schema, "stages": entries}))


def test_dvc_vouches_by_its_lock(repro):
    assert other_than_done() == {}


def test_dvc_notices_what_changed(repro):
    path = Path("pipeline/stages/report.py")
    path.write_text(path.read_text() + "# edited\n")
    assert other_than_done() == {"report": "stale"}
    set_in_params("    spig: {<<: *demo_features, steps: 150,", "    spig: {<<: *demo_features, steps: 151,")
    assert other_than_done() == dict.fromkeys(AFTER_SPIG | {"plan", "needs synthetic"}, "stale")
    Path("data/synthetic/rejects.parquet").write_text("more bytes than there were")
    assert found()["index synthetic"].why == "data/synthetic/rejects.parquet is not what DVC wrote"


def test_dvc_notices_edited_code_of_a_data_set(repro, monkeypatch):
    """By the digests that `needs` wrote down, which an edited comment leaves as they were."""
    monkeypatch.setattr(digests, "ROOT", Path.cwd())
    path = Path("pipeline/datasets/synthetic/person.py")
    path.write_text(path.read_text() + "# edited\n")
    assert set(other_than_done()) == {"needs synthetic"}
    path.write_text(path.read_text() + "EDITED = 1\n")
    assert found()["pairs synthetic"].name == "stale"
    assert found()["fetch synthetic"].why == "pipeline/datasets/synthetic/person.py changed"
    path.unlink()
    assert found()["fetch synthetic"].why == "pipeline/datasets/synthetic/person.py changed"


def test_dvc_notices_an_input_that_was_made_again(repro):
    repro["pairs synthetic"]["outs"][0]["md5"] = "0" * 32
    repro["score synthetic spig"]["outs"][0]["md5"] = "0" * 32
    save_lock(repro)
    assert found()["reference synthetic"] == status.State("stale", "data/synthetic/pairs.parquet changed")
    assert found()["tables"].name == "stale"


def test_the_engine_that_made_the_outputs_is_believed(repro, capsys):
    """DVC's lock of an earlier run does not vouch for what Snakemake made since with other parameters."""
    set_in_params("    spig: {<<: *demo_features, steps: 150,", "    spig: {<<: *demo_features, steps: 151,")
    pretend(graph.jobs(params.load()))
    assert other_than_done() == {}
    set_in_params("    spig: {<<: *demo_features, steps: 151,", "    spig: {<<: *demo_features, steps: 150,")
    assert found()["train synthetic spig"].name == "stale"


def test_records_of_another_version_are_not_guessed_at(made, repro, capsys):
    save_lock(repro, schema="3.0")
    assert command_line.main(["status"]) == 2
    assert capsys.readouterr().err == (
        "repose: dvc.lock is of version 3.0, and status can read 2.0 only; `dvc status` tells what is done\n"
    )
    engines.DVC_LOCK.write_text("")
    pretend(graph.jobs(params.load()))
    record = engines._entry("metadata", "reports/tables")
    record.write_text(record.read_text().replace('"record_format_version": 6', '"record_format_version": 7'))
    assert command_line.main(["status"]) == 2
    assert ".snakemake/metadata is of version 7, and status can read 6 only" in capsys.readouterr().err


# ---- what is shown


def write_scores(variant: str, rows: list[dict]) -> None:
    store.write_table(layout.scores("synthetic", variant), rows, SCORES)


def test_scores_are_those_on_test_of_the_checkpoint_that_stands_for_the_variant(clone):
    rows = training_run("synthetic", "spig", [30, 60, 90])
    for row in rows:
        if (row["step"], row["split"], row["metric"]) == (60, "val", "lpips-alex-v0.1"):
            row["value"] = 0.01  # the best on val, though not on test
    write_scores("spig", rows)
    on_test = {row["metric"]: row["value"] for row in rows if (row["step"], row["split"]) == (60, "test")}
    marks, seeded = papers.symbols("steps weights width data"), papers.symbols("metric-weights")
    expected = (
        f"LPIPS {on_test['lpips-alex-v0.1']:.4f}{seeded}{marks}, FID {on_test['fid']:.3f}{seeded}{marks}, "
        f"PCKh {on_test['pckh@0.5']:.2f}{marks}"
    )
    by = {"metric": "lpips", "split": "val"}
    assert status.scores_in_words("synthetic", "spig", by) == f"step 60: {expected}"
    assert status.scores_in_words("synthetic", "patn", by) == ""
    layout.scores("synthetic", "spig").write_bytes(b"broken")
    assert status.scores_in_words("synthetic", "spig", by).endswith("scores.parquet cannot be read")


def test_a_column_is_printed_once_where_checkpoints_are_chosen_by_it(clone):
    write_scores("spig", training_run("synthetic", "spig", [30]))
    assert status.scores_in_words("synthetic", "spig", {"metric": "ssim", "split": "val"}).startswith(
        "step 30: SSIM 0.4"
    )


def test_a_metric_that_was_left_out_is_not_shown_as_another(clone):
    """Without its network there is no FID; checkpoints are then chosen by SSIM."""
    rows = [row for row in training_run("synthetic", "spig", [30]) if not row["metric"].startswith(("fid", "lpips"))]
    write_scores("spig", rows)
    said = status.scores_in_words("synthetic", "spig", {"metric": "lpips", "split": "val"})
    assert said.startswith("step 30: SSIM 0.4")
    assert "FID" not in said
    assert "LPIPS" not in said


def test_scores_by_another_reference_are_said_to_stand_in_no_table(clone, capsys):
    """Of a variant and of a component, each with the command that renews it; nothing where no reference is known."""
    set_in_params(" spatn: auto", " spatn: true")
    for name in ("spig", "spatn"):
        write_scores(name, training_run("synthetic", name, [30]))
    renew = "run: repose score --dataset synthetic --variant spig"
    for sha256, left_out in ((None, False), (REFERENCE, False), ("2" * 64, True)):
        if sha256:
            write_reference("synthetic", sha256)
        assert command_line.main(["status", "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)["scores"]
        assert [one["renew"] for one in printed] == [renew if left_out else ""]
        text = " ".join(shown(capsys).split())
        assert text.count("not in tables: scored by another reference; run: repose score") == 2 * left_out
    squeezed = "".join(text.split())
    assert "repose score_components --dataset synthetic --component spatn".replace(" ", "") in squeezed


def test_json_has_jobs_scores_and_what_is_next(made, capsys):
    """The documented keys, and what the table shows."""
    write_scores("spig", training_run("synthetic", "spig", [30, 60]))
    Path("runs/synthetic/spig/checkpoints/.snakemake_timestamp").unlink()
    Path("runs/synthetic/spig/checkpoints").rmdir()
    assert command_line.main(["status", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"jobs", "scores", "next"}
    states = {job["job"]: job for job in printed["jobs"]}
    everything = found()
    assert {name: job["state"] for name, job in states.items()} == {name: one.name for name, one in everything.items()}
    assert states["train synthetic spig"] == {
        "job": "train synthetic spig", "stage": "train", "dataset": "synthetic", "variant": "spig",
        "state": "missing", "why": "",
    }  # fmt: skip
    assert states["score synthetic spig"]["why"] == everything["score synthetic spig"].why
    scores = {one["variant"]: one for one in printed["scores"]}
    step, values, marks = status.last_scores("synthetic", "spig", params.load()["tables"]["choose_by"])
    assert scores["spig"] == {
        "dataset": "synthetic", "variant": "spig", "step": step, "values": values, "marks": marks, "renew": "",
    }  # fmt: skip
    assert "metric-weights" in marks["LPIPS"]
    assert printed["next"].startswith(".venv/bin/snakemake")
    assert scores["patn"]["error"].endswith("scores.parquet cannot be read")  # `made` wrote no parquet


def test_components_that_nobody_asked_for_are_not_listed(clone, capsys):
    asked = needs.wanted(params.load(), "synthetic")
    lines = shown(capsys).splitlines()
    listed = [name for name in asked if any(f" {name} " in line and "pretrain" in line for line in lines)]
    assert listed == [name for name in needs.components(params.load()) if asked[name]]
    assert listed != list(asked)
    assert any(" detector " in line for line in lines)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_of_any_width(made, columns):
    """In a terminal nothing is wider than it, and nothing is cut off; elsewhere there is no colour."""
    write_scores("spig", training_run("synthetic", "spig", [30, 60]))
    jobs = graph.jobs(params.load())
    table = status.table(jobs, status.states(jobs))
    out = Console(width=columns, force_terminal=True, color_system=None, highlight=False)
    with out.capture() as caught:
        out.print(table)
    lines = caught.get().splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in caught.get()
    squeezed = "".join("".join(lines).split())
    assert "pseudo_labels" in squeezed or columns == 40  # folded there, in the middle of its cell
    assert "step60" in squeezed or columns == 40


def test_without_a_terminal_it_is_plain_text(made):
    result = subprocess.run([sys.executable, "-m", "pipeline", "status"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "\x1b" not in result.stdout
    assert "done train, score" in result.stdout
    assert result.stderr == ""


def test_it_starts_without_torch_and_without_an_engine(made):
    code = "import sys; from pipeline.__main__ import main; main(['status']); print(sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = result.stdout.splitlines()[-1]
    assert "'pyarrow'" in modules
    for slow in ("torch", "pandas", "snakemake", "dvc"):
        assert f"'{slow}'" not in modules


def test_a_network_whose_weights_could_not_be_had_is_not_called_done(made, capsys):
    """And nothing is left to run for it; one whose weights are there is done."""
    for net, missing in (("alexnet", True), ("inception", False)):
        source = {"status": "missing" if missing else "present", "files": {}, "reason": "no network"}
        (layout.weights(net) / "source.json").write_text(json.dumps(source))
    pretend(graph.jobs(params.load()))
    assert found()["weights alexnet"].name == "unavailable"
    assert found()["weights inception"].name == "done"
    text = shown(capsys)
    assert "unavailable alexnet: to look for the published weights again: rm -r data/weights/alexnet" in text
    assert text.rstrip().endswith(f"next: nothing to run; open {layout.REPORT}")
