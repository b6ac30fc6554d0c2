"""Tables, report, status and inspect start fast: none of them imports torch, whatever it has to show."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny_dataset
from tests.stages.test_report import made, original  # noqa: F401  (fixtures)
from tests.stages.test_tables import ROOT

CODE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pipeline.__main__ import main
assert main(sys.argv[1:]) == 0
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("command", ["tables", "report", "status", "inspect synthetic"])
def test_it_runs_without_torch(made, command):  # noqa: F811
    tiny_dataset.write(Path(), parsing_source="oracle")
    for name in ("dvc.yaml", "pipeline", "models"):  # read by status
        Path(name).symlink_to(ROOT / name)
    result = subprocess.run([sys.executable, "-c", CODE, *command.split()], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
