"""Known weaknesses of what the locks install, as the database of OSV has them, by pip-audit.

    python .ci/audit.py requirements-dev.lock

Where pip-audit cannot be had, or no database answers, it says so. Exit status 1: there is a version without a weakness
that is known (`make lock` takes it).
"""

import json
import subprocess
import sys
from typing import Any

AUDIT = ("uv", "tool", "run", "--quiet", "pip-audit==2.10.1", "--disable-pip", "--require-hashes", "--format", "json")
OSV = ("--vulnerability-service", "osv", "--progress-spinner", "off", "--timeout", "10")


def asked(lock: str) -> list[dict[str, Any]]:
    """What pip-audit says of each package; nothing where nobody answers."""
    command = [sys.executable, "-m", *AUDIT, *OSV, "--requirement", lock]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=180).stdout
        return [one for one in json.loads(said)["dependencies"] if "vulns" in one]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError):
        return []


def report(found: list[dict[str, Any]]) -> tuple[list[str], int]:
    """Lines for a reader, and the exit status."""
    if not found:
        return ["audit: no advisory service answers here; nothing was checked"], 0
    known = [(one, weakness) for one in found for weakness in one["vulns"]]
    lines = [
        f"{one['name']} {one['version']}: {weakness['id']}; without it: {', '.join(weakness['fix_versions']) or 'none'}"
        for one, weakness in known
    ]
    return [*lines, f"audit: {len(found)} packages, {len(known)} known weaknesses"], int(
        any(weakness["fix_versions"] for _, weakness in known)
    )


if __name__ == "__main__":
    said, status = report(asked(sys.argv[1]))
    print("\n".join(said))
    sys.exit(status)
