"""Write the report: one HTML file that needs no other file and no network.

reads   reports/tables/*.csv, reports/scores/D/V/{scores,pairs,samples,figures}.parquet and network.json,
        reports/published.csv, docs/protocols.md, params.yaml, data/D/ and data/weights/ (what `inspect` counts, two
        examples, digests), reports/template.html.j2 and reports/template/
writes  reports/html/index.html, and reports/html/pictures/: pictures that the page links
        reports/html/times.html, which no stage declares: how long each stage took

It opens with the first test pairs as every method draws them, above the leaderboard. What a mark stands for appears
where it is pointed at, has the focus or is tapped, and in one list near the end. What is not scored yet is left out.
Open the file in a browser, mail it, or print it: charts, tables and drawn pictures are inside, and every table can be
sorted and saved as csv. Equal inputs and library versions, at one revision, give equal bytes.

Durations differ from run to run, so they go to a page of their own: index.html must come out the same, byte for byte,
whichever engine writes it. They are read from logs/, which is no declared input: a new log alone does not run the
report again.

Photographs of real data sets, and what was generated from them, are for research: `report.photographs` in params.yaml
says whether they go into the page (embed), into the folder pictures/ beside it (link: pass the page on without the
folder), or nowhere (none). A page holds up to 8 MiB of pictures (`EMBEDDED` in pipeline/report/album.py), each once
however often it is shown; the rest goes to the folder, too, and the page says so.

To change the look, edit the templates; to change what is counted or chosen, see the stage `tables`.
"""

from dataclasses import dataclass
from typing import Literal

from pipeline.core import layout, params
from pipeline.core.atomic import atomic_directory, atomic_file
from pipeline.core.console import say
from pipeline.core.settings import setting
from pipeline.report import page, times


@dataclass(frozen=True)
class Params:
    title: str = setting("heading of the page", "Repose", minLength=1)
    grid_rows: int = setting("rows of the grid that shows all variants side by side", 6, minimum=1, maximum=20)
    photographs: Literal["embed", "link", "none"] = setting(
        "pictures of real people: in the page, in a folder beside it, or left out", "link"
    )


def run() -> None:
    block = params.block(Params, "report")
    text, album = page.write(block.title, block.grid_rows, block.photographs)
    with atomic_directory(layout.REPORT_PICTURES, listed=False) as partial:
        for name, content in album.beside.items():
            (partial / name).write_bytes(content)
    with atomic_file(layout.REPORT) as partial:
        partial.write_text(text, encoding="utf-8")
    with atomic_file(layout.REPORT_TIMES) as partial:
        partial.write_text(times.page(block.title, params.datasets()), encoding="utf-8")
    beside = f", {len(album.beside)} pictures beside it in {layout.REPORT_PICTURES}" if album.beside else ", one file"
    say(f"{layout.REPORT}: {len(text.encode()) / 1024:.0f} KiB{beside}; open it in a browser")
