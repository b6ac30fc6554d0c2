"""Every path of the project, each spelled once. All are relative to the project root, the working directory.

dvc.yaml spells the same paths; `tests/core/test_graph.py` keeps the two in step.
"""

import re
import unicodedata
from pathlib import Path

PARAMS = Path("params.yaml")
PARAMS_SCHEMA = Path("params.schema.yaml")
PUBLISHED = Path("reports/published.csv")
REFERENCES = Path("reports/references.bib")
CALIBRATED = Path("reports/calibrated.csv")
REPRODUCED = Path("reports/reproduced.csv")
TABLES = Path("reports/tables")
METRICS = Path("reports/metrics")  # for `dvc metrics`: a file a data set and run
CURVES = Path("reports/curves")  # for `dvc plots`: scores over checkpoints
OUTSIDE = Path("reports/outside")  # scores of images that other programs made, read by the tables
METHODS = Path("methods")  # a folder each for methods of other programs
STUDIES = Path("reports/studies")  # what user studies found: likewise
REPORT_TEMPLATE = Path("reports/template.html.j2")
REPORT_PARTS = "template"  # the folder beside it that holds its parts
REPORT = Path("reports/html/index.html")
REPORT_PICTURES = Path("reports/html/pictures")  # the pictures that the page links to
REPORT_TIMES = Path("reports/html/times.html")  # made from logs/: no declared output, since no two runs agree
PLAN = Path("data/plan.txt")  # says that params.yaml was checked
PROTOCOLS = Path("docs/protocols.md")
RULES = ("equation", "balanced")  # of the search for pseudo labels, the paper's first: a folder each
SPREAD = ("keypoints", "parsing", "distance_maps", "pseudo_labels")  # data stages whose pieces several jobs can make
WORK = Path(".work")  # state to resume from, trainings that were set aside: no declared output, read by no other stage


def raw(dataset: str) -> Path:
    """Verified source bytes: `images.zip` plus annotation files (see `datasets/`)."""
    return Path("data") / dataset / "raw"


def images(dataset: str) -> Path:
    return Path("data") / dataset / "images"


def needs(dataset: str, name: str) -> Path:
    """Whether a component, or "parsing", is needed: true or false."""
    return Path("data") / dataset / "needs" / f"{name}.json"


def settings(dataset: str) -> Path:
    """What params.yaml comes to for a data set, a block for each stage that has one of it."""
    return Path("data") / dataset / "settings.yaml"


def rejects(dataset: str) -> Path:
    return Path("data") / dataset / "rejects.parquet"


def keypoints(dataset: str) -> Path:
    return Path("data") / dataset / "keypoints.parquet"


def parsing(dataset: str) -> Path:
    return Path("data") / dataset / "parsing"


def pairs(dataset: str) -> Path:
    return Path("data") / dataset / "pairs.parquet"


def pseudo_labels(dataset: str, rule: str) -> Path:
    return Path("data") / dataset / "pseudo_labels" / rule


def distance_maps(dataset: str) -> Path:
    return Path("data") / dataset / "distance_maps"


def croissant(dataset: str) -> Path:
    return Path("data") / dataset / "croissant.json"


def data_card(dataset: str) -> Path:
    return Path("data") / dataset / "README.md"


def parts(stage: str, dataset: str, *rule: str) -> Path:
    """What the parts of a stage of SPREAD have made, a folder each, and their number."""
    return Path("data") / dataset / "parts" / Path(stage, *rule)


def reference(dataset: str) -> Path:
    return Path("data") / dataset / "reference"


def weights(net: str) -> Path:
    return Path("data") / "weights" / net


def checkpoints(dataset: str, name: str) -> Path:
    """Checkpoints of a variant or of a pretrained component: `step-*.safetensors` and `meta.json`."""
    return Path("runs") / dataset / name / "checkpoints"


def losses(dataset: str, name: str) -> Path:
    """A folder with the losses of a training as curves, for `dvc plots`; every step's are in `metrics_log`."""
    return Path("runs") / dataset / name / "losses"


def scores(dataset: str, variant: str) -> Path:
    return Path("reports/scores") / dataset / variant / "scores.parquet"


def pair_scores(dataset: str, variant: str) -> Path:
    return Path("reports/scores") / dataset / variant / "pairs.parquet"


def scored_by(dataset: str) -> Path:
    """The present reference in words and by digest: what rows of scores are held to before they stand side by side."""
    return Path("reports/scores") / dataset / "reference.json"


def controls(dataset: str) -> Path:
    """A folder for each control, with scores and pairs as of a variant, and controls.json."""
    return Path("reports/scores") / dataset / "controls"


def samples(dataset: str, variant: str) -> Path:
    return Path("reports/scores") / dataset / variant / "samples.parquet"


def figures(dataset: str, variant: str) -> Path:
    return Path("reports/scores") / dataset / variant / "figures.parquet"


def network(dataset: str, variant: str) -> Path:
    """What the scored generator costs and how it was trained."""
    return Path("reports/scores") / dataset / variant / "network.json"


def drawn(dataset: str) -> Path:
    """Where the command `figure` writes; nothing reads it."""
    return Path("reports/figures") / dataset


def outside(dataset: str, slug: str) -> Path:
    """The folder of one outside method: scores, pairs and samples as of a variant, files.csv and method.json.

    It lies directly in OUTSIDE, whose own time therefore changes with every method: Snakemake looks at no other time.
    """
    return OUTSIDE / f"{dataset}--{slug}"


def slug(name: str) -> str:
    """A method's name as part of a folder's: its letters and digits, of any script, in small."""
    small = unicodedata.normalize("NFC", name.lower())  # as a file system may store it anyway
    kept = (c if c.isalnum() or unicodedata.category(c)[0] == "M" else "_" for c in small)  # M: accents, vowel signs
    return re.sub("_+", "_", "".join(kept)).strip("_")


def study(name: str) -> Path:
    """The folder of one user study's results, directly in STUDIES, as those of outside methods are in OUTSIDE."""
    return STUDIES / name


def method_images(dataset: str, method: str) -> Path:
    """What another program's method drew of the test pairs: SOURCE_2_TARGET_vis.png."""
    return Path("runs") / dataset / method / "images"


def log(stage: str, *axes: str) -> Path:
    return Path("logs") / stage / ("-".join(axes) + ".log" if axes else f"{stage}.log")


def metrics_log(stage: str, *axes: str) -> Path:
    """Losses of a training run, one JSON object per step and line."""
    return log(stage, *axes).with_suffix(".jsonl")


def work(stage: str, *axes: str) -> Path:
    return WORK.joinpath(stage, *axes)
