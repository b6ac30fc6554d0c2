"""The weights that a training starts from where its settings name a file: another run's, in place of random ones.

A file is a checkpoint of any run (`step-0000060.safetensors`, beside its meta.json), also one in fewer bits, or a
program that `repose export --what model` wrote (`.pt2`, beside its JSON). Its digest stands in params.yaml: so both
engines see which weights a run was made with, wherever they lie.
"""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.core import digests
from pipeline.core.errors import UserError, is_shortage
from pipeline.loading import checkpoints


class Weights(NamedTuple):
    """A file's tensors by their names in the generator, and what the record beside it says of the network."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


_TYPES = {5: torch.int64, 6: torch.float16, 7: torch.float32, 8: torch.float64, 13: torch.bfloat16}  # by their numbers


def _exported(file: Path) -> dict[str, Tensor]:
    """The weights in a program of torch.export: plain bytes, and a list of them as JSON. Nothing else in it is read:
    `torch.export.load` unpickles, and so would run whatever a stranger's file says.
    """
    found = {}
    with zipfile.ZipFile(file) as archive:
        listed = next(name for name in archive.namelist() if name.endswith("/data/weights/model_weights_config.json"))
        for name, one in json.loads(archive.read(listed))["config"].items():
            member = archive.getinfo(f"{listed.rpartition('/')[0]}/{one['path_name']}")
            if one["use_pickle"] or member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is not there as plain bytes")
            about = one["tensor_meta"]
            sizes, strides = ([side["as_int"] for side in about[key]] for key in ("sizes", "strides"))
            values = torch.frombuffer(bytearray(archive.read(member)), dtype=_TYPES[about["dtype"]])
            found[name] = values.as_strided(sizes, strides, about["storage_offset"]["as_int"])
    return found


def _read(file: Path) -> Weights:
    if file.suffix == ".pt2":
        described = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))["trained"]
        return Weights({name.removeprefix("generator."): one for name, one in _exported(file).items()}, described)
    from safetensors.torch import load_file

    step = file.stem.removeprefix("step-")
    return Weights(load_file(file), {**checkpoints.meta(file.parent), "step": int(step) if step.isdigit() else None})


def read(path: str, digest: str | None, where: str) -> Weights:
    """The weights of the file that the setting `where` names. Raises UserError where it is missing, has another digest
    than `digest`, or is no such file.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{where}.start: {file} is no file; give a checkpoint, such as runs/D/V/checkpoints/step-...")
    found = digests.sha256(file)
    if found != digest:
        wrong = "is missing" if digest is None else f"is {digest[:12]}..., which {file} has not"
        raise UserError(f"{where}.start_sha256 {wrong}; the file's own is: start_sha256: {found}")
    try:
        return _read(file)
    except UserError:
        raise
    except Exception as error:  # many kinds, for a file that is no such file or is cut short
        if is_shortage(error):
            raise
        why = str(error).strip().partition("\n")[0]
        raise UserError(f"{where}.start: {file} holds no weights of a run ({type(error).__name__}: {why})") from None


def give(network: nn.Module, weights: Weights, apart: Iterable[str], where: str) -> None:
    """Copy the weights into `network`, but for its submodules `apart`, which take theirs from elsewhere.

    Raises UserError, naming the first difference, if they are of another network.
    """
    within = tuple(f"{name}." for name in apart)
    own = {name: value for name, value in network.state_dict().items() if not name.startswith(within)}
    given = {name: value for name, value in weights.tensors.items() if not name.startswith(within)}
    if differs := checkpoints.difference(given, own):
        of = f"{weights.meta.get('name')} of width {weights.meta['settings'].get('width')}"
        raise UserError(
            f"{where}.start: weights of {of} do not fit: {differs}; take those of the same network, or null"
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(given[name].to(value.dtype))


def record(weights: Weights, digest: str) -> dict[str, Any]:
    """What a run's meta.json says of the weights that it started from."""
    meta = weights.meta
    return {
        "weights": f"sha256:{digest}",
        "name": meta["name"],
        "step": meta["step"],
        "trained_on": meta.get("trained_on", meta["dataset"]),  # more than a name where a weights file says more
    }
