"""The answers at the top of a page, in sentences made from the tables: which method is best, whether that is more than
chance, whether it matches the papers, what was different, what it cost.
"""

from pipeline.datasets import title as dataset_title
from pipeline.report import costs
from pipeline.tables import papers
from pipeline.tables.papers import FLOORS

SHOWN = 4  # names that are listed before "and N more"


def listed(names: list[str], limit: int = SHOWN) -> str:
    """ "a", "a and b", "a, b and c", "a, b, c, d and 3 more"."""
    if len(names) > limit + 1:
        names = [*names[:limit], f"{len(names) - limit} more"]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else ""


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _signed(value: float, decimals: int) -> str:
    return f"{value:+.{decimals}f}".replace("-", "−")


def _ranked(cells: list[dict[str, str]], column: str, unranked: list[str]) -> list[dict[str, str]]:
    """The cells of a leaderboard's column that have a rank, the best first."""
    own = [c for c in cells if c["column"] == column and c["value"] and c["variant"] not in unranked]
    sign = -1 if own and own[0]["higher_is_better"] == "True" else 1
    return sorted(own, key=lambda cell: sign * float(cell["value"]))


def _ran(dataset: str, cells: list[dict[str, str]], scores: list[dict[str, str]], counts: dict[str, int]) -> str:
    kinds = {cell["variant"]: cell["kind"] for cell in cells}
    parts = [
        counted(sum(kind == wanted for kind in kinds.values()), noun)
        for wanted, noun in (("trained", "trained method"), ("outside", "outside method"), ("floor", "floor"))
        if wanted in kinds.values()
    ]
    pairs = {}
    for row in scores:
        seen = int(row["n"] or 0) + int(row["excluded"] or 0)
        pairs[row["split"]] = max(seen, pairs.get(row["split"], 0))
    text = f"{listed(parts)} on {dataset_title(dataset)}, scored on {counted(pairs.get('test', 0), 'test pair')}"
    if "val" in pairs:
        text += f"; each method's checkpoint was chosen on {counted(pairs['val'], 'other pair')}"
    if counts:
        text += f". The data set has {listed([f'{count:,} {split} images' for split, count in counts.items()])}"
    return text + "."


def _interval(cell: dict[str, str]) -> str:
    decimals = len(cell["printed"].partition(".")[2])
    if not (cell["low"] and cell["high"]):
        return ""
    return f", 95 % interval {float(cell['low']):.{decimals}f} to {float(cell['high']):.{decimals}f}"


def _best(cells: list[dict[str, str]], unranked: list[str]) -> str:
    column = cells[0]["column"]
    ranked = _ranked(cells, column, unranked)
    if not ranked:
        return f"No method has {column}."
    first, decimals = ranked[0], len(ranked[0]["printed"].partition(".")[2])
    arrow = "higher" if first["higher_is_better"] == "True" else "lower"
    text = f"{first['row']} is best by {column} ({arrow} is better): {first['printed']}{_interval(first)}"
    if len(ranked) > 1:
        apart = abs(float(first["value"]) - float(ranked[1]["value"]))
        ahead = f"It is {apart:.{decimals}f} ahead of" if apart else "Exactly equal is"
        text += f". {ahead} the next, {ranked[1]['row']} ({ranked[1]['printed']})"
    text += "."
    if first["kind"] == "floor":
        trained = [cell for cell in ranked if cell["kind"] != "floor"]
        text += " That is a floor, not a method: nothing trained here beats it"
        text += f"; the best that was trained is {trained[0]['row']} ({trained[0]['printed']})." if trained else "."
    winners: dict[str, list[str]] = {}
    for other in dict.fromkeys(cell["column"] for cell in cells if cell["column"] != column):
        if found := _ranked(cells, other, unranked):
            winners.setdefault(found[0]["row"], []).append(other)
    told = list(dict.fromkeys(cell["row"] for cell in cells if cell["variant"] in unranked))
    if told:
        text += f" Not ranked, since they are given the target's parsing: {listed(told)}."
    same = winners.pop(first["row"], [])
    if same:
        text += f" It is also first by {listed(same, 9)}."
    if winners:
        text += (
            " By other metrics others lead: "
            + "; ".join(f"{row} by {listed(columns, 9)}" for row, columns in winners.items())
            + "."
        )
    return text


