"""A software bill of materials, CycloneDX 1.6 as JSON: what requirements.lock installs, with its digests and what asks
for it, the weights in the box, and the published networks that a run may fetch. Equal locks give equal bytes.

    python .ci/sbom.py > sbom.cdx.json
"""

import hashlib
import json
import re
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
ENTRY = re.compile(r"^([\w.-]+)==([^\s;]+)(?: ; (.+?))?(?: \\)?$")


def locked(text: str) -> list[dict[str, Any]]:
    """The entries of a lock that uv wrote: name, version, marker, hashes, via (names of what asks for it)."""
    entries: list[dict[str, Any]] = []
    for line in text.splitlines():
        if found := ENTRY.match(line):
            name, version, marker = found.groups()
            entries.append({"name": name, "version": version, "marker": marker, "hashes": [], "via": []})
        elif found := re.match(r"^    --hash=sha256:([0-9a-f]{64})", line):
            entries[-1]["hashes"].append(found[1])
        elif entries and (found := re.match(r"^    #(?: via|  )? +([\w.-]+)(?: \(.*\))?$", line)) and found[1] != "via":
            entries[-1]["via"].append(found[1])
    return entries


def _package(entry: dict[str, Any]) -> dict[str, Any]:
    purl = f"pkg:pypi/{entry['name']}@{entry['version']}"
    files = [{"alg": "SHA-256", "content": digest} for digest in sorted(entry["hashes"])]
    marker = [{"name": "repose:marker", "value": entry["marker"]}] if entry["marker"] else []
    return {
        "type": "library",
        "bom-ref": purl,
        "name": entry["name"],
        "version": entry["version"],
        "purl": purl,
        # Of its files, one of which is installed.
        "externalReferences": [{"type": "distribution", "url": purl, "hashes": files}],
        **({"properties": marker} if marker else {}),
    }


def _weights() -> list[dict[str, Any]]:
    from pipeline.fetching.networks import NETS

    found = []
    for path in sorted(ROOT.glob("pipeline/**/*.safetensors")) + sorted(ROOT.glob("pretrained/**/*.safetensors")):
        name, digest = path.relative_to(ROOT).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()
        hashes = [{"alg": "SHA-256", "content": digest}]
        found.append({"type": "machine-learning-model", "bom-ref": name, "name": name, "hashes": hashes})
    for net, files in NETS.items():
        for one in files:
            name = f"{net}: {Path(one.file).name}"
            model: dict[str, Any] = {
                "type": "machine-learning-model",
                "bom-ref": name,
                "name": name,
                "scope": "optional",
            }
            if one.url:
                model["externalReferences"] = [{"type": "distribution", "url": one.url}]
            if one.sha256:
                model["properties"] = [{"name": "repose:sha256", "value": one.sha256}]  # leading digits of it
            found.append(model)
    return found


def bill(lock: str, project: dict[str, Any]) -> dict[str, Any]:
    entries = sorted(locked(lock), key=lambda one: (one["name"], one["version"]))
    own = {
        "type": "application",
        "bom-ref": f"{project['name']}@{project['version']}",
        "name": project["name"],
        "version": project["version"],
        "description": project["description"],
        "licenses": [{"license": {"id": project["license"]}}],
    }
    needs: dict[str, set[str]] = {}
    for entry in entries:
        for name in entry["via"]:
            needs.setdefault(name, set()).add(f"pkg:pypi/{entry['name']}@{entry['version']}")
    refs = [(own["name"], own["bom-ref"])] + [
        (one["name"], f"pkg:pypi/{one['name']}@{one['version']}") for one in entries
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, own['bom-ref'] + lock)}",
        "version": 1,
        "metadata": {"component": own},
        "components": [*map(_package, entries), *_weights()],
        "dependencies": [{"ref": ref, "dependsOn": sorted(needs.get(name, ()))} for name, ref in refs],
    }


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    print(json.dumps(bill((ROOT / "requirements.lock").read_text(encoding="utf-8"), project), indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
