"""Every parquet column of the project, each spelled once.

Shards hold `image_id`-sorted rows. Coordinates are (x, y) in pixels of the stored image, pixel centres at integers.
A missing joint is null with score 0; -1 exists only in the importers and exporters of the field's CSVs.
"""

import pyarrow as pa

JOINTS = 18  # their order: pipeline/anatomy/pose.py
LIMBS = 12

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # Hugging Face's image feature
POINTS = pa.list_(pa.list_(pa.float32(), 2), JOINTS)
JOINT_SCORES = pa.list_(pa.float32(), JOINTS)

IMAGES = pa.schema(
    [
        ("image_id", pa.string()),  # the published file name, verbatim
        ("split", pa.string()),  # train | test
        ("person_id", pa.string()),
        ("image", IMAGE),  # the bytes as received, never re-encoded
        ("height", pa.int32()),
        ("width", pa.int32()),
    ]
)

REJECTS = pa.schema([("image_id", pa.string()), ("split", pa.string()), ("reason", pa.string())])

TRUTH = pa.schema(  # what a renderer knows: data/D/raw/truth.parquet
    [
        ("image_id", pa.string()),
        ("split", pa.string()),
        ("keypoints", POINTS),
        ("occluded", pa.list_(pa.bool_(), JOINTS)),  # hidden by the person's own body; false outside the image
    ]
)

KEYPOINTS = pa.schema(
    [
        ("image_id", pa.string()),
        ("split", pa.string()),
        ("person_id", pa.string()),
        ("row", pa.int32()),  # position in the split's annotation file: the pair rule follows file order
        ("keypoints", POINTS),
        ("keypoint_scores", JOINT_SCORES),
        ("keypoint_source", pa.string()),
    ]
)

PARSING = pa.schema(
    [
        ("image_id", pa.string()),
        ("parsing", IMAGE),  # 8-bit PNG of ids of the set that the metadata's `label_set` names
        ("label_source", pa.string()),
    ]
)

PSEUDO_LABELS = pa.schema(  # for each training image, the one whose parsing stands in for the unseen target's
    [
        ("image_id", pa.string()),
        ("pseudo_id", pa.string()),  # null where no pose is far enough or the torso is not seen
        ("cost", pa.float32()),  # the equation's sum: 2 for a pixel whose labels differ, 1 where only one side has any
        ("pose_distance", pa.float32()),  # mean joint distance between the two, in torso lengths
    ]
)

PAIRS = pa.schema(
    [
        ("split", pa.string()),  # train | val | test
        ("pair_index", pa.int32()),  # position in the published list: train and val share one list
        ("source_id", pa.string()),
        ("target_id", pa.string()),
    ]
)

DISTANCE_MAPS = pa.schema(
    [
        ("image_id", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("distance_maps", pa.binary()),  # uint8, C order, LIMBS x height x width, 255 = on the limb
    ]
)

DETECTED = pa.schema(
    [
        ("image_id", pa.string()),
        ("split", pa.string()),  # val | test: of the pairs whose target the image is
        ("keypoints", POINTS),  # as the detector sees them, not as annotated
    ]
)

SCORES = pa.schema(
    [
        ("dataset", pa.string()),
        ("variant", pa.string()),
        ("step", pa.int64()),
        ("split", pa.string()),  # val | test
        ("metric", pa.string()),  # a name of docs/protocols.md
        ("protocol", pa.string()),
        ("version", pa.int64()),  # of the metric: values of two versions do not compare
        ("value", pa.float64()),
        ("low", pa.float64()),  # bootstrap 95 % interval over pairs; null where a metric has no per-pair value
        ("high", pa.float64()),
        ("n", pa.int64()),  # pairs that entered the value
        ("excluded", pa.int64()),  # pairs that could not (no head box, ...)
        ("ceiling", pa.float64()),  # the value that the real target images reach, where that is not trivial
        ("higher_is_better", pa.bool_()),
        ("marks", pa.list_(pa.string())),  # how this differs from the paper's set-up: names of tables.papers.MARKS
        ("reference", pa.string()),  # SHA-256 of the data/D/reference by which it was scored
        ("resamples", pa.int64()),  # of the bootstrap
    ]
)

INFLUENCE = ":influence"  # ending of the columns of pairs.parquet that hold a pair's influence, not a value
PAIR_SCORE_KEYS = [
    ("step", pa.int64()),
    ("split", pa.string()),
    ("pair_index", pa.int32()),
    ("source_id", pa.string()),
    ("target_id", pa.string()),
]  # followed by IMAGE_DIGEST where images were generated, and one float64 column for each metric of pairs
IMAGE_DIGEST = "image_sha256"  # of the pixels that were judged: `scoring.judge.digest`

SAMPLES = pa.schema(
    [
        ("step", pa.int64()),
        ("pair_index", pa.int32()),
        ("source_id", pa.string()),
        ("target_id", pa.string()),
        ("why", pa.list_(pa.string())),  # "sample" for the first pairs; metrics by which it is among the worst
        ("source", IMAGE),
        ("target", IMAGE),
        ("generated", IMAGE),  # PNG
        ("target_keypoints", POINTS),
    ]
)

FIGURES = pa.schema(  # what the report shows of a variant, in order
    [
        ("step", pa.int64()),
        ("kind", pa.string()),  # of the command `figure`
        ("caption", pa.string()),
        ("picture", IMAGE),  # lossless WebP
    ]
)
