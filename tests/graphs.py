"""Resolve the graph as Snakemake and as DVC see it: `python -m tests.graphs` in a project folder prints both.

A job is its command, inputs, outputs, params, log and the name of its rule; of Snakemake also the memory (MB) of its
first and second attempt, and whether it runs where Snakemake does. Snakemake offers no public way to read a resolved
graph with its params, so this uses the DAG object behind its API; requirements.lock pins the version.
"""

import json
import sys
from functools import reduce
from pathlib import Path

import yaml


def _memory(job, attempt: int) -> int:
    job.attempt = attempt
    return job.resources.mem_mb


def snakemake_jobs() -> dict[str, dict]:
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import DAGSettings, OutputSettings, Quietness, ResourceSettings

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(resource_settings=ResourceSettings(cores=1), snakefile=Path("Snakefile"))
        graph = workflow.dag(dag_settings=DAGSettings(forceall=True))
        resolved = graph.workflow_api._workflow
        resolved._prepare_dag(forceall=True, ignore_incomplete=True, lock_warn_only=True)
        resolved._build_dag()
        return {
            job.shellcmd: {
                "inputs": sorted(map(str, job.input)),
                "outputs": sorted(map(str, job.output)),
                "params": job.params["values"],
                "rule": job.rule.name,
                "log": str(job.log[0]),
                "memory": [_memory(job, attempt) for attempt in (1, 2)],
                "local": job.rule.name in resolved._localrules,
            }
            for job in resolved.dag.jobs
            if job.shellcmd  # not `rule all`
        }


def dvc_jobs() -> dict[str, dict]:
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    from pipeline.core.params import with_forms

    values = with_forms(yaml.safe_load(Path("params.yaml").read_text()))
    jobs = {}
    with Repo(".") as repo:
        for stage in repo.index.stages:
            read = [
                (dep.def_path, key) for dep in stage.deps if isinstance(dep, ParamsDependency) for key in dep.params
            ]
            keys, code = [], []
            for file, key in read:
                if file == "params.yaml":
                    keys.append(key)
                    continue
                data, dataset, name = file.split("/")  # what `needs` writes for a data set
                assert (data, name) == ("data", "settings.yaml")
                block, *below = key.split(".")
                if block == "code":
                    made_of = {"deepfashion_sample": ["deepfashion", "deepfashion_sample"]}
                    folders = made_of.get(dataset, [dataset.split("-")[0]])
                    code = [f"pipeline/datasets/{folder}" for folder in folders]
                else:
                    keys.append(".".join([block, dataset, *below]))
            run = stage.cmd.partition(" -m pipeline ")[2].split()
            jobs[stage.cmd] = {
                "inputs": sorted([*code, *(d.def_path for d in stage.deps if not isinstance(d, ParamsDependency))]),
                "outputs": sorted(out.def_path for out in stage.outs),
                "params": {key: reduce(dict.__getitem__, key.split("."), values) for key in keys},
                "rule": stage.name.partition("@")[0],
                "log": f"logs/{run[0]}/{'-'.join(run[2::2]) or run[0]}.log",
            }
    return jobs


if __name__ == "__main__":
    print(json.dumps({"snakemake": snakemake_jobs(), "dvc": dvc_jobs()}))
    sys.stdout.flush()
