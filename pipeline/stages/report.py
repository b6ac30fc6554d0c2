"""Write the report: one HTML file that needs no other file and no network.

reads   reports/tables/*.csv, reports/scores/D/V/{scores,pairs,samples,figures}.parquet and network.json,
        reports/published.csv, docs/protocols.md, params.yaml, data/D/ and data/weights/ (what `inspect` counts, two
        examples, digests), reports/template.html.j2 and reports/template/
writes  reports/html/index.html, and reports/html/pictures/: pictures that the page links
        reports/html/times.html, which no stage declares: how long each stage took

Open the file in a browser, mail it, or print it: charts, tables and drawn pictures are inside, and every table can be
sorted and saved as csv. Equal inputs and library versions, at one revision, give equal bytes.

Durations differ from run to run, so they go to a page of their own: index.html must come out the same, byte for byte,
whichever engine writes it. They are read from logs/, which is no declared input: a new log alone does not run the
report again.

Photographs of real data sets, and what was generated from them, are for research: `report.photographs` in params.yaml
says whether they stand in the page (embed), in the folder pictures/ beside it (link: pass the page on without the
folder), or nowhere (none). A page holds up to 8 MiB of pictures (`album.EMBEDDED`), each once however often it is
shown; those that come after go to the folder, too, and the page says so.

To change the look, edit the templates; to change what is counted or chosen, see the stage `tables`.
"""

from dataclasses import dataclass

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.core import layout, params
from pipeline.core.atomic import atomic_directory, atomic_file
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.datasets import title as dataset_title
from pipeline.report import charts, costs, datasets, definitions, gallery, provenance, summary, tables, times
from pipeline.report import prepared as facts
from pipeline.report.album import Album, download
from pipeline.tables import papers
from pipeline.tables.inputs import read_network

DRAWN = {"synthetic"}  # data sets without a photograph
SIZE = "\0"  # stands on the page for its own size until that is known; no text holds it


@dataclass(frozen=True)
class Params:
    title: str
    grid_rows: int
    photographs: str  # embed | link | none


