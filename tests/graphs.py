"""Resolve the graph as Snakemake and as DVC see it: `python -m tests.graphs` in a project folder prints both.

A job is its command, its inputs, its outputs and the values of its params. Snakemake offers no public way to read a
resolved graph with its params, so this uses the DAG object behind its API; requirements.lock pins the version.
"""

import json
import sys
from pathlib import Path

import yaml


def snakemake_jobs() -> dict[str, dict]:
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import DAGSettings, OutputSettings, Quietness, ResourceSettings

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(resource_settings=ResourceSettings(cores=1), snakefile=Path("Snakefile"))
        graph = workflow.dag(dag_settings=DAGSettings(forceall=True))
        resolved = graph.workflow_api._workflow
        resolved._prepare_dag(forceall=True, ignore_incomplete=True, lock_warn_only=True)
        resolved._build_dag()
        jobs = {}
        for job in resolved.dag.jobs:
            if not job.shellcmd:
                continue  # `rule all`
            jobs[job.shellcmd] = {
                "inputs": sorted(map(str, job.input)),
                "outputs": sorted(map(str, job.output)),
                "params": [value for _, value in sorted(job.params._allitems(), key=lambda item: str(item[0]))],
                "rule": job.rule.name,
            }
    return jobs


def _lookup(values: dict, key: str):
    for part in key.split("."):
        values = values[part]
    return values


def dvc_jobs() -> dict[str, dict]:
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    values = yaml.safe_load(Path("params.yaml").read_text())
    jobs = {}
    with Repo(".") as repo:
        for stage in repo.index.stages:
            params = [d for d in stage.deps if isinstance(d, ParamsDependency)]
            jobs[stage.cmd] = {
                "inputs": sorted(d.def_path for d in stage.deps if not isinstance(d, ParamsDependency)),
                "outputs": sorted(out.def_path for out in stage.outs),
                "params": [_lookup(values, key) for dep in params for key in dep.params],
                "rule": stage.name.partition("@")[0],
            }
    return jobs


if __name__ == "__main__":
    print(json.dumps({"snakemake": snakemake_jobs(), "dvc": dvc_jobs()}))
    sys.stdout.flush()
