"""Each recipe against the steps of the method's own script, done here plainly by the libraries that it calls."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pipeline.core.errors import UserError
from pipeline.metrics import METRICS
from pipeline.metrics.fid import statistics_of
from pipeline.metrics.lpips import lpips_network
from pipeline.metrics.pckh import Joints
from pipeline.scoring import folders, recipes

pytestmark = pytest.mark.usefixtures("small_batches_on_one_thread")

COUNT = 67  # three pairs more than the batch of 64 that several codes take
UPRIGHT = (80, 55)  # of DeepFashion's shape, and wide enough for a window of 51


class Brightness(torch.nn.Module):
    """Stands for Inception: mean, extremes and lower half of a picture in [0, 1]."""

    provenance = "published"

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        half = images.shape[2] // 2
        parts = images, images[:, :, half:], images[:, :, :, : images.shape[3] // 3]
        return torch.cat([part.mean(dim=(2, 3)) for part in parts], dim=1)


class Made:
    """Pictures in two folders, in the order of their names, which is not that in which they were drawn."""

    def __init__(self, folder: Path, generated: tuple[int, int], target: tuple[int, int], count: int = COUNT):
        random, self.names = np.random.default_rng(count), [f"{17 * n % 101:03}" for n in range(count)]
        self.folders = folder / "generated", folder / "targets"
        for one in self.folders:
            one.mkdir(parents=True)
        for name in self.names:
            small = random.integers(30, 220, (10, 7, 3), dtype=np.uint8)
            for one, size in zip(self.folders, (generated, target), strict=True):
                noise = random.normal(0, 12, (*size, 3))
                picture = np.clip(cv2.resize(small, size[::-1]) + noise, 25, 230).astype(np.uint8)
                assert cv2.imwrite(str(one / f"{name}.png"), picture[..., ::-1])
        self.pairs = folders.open_folders(*self.folders, None, None)[0]

    def pictures(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [tuple(np.asarray(Image.open(f / f"{name}.png")) for f in self.folders) for name in sorted(self.names)]

    def files(self, *draws: Path) -> dict[int, tuple[Path, ...]]:
        return recipes.with_draws(dict(enumerate(self.pairs.generated)), draws)


@pytest.fixture(scope="module")
def networks():
    return {"lpips-alex": lpips_network(None, seed=3), "inception-tv": Brightness()}


@pytest.fixture(scope="module")
def real():
    features = np.random.default_rng(9).normal(0.5, 0.1, (40, 9)).astype(np.float32)
    return {"inception-tv": statistics_of(features)}


def scored(name: str, made: Made, networks, real, *draws: Path) -> recipes.ByRecipe:
    return recipes.score_by(name, made.pairs, made.files(*draws), networks, real, {"psnr": 1.5})


def values(found: recipes.ByRecipe) -> dict[str, float]:
    return {row["number"]: row["value"] for row in found.numbers}


def ssim_256(generated: np.ndarray, target: np.ndarray, sigma: float) -> float:
    span = float(generated.max() - generated.min())
    options = {"gaussian_weights": True, "sigma": sigma, "use_sample_covariance": False, "channel_axis": 2}
    return structural_similarity(target.astype(np.float64), generated.astype(np.float64), data_range=span, **options)


def win51(generated: np.ndarray, target: np.ndarray) -> float:
    return structural_similarity(target / 255.0, generated / 255.0, data_range=1, win_size=51, channel_axis=2)


def decibels(generated: np.ndarray, target: np.ndarray) -> float:
    return peak_signal_noise_ratio(target.astype(np.float64) / 255, generated.astype(np.float64) / 255, data_range=1)


def lpips(network, pairs: list[tuple[np.ndarray, np.ndarray]], scale) -> float:
    tensors = [torch.from_numpy(np.stack([scale(p[i].astype(np.float32)) for p in pairs])) for i in (0, 1)]
    with torch.no_grad():
        return float(network(*(t.permute(0, 3, 1, 2) for t in tensors)).mean())


def fid(network, generated: list[np.ndarray], reference) -> float:
    with torch.no_grad():
        images = torch.from_numpy(np.stack(generated).astype(np.float32) / 255).permute(0, 3, 1, 2)
        features = network(images).double().numpy()
    covariance, apart = np.cov(features, rowvar=False), features.mean(axis=0) - reference.mean
    root = sqrtm(covariance @ reference.covariance).real
    return float(apart @ apart + np.trace(covariance + reference.covariance - 2 * root))


def centred(picture: np.ndarray) -> np.ndarray:
    return picture / 127.5 - 1


def mean(function, pairs, *more) -> float:
    return float(np.mean([function(*pair, *more) for pair in pairs]))


def gflas(networks, real, pairs, looked_at, sigma: float) -> dict[str, float]:
    """The numbers of GFLA's script, which others changed. looked_at: the pairs as the networks are shown them."""
    whole = looked_at[:64]
    return {
        "SSIM": mean(win51, pairs),
        "SSIM_256": mean(ssim_256, pairs, sigma),
        "PSNR": mean(decibels, pairs),
        "LPIPS": lpips(networks["lpips-alex"], whole, centred),
        "FID": fid(networks["inception-tv"], [generated for generated, _ in whole], real["inception-tv"]),
    }