def environment() -> Environment:
    if not layout.REPORT_TEMPLATE.exists():
        raise UserError(f"{layout.REPORT_TEMPLATE}: not there; restore it (git checkout {layout.REPORT_TEMPLATE})")
    found = Environment(
        loader=FileSystemLoader(layout.REPORT_TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return found


def _part(
    dataset: str,
    scores: list[dict[str, str]],
    trained: list[str],
    floors: list[str],
    legend: dict[str, dict],
    published: list[dict],
    block: Params,
    album: Album,
) -> dict:
    """What a page shows of one data set beside its tables."""
    photographs = "embed" if dataset in DRAWN else block.photographs
    link, none = photographs == "link", photographs == "none"
    chosen = {row["variant"]: int(row["step"]) for row in scores if row["chosen"] == "yes"}
    curves = charts.curves(scores, trained, floors, published)
    everywhere = set.intersection(*(set(chart["marks"]) for chart in curves)) if curves else set()
    for chart in curves:  # what all charts carry is said once
        chart["marks"] = [legend[mark] for mark in chart["marks"] if mark not in everywhere]
    failing = [gallery.failing(dataset, one, chosen[one], None if none else album, link) for one in trained]
    return {
        "name": dataset,
        "title": dataset_title(dataset),
        "photographs": photographs,
        "marks": {(r["variant"], r["metric"]): [legend[mark] for mark in r["marks"].split()] for r in scores},
        "curves": curves,
        "curve_marks": [mark for key, mark in legend.items() if key in everywhere],
        "gallery": None if none else gallery.grid(dataset, trained, block.grid_rows, album, link),
        "figures": [] if none else gallery.figures(dataset, trained, album, link),
        "worst": [one for one in failing if one],
    }


def page(block: Params) -> tuple[str, Album]:
    """The whole report as HTML, and its pictures. Raises UserError if an input is missing or empty."""
    run, variants = params.datasets(), params.variants()
    floors = [variant for variant in variants if params.family(variant) == "floors"]
    trained = [variant for variant in variants if variant not in floors and params.seed_of(variant) is None]
    scores = tables.read_csv("all_scores.csv")
    lacking = {(d, v) for d in run for v in variants} - {(row["dataset"], row["variant"]) for row in scores}
    if lacking:
        raise UserError(
            f"{layout.TABLES}/all_scores.csv: nothing on {'/'.join(min(lacking))}; run: python -m pipeline tables"
        )
    digests = provenance.digests(run, variants)
    legend = {row["mark"]: row for row in tables.read_csv("legend.csv")}
    named = papers.titles(run)
    shown = [part for name, title in named.items() for part in tables.shown(name, title, legend, run)]
    cells_of = {name: tables.read_csv(f"{name}.csv") for name in named}
    differences = tables.read_csv("differences.csv")
    networks = {dataset: {one: read_network(dataset, one) for one in variants} for dataset in run}
    defined = definitions.read(layout.PROTOCOLS)

    album, parts, prepared, answers = Album(), [], [], []
    for dataset in run:
        own = [row for row in scores if row["dataset"] == dataset]
        apart = [line for line in differences if line["dataset"] == dataset]
        counts = facts.images(dataset).splits if layout.images(dataset).exists() else {}
        told = [one for one in variants if networks[dataset][one]["given_target_parsing"]]
        answers.append(summary.answers(dataset, cells_of, own, apart, networks[dataset], told, counts))
        parts.append(_part(dataset, own, trained, floors, legend, answers[-1]["matches"], block, album))
        prepared.append(datasets.section(dataset, dataset_title(dataset), album, parts[-1]["photographs"]))

    used = {row["metric"] for row in scores}
    overview = tables.overview(scores, legend)
    for row in overview:
        dataset, variant = row["key"]
        row["training"] = costs.training(networks[dataset][variant]) if variant in variants else {}
    template = environment().get_template(layout.REPORT_TEMPLATE.name)
    text = template.render(
        title=block.title,
        warning=tables.warning(scores),
        answers=answers,
        revision=provenance.revision(),
        overview=overview,
        legend=list(legend.values()),
        leaderboards=[part for part in shown if part["paper"] == "Leaderboard"],
        tables=[part for part in shown if part["paper"] != "Leaderboard"],
        trained=trained,
        floors=floors,
        many=len(trained) > charts.MANY,
        looks={variant: charts.look(number) for number, variant in enumerate(trained)},
        parts=parts,
        sections=gallery.sections(parts),
        apart={kind: [p["title"] for p in parts if p["photographs"] == kind] for kind in ("link", "none")},
        folder=layout.REPORT_PICTURES.name,
        album=album,
        size=SIZE,
        pckh=tables.pckh(scores),
        prepared=prepared,
        costs=[row for dataset in run for row in costs.rows(dataset, networks[dataset])],
        outside=sorted({row["variant"] for row in scores} - set(variants)),
        times_page=layout.REPORT_TIMES.name,
        grids=tables.score_grids(scores, legend),
        defined={name: about for name, about in defined.items() if name in used},
        downloads=[download(path) for path in [*sorted(layout.TABLES.glob("*.csv")), layout.PUBLISHED]],
        digests=digests,
        weights=provenance.weights(params.load()["weights"]),
        sources=provenance.sources(run),
        versions=[(library, provenance.version(library)) for library in provenance.LIBRARIES],
        params_text=layout.PARAMS.read_text(encoding="utf-8"),
    )
    return text.replace(SIZE, f"{len(text.encode()) / 1e6:.1f} MB"), album


def _write_times(block: Params) -> None:
    rows = times.rows(params.datasets())
    text = environment().get_template(f"{layout.REPORT_PARTS}/times.html.j2").render(title=block.title, times=rows)
    with atomic_file(layout.REPORT_TIMES) as partial:
        partial.write_text(text, encoding="utf-8")


def run() -> None:
    block = params.block(Params, "report")
    text, album = page(block)
    with atomic_directory(layout.REPORT_PICTURES) as partial:
        for name, content in album.beside.items():
            (partial / name).write_bytes(content)
    with atomic_file(layout.REPORT) as partial:
        partial.write_text(text, encoding="utf-8")
    _write_times(block)
    beside = f", {len(album.beside)} pictures beside it in {layout.REPORT_PICTURES}" if album.beside else ", one file"
    say(f"{layout.REPORT}: {len(text.encode()) / 1024:.0f} KiB{beside}; open it in a browser")
