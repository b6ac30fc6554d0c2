"""Train the parser in the box.

    python -m pipeline.extraction.repose_parser.train --photos clothing-co-parsing-384.zip \\
        --encoder squeezenet1_1.features.pth --out runs/parser \\
        --openpose human-pose-estimation-0001.xml human-pose-estimation-0001.bin

Learns from Clothing Co-Parsing (hold-out excluded, see prepare.py) and from renderings of the built-in synthetic people
(train persons only). Joints are an input that training often disturbs or takes away. On a CPU with AMX, one core makes
about 35 images a second (bfloat16); a run that was stopped goes on from its last checkpoint.
Batch k depends on the seed and k alone. Writes OUT/weights.safetensors (fp16, exponential moving average),
OUT/state.pt (to go on from) and OUT/prepared.pt (photographs and renderings, decoded once).
"""

import argparse
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from models import parser as network
from pipeline.anatomy.labels import LIP20_FLIP
from pipeline.anatomy.pose import FLIP
from pipeline.core import console
from pipeline.core.atomic import atomic_file
from pipeline.datasets import synthetic
from pipeline.extraction.repose_parser import HEIGHT, prepare

SYNTHETIC = {"seed": 0, "split": "train", "identities": 400, "views": 4}  # renderings of 256 x 128
SYNTHETIC_SHARE = 0.25  # of a batch
WIDTHS, WIDTH_SHARES = (128, 192, 256), (0.78, 0.15, 0.07)  # of a batch's images; all are 256 high
RARE = 0.15  # a photograph with a label that a smaller share than this has is drawn more often
LIMB_GROUPS = ((2, 3, 4), (5, 6, 7), (8, 9, 10), (11, 12, 13), (0, 14, 15, 16, 17), (8, 9, 10, 11, 12, 13))
EMA = 0.998
CHECKPOINT = 500  # steps
HEAD_RATE = 3.0  # the decoder's learning rate, in multiples of the pretrained encoder's


def render() -> list[dict]:
    """The synthetic people, as `prepare.read_photos` gives photographs."""
    scenes, made = synthetic.scenes(**SYNTHETIC), []
    with console.progress("rendering", len(scenes)) as advance:
        for scene in scenes:
            drawn = synthetic.render(scene, 256, 128)
            valid = ~np.isnan(drawn.joints).any(1)
            joints = np.where(valid[:, None], drawn.joints, 0).astype(np.float32)
            image = np.ascontiguousarray(drawn.image[:, :, ::-1])
            made.append({"image": image, "labels": drawn.parsing, "joints": joints, "valid": valid})
            advance()
    return made


def person_box(labels: np.ndarray) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of the person's pixels; the whole image where there are none."""
    y, x = np.nonzero((labels > 0) & (labels < 20))
    if not len(y):
        return 0.0, 0.0, labels.shape[1] - 1.0, labels.shape[0] - 1.0
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def frame(rng: np.random.Generator, sample: dict, width: int) -> np.ndarray:
    """A random view of the person: the affine map (2, 3) from the stored image to (256, width)."""
    x0, y0, x1, y1 = person_box(sample["labels"])
    tall = y1 - y0
    kind = rng.random()
    if kind < 0.6:  # the whole body, as in a detector's box
        height = tall * rng.uniform(0.95, 1.35)
        middle = (y0 + y1) / 2 + tall * rng.uniform(-0.06, 0.06)
    elif kind < 0.85:  # from above the head down to the waist, the knees or the feet
        height = tall * rng.uniform(0.4, 1.0)
        middle = y0 - 0.04 * tall + height / 2 + tall * rng.uniform(-0.04, 0.04)
    else:  # any part
        height = tall * rng.uniform(0.35, 1.0)
        middle = rng.uniform(y0 + 0.4 * height, max(y0 + 0.4 * height, y1 - 0.4 * height))
    scale_y = HEIGHT / height
    scale_x = scale_y * np.exp(rng.normal(0, 0.1))  # boxes are stretched to their format
    centre = (x0 + x1) / 2 + rng.normal(0, 0.07) * height * width / HEIGHT
    turn = np.deg2rad(rng.normal(0, 5))
    linear = np.diag([scale_x, scale_y]) @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if rng.random() < 0.5:
        linear[0] *= -1
    target = np.array([(width - 1) / 2, (HEIGHT - 1) / 2])
    return np.column_stack([linear, target - linear @ (centre, middle)])


