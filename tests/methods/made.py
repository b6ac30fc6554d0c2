"""A folder of methods/ around the dummy."""

import shutil
from pathlib import Path
from typing import NamedTuple

import yaml

HEIGHT, WIDTH = 64, 32


class Bundle(NamedTuple):
    path: Path
    draws: str  # the commit that has the dummy
    later: str  # the newest one, which draws nothing


def write_method(folder: Path, bundle: Bundle, *arguments: str, **values) -> Path:
    """arguments: more of the dummy's. values: keys of method.yaml with other values, None for one to leave out."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(bundle.path, folder)
    (folder / "requirements.txt").write_text("# nothing\n")
    says = {
        "title": "Mine",
        "repository": "theirs.bundle",
        "commit": bundle.draws,
        "environment": "requirements.txt",
        "command": ["python", "draw.py", "--pairs", "{pairs}", "--output", "{output}", *arguments],
        "names": "{from}_2_{to}",
        "height": HEIGHT,
        "width": WIDTH,
        "licence": "MIT",
        "saw": {"training": "nothing", "pretraining": "nothing", "target_parsing": False, "samples": 1},
    }
    text = {key: value for key, value in (says | values).items() if value is not None}
    (folder / "method.yaml").write_text(yaml.safe_dump(text))
    return folder
