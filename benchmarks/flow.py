"""SPGNet's two flows beside the exact one of synthetic people: `python -m benchmarks.flow --project DIR > table.md`.

DIR: a project folder with params.yaml and a trained component spgnet_flow of the synthetic data set (without one, the
learned flow is left out). Pairs are new people, of whom DIR holds no image. End-point error: over the pixels whose
point the source shows. Visibility: share of all pixels in the right one of three classes (visible, invisible,
background). Error of the warp: mean absolute difference, of 255, between the target and the source sampled by the flow,
over those same pixels.
"""

import argparse
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from models.layers.affine_flow import AffineFlow
from models.layers.blocks import warp
from models.spgnet import LearnedFlow
from pipeline.core import layout, params
from pipeline.datasets import synthetic
from pipeline.loading import checkpoints

VIEWS = 4


def pairs(people: int, seed: int, height: int, width: int) -> Iterator[tuple[Tensor, ...]]:
    """Joints and validity of source and target, both images (3, H, W), exact flow (2, H, W) and visibility (H, W)."""
    scenes = synthetic.scenes(seed, "test", people, VIEWS)
    for person in range(people):
        views = [synthetic.render(scene, height, width) for scene in scenes[VIEWS * person : VIEWS * (person + 1)]]
        for source, target in pairwise(views):
            flow, visibility = (torch.from_numpy(array) for array in synthetic.flow(source, target))
            joints = [torch.from_numpy(side.joints) for side in (source, target)]
            images = [torch.from_numpy(side.image.copy()).permute(2, 0, 1).float() for side in (source, target)]
            inputs = [value for side in joints for value in (side.nan_to_num(), ~side.isnan().any(-1))]
            yield *inputs, *images, flow.permute(2, 0, 1), visibility


def row(
    name: str, flow: Tensor, visibility: Tensor, source: Tensor, target: Tensor, truth: Tensor, classes: Tensor
) -> str:
    shown = classes == 0
    distance = (flow - truth).norm(dim=1)[shown].mean().item()
    right = (visibility == classes).float().mean().item()
    warped = (warp(source, flow) - target).abs().mean(1)[shown].mean().item()
    return f"| {name} | {distance:.2f} | {right:.3f} | {warped:.1f} |"


def learned(height: int, width: int) -> LearnedFlow | None:
    folder = layout.checkpoints("synthetic", "spgnet_flow")
    steps = checkpoints.steps(folder)
    if not steps:
        return None
    trained, meta = checkpoints.load(folder, steps[-1])
    flow = LearnedFlow(height, width, meta["settings"]["width"])
    flow.net = trained
    print(f"Learned flow: {steps[-1]} steps, width {meta['settings']['width']}, features {meta['features']}.\n")
    return flow.eval()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path.cwd())
    parser.add_argument("--people", type=int, default=32, help=f"of whom {VIEWS - 1} pairs each are made")
    parser.add_argument("--seed", type=int, default=1000, help="not the data set's: other people")
    options = parser.parse_args()
    os.chdir(options.project)
    block = params.load()["fetch"]["synthetic"]
    height, width = block["height"], block["width"]
    *inputs, source, target, truth, classes = (
        torch.stack(part) for part in zip(*pairs(options.people, options.seed, height, width), strict=True)
    )
    still = torch.zeros_like(truth), torch.zeros_like(classes)
    found = {"zero, all visible": still, "ten affine maps": AffineFlow()(*inputs, height, width)}
    network = learned(height, width)
    if network is not None:
        found["learned"] = network(*inputs, height, width)
    print(f"{len(truth)} pairs of {height}x{width}\n")
    print("| flow | end-point error, px | visibility right | error of the warp |\n|---|---|---|---|")
    for name, (flow, visibility) in found.items():
        print(row(name, flow, visibility.reshape(classes.shape), source, target, truth, classes))
    print(row("exact", truth, classes, source, target, truth, classes))


if __name__ == "__main__":
    main()
