"""Checkpoints of a variant or a component: `step-0000060.safetensors` each, and one `meta.json` that rebuilds them.

A file holds the generator's state dict only: what a score needs. `meta.json` says which builder of `models.variants`
made the network, for which image size and width, with which settings, and how all that differs from the paper's
(`marks`). Equal networks give equal bytes. Which checkpoints there are can be asked without torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from pipeline.core import graph, seals
from pipeline.core.atomic import atomic_directory, atomic_file, link
from pipeline.core.errors import UserError

if TYPE_CHECKING:
    from torch import nn

META = "meta.json"


def path(folder: Path, step: int) -> Path:
    return Path(folder) / f"step-{step:07d}.safetensors"


def save(folder: Path, step: int, module: "nn.Module") -> Path:
    """Write the state dict of `module` as the checkpoint of `step`, atomically; return its path."""
    from safetensors.torch import save as to_bytes

    tensors = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    with atomic_file(path(folder, step)) as partial:
        partial.write_bytes(to_bytes(tensors))
    return path(folder, step)


def restore(folder: Path, step: int, module: "nn.Module") -> None:
    """Give `module` the weights that `save` wrote, which the caller knows to be whole."""
    from safetensors.torch import load_file

    module.load_state_dict(load_file(path(folder, step)))


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """Write `meta.json`, whose keys `pipeline.training.meta.Meta` has; a network not ours has its name as kind."""
    with atomic_file(Path(folder) / META) as partial:
        partial.write_text(seals.json_text(meta), encoding="utf-8")


def publish(collected: Path, steps: Sequence[int], meta: Mapping[str, Any], folder: Path) -> None:
    """Make `folder` appear whole: the checkpoints `steps` of `collected`, as the same files where links can be made,
    and `meta` with these steps.
    """
    with atomic_directory(folder) as partial:
        for step in steps:
            link(path(collected, step), path(partial, step))
        write_meta(partial, {**meta, "steps": list(steps)})


def meta(folder: Path) -> dict[str, Any]:
    """The `meta.json` of a folder. Raises UserError (one line) if it is missing or broken."""
    where = Path(folder) / META
    try:
        found = seals.read_json(where)
    except FileNotFoundError:
        raise UserError(f"{where}: not there; {graph.how_to_make(where)}") from None
    if not isinstance(found, dict) or "kind" not in found:
        raise UserError(f"{where}: lacks the key kind; delete {folder} and train again")
    return found


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint file, ascending."""
    found = (file.stem.removeprefix("step-") for file in Path(folder).glob("step-*.safetensors"))
    return sorted(int(step) for step in found if step.isdigit())


def build(meta: Mapping[str, Any], where: Path) -> "nn.Module":
    """The network that `meta` describes, untrained. Raises UserError if no builder has its name."""
    from models.variants import COMPONENTS, VARIANTS

    builders = {"variant": VARIANTS, "component": COMPONENTS}.get(meta["kind"])
    if builders is None or meta.get("name") not in builders:
        raise UserError(f"{where}: no network {meta.get('name')} of kind {meta['kind']} in models/variants.py")
    try:
        height, width, scale = meta["height"], meta["width"], meta["settings"].get("width", 1.0)
    except KeyError as error:
        raise UserError(f"{where}: lacks the key {error.args[0]}; delete the folder and train again") from None
    kappa = {"kappa": meta["kappa"]} if "kappa" in meta else {}
    return builders[meta["name"]].build(height, width, scale, **kappa)


def difference(tensors: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """The first tensor that a file of weights and a network do not have in the same shape, in words; None: they fit."""
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected or tensors[name].shape != expected[name].shape:
            shapes = " and ".join(
                f"{tuple(found[name].shape)} in the {kind}" if name in found else f"absent in the {kind}"
                for found, kind in ((tensors, "file"), (expected, "network"))
            )
            return f"{name} is {shapes}"
    return None


def load(folder: Path, step: int) -> tuple["nn.Module", dict[str, Any]]:
    """The generator of `step`, rebuilt from `meta.json`, on the CPU in eval mode, without gradients; and the meta.

    Raises UserError (one line) for a file that is missing, cut short, or not of the network that the meta describes.
    """
    import torch
    from safetensors.torch import load_file

    described = meta(folder)
    file = path(folder, step)
    try:
        seals.check(file)
        tensors = load_file(file)
    except FileNotFoundError:
        here = ", ".join(map(str, steps(folder))) or "none"
        raise UserError(f"{file}: no checkpoint of step {step}; there are: {here}") from None
    except SafetensorError as error:
        raise UserError(f"{file}: damaged ({error}); delete {folder} and train again") from None
    with torch.random.fork_rng(devices=[]):  # a builder draws initial weights: not from the caller's random state
        module = build(described, Path(folder) / META)
    if differs := difference(tensors, module.state_dict()):
        raise UserError(f"{file}: not of the network that {META} describes: {differs}; train again")
    module.load_state_dict(tensors)
    return module.eval().requires_grad_(False), described
