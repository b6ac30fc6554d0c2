"""Trained components as the starting point of another training."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from pipeline.core import digests, layout, needs, params
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints


def last_checkpoint(dataset: str, component: str) -> int:
    """The last step of a component. Raises UserError, naming the command that trains it, if there is none."""
    folder = layout.checkpoints(dataset, component)
    found = checkpoints.steps(folder)
    if not found:
        asked = needs.wanted(params.load(), dataset).get(component)
        first = "" if asked else f"set components.{component} to true and "
        if asked is None:  # the detector: always there, but its weights may be published ones
            first = f"set pretrain.{dataset}.{component}.source to trained and "
        command = f"repose pretrain --dataset {dataset} --component {component}"
        raise UserError(f"{folder}: no checkpoint of {component} to start from; {first}run: {command}")
    return found[-1]


def start_from(part: nn.Module, dataset: str, component: str, like: Mapping[str, Any]) -> tuple[dict, list[str]]:
    """Copy the last checkpoint of a component into `part`; return a record of it, and its marks.

    `like`: what it must have been trained for, of the keys below. Raises UserError if it was not.
    """
    folder, step = layout.checkpoints(dataset, component), last_checkpoint(dataset, component)
    module, meta = checkpoints.load(folder, step)
    trained = {"image height": meta["height"], "image width": meta["width"]}
    trained |= {"network width": meta["settings"]["width"], "kappa": meta.get("kappa")}
    for what, value in like.items():
        if trained[what] != value:
            raise UserError(
                f"{folder}: trained for {what} {trained[what]}, {value} is wanted; pretrain it with the same"
            )
    part.load_state_dict(module.state_dict())
    content = digests.sha256(checkpoints.path(folder, step))
    record = {"step": step, "checkpoint": f"sha256:{content}", "features": meta["features"]}
    return record | ({"start": meta["start"]} if "start" in meta else {}), meta["marks"]
