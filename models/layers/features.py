"""The frozen ImageNet feature extractor behind sampling correctness, perceptual and style losses.

`build("vgg19", weights)` and `build("vgg16", weights)` are what the papers use. `squeezenet1_1` is a small stand-in,
and without weights any net is seeded: random, fixed, and less useful. `provenance` says which it is, so that results
made with it can be marked.
"""

from collections.abc import Collection
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, for images in [0, 1]
# A deviation in steps of 8 bits. Keras's VGG19 has Caffe's weights, which look at images of 0 to 255, and the features
# of ReLUs grow with their input: losses that were tuned on those take ours times this.
CAFFE = 255 * sum(STD) / len(STD)


class Fire(nn.Module):
    """SqueezeNet's module; attribute names are torchvision's, so that its weights load."""

    def __init__(self, inputs: int, squeeze: int, expand: int):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], dim=1)


def vgg_layers(deep: int) -> list[nn.Module]:
    """torchvision's vgg19().features (deep = 4) or vgg16's (3: as many convolutions in each of the later blocks), up to
    relu5_2, the deepest layer that a loss reads.
    """
    layers, inputs = [], 3
    plan = ["64", "64", "pool", "128", "128", "pool", *["256"] * deep, "pool", *["512"] * deep, "pool", "512", "512"]
    for step in plan:
        if step == "pool":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(inputs, int(step), 3, padding=1), nn.ReLU()]
            inputs = int(step)
    return layers


def squeezenet1_1_layers() -> list[nn.Module]:
    """torchvision's squeezenet1_1().features, all of it."""
    pool = {"kernel_size": 3, "stride": 2, "ceil_mode": True}
    return [
        *(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.MaxPool2d(**pool)),
        *(Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(**pool)),
        *(Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(**pool)),
        *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
    ]


# Layers are named by their index in `.features`. `correctness` maps a flow's stride to the layer on exactly
# that grid. vgg19 is GFLA's choice: correctness relu3_1, relu4_1; content relu1_1 ... relu5_1; style
# relu2_2, 3_4, 4_4, 5_2. second: relu1_2 ... relu5_2. vgg16 has the same, 3_3 and 4_3 being its last of their blocks.
# squeezenet1_1: the nearest depths that it has. Its convolution without padding would shrink every grid, so the image
# is padded by one replicated pixel, which makes an image of 128 give 32, 16 and 8 cells. Its pretrained features grow
# with depth, up to an RMS of 34 on photographs of people (`rms`, measured), where a Gram matrix would drown every other
# term; they are divided by it.
NETS = {
    "vgg19": {
        "layers": partial(vgg_layers, 4),
        "pad": 0,
        "correctness": {4: "11", 8: "20"},
        "content": ("1", "6", "11", "20", "29"),
        "style": ("8", "17", "26", "31"),
        "second": ("3", "8", "13", "22", "31"),
        "rms": {},
    },
    "vgg16": {
        "layers": partial(vgg_layers, 3),
        "pad": 0,
        "correctness": {4: "11", 8: "18"},
        "content": ("1", "6", "11", "18", "25"),
        "style": ("8", "15", "22", "27"),
        "second": ("3", "8", "13", "20", "27"),
        "rms": {},
    },
    "squeezenet1_1": {
        "layers": squeezenet1_1_layers,
        "pad": 1,
        "correctness": {4: "4", 8: "7"},
        "content": ("1", "4", "7", "10", "12"),
        "style": ("4", "7", "10", "12"),
        "second": ("1", "4", "7", "10", "12"),
        "rms": {"1": 0.7, "4": 3.3, "7": 14.0, "10": 34.0, "12": 11.0},
    },
}


class Features(nn.Module):
    """Frozen, always in eval mode.

    forward(images, layers): (B, 3, H, W) in [-1, 1] -> {layer: (B, C, h, w)}, after ReLU. `pair`: of a pair's two
    images, without gradients.

    Only as much of the net runs as the deepest layer asked for. Gradients reach the images, never the
    weights.
    """

    def __init__(self, net: str, provenance: str):
        super().__init__()
        spec = NETS[net]
        self.net = net
        self.provenance = provenance  # "pretrained" or "seeded"
        self.pad = spec["pad"]
        self.correctness: dict[int, str] = spec["correctness"]
        self.content: tuple[str, ...] = spec["content"]
        self.style: tuple[str, ...] = spec["style"]
        self.second: tuple[str, ...] = spec["second"]
        self.rms: dict[str, float] = spec["rms"] if provenance == "pretrained" else {}
        self.features = nn.Sequential(*spec["layers"]())
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        # ((image + 1) / 2 - mean) / std as one product and one sum
        self.register_buffer("gain", 0.5 / std, persistent=False)
        self.register_buffer("offset", (0.5 - mean) / std, persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Features":
        return super().train(False)

    def forward(self, images: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        return self._run(self._enter(images), layers)[0]

    @torch.no_grad()
    def pair(
        self, source: Tensor, target: Tensor, layers: Collection[str], more: Collection[str] = ()
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`layers` of both images, and `more` of the target: in one pass up to the deepest of `layers`, beyond which
        the target goes on alone.
        """
        depth, count = max(map(int, layers)) + 1, len(source)
        shared = {layer for layer in (*layers, *more) if int(layer) < depth}
        both, x = self._run(self._enter(torch.cat([source, target])), shared)
        rest, _ = self._run(x[count:], set(more) - shared, depth)
        of_target = {name: value[count:] for name, value in both.items()}
        return {name: both[name][:count] for name in layers}, of_target | rest

    def _enter(self, images: Tensor) -> Tensor:
        x = torch.addcmul(self.offset, images, self.gain)
        return F.pad(x, (self.pad,) * 4, mode="replicate") if self.pad else x

    def _run(self, x: Tensor, layers: Collection[str], first: int = 0) -> tuple[dict[str, Tensor], Tensor]:
        """From the module `first` to the deepest of `layers`: these layers' features, and what the last module gave."""
        found = {}
        for index in range(first, max(map(int, layers), default=-1) + 1):
            x, name = self.features[index](x), str(index)
            if name in layers:
                found[name] = x / self.rms[name] if name in self.rms else x
        return found, x


def build(net: str, state_dict: dict[str, Tensor] | None = None, seed: int = 0) -> Features:
    """The extractor `net` (a key of NETS) on the CPU.

    `state_dict`: torchvision's, of the whole net ("features.0.weight", ...) or of its `.features`
    ("0.weight", ...); deeper layers and the classifier are ignored. None: weights are drawn from `seed`, with
    the variance that keeps the signal's scale through ReLU (He et al. 2015). Raises ValueError for an unknown
    net or for weights that do not fit.
    """
    if net not in NETS:
        raise ValueError(f"no feature net {net!r}: choose from {', '.join(NETS)}")
    model = Features(net, "seeded" if state_dict is None else "pretrained")
    own = model.features.state_dict()
    if state_dict is None:
        generator = torch.Generator().manual_seed(seed)
        for tensor in own.values():
            if tensor.dim() == 1:
                tensor.zero_()
            else:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        return model
    given = {key.removeprefix("features."): value for key, value in state_dict.items()}
    for key, tensor in own.items():
        if key not in given or given[key].shape != tensor.shape:
            found = "is missing" if key not in given else f"has shape {tuple(given[key].shape)}"
            raise ValueError(f"weights are not {net}'s: {key} {found}, expected {tuple(tensor.shape)}")
    model.features.load_state_dict({key: given[key] for key in own})
    return model
