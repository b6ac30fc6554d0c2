"""The geometric matcher of Soft-Gated Warping-GAN: it finds the affine map and thin-plate spline between two maps of a
person. After Rocco et al., Convolutional neural network architecture for geometric matching (CVPR 2017).

Points are (x, y) from the image's centre in half image heights, so that a length means the same in both directions and
at every resolution. A transformation takes a point of the target to where it comes from in the source.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.blocks import Batch, channels, full_precision, warp
from models.layers.features import MEAN, STD, Features, build
from models.layers.losses import widen

ROWS = 16  # of cells that are matched, of images of any size
STRIDE, POOL4 = 4, 16  # pixels of the matched maps in a cell, of our features and of VGG16's at pool4
POINTS = 20  # the loss compares two transformations on 20 x 20 points

# Synthetic warps are drawn uniformly from plus or minus these. People stand upright before and after.
ROTATION = torch.pi / 12
LOG_SCALE = 0.3  # of height and width, each by itself
SHEAR = 0.2
SHIFT = 0.25  # in half image heights or widths
BEND = 0.25  # of the distance between control points


# Transformations


def centres(height: int, width: int) -> Tensor:
    """Centres of the cells of a grid over the image: (height * width, 2), row by row."""
    x = (2 * torch.arange(width) + 1 - width) / height
    y = (2 * torch.arange(height) + 1 - height) / height
    return torch.stack([x.expand(height, -1), y.unsqueeze(-1).expand(-1, width)], dim=-1).flatten(0, 1)


def lattice(count: int, aspect: float) -> Tensor:
    """count x count points evenly over an image of width / height `aspect`, its corners among them: (count^2, 2)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, count), aspect * torch.linspace(-1, 1, count), indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def affine(maps: Tensor, points: Tensor) -> Tensor:
    """Affine maps (B, 2, 3) of points (N, 2) or (B, N, 2) -> (B, N, 2)."""
    x, y = points.split(1, dim=-1)
    along, across, shift = maps.unsqueeze(1).unbind(-1)  # no matrix product: a GPU may round those to 10 bits
    return x * along + y * across + shift


def radial(points: Tensor, control: Tensor) -> Tensor:
    """Thin-plate basis r^2 log r and the polynomial 1, x, y: points (N, 2), control (K, 2) -> (N, K + 3)."""
    squared = (points.unsqueeze(1) - control).square().sum(-1)
    return torch.cat([torch.xlogy(squared, squared) / 2, torch.ones_like(points[:, :1]), points], dim=1)


def shares(points: Tensor, control: Tensor) -> Tensor:
    """The thin-plate spline that takes control points (K, 2) to `moved` (B, K, 2) is `shares @ moved`, (B, N, 2), at
    points (N, 2): (N, K), solved in float64.

    Of all smooth functions through these values it is the least bent: a sum of r^2 log r and an affine map.
    """
    count = len(control)
    control, at = control.double(), points.double()
    basis = radial(control, control)
    system = basis.new_zeros(count + 3, count + 3)
    system[:count] = basis
    system[count:, :count] = basis[:, count:].T  # the radial weights have no affine part
    return torch.linalg.solve(system.T, radial(at, control).T).T[:, :count].to(points.dtype)


class Points(nn.Module):
    """Fixed points of the target, (N, 2), on which transformations are compared.

    forward: affine maps (B, 2, 3) and moved control points (B, 9, 2), None for no spline -> affine(spline(point)),
    (B, N, 2). Runs in float32 whatever autocast says, and solves nothing: the points' shares are known from the start.
    They are taken of how far the control points move, so that a product rounded to TF32 errs by 1/2000 of that.
    """

    def __init__(self, at: Tensor, control: Tensor):
        super().__init__()
        self.register_buffer("at", at, persistent=False)
        self.register_buffer("control", control, persistent=False)
        self.register_buffer("shares", shares(at, control), persistent=False)

    def forward(self, maps: Tensor, moved: Tensor | None = None) -> Tensor:
        with full_precision(maps):
            return affine(maps, self.at if moved is None else self.at + self.shares @ (moved - self.control))


class Cells(Points):
    """The cells of a grid of height x width over the image. forward: as `Points`, but as a flow (B, 2, height, width)
    for `blocks.warp`: (dx, dy) in cells.
    """

    def __init__(self, height: int, width: int, control: Tensor):
        super().__init__(centres(height, width).to(control), control)
        self.size = (height, width)

    def forward(self, maps: Tensor, moved: Tensor | None = None) -> Tensor:
        offset = (super().forward(maps, moved) - self.at) * (self.size[0] / 2)
        return offset.transpose(1, 2).unflatten(2, self.size)


