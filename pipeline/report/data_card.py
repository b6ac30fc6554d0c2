"""A prepared data set's card: where it comes from, whose it is, what is in it and what is wrong with it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from pipeline.core import foreign, layout, store
from pipeline.datasets import About
from pipeline.report import croissant, prepared

# Values of `keypoints.D.source` and `parsing.D.source`, in words.
JOINTS = {
    "annotations": "as published; nothing was detected here",
    "files": "lists or OpenPose files that the user brought",
    "openpose": "detected here by Lightweight OpenPose",
    "topdown": "detected here by a top-down network of the user's",
    "oracle": "the renderer's own, exact",
}
PARSING = {
    "repose": "made here by the parser in the box (pipeline/extraction/repose_parser/MODEL_CARD.md)",
    "schp": "made here by SCHP",
    "files": "label maps that the user brought",
    "oracle": "the renderer's own, exact",
    "none": "none",
}
LISTED = 20  # names that are listed one by one


def joints_from(dataset: str) -> str:
    """The sources of a data set's joints, in words; "" if it has none."""
    column = store.read_table(layout.keypoints(dataset), columns=["keypoint_source"])["keypoint_source"]
    return "; ".join(JOINTS.get(source, source) for source in sorted(column.unique().to_pylist()))


def gaps(dataset: str, about: About, source: Mapping[str, Any]) -> list[str]:
    """What is known to be wrong or missing, a sentence each: of the data set as such, and of what was prepared here."""
    found = list(about.gaps)
    if "partial" in source:
        found.append("Not the whole data set: images of the published lists are missing (`partial` below).")
    if "own_digests" in source:
        found.append(f"Not the published bytes, by digests of the user's: {', '.join(source['own_digests'])}.")
    if left_out := len(source.get("left_out", ())):
        found.append(f"{left_out:,} files were no usable image and were left out.")
    found += [f"In doubt: {doubt}." for doubt in source.get("doubts", ())]
    if rejected := len(store.read_table(layout.rejects(dataset), columns=["reason"])):
        found.append(f"{rejected:,} images were left out: rejects.parquet says why.")
    scores = pc.list_flatten(
        store.read_table(layout.keypoints(dataset), columns=["keypoint_scores"])["keypoint_scores"]
    )
    if missing := pc.sum(pc.equal(scores, 0)).as_py():
        found.append(f"{missing / len(scores):.1%} of the joints are missing.")
    if prepared.metadata(layout.parsing(dataset), "parsing_source") == "none":
        found.append("There is no human parsing.")
    for path in (layout.keypoints(dataset), layout.parsing(dataset), layout.pairs(dataset)):
        found += [f"Doubtful: {text.rstrip('?')}." for text in prepared.doubts(path)]
    return found


def _front(dataset: str, title: str, about: About) -> Iterator[str]:
    """What Hugging Face reads: `load_dataset("data/D", "images")` finds the shards by it."""
    own = (about.licence or "").startswith("https://www.apache.org/")
    yield from ("---", f"pretty_name: {json.dumps(title)}", f"license: {'apache-2.0' if own else 'other'}")
    if about.licence and not own:
        yield f"license_link: {about.licence}"
    yield from ("task_categories: [image-to-image]", "configs:")
    for name, (path, _, _) in croissant.tables(dataset).items():
        inside = path.relative_to(layout.data_card(dataset).parent).as_posix()
        yield from (f"- config_name: {name}", f"  data_files: {inside}{'' if path.suffix else '/part-*.parquet'}")
    yield "---"


def _counted(dataset: str) -> Iterator[str]:
    for stage, lines in prepared.lines(dataset).items():
        if not lines:  # nothing was searched or made
            continue
        yield from ("", f"### {prepared.STAGES[stage].title}", "", "| | |", "|---|---|")
        yield from (f"| {foreign.in_markdown(line.what)} | {foreign.in_markdown(line.text)} |" for line in lines)


def _origin(source: Mapping[str, Any]) -> str:
    """source.json, without long lists of single files."""
    short = {key: dict(list(value.items())[:LISTED]) if key == "left_out" else value for key, value in source.items()}
    return json.dumps(short, indent=1, sort_keys=True, ensure_ascii=False)


def write(
    dataset: str, title: str, about: About, source: Mapping[str, Any], known: list[str], digests: dict[Path, str]
) -> str:
    """The card as Markdown. source: source.json; known: `gaps`; digests: SHA-256 of every file, by path."""
    joints, parsing = joints_from(dataset), prepared.metadata(layout.parsing(dataset), "parsing_source")
    root = layout.data_card(dataset).parent
    lines = [
        *_front(dataset, title, about),
        f"# {title}",
        "",
        about.description,
        "",
        "Prepared by Repose for pose-guided person image generation. `croissant.json` says the same to",
        "loaders, and docs/shards.md of the project explains every column.",
        "",
        "## Origin",
        "",
        *([f"- by {', '.join(about.creators)}{f', {about.year}' if about.year else ''}"] if about.creators else []),
        *([f"- {about.url}"] if about.url else []),
        *([f"- cite as: `{about.citation}`"] if about.citation else []),
        "",
        "What the images were made from, as the stage `fetch` recorded it:",
        "",
        "```json",
        _origin(source),
        "```",
        "",
        "## Licence",
        "",
        f"{source['terms'][:1].upper()}{source['terms'][1:]}.{f' See {about.licence}.' if about.licence else ''}",
        "",
        "## How it was prepared",
        "",
        "- Images are the bytes as received, or PNGs where the data set's form crops or resizes them.",
        f"- Joints: {joints}.",
        f"- Human parsing: {PARSING.get(parsing, parsing)}.",
        "- Pairs: all ordered pairs of a person's images with both shoulders and both hips, or the published list;",
        "  `val` is cut from the training people.",
        "",
        "## Counts and splits",
        *_counted(dataset),
        "",
        "## Known gaps",
        "",
        *(f"- {foreign.in_markdown(gap)}" for gap in known),
        "",
        "## Digests (SHA-256)",
        "",
        "| file | digest |",
        "|---|---|",
        *(f"| {path.relative_to(root)} | `{digest}` |" for path, digest in digests.items()),
        "",
    ]
    return "\n".join(lines)
