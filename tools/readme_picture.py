"""Draws the README's picture from the ledger: `python tools/readme_picture.py`."""

from pathlib import Path

import matplotlib.pyplot as plt

from adamw_book import ledger, plots
from adamw_book.scenarios.decoupled_weight_decay import INDEPENDENT

TARGET = Path(__file__).resolve().parent.parent / "_static" / "readme_heatmap.png"
TITLES = {"Adam + L2": "Adam + L2: ℓ", "AdamW": "AdamW as in torch: λ", INDEPENDENT.name: "AdamW as in the paper: λ′"}


def main() -> None:
    plots.style()
    runs = ledger.read("decoupled_weight_decay.separability").tables["map"]
    runs = runs[runs["condition"] == "MLP"]
    best = runs.groupby(["arm", "lr", "decay"])["value"].mean().max()
    panels = {title: runs[runs["arm"] == arm] for arm, title in TITLES.items()}
    axes = plots.heat_map_pair(panels, "validation accuracy", y="decay", limits=(0.7, best))
    for ax, symbol in zip(axes, ("penalty ℓ", "decay λ", "share a step λ′"), strict=True):
        ax.set_ylabel(symbol)
    plt.savefig(TARGET, dpi=160, bbox_inches="tight", facecolor="white")
    print(f"wrote {TARGET.name}")


if __name__ == "__main__":
    main()
