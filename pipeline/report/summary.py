"""What the summary at the top of a page says of a data set, from the tables; template/summary.html.j2 has the words."""

from pipeline.report.tables import how_read, pairs_of, pairs_seen
from pipeline.report.words import counted, listed
from pipeline.tables import papers


def _as(printed: str, value: float | str, sign: str = "") -> str:
    """The value with as many decimals as `printed` has."""
    return f"{float(value):{sign}.{len(printed.partition('.')[2])}f}".replace("-", "−")


def interval(cell: dict[str, str]) -> str:
    """ "0.2976 to 0.3224", "" without one."""
    ends = [_as(cell["printed"], cell[end]) for end in ("low", "high") if cell[end]]
    return " to ".join(ends) if len(ends) == 2 else ""


def ranking(cells: list[dict[str, str]], unranked: list[str]) -> list[dict[str, str]]:
    """The cells of a leaderboard's first column that have a rank, the best first: not those of a part of the pairs."""
    own = [c for c in cells if c["column"] == cells[0]["column"] and c["value"] and c["variant"] not in unranked]
    most = max(map(pairs_of, own), default=0)
    sign = -1 if cells[0]["higher_is_better"] == "True" else 1
    return sorted((c for c in own if pairs_of(c) == most), key=lambda cell: sign * float(cell["value"]))


def _ran(cells: list[dict[str, str]], scores: list[dict[str, str]]) -> dict:
    """How many methods of each kind, and how many pairs of each split."""
    kinds = list({cell["variant"]: cell["kind"] for cell in cells}.values())
    nouns = {"trained": "trained method", "outside": "outside method", "floor": "floor"}
    methods = [counted(kinds.count(kind), noun) for kind, noun in nouns.items() if kind in kinds]
    pairs = {split: counted(count, "pair") for split, count in pairs_seen(scores).items()}
    if "trained" not in kinds:  # nothing has checkpoints to choose from
        pairs["val"] = ""
    return {"methods": listed(methods), "pairs": pairs}


def _lead(ranked: list[dict[str, str]]) -> dict:
    """By how much the best is ahead of the next, and the best method if the best is a floor."""
    first = ranked[0]
    apart = abs(float(first["value"]) - float(ranked[1]["value"])) if len(ranked) > 1 else 0
    methods = [cell for cell in ranked if cell["kind"] != "floor"]
    return {
        "next": ranked[1] if len(ranked) > 1 else None,
        "ahead": _as(first["printed"], apart) if apart else "",
        "best_method": methods[0] if methods and first["kind"] == "floor" else None,
    }


def _chance(ranked: list[dict[str, str]], differences: list[dict[str, str]]) -> dict | None:
    """From which other methods a paired bootstrap tells the best, and by how much the nearest tie or method differs.

    None if no other method was scored on the same pairs.
    """
    first, names = ranked[0], {cell["variant"]: cell["row"] for cell in ranked}
    own = {}
    for line in differences:
        if line["metric"] == first["metric"] and first["variant"] in (line["one"], line["other"]):
            sign = -1 if line["other"] == first["variant"] else 1
            middle, *ends = (sign * float(line[key]) for key in ("difference", "low", "high"))
            own[line["one"] if sign < 0 else line["other"]] = line | {"middle": middle, "ends": sorted(ends)}
    own = {other: own[other] for other in names if other in own}
    if not own:
        return None
    ties = [other for other, line in own.items() if line["verdict"] == "tie"]
    nearest = (ties or list(own))[0]
    middle, low, high = (
        _as(first["printed"], number, "+") for number in (own[nearest]["middle"], *own[nearest]["ends"])
    )
    return {
        "pairs": counted(int(own[nearest]["n"]), "test pair"),
        "ties": listed([names[other] for other in ties]),
        "apart": listed([names[other] for other in own if other not in ties]),
        "nearest": {"name": names[nearest], "difference": middle, "interval": f"{low} to {high}"},
    }