def disturb_joints(rng: np.random.Generator, joints: np.ndarray, valid: np.ndarray, width: int):
    """Joints as a detector might give them: jittered, some missing, some elsewhere, sometimes none."""
    inside = (joints >= -0.5).all(1) & (joints[:, 0] < width - 0.5) & (joints[:, 1] < HEIGHT - 0.5)
    valid = valid & inside
    if rng.random() < 0.15:
        return joints, np.zeros_like(valid)
    joints = joints + rng.normal(0, rng.choice([1.0, 2.5, 5.0]), joints.shape).astype(np.float32)
    valid &= rng.random(len(joints)) > rng.choice([0.0, 0.05, 0.2])
    if rng.random() < 0.15:
        valid[list(LIMB_GROUPS[rng.integers(len(LIMB_GROUPS))])] = False
    wrong = rng.random(len(joints)) < 0.01
    joints[wrong] = rng.uniform(0, (width, HEIGHT), (wrong.sum(), 2))
    return joints, valid


def disturb_image(rng: np.random.Generator, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Another camera: occluders (labelled background), colour, small and blurred, noise, JPEG. Labels change in place.

    image (256, W, 3) uint8, labels (128, W / 2).
    """
    height, width, _ = image.shape
    if rng.random() < 0.2:  # something in front of the person, or a piece of the image missing
        h, w = int(height * rng.uniform(0.06, 0.4)), int(width * rng.uniform(0.1, 0.5))
        y, x = int(rng.integers(-h // 3, height - h // 2)), int(rng.integers(-w // 3, width - w // 2))
        area = slice(max(y, 0), y + h), slice(max(x, 0), x + w)
        colour = rng.integers(0, 256, 3)
        if rng.random() < 0.5:
            image[area] = colour
        else:
            patch = image[area]
            texture = rng.integers(-60, 60, (max(2, h // 16), max(2, w // 16), 3)) + colour
            image[area] = cv2.resize(np.clip(texture, 0, 255).astype(np.uint8), patch.shape[1::-1])
        labels[area[0].start // 2 : area[0].stop // 2, area[1].start // 2 : area[1].stop // 2] = 0
    levels = np.arange(256) / 255.0
    gamma, gain, lift = np.exp(rng.normal(0, 0.3)), np.exp(rng.normal(0, 0.2)), rng.normal(0, 0.06)
    table = np.clip((levels[:, None] ** gamma * gain + lift) * np.exp(rng.normal(0, 0.07, 3)), 0, 1) * 255
    image = cv2.LUT(image, table.astype(np.uint8)[:, None, :])
    if rng.random() < 0.5:  # saturation, down to grey
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        share = rng.uniform(0, 1.6)
        image = cv2.addWeighted(image, share, grey, 1 - share, 0)
    if rng.random() < 0.15:  # hue
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(180))) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if rng.random() < 0.25:
        size = rng.uniform(0.5, 2.5)
        image = cv2.GaussianBlur(image, (0, 0), size, sigmaY=size * rng.uniform(0.5, 1.5))
    small = rng.random() < 0.65
    if small:  # Market-1501 is 128 high, and many of its crops were enlarged to that
        rows = int(rng.choice([128, rng.integers(48, 200)]))
        image = cv2.resize(image, (max(8, rows * width // height), rows), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.4:
        noise = rng.integers(-40, 41, image.shape, np.int8).astype(np.float32) * rng.uniform(0, 0.5)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 96))])
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    if small:
        if image.shape[0] < 128:
            image = cv2.resize(image, (width // 2, 128), interpolation=cv2.INTER_LINEAR)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


def view(rng: np.random.Generator, sample: dict, width: int) -> tuple:
    """One training example: image (256, width, 3) uint8 RGB, labels (128, width / 2), joints (18, 2), valid (18,)."""
    affine = frame(rng, sample, width)
    # Beyond the stored image: more of its border, whose labels nobody knows, or a canvas of one colour.
    canvas = rng.random() < 0.25
    mode = cv2.BORDER_CONSTANT if canvas else cv2.BORDER_REPLICATE
    colour = [int(level) for level in rng.integers(0, 256, 3)] if rng.random() < 0.5 else [255] * 3
    image = cv2.warpAffine(sample["image"], affine, (width, HEIGHT), None, cv2.INTER_LINEAR, mode, colour)
    half = affine.copy()  # cell j of the labels is centred on pixel 2 j + 0.5
    half[:, 2] = half[:, 2] / 2 - 0.25
    half[:, :2] /= 2
    unknown = 0 if canvas else prepare.IGNORE
    labels = cv2.warpAffine(
        sample["labels"], half, (width // 2, HEIGHT // 2), None, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT, unknown
    )
    joints = (sample["joints"] @ affine[:, :2].T + affine[:, 2]).astype(np.float32)
    valid = sample["valid"]
    if np.linalg.det(affine[:, :2]) < 0:  # mirrored: left is right
        joints, valid = joints[list(FLIP)], valid[list(FLIP)]
        labels = np.append(LIP20_FLIP, np.full(236, prepare.IGNORE, np.uint8))[labels]
    joints, valid = disturb_joints(rng, joints, valid, width)
    return disturb_image(rng, image, labels)[:, :, ::-1], labels, joints, valid


def draw_batch(step: int, seed: int, size: int, photos: list[dict], weights: np.ndarray, rendered: list[dict]) -> tuple:
    """Batch `step`: images (B, 3, 256, W) uint8 RGB, labels (B, 128, W / 2) int64, joints (B, 18, 2), valid (B, 18)."""
    rng = np.random.default_rng([seed, step])
    width = int(rng.choice(WIDTHS, p=WIDTH_SHARES))
    from_synthetic = round(size * SYNTHETIC_SHARE)
    chosen = [photos[row] for row in rng.choice(len(photos), size - from_synthetic, p=weights)]
    chosen += [rendered[row] for row in rng.integers(len(rendered), size=from_synthetic)]
    images, labels, joints, valid = zip(*(view(rng, sample, width) for sample in chosen), strict=True)
    return (
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        torch.from_numpy(np.stack(labels)).long(),
        torch.from_numpy(np.stack(joints)),
        torch.from_numpy(np.stack(valid)),
    )


def label_shares(photos: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Photographs -> sampling weights (n,) that repeat rare labels, and the loss's weight of each label (20,).

    A photograph is drawn sqrt(RARE / f) times as often, f being the share of photographs with its rarest label. The
    loss weighs a label by its share of pixels to the power -0.35 (mean over pixels 1, at most 6).
    """
    counts = np.stack([np.bincount(photo["labels"].ravel(), minlength=256)[:20] for photo in photos])
    has = counts > 30
    repeats = np.maximum(1, np.sqrt(RARE / np.maximum(has.mean(0), 1e-3)))
    draws = np.where(has, repeats, 1).max(1)
    share = counts.sum(0) / counts.sum()
    weights = np.maximum(share, 1e-5) ** -0.35
    return draws / draws.sum(), np.minimum(weights / (weights * share).sum(), 6)


def loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy plus half the soft Dice loss over the labels that the batch shows.

    logits (B, 20, h, w), labels (B, h, w) int64 with 255 = unknown, weights (20,) -> scalar.
    """
    known = labels != prepare.IGNORE
    truth = torch.where(known, labels, 0)
    scores = logits.float().log_softmax(1)
    of_truth = scores.gather(1, truth.unsqueeze(1)).squeeze(1)
    weight = weights[truth] * known
    entropy = -(weight * of_truth).sum() / weight.sum()
    # Dice needs sums a label only: no one-hot maps.
    flat = truth[known]
    both = torch.zeros_like(weights).index_add(0, flat, of_truth[known].exp())
    pixels = torch.bincount(flat, minlength=network.LABELS)
    total = (scores.exp() * known.unsqueeze(1)).sum((0, 2, 3)) + pixels
    shown = pixels > 0
    return entropy + 0.5 * (1 - 2 * both[shown] / total[shown]).mean()


def compact(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights to ship: convolutions in float16; what is one number per channel stays float32.

    A batch norm's variance does not fit into float16: SqueezeNet's deepest features have one near 10^6.
    """
    state = model.state_dict()
    return {name: tensor.half().contiguous() if tensor.dim() > 1 else tensor for name, tensor in state.items()}


def as_tensors(sample: dict) -> dict:
    """A sample with tensors for arrays, which can be stored without a pickle that runs."""
    arrays = {key: np.ascontiguousarray(value) for key, value in sample.items() if isinstance(value, np.ndarray)}
    return sample | {key: torch.from_numpy(value) for key, value in arrays.items()}


def as_arrays(sample: dict) -> dict:
    """Inverse of `as_tensors`."""
    return {key: value.numpy() if isinstance(value, Tensor) else value for key, value in sample.items()}


def train(arguments: argparse.Namespace) -> None:
    out, device = arguments.out, torch.device(arguments.device)
    out.mkdir(parents=True, exist_ok=True)
    prepared = out / "prepared.pt"
    if not prepared.exists():
        content = [prepare.read_photos(arguments.photos, arguments.openpose), render()]
        with atomic_file(prepared) as path:
            torch.save([[as_tensors(sample) for sample in some] for some in content], path)
    content = torch.load(prepared, weights_only=True)
    photos, rendered = ([as_arrays(sample) for sample in some] for some in content)
    photos = [photo for photo in photos if not photo["holdout"]]
    draws, label_weights = label_shares(photos)
    label_weights = torch.tensor(label_weights, dtype=torch.float32, device=device)
    console.say(f"{len(photos)} photographs, {len(rendered)} renderings")

    torch.manual_seed(arguments.seed)
    model = network.Parser()
    model.features.load_state_dict(torch.load(arguments.encoder, weights_only=True))
    model = model.to(device, memory_format=torch.channels_last).train()
    encoder = list(model.features.parameters())
    names = {id(parameter) for parameter in encoder}
    decoder = [parameter for parameter in model.parameters() if id(parameter) not in names]
    optimizer = torch.optim.AdamW(
        [{"params": encoder, "lr": arguments.rate}, {"params": decoder, "lr": arguments.rate * HEAD_RATE}],
        weight_decay=0.01,
    )
    warm = min(200, arguments.steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1, (step + 1) / max(1, warm)) * (0.5 + 0.5 * math.cos(math.pi * min(1, step / arguments.steps))) + 1e-3
        ),
    )
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA), use_buffers=True
    )
    start, state = 0, out / "state.pt"
    parts = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule}
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=device)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        start = saved["step"]
        console.say(f"going on from step {start}")

    begun, spent, losses = time.perf_counter(), 0.0, []
    for step in range(start, arguments.steps):
        before = time.perf_counter()
        images, labels, joints, valid = draw_batch(step, arguments.seed, arguments.batch, photos, draws, rendered)
        spent += time.perf_counter() - before
        images = images.to(device).float().contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bf16):
            logits = model(images, joints.to(device), valid.to(device))
        value = loss(logits, labels.to(device), label_weights)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        losses.append(value.item())
        done = step + 1
        if done % 100 == 0:
            took = time.perf_counter() - begun
            speed, left = (done - start) * arguments.batch / took, (arguments.steps - done) * took / (done - start) / 60
            console.say(
                f"step {done} of {arguments.steps}: loss {np.mean(losses):.4f}, {speed:.1f} images/s "
                f"({spent / took:.0%} on loading), {left:.0f} min left"
            )
            losses.clear()
        if done % CHECKPOINT == 0 or done == arguments.steps:
            with atomic_file(state) as path:
                torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": done}, path)
            with atomic_file(out / "weights.safetensors") as path:
                save_file(compact(average.module), path)


def main() -> None:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--photos", type=Path, required=True, help="zip of Clothing Co-Parsing, 384 pixels high")
    about.add_argument("--openpose", type=Path, nargs=2, required=True, help="Lightweight OpenPose, .xml and .bin")
    about.add_argument("--encoder", type=Path, required=True, help="state dict of squeezenet1_1().features, ImageNet")
    about.add_argument("--out", type=Path, required=True, help="folder to write")
    about.add_argument("--steps", type=int, default=8500)
    about.add_argument("--batch", type=int, default=16)
    about.add_argument(
        "--rate", type=float, default=1e-3, help="AdamW's rate for the encoder; the decoder's is 3 times"
    )
    about.add_argument("--seed", type=int, default=0)
    about.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    about.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="bfloat16 autocast")
    train(about.parse_args())


if __name__ == "__main__":
    main()
