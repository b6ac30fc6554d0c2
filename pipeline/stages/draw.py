"""Run another program's method on the test pairs: its own code, at its commit, in an environment of its own.

reads   data/D/{images,keypoints.parquet,pairs.parquet}, methods/M: method.yaml and what lies beside it
writes  runs/D/M/images/SOURCE_2_TARGET_vis.png, a picture for each test pair that is scored, the bytes as it wrote them

It is given the sources as PNG and the joints of both; of the targets it is given neither pictures nor names. `score
--images` judges the folder as it does any other's. docs/methods.md has the contract, and `repose check-method M` tries
a method on eight pairs first. What its programs say is in logs/draw/D-M.out.
"""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.anatomy import pose
from pipeline.core import layout, params, store
from pipeline.core.atomic import atomic_directory
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.formats import pair_names, pictures
from pipeline.loading import pair_lists
from pipeline.methods import call, manifest
from pipeline.methods.ready import ready


def _names(pairs: pa.Table) -> list[tuple[str, str]]:
    return list(zip(pairs["source_id"].to_pylist(), pairs["target_id"].to_pylist(), strict=True))


def task(dataset: str, pairs: pa.Table) -> call.Task:
    """What a method is given of the pairs, under names that say nothing."""
    sources, targets = (sorted(set(names)) for names in zip(*_names(pairs), strict=True))
    called = {"s": {one: f"s{number:05d}" for number, one in enumerate(sources)}}
    called["t"] = {one: f"t{number:05d}" for number, one in enumerate(targets)}
    table = store.read_table(layout.keypoints(dataset), columns=["image_id", "keypoints"])
    both = zip(*pose.batch_arrays(table["keypoints"]), strict=True)
    joints = dict(zip(table["image_id"].to_pylist(), both, strict=True))
    sizes = store.read_table(layout.images(dataset), columns=["height", "width"])

    def encoded() -> Iterator[tuple[str, bytes]]:
        for names, data in pictures.encoded(layout.images(dataset), pa.array(sources, pa.string())):
            for name, one in zip(names, data, strict=True):
                yield called["s"][name], pictures.encode_png(pictures.decode_stored(one, name))

    listed = [
        call.Pair(number, called["s"][source], called["t"][target], *joints[source], *joints[target])
        for number, (source, target) in enumerate(_names(pairs))
    ]
    return call.Task(listed, sizes["height"][0].as_py(), sizes["width"][0].as_py(), encoded)


def run(dataset: str, method: str) -> None:
    """Raises UserError if the method cannot be had or run, or does not write a picture of the right size for a pair."""
    what = manifest.read(method)
    pairs = pair_lists.read(dataset, "test", params.load()["reference"][dataset].get("test_pairs"))
    names = pair_names.file_names(_names(pairs))
    given = task(dataset, pairs)
    prepared = ready(what, layout.log("draw", dataset, method).with_suffix(".out"))
    with call.drawn(prepared, given) as folder, atomic_directory(layout.method_images(dataset, method)) as partial:
        written = [call.named(what.names, pair) for pair in given.pairs]
        lacking = [name for name in written if not (folder / name).is_file()]
        if lacking:
            raise UserError(
                f"{method}: {len(lacking)} of {len(written)} pictures are not there, {lacking[0]} the first; "
                f"`repose check-method {method}` says more"
            )
        for name, own in zip(names, written, strict=True):
            png = (folder / own).read_bytes()
            if why := call.unlike(png, given.height, given.width):
                raise UserError(f"{method}: {own}: {why}; `repose check-method {method}` says more")
            (partial / name).write_bytes(png)
    say(f"{layout.method_images(dataset, method)}: {len(names)} pictures by {what.title}")
