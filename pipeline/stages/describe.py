"""Say what a prepared data set is: a card for people, and Croissant for the tools that load it.

reads   data/D/raw/source.json, and all that the stages of the data stored: images, rejects, joints, parsing, pairs,
        pseudo labels, distance maps
writes  data/D/README.md: the data card, with origin, licence, counts, splits, where joints and parsing come from, known
        gaps, and the digest of every file; Hugging Face's `load_dataset("data/D", "images")` reads its first lines
        data/D/croissant.json: the same files and their columns in the form of MLCommons Croissant 1.1

Who made a data set, and on which terms, is known of the published ones; of your own images say it in the block
`describe.folder` of params.yaml. Both files are written from what is stored: neither asks the network for anything.
"""

import json
from dataclasses import dataclass, replace

from pipeline import datasets
from pipeline.core import citations, layout, params, seals
from pipeline.core.atomic import atomic_file
from pipeline.core.console import say
from pipeline.core.digests import sha256
from pipeline.core.errors import UserError
from pipeline.core.settings import setting
from pipeline.report import croissant, data_card


@dataclass(frozen=True)
class Params:
    title: str | None = setting("of the data set; null: its own", None, minLength=1)
    creator: str | None = setting("who made it; null: as published", None, minLength=1)
    licence: str | None = setting("the address of its licence or terms; null: as published", None, pattern="^https?://")
    url: str | None = setting("where it is described; null: as published", None, pattern="^https?://")


def run(dataset: str) -> None:
    """Raises UserError if a stage of the data has not run, or left something damaged."""
    block = params.block(Params, "describe", dataset)
    about = datasets.get(dataset).ABOUT
    about = replace(
        about,
        creators=(block.creator,) if block.creator else about.creators,
        licence=block.licence or about.licence,
        url=block.url or about.url,
        citation=" ".join(citations.bibtex(about.citation).split()) if about.citation else None,
    )
    title = block.title or datasets.title(dataset)
    path = layout.raw(dataset) / "source.json"
    try:
        source = seals.read_json(path)
    except (FileNotFoundError, ValueError):
        raise UserError(f"{path}: not there, or damaged; run fetch again") from None
    tables = croissant.tables(dataset)
    digests = {file: sha256(file) for path, _, _ in tables.values() for file in croissant.files(path)}
    gaps = data_card.gaps(dataset, about, source)
    described = croissant.describe(dataset, title, about, source["terms"], gaps, digests)
    with atomic_file(layout.croissant(dataset)) as partial:
        partial.write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with atomic_file(layout.data_card(dataset)) as partial:
        partial.write_text(data_card.write(dataset, title, about, source, gaps, digests), encoding="utf-8")
    say(f"{layout.data_card(dataset)}, {layout.croissant(dataset)}: {', '.join(tables)}; {len(gaps)} known gaps")