def test_gfla_and_pocold_drop_the_last_pairs_and_measure_by_the_images_range(tmp_path, networks, real):
    made = Made(tmp_path, UPRIGHT, UPRIGHT)
    pairs = made.pictures()
    expected = gflas(networks, real, pairs, pairs, 1.5)
    found = scored("gfla", made, networks, real)
    assert values(found) == pytest.approx(expected, abs=1e-6)
    assert values(scored("pocold", made, networks, real)) == values(found)
    rows = {row["number"]: row for row in found.numbers}
    assert {name: (row["pairs"], row["dropped"]) for name, row in rows.items()} == {
        "SSIM": (67, 0), "SSIM_256": (67, 0), "PSNR": (67, 0), "LPIPS": (64, 3), "FID": (64, 3)
    }  # fmt: skip
    assert "the last 3 of 67 pairs by file name dropped, which fill no batch of 64" in rows["LPIPS"]["does"]
    assert (rows["PSNR"]["metric"], rows["PSNR"]["right"], rows["SSIM"]["right"]) == ("psnr", 1.5, None)
    assert rows["LPIPS"]["marks"] == ["metric-weights"]
    assert {row["metric"] for row in found.numbers} <= set(METRICS)


def test_pidm_scores_squares_and_pictures_made_upright_from_them(tmp_path, networks, real):
    made = Made(tmp_path, (80, 80), UPRIGHT)
    squares = [(g, np.asarray(Image.fromarray(t).resize((80, 80), Image.BICUBIC))) for g, t in made.pictures()]
    upright = [tuple(cv2.resize(p.astype(np.float32), (55, 80)) for p in pair) for pair in squares]
    expected = gflas(networks, real, squares, upright, 1.2)
    found = scored("pidm", made, networks, real)
    assert values(found) == pytest.approx(expected, abs=1e-6)
    rows = {row["number"]: row["does"] for row in found.numbers}
    assert rows["SSIM"].startswith("real pictures from 80 x 55 to 80 x 80 (Pillow, bicubic, 8 bits); window of 51")
    assert ", then both pictures from 80 x 80 to 80 x 55 (OpenCV" in rows["LPIPS"]


