# The pipeline for Snakemake: `snakemake --cores all`. One rule a stage, named as the stage; the stage table is in README.md.
#
# dvc.yaml holds the same graph for `dvc repro`. Neither is generated from the other; tests/core/test_graph.py resolves both and
# demands equal commands, inputs, outputs and params. The files of pipeline/ that decide what a stage computes are inputs
# of its rule, so an edit re-runs what it concerns.
import glob

import yaml
from snakemake.utils import min_version, validate

min_version("9.18")  # compares inputs by checksum


configfile: "params.yaml"


validate(config, "params.schema.yaml")
with open("params.yaml") as handle:
    if yaml.safe_load(handle) != config:
        raise WorkflowError(
            "edit params.yaml: the stages read that file, not --config or --configfile"
        )

DATASETS = config["datasets"]
VARIANTS = [v for family in config["variants"].values() for v in family]


def sources(wildcards):
    """The module of a data set, however many files it has."""
    return sorted(glob.glob(f"pipeline/datasets/{wildcards.dataset}/*.py"))


def parsing_of_sources(wildcards):
    """What the generators of some families are given beside the source image."""
    for family in ("spgnet", "spt", "sgw_gan"):
        if wildcards.variant in config["variants"][family]:
            return [f"data/{wildcards.dataset}/parsing"]
    return []


# Documents the base system for --sdm apptainer; otherwise the project's own .venv does the work.
container: "docker://python:3.12-slim"


wildcard_constraints:
    dataset="|".join(DATASETS),
    variant="|".join(VARIANTS) or "none",
    net="|".join(config["weights"]),


rule all:
    input:
        "reports/html/index.html",
        expand("data/{dataset}/distance_maps", dataset=DATASETS),
        expand("data/{dataset}/parsing", dataset=DATASETS),
        expand("data/{dataset}/pseudo_labels", dataset=DATASETS),
        expand(
            "runs/{dataset}/{component}/checkpoints",
            dataset=DATASETS,
            component=config["components"],
        ),
    localrule: True


rule fetch:
    input:
        "pipeline/stages/fetch.py",
        sources,
        "pipeline/formats/archive.py",
        "pipeline/fetching/download.py",
        "pipeline/formats/annotations.py",
        "pipeline/anatomy/pose.py",
    output:
        directory("data/{dataset}/raw"),
    log:
        "logs/fetch/{dataset}.log",
    params:
        lambda w: config["fetch"][w.dataset],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline fetch --dataset {wildcards.dataset}"


rule weights:
    input:
        "pipeline/stages/weights.py",
        "pipeline/fetching/download.py",
    output:
        directory("data/weights/{net}"),
    log:
        "logs/weights/{net}.log",
    params:
        lambda w: config["weights"][w.net],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline weights --net {wildcards.net}"


rule index:
    input:
        "data/{dataset}/raw",
        "pipeline/stages/index.py",
        sources,
        "pipeline/formats/annotations.py",
        "pipeline/formats/archive.py",
        "pipeline/anatomy/pose.py",
    output:
        directory("data/{dataset}/images"),
        "data/{dataset}/rejects.parquet",
    log:
        "logs/index/{dataset}.log",
    params:
        lambda w: config["index"][w.dataset],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline index --dataset {wildcards.dataset}"


rule keypoints:
    input:
        "data/{dataset}/raw",
        "data/{dataset}/images",
        "data/weights/openpose",
        "data/weights/topdown",
        "pipeline/stages/keypoints.py",
        sources,
        "pipeline/formats/annotations.py",
        "pipeline/extraction/openpose.py",
        "pipeline/formats/openpose_json.py",
        "pipeline/extraction/topdown.py",
        "pipeline/anatomy/pose.py",
        "pipeline/formats/archive.py",
    output:
        "data/{dataset}/keypoints.parquet",
    log:
        "logs/keypoints/{dataset}.log",
    threads: 8
    params:
        lambda w: config["keypoints"][w.dataset],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline keypoints --dataset {wildcards.dataset}"