# The network

# RGB of the labels in the LIP toolbox, in which the paper's matcher may have seen them.
COLOURS = (
    (0, 0, 0), (128, 0, 0), (255, 0, 0), (0, 85, 0), (170, 0, 51),
    (255, 85, 0), (0, 0, 85), (0, 119, 221), (85, 85, 0), (0, 85, 85),
    (85, 51, 0), (52, 86, 128), (0, 128, 0), (0, 0, 255), (51, 170, 221),
    (0, 255, 255), (85, 255, 170), (170, 255, 85), (255, 255, 0), (255, 170, 0),
)  # fmt: skip


def vgg16_to_pool4() -> nn.Sequential:
    """torchvision's vgg16().features[:24], frozen, from a seed."""
    return build("vgg16").features[:24]


class PaintedFeatures(nn.Module):
    """VGG16 up to pool4 on label maps painted in COLOURS: (B, 20, H, W) -> (B, 512, H/16, W/16). Not trained."""

    def __init__(self):
        super().__init__()
        colours = (torch.tensor(COLOURS) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        self.register_buffer("colours", colours, persistent=False)
        self.layers = vgg16_to_pool4()

    def take(self, net: Features) -> None:
        """Copy the weights of a VGG16 (in bf16 runs they are rounded); a net that stands in for it has none to give."""
        if net.net == "vgg16":
            self.layers.load_state_dict(net.features[:24].state_dict())

    def forward(self, maps: Tensor) -> Tensor:
        return self.layers(torch.einsum("bkhw,kc->bchw", maps, self.colours))


class Regressor(nn.Sequential):
    """Correlation (B, rows * columns, rows, columns) -> parameters (B, outputs), all zero at first.

    Rocco et al. shrink 15 x 15 cells to 5 x 5 by leaving out the padding; strides do it here, on 16 rows of any width.
    """

    def __init__(self, rows: int, columns: int, outputs: int, scale: float):
        c1, c2 = channels(128, scale), channels(64, scale)
        super().__init__(
            *(nn.Conv2d(rows * columns, c1, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(c1), nn.ReLU()),
            *(nn.Conv2d(c1, c2, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(c2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(c2 * -(-rows // 4) * -(-columns // 4), outputs)),
        )
        nn.init.zeros_(self[-1].weight)
        nn.init.zeros_(self[-1].bias)


def correlate(source: Tensor, target: Tensor) -> Tensor:
    """How well each target cell matches every source cell: features (B, C, h, w) -> (B, h * w, h, w), channel = source.

    Cosines, the negative ones set to zero, normalised to unit length over the source's cells: where many match, each
    counts less.
    """
    source, target = F.normalize(source, dim=1), F.normalize(target, dim=1)
    cosines = torch.einsum("bchw,bcij->bhwij", source, target).flatten(1, 2)
    return F.normalize(F.relu(cosines), dim=1)


class GeometricMatcher(nn.Module):
    """forward: source and target maps (B, inputs, H, W) -> affine maps (B, 2, 3) and moved control points (B, 9, 2).

    The affine map is found first, and then the spline, from the target and the source warped by it: the whole
    transformation of a point is affine(spline(point)). Both start as the identity. Maps are one-hot labels or joint
    disks, averaged down to 64 rows; with `vgg16` they are labels, painted, of 256 rows. Runs in float32 whatever
    autocast says.
    """

    float32 = True

    def __init__(self, height: int, width: int, inputs: int, scale: float = 1.0, vgg16: bool = False):
        super().__init__()
        columns, stride = max(1, round(ROWS * width / height)), POOL4 if vgg16 else STRIDE
        self.size = (stride * ROWS, stride * columns)
        c1, c2 = channels(64, scale), channels(128, scale)
        self.features = (
            PaintedFeatures()
            if vgg16
            else nn.Sequential(
                *(nn.Conv2d(inputs, c1, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(c1), nn.ReLU()),
                *(nn.Conv2d(c1, c2, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(c2), nn.ReLU()),
                *(nn.Conv2d(c2, c2, 3, padding=1, bias=False), nn.BatchNorm2d(c2), nn.ReLU()),
                nn.Conv2d(c2, c2, 3, padding=1),
            )
        )
        self.affine = Regressor(ROWS, columns, 6, scale)
        self.spline = Regressor(ROWS, columns, 18, scale)
        control = lattice(3, width / height)
        self.register_buffer("control", control, persistent=False)
        self.register_buffer("identity", torch.eye(2, 3), persistent=False)
        self.matched = Cells(*self.size, control)  # the grid of the maps that are matched
        self.image = Cells(height, width, control)  # that of the images, and points of them: what training warps and
        self.compared = Points(lattice(POINTS, width / height), control)  # compares

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        with full_precision(source):
            source, target = (F.adaptive_avg_pool2d(widen(maps), self.size) for maps in (source, target))
            wanted = self.features(target)
            offset = self.affine(correlate(self.features(source), wanted)).view(-1, 2, 3)
            maps = offset + self.identity
            start = warp(source, self.matched(maps.detach()))
            moved = self.spline(correlate(self.features(start), wanted)).view(-1, 9, 2) + self.control
            return maps, moved


# Training


def random_warps(count: int, control: Tensor) -> tuple[Tensor, Tensor]:
    """Affine maps (count, 2, 3) and moved control points (count, 9, 2), from torch's generator of control's device."""

    def draw(*shape: int) -> Tensor:  # uniform in [-1, 1]
        return 2 * torch.rand(count, *shape, device=control.device, dtype=control.dtype) - 1

    corner = control.amax(0)  # half width, half height
    angle, shear = ROTATION * draw(), SHEAR * draw()
    cos, sin, one, zero = angle.cos(), angle.sin(), torch.ones_like(angle), torch.zeros_like(angle)
    turn = torch.stack([cos, -sin, sin, cos], dim=-1).view(-1, 2, 2)
    slant = torch.stack([one, shear, zero, one], dim=-1).view(-1, 2, 2)
    stretch = torch.diag_embed(torch.exp(LOG_SCALE * draw(2)))
    maps = torch.cat([turn @ slant @ stretch, (SHIFT * corner * draw(2)).unsqueeze(-1)], dim=-1)
    return maps, control + BEND * corner * draw(len(control), 2)


def sample(maps: Tensor, flow: Tensor) -> Tensor:
    """`blocks.warp` with the nearest cell, so that one-hot maps stay one-hot. (B, C, H, W), (B, 2, H, W)."""
    height, width = maps.shape[-2:]
    x = flow[:, 0] + torch.arange(width, device=flow.device)
    y = flow[:, 1] + torch.arange(height, device=flow.device).unsqueeze(-1)
    cell = y.round().clamp(0, height - 1).long() * width + x.round().clamp(0, width - 1).long()
    return maps.flatten(2).gather(2, cell.flatten(1).unsqueeze(1).expand(-1, maps.shape[1], -1)).view_as(maps)


class MatcherObjective:
    """Synthetic warps of both images' maps, drawn anew each time. networks: matcher. Terms: affine, spline.

    `maps` makes of a batch what is matched, (2B, inputs, H, W). A matcher on VGG16's features takes their weights from
    `features` at its first step. A term is the mean squared distance, in half image heights, between where the
    prediction and the truth take 20 x 20 points: predicted by the affine map alone, and by both.
    """

    def __init__(self, matcher: GeometricMatcher, weights: Mapping[str, float], maps: Callable[[Batch], Tensor]):
        self.matcher = matcher
        self.weights = weights
        self.maps = maps
        self.given = not isinstance(matcher.features, PaintedFeatures)

    def networks(self) -> dict[str, nn.Module]:
        return {"matcher": self.matcher}

    def generator_losses(self, batch: Batch, features: Features | None) -> tuple[dict[str, Tensor], None]:
        matcher, source = self.matcher, self.maps(batch)
        if not self.given:
            matcher.features.take(features)
            self.given = True
        with full_precision(source):
            truth = random_warps(len(source), matcher.control)
            maps, moved = matcher(source, sample(source, matcher.image(*truth)))
            right = matcher.compared(*truth)
            found = {"affine": matcher.compared(maps), "spline": matcher.compared(maps.detach(), moved)}
            terms = {name: (there - right).square().sum(-1).mean() for name, there in found.items()}
        return {name: self.weights[name] * term for name, term in terms.items()}, None

    def discriminator_losses(self, batch: Batch, output: None) -> dict[str, Tensor]:
        return {}
