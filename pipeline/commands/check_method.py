"""Try whether a method of another program, or a variant of one's own, keeps to the contract: on eight synthetic pairs.

NAME is a folder of methods/ (docs/methods.md says what has to be in it); --variant with --dataset is a trained variant
instead, at the checkpoint that --step names (default: the last). Printed is pass or fail, or that it could not be
judged, for each of
  names        a picture for every pair, under its name, and no other file
  sizes        8-bit RGB, of the size of the source
  determinism  the same pixels when it is run again
  batch        the same picture of a pair whatever other pairs come with it, and in which order
  targets      the target is not looked for: it lies on no disk here, and decoys under its name change nothing
The exit status is 1 if one fails. What the method's programs say is in logs/check_method/NAME.out.

  repose check-method mine
  repose check-method --variant spgnet --dataset synthetic
"""

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.core import layout
from pipeline.core.errors import UserError
from pipeline.methods import call, checks, manifest
from pipeline.methods.ready import ready

if TYPE_CHECKING:
    from pipeline.loading.runs import Trained

WORDS = {True: "pass", False: "FAIL", None: "not judged"}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="a folder of methods/")
    parser.add_argument("--variant", metavar="V", help="a trained variant instead, such as spig")
    parser.add_argument("--dataset", help="the data set that it was trained on")
    parser.add_argument("--step", type=int, metavar="N", help="its checkpoint (default: the last)")


def of_method(name: str) -> list[checks.Verdict]:
    """Raises UserError if the method cannot be had, or draws nothing."""
    method = manifest.read(name)
    prepared = ready(method, layout.log("check_method", name).with_suffix(".out"))
    given = checks.task(checks.synthetic_people(*method.size or checks.SIZE))

    def draw(positions: Sequence[int], bait: bytes | None) -> Mapping[str, bytes]:
        some = replace(given, pairs=[given.pairs[position] for position in positions])
        with call.drawn(prepared, some, bait) as folder:
            files = (file for file in sorted(folder.rglob("*")) if file.is_file())
            return {str(file.relative_to(folder)): file.read_bytes() for file in files}

    names = [call.named(method.names, pair) for pair in given.pairs]
    return list(checks.check(draw, names, given.height, given.width))


def of_variant(trained: "Trained") -> list[checks.Verdict]:
    """Drawn as scoring draws: without the targets' pictures, but where they serve as decoys."""
    import numpy as np
    import torch

    from models.variants import Batch, Output
    from pipeline.formats import pictures
    from pipeline.loading import pixels, runs
    from pipeline.loading.arrays import PairData
    from pipeline.scoring import checkpoint

    people = checks.synthetic_people(trained.height, trained.width)
    given, both = checks.task(people), [one for pair in people for one in pair]
    names = [call.named("{from}_2_{to}", pair) for pair in given.pairs]
    images = torch.tensor(np.stack([one.image for one in both])).permute(0, 3, 1, 2)
    images[1::2] = 0  # the targets
    labels = [runs.in_its_set(trained, one.labels) for one in both] if trained.reads_parsing else None
    joints = np.stack([one for pair in given.pairs for one in (pair.source_joints, pair.target_joints)])
    valid = np.stack([one for pair in given.pairs for one in (pair.source_valid, pair.target_valid)])
    place = trained.device

    def draw(positions: Sequence[int], bait: bytes | None) -> Mapping[str, bytes]:
        noise = None if bait is None else torch.tensor(pictures.decode(bait), device=place).permute(2, 0, 1)

        def generator(batch: Batch) -> Output:
            target = None if noise is None else pixels.as_floats(noise).expand_as(batch.source)
            try:
                return trained.generator(replace(batch, target=target))
            except (AttributeError, TypeError) as error:
                raise UserError(f"{trained.title}: {error}") from error

        data = PairData(
            images.to(place),
            torch.tensor(joints, dtype=torch.float32, device=place),
            torch.tensor(valid, device=place),
            [str(number) for number in range(len(both))],
            place,
            labels=None if labels is None else torch.tensor(np.stack(labels), device=place),
            pairs=torch.tensor([[2 * position, 2 * position + 1] for position in positions]),
            pair_index=torch.tensor(list(positions)),
        )
        found = checkpoint.generate(generator, len(positions), trained.title, trained.reads_target_parsing, data)
        drawn = [(pair, image) for ids, some in found for pair, image in zip(ids, some, strict=True)]
        return {names[pair]: pictures.encode_png(image) for pair, image in drawn}

    verdicts = list(checks.check(draw, names, trained.height, trained.width))
    if trained.reads_target_parsing:
        verdicts[-1] = checks.Verdict("targets", False, "it is given the true target's parsing")
    return verdicts


def run(name: str | None, variant: str | None, dataset: str | None, step: int | None) -> int:
    """Print the verdicts; 1 if one is a fail. Raises UserError if nothing can be drawn."""
    if (name is None) == (variant is None) or (variant is None) != (dataset is None):
        raise UserError("check-method: give a method's NAME, or --variant V --dataset D")
    if name is not None:
        verdicts = of_method(name)
    else:
        from pipeline.loading import runs

        verdicts = of_variant(runs.load_run(layout.checkpoints(dataset, variant).parent, step))
    for check, passed, why in verdicts:
        print(f"{check:<12} {WORDS[passed]}{f': {why}' if why else ''}")
    failed = [check for check, passed, _ in verdicts if not passed]
    print(f"{name or variant}: " + (f"fails {', '.join(failed)}" if failed else f"passes all {len(verdicts)}"))
    return 1 if failed else 0
