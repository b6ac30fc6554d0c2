"""Gather and verify the published weights of one network: data/weights/NET/.

Each file is looked for in this order: `path` in the block weights.NET of params.yaml (your own copy), the folder
$REPOSE_MIRROR, its address (with resume, .work/downloads/). Addresses and digests stand in pipeline/stages/weights.py;
the digest decides.

Weights that cannot be had do not stop the pipeline: source.json says "missing" and why, and each stage that uses the
network decides what to do (`missing_weights` in its block: stop, or seeded random features that mark every number made
with them). To add them later: set `path` and run this stage again. A file with a wrong digest is never used.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.core import console, digests, layout, params
from pipeline.core.atomic import atomic_directory
from pipeline.core.settings import setting
from pipeline.fetching import download
from pipeline.fetching.download import Download

_TORCHVISION = "https://download.pytorch.org/models"
_FID = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights"
_OPEN_MODEL_ZOO = "https://storage.openvinotoolkit.org/repositories/open_model_zoo/2023.0/models_bin/1"
_SCHP = "https://huggingface.co/levihsu/OOTDiffusion/resolve/main/checkpoints/humanparsing"


def _at(folder: str, name: str, sha256: str) -> Download:
    return Download(file=f"weights/{name}", url=f"{folder}/{name}", sha256=sha256)


NETS: dict[str, tuple[Download, ...]] = {  # every file is needed, but see EITHER
    "inception": (_at(_FID, "pt_inception-2015-12-05-6726825d.pth", "6726825d"),),
    "inception_v3": (_at(_TORCHVISION, "inception_v3_google-0cc3c7bd.pth", "0cc3c7bd"),),
    "alexnet": (_at(_TORCHVISION, "alexnet-owt-7be5be79.pth", "7be5be79"),),
    "vgg16": (_at(_TORCHVISION, "vgg16-397923af.pth", "397923af"),),
    "vgg19": (_at(_TORCHVISION, "vgg19-dcbb9e9d.pth", "dcbb9e9d"),),
    "squeezenet1_1": (
        _at(_TORCHVISION, "squeezenet1_1-b8a52dc0.pth", "b8a52dc0"),
        Download(
            file="weights/squeezenet1_1.features.pth",
            sha256="435cedb387e95bc8291893f61a3a64f0345b8c23a05139aceef43947efb3d52d",
        ),
    ),
    "openpose": (
        _at(
            f"{_OPEN_MODEL_ZOO}/human-pose-estimation-0001/FP16-INT8",
            "human-pose-estimation-0001.xml",
            "c3a47de94906e6b3256eb16af7274141b2fc9f6c7889a02d96ef430b9bc321d3",
        ),
        _at(
            f"{_OPEN_MODEL_ZOO}/human-pose-estimation-0001/FP16-INT8",
            "human-pose-estimation-0001.bin",
            "fc7e9dde0f4a34876cfbbd266388a59526a8c8c1bc9394ce4827b7a007d20f82",
        ),
    ),
    "reid": (
        _at(
            f"{_OPEN_MODEL_ZOO}/person-reidentification-retail-0287/FP32",
            "person-reidentification-retail-0287.xml",
            "09af746c1068a3e89355e1f0226d3d6982dc1cd77634b1f70a40f1f654a94be1",
        ),
        _at(
            f"{_OPEN_MODEL_ZOO}/person-reidentification-retail-0287/FP32",
            "person-reidentification-retail-0287.bin",
            "7f53d18d11253455e0e11646b2176cf6509cc7c97cb5376f9b91b4c41e09a06c",
        ),
    ),
    "topdown": (Download(file="weights/topdown.onnx"),),
    "schp": (_at(_SCHP, "parsing_lip.onnx", "8436e1dae96e2601c373d1ace29c8f0978b16357d9038c17a8ba756cca376dbc"),),
}
EITHER = ("squeezenet1_1",)  # one of the files is enough


@dataclass(frozen=True)
class Params:
    """Block `weights.NET`."""

    path: str | None = setting(
        "your own copy; where a network has a second file, that lies beside it", None, minLength=1
    )
    download: bool = setting("false: only from path or $REPOSE_MIRROR", True)


def wanted(net: str, block: Params) -> list[Download]:
    """The files of a network as its block wants them to be looked for."""
    files = [one if block.download else replace(one, url=None) for one in NETS[net]]
    if block.path is None:
        return files
    path = Path(block.path).expanduser()
    if net in EITHER and path.is_file():
        digest = digests.sha256(path)
        files = [one for one in files if digest.startswith(one.sha256)] or files[:1]
    suffix = Path(files[0].file).suffix
    own = [path if one.file.endswith(suffix) else path.with_suffix(Path(one.file).suffix) for one in files]
    return [replace(one, path=str(place)) for one, place in zip(files, own, strict=True)]


def gather(net: str, block: Params) -> dict[str, Path]:
    """The verified files by their names. Raises download.Unavailable, UserError (wrong digest, no such file)."""
    found: dict[str, Path] = {}
    reasons = []
    for source in wanted(net, block):
        try:
            found[Path(source.file).name] = download.obtain(source, f"weights.{net}")
            if net in EITHER:
                break
        except download.Unavailable as reason:
            if net not in EITHER:
                raise
            reasons.append(reason)
    if not found:
        details = filter(None, (reason.detail for reason in reasons))
        raise download.Unavailable("; ".join(reason.clause for reason in reasons), "; ".join(details))
    return found


def run(net: str) -> None:
    """Write `data/weights/NET/`. Raises UserError for a file of the user's that is missing or has a wrong digest."""
    block = params.block(Params, "weights", net)
    with atomic_directory(layout.weights(net)) as partial:
        files = {}
        record, why = {"status": "present", "reason": ""}, ""
        try:
            files = {name: download.place(path, partial / name) for name, path in gather(net, block).items()}
        except download.Unavailable as error:
            record, why = {"status": "missing", "reason": error.clause}, str(error)
        record |= {"net": net, "files": files}
        (partial / "source.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    console.say(f"weights {net}: {', '.join(files)}" if files else f"weights {net}: missing ({why})")
