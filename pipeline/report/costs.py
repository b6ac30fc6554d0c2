"""What each method costs and how its training differed from the paper's, from the network.json that `score` wrote."""

from pipeline.datasets import title as dataset_title
from pipeline.tables.inputs import starts


def short(count: float, unit: str = "") -> str:
    """Three digits with k, M or G."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {prefix}{unit}"
    return f"{count:.3g} {unit}".rstrip()


def rows(dataset: str, networks: dict[str, dict]) -> list[dict]:
    """One row for each variant; `load` is its multiply-accumulates as a share of the most that any variant needs."""
    most = max((network["macs"] for network in networks.values()), default=0) or 1
    return [
        {
            "dataset": dataset_title(dataset),
            "variant": variant,
            "size": f"{network['trained']['height']} x {network['trained']['width']}",
            "parameters": network["parameters"],
            "parameters_text": short(network["parameters"]),
            "macs": network["macs"],
            "macs_text": short(network["macs"]),
            "load": network["macs"] / most,
            "bytes": network["checkpoint_bytes"],
            "bytes_text": short(network["checkpoint_bytes"], "B"),
            "starts_from": list(network["trained"]["components"]),
        }
        for variant, network in networks.items()
    ]


def training(network: dict) -> dict[str, dict]:
    """How a variant was trained: name -> {"ours", "paper", "differs"}, both as text; {} for a floor.

    `paper` is the published schedule, or the assumed one where a paper states none (docs/papers.md).
    """
    trained = network["trained"]
    published, settings, features = trained["published"], trained["settings"], trained["features"]
    if not published:
        return {}
    found = {}
    for name, what in (("steps", "steps"), ("batch", "batch"), ("learning_rate", "learning rate"), ("width", "width")):
        ours, paper = settings[name], published[name]
        found[what] = {"ours": f"{ours:,}", "paper": f"{paper:,}", "differs": ours != paper}
    if on_from := starts(trained):
        found["start"] = {"ours": "; ".join(on_from), "paper": "random weights", "differs": True}
    if features:
        seeded = features["provenance"] == "seeded"
        ours = f"{features['net']}, {'random' if seeded else 'published'} weights"
        differs = seeded or features["net"] != features["published"]
        paper = f"{features['published']}, published weights"
        found["loss features"] = {"ours": ours, "paper": paper, "differs": differs}
    return found
