"""What other codes make of a folder of images: each method's own way to its published numbers, beside the right ones.

A recipe does to the pictures what the method's released code does before and while it scores them, as read in that code
(docs/protocols.md says which commit). It shows what a published number is worth; it ranks nothing and enters no table.

To add a recipe, add an entry to RECIPES: the numbers that its script prints, each by a function of the pictures (`of`),
by how these are prepared (`view`), and by how many pairs make a batch whose incomplete last one is dropped (`batch`).
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.core import console
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.metrics.psnr import psnr
from pipeline.metrics.ssim import ssim_gaussian, ssim_uniform
from pipeline.scoring import image_folder
from pipeline.scoring.judged import Pairs

BATCH = 16  # pairs in memory at a time; no value depends on it
NETS = ("lpips-alex", "lpips-vgg", "lpips-squeeze")  # of which the first that is there stands in for AlexNet
INCEPTION = "inception-tv"
NO_TRAINING_IMAGES = (
    "needs all training images and Inception's weights; score --images has them, with fid-train-tv in"
    " reference.D.metrics, and calibrate by --training"
)
KEYS = ("recipe", "number", "value", "pairs", "dropped", "metric", "right", "equals", "marks", "does")

Viewed = tuple[np.ndarray, np.ndarray, str]
# A generated picture and its target, (H, W, 3) uint8, and whether the first came as a JPEG -> the two as they are
# scored, uint8 or float32 in [0, 255], and what was done to them, in words. Raises UserError for sizes that the code
# cannot score.
View = Callable[[np.ndarray, np.ndarray, bool], Viewed]
# Of n such pairs, a network, and the targets' pose masks (n, H, W) where the number wants them: (n,) values, or (n, d)
# features.
Of = Callable[[np.ndarray, np.ndarray, Any, np.ndarray | None], np.ndarray]


# ---- how pictures are prepared


def as_they_are(generated: np.ndarray, target: np.ndarray, jpeg: bool = False) -> Viewed:
    if generated.shape != target.shape:
        raise UserError(f"its script wants pictures of one size: {_by(generated)} generated, {_by(target)} real")
    return generated, target, ""


def cut_to_176(generated: np.ndarray, target: np.ndarray, jpeg: bool = False) -> Viewed:
    """PISE: targets of 256 columns lose 40 on either side."""
    cut = target.shape[1] == 256 and generated.shape[1] == 176
    if cut:
        target = target[:, 40:-40]
    return *as_they_are(generated, target)[:2], "40 columns cut off either side of the targets" if cut else ""


def truncated(generated: np.ndarray, target: np.ndarray, jpeg: bool = False) -> Viewed:
    """CFLD: the generated picture to the target's size in floats, bicubic and antialiased; then 8 bits, by cutting."""
    if generated.shape == target.shape:
        return generated, target, ""
    from PIL import Image

    planes = [Image.fromarray(plane.astype(np.float32)) for plane in cv2.split(generated)]
    size = target.shape[1::-1]
    resized = np.stack([np.asarray(plane.resize(size, Image.Resampling.BICUBIC)) for plane in planes], axis=2)
    said = f"generated pictures resized from {_by(generated)} (bicubic, antialiased), then truncated to 8 bits"
    return resized.clip(0, 255).astype(np.uint8), target, said


def cubic(generated: np.ndarray, target: np.ndarray, jpeg: bool = False) -> Viewed:
    """PCDMs: both pictures to 16:11 by OpenCV's cubic filter, without antialias; floats, not clipped nor rounded."""
    both = [_to(picture, _upright(target), cv2.INTER_CUBIC) for picture in (generated, target)]
    return *both, _resized(generated, target, both, "OpenCV, cubic, not antialiased, not rounded")


