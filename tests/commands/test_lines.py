"""`make demo` prints a line a stage, and an error in full."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

SNAKEFILE = """
rule all:
    input: "b"
rule a:
    output: "a"
    log: "logs/a.log"
    shell: "printf 'a: began\\na: 3 made\\n  each of them\\nwall 0.1 s, peak memory 5 MiB\\n' > {log}; touch {output}"
rule b:
    input: "a"
    output: "b"
    log: "logs/b.log"
    shell: "test -e may-run && touch {output}"
"""


def run(folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--logger", "lines"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "profiles")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_line_a_stage_and_errors_in_full(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    failed = run(tmp_path)
    assert failed.returncode == 1
    assert failed.stdout == "[ 1 of 3] a: 3 made (0.1 s)\n"
    for part in ("Error in rule b:", "logs/b.log (check log file(s)", "test -e may-run", "non-zero exit code"):
        assert part in failed.stderr
    (tmp_path / "may-run").touch()
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (0, "[ 1 of 2] logs/b.log\n")  # a job that wrote no log is still named
    again = run(tmp_path)
    assert (again.returncode, again.stdout) == (0, "Nothing to be done: all is there and up to date.\n")
