"""A method's row as lines of text: what `score` says when it is done."""

from pathlib import Path

from pipeline.core import params
from pipeline.tables.inputs import choose, read_scores
from pipeline.tables.papers import COLUMNS, in_column_order

DECIMALS = {metric: column.decimals for column in COLUMNS.values() for metric in column.metrics}


def lines(path: Path) -> list[str]:
    """Of a scores.parquet: the test scores of the checkpoint that the tables take, each with its interval, protocol and
    marks. Raises what `read_scores` does.
    """
    scores = read_scores(path)
    by = params.load()["tables"]["choose_by"]
    chosen = choose(scores, by["metric"].upper(), by["split"])  # None of images from elsewhere, which have no val
    step = scores["step"].iloc[-1] if chosen is None else chosen["step"]
    own = scores[(scores["step"] == step) & (scores["split"] == "test") & scores["value"].notna()]
    found = own.set_index("metric").to_dict("index")
    if not found:
        return []
    shared = set.intersection(*(set(score["marks"].split()) for score in found.values()))
    first = next(iter(found.values()))
    count, of = scores["step"].nunique(), f", step {step}" if step else ""  # a floor is of no step
    if chosen is not None and count > 1:
        of += f", of {count} checkpoints the best by {chosen['metric']} on {by['split']}"
    marks = f"; all marked {' '.join(sorted(shared))}" if shared else ""
    said = [f"scores of {first['variant']} on {first['dataset']}{of if chosen is not None else ''}{marks}"]
    for metric in in_column_order(found):
        score, digits = found[metric], DECIMALS.get(metric, 3)
        low, high = score["low"], score["high"]
        interval = f"[{low:.{digits}f}, {high:.{digits}f}]" if low == low and high == high else ""
        own_marks = " ".join(sorted(set(score["marks"].split()) - shared))
        arrow = "↑" if score["higher_is_better"] else "↓"
        value = f"  {metric} {arrow}".ljust(26) + f"{score['value']:.{digits}f}".rjust(9) + f"  {interval}".ljust(22)
        said.append(f"{value} {score['n']} pairs, {score['protocol']}{f'; {own_marks}' if own_marks else ''}")
    return said
