"""Run a module as on a machine that has only some packages, and what these require.

python -m tests.bare "torch numpy pyarrow" pipeline train --dataset synthetic --variant spig
"""

import re
import runpy
import sys
from importlib import metadata
from importlib.machinery import PathFinder

OURS = {"pipeline", "models", "benchmarks", "tests"}


def plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def absent(kept: str) -> set[str]:
    """The top-level modules that such a machine lacks: of all packages here but those in `kept` and their own."""
    there, asked = set(), kept.split()
    while asked:
        name = plain(asked.pop())
        try:
            needs = [] if name in there else metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # one for another system
            needs = []
        there.add(name)
        asked += [re.match("[A-Za-z0-9._-]+", need)[0] for need in needs if "extra ==" not in need]
    owners = metadata.packages_distributions().items()
    return {top for top, names in owners if not there.intersection(map(plain, names))} - OURS


def main() -> None:
    gone = absent(sys.argv[1])
    assert {"torchvision", "openvino", "lpips", "pytorch_fid"} <= gone

    class Finder(PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            return None if name.partition(".")[0] in gone else super().find_spec(name, path, target)

    sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
    module, sys.argv = sys.argv[2], sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
