"""The published networks: the files of each, where they come from, and their digests, which decide."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.core import digests, environment, params
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
MEBIBYTES = {  # to download, where that is known: torchvision's own statements, the sizes of the others' files
    "inception_v3": 104, "alexnet": 233, "vgg16": 528, "vgg19": 548, "squeezenet1_1": 5, "openpose": 4, "reid": 3,
    "schp": 255,
}  # fmt: skip
EITHER = ("squeezenet1_1",)  # one of the files is enough
UNPUBLISHED = {"synthetic", "folder"}  # data sets on which no paper has numbers
STANDARD_ON = {"inception_v3": {"deepfashion"}}  # of a network that others read on request alone: fid-train-tv's


def named(net: str) -> str:
    """A network's files by name, one where one is enough, and the address that has them, where one is known."""
    files = NETS[net][:1] if net in EITHER else NETS[net]
    address = f" ({files[0].url.rpartition('/')[0]})" if files[0].url else ""
    return " and ".join(Path(one.file).name for one in files) + address


def in_folders(net: str, folder: Path | None) -> list[Path] | None:
    """A network's files in `folder`, in its sub-folder weights, or in that of $REPOSE_MIRROR; None if they are in none.

    Raises UserError for a folder that is not there, and for a file with another digest.
    """
    mirror = download.mirror()
    places = [*((folder, folder / "weights") if folder else ()), *([mirror / "weights"] if mirror else [])]
    return next((found for place in places if (found := files_in(place, net))), None)


def may_download(net: str, setting: bool | str, datasets: Iterable[str]) -> bool:
    """What `download` in the block `weights.NET` comes to for the data sets that are asked for."""
    papers = set(map(params.parent, datasets)) - UNPUBLISHED
    return setting is True or (setting == "papers" and bool(papers & STANDARD_ON.get(net, papers)))


def wanted(net: str, path: str | None, may_download: bool) -> list[Download]:
    """The files of a network, each as it is to be looked for; `path`: the user's own copy."""
    files = [one if may_download else replace(one, url=None) for one in NETS[net]]
    if path is None:
        return files
    own = environment.path(path)
    if net in EITHER and own.is_file():
        digest = digests.sha256(own)
        files = [one for one in files if digest.startswith(one.sha256)] or files[:1]
    suffix = Path(files[0].file).suffix
    beside = own.parent / own.stem
    places = [own if one.file.endswith(suffix) else f"{beside}{Path(one.file).suffix}" for one in files]
    return [replace(one, path=str(place)) for one, place in zip(files, places, strict=True)]


def files_in(folder: Path, net: str) -> list[Path] | None:
    """A network's files in a folder or in its sub-folder NET, verified; None if one is not there.

    Raises UserError for a file with another digest.
    """
    found = []
    for one in NETS[net]:
        name = Path(one.file).name
        path = next((path for path in (folder / name, folder / net / name) if path.is_file()), None)
        if path is not None:
            found.append(download.obtain(replace(one, path=str(path)), f"the network {net}"))
    complete = bool(found) if net in EITHER else len(found) == len(NETS[net])
    return (found[:1] if net in EITHER else found) if complete else None