rule parsing:
    input:
        "data/{dataset}/raw",
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/weights/schp",
        "pipeline/stages/parsing.py",
        "pipeline/formats/archive.py",
        "pipeline/formats/label_files.py",
        "pipeline/anatomy/labels.py",
        "pipeline/anatomy/pose.py",
        "pipeline/extraction/repose_parser/__init__.py",
        "pipeline/extraction/repose_parser/weights.safetensors",
        "pipeline/extraction/schp.py",
        "models/layers/features.py",
        "models/parser.py",
        "models/layers/pose_maps.py",
    output:
        directory("data/{dataset}/parsing"),
    log:
        "logs/parsing/{dataset}.log",
    threads: 8
    params:
        lambda w: config["parsing"][w.dataset],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline parsing --dataset {wildcards.dataset}"


rule pairs:
    input:
        "data/{dataset}/raw",
        "data/{dataset}/keypoints.parquet",
        "pipeline/stages/pairs.py",
        sources,
        "pipeline/formats/annotations.py",
        "pipeline/anatomy/pose.py",
        "pipeline/formats/archive.py",
    output:
        "data/{dataset}/pairs.parquet",
    log:
        "logs/pairs/{dataset}.log",
    params:
        lambda w: config["pairs"][w.dataset],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline pairs --dataset {wildcards.dataset}"


# For SPT: whose parsing stands in for that of the target, which it never sees.
rule pseudo_labels:
    input:
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/parsing",
        "pipeline/stages/pseudo_labels.py",
        "pipeline/stand_ins/body_parts.py",
        "pipeline/anatomy/labels.py",
        "pipeline/stand_ins/part_search.py",
        "pipeline/anatomy/pose.py",
    output:
        directory("data/{dataset}/pseudo_labels"),
    log:
        "logs/pseudo_labels/{dataset}.log",
    threads: 8
    params:
        lambda w: config["pseudo_labels"][w.dataset],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline pseudo_labels --dataset {wildcards.dataset}"


rule distance_maps:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "pipeline/stages/distance_maps.py",
        "pipeline/anatomy/distance.py",
        "pipeline/anatomy/pose.py",
    output:
        directory("data/{dataset}/distance_maps"),
    log:
        "logs/distance_maps/{dataset}.log",
    params:
        lambda w: config["distance_maps"][w.dataset],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline distance_maps --dataset {wildcards.dataset}"