def test_pcdms_shows_its_network_another_range_and_keeps_floats(tmp_path, networks, real):
    made = Made(tmp_path, (96, 96), UPRIGHT)
    pairs = [
        tuple(cv2.resize(p.astype(np.float32), (55, 80), interpolation=cv2.INTER_CUBIC) for p in pair)
        for pair in made.pictures()
    ]
    expected = {
        "SSIM_256": mean(ssim_256, pairs, 1.2),
        "PSNR": mean(decibels, pairs),
        "LPIPS": lpips(networks["lpips-alex"], pairs[:64], lambda picture: picture / 255),
        "FID": fid(networks["inception-tv"], [generated for generated, _ in pairs], real["inception-tv"]),
    }
    found = scored("pcdms", made, networks, real)
    assert values(found) == pytest.approx(expected, abs=1e-6)
    fid_row = found.numbers[-1]
    assert (fid_row["number"], fid_row["pairs"]) == ("FID", 67)
    assert "fewer pairs than a batch of 128: none dropped" in fid_row["does"]
    assert found.notes == [
        "the best of 4 draws by SSIM to the true target left out: one draw a pair was given; give 3 more folders as"
        " --draws"
    ]


def test_pcdms_takes_the_draw_that_is_likest_to_the_target(tmp_path, networks, real):
    """By scikit-image's call in its script, whose misspelt range has no effect."""
    made, others = Made(tmp_path, (96, 96), UPRIGHT, 5), []
    random = np.random.default_rng(2)
    for draw in range(3):
        others.append(tmp_path / f"draw-{draw}")
        others[-1].mkdir()
        for name in made.names:
            first = np.asarray(Image.open(made.folders[0] / f"{name}.png"))
            soft = cv2.blur(first, (5, 5)) + random.normal(0, random.uniform(0, 12), first.shape)
            Image.fromarray(np.clip(soft, 0, 255).astype(np.uint8)).save(others[-1] / f"{name}.bmp")
    best, taken = [], set()
    for name, (first, target) in zip(sorted(made.names), made.pictures(), strict=True):
        draws = [first, *(np.asarray(Image.open(folder / f"{name}.bmp")) for folder in others)]
        large = np.asarray(Image.fromarray(target).resize((96, 96), Image.BICUBIC))
        alike = [structural_similarity(large, one, gaussian_weights=True, sigma=1.2, channel_axis=2) for one in draws]
        chosen = int(np.argmax(alike))
        taken.add(chosen)
        both = draws[chosen], target
        best.append(tuple(cv2.resize(p.astype(np.float32), (55, 80), interpolation=cv2.INTER_CUBIC) for p in both))
    assert len(taken) > 1
    found = scored("pcdms", made, networks, real, *others)
    assert values(found)["PSNR"] == pytest.approx(mean(decibels, best), abs=1e-6)
    assert values(found)["PSNR"] > values(scored("pcdms", made, networks, real))["PSNR"]
    assert found.notes == ["of 4 draws a pair the likest to the true target was scored, by SSIM; PCDMs draws 4"]


@pytest.mark.parametrize("name", ["cfld", "mcld"])
def test_cfld_and_mcld_resize_antialiased_and_truncate(tmp_path, networks, real, name):
    made = Made(tmp_path, (160, 160), UPRIGHT, 4)
    pairs = []
    for generated, target in made.pictures():
        image = torch.from_numpy(generated / np.float32(255)).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(image, UPRIGHT, mode="bicubic", antialias=True) * 255
        eight_bits = resized.clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).numpy()
        pairs.append((eight_bits, target))
        seen = recipes.truncated(generated, target)[0]
        assert (seen == eight_bits).mean() > 0.999  # but for the few pixels where the rounding of floats decides
        assert (seen == resized.round().clamp(0, 255)[0].permute(1, 2, 0).numpy()).mean() < 0.6
    found = scored(name, made, networks, real)
    assert values(found)["PSNR"] == pytest.approx(mean(decibels, pairs), abs=1e-3)
    assert values(found)["SSIM"] == pytest.approx(mean(win51, pairs), abs=1e-4)
    assert values(found)["SSIM_256"] == pytest.approx(mean(ssim_256, pairs, 1.5), abs=1e-4)
    assert values(found)["LPIPS"] == pytest.approx(lpips(networks["lpips-alex"], pairs, centred), abs=1e-4)
    assert found.numbers[0]["does"].startswith(
        "generated pictures resized from 160 x 160 (bicubic, antialiased), then truncated to 8 bits"
    )


