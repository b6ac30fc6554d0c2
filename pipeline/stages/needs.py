"""Note what the variants and metrics in params.yaml need of what takes long: data/D/needs/NAME.json, true or false.

A file for each component (a network that variants start from) and one for the human parsing of the images. `pretrain`
trains, `pseudo_labels` searches and `parsing` runs a network only where it is true. Each file changes only if its own
answer does: a further variant makes what it needs, and nothing that was made is made again.

Reads   `variants`, `named`, `components` and `reference.D.metrics` in params.yaml; what each of them needs stands in
        params.schema.yaml
Writes  data/D/needs/
"""

from pipeline.core import console, layout, needs, params
from pipeline.core.atomic import atomic_file


def run(dataset: str) -> None:
    wanted = needs.wanted(params.load(), dataset)
    for name, is_wanted in wanted.items():
        with atomic_file(layout.needs(dataset, name)) as partial:
            partial.write_text(needs.text(is_wanted), encoding="utf-8")
    listed = ", ".join(name for name, is_wanted in wanted.items() if is_wanted)
    console.say(f"needs {dataset}: {listed or 'nothing that takes long'}")