def squashed(generated: np.ndarray, target: np.ndarray, jpeg: bool = False) -> Viewed:
    """PIDM: squares, by Pillow's bicubic filter."""
    if _upright(target) is None:
        said = f"not squashed, as DeepFashion's are: {_by(target)} is no size of DeepFashion's"
        return *as_they_are(generated, target)[:2], said
    side = target.shape[0]
    both = [pictures.bicubic(picture, side, side) for picture in (generated, target)]
    return *both, _resized(generated, target, both, "Pillow, bicubic, 8 bits")


def squashed_then_upright(generated: np.ndarray, target: np.ndarray, jpeg: bool = False) -> Viewed:
    """PIDM: the squares to 16:11 by OpenCV's bilinear filter, without antialias, in floats."""
    one, other, said = squashed(generated, target)
    both = [_to(picture, _upright(target), cv2.INTER_LINEAR) for picture in (one, other)]
    again = _resized(one, other, both, "OpenCV, bilinear, not antialiased, not rounded")
    return *both, ", then ".join(filter(None, (said, again)))


def middle_columns(generated: np.ndarray, target: np.ndarray, jpeg: bool = False) -> Viewed:
    """SPGNet on DeepFashion: columns 40 to 216 of pictures 256 wide, those generated written to a file again, as JPEG
    (Pillow's quality of 75) if they came as such.
    """
    if generated.shape[1] != 256:
        return as_they_are(generated, target)
    generated, said = generated[:, 40:216], "columns 40 to 216 cut out"
    if jpeg:
        from PIL import Image

        written = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(generated)).save(written, "JPEG")
        generated, said = np.asarray(Image.open(written)), f"{said}, and written as JPEG of quality 75 again"
    target = target[:, 40:216] if target.shape[1] == 256 else target
    return *as_they_are(generated, target)[:2], said