# The three part flow networks that SPIG starts from.
rule pretrain_spig_flow:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "data/weights/vgg19",
        "data/weights/squeezenet1_1",
        "pipeline/stages/pretrain.py",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/blocks.py",
        "models/layers/features.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/spig.py",
    output:
        directory("runs/{dataset}/spig_flow/checkpoints"),
    log:
        "logs/pretrain/{dataset}-spig_flow.log",
    threads: 8
    resources:
        gpu=1,
    params:
        own=lambda w: config["pretrain"][w.dataset]["spig_flow"],
        asked=config["components"]["spig_flow"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline pretrain --dataset {wildcards.dataset} --component spig_flow"


# Stage one of SPGNet: the target's parsing.
rule pretrain_spatn:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "data/{dataset}/parsing",
        "pipeline/stages/pretrain.py",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/blocks.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/spatn.py",
    output:
        directory("runs/{dataset}/spatn/checkpoints"),
    log:
        "logs/pretrain/{dataset}-spatn.log",
    threads: 8
    resources:
        gpu=1,
    params:
        own=lambda w: config["pretrain"][w.dataset]["spatn"],
        asked=config["components"]["spatn"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline pretrain --dataset {wildcards.dataset} --component spatn"


# The same without distance maps among its inputs.
rule pretrain_spatn_no_distance:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "data/{dataset}/parsing",
        "pipeline/stages/pretrain.py",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/blocks.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/spatn.py",
    output:
        directory("runs/{dataset}/spatn_no_distance/checkpoints"),
    log:
        "logs/pretrain/{dataset}-spatn_no_distance.log",
    threads: 8
    resources:
        gpu=1,
    params:
        own=lambda w: config["pretrain"][w.dataset]["spatn_no_distance"],
        asked=config["components"]["spatn_no_distance"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline pretrain --dataset {wildcards.dataset} --component spatn_no_distance"


# A flow network for the whole body, for the variant of SPGNet that learns its flow.
rule pretrain_spgnet_flow:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "data/weights/vgg19",
        "data/weights/squeezenet1_1",
        "pipeline/stages/pretrain.py",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/affine_flow.py",
        "models/layers/blocks.py",
        "models/layers/features.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/spatn.py",
        "models/spgnet.py",
        "models/spig.py",
    output:
        directory("runs/{dataset}/spgnet_flow/checkpoints"),
    log:
        "logs/pretrain/{dataset}-spgnet_flow.log",
    threads: 8
    resources:
        gpu=1,
    params:
        own=lambda w: config["pretrain"][w.dataset]["spgnet_flow"],
        asked=config["components"]["spgnet_flow"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline pretrain --dataset {wildcards.dataset} --component spgnet_flow"


# SPT's semantic generator, from stand-ins for the target's parsing.
rule pretrain_spt_parsing:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "data/{dataset}/parsing",
        "data/{dataset}/pseudo_labels",
        "pipeline/stages/pretrain.py",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/affine_flow.py",
        "models/layers/blocks.py",
        "models/detector.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/spt/__init__.py",
        "models/spt/appearance.py",
        "models/spt/losses.py",
        "models/spt/semantic.py",
    output:
        directory("runs/{dataset}/spt_parsing/checkpoints"),
    log:
        "logs/pretrain/{dataset}-spt_parsing.log",
    threads: 8
    resources:
        gpu=1,
    params:
        own=lambda w: config["pretrain"][w.dataset]["spt_parsing"],
        asked=config["components"]["spt_parsing"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline pretrain --dataset {wildcards.dataset} --component spt_parsing"


# The joint detector of SPT's pose loss, from training images only.
rule pretrain_spt_detector:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "pipeline/stages/pretrain.py",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/affine_flow.py",
        "models/layers/blocks.py",
        "models/detector.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/spt/__init__.py",
        "models/spt/appearance.py",
        "models/spt/losses.py",
        "models/spt/semantic.py",
    output:
        directory("runs/{dataset}/spt_detector/checkpoints"),
    log:
        "logs/pretrain/{dataset}-spt_detector.log",
    threads: 8
    resources:
        gpu=1,
    params:
        own=lambda w: config["pretrain"][w.dataset]["spt_detector"],
        asked=config["components"]["spt_detector"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline pretrain --dataset {wildcards.dataset} --component spt_detector"


# Stage one of Soft-Gated Warping-GAN: the target's parsing.
rule pretrain_sgw_parser:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "data/{dataset}/parsing",
        "pipeline/stages/pretrain.py",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/blocks.py",
        "models/sgw_gan/geometric_matcher.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/sgw_gan/__init__.py",
        "models/spatn.py",
    output:
        directory("runs/{dataset}/sgw_parser/checkpoints"),
    log:
        "logs/pretrain/{dataset}-sgw_parser.log",
    threads: 8
    resources:
        gpu=1,
    params:
        own=lambda w: config["pretrain"][w.dataset]["sgw_parser"],
        asked=config["components"]["sgw_parser"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline pretrain --dataset {wildcards.dataset} --component sgw_parser"


# Its geometric matcher, from random warps of label maps.
rule pretrain_sgw_matcher:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "data/{dataset}/parsing",
        "pipeline/stages/pretrain.py",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/blocks.py",
        "models/sgw_gan/geometric_matcher.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/sgw_gan/__init__.py",
        "models/spatn.py",
    output:
        directory("runs/{dataset}/sgw_matcher/checkpoints"),
    log:
        "logs/pretrain/{dataset}-sgw_matcher.log",
    threads: 8
    resources:
        gpu=1,
    params:
        own=lambda w: config["pretrain"][w.dataset]["sgw_matcher"],
        asked=config["components"]["sgw_matcher"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline pretrain --dataset {wildcards.dataset} --component sgw_matcher"


# The same from drawn poses, for the variant without parsing.
rule pretrain_sgw_matcher_pose:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "pipeline/stages/pretrain.py",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/blocks.py",
        "models/sgw_gan/geometric_matcher.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/sgw_gan/__init__.py",
        "models/spatn.py",
    output:
        directory("runs/{dataset}/sgw_matcher_pose/checkpoints"),
    log:
        "logs/pretrain/{dataset}-sgw_matcher_pose.log",
    threads: 8
    resources:
        gpu=1,
    params:
        own=lambda w: config["pretrain"][w.dataset]["sgw_matcher_pose"],
        asked=config["components"]["sgw_matcher_pose"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline pretrain --dataset {wildcards.dataset} --component sgw_matcher_pose"


# GFLA's flow network.
rule pretrain_gfla_flow:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "data/weights/vgg19",
        "data/weights/squeezenet1_1",
        "pipeline/stages/pretrain.py",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/blocks.py",
        "models/layers/features.py",
        "models/gfla.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/spig.py",
    output:
        directory("runs/{dataset}/gfla_flow/checkpoints"),
    log:
        "logs/pretrain/{dataset}-gfla_flow.log",
    threads: 8
    resources:
        gpu=1,
    params:
        own=lambda w: config["pretrain"][w.dataset]["gfla_flow"],
        asked=config["components"]["gfla_flow"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline pretrain --dataset {wildcards.dataset} --component gfla_flow"


# The network that re-detects joints in generated images, for PCKh.
rule pretrain_detector:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "pipeline/stages/pretrain.py",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/blocks.py",
        "models/detector.py",
        "models/layers/pose_maps.py",
    output:
        directory("runs/{dataset}/detector/checkpoints"),
    log:
        "logs/pretrain/{dataset}-detector.log",
    threads: 8
    resources:
        gpu=1,
    params:
        lambda w: config["pretrain"][w.dataset]["detector"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline pretrain --dataset {wildcards.dataset} --component detector"


rule reference:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "data/{dataset}/parsing",
        "runs/{dataset}/detector/checkpoints",
        "data/weights/inception",
        "data/weights/inception_v3",
        "data/weights/alexnet",
        "data/weights/vgg16",
        "data/weights/squeezenet1_1",
        "data/weights/reid",
        "data/weights/openpose",
        "pipeline/stages/reference.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/extraction/openpose.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/extraction/repose_parser/__init__.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/metrics/bootstrap.py",
        "pipeline/metrics/fid.py",
        "pipeline/metrics/identity.py",
        "pipeline/metrics/inception_score.py",
        "pipeline/metrics/kid.py",
        "pipeline/metrics/lpips.py",
        "pipeline/metrics/networks.py",
        "pipeline/metrics/parsing_iou.py",
        "pipeline/metrics/pckh.py",
        "pipeline/metrics/pose_error.py",
        "pipeline/metrics/pose_mask.py",
        "pipeline/metrics/psnr.py",
        "pipeline/metrics/inception.py",
        "pipeline/metrics/ssim.py",
        "pipeline/metrics/stream.py",
        "models/layers/blocks.py",
        "models/detector.py",
        "models/layers/features.py",
        "models/parser.py",
        "models/layers/pose_maps.py",
    output:
        directory("data/{dataset}/reference"),
    log:
        "logs/reference/{dataset}.log",
    threads: 8
    resources:
        gpu=1,
    params:
        lambda w: config["reference"][w.dataset],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline reference --dataset {wildcards.dataset}"


# Floors for the tables: no network.
rule train_floors:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/run.py",
        "models/floors.py",
    output:
        directory("runs/{dataset}/{variant}/checkpoints"),
    log:
        "logs/train/{dataset}-{variant}.log",
    wildcard_constraints:
        variant="|".join(config["variants"]["floors"]) or "none",
    threads: 8
    resources:
        gpu=1,
    params:
        lambda w: config["train"][w.dataset]["floors"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline train --dataset {wildcards.dataset} --variant {wildcards.variant}"


rule train_spig:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "runs/{dataset}/spig_flow/checkpoints",
        "data/weights/vgg19",
        "data/weights/squeezenet1_1",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/blocks.py",
        "models/layers/features.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/spig.py",
    output:
        directory("runs/{dataset}/{variant}/checkpoints"),
    log:
        "logs/train/{dataset}-{variant}.log",
    wildcard_constraints:
        variant="|".join(config["variants"]["spig"]) or "none",
    threads: 8
    resources:
        gpu=1,
    params:
        lambda w: config["train"][w.dataset]["spig"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline train --dataset {wildcards.dataset} --variant {wildcards.variant}"


rule train_spgnet:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "data/{dataset}/parsing",
        "runs/{dataset}/spatn/checkpoints",
        "runs/{dataset}/spatn_no_distance/checkpoints",
        "runs/{dataset}/spgnet_flow/checkpoints",
        "data/weights/vgg19",
        "data/weights/squeezenet1_1",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/affine_flow.py",
        "models/layers/blocks.py",
        "models/layers/features.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/spatn.py",
        "models/spgnet.py",
        "models/spig.py",
    output:
        directory("runs/{dataset}/{variant}/checkpoints"),
    log:
        "logs/train/{dataset}-{variant}.log",
    wildcard_constraints:
        variant="|".join(config["variants"]["spgnet"]) or "none",
    threads: 8
    resources:
        gpu=1,
    params:
        lambda w: config["train"][w.dataset]["spgnet"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline train --dataset {wildcards.dataset} --variant {wildcards.variant}"


rule train_spt:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "data/{dataset}/parsing",
        "runs/{dataset}/spt_detector/checkpoints",
        "runs/{dataset}/spt_parsing/checkpoints",
        "data/weights/vgg19",
        "data/weights/squeezenet1_1",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/affine_flow.py",
        "models/layers/blocks.py",
        "models/detector.py",
        "models/layers/features.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/spt/__init__.py",
        "models/spt/appearance.py",
        "models/spt/losses.py",
        "models/spt/semantic.py",
    output:
        directory("runs/{dataset}/{variant}/checkpoints"),
    log:
        "logs/train/{dataset}-{variant}.log",
    wildcard_constraints:
        variant="|".join(config["variants"]["spt"]) or "none",
    threads: 8
    resources:
        gpu=1,
    params:
        lambda w: config["train"][w.dataset]["spt"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline train --dataset {wildcards.dataset} --variant {wildcards.variant}"


rule train_sgw_gan:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "data/{dataset}/parsing",
        "runs/{dataset}/sgw_parser/checkpoints",
        "runs/{dataset}/sgw_matcher/checkpoints",
        "runs/{dataset}/sgw_matcher_pose/checkpoints",
        "data/weights/vgg19",
        "data/weights/squeezenet1_1",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/blocks.py",
        "models/layers/features.py",
        "models/sgw_gan/geometric_matcher.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/sgw_gan/__init__.py",
        "models/spatn.py",
    output:
        directory("runs/{dataset}/{variant}/checkpoints"),
    log:
        "logs/train/{dataset}-{variant}.log",
    wildcard_constraints:
        variant="|".join(config["variants"]["sgw_gan"]) or "none",
    threads: 8
    resources:
        gpu=1,
    params:
        lambda w: config["train"][w.dataset]["sgw_gan"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline train --dataset {wildcards.dataset} --variant {wildcards.variant}"


rule train_patn:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "data/weights/vgg19",
        "data/weights/squeezenet1_1",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/blocks.py",
        "models/layers/features.py",
        "models/gfla.py",
        "models/layers/losses.py",
        "models/patn.py",
        "models/layers/pose_maps.py",
        "models/spig.py",
    output:
        directory("runs/{dataset}/{variant}/checkpoints"),
    log:
        "logs/train/{dataset}-{variant}.log",
    wildcard_constraints:
        variant="|".join(config["variants"]["patn"]) or "none",
    threads: 8
    resources:
        gpu=1,
    params:
        lambda w: config["train"][w.dataset]["patn"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline train --dataset {wildcards.dataset} --variant {wildcards.variant}"


rule train_gfla:
    input:
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "runs/{dataset}/gfla_flow/checkpoints",
        "data/weights/vgg19",
        "data/weights/squeezenet1_1",
        "pipeline/stages/train.py",
        "pipeline/training/components.py",
        "pipeline/training/features.py",
        "pipeline/training/fit.py",
        "pipeline/training/floors.py",
        "pipeline/training/marks.py",
        "pipeline/training/meta.py",
        "pipeline/training/augmentation.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/training/compiling.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/training/loop.py",
        "pipeline/training/order.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/training/training_data.py",
        "pipeline/training/run.py",
        "models/layers/blocks.py",
        "models/layers/features.py",
        "models/gfla.py",
        "models/layers/losses.py",
        "models/layers/pose_maps.py",
        "models/spig.py",
    output:
        directory("runs/{dataset}/{variant}/checkpoints"),
    log:
        "logs/train/{dataset}-{variant}.log",
    wildcard_constraints:
        variant="|".join(config["variants"]["gfla"]) or "none",
    threads: 8
    resources:
        gpu=1,
    params:
        lambda w: config["train"][w.dataset]["gfla"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline train --dataset {wildcards.dataset} --variant {wildcards.variant}"


rule score:
    input:
        parsing_of_sources,
        "runs/{dataset}/{variant}/checkpoints",
        "runs/{dataset}/detector/checkpoints",
        "data/{dataset}/reference",
        "data/{dataset}/images",
        "data/{dataset}/keypoints.parquet",
        "data/{dataset}/pairs.parquet",
        "data/weights/inception",
        "data/weights/inception_v3",
        "data/weights/alexnet",
        "data/weights/vgg16",
        "data/weights/squeezenet1_1",
        "data/weights/reid",
        "data/weights/openpose",
        "pipeline/stages/score.py",
        "pipeline/loading/checkpoints.py",
        "pipeline/scoring/cost.py",
        "pipeline/loading/arrays.py",
        "pipeline/loading/devices.py",
        "pipeline/loading/pair_lists.py",
        "pipeline/loading/pixels.py",
        "pipeline/loading/stored_images.py",
        "pipeline/loading/stored_labels.py",
        "pipeline/anatomy/drawing.py",
        "pipeline/scoring/failures.py",
        "pipeline/anatomy/labels.py",
        "pipeline/extraction/openpose.py",
        "pipeline/loading/parallel.py",
        "pipeline/anatomy/pose.py",
        "pipeline/extraction/repose_parser/__init__.py",
        "pipeline/loading/shard_loader.py",
        "pipeline/stages/reference.py",
        "pipeline/figures/__init__.py",
        "pipeline/figures/appearance.py",
        "pipeline/figures/flow.py",
        "pipeline/figures/for_report.py",
        "pipeline/figures/parsing.py",
        "pipeline/figures/poses.py",
        "pipeline/figures/relation_maps.py",
        "pipeline/figures/subject.py",
        "pipeline/metrics/bootstrap.py",
        "pipeline/metrics/fid.py",
        "pipeline/metrics/identity.py",
        "pipeline/metrics/inception_score.py",
        "pipeline/metrics/kid.py",
        "pipeline/metrics/lpips.py",
        "pipeline/metrics/networks.py",
        "pipeline/metrics/parsing_iou.py",
        "pipeline/metrics/pckh.py",
        "pipeline/metrics/pose_error.py",
        "pipeline/metrics/pose_mask.py",
        "pipeline/metrics/psnr.py",
        "pipeline/metrics/inception.py",
        "pipeline/metrics/ssim.py",
        "pipeline/metrics/stream.py",
        "models/layers/features.py",
        "models/parser.py",
    output:
        "reports/scores/{dataset}/{variant}/scores.parquet",
        "reports/scores/{dataset}/{variant}/pairs.parquet",
        "reports/scores/{dataset}/{variant}/samples.parquet",
        "reports/scores/{dataset}/{variant}/figures.parquet",
        "reports/scores/{dataset}/{variant}/network.json",
    log:
        "logs/score/{dataset}-{variant}.log",
    threads: 8
    resources:
        gpu=1,
    params:
        lambda w: config["score"][w.dataset],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline score --dataset {wildcards.dataset} --variant {wildcards.variant}"


rule tables:
    input:
        expand(
            "reports/scores/{dataset}/{variant}/{file}.parquet",
            dataset=DATASETS,
            variant=VARIANTS,
            file=["scores", "pairs"],
        ),
        "reports/outside",
        "reports/published.csv",
        "pipeline/stages/tables.py",
        "pipeline/tables/papers.py",
        "pipeline/tables/cells.py",
        "pipeline/tables/text.py",
        "pipeline/metrics/bootstrap.py",
        "pipeline/tables/over_seeds.py",
        "pipeline/tables/paired.py",
    output:
        directory("reports/tables"),
    log:
        "logs/tables/tables.log",
    params:
        own=config["tables"],
        datasets=DATASETS,
        variants=config["variants"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline tables"


rule report:
    input:
        expand(
            "reports/scores/{dataset}/{variant}/{file}",
            dataset=DATASETS,
            variant=VARIANTS,
            file=[
                "scores.parquet",
                "pairs.parquet",
                "samples.parquet",
                "figures.parquet",
                "network.json",
            ],
        ),
        expand(
            "data/{dataset}/{made}",
            dataset=DATASETS,
            made=[
                "raw",
                "images",
                "rejects.parquet",
                "keypoints.parquet",
                "parsing",
                "pairs.parquet",
                "pseudo_labels",
                "distance_maps",
                "reference",
            ],
        ),
        expand("data/weights/{net}", net=config["weights"]),
        "reports/outside",
        "reports/tables",
        "reports/published.csv",
        "docs/protocols.md",
        "reports/template.html.j2",
        "reports/template/cost.html.j2",
        "reports/template/data.html.j2",
        "reports/template/failures.html.j2",
        "reports/template/macros.html.j2",
        "reports/template/pictures.html.j2",
        "reports/template/provenance.html.j2",
        "reports/template/scores.html.j2",
        "reports/template/script.js",
        "reports/template/style.css",
        "reports/template/summary.html.j2",
        "reports/template/tables.html.j2",
        "reports/template/times.html.j2",
        "params.yaml",
        "pipeline/stages/report.py",
        "pipeline/report/__init__.py",
        "pipeline/report/album.py",
        "pipeline/report/charts.py",
        "pipeline/report/costs.py",
        "pipeline/report/datasets.py",
        "pipeline/report/definitions.py",
        "pipeline/report/gallery.py",
        "pipeline/report/provenance.py",
        "pipeline/report/summary.py",
        "pipeline/report/tables.py",
        "pipeline/report/times.py",
        "pipeline/anatomy/drawing.py",
        "pipeline/report/prepared.py",
        "pipeline/scoring/failures.py",
        "pipeline/anatomy/labels.py",
        "pipeline/tables/papers.py",
        "pipeline/anatomy/pose.py",
        "pipeline/tables/cells.py",
        "pipeline/metrics/bootstrap.py",
        "pipeline/tables/over_seeds.py",
        "pipeline/tables/paired.py",
    output:
        "reports/html/index.html",
        directory("reports/html/pictures"),
    log:
        "logs/report/report.log",
    params:
        own=config["report"],
        datasets=DATASETS,
        variants=config["variants"],
    shell:
        "PATH=.venv/bin:$PATH python -m pipeline report"
