"""The picture that stands beside a link to the book, drawn from the ledger when the pages are built: `draw`.

There is one where the book's address is known (a page must name it in full, see finding.py) and the record is there."""

from __future__ import annotations

from pathlib import Path

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

CARD = "_static/card.png"
RECORD = "decoupled_weight_decay.separability"
ARMS = {
    "Adam + L2": "Adam + L2",
    "AdamW": "AdamW as in torch",
    "AdamW, lr-independent": "AdamW as in the paper",
}  # what the record calls them, and what readers do
SIZE = 1200, 630  # pixels, as those who show links ask for
ALT = (
    "Three heat maps of validation accuracy over learning rate and decay. For Adam + L2 and for AdamW as in torch the "
    "best decays lie nearly level; for AdamW as in the paper they rise along the diagonal."
)
GROUND, INK, QUIET = "#0b4f6c", "#ffffff", "#cfe3ec"  # the ground of favicon.svg
DPI = 100
MARGIN, TOP, PANEL, HEIGHT = 60, 262, 330, 262  # pixels: beside all; above the panels; a panel


def maps(ledger_folder: Path):
    """The maps of the first chapter, arm → runs of the record, and the ends of their colour scale."""
    from adamw_book import ledger

    runs = ledger.read(RECORD, ledger_folder).tables["map"]
    runs = runs[runs["condition"] == "MLP"]
    best = runs.groupby(["arm", "lr", "decay"])["value"].mean().max()
    return {arm: runs[runs["arm"] == arm] for arm in ARMS}, (0.7, best)


def draw(target: Path, title: str, ledger_folder: Path) -> None:
    """Write the card, a PNG of SIZE, with a title of which what follows a colon stands on a line of its own."""
    from adamw_book import plots

    width, height = SIZE
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=GROUND)

    def say(x: float, y: float, text: str, size: float, **more) -> None:
        """Text, its baseline `y` pixels from the top."""
        figure.text(x / width, 1 - y / height, text, fontsize=size * 72 / DPI, **({"color": INK} | more))

    head, _, rest = title.partition(": ")
    say(MARGIN, 108, head, 78, weight="bold")
    say(MARGIN, 172, rest, 42)
    found, limits = maps(ledger_folder)
    tables = {ARMS[arm]: runs for arm, runs in found.items()}
    step = (width - 2 * MARGIN - PANEL) / (len(tables) - 1)
    places = [(MARGIN + i * step) for i in range(len(tables))]
    boxes = [(x / width, 1 - (TOP + HEIGHT) / height, PANEL / width, HEIGHT / height) for x in places]
    axes = [figure.add_axes(box) for box in boxes]
    plots.heat_map_pair(tables, "validation accuracy", y="decay", limits=limits, axes=axes)
    for other in set(figure.axes) - set(axes):
        other.remove()  # the colour bar: too small to be read here
    for ax, box, x in zip(axes, boxes, places, strict=True):
        ax.set_position(box)
        say(x, TOP - 18, ax.get_title(), 28)
        ax.set(title="", xlabel="", ylabel="", xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    note = "validation accuracy over learning rate (→) and decay (↑), the best decays in white"
    say(MARGIN, height - 46, note, 22, color=QUIET)
    figure.savefig(target, dpi=DPI, facecolor=to_rgb(GROUND))


def has_card(app) -> bool:
    """Whether the pages have a card to name."""
    return bool(app.config.html_baseurl) and (Path(app.srcdir) / "ledger" / f"{RECORD}.json").is_file()


def _draw(app, exception) -> None:
    if exception is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / CARD
    target.unlink(missing_ok=True)
    if has_card(app):
        draw(target, app.config.html_title or app.config.project, Path(app.srcdir) / "ledger")


def setup(app) -> dict[str, bool]:
    app.connect("build-finished", _draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
