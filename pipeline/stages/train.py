"""Train one variant on one data set.

reads   data/D/images/, data/D/keypoints.parquet, data/D/pairs.parquet (split train); the last checkpoint of each
        component that the variant starts from; where feature losses need it data/weights/NET/, where human parsing is
        needed data/D/parsing/, for SPGNet data/D/distance_maps/
writes  runs/D/V/checkpoints/: step-*.safetensors (the generator) and meta.json (how to rebuild it, its settings, and
        `marks`: how they differ from the paper's); the folder appears, whole, when training is finished
        runs/D/V/losses/: the course of the losses in at most 300 points, for `dvc plots`
        logs/train/D-V.jsonl: every loss term of every step; logs/train/D-V/step-*.png: what each checkpoint makes of
        four validation pairs (source, target's pose, target, generated)
        logs/train/D-V.tensorboard/ or D-V.dvclive/: the same losses, where `tracker` says so. Another tracker trains
        nothing again: for Snakemake no job is due; DVC, which compares blocks whole, starts the command, which finds
        all steps done and writes the same bytes

The block `train.D.FAMILY` of params.yaml sets steps, batch, width and the rest; null is the paper's value. Stopped by
Ctrl-C, a signal or a crash, the same command goes on where it was: on a CPU the result is the same to the byte. Asked
for more steps it goes on, too, where the steps so far do not depend on their number (SPT's fade does, and falling
learning rates do). .work/train/D/V/ keeps a finished training for that; one that no longer fits params.yaml, inputs or
code is moved to .work/train/D/V.set-aside/, and taken up when it fits again. Both are yours to delete.
`start` names weights to train on from, in place of random ones: a checkpoint of any run of the same network and width,
or what `repose export --what model` wrote. They are the generator's alone, and without the parts that components bring;
optimisers and adversaries begin anew.
With `gpus: N` torchrun starts as many processes, which share each batch. Losses and steps are those of one process up
to rounding, except that batch norms see only their process's part, and each process draws its own dropout and noise. So
a training by another number of processes is another one: what was trained is set aside, as with any other setting.
`torchrun --nproc-per-node N -m pipeline train ...` does the same whatever `gpus` says, and over several machines.
More seeds: --variant spig-seed1 trains spig from seed 1 into runs/D/spig-seed1/, if params.yaml has that name under
`variants`. Other settings: --variant spig-fast trains spig with what `named.spig.spig-fast` of params.yaml has, and for
the rest as `train.D.spig` says. Both start from the same components as spig.
A new method: its networks and objective go into models/; CONTRIBUTING.md says what else it takes.
The variants copy_source and mean_image are not trained: they are the floor of every table.
"""

from dataclasses import asdict

from models.variants import VARIANTS
from pipeline.core import console, layout, params
from pipeline.loading import parallel
from pipeline.training import fit, floors
from pipeline.training.settings import kind_of_family


def run(dataset: str, variant: str) -> None:
    family, entry = params.family(variant), VARIANTS[params.variant_of(variant)]
    settings = params.training(dataset, variant)
    block = params.as_block(kind_of_family(family), settings, "train", dataset, family)
    if entry.phase is not None:
        fit.train(fit.Task(entry, dataset, block, variant, family))
    elif not parallel.rank():  # nothing to share with other processes
        floors.make(dataset, entry, family, asdict(block))
    console.say(f"train {dataset} {variant}: checkpoints in {layout.checkpoints(dataset, variant)}")
