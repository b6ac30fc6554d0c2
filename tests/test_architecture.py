"""Rooms import downwards, models stand alone, and docs/architecture.md is what the code says."""

import ast
from pathlib import Path

import pytest

from models.variants import FAMILIES
from pipeline.commands import architecture
from tests.conftest import ROOT

SHARED = ("models.layers", "models.detector")  # the joint detector is a component that any may have


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_room_imports_what_it_may_and_only_from_below():
    rooms = architecture.rooms()
    layer = {room.name: room.layer for room in rooms}
    for room in rooms:
        assert room.imports <= room.may, f"{room.name} imports {sorted(room.imports - room.may)}"
        assert all(layer[other] < layer[room.name] for other in room.may - {"models"}), room.name
    assert not next(room for room in rooms if room.name == "models").imports


def test_nothing_else_lies_at_the_top():
    assert {path.name for path in Path("pipeline").glob("*.py")} == {"__init__.py", "__main__.py"}


def test_no_stage_imports_a_stage():
    for file in Path("pipeline/stages").glob("*.py"):
        assert not [name for name in architecture.imported(file) if name.startswith("pipeline.stages")], file


def family_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def test_a_family_imports_layers_and_what_it_starts_from():
    home = {entry.name: family.__name__ for family in FAMILIES for entry in getattr(family, "COMPONENTS", ())}
    for family in FAMILIES:
        variants = getattr(family, "VARIANTS", ())
        named = {name for one in (*variants, *getattr(family, "COMPONENTS", ())) for name in one.components}
        named |= {name for one in variants for name in one.judges.values()}
        may = {home[name] for name in named} | {family.__name__, *SHARED}
        folder = Path(family.__file__)
        files = folder.parent.rglob("*.py") if folder.name == "__init__.py" else [folder]
        for file in files:
            found = {family_of(module) for module in architecture.imported(file)}
            assert found <= may, f"{file} imports {sorted(found - may)}"


def test_the_page_is_up_to_date():
    written = architecture.PAGE.read_text(encoding="utf-8")
    assert written == architecture.page(), "run: repose architecture"


def test_an_upward_import_is_seen(tmp_path):
    file = tmp_path / "one.py"
    file.write_text("def late():\n    from pipeline.stages import train\n    import models.spig as spig\n")
    assert architecture.imported(file) == {"pipeline.stages.train", "models.spig"}


# Calls that run what a file says, or fetch one: dotted name -> what it takes to be allowed, if anything.
TRUSTING = {
    **dict.fromkeys(("pickle.load", "pickle.loads", "torch.jit.load", "torch.export.load", "torch.hub.load"), None),
    **dict.fromkeys(("eval", "exec", "os.system", "yaml.load", "yaml.unsafe_load", "marshal.loads", "urlopen"), None),
    **dict.fromkeys(("shelve.open", "joblib.load", "torch.hub.load_state_dict_from_url", "tarfile.open"), None),
    "torch.load": "weights_only=True",
}


def test_no_module_runs_what_a_file_says():
    """Nothing is unpickled but tensors, no text is evaluated, and all downloads are those of pipeline/fetching."""
    found = []
    for path in (path for folder in ("pipeline", "models") for path in sorted((ROOT / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in TRUSTING:
                continue
            wanted = TRUSTING[ast.unparse(node.func)]
            if wanted is None or wanted not in map(ast.unparse, node.keywords):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node.func)}")
    assert found == []
