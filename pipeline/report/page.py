"""The page as a whole: what each part of the template is given."""

from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.core import console, layout, needs, params
from pipeline.core.errors import UserError
from pipeline.datasets import title as dataset_title
from pipeline.report import charts, controls, costs, definitions, examples, gallery, provenance, summary, tables, words
from pipeline.report.album import Album, download
from pipeline.tables import papers
from pipeline.tables.inputs import not_scored, outdated, read_network, read_outside

DRAWN = {"synthetic"}  # data sets without a photograph


class Run(NamedTuple):
    """What all parts read: names in params.yaml, and the files of reports/tables as rows of text."""

    datasets: list[str]
    variants: list[str]  # those that are scored, on one data set at least
    trained: list[str]  # of these the ones that are trained, the first seed of each
    floors: list[str]
    scores: list[dict[str, str]]
    cells: dict[str, list[dict[str, str]]]  # by table
    differences: list[dict[str, str]]
    legend: dict[str, dict[str, str]]  # by mark
    networks: dict[tuple[str, str], dict]  # network.json by data set and variant

    def of(self, dataset: str) -> list[dict[str, str]]:
        return [row for row in self.scores if row["dataset"] == dataset]

    def networks_of(self, dataset: str) -> dict[str, dict]:
        return {variant: network for (where, variant), network in self.networks.items() if where == dataset}

    def trained_on(self, dataset: str) -> list[str]:
        return [variant for variant in self.trained if (dataset, variant) in self.networks]


def is_drawn(dataset: str) -> bool:
    """Whether a data set, and so each of its forms, is without a photograph."""
    return params.parent(dataset) in DRAWN


