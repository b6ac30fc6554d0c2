"""Note what params.yaml comes to for a data set: its settings, and what of what takes long is needed.

data/D/settings.yaml holds a block for each stage, and digests of the code that makes the data set (`code`). The block
of a form, such as deepfashion-resize176, is its parent's with what its own says instead. DVC reads this file where a
stage's settings decide: it would not find a block of params.yaml that is not written out.

data/D/needs/NAME.json is true or false, a file for each component (a network that variants start from) and one for the
human parsing of the images. `pretrain` trains, `pseudo_labels` searches and `parsing` runs a network only where it is
true. Each file changes only if its own answer does: a further variant makes what it needs, and nothing that was made is
made again.

data/D/parts/STAGE/number.json says over how many jobs a long data stage is spread (`parts` of params.yaml), 0 if it
does all by itself; what these make lies beside it.

Reads   params.yaml; what each variant and metric needs stands in params.schema.yaml
Writes  data/D/settings.yaml, data/D/needs/, data/D/parts/STAGE/number.json
"""

import yaml

from pipeline.core import console, digests, graph, layout, needs, params, seals
from pipeline.core.atomic import atomic_file


def settings(dataset: str) -> dict:
    """What is written to settings.yaml: the data set's block of each stage, and digests of its code."""
    blocks = {stage: block[dataset] for stage, block in params.load().items() if stage not in params.SHARED}
    return blocks | {graph.CODE_KEY: digests.code(graph.code_of_data_set(dataset))}


def run(dataset: str) -> None:
    with atomic_file(layout.settings(dataset)) as partial:
        partial.write_text(yaml.safe_dump(settings(dataset)), encoding="utf-8")
    wanted = needs.wanted(params.load(), dataset)
    for name, is_wanted in wanted.items():
        with atomic_file(layout.needs(dataset, name)) as partial:
            partial.write_text(needs.text(is_wanted), encoding="utf-8")
    for stage in layout.SPREAD:
        for rule in [[name] for name in layout.RULES] if stage == "pseudo_labels" else [[]]:
            with atomic_file(layout.parts(stage, dataset, *rule) / "number.json") as partial:
                partial.write_text(seals.json_text({"parts": len(params.load()["parts"])}), encoding="utf-8")
    listed = ", ".join(name for name, is_wanted in wanted.items() if is_wanted)
    console.say(f"needs {dataset}: {listed or 'nothing that takes long'}")