@pytest.mark.parametrize("name", ["pise", "casd"])
def test_pises_psnr_wraps_at_256(tmp_path, networks, real, name):
    made = Made(tmp_path, (32, 176), (32, 256), 4)
    expected = []
    for generated, target in made.pictures():
        difference = generated.astype(np.int64) - target[:, 40:216]
        error = ((difference % 256) ** 2 % 256).mean()
        expected.append(20 * np.log10(255) - 10 * np.log10(error))
    found = scored(name, made, networks, real)
    assert values(found) == {"PSNR": pytest.approx(np.mean(expected), abs=1e-9)}
    assert np.mean(expected) > 25  # noise alone, where the true PSNR of these pictures is far lower
    assert "40 columns cut off either side of the targets" in found.numbers[0]["does"]
    assert found.notes[0].startswith("not released: ")


def with_poses(made: Made) -> Made:
    """All targets show one pose, whose mask is a part of the picture."""
    height, width = made.pairs.size
    xy = np.random.default_rng(4).uniform((8, 8), (width - 8, height - 8), (18, 2)).astype(np.float32)
    everyone = Joints(np.tile(xy, (len(made.pairs.files), 1, 1)), np.ones((len(made.pairs.files), 18), bool))
    made.pairs = dataclasses.replace(made.pairs, target_joints=everyone)
    return made


def masks(made: Made) -> np.ndarray:
    found = made.pairs.masks(np.array([0]))[0, ..., None]
    assert 0.05 < found.mean() < 0.95
    return found


def test_spgnet_cuts_the_middle_out_and_writes_it_as_jpeg_again(tmp_path, networks, real):
    """For LPIPS and FID; SSIM is of the whole picture."""
    made = Made(tmp_path, (64, 256), (64, 256), 3)
    for name in made.names:
        picture = Image.open(made.folders[0] / f"{name}.png")
        (made.folders[0] / f"{name}.png").unlink()
        picture.save(made.folders[0] / f"{name}.jpg", quality=95)
    made.pairs = folders.open_folders(*made.folders, None, None)[0]
    whole, cut = [], []
    for name in sorted(made.names):
        generated, target = (Image.open(f / f"{name}.{e}") for f, e in zip(made.folders, ("jpg", "png"), strict=True))
        whole.append((np.asarray(generated), np.asarray(target)))
        generated.crop((40, 0, 216, 64)).save(tmp_path / "again.jpg")
        cut.append((np.asarray(Image.open(tmp_path / "again.jpg")), np.asarray(target)[:, 40:216]))
    expected = {
        "SSIM": mean(lambda generated, target: structural_similarity(target, generated, channel_axis=2), whole),
        "LPIPS": lpips(networks["lpips-alex"], cut, centred),
        "FID": fid(networks["inception-tv"], [generated for generated, _ in cut], real["inception-tv"]),
    }
    found = scored("spgnet", made, networks, real)
    assert values(found) == pytest.approx(expected, abs=1e-6)
    assert {row["number"]: row["equals"] for row in found.numbers} == {"SSIM": "ssim-uniform7", "LPIPS": "", "FID": ""}
    assert found.notes[:2] == [f"{name} left out: needs the targets' joints" for name in ("Mask-SSIM", "Mask-LPIPS")]
    assert "columns 40 to 216 cut out, and written as JPEG of quality 75 again" in found.numbers[1]["does"]


