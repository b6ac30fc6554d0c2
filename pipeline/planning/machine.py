"""What this machine has, asked without torch."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """cores: that this process may use; memory and disk: GiB that are free; gpus: name and GiB of each."""

    cores: int
    memory: float | None
    disk: float
    gpus: tuple[tuple[str, float], ...] = ()


def _gpus() -> tuple[tuple[str, float], ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=10)
        rows = [line.rsplit(",", 1) for line in listed.stdout.splitlines() if listed.returncode == 0]
        return tuple((name.strip(), float(mib) / 1024) for name, mib in rows)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ()


def machine() -> Machine:
    """The one that this runs on; of disk, what is left where the project lies."""
    memory = None
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        memory = int(fields["MemAvailable"].split()[0]) / 2**20
    except (OSError, KeyError, ValueError):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(cores, memory, shutil.disk_usage(".").free / 2**30, _gpus())
