"""The variants that are not trained: their one checkpoint, of step 0."""

from collections.abc import Callable, Iterable, Iterator

import torch

from models.variants import Variant
from pipeline.core import console, layout, resume, store
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints, pair_lists, pixels, prepared, stored_images
from pipeline.training import fit, loop
from pipeline.training.meta import Meta


def _counted(
    batches: Iterable[tuple[list[str], torch.Tensor]], advance: Callable[[int], None]
) -> Iterator[torch.Tensor]:
    """The images of `stored_images.stream` as a network takes them; `advance` counts those that it has taken."""
    for names, images in batches:
        yield pixels.as_floats(images)
        advance(len(names))


def make(dataset: str, variant: Variant, family: str, settings: dict) -> None:
    """Publish step 0 of a floor; a generator with `fit` sees every image of the training pairs once."""
    size = store.read_table(layout.images(dataset), columns=["height", "width"]).slice(0, 1).to_pylist()
    if not size:
        raise UserError(f"{layout.images(dataset)}: holds no image; see {layout.rejects(dataset)}")
    height, width = size[0]["height"], size[0]["width"]
    network = variant.build(height, width, 1.0)
    if hasattr(network, "fit"):
        ids = pair_lists.image_ids(pair_lists.read(dataset, "train"))
        with console.progress(f"fit {dataset} {variant.name}", len(ids)) as advance:
            network.fit(_counted(stored_images.stream(dataset, ids), advance))
    work = layout.work("train", dataset, variant.name)
    checkpoints.save(work, 0, network)
    meta = Meta("variant", variant.name, dataset, height, width, settings, family, marks=prepared.marks(dataset))
    fit.publish(dataset, variant.name, loop.Trained(work, [0], network), meta)
    resume.finished(resume.Place(work))
