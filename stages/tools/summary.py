"""Says where to look after a run: `python -m stages.tools.summary`."""

from stages.core import files, paths
from stages.core.errors import run

PLACES = (
    ("metrics", paths.METRICS),
    ("every image", paths.PER_IMAGE),
    ("overlays", paths.OVERLAYS),
    ("data quality", paths.QUALITY_DOCS / "index.html"),
    ("verdict", paths.VERDICT),
    ("model", paths.EXPORT),
    ("model card", paths.EXPORT / "model_card.md"),
)


def main() -> None:
    """Prints the headline and the place of everything a person would open."""
    metrics = files.read_json(paths.METRICS)
    dice = metrics["dice"]
    print(
        f"\nDice {dice['mean']:.4f} (95 % interval {dice['ci_low']:.4f} to "
        f"{dice['ci_high']:.4f}) on {metrics['num_images']} held-out images; "
        f"5th percentile {dice['p05']:.4f}, lowest {dice['min']:.4f}"
    )
    passed = files.read_json(paths.VERDICT)["passed"]
    print(f"gate {'passed' if passed else 'FAILED'}\n")
    for name, path in PLACES:
        print(f"  {name:<14}{path}{'' if path.exists() else '  (not made yet)'}")
    print(
        "\nCompare with another commit: dvc metrics diff REV --targets data/evaluation/"
        "metrics.json\nTry a change:                dvc exp run -S train.epochs=10"
    )


if __name__ == "__main__":
    run(main)