def test_spgnets_masked_numbers_are_of_pictures_times_the_pose_mask(tmp_path, networks, real):
    """Def-GAN's masked SSIM is the same, and its own SSIM that of the generated image's range."""
    made = with_poses(Made(tmp_path, (64, 32), (64, 32), 5))
    masked = [(generated * masks(made), target * masks(made)) for generated, target in made.pictures()]
    grey = [tuple(centred(picture) * masks(made) for picture in pair) for pair in made.pictures()]
    found = scored("spgnet", made, networks, real)
    expected = {
        "Mask-SSIM": mean(ssim_256, masked, 1.5),
        "Mask-LPIPS": lpips(networks["lpips-alex"], grey, lambda picture: picture),
    }
    assert {name: values(found)[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    equals = {row["number"]: row["equals"] for row in found.numbers}
    assert (equals["Mask-SSIM"], equals["Mask-LPIPS"]) == ("", "mask-lpips-alex-v0.1")
    assert (equals["LPIPS"], equals["FID"]) == ("lpips-alex-v0.1", "fid-train-tv")  # nothing is cut from 32 columns
    of_def_gan = scored("def_gan", made, {}, {})
    assert values(of_def_gan) == pytest.approx(
        {"SSIM": mean(ssim_256, made.pictures(), 1.5), "Mask-SSIM": expected["Mask-SSIM"]}, abs=1e-6
    )
    assert of_def_gan.notes == [f"not done here: {recipes.RECIPES['def_gan'].other}"]


def test_what_a_recipe_equals_of_ours_is_said_where_it_changes_no_picture_and_drops_no_pair(tmp_path, networks, real):
    few, many = (scored("gfla", Made(tmp_path / str(n), UPRIGHT, UPRIGHT, n), networks, real) for n in (64, 65))
    assert {row["number"]: row["equals"] for row in few.numbers} == {
        "SSIM": "ssim-win51", "SSIM_256": "ssim-own-range", "PSNR": "psnr", "LPIPS": "lpips-alex-v0.1",
        "FID": "fid-train-tv",
    }  # fmt: skip
    assert {row["number"] for row in many.numbers if not row["equals"]} == {"LPIPS", "FID"}
    resized = scored("cfld", Made(tmp_path / "large", (160, 160), UPRIGHT, 2), {}, {})
    assert {row["equals"] for row in resized.numbers} == {""}
    assert {row["equals"] for row in scored("pise", Made(tmp_path / "pise", UPRIGHT, UPRIGHT, 2), {}, {}).numbers} == {
        ""
    }


def test_what_a_recipe_cannot_have_is_left_out_with_its_reason(tmp_path, networks):
    made = Made(tmp_path, (64, 32), (64, 32), 2)
    found = scored("pidm", made, {}, {})
    assert list(values(found)) == ["SSIM_256", "PSNR"]
    assert "not squashed, as DeepFashion's are: 64 x 32 is no size of DeepFashion's" in found.numbers[0]["does"]
    assert found.notes == [
        "LPIPS left out: its network's weights are not there",
        f"FID left out: {recipes.NO_TRAINING_IMAGES}",
        "SSIM left out: images of 32x64 pixels are smaller than its 51-pixel window: score larger images",
    ]
    squeeze = scored("pcdms", made, {"lpips-squeeze": lpips_network(None, seed=3, net="squeeze")}, {})
    row = squeeze.numbers[-1]
    assert (row["number"], row["metric"]) == ("LPIPS", "lpips-squeeze-v0.1")
    assert row["marks"] == ["lpips", "metric-weights"]
    other = Made(tmp_path / "other", (64, 64), (64, 32), 2)
    assert scored("gfla", other, {}, {}).notes[-1] == (
        "PSNR left out: its script wants pictures of one size: 64 x 64 generated, 64 x 32 real"
    )


def test_draws_are_looked_at(tmp_path):
    made = Made(tmp_path, (16, 16), (16, 16), 2)
    with pytest.raises(
        UserError, match="--draws: no recipe that was asked for looks at further draws; give --as pcdms"
    ):
        recipes.check_asked(["gfla"], [tmp_path])
    with pytest.raises(UserError, match="no such recipe; choose from gfla"):
        recipes.check_asked(["nobody"], [])
    with pytest.raises(UserError, match="nowhere: no such folder"):
        made.files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no draw called 000; every folder needs one of each pair"):
        made.files(tmp_path / "empty")
