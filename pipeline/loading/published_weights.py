"""The reading side of the stage `weights`: which files of a published network are here, and what is in them."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core import layout, seals
from pipeline.core.errors import UserError, is_shortage

if TYPE_CHECKING:
    from torch import Tensor


def _source(net: str) -> dict:
    path = layout.weights(net) / "source.json"
    try:
        return seals.read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not there; run `repose weights --net {net}`") from None


def files(net: str) -> list[Path] | None:
    """The verified files of a network, sorted by name, or None if it is recorded as missing.

    Raises UserError if the stage `weights` has not run for it.
    """
    source = _source(net)
    if source["status"] == "missing":
        return None
    return [layout.weights(net) / name for name in source["files"]]


def require(net: str, missing_weights: str, wanted_by: str) -> list[Path] | None:
    """The files, or None where they are missing and `missing_weights` is "seeded".

    Raises UserError, saying how to get them, where they are missing and `missing_weights` is "stop". `wanted_by` says
    for the message what needs them.
    """
    found = files(net)
    if found is None and missing_weights == "stop":
        raise UserError(
            f"{wanted_by} needs the published weights of {net}, which could not be had ({_source(net)['reason']}); set"
            f" weights.{net} path in {layout.PARAMS} and run `repose weights --net {net}`, or set"
            f" missing_weights: seeded for {wanted_by} (random features; numbers will be marked)"
        )
    return found


def state_dict(paths: list[Path]) -> "dict[str, Tensor]":
    """All tensors of the files (.pth and .pt, of which only tensors are unpickled; .safetensors), on the CPU.

    Raises UserError for a file that holds anything but a flat dict of tensors.
    """
    import safetensors.torch
    import torch

    tensors: dict[str, Tensor] = {}
    for path in map(Path, paths):
        try:
            if path.suffix == ".safetensors":
                content = safetensors.torch.load_file(path)
            else:
                content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can make either raise anything
            if is_shortage(error):
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{path}: not a file of plain tensors ({reason}); get it again") from None
        if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
            raise UserError(f"{path}: not a flat state dict (name to tensor); is this the right file?")
        tensors.update(content)
    return tensors