def _told_apart(cells: list[dict[str, str]], differences: list[dict[str, str]], unranked: list[str]) -> str:
    column = cells[0]["column"]
    ranked = _ranked(cells, column, unranked)
    if len(ranked) < 2:
        return "There is nothing to compare: one method has a rank."
    first, names = ranked[0], {cell["variant"]: cell["row"] for cell in ranked}
    decimals = len(first["printed"].partition(".")[2])
    own = {}
    for line in differences:
        if line["metric"] == first["metric"] and first["variant"] in (line["one"], line["other"]):
            swapped = line["other"] == first["variant"]
            other = line["one"] if swapped else line["other"]
            ends = [float(line[key]) * (-1 if swapped else 1) for key in ("difference", "low", "high")]
            own[other] = (line["verdict"], ends[0], *sorted(ends[1:]), line["n"])
    own = {other: own[other] for other in names if other in own}
    if not own:
        return "Not known: no other method was scored on the same pairs by this metric."
    n = next(iter(own.values()))[4]
    ties = [other for other, line in own.items() if line[0] == "tie"]
    apart = [names[other] for other in own if other not in ties]
    text = f"A paired bootstrap over the same {counted(int(n), 'test pair')}: "
    if ties:
        _, middle, low, high, _ = own[ties[0]]
        text += f"{first['row']} is not told apart from {listed([names[other] for other in ties])}: a tie "
        text += f"(the difference to {names[ties[0]]} is {_signed(middle, decimals)}, its interval "
        text += f"{_signed(low, decimals)} to {_signed(high, decimals)}). "
        text += f"It is told apart from {listed(apart)}." if apart else "It is told apart from none."
    else:
        nearest = next(iter(own))
        _, middle, low, high, _ = own[nearest]
        text += f"yes. {first['row']} is told apart from every other method; the nearest, {names[nearest]}, differs by "
        text += f"{_signed(middle, decimals)} (interval {_signed(low, decimals)} to {_signed(high, decimals)})."
    return text + " Intervals are over test pairs; another training run may land elsewhere."


def _beats_floors(cells: list[dict[str, str]], differences: list[dict[str, str]]) -> str:
    """Which trained methods a paired bootstrap tells from both floors, by the first column."""
    column = cells[0]["column"]
    own = {cell["variant"]: cell for cell in cells if cell["column"] == column and cell["value"]}
    floors = [variant for variant in own if own[variant]["kind"] == "floor"]
    trained = [variant for variant in own if own[variant]["kind"] != "floor"]
    if not floors or not trained:
        return ""
    metric = own[trained[0]]["metric"]
    wins = {
        (line["verdict"], line["one"] if line["verdict"] == line["other"] else line["other"])
        for line in differences
        if line["metric"] == metric and line["verdict"] != "tie"
    }
    above = [own[variant]["row"] for variant in trained if all((variant, floor) in wins for floor in floors)]
    below = [own[variant]["row"] for variant in trained if own[variant]["row"] not in above]
    what = listed([FLOORS.get(floor, floor).lower() for floor in floors])
    if not above:
        return f"By {column}, no trained method beats the floors ({what}) by more than chance."
    verb = "beats" if len(above) == 1 else "beat"
    text = f"By {column}, {listed(above, 8)} {verb} the floors ({what}) by more than chance"
    return text + (f"; {listed(below, 8)} {'does' if len(below) == 1 else 'do'} not." if below else ".")


def matches(dataset: str, cells_of: dict[str, list[dict[str, str]]]) -> list[dict]:
    """Our numbers beside the published ones of the same row, each once: from the papers' tables, in their order."""
    found, seen = [], set()
    for table in papers.TABLES:
        own = [cell for cell in cells_of.get(table.name, []) if cell["dataset"] == dataset and cell["value"]]
        published = {(cell["row"], cell["column"]): cell for cell in own if cell["kind"] == "published"}
        names = {row.ours: row.name for row in table.rows if row.ours}
        for cell in own:
            theirs = published.get((names.get(cell["variant"]), cell["column"])) if cell["kind"] == "trained" else None
            if theirs is None or (cell["variant"], cell["column"], theirs["value"]) in seen:
                continue
            seen.add((cell["variant"], cell["column"], theirs["value"]))
            ends = [float(cell[end]) for end in ("low", "high") if cell[end]]
            inside = ends[0] <= float(theirs["value"]) <= ends[1] if len(ends) == 2 else None
            found.append(
                {
                    "variant": cell["variant"],
                    "table": f"{table.paper}, {table.title.partition(':')[0]}",
                    "column": cell["column"],
                    "metric": cell["metric"],
                    "higher": cell["higher_is_better"] == "True",
                    "ours": cell["printed"],
                    "interval": _interval(cell).removeprefix(", 95 % interval "),
                    "published": theirs["printed"],
                    "verified": not theirs["marks"],
                    "inside": inside,
                    "difference": cell["difference"],
                }
            )
    return found


