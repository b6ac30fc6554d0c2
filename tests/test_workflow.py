"""The workflow of continuous integration: that it parses, and runs what .ci/run says by actions that cannot change."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_the_workflow_runs_ci_run_on_each_python_by_pinned_actions():
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert job["timeout-minutes"] <= 90
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    uses = [step["uses"] for step in job["steps"] if "uses" in step]
    assert len(uses) == 2
    for action in uses:
        assert re.search(rf"{re.escape(action)} # v\d+\.\d+\.\d+$", text, re.MULTILINE)
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action)
