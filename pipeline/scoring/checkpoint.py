"""Score one checkpoint of a variant: its generator's images of every pair, judged, and pictures of a few."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from models.variants import VARIANTS, Batch
from pipeline.core import layout, params, schema, store
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints
from pipeline.loading.arrays import PairData
from pipeline.loading.parallel import Group, alone
from pipeline.loading.pixels import as_bytes
from pipeline.metrics.networks import in_batches
from pipeline.scoring import judge, samples
from pipeline.scoring.pairs import Split
from pipeline.scoring.protocol import Protocol


class Scored(NamedTuple):
    scores: list[dict]  # of schema.SCORES
    pairs: list[pa.Table]  # one for each split, of judge.pair_rows
    samples: list[dict]  # of schema.SAMPLES

    def write(self, folder: Path) -> None:
        store.write_table(folder / "scores.parquet", self.scores, schema.SCORES)
        table = pa.concat_tables(self.pairs, promote_options="default")  # val lacks the columns of FID
        store.write_table(folder / "pairs.parquet", table, table.schema)
        store.write_table(folder / "samples.parquet", self.samples, schema.SAMPLES)


def run(
    network: Callable[[Batch], Tensor], batch: int, target_parsing: bool, data: PairData
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield positions of pairs (int64) and what the network gives for them, `batch` pairs at a time.

    target_parsing: it is given the true target's (`Variant.given_target_parsing`). It runs on a fixed number of pairs
    whatever `batch` is, so that no value depends on it.
    """

    def forward(*inputs: Tensor) -> Tensor:
        return network(Batch(target=None, **dict(zip(given, inputs, strict=True))))

    for rows in torch.arange(len(data)).split(batch):
        conditions = vars(data.batch(rows).without_target(target_parsing))
        given = {name: value for name, value in conditions.items() if value is not None}
        yield rows, in_batches(forward, data.device, *given.values())


def require_size(meta: Mapping, described: Mapping, what: str) -> None:
    """Raises UserError if a network was trained for other images than those of the reference."""
    if (meta["height"], meta["width"]) != (described["height"], described["width"]):
        sizes = [f"{size['height']} x {size['width']}" for size in (meta, described)]
        raise UserError(f"{what}: trained for images of {sizes[0]}, the data set has {sizes[1]}; train again")


def generate(
    generator: nn.Module, batch: int, what: str, target_parsing: bool, data: PairData
) -> Iterator[tuple[list[int], np.ndarray]]:
    """As `run`: yield pair ids and generated images (n, H, W, 3) uint8.

    Raises UserError, naming `what`, if the generator returns a value that is not finite.
    """
    for rows, images in run(lambda given: generator(given).image.float(), batch, target_parsing, data):
        if not images.isfinite().all():
            raise UserError(f"{what}: generates values that are not finite; the training diverged, train again")
        yield data.pair_index[rows].tolist(), as_bytes(images).cpu().numpy()


def score(
    dataset: str,
    variant: str,
    step: int,
    splits: Sequence[Split],
    protocol: Protocol,
    batch: int,
    bootstrap: int,
    seed: int,
    first: int | None,
    group: Group | None = None,
) -> Scored:
    """Score a checkpoint on every split. Pictures are kept of its `first` test pairs and of those that it fails on
    most; of none for None. Each process of `group` generates and judges a share of the pairs; the first puts these
    together in the order of the list, so that the numbers are those of one process, and the others return nothing.
    """
    group = group or alone(splits[0].data.device)
    folder = layout.checkpoints(dataset, variant)
    generator, meta = checkpoints.load(folder, step)
    what = str(checkpoints.path(folder, step))
    require_size(meta, protocol.reference.described, what)
    given_parsing = VARIANTS[params.variant_of(variant)].given_target_parsing
    scored = Scored([], [], [])
    for split in splits:
        images = partial(generate, generator.to(split.data.device), batch, what, given_parsing)
        digests: dict[int, str] = {}
        mine = torch.arange(len(split)).tensor_split(group.size)[group.rank].tolist()
        made = judge.noting(images(split.subset(mine).data), digests) if mine else ()
        scores = judge.seen(split, made, protocol, len(mine))
        for share, of_images in group.collect((scores.share(), digests) if group.size > 1 else None)[1:]:
            scores.add(share)
            digests |= of_images
        if group.rank:
            continue
        judge.said(split, scores, protocol)
        values, totals = scores.compute(bootstrap, seed)
        about = (protocol.reference, split.name, step, variant, meta["marks"], bootstrap)
        scored.scores.extend(judge.score_rows(totals, *about))
        scored.pairs.append(judge.pair_rows(split, values, step, digests))
        if split.name == "test" and first is not None:
            # Which pairs are worst is known only now; generating these few again keeps no picture of all the others.
            why = samples.choose(split.data, values, first)
            again = (image for _, some in images(split.subset(list(why)).data) for image in some)
            scored.samples.extend(samples.rows(dataset, split.data, why, again, step))
    return scored
