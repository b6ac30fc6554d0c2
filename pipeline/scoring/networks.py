"""The networks that metrics look through: described by digest when the reference is made, opened again for scoring."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core import console, layout, params
from pipeline.core.digests import sha256
from pipeline.core.errors import UserError
from pipeline.loading import published_weights
from pipeline.metrics import GIVEN, METRICS, metric, of_own
from pipeline.metrics.identity import ReId
from pipeline.metrics.own_network import PREFIX, OwnNetwork, Settings

if TYPE_CHECKING:
    import torch

Files = Callable[[str], list[Path] | None]  # a published network -> its verified files, None if they cannot be had

# A network, by the name that metrics give it -> the published weights that it takes.
WEIGHTS = {
    "inception": "inception",
    "inception-tv": "inception_v3",
    "lpips-alex": "alexnet",
    "lpips-vgg": "vgg16",
    "lpips-squeeze": "squeezenet1_1",
    "reid": "reid",
}


def digests(files: Iterable[Path]) -> dict[str, str]:
    return {file.name: sha256(file) for file in sorted(files)}


def _of_parser() -> list[Path]:
    from pipeline.extraction import repose_parser

    return [repose_parser.WEIGHTS]


def describe(
    metrics: Sequence[str], missing_weights: str, seed: int, files_of: Files = published_weights.files
) -> tuple[list[str], dict[str, dict]]:
    """Those of `metrics` that can be scored, and their networks: {"files": {name: sha256}} by the network's name, or
    {"seed": n} where the weights are missing and random ones may take their place.

    With missing_weights "skip" the metrics of a missing network are left out. Raises UserError with "stop".
    """
    described, lacking = {}, set()
    for name in sorted({need for one in metrics for need in METRICS[one].needs} - set(GIVEN)):
        if name == "parser":
            described[name] = {"files": digests(_of_parser())}
            continue
        files = files_of(WEIGHTS[name])
        if files is None and missing_weights == "stop":
            published_weights.require(WEIGHTS[name], missing_weights, "reference")
        if files is not None:
            described[name] = {"files": digests(files)}
        elif missing_weights == "seeded" and name != "reid":
            described[name] = {"seed": seed}
            console.say(f"{name}: published weights missing, random ones instead; its numbers will be marked")
        else:
            lacking.add(name)
            console.say(f"{name}: published weights missing; its metrics are left out")
    return [name for name in metrics if not lacking & set(METRICS[name].needs)], described


def of_user(dataset: str) -> dict[str, Settings]:
    """The networks of the user's that params.yaml names for a data set, each as it is called among the others."""
    blocks = params.load()["reference"][dataset].get("networks", {})
    return {PREFIX + name: Settings(**block) for name, block in blocks.items()}


def protocols(described: Mapping[str, dict]) -> dict[str, str]:
    """Those of the metrics by networks of the user's, which say what the file is and what it is shown."""
    found = {}
    for key in (key for key in described if key.startswith(PREFIX)):
        settings = Settings(file="", **described[key])
        for name in of_own([key.removeprefix(PREFIX)]):
            kernel = f"{settings.kernel} kernel, " if name.startswith("kid-") else ""
            found[name] = f"{metric(name).protocol}, {kernel}by {settings.in_words()}"
    return found


def open_all(
    described: Mapping[str, dict],
    where: "torch.device",
    files_of: Files = published_weights.files,
    own: Mapping[str, Settings] | None = None,
) -> dict[str, Any]:
    """The networks that `describe` described, by name. own: `of_user`, where those are among them. Raises UserError if
    their files have changed since.
    """
    return {
        name: _open_own(name, entry, own or {}) if name.startswith(PREFIX) else _open(name, entry, where, files_of)
        for name, entry in described.items()
    }


def _open_own(name: str, entry: dict, own: Mapping[str, Settings]) -> OwnNetwork:
    short = name.removeprefix(PREFIX)
    if name not in own or own[name].described() != entry:
        raise UserError(
            f"{layout.PARAMS}: networks.{short} is another than the reference was made with; run: repose reference"
            " --dataset D"
        )
    return OwnNetwork(short, own[name])


def _open(name: str, entry: dict, where: "torch.device", files_of: Files) -> Any:
    files = None
    if "files" in entry:
        files = _of_parser() if name == "parser" else files_of(WEIGHTS[name])
        if files is None or digests(files) != entry["files"]:
            source = files[0] if name == "parser" else layout.weights(WEIGHTS[name])
            raise UserError(f"{source}: changed since the reference; run it again: repose reference --dataset D")
    if name == "reid":
        return ReId(files)
    if name == "parser":
        from pipeline.extraction import repose_parser

        return repose_parser.load(str(where))
    from pipeline.metrics.inception import inception_network, torchvision_inception
    from pipeline.metrics.lpips import lpips_network

    weights, seed = None if files is None else published_weights.state_dict(files), entry.get("seed", 0)
    if name.startswith("lpips-"):
        return lpips_network(weights, seed, net=name.removeprefix("lpips-")).to(where)
    return {"inception": inception_network, "inception-tv": torchvision_inception}[name](weights, seed).to(where)
