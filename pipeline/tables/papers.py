"""The papers' tables as data: which rows and columns each has, in the paper's order, and what of this run fills them.

To add a table, add an entry to TABLES and its published numbers to reports/published.csv. To add a column, say in
COLUMNS which of our metrics (`pipeline.metrics.METRICS`) may fill it. Nothing else needs to know.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Mark:
    symbol: str
    tex: str
    text: str


def _letter(symbol: str, letter: str, text: str) -> Mark:
    return Mark(symbol, rf"\textsuperscript{{{letter}}}", text)


# What stands behind a published number that its paper's own table does not show: where it was read (`verified` in
# published.csv decides the first two), and in what it was measured otherwise than the numbers beside it.
PUBLISHED_MARKS = {
    "unverified": Mark("?", "?", "published number not checked against the paper"),
    "second-hand": Mark(
        "”",
        r"\textquotedblright",
        "published number as another paper or text quotes it, not read in the paper it is of",
    ),
    "summary": _letter("ᴴ", "H", "from a summary of the paper that somebody else wrote: weak evidence"),
    "rescored": _letter("ᴿ", "R", "not the method's own number: another paper measured it anew, by its own protocol"),
    "best-of-four": _letter(
        "ᴮ",
        "B",
        "the released test draws four pictures of a pair and keeps that with the highest SSIM to the true target; "
        "whether the paper's numbers come from it is not stated",
    ),
    "lpips-unscaled": _letter(
        "ᴸ", "L", "LPIPS of pictures in [0, 1], where its network expects [-1, 1]: the distances come out smaller"
    ),
    "lpips-unknown": _letter(
        "ᴺ", "N", "which network LPIPS goes through is not stated, and the value is far below all others: not ranked"
    ),
    "sigma": _letter(
        "ᴳ", "G", "SSIM by a Gaussian window of sigma 1.2 and the generated picture's own range, not by a 51x51 window"
    ),
    "squashed": Mark("↔", r"$\leftrightarrow$", "measured on photographs squashed to 256x256, not at 256x176"),
    "wrapped": _letter(
        "ᵂ",
        "W",
        "from 8-bit differences that wrap round at 256 (CASD's by its size alone): no PSNR, which is 16 to 19 dB here",
    ),
    "faces-found": _letter(
        "ᴾ", "P", "over the pairs in which a face was found in both pictures: other pairs for each method"
    ),
    "several-sources": _letter("ᵀ", "T", "drawn from several source pictures, which is another task"),
}

# How a number differs from the paper's set-up. The names are those of `schema.SCORES`, one of our own, protocol, and
# those of published numbers. Which setting sets which: docs/papers.md.
MARKS = {
    "metric-weights": Mark(
        "†",
        r"\textdagger",
        "the metric's own feature network has random weights from a fixed seed, not the published ones",
    ),
    "steps": Mark("‡", r"\textdaggerdbl", "trained for another number of steps than the paper's, or the assumed one"),
    "weights": Mark(
        "§",
        r"\textsection",
        "training losses used other feature weights than the paper's (another net, or seeded)",
    ),
    "settings": Mark(
        "∗",
        r"\textasteriskcentered",
        "another batch size, learning rate, augmentation or fall of the distance maps than the paper's",
    ),
    "borrowed": _letter("ᵒ", "o", "schedule of the paper's data set whose images are nearest in size: it used no such"),
    "width": Mark("¶", r"\textparagraph", "wider or narrower network than the paper's"),
    "precision": _letter("ᵇ", "b", "trained in bfloat16 mixed precision; the papers' code is float32"),
    "norms": _letter(
        "ⁿ",
        "n",
        "batch norms saw a batch in other parts than in the paper's training: other processes or micro-batches",
    ),
    "start": _letter("ʷ", "w", "trained on from the weights of another run, not from random ones; a note says whose"),
    "data": Mark("※", r"\textreferencemark", "not the paper's data set, or without some of its images or pairs"),
    "joints": _letter("ᵏ", "k", "joints (keypoints) other than the published"),
    "form": _letter("ᶜ", "c", "DeepFashion's images in another form than the paper's: canvas, crop or resized"),
    "parser": _letter("ᵖ", "p", "human parsing by another parser than the paper's"),
    "labels": _letter("ˡ", "l", "human parsing in another label set than the paper's"),
    "stand-ins": _letter("ˢ", "s", "stand-ins for the target's parsing by another rule than the paper's equation"),
    "flow": _letter("ᶠ", "f", "flow from elsewhere than the paper's, which came from a network trained on 3D bodies"),
    "judge": _letter("ʲ", "j", "a loss looks through another network than the paper's: docs/papers.md"),
    "reading": _letter(
        "ʳ", "r", "one of two readings of a text that is not clear, or that its code contradicts: docs/papers.md"
    ),
    "design": _letter("ᵈ", "d", "known to differ in a network, loss or draw from the authors' code: docs/papers.md"),
    "pairs": Mark("‖", r"\textbardbl", "not scored on the whole published list of test pairs"),
    "jpeg": Mark("♯", r"\sharp", "images of an outside method that came as JPEGs"),
    "source": _letter(
        "ᵗ", "t", "most images of an outside method are the pairs' sources as they are: copies, or named target first"
    ),
    "lpips": _letter("ᵃ", "a", "LPIPS through another network than AlexNet, which the papers use"),
    "raters": _letter(
        "ᵛ",
        "v",
        "a user study of one's own: other people, screens and pictures than the paper's (docs/studies.md)",
    ),
    "protocol": Mark(
        "≠",
        r"$\neq$",
        "not measured as the published numbers of its column: by another network, detector, window, range or crop",
    ),
    **PUBLISHED_MARKS,
}


def symbols(marks: str) -> str:
    """Of the names of marks, separated by spaces."""
    return "".join(MARKS[mark].symbol for mark in marks.split())


# The mark of numbers that say little of the pictures: an IS of 1.001, a FID that no other can be held against.
RANDOM_WEIGHTS = "metric-weights"
# A metric with these marks measures something else than its protocol says.
ALTERS_MEASURE = {RANDOM_WEIGHTS, "data", "joints"}
# And with these it measures that on other pictures than the paper did.
OTHER_PICTURES = {"form", "pairs"}


@dataclass(frozen=True)
class Column:
    """Our metrics that may fill it, the published one first (none: nothing here measures it), and printed decimals."""

    metrics: tuple[str, ...]
    decimals: int
    higher_is_better: bool = True


COLUMNS = {
    "FID": Column(("fid",), 3, False),
    "LPIPS": Column(("lpips-alex-v0.1", "lpips-squeeze-v0.1"), 4, False),
    "Mask-LPIPS": Column(("mask-lpips-alex-v0.1", "mask-lpips-squeeze-v0.1"), 4, False),
    "SSIM": Column(("ssim",), 3),
    "Mask-SSIM": Column(("mask-ssim",), 3),
    "PSNR": Column(("psnr",), 3),
    "Mask-PSNR": Column(("mask-psnr",), 3),
    "IS": Column(("is",), 3),
    "Mask-IS": Column(("mask-is",), 3),
    "PCKh": Column(("pckh@0.5",), 2),
    "Identity (target)": Column(("identity-target",), 3),
    "Identity (source)": Column(("identity-source",), 3),
    "Parsing mIoU": Column(("parsing-miou",), 3),
    "mIoU": Column(("target-parsing-miou",), 3),
    "R2G (%)": Column((), 2),
    "G2R (%)": Column((), 2),
    "Prefer (%)": Column((), 2),
    "Jab (%)": Column((), 2),
    "Preferred over (%)": Column((), 1),
}


def in_column_order(metrics: Iterable[str]) -> list[str]:
    """Each metric once: those of COLUMNS first, then the others by name."""
    metrics = set(metrics)
    order = [metric for column in COLUMNS.values() for metric in column.metrics if metric in metrics]
    return [*order, *sorted(metrics - set(order))]


LEADERBOARD = (
    "LPIPS", "FID", "SSIM", "PSNR", "Mask-SSIM", "PCKh", "Identity (target)", "Identity (source)", "Parsing mIoU"
)  # fmt: skip
"""Columns of the leaderboard, the one that sorts it first; of these, those that are empty are left out."""

FLOORS = {"copy_source": "Copy of the source", "mean_image": "Mean training image"}

LATER = "Later methods"  # stands for the paper of the tables that compare them
SAME = "CFLD's"  # the protocol of rows there that ours can be set beside, on pictures in the table's form
NOT_PUBLIC, NOT_KNOWN = "not public", "not known"  # how it is measured: by code that is not there, in a text not read

# Our metric -> the (paper, column) pairs whose protocol is known to be equal, from released scoring code: of the later
# methods CFLD's and MCLD's. Of the four papers none is: docs/protocols.md ("What the papers' own numbers are") says for
# each how it differs.
EQUAL_PROTOCOLS: dict[str, set[tuple[str, str]]] = {
    "fid-train-tv": {(LATER, "FID")},
    "lpips-alex-v0.1": {(LATER, "LPIPS")},
    "ssim-win51": {(LATER, "SSIM")},
    "psnr": {(LATER, "PSNR")},
}

# How a paper's own numbers were measured, or a row's by its `protocol` -> the recipe that does the same
# (pipeline/scoring/recipes.py). Of those that are not here no scoring code was released, or none was read.
MEASURED_BY = {
    "SPGNet": "spgnet", SAME: "cfld", "GFLA's, 256x256": "gfla", "GFLA's, its own resizing": "pocold",
    "PIDM's": "pidm", "PCDMs'": "pcdms",
}  # fmt: skip

# Paper -> why no difference to its numbers is printed.
PROTOCOL = {
    "SPIG": "SPIG released no scoring code, and the script it builds on (GFLA's) takes SSIM in a 51 x 51 window, FID "
    "by another Inception against the training images, and LPIPS without the last partial batch",
    "SPGNet": "SPGNet's scoring code takes SSIM of square pictures with their plain sides, crops to columns 40-216 for "
    "FID and LPIPS and pairs files by their position in two sorted folders, takes FID by another Inception against the "
    "training images, and finds joints by another detector",
    "SPT": "SPT released no scoring code; Def-GAN's is the likely one, which takes SSIM by the picture's own range and "
    "the ten parts of IS in the folder's order",
    "SGW-GAN": "SGW-GAN released no scoring code; Def-GAN's is the likely one, which takes SSIM by the picture's own "
    "range and the ten parts of IS in the folder's order",
    "PIDM": "PIDM says neither who was asked nor what they saw it on",
    LATER: "Of the later methods' numbers most stand where another paper quotes them",
}


@dataclass(frozen=True)
class Row:
    """A row of a table: the method and variant of published.csv, the name shown, and our variant of the same method.

    `method` "" has no published numbers. An outside method of the name shown, or of one in `aliases`, stands below it.
    `read_in`: the papers and tables of published.csv that its numbers stand in, the preferred first, where these are
    not the table's own; `protocol`: how they were measured, where a table's rows differ in that.
    `over`: the names of the method that it was preferred to, where the row compares two.
    """

    name: str
    method: str = ""
    variant: str = ""
    ours: str = ""
    aliases: tuple[str, ...] = ()
    read_in: tuple[tuple[str, str], ...] = ()
    protocol: str = ""
    over: tuple[str, ...] = ()

    def is_called(self, name: str) -> bool:
        return name.casefold() in {own.casefold() for own in (self.name, *self.aliases)}


@dataclass(frozen=True)
class PaperTable:
    """One table: `name` of its files, `paper` and `source` as in published.csv, and `columns` by the paper's data sets.

    Any other data set gets the widest of `columns`. `metrics` replaces our metrics for a column of this table.
    `study`: the forms of user studies (`pipeline.studies`) whose results fill it.
    `part` is true where the rows are a choice from the source; else it shows what published.csv has beyond `rows` too.
    `of` is the data set's name in published.csv, where that is not its title; such a table compares all methods of this
    run that were scored on DeepFashion in `form`, by whatever filter, and ranks those in the form of that very name
    with the published rows of SAME.
    """

    name: str
    paper: str
    source: str
    title: str
    columns: dict[str, tuple[str, ...]]
    rows: tuple[Row, ...]
    metrics: dict[str, tuple[str, ...]] = field(default_factory=dict)
    part: bool = False
    study: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    notes_of: dict[str, tuple[str, ...]] = field(default_factory=dict)  # data set -> notes of that part alone
    of: str = ""
    form: str = ""

    def columns_of(self, dataset: str) -> tuple[str, ...]:
        return self.columns.get(dataset) or max(self.columns.values(), key=len)

    def metrics_of(self, column: str) -> tuple[str, ...]:
        return self.metrics.get(column, COLUMNS[column].metrics)


VUNET = ("VU-Net", "VUNet", "V-UNet")
DEFGAN = ("Def-GAN", "DefGAN", "Deformable GAN")
SPT_ROWS = (
    Row("SPT Baseline", "SPT", "Baseline", "spt_baseline"),
    Row("SPT TS-Pred", "SPT", "TS-Pred", "spt_ts_pred"),
    Row("SPT TS-GT", "SPT", "TS-GT", "spt_ts_gt"),
    Row("SPT E2E", "SPT", "E2E", "spt", ("SPT",)),
)
SPT_COLUMNS = {"deepfashion": ("IS", "SSIM"), "market1501": ("IS", "SSIM", "Mask-IS", "Mask-SSIM")}
# SPGNet's SSIM on DeepFashion is a uniform 7 x 7 window's.
SPGNET_METRICS = {"SSIM": ("ssim-uniform7", "ssim")}


def _later(height: int, width: int, form: str, rows: tuple[Row, ...], *notes: str) -> PaperTable:
    """The comparison of the methods since 2020 on DeepFashion at one resolution."""
    return PaperTable(
        f"later_{height}x{width}", LATER, f"{height}x{width}", f"{height}x{width}: methods since 2020",
        {f"deepfashion-{form}": ("FID", "LPIPS", "SSIM", "PSNR")}, rows,
        metrics={"FID": ("fid-train-tv",), "SSIM": ("ssim-win51",)},
        notes=(
            "In order of publication. Protocol: how a row's numbers were measured (docs/protocols.md, \"The later "
            f"methods' protocols\"). Best and 2nd are among the rows of {SAME}, but for numbers from a summary: all "
            "others differ from one another in pictures, sizes or metrics, or their scoring is not public.",
            *notes,
        ),
        of=f"DeepFashion {height}x{width}", form=form,
    )  # fmt: skip


def _quoted(name: str, protocol: str, *further: str, ours: str = "", aliases: tuple[str, ...] = (), paper="IMAGPose"):
    """A row whose numbers stand in Table 1 of a paper and, where not there, in the main comparison of `further`."""
    read_in = ((paper, "Table 3" if paper == "Leffa" else "Table 1"), *((one, "main comparison") for one in further))
    return Row(name, name, ours=ours, aliases=aliases, read_in=read_in, protocol=protocol)


SPT_GROUND_TRUTH = "TS-GT is given the parsing of the true target, in test too, which no other row of SPT is."

TABLES = (
    PaperTable(
        "spig_table1", "SPIG", "Table 1", "Table 1: comparison",
        {
            "market1501": ("FID", "LPIPS", "Mask-LPIPS", "SSIM", "Mask-SSIM", "PSNR", "Mask-PSNR"),
            "deepfashion": ("FID", "LPIPS", "SSIM", "PSNR"),
        },
        (
            Row("VU-Net", "VU-Net", ours="vunet", aliases=VUNET),
            Row("Def-GAN", "Def-GAN", ours="def_gan", aliases=DEFGAN),
            Row("PATN", "PATN", ours="patn"),
            Row("DIST (=GFLA)", "DIST (=GFLA)", ours="gfla", aliases=("GFLA", "DIST")),
            Row("SPIG (the paper's)", "SPIG (Ours)", "full", "spig", ("SPIG",)),
        ),
        notes_of={
            "deepfashion": (
                "The published SSIM and PSNR appear to mix pictures with a white border (VU-Net, Def-GAN) and without "
                "(PATN, DIST, SPIG): do not rank across the two.",
            )
        },
    ),
    PaperTable(
        "spig_table2", "SPIG", "Table 2 (user study)", "Table 2: user study",
        {"market1501": ("G2R (%)", "Prefer (%)"), "deepfashion": ("G2R (%)", "Prefer (%)")},
        (
            Row("VU-Net", "VU-Net", aliases=VUNET),
            Row("Def-GAN", "Def-GAN", aliases=DEFGAN),
            Row("PATN", "PATN", ours="patn"),
            Row("DIST (=GFLA)", "DIST (=GFLA)", ours="gfla", aliases=("GFLA", "DIST")),
            Row("SPIG (the paper's)", "SPIG (Ours)", ours="spig", aliases=("SPIG",)),
        ),
        study=("spig",),
        notes=(
            "The paper asked 30 people. G2R = generated pictures taken for real; Prefer = share of the votes for the "
            "best of five. `repose study` asks people anew.",
        ),
    ),
    PaperTable(
        "spig_table3", "SPIG", "Table 3 (ablation)", "Table 3: ablation",
        {"deepfashion": ("FID", "LPIPS", "SSIM", "PSNR")},
        (
            Row("w/o Part", "SPIG", "w/o Part", "spig_no_part"),
            Row("w/o PNB", "SPIG", "w/o PNB", "spig_no_pnb"),
            Row("w/o HDCB", "SPIG", "w/o HDCB", "spig_no_hdcb"),
            Row("Full", "SPIG", "Full", "spig"),
        ),
    ),
    PaperTable(
        "spgnet_table_a", "SPGNet", "Supp. Table A", "supplement, Table A: training schemes",
        {"deepfashion": ("SSIM", "FID", "PCKh", "LPIPS")},
        (
            Row("S1 > S2: stage one frozen", "SPGNet", "S1>S2 (pretrain SPATN, freeze, train SPGNet)",
                "spgnet_sequential"),
            Row("S1 x S2: both stages jointly", "SPGNet", "S1><S2 (pretrain SPATN, joint training)", "spgnet_joint"),
            Row("S1 || S2: independent, adopted", "SPGNet", "S1||S2 (parallel; adopted)", "spgnet"),
        ),
        metrics=SPGNET_METRICS,
    ),
    PaperTable(
        "spgnet_table1", "SPGNet", "Main Table 1", "Table 1: comparison",
        {"deepfashion": ("SSIM", "FID", "PCKh", "LPIPS"), "market1501": ("FID", "LPIPS", "SSIM", "Mask-SSIM", "PCKh")},
        (
            Row("PATN", "PATN", ours="patn"),
            Row("Intr-Flow", "Intr-Flow", aliases=("Intrinsic Flow",)),
            Row("GFLA", "GFLA", ours="gfla", aliases=("DIST",)),
            Row("XingGAN", "XingGAN"),
            Row("ADGAN", "ADGAN"),
            Row("SPGNet (the paper's)", "SPGNet (Ours)", "", "spgnet", ("SPGNet",)),
        ),
        metrics=SPGNET_METRICS,
        notes_of={"market1501": ("The paper's numbers and order of columns on this data set are not known here.",)},
    ),
    PaperTable(
        "spgnet_parsing", "SPGNet", "Supp. section C (text)", "supplement, section C: mIoU of the predicted parsing",
        {"deepfashion": ("mIoU",)},
        (
            Row("SPATN without distance maps", "SPATN", "without distance map", "spatn_no_distance"),
            Row("SPATN with distance maps", "SPATN", "with distance map", "spatn"),
        ),
        notes=(
            "The target's parsing as stage one predicts it, against the stored parsing of the target; our parsing-miou "
            "parses generated pictures, which is something else. The paper says neither which labels, parser and pairs "
            "its numbers are of, nor how they are averaged. spgnet and spgnet_no_distance show what the distance maps "
            "do to the pictures.",
        ),
    ),
    PaperTable(
        "spt_table1", "SPT", "Table 1", "Table 1: comparison", SPT_COLUMNS,
        (
            Row("PG2", "PG2"),
            Row("Def-GAN", "Def-GAN", ours="def_gan", aliases=DEFGAN),
            Row("V-UNet", "V-UNet", ours="vunet", aliases=VUNET),
            Row("BodyROI7", "BodyROI7"),
            Row("UPIS", "UPIS"),
            *SPT_ROWS,
        ),
        notes=("PG2 and Def-GAN train on pairs of pictures, the others without. " + SPT_GROUND_TRUTH,),
        notes_of={"market1501": ("UPIS is the SPT authors' own implementation.",)},
    ),
    PaperTable(
        "spt_training", "SPT", "Table 1", "training ablation (the SPT rows of Table 1)", SPT_COLUMNS,
        (
            *SPT_ROWS,
            Row("SPT TS-GT, true parsing in training alone", ours="spt_ts_gt_training"),
            Row("SPT E2E, balanced stand-ins", ours="spt_balanced"),
            Row("SPT E2E, log form of the adversarial loss", ours="spt_log_loss"),
        ),
        part=True,
        notes=(
            SPT_GROUND_TRUTH,
            "The discriminator of images sees parsings beside them where all are true, in TS-GT, and images alone in "
            "all other rows (docs/papers.md).",
            "The paper can be read otherwise: TS-GT, true parsing in training alone, has an H_S that learned from the "
            "true targets' parsing instead of pseudo labels, and is given none when it is scored.",
            "Balanced stand-ins: H_S learns from pseudo labels that another rule than the paper's arg-min chose. Log "
            "form: the text prints it, the released code and our other rows have least squares (docs/papers.md).",
        ),
    ),
    PaperTable(
        "spt_losses", "SPT", "Figure 7", "Figure 7: loss ablation",
        {"deepfashion": ("IS", "SSIM", "LPIPS", "FID")},
        (
            Row("TS-GT", ours="spt_ts_gt"),
            Row("mask-style loss", ours="spt_mask_style"),
            Row("patch-style loss", ours="spt_patch_style"),
            Row("w/o face loss", ours="spt_no_face"),
        ),
        part=True,
        notes=(
            "The paper shows pictures only: it has no number to compare with, and the columns are ours.",
            "Of images lower than 256 pixels there is no face loss: w/o face loss is TS-GT there.",
        ),
    ),
    PaperTable(
        "sgw_gan_table1", "SGW-GAN", "Table 1", "Table 1: comparison",
        {"deepfashion": ("SSIM", "IS"), "market1501": ("SSIM", "IS")},
        (
            Row("pix2pix", "pix2pix"),
            Row("PG2", "PG2"),
            Row("DSCF (=Def-GAN)", "DSCF (=Def-GAN)", ours="def_gan", aliases=DEFGAN),
            Row("UPIS", "UPIS"),
            Row("AUNET (=VU-Net)", "AUNET (=VU-Net)", ours="vunet", aliases=VUNET),
            Row("BodyROI7", "BodyROI7"),
            Row("SGW-GAN (the paper's)", "SGW-GAN (Full)", "full", "sgw", ("SGW-GAN",)),
        ),
    ),
    PaperTable(
        "sgw_gan_ablation", "SGW-GAN", "ablation table", "ablation",
        {"deepfashion": ("SSIM", "IS"), "market1501": ("SSIM", "IS")},
        (
            Row("w/o parsing", "SGW-GAN", "w/o parsing", "sgw_no_parsing"),
            Row("w/o soft-gated warping-block", "SGW-GAN", "w/o soft-gated warping-block", "sgw_no_warp"),
            Row("w/o A_att", "SGW-GAN", "w/o A_att", "sgw_no_gate"),
            Row("w/o L_PH", "SGW-GAN", "w/o L_PH", "sgw_no_hierarchy"),
            Row("Full", ours="sgw"),
            Row("Full, matcher on VGG16", ours="sgw_vgg16"),
            Row("Full, image in stage one", ours="sgw_image"),
        ),
        notes=("The published numbers of the whole method are in Table 1.",),
    ),
    PaperTable(
        "sgw_gan_amt", "SGW-GAN", "AMT pairwise study", "pairwise study on Mechanical Turk",
        {"deepfashion": ("Preferred over (%)",), "market1501": ("Preferred over (%)",)},
        (
            Row("SGW-GAN over pix2pix", "SGW-GAN", "vs pix2pix", "sgw", ("SGW-GAN",), over=("pix2pix",)),
            Row("SGW-GAN over PG2", "SGW-GAN", "vs PG2", "sgw", ("SGW-GAN",), over=("PG2",)),
            Row("SGW-GAN over BodyROI7", "SGW-GAN", "vs BodyROI7", "sgw", ("SGW-GAN",), over=("BodyROI7",)),
            Row(
                "SGW-GAN over DSCF (=Def-GAN)", "SGW-GAN", "vs DSCF (=Def-GAN)", "sgw", ("SGW-GAN",),
                over=("DSCF", *DEFGAN, "def_gan"),
            ),
        ),
        study=("spig", "pidm"),
        notes=("The paper asked people which of two pictures they prefer. `repose study` asks anew: of two methods.",),
    ),
    PaperTable(
        "pidm_figure5", "PIDM", "Figure 5 (user study)", "Figure 5: user study",
        {"deepfashion": ("R2G (%)", "G2R (%)", "Jab (%)")},
        (
            Row("PIDM (the paper's)", "PIDM", aliases=("PIDM",)),
            Row(
                "IMAGPose (its paper's)", "IMAGPose", aliases=("IMAGPose",),
                read_in=(("IMAGPose", "Figure 6 (user study)"),),
            ),
        ),
        study=("pidm",),
        notes=(
            "PIDM asked 100 people, each of 30 real and 30 generated pictures and 30 sets; IMAGPose 50, of 40 each. "
            "R2G = real ones taken for generated, G2R = generated ones taken for real, Jab = share of votes for the "
            "best. The other numbers are bars in their figures. `repose study --form pidm` asks anew.",
        ),
    ),
    _later(
        256, 176, "resize176",
        (
            _quoted("ADGAN", NOT_KNOWN),
            _quoted("GFLA", "GFLA's, 256x256", ours="gfla", aliases=("DIST",)),
            _quoted("PISE", f"{NOT_PUBLIC}; 256x256", "PISE"),
            Row("DiOr", "DiOr", read_in=(("DiOr", "main comparison"),), protocol=NOT_KNOWN),
            _quoted("DPTN", "GFLA's, padded"),
            _quoted("NTED", "GFLA's, PIL bicubic"),
            _quoted("CASD", f"{NOT_PUBLIC}; JPEG", "CASD"),
            _quoted("PIDM", "PIDM's"),
            _quoted("PoCoLD", "GFLA's, its own resizing"),
            _quoted("CFLD", SAME, "MCLD"),
            _quoted("PCDMs", "PCDMs'", aliases=("PCDM",)),
            _quoted("X-MDPT-L", f"{NOT_PUBLIC}; 256x256", aliases=("X-MDPT",), paper="Leffa"),
            _quoted("IMAGPose", NOT_PUBLIC),
            _quoted("Leffa", NOT_PUBLIC, paper="Leffa"),
            Row("MCLD", "MCLD", read_in=(("MCLD", "main comparison"),), protocol=SAME),
        ),
    ),
    _later(
        512, 352, "resize352",
        (
            _quoted("CocosNet-v2", NOT_KNOWN),
            _quoted("NTED", "GFLA's, PIL bicubic"),
            _quoted("PIDM", "PIDM's"),
            _quoted("PoCoLD", "GFLA's, its own resizing"),
            _quoted("CFLD", SAME, "MCLD"),
            _quoted("PCDMs", "PCDMs'", aliases=("PCDM",)),
            _quoted("X-MDPT-L", NOT_PUBLIC, aliases=("X-MDPT",), paper="Leffa"),
            _quoted("IMAGPose", NOT_PUBLIC),
            _quoted("Leffa", NOT_PUBLIC, paper="Leffa"),
            Row("MCLD", "MCLD", read_in=(("MCLD", "main comparison"),), protocol=SAME),
            *(
                Row(f"{method}{by}", method, read_in=(("One-to-All", "main comparison"),), protocol="One-to-All's")
                for method, by in (
                    ("CFLD", " (by One-to-All)"), ("MCLD", " (by One-to-All)"), ("One-to-All-1.3B", ""),
                )
            ),
        ),
        "One-to-All measured CFLD and MCLD anew, with an LPIPS of 0.279 for CFLD instead of 0.1819: its rows compare "
        "with one another alone.",
    ),
)  # fmt: skip


def recipe_of(table: PaperTable, row: Row) -> str | None:
    """The recipe that does what the published numbers of a row were measured by; None where that is not known, as of
    what a paper quotes of others.
    """
    own = row.method.startswith(table.paper)
    return MEASURED_BY.get(row.protocol or (table.paper if own else ""))


def published(dataset: str) -> str:
    """The name of the files that hold all published numbers on a data set."""
    return f"published_{dataset}"


def titles(datasets: Iterable[str]) -> dict[str, str]:
    """Names of the files that show values in rows and columns -> their titles: leaderboards, then the papers'."""
    own = {f"leaderboard_{dataset}": "Leaderboard" for dataset in datasets}
    return own | {table.name: f"{table.paper}, {table.title}" for table in TABLES}
