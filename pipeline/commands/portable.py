"""A trained generator as files that run without this project: the program, and a JSON that says how to call it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.variants import Batch
from pipeline.anatomy import labels, pose
from pipeline.core.atomic import atomic_file
from pipeline.core.errors import UserError
from pipeline.core.schema import JOINTS
from pipeline.loading.runs import Trained

ENDINGS = {"torch": ".pt2", "onnx": ".onnx"}
_JOINTS = "(x, y) in pixels of the image, pixel centres at integers, order as in `joints`; zeros where not valid"
_CALL = {
    "torch": [
        "import torch",
        "image = torch.export.load({file!r}).module()({arguments})  # tensors of these shapes, on the CPU",
    ],
    "onnx": [
        "import onnxruntime",
        "image, = onnxruntime.InferenceSession({file!r}).run(None, {{{named}}})  # NumPy arrays of these shapes",
    ],
}


class Flat(nn.Module):
    """A generator that takes the tensors of a batch one by one, in the order of `names`, and returns the image."""

    def __init__(self, generator: nn.Module, names: tuple[str, ...]):
        super().__init__()
        self.generator, self.names = generator, names

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.generator(Batch(target=None, **dict(zip(self.names, tensors, strict=True)))).image.float()


def inputs(trained: Trained) -> list[dict[str, Any]]:
    """What the program takes, in order: name, shape, dtype and meaning. A batch of one."""
    size = [trained.height, trained.width]
    taken = [{"name": "source", "shape": [1, 3, *size], "dtype": "float32", "is": "RGB in [-1, 1]: value / 127.5 - 1"}]
    for side in ("source", "target"):
        taken += [
            {"name": f"{side}_joints", "shape": [1, JOINTS, 2], "dtype": "float32", "is": _JOINTS},
            {"name": f"{side}_valid", "shape": [1, JOINTS], "dtype": "bool", "is": "which joints are known"},
        ]
    given = ["source"] * trained.reads_parsing + ["target"] * trained.reads_target_parsing
    if not given:
        return taken
    last = len(labels.NAMES[trained.label_set]) - 1
    said = f"human parsing, ids 0 to {last} of the set {trained.label_set}, named in `labels`; maps in another set, as"
    said += " Repose stores them, are converted first (docs/labels.md of Repose)"
    return taken + [{"name": f"{side}_labels", "shape": [1, *size], "dtype": "uint8", "is": said} for side in given]


def example(trained: Trained, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs of the shapes, types and ranges that `inputs` states."""
    random = torch.Generator().manual_seed(seed)
    size = torch.tensor([trained.width, trained.height])
    made = {}
    for one in inputs(trained):
        drawn = torch.rand(one["shape"], generator=random)
        if one["name"].endswith("_joints"):
            drawn = drawn * size
        elif one["name"] == "source":
            drawn = 2 * drawn - 1
        elif one["dtype"] == "bool":
            drawn = drawn < 0.9
        else:
            drawn = (drawn * len(labels.NAMES[trained.label_set])).to(torch.uint8)
        made[one["name"]] = drawn
    for side in ("source", "target"):
        made[f"{side}_joints"][~made[f"{side}_valid"]] = 0
    return made


def describe(trained: Trained, form: str, file: str) -> dict[str, Any]:
    """What the JSON says."""
    taken = inputs(trained)
    names = [one["name"] for one in taken]
    words = {"file": file, "arguments": ", ".join(names), "named": ", ".join(f'"{name}": {name}' for name in names)}
    return {
        "program": f"{trained.title}: draws the person of the source in the target's pose, one at a time",
        "format": {"torch": f"torch.export of torch {torch.__version__}", "onnx": "ONNX"}[form],
        "call": [line.format(**words) for line in _CALL[form]],
        "inputs": taken,
        "output": {
            "name": "image", "shape": [1, 3, trained.height, trained.width], "dtype": "float32",
            "is": "RGB in [-1, 1]: ((value + 1) * 127.5), rounded and clipped to 0 to 255, is the picture",
        },
        "joints": list(pose.JOINT_NAMES),
        "label_set": trained.label_set,
        "labels": list(labels.NAMES[trained.label_set]) if trained.reads_parsing else None,
        "trained": {key: trained.meta.get(key) for key in ("name", "dataset", "settings", "components", "marks")}
        | {"step": trained.step},
    }  # fmt: skip


@contextmanager
def _plain() -> Iterator[None]:
    """While a network is traced: no gradients, and no autocast that a block switches off, since none is on. torch 2.15
    writes such a block of SPT's in a form that it refuses to load.
    """
    before = torch.autocast
    torch.autocast = lambda *_, **__: nullcontext()
    try:
        with torch.no_grad():
            yield
    finally:
        torch.autocast = before


def _as_torch(flat: Flat, given: dict[str, Tensor]) -> bytes:
    buffer = BytesIO()
    torch.export.save(torch.export.export(flat, tuple(given.values())), buffer)
    return buffer.getvalue()


def _as_onnx(flat: Flat, given: dict[str, Tensor]) -> bytes:
    """Raises UserError where an operator has no form in ONNX, and without the packages that write it."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"export: ONNX needs the package {error.name}; install it, or take --format torch") from None
    try:
        program = torch.onnx.export(
            flat, tuple(given.values()), input_names=list(given), output_names=["image"], dynamo=True, verbose=False
        )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        why = f"{type(cause).__name__}: {str(cause).strip().splitlines()[0][:200]}"
        raise UserError(f"export: no ONNX of this network ({why}); take --format torch") from None
    return program.model_proto.SerializeToString()


def write(trained: Trained, form: str, output: Path) -> Path:
    """Write the program to `output`, and beside it the JSON, whose path is returned.

    Raises UserError: another ending than the format's; no such form of this network.
    """
    if output.suffix != ENDINGS[form]:
        raise UserError(f"--output {output}: give a name that ends in {ENDINGS[form]}")
    given = example(trained)
    with _plain():
        program = {"torch": _as_torch, "onnx": _as_onnx}[form](Flat(trained.generator, tuple(given)).eval(), given)
    described = json.dumps(describe(trained, form, output.name), indent=1, ensure_ascii=False) + "\n"
    said = output.with_suffix(".json")
    for path, content in ((output, program), (said, described.encode())):
        with atomic_file(path) as partial:
            partial.write_bytes(content)
    return said