def _matches_paper(dataset: str, found: list[dict]) -> str:
    if not found:
        return (
            f"There is nothing to match: no paper printed numbers on {dataset_title(dataset)} for what was trained "
            "here. Published numbers on other data sets are under Downloads."
        )
    inside = [one for one in found if one["inside"]]
    equal = [one for one in found if one["difference"]]
    text = f"{len(inside)} of {len(found)} published numbers lie inside our 95 % interval. "
    if not equal:
        return text + (
            "None can be called a match or a miss: no paper's scoring protocol is known to equal ours, and the table "
            "below sets them side by side for orientation only. Each paper table's notes say what is known to differ."
        )
    return text + f"{len(equal)} were scored by a protocol known to equal ours; their difference is printed."


def _different(trained: dict[str, dict]) -> str:
    """Across the trained variants: in what their training differed from the paper's."""
    parts, count = [], len(trained)
    for what in ("steps", "batch", "learning rate", "width", "loss features"):
        own = {variant: one[what] for variant, one in trained.items() if what in one and one[what]["differs"]}
        if not own:
            continue
        who = "all" if len(own) == count else listed(list(own))
        if what == "steps":
            shares = [
                float(one["ours"].replace(",", "")) / float(one["paper"].replace(",", "")) for one in own.values()
            ]
            ends = [f"{100 * share:.2g} %" for share in (min(shares), max(shares))]
            parts.append(f"fewer steps, {ends[0] if ends[0] == ends[1] else ' to '.join(ends)} of the schedule ({who})")
        elif what == "width":
            widths = sorted({one["ours"] for one in own.values()}, key=float)
            parts.append(f"networks {' or '.join(widths)} times as wide ({who})")
        elif what == "loss features":
            parts.append(f"training losses on other features than VGG19's ({who})")
        else:
            parts.append(f"another {what} ({who})")
    if not trained:
        return "Nothing was trained."
    if not parts:
        return (
            "Of the training settings, nothing: steps, batch, learning rate, width and loss features are the papers'."
        )
    return (
        f"Of {counted(count, 'trained method')}: " + "; ".join(parts) + ". Each method's settings stand under What ran."
    )


def _cost(cells: list[dict[str, str]], rows: list[dict], unranked: list[str]) -> str:
    rows = {row["variant"]: row for row in rows}
    ranked = [cell for cell in _ranked(cells, cells[0]["column"], unranked) if cell["kind"] == "trained"]
    if not ranked:
        return "Nothing was trained."
    best = rows[ranked[0]["variant"]]
    text = (
        f"{ranked[0]['row']} has {best['parameters_text']} parameters and needs {best['macs_text']} "
        f"multiply-accumulates for one picture of {best['size']}; a checkpoint is {best['bytes_text']}."
    )
    own = [rows[cell["variant"]] for cell in ranked]
    if len(own) > 1:
        ends = {
            what: [costs.short(end(row[what] for row in own)) for end in (min, max)] for what in ("parameters", "macs")
        }
        text += " The trained methods range from {} to {} parameters".format(*ends["parameters"])
        text += " and from {} to {} multiply-accumulates.".format(*ends["macs"])
    return text


def answers(
    dataset: str,
    cells_of: dict[str, list[dict[str, str]]],
    scores: list[dict[str, str]],
    differences: list[dict[str, str]],
    networks: dict[str, dict],
    unranked: list[str],
    counts: dict[str, int],
) -> dict:
    """Questions and answers on one data set, and the published numbers beside ours.

    cells_of: rows of the tables' csv, by name.  scores, differences: of this data set.  networks: network.json of each
    variant.  unranked: variants that are given the true target's parsing.  counts: images by split.
    """
    cells = cells_of[f"leaderboard_{dataset}"]
    found = matches(dataset, cells_of)
    trained = {variant: costs.training(network) for variant, network in networks.items()}
    significant = [_told_apart(cells, differences, unranked), _beats_floors(cells, differences)]
    return {
        "name": dataset,
        "title": dataset_title(dataset),
        "answers": [
            ("What ran?", _ran(dataset, cells, scores, counts)),
            ("Which method is best, and by how much?", _best(cells, unranked)),
            ("Is that more than chance?", " ".join(filter(None, significant))),
            ("Does it match the papers?", _matches_paper(dataset, found)),
            ("What was different from the papers?", _different({v: one for v, one in trained.items() if one})),
            ("What did it cost?", _cost(cells, costs.rows(dataset, networks), unranked)),
        ],
        "matches": found,
    }