def _floors(cells: list[dict[str, str]], differences: list[dict[str, str]]) -> dict | None:
    """Which trained methods a paired bootstrap tells from all floors, by the first column; None without either."""
    own = {c["variant"]: c for c in cells if c["column"] == cells[0]["column"] and c["value"]}
    floors = [variant for variant, cell in own.items() if cell["kind"] == "floor"]
    methods = [variant for variant in own if variant not in floors]
    if not floors or not methods:
        return None
    wins = {
        (line["verdict"], line["one"] if line["verdict"] == line["other"] else line["other"])
        for line in differences
        if line["metric"] == own[methods[0]]["metric"] and line["verdict"] != "tie"
    }
    above = [variant for variant in methods if all((variant, floor) in wins for floor in floors)]
    return {
        "names": listed([papers.FLOORS.get(floor, floor).lower() for floor in floors]),
        "above": [own[variant]["row"] for variant in above],
        "below": [own[variant]["row"] for variant in methods if variant not in above],
    }


def matches(dataset: str, cells_of: dict[str, list[dict[str, str]]]) -> list[dict]:
    """Our numbers beside the published ones of the same row, each once: from the papers' tables, in their order."""
    found: dict[tuple, dict] = {}
    for table in papers.TABLES:
        own = [cell for cell in cells_of.get(table.name, []) if cell["dataset"] == dataset and cell["value"]]
        published = {(cell["row"], cell["column"]): cell for cell in own if cell["kind"] == "published"}
        names = {row.ours: row.name for row in table.rows if row.ours}
        for cell in own:
            theirs = published.get((names.get(cell["variant"]), cell["column"]))
            if theirs is None or cell["kind"] not in ("trained", "component"):
                continue
            ends = [float(cell[end]) for end in ("low", "high") if cell[end]]
            entry = cell | {
                "table": f"{table.paper}, {table.title.partition(':')[0]}",
                "higher": cell["higher_is_better"] == "True",
                "ours": cell["printed"],
                "interval": interval(cell),
                "published": theirs["printed"],
                "verdict": cell.get("verdict", ""),
                "reason": cell.get("reason", ""),
                "read": how_read(theirs["marks"].split()),
                "inside": ends[0] <= float(theirs["value"]) <= ends[1] if len(ends) == 2 else None,
            }
            found.setdefault((cell["variant"], cell["column"], theirs["value"]), entry)
    return list(found.values())


def different(trained: dict[str, dict]) -> dict[str, str]:
    """In which settings training differed from the papers', and for which of the variants: "all" or their names.

    trained: `costs.training` of each trained variant.
    """
    found = {}
    for what in dict.fromkeys(what for one in trained.values() for what in one):
        own = [variant for variant, one in trained.items() if what in one and one[what]["differs"]]
        if own:
            found[what] = "all" if len(own) == len(trained) else listed(own)
    return found


def of_dataset(
    cells: list[dict[str, str]],
    scores: list[dict[str, str]],
    differences: list[dict[str, str]],
    unranked: list[str],
) -> dict:
    """What ran, which method leads, and whether by more than chance.

    cells: of the leaderboard.  scores, differences: rows of the tables' csv of this data set.  unranked: variants that
    see the true target's parsing.
    """
    ranked = ranking(cells, unranked)
    partial = [
        c["row"] for c in cells if ranked and 0 < pairs_of(c) < pairs_of(ranked[0]) and c["variant"] not in unranked
    ]
    return {
        "ran": _ran(cells, scores),
        "column": cells[0]["column"],
        "higher": cells[0]["higher_is_better"] == "True",
        "ranked": [cell | {"interval": interval(cell)} for cell in ranked],
        "lead": _lead(ranked) if ranked else None,
        "chance": _chance(ranked, differences) if len(ranked) > 1 else None,
        "floors": _floors(cells, differences),
        "partial": listed(partial),
        "told": listed(list(dict.fromkeys(cell["row"] for cell in cells if cell["variant"] in unranked))),
    }
