"""Write the papers' tables: published numbers, and this run's beside them.

reads   reports/scores/D/V/{scores,pairs}.parquet and network.json of every data set and variant in params.yaml,
        reports/scores/D/reference.json and controls/, reports/outside/ (methods from elsewhere), reports/studies/
        (user studies), reports/published.csv, reports/calibrated.csv
writes  reports/tables/: each as .csv (one value a row) and .md, those of methods in rows as .tex, and notes.csv and
        legend.csv
          the papers' tables   as pipeline/tables/papers.py defines them, in the papers' order of rows and columns:
                               spig_table1, _table2, _table3; spgnet_table_a, _table1, _parsing; spt_table1,
                               _training, _losses; sgw_gan_table1, _ablation, _amt; pidm_figure5
          later_HEIGHTxWIDTH   the methods since 2020 on DeepFashion at one size, each with the protocol of its
                               numbers, and all of this run in that form; ranks are among equal protocols alone
          leaderboard_D        every method that was scored on the data set D, by our protocols
          published_D          every published number on it that has a column here, folded below the leaderboard's .md
          all_scores           every checkpoint, split and metric
          differences          every two methods of this run on the same test pairs: paired bootstrap, and which are
                               ties
          verdicts             every number of ours beside the published one of the same row: reproduced, better,
                               worse or not comparable, and why (.csv alone)
          controls             which metric notices which damage: the controls of `reference` against the true target;
                               outside_controls.csv: methods that score better than that, or worse than shuffled targets
          agreement            how well each metric orders the methods of a user study as its raters do
          missing              what there is no number of, and why
        reports/metrics/D/V.json: the chosen checkpoint's test scores, for `dvc metrics`
        reports/curves/D/SPLIT/METRIC.csv: that score of every checkpoint, for `dvc plots`

What is not scored yet, or was scored by another reference than the data set has now (other images, joints, pairs,
limits, metrics or networks), is left out, and said with the command that renews it. A method from elsewhere is a row of
every paper's table that has its data set and a metric of its own.

Runs of one variant from several seeds (spig, spig-seed1, ...) share a row: the first seed's number and interval, then
mean ± sample standard deviation over the seeds. One checkpoint stands for a run: the best by `tables.choose_by` on the
val split, never on test; each table says which. Two numbers that a paired bootstrap over the test pairs
(`tables.bootstrap` resamples) does not tell apart are a tie, and so are two that several seeds do not: the best of
this run's rows and those tied with it carry ≈. A number that differs from the paper's set-up carries a mark, explained
under its table. A difference to a published value is printed only where both protocols are known to be equal
(`EQUAL_PROTOCOLS` in pipeline/tables/papers.py), and whether ours reproduces it only where a recipe that gives its
authors' images their number shows that they are (`repose calibrate`; docs/protocols.md, Verdicts). A published number
that was not read in the paper that made it is marked, ” where another one quotes it, ? where it was not checked; what
another paper prints for its cell stands below.

To see your own published numbers here, add rows to reports/published.csv: with their source, and verified = yes
only if you read the value in the paper, second-hand if another paper quotes it.
"""

from dataclasses import dataclass
from typing import Literal, TypedDict

from pipeline.core import layout, params
from pipeline.core.atomic import atomic_directory
from pipeline.core.console import say
from pipeline.core.settings import RESAMPLES, SEED, setting
from pipeline.tables import controls, files, for_dvc, papers
from pipeline.tables.cells import leaderboard, paper_table, published_numbers, with_places
from pipeline.tables.inputs import by_variant, not_scored, outdated, read_published, read_runs
from pipeline.tables.notes import leaderboard_notes, notes, published_notes
from pipeline.tables.paired import compared
from pipeline.tables.studies import compared as compared_by_people
from pipeline.tables.studies import read_studies
from pipeline.tables.verdicts import read_calibrated


class ChooseBy(TypedDict):
    metric: Literal["lpips", "ssim", "psnr"]
    split: Literal["val"]


@dataclass(frozen=True)
class Params:
    choose_by: ChooseBy = setting("what the checkpoint that stands for a variant is the best by: on val, never on test")
    bootstrap: int = setting("resamples of the comparison between every two methods", 2000, **RESAMPLES)
    seed: int = setting("of these resamples", 0, **SEED)


def run() -> None:
    block = params.block(Params, "tables")
    published = read_published()
    every = read_runs(block.choose_by)
    runs = by_variant(every)
    found, studies = compared(runs, block.bootstrap, block.seed), read_studies()
    ranked_by = [*found, *compared_by_people(studies)]
    told = {
        key for key, run in runs.items() if run.given_target_parsing
    }  # the true target's parsing: shown, not ranked
    titles, tables, calibrated = papers.titles(params.datasets()), {}, read_calibrated()
    for dataset in params.datasets():
        theirs = published_numbers(dataset, published)
        folded = files.Table("Published numbers", theirs, published_notes(dataset, theirs))
        name, cells = f"leaderboard_{dataset}", with_places(leaderboard(dataset, runs), found, runs, told)
        tables[name] = files.Table(
            titles[name], cells, leaderboard_notes(dataset, cells, runs), folded if theirs else None
        )
        tables[papers.published(dataset)] = folded
    for table in papers.TABLES:
        cells = with_places(paper_table(table, published, runs, studies, calibrated), ranked_by, runs)
        tables[table.name] = files.Table(titles[table.name], cells, notes(table, cells, runs, studies))
    of_controls = controls.made(runs, studies, block.bootstrap, block.seed)
    with atomic_directory(layout.TABLES) as folder:
        files.write(folder, tables, every, found, {controls.NAME: of_controls.notes})
        controls.write(folder, of_controls)
    for_dvc.write_metrics(layout.METRICS, every)
    for_dvc.write_curves(layout.CURVES, every)
    for run in every.values():
        say(f"{run.dataset}/{run.name}: step {run.chosen['step']} of {run.checkpoints} checkpoints")
    for dataset, variant in not_scored():
        say(f"{dataset}/{variant}: not scored yet, left out")
    for (dataset, name), renew in outdated().items():
        say(f"{dataset}/{name}: scored by another reference than data/{dataset}/reference, left out; {renew}")
    say(f"{layout.TABLES}: {', '.join([*tables, 'all_scores', 'differences', controls.NAME])}")