def environment() -> Environment:
    if not layout.REPORT_TEMPLATE.exists():
        raise UserError(f"{layout.REPORT_TEMPLATE}: not there; restore it (git checkout {layout.REPORT_TEMPLATE})")
    return Environment(
        loader=FileSystemLoader(layout.REPORT_TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _read() -> Run:
    """Raises UserError if a table or network.json is missing, or the tables lack a variant that is scored."""
    datasets, scores = params.datasets(), tables.read_csv("all_scores.csv")
    wanted = [(dataset, variant) for dataset in datasets for variant in params.variants()]
    scored = {(row["dataset"], row["variant"]) for row in scores}
    variants = list(dict.fromkeys(variant for dataset, variant in wanted if (dataset, variant) in scored))
    floors = [variant for variant in variants if params.family(variant) == "floors"]
    if old := scored & {*outdated()}:
        name = "/".join(min(old))
        raise UserError(f"{layout.TABLES}/all_scores.csv: {name} was scored by another reference; run: repose tables")
    if lacking := {*wanted} - scored - {*not_scored(), *outdated()}:
        raise UserError(f"{layout.TABLES}/all_scores.csv: nothing on {'/'.join(min(lacking))}; run: repose tables")
    return Run(
        datasets,
        variants,
        [variant for variant in variants if variant not in floors and params.seed_of(variant) is None],
        floors,
        scores,
        {name: tables.read_csv(f"{name}.csv") for name in papers.titles(datasets)},
        tables.read_csv("differences.csv"),
        {row["mark"]: row for row in tables.read_csv("legend.csv")},
        {key: read_network(*key) for key in wanted if key in scored},
    )


def _answers(run: Run, dataset: str) -> dict:
    """What the summary is told of one data set."""
    networks = run.networks_of(dataset)
    unranked = [variant for variant, network in networks.items() if network["given_target_parsing"]]
    settings = {variant: costs.training(network) for variant, network in networks.items()}
    settings = {variant: one for variant, one in settings.items() if one}  # of floors there are none
    apart = [line for line in run.differences if line["dataset"] == dataset]
    found = summary.of_dataset(run.cells[f"leaderboard_{dataset}"], run.of(dataset), apart, unranked)
    best = next((cell for cell in found["ranked"] if cell["kind"] == "trained"), None)
    cost = {row["variant"]: row for row in costs.rows(dataset, networks)}
    return found | {
        "name": dataset,
        "title": dataset_title(dataset),
        "matches": summary.matches(dataset, run.cells),
        "missing": words.listed([variant for where, variant in not_scored() if where == dataset]),
        "outdated": words.listed([name for where, name in outdated() if where == dataset]),
        "trained": len(settings),
        "different": summary.different(settings),
        "cost": cost[best["variant"]] | {"name": best["row"]} if best else None,
    }


def _pictured(run: Run, dataset: str) -> list[gallery.Method]:
    """Whose pictures there are: the trained variants', and those of methods from elsewhere that the tables have."""
    names = {row["variant"] for row in run.of(dataset)}
    outside = [one for (where, name), one in read_outside({}).items() if where == dataset and name in names]
    found = [gallery.trained(dataset, variant) for variant in run.trained_on(dataset)]
    return found + [gallery.Method(one.name, one.pairs.with_name("samples.parquet"), one.pairs) for one in outside]


def _part(run: Run, dataset: str, published: list[dict], grid_rows: int, photographs: str, album: Album) -> dict:
    """What a page shows of one data set beside its tables."""
    photographs = "embed" if is_drawn(dataset) else photographs
    link, none = photographs == "link", photographs == "none"
    scores = run.of(dataset)
    chosen = {row["variant"]: int(row["step"]) for row in scores if row["chosen"] == "yes"}
    curves = charts.curves(scores, run.trained, run.floors, published)
    everywhere = set.intersection(*(set(chart["marks"]) for chart in curves)) if curves else set()
    for chart in curves:  # marks that all charts have are shown once, above them
        chart["random"] = papers.RANDOM_WEIGHTS in chart["marks"]
        chart["marks"] = [run.legend[mark] for mark in chart["marks"] if mark not in everywhere]
    trained = run.trained_on(dataset)
    failing = [gallery.failing(dataset, one, chosen[one], None if none else album, link) for one in trained]
    ranked = run.cells[f"leaderboard_{dataset}"]
    named = {cell["variant"]: cell["row"] for cell in ranked}
    metrics = {cell["metric"]: cell["column"] for cell in ranked if cell["value"]}
    grid = None if none else gallery.grid(_pictured(run, dataset), grid_rows, metrics, album, link)
    return {
        "name": dataset,
        "title": dataset_title(dataset),
        "photographs": photographs,
        "marks": {(r["variant"], r["metric"]): [run.legend[mark] for mark in r["marks"].split()] for r in scores},
        "curves": curves,
        "curve_marks": [mark for key, mark in run.legend.items() if key in everywhere],
        "gallery": grid,
        "lineup": grid and gallery.lineup(grid, named),
        "figures": [] if none else gallery.figures(dataset, trained, album, link),
        "worst": [one for one in failing if one],
    }


def _parts(run: Run, grid_rows: int, photographs: str, album: Album) -> dict:
    """What the page shows of each data set."""
    answers, parts, prepared = [], [], []
    for dataset in run.datasets:
        if run.cells[f"leaderboard_{dataset}"]:
            answers.append(_answers(run, dataset))
        parts.append(_part(run, dataset, summary.matches(dataset, run.cells), grid_rows, photographs, album))
        prepared.append(examples.section(dataset, album, parts[-1]["photographs"]))
    return {
        "answers": answers,
        "unscored": [dataset_title(dataset) for dataset in run.datasets if not run.cells[f"leaderboard_{dataset}"]],
        "parts": parts,
        "prepared": prepared,
        "sections": gallery.sections(parts),
        "apart": {kind: [part["title"] for part in parts if part["photographs"] == kind] for kind in ("link", "none")},
        "many": len(run.trained) > charts.MANY,
        "looks": {variant: charts.look(number) for number, variant in enumerate(run.trained)},
    }


def _tables(run: Run) -> dict:
    """What the page shows of the files of reports/tables."""
    named, used = papers.titles(run.datasets), {row["metric"] for row in run.scores}
    shown = [part for name, title in named.items() for part in tables.shown(name, title, run.legend, run.datasets)]
    for dataset in run.datasets:
        shown += tables.shown(papers.published(dataset), tables.LEADERBOARD, run.legend, run.datasets)
    overview = tables.overview(run.scores, run.legend)
    for row in overview:
        network = run.networks.get(row["key"])
        row["training"] = costs.training(network) if network else {}
    return {
        "warning": tables.warning(run.scores),
        "overview": overview,
        "legend": [*run.legend.values(), tables.TIED],
        "leaderboards": [part for part in shown if part["paper"] == tables.LEADERBOARD],
        "tables": [part for part in shown if part["paper"] != tables.LEADERBOARD],
        "pckh": tables.pckh(run.scores),
        "grids": tables.score_grids(run.scores, run.legend),
        "defined": {name: about for name, about in definitions.read(layout.PROTOCOLS).items() if name in used},
        "costs": [row for dataset in run.datasets for row in costs.rows(dataset, run.networks_of(dataset))],
        "controls": [controls.of_dataset(dataset, run.legend) for dataset in run.datasets],
        "outside": sorted({row["variant"] for row in run.scores} - {*run.variants, *needs.components(params.load())}),
    }


def _sources(run: Run) -> dict:
    """What the page was made from."""
    return {
        "revision": provenance.revision(),
        "downloads": [download(path) for path in [*sorted(layout.TABLES.glob("*.csv")), layout.PUBLISHED]],
        "digests": provenance.digests(run.datasets, run.networks, needs.components(params.load())),
        "weights": provenance.weights(params.load()["weights"]),
        "sources": provenance.sources(run.datasets),
        "versions": [(library, provenance.version(library)) for library in provenance.LIBRARIES],
        "params_text": console.without_secrets(params.text()),
    }


def write(title: str, grid_rows: int, photographs: str) -> tuple[str, Album]:
    """The page as HTML, and its pictures. The arguments are the keys of `report` in params.yaml.

    Raises UserError if an input is missing or empty.
    """
    run, album = _read(), Album()
    shown = {
        "title": title,
        "trained": run.trained,
        "floors": run.floors,
        "folder": layout.REPORT_PICTURES.name,
        "times_page": layout.REPORT_TIMES.name,
        "album": album,
        "counted": words.counted,
        "listed": words.listed,
        **_sources(run),
        **_tables(run),
        **_parts(run, grid_rows, photographs, album),
    }
    templates = environment()
    text = templates.get_template(layout.REPORT_TEMPLATE.name).render(shown)
    end = templates.get_template(f"{layout.REPORT_PARTS}/end.html.j2")
    return text + end.render(shown, size=f"{len(text.encode()) / 1e6:.1f} MB"), album
