"""Draws the README's picture from the ledger: `python tools/readme_picture.py`."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "_ext")]
from social_card import ARMS, maps  # noqa: E402

from adamw_book import plots  # noqa: E402

TARGET = ROOT / "_static" / "readme_heatmap.png"
SYMBOLS = {"ℓ": "penalty ℓ", "λ": "decay λ", "λ′": "share a step λ′"}


def main() -> None:
    plots.style()
    found, limits = maps(ROOT / "ledger")
    panels = {f"{ARMS[arm]}: {symbol}": runs for (arm, runs), symbol in zip(found.items(), SYMBOLS, strict=True)}
    axes = plots.heat_map_pair(panels, "validation accuracy", y="decay", limits=limits)
    for ax, label in zip(axes, SYMBOLS.values(), strict=True):
        ax.set_ylabel(label)
    plt.savefig(TARGET, dpi=160, bbox_inches="tight", facecolor="white")
    print(f"wrote {TARGET.name}")


if __name__ == "__main__":
    main()