def _upright(target: np.ndarray) -> tuple[int, int] | None:
    """DeepFashion's size of the target's height, such as (256, 176); None if the target is neither that nor square."""
    height, width = target.shape[:2]
    return (height, height * 11 // 16) if 16 * width in (11 * height, 16 * height) else None


def _to(picture: np.ndarray, size: tuple[int, int] | None, filtered: int) -> np.ndarray:
    height, width = size or picture.shape[:2]
    return cv2.resize(picture.astype(np.float32), (width, height), interpolation=filtered)


def _by(picture: np.ndarray) -> str:
    return f"{picture.shape[0]} x {picture.shape[1]}"


def _resized(generated: np.ndarray, target: np.ndarray, now: Sequence[np.ndarray], how: str) -> str:
    """What was resized; raises UserError if the two still differ in size."""
    as_they_are(*now)
    changed = {what: old for what, old in (("generated", generated), ("real", target)) if old.shape != now[0].shape}
    if len(changed) == 2 and generated.shape == target.shape:
        changed = {"both": target}
    words = " and ".join(f"{what} pictures from {_by(old)}" for what, old in changed.items())
    return f"{words} to {_by(now[0])} ({how})" if changed else ""


# ---- what is computed


def _win51(generated: np.ndarray, target: np.ndarray, *_: Any) -> np.ndarray:
    return ssim_uniform(generated, target, 51)


def _uniform7(generated: np.ndarray, target: np.ndarray, *_: Any) -> np.ndarray:
    return ssim_uniform(generated, target, 7)


def _gauss15(generated: np.ndarray, target: np.ndarray, *_: Any) -> np.ndarray:
    return ssim_gaussian(generated, target, own_range=True)


def _gauss12(generated: np.ndarray, target: np.ndarray, *_: Any) -> np.ndarray:
    return ssim_gaussian(generated, target, 1.2, own_range=True)


def _masked_gauss15(generated: np.ndarray, target: np.ndarray, _: Any, masks: np.ndarray) -> np.ndarray:
    return ssim_gaussian(generated * masks[..., None], target * masks[..., None], own_range=True)


def _psnr(generated: np.ndarray, target: np.ndarray, *_: Any) -> np.ndarray:
    if generated.dtype == np.uint8:
        return psnr(generated, target)
    error = np.square(generated.astype(np.float64) - target).mean(axis=(1, 2, 3))
    return 10 * np.log10(255.0**2 / np.maximum(error, 1 / generated[0].size))


def _wrapped_psnr(generated: np.ndarray, target: np.ndarray, *_: Any) -> np.ndarray:
    """PISE: of 8-bit integers, which count modulo 256."""
    error = ((generated - target) ** 2).mean(axis=(1, 2, 3))
    return 10 * np.log10(255.0**2 / np.maximum(error, 1 / generated[0].size))


def _lpips(generated: np.ndarray, target: np.ndarray, network: Any, *_: Any) -> np.ndarray:
    from pipeline.metrics.lpips import lpips_of_floats

    return lpips_of_floats(network, *(images.astype(np.float32) / 127.5 - 1 for images in (generated, target)))


def _lpips_from_0(generated: np.ndarray, target: np.ndarray, network: Any, *_: Any) -> np.ndarray:
    from pipeline.metrics.lpips import lpips_of_floats

    return lpips_of_floats(network, *(images.astype(np.float32) / 255 for images in (generated, target)))


def _masked_lpips(generated: np.ndarray, target: np.ndarray, network: Any, masks: np.ndarray) -> np.ndarray:
    from pipeline.metrics.lpips import masked_lpips

    return masked_lpips(network, generated, target, masks)


def _inception(generated: np.ndarray, target: np.ndarray, network: Any, *_: Any) -> np.ndarray:
    from pipeline.metrics.inception import inception_features

    return inception_features(network, generated).float().cpu().numpy()


def likest(draws: Sequence[np.ndarray], target: np.ndarray) -> int:
    """PCDMs: which of several pictures (H, W, 3) uint8 is nearest by SSIM to the target, brought to their size.

    Gaussian of sigma 1.2, sample covariance, range 255: its own range is given under a misspelt name, which
    scikit-image ignores, and so are its other defaults.
    """
    target = pictures.bicubic(target, *draws[0].shape[:2])
    return int(np.argmax([ssim_gaussian(one[None], target[None], 1.2, sample=True)[0] for one in draws]))


# ---- the recipes


@dataclass(frozen=True)
class Number:
    """One number that a method's script prints.

    name: what it is called there. metric: ours beside it, the right one; "lpips": LPIPS by the network that is there.
    does: in words. equals: our metric that gives the same number where the view changes nothing and no pair is dropped;
    "lpips" as above. network: "lpips", INCEPTION or "". batch: an incomplete last batch of so many pairs is dropped.
    masked: it looks at the targets' pose masks.
    """

    name: str
    metric: str
    of: Of
    does: str
    network: str = ""
    view: View = as_they_are
    batch: int | None = None
    equals: str = ""
    masked: bool = False


@dataclass(frozen=True)
class Recipe:
    """draws: images a pair, of which the likest to the target is scored. lacking: what is not known of it. other: what
    its scripts do that is not done here.
    """

    method: str
    numbers: tuple[Number, ...]
    draws: int = 1
    lacking: str = ""
    other: str = ""


_WIN51 = Number(
    "SSIM", "ssim-win51", _win51, "window of 51 x 51 equal weights, range 255, as ssim-win51", equals="ssim-win51"
)
_UNIFORM7 = Number(
    "SSIM", "ssim-uniform7", _uniform7, "window of 7 x 7 equal weights, range 255, as ssim-uniform7",
    equals="ssim-uniform7",
)  # fmt: skip
_OWN = "range of the generated image, its greatest less its least value, instead of 255"
_GAUSS15 = Number("SSIM_256", "ssim", _gauss15, f"Gaussian window of sigma 1.5; {_OWN}", equals="ssim-own-range")
_GAUSS12 = Number(
    "SSIM_256", "ssim", _gauss12, f"Gaussian window of sigma 1.2 (9 x 9) instead of 1.5; {_OWN}",
    equals="ssim-gauss12-own-range",
)  # fmt: skip
_MASKED_GAUSS15 = Number(
    "Mask-SSIM", "mask-ssim", _masked_gauss15,
    f"Gaussian window of sigma 1.5 over both pictures times the pose mask; {_OWN}", masked=True,
)  # fmt: skip
_PSNR = Number("PSNR", "psnr", _psnr, "range 1 on floats, as psnr", equals="psnr")
_WRAPPED = Number(
    "PSNR", "psnr", _wrapped_psnr,
    "differences and squares of 8-bit integers, which count modulo 256: 16 grey levels apart is no error at all",
)  # fmt: skip
_LPIPS = Number("LPIPS", "lpips", _lpips, "pictures in [-1, 1]", "lpips", equals="lpips")
_MASKED_LPIPS = Number(
    "Mask-LPIPS", "mask-lpips", _masked_lpips, "pictures in [-1, 1] times the pose mask", "lpips", equals="mask-lpips",
    masked=True,
)  # fmt: skip
_LPIPS_FROM_0 = Number(
    "LPIPS", "lpips", _lpips_from_0, "pictures shown in [0, 1], where the network wants [-1, 1]", "lpips"
)
_FID = Number(
    "FID", "fid-train-tv", _inception, "torchvision's Inception, against all training images, as fid-train-tv",
    INCEPTION, equals="fid-train-tv",
)  # fmt: skip


def _numbers(*numbers: Number, view: View = as_they_are, batches: tuple[int | None, int | None] = (None, None)):
    """view: of all of them. batches: of LPIPS and of FID."""
    of = {"lpips": batches[0], INCEPTION: batches[1]}
    return tuple(replace(number, view=view, batch=of.get(number.network)) for number in numbers)


_GFLA = _numbers(_WIN51, _GAUSS15, _PSNR, _LPIPS, _FID, batches=(64, 64))
_CFLD = _numbers(_WIN51, _GAUSS15, _PSNR, _LPIPS, _FID, view=truncated)

RECIPES = {
    "gfla": Recipe("GFLA", _GFLA),
    "pise": Recipe("PISE", _numbers(_WRAPPED, view=cut_to_176), lacking="its SSIM, LPIPS and FID scripts"),
    "casd": Recipe(
        "CASD", _numbers(_WRAPPED, view=cut_to_176),
        lacking="all of its scripts: that its PSNR is PISE's is read off its value, 31.67 where others have 16 to 19",
    ),
    "pidm": Recipe(
        "PIDM",
        _numbers(_WIN51, _GAUSS12, _PSNR, view=squashed)
        + _numbers(_LPIPS, _FID, view=squashed_then_upright, batches=(64, 64)),
    ),
    "pocold": Recipe("PoCoLD", _GFLA),
    "cfld": Recipe("CFLD", _CFLD),
    "mcld": Recipe("MCLD", _CFLD, lacking="its likeness of faces, for which it takes insightface's networks"),
    "pcdms": Recipe(
        "PCDMs", _numbers(_GAUSS12, _PSNR, _LPIPS_FROM_0, _FID, view=cubic, batches=(64, 128)), draws=4,
    ),
    "spgnet": Recipe(
        "SPGNet",
        (
            _UNIFORM7,
            *_numbers(_LPIPS, _FID, view=middle_columns, batches=(64, 64)),
            *_numbers(_MASKED_GAUSS15, _MASKED_LPIPS, batches=(64, 64)),
        ),
        other="files of two folders paired by their place in a listing that is not sorted; masked numbers on"
        " Market-1501 alone; SSIM before the pictures are written as JPEG; PCKh, by Keras OpenPose",
    ),
    "def_gan": Recipe(
        "Def-GAN", (replace(_GAUSS15, name="SSIM"), _MASKED_GAUSS15),
        other="IS, whose ten parts follow the folder's own order, and the mean difference of pixels",
    ),
}  # fmt: skip


# ---- a folder by a recipe


@dataclass(frozen=True)
class ByRecipe:
    """numbers: a dict of KEYS each. notes: what was left out, or is not known, a line each."""

    recipe: str
    numbers: list[dict]
    notes: list[str]

    @property
    def title(self) -> str:
        return f"By the recipe of {RECIPES[self.recipe].method}: comparable with nothing but numbers made so"

    def as_dict(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "title": self.title, "numbers": self.numbers, "notes": self.notes}

    def lines(self) -> list[str]:
        """A line a number, with what the recipe does, and the notes."""
        shown = [
            f"{row['number']} {_shown(row['value'])}, right: {row['metric']} {_shown(row['right'])} ({row['does']})"
            for row in self.numbers
        ]
        return [*shown, *self.notes]


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def as_csv(one: ByRecipe) -> str:
    """A row for each number: KEYS, marks separated by spaces, nothing where there is no number."""
    out = io.StringIO()
    writer = csv.DictWriter(out, KEYS, lineterminator="\n")
    writer.writeheader()
    for row in one.numbers:
        writer.writerow(row | {"marks": " ".join(row["marks"])})
    return out.getvalue()


def with_draws(files: Mapping[int, Path], folders: Sequence[Path]) -> dict[int, tuple[Path, ...]]:
    """Each pair's file and those of its name, whatever their endings, in further folders.

    Raises UserError if one is not there.
    """
    found = {position: (path,) for position, path in files.items()}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give folders of further draws as --draws")
        there = {path.stem: path for path in folder.iterdir() if path.suffix.lower() in image_folder.ENDINGS}
        for position, (first, *others) in found.items():
            if first.stem not in there:
                raise UserError(f"{folder}: no draw called {first.stem}; every folder needs one of each pair")
            found[position] = (first, *others, there[first.stem])
    return found


def check_asked(recipes: Sequence[str], draws: Sequence[Path]) -> None:
    """Raises UserError for a recipe that is none, and for draws of which none of the recipes takes the best."""
    for name in recipes:
        if name not in RECIPES:
            raise UserError(f"--as {name}: no such recipe; choose from {', '.join(RECIPES)}")
    if draws and not any(RECIPES[name].draws > 1 for name in recipes):
        takes = " ".join(name for name, recipe in RECIPES.items() if recipe.draws > 1)
        raise UserError(f"--draws: no recipe that was asked for looks at further draws; give --as {takes}")


def score_by(
    name: str,
    pairs: Pairs,
    files: Mapping[int, Sequence[Path]],
    networks: Mapping[str, Any],
    real: Mapping[str, Any],
    right: Mapping[str, float | None],
) -> ByRecipe:
    """The numbers of the recipe `name`. files: by a pair's position, its image, and further draws if there are any.

    networks, real: as `metrics.stream.PairScores` takes them; what is not there leaves its numbers out. right: the
    values of our metrics, which are put beside. Raises UserError for a file that cannot be read.
    """
    recipe = RECIPES[name]
    lpips = next((net for net in NETS if net in networks), None)
    opened = {"": None, "lpips": networks.get(lpips), INCEPTION: networks.get(INCEPTION)}
    lacking = {
        "lpips": "its network's weights are not there" if lpips is None else "",
        INCEPTION: "" if INCEPTION in networks and INCEPTION in real else NO_TRAINING_IMAGES,
    }
    masked = any(number.masked for number in recipe.numbers) and pairs.masks(pairs.rows[:1, 1]) is not None
    left = {number.name: lacking[number.network] for number in recipe.numbers if lacking.get(number.network)}
    left |= {number.name: "needs the targets' joints" for number in recipe.numbers if number.masked and not masked}
    found: dict[str, list[np.ndarray]] = {number.name: [] for number in recipe.numbers}
    said: dict[View, str] = {}
    order = sorted(files, key=lambda position: files[position][0].name)
    with console.progress(f"as {name}", len(order)) as advance:
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            both = [_pair(recipe, pairs, position, files[position]) for position in some]
            masks = pairs.masks(pairs.rows[some, 1]) if masked else None
            seen: dict[View, list[np.ndarray]] = {}
            for number in recipe.numbers:
                if number.name in left:
                    continue
                try:
                    if number.view not in seen:
                        *looked, words = zip(*(number.view(*pair) for pair in both), strict=True)
                        seen[number.view] = [np.stack(images) for images in looked]
                        said[number.view] = said.get(number.view) or next(filter(None, words), "")
                    found[number.name].append(number.of(*seen[number.view], opened[number.network], masks))
                except UserError as error:
                    left[number.name] = str(error).removeprefix("SSIM: ")
            advance(len(both))

    rows = []
    for number in recipe.numbers:
        if number.name in left:
            continue
        values, network = np.concatenate(found[number.name]), opened[number.network]
        kept = _kept(len(values), number.batch)
        metric, equals = (name.replace("lpips", f"{lpips}-v0.1") for name in (number.metric, number.equals))
        as_they_were = not said[number.view] and kept == len(values)
        seeded = getattr(network, "provenance", "published") == "seeded"
        other = number.network == "lpips" and lpips != NETS[0]
        row = {"recipe": name, "number": number.name, "value": _value(number, values[:kept], real), "pairs": kept}
        row |= {"dropped": len(values) - kept, "metric": metric, "right": right.get(metric)}
        row["equals"] = equals if as_they_were else ""
        row["marks"] = [*(["lpips"] if other else []), *(["metric-weights"] if seeded else [])]
        does = (said[number.view], number.does, _dropped(len(values), kept, number.batch))
        rows.append(row | {"does": "; ".join(filter(None, does))})
    return ByRecipe(name, rows, _notes(recipe, files, left))


def _pair(recipe: Recipe, pairs: Pairs, position: int, files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, bool]:
    """A pair's image, the likest of its draws if the recipe takes that, its target, and whether the image is a JPEG."""
    source, target = pairs.images(pairs.rows[position])
    draws = []
    for path in files if recipe.draws > 1 else files[:1]:
        picture = image_folder.read(path, source, target, any_size=True)
        if isinstance(picture, str):
            raise UserError(f"{path}: {picture}; correct it, or take it out")
        draws.append((np.ascontiguousarray(picture[0]), picture[2]))
    image, jpeg = draws[likest([one for one, _ in draws], target) if len(draws) > 1 else 0]
    return image, target, jpeg


def _value(number: Number, values: np.ndarray, real: Mapping[str, Any]) -> float | None:
    if number.network == INCEPTION:
        from pipeline.metrics.fid import frechet_distance, statistics_of

        return float(frechet_distance(statistics_of(values), real[INCEPTION]))
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _kept(count: int, batch: int | None) -> int:
    """Pairs that fill whole batches; all of them if they fill none, as the scripts have it."""
    return count if batch is None or count < batch else count // batch * batch


def _dropped(count: int, kept: int, batch: int | None) -> str:
    if kept < count:
        return f"the last {count - kept} of {count} pairs by file name dropped, which fill no batch of {batch}"
    return f"fewer pairs than a batch of {batch}: none dropped" if batch and count < batch else ""


def _notes(recipe: Recipe, files: Mapping[int, Sequence[Path]], left: Mapping[str, str]) -> list[str]:
    notes = [f"{name} left out: {why}" for name, why in left.items()]
    if recipe.draws > 1:
        given = len(next(iter(files.values())))
        notes.append(
            f"of {given} draws a pair the likest to the true target was scored, by SSIM; {recipe.method} draws"
            f" {recipe.draws}"
            if given > 1
            else f"the best of {recipe.draws} draws by SSIM to the true target left out: one draw a pair was given;"
            f" give {recipe.draws - 1} more folders as --draws"
        )
    notes += [f"not released: {recipe.lacking}"] if recipe.lacking else []
    return notes + ([f"not done here: {recipe.other}"] if recipe.other else [])
