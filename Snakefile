# The graph of dvc.yaml for Snakemake: `snakemake --cores all`. Every stage there is a rule of the same name here, with
# the same inputs, outputs, parameters and command. What only Snakemake asks about, threads, memory, time and GPUs, is
# said here. The names that a wildcard may stand for are those in params.yaml.
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.18")  # compares inputs by checksum
sys.path.insert(0, workflow.basedir)

from pipeline import datasets
from pipeline.core import graph, params
from pipeline.core.errors import UserError
from pipeline.planning import faults

if config:
    raise WorkflowError("edit params.yaml: the stages read that file, not --config")
try:
    STAGES = graph.stages(params.load())
    datasets.refuse_own_files(*params.datasets())  # before an output is deleted
except UserError as error:
    raise WorkflowError(str(error))
JOBS = [job for stage in STAGES for job in stage.jobs.values()]
WRITERS = graph.Writers(JOBS)
CHECKED = {stage.name for stage in STAGES if graph.PLAN in stage.pattern.inputs}

# Of a job: threads, GPUs, memory (MB), time (minutes). A cluster is asked for all of it, and for as much memory again at
# each further attempt; long jobs go on where their time ended. Here threads and GPUs count: `--resources gpu=2` lets two
# jobs that need one run at a time (profiles/default allows one).
SMALL = dict(threads=1, gpu=0, mem_mb=8_000, runtime=240)
CORES = dict(threads=8, gpu=0, mem_mb=16_000, runtime=1_440)
SCORING = dict(threads=8, gpu=1, mem_mb=32_000, runtime=1_440)
TRAINING = dict(threads=8, gpu=1, mem_mb=32_000, runtime=2_880)
NEEDS = dict(keypoints=CORES, pseudo_labels=CORES, score_images=SCORING)
NEEDS |= dict.fromkeys(("pretrain", "train", "draw"), TRAINING)
NEEDS |= dict.fromkeys(("parsing", "reference", "score", "score_components"), SCORING)
# Run where Snakemake does, on a cluster as well: its nodes may have no internet.
HERE = ("plan", "needs", "fetch", "weights")


# What `snakemake --report` begins with, and what it shows of the outputs.
report: "reports/captions/run.rst"


REPORTED = {
    "reports/html/index.html": dict(
        category="Report", caption="reports/captions/page.rst", labels={"what": "page"}
    ),
    "reports/tables": dict(
        category="Tables",
        caption="reports/captions/tables.rst",
        labels={"table": "{name}"},
        patterns=["{name}.csv"],
    ),
    "data/{dataset}/README.md": dict(
        category="Data",
        caption="reports/captions/data.rst",
        labels={"data set": "{dataset}"},
    ),
}


# Before the first job, if one is due that comes after `plan`: see graph.FOREGOING.
onstart:
    due = {one.rule.name for one in workflow.dag.needrun_jobs()}
    if due & CHECKED and (wrong := faults.faults(params.load())):
        raise WorkflowError(*wrong)


def job(stage, wildcards):
    return stage.jobs[tuple(wildcards[axis] for axis in stage.axes)]


def output(path):
    """A path of dvc.yaml as Snakemake's output: a file has a suffix, a folder none."""
    flagged = path if Path(path).suffix else directory(path)
    return report(flagged, **REPORTED[path]) if path in REPORTED else flagged


rule all:
    input:
        [path for one in JOBS for path in one.outputs],
    localrule: True


# The data sets alone: no training, and no network that only metrics need. docs/shards.md says what there is then.
rule prepared:
    input:
        [path for one in JOBS if one.stage in graph.DATA_STAGES for path in one.outputs],
    localrule: True


for stage in STAGES:
    needs = NEEDS.get(stage.pattern.stage, SMALL)

    rule:
        name:
            stage.name
        input:
            lambda wildcards, stage=stage: WRITERS.files(job(stage, wildcards)),
        output:
            [output(path) for path in stage.pattern.outputs],
        log:
            str(stage.pattern.log),
        wildcard_constraints:
            **{axis: "|".join(names) or "none" for axis, names in stage.axes.items()},
        priority: int(stage.pattern.stage in ("plan", "weights"))
        localrule: stage.is_idle or stage.pattern.stage in HERE
        threads: needs["threads"]
        resources:
            gpu=lambda w, stage=stage, n=needs["gpu"]: n * job(stage, w).processes,
            mem_mb=lambda w, attempt, stage=stage, n=needs["mem_mb"]: n
            * (attempt * job(stage, w).processes),
            runtime=needs["runtime"],
        params:
            command=lambda wildcards, stage=stage: job(stage, wildcards).command,
            values=lambda wildcards, stage=stage: job(stage, wildcards).deciding,
        shell:
            "{params.command}"
