"""The pictures: colours that stay apart, figures that show what the table holds, errors that say what is missing."""

import dataclasses
import itertools

import matplotlib as mpl

mpl.use("agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from adamw_book.evidence import OUTCOMES, Effect, grid, pooled
from adamw_book.plots import (
    ARM_STYLE,
    OUTCOME_STYLE,
    claim_forest,
    dose_response,
    heat_map_pair,
    label_of,
    paired_strip,
    style,
    trajectories,
)


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    with mpl.rc_context():
        yield
    plt.close("all")


# ---- colours

# linear RGB as dichromats see it: Machado, Oliveira, Fernandes (2009), severity 1
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
)
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(rgb):
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def encoded(rgb):
    rgb = np.clip(rgb, 0, 1)
    return np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)


def lab(rgb):
    """CIE L*a*b* (D65)."""
    t = TO_XYZ @ linear(rgb) / [0.9505, 1, 1.089]
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one, other):
    low, high = sorted(TO_XYZ[1] @ linear(rgb) for rgb in (one, other))
    return (high + 0.05) / (low + 0.05)


def as_drawn(rgb):
    return np.asarray(rgb, float)


def on_a_dark_page(rgb):
    """CSS: filter: invert(.92) hue-rotate(180deg), both on encoded values (Filter Effects, section 8)."""
    luma = np.array([[0.213, 0.715, 0.072]] * 3)
    rotate = luma - (np.eye(3) - luma)  # cos 180° = −1, sin 180° = 0
    return np.clip(rotate @ (0.92 - 0.84 * as_drawn(rgb)), 0, 1)


def to_a_protanope(rgb):
    return encoded(PROTANOPIA @ linear(rgb))


def to_a_deuteranope(rgb):
    return encoded(DEUTERANOPIA @ linear(rgb))


PAGES = [as_drawn, on_a_dark_page]
COLORS = {arm: np.array(mpl.colors.to_rgb(look["color"])) for arm, look in ARM_STYLE.items()}
PAIRS = list(itertools.combinations(ARM_STYLE, 2))


def test_the_dark_filter_turns_white_to_near_black_and_back():
    assert on_a_dark_page([1, 1, 1]) == pytest.approx([0.08] * 3)
    assert on_a_dark_page([0, 0, 0]) == pytest.approx([0.92] * 3)
    blue = on_a_dark_page([0, 0, 0.6])
    assert blue[2] > blue[0] and blue[2] > blue[1]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("eye", [as_drawn, to_a_protanope, to_a_deuteranope])
@pytest.mark.parametrize("pair", PAIRS, ids=" / ".join)
def test_arms_are_told_apart_by_colour(page, eye, pair):
    """A distance of 20 in L*a*b* is about ten times the smallest that is seen side by side."""
    one, other = (lab(eye(page(COLORS[arm]))) for arm in pair)
    assert np.linalg.norm(one - other) >= 20


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("pair", PAIRS, ids=" / ".join)
def test_arms_are_told_apart_in_grey_scale(page, pair):
    one, other = (lab(page(COLORS[arm]))[0] for arm in pair)
    assert abs(one - other) >= 7


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("arm", ARM_STYLE)
def test_arms_stand_out_from_the_page(page, arm):
    """WCAG 2.1, 1.4.11: graphics have a contrast of 3 to 1."""
    assert contrast(page(COLORS[arm]), page([1, 1, 1])) >= 3


@pytest.mark.parametrize("key", ["color", "marker", "linestyle"])
def test_arms_differ_in_every_way(key):
    assert len({look[key] for look in ARM_STYLE.values()}) == len(ARM_STYLE)


def test_style_is_legible_and_white():
    style()
    keys = ("font.size", "xtick.labelsize", "ytick.labelsize", "axes.labelsize", "axes.titlesize", "legend.fontsize")
    sizes = [mpl.rcParams[key] for key in keys]
    assert min(sizes) >= 10 and mpl.rcParams["figure.figsize"][0] <= 6.5
    assert mpl.rcParams["savefig.facecolor"] == "white"


@pytest.mark.parametrize(
    "name, label",
    [
        ("lr", "learning rate η (lr)"),
        ("test accuracy", "test accuracy (fraction)"),
        ("train loss", "train loss (nats)"),
        ("weight norm", "weight norm (Euclidean)"),
        ("margin", "margin"),
    ],
)
def test_labels_have_units(name, label):
    assert label_of(name) == label


# ---- heat-map

LR, DECAY, L2 = [1e-4, 1e-3, 1e-2], [0.1, 1.0, 4.0], [1e-3, 1e-2, 1e-1]


def tuned(metric="validation accuracy"):
    runs = grid({"AdamW": {"lr": LR, "weight_decay": DECAY}, "Adam + L2": {"lr": LR, "l2": L2}}, range(2))
    decay = runs[["weight_decay", "l2"]].max(axis=1)
    best = np.where(runs["arm"] == "AdamW", -3 - np.log10(runs["lr"]), -2)  # AdamW: ηλ = 1e-3; coupled: ℓ = 0.01
    value = 0.9 - 0.1 * abs(np.log10(decay) - best) - 0.05 * abs(np.log10(runs["lr"]) + 3) + 0.02 * runs["seed"]
    table = runs.assign(step=50, metric=metric, value=value)
    return dict(list(table.groupby("arm", sort=False)))


def marks(ax):
    """{marker: {(x, y)}} of the panel's marks."""
    found = {}
    for line in ax.get_lines():
        found.setdefault(line.get_marker(), set()).update(zip(line.get_xdata(), line.get_ydata(), strict=True))
    return found


def cells(ax):
    return ax.collections[0].get_array()


def test_heat_map_shows_means_over_seeds_on_one_scale():
    adamw, coupled = heat_map_pair(tuned(), "validation accuracy")
    tables = tuned()
    for ax, arm, decay in ((adamw, "AdamW", "weight_decay"), (coupled, "Adam + L2", "l2")):
        expected = tables[arm].pivot_table(index=decay, columns="lr", values="value").to_numpy()
        assert np.asarray(cells(ax)).reshape(3, 3) == pytest.approx(expected)
        assert ax.get_title() == arm and ax.get_xlabel() == "learning rate η (lr)"
    assert adamw.collections[0].get_clim() == coupled.collections[0].get_clim()
    assert (
        adamw.get_ylabel() == "decoupled decay λ\n(weight_decay)" and coupled.get_ylabel() == "coupled penalty ℓ\n(l2)"
    )
    assert [tick.get_text() for tick in adamw.get_xticklabels()] == ["1e−4", "0.001", "0.01"]
    assert "validation accuracy (fraction)" in adamw.figure.axes[-1].get_xlabel()


@pytest.mark.parametrize("page", PAGES)
def test_heat_map_colours_brighten_steadily(page):
    shades = heat_map_pair(tuned(), "validation accuracy")[0].collections[0].get_cmap()
    steps = np.diff([lab(page(shades(share)[:3]))[0] for share in np.linspace(0, 1, 12)])
    assert (steps > 0).all() or (steps < 0).all()


def test_heat_map_marks_the_best_decay_for_each_lr():
    adamw, coupled = heat_map_pair(tuned(), "validation accuracy")
    assert marks(adamw) == {"o": {(1e-4, 4.0), (1e-2, 0.1)}, "*": {(1e-3, 1.0)}}
    assert marks(coupled) == {"o": {(1e-4, 1e-2), (1e-2, 1e-2)}, "*": {(1e-3, 1e-2)}}
    tables = {arm: table.assign(value=-table["value"]) for arm, table in tuned().items()}
    adamw, _ = heat_map_pair(tables, "validation accuracy", higher_is_better=False)
    assert marks(adamw)["*"] == {(1e-3, 1.0)}


def test_heat_map_leaves_diverged_and_missing_cells_out():
    table = tuned()["AdamW"]
    table.loc[(table["lr"] == 1e-3) & (table["weight_decay"] == 1.0) & (table["seed"] == 0), "value"] = np.nan
    table = table[(table["lr"] < 1e-2) | (table["weight_decay"] > 0.1)]
    (ax,) = heat_map_pair({"AdamW": table}, "validation accuracy")
    assert cells(ax).mask.reshape(3, 3).nonzero() == (pytest.approx([0, 1]), pytest.approx([2, 1]))
    assert marks(ax)["o"] | marks(ax)["*"] == {(1e-4, 4.0), (1e-3, 4.0), (1e-2, 1.0)}


def test_heat_map_of_three_panels_keeps_a_page_width_and_limits():
    tables = tuned() | {"AdamW, lr-independent": tuned()["AdamW"]}
    axes = heat_map_pair(tables, "validation accuracy", limits=(0.7, 0.9))
    assert axes.shape == (3,) and axes[0].figure.get_size_inches()[0] <= 6.5
    assert axes[0].collections[0].get_clim() == (0.7, 0.9)


def test_heat_map_gives_zero_a_place_of_its_own():
    table = tuned()["AdamW"].replace({"weight_decay": {0.1: 0.0}})
    (ax,) = heat_map_pair({"AdamW": table}, "validation accuracy")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["0", "1", "4"]
    assert ax.get_yticks() == pytest.approx([0.25, 1, 4])


@pytest.mark.parametrize(
    "values, labels",
    [
        ([0.001, 0.003, 0.01], ["0.001", "0.003", "0.01"]),
        ([0, *np.logspace(-3, -1, 7)], ["0", "$10^{-3}$", "", "", "$10^{-2}$", "", "", "$10^{-1}$"]),
        ([3, 6, 12, 24, 48, 96, 192], ["3", "", "12", "", "48", "", "192"]),
    ],
)
def test_heat_map_labels_powers_of_ten_where_there_is_no_room_for_all(values, labels):
    runs = grid({"AdamW": {"lr": [1e-3, 1e-2], "weight_decay": values}}, [0])
    table = runs.assign(step=1, metric="validation accuracy", value=np.arange(len(runs)))
    (ax,) = heat_map_pair({"AdamW": table}, "validation accuracy")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == labels


def test_heat_map_uses_axes_that_it_is_given():
    _, given = plt.subplots(1, 2)
    assert list(heat_map_pair(tuned(), "validation accuracy", axes=given)) == list(given)
    with pytest.raises(ValueError, match="axes holds 1 panels for 2 tables"):
        heat_map_pair(tuned(), "validation accuracy", axes=given[:1])


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: heat_map_pair({}, "validation accuracy"), "tables is empty"),
        (lambda: heat_map_pair(tuned(), "AUC"), "table 'AdamW' has no metric 'AUC'; it has 'validation accuracy'"),
        (lambda: heat_map_pair(tuned(), "validation accuracy", step=7), "step is 7; .* was recorded at \\[50\\]"),
        (lambda: heat_map_pair(tuned(), "validation accuracy", x="eta"), "lacks the column 'eta'"),
        (lambda: heat_map_pair({"a": tuned()["AdamW"].iloc[:0]}, "validation accuracy"), "table 'a' is empty"),
        (lambda: heat_map_pair({"a": pd.concat(tuned())}, "validation accuracy"), "y is not given"),
    ],
)
def test_heat_map_refuses(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# ---- curves


def curves(metric="weight norm"):
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "step": step,
            "metric": metric,
            "value": rate**step + 0.01 * seed,
            "weight_decay": step,
        }
        for arm, rate in (("Adam", 1.0), ("AdamW", 0.9), ("Adam + L2", 0.8))
        for seed in range(4)
        for step in range(0, 11, 2)
    ]
    return pd.DataFrame(rows)


def labelled(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def test_trajectories_draw_the_mean_of_each_arm_in_its_style():
    lines = labelled(trajectories(curves()))
    assert list(lines) == ["AdamW", "Adam + L2", "Adam"]
    assert lines["AdamW"].get_ydata() == pytest.approx(0.9 ** np.arange(0, 11, 2) + 0.015)
    for arm, line in lines.items():
        look = ARM_STYLE[arm]
        assert (line.get_color(), line.get_marker(), line.get_linestyle()) == tuple(look.values())


def test_trajectories_band_is_the_t_interval_of_the_mean():
    ax = trajectories(curves())
    edges = ax.collections[0].get_paths()[0].vertices
    seeds = 0.01 * np.arange(4)
    half = 3.182446 * seeds.std(ddof=1) / 2  # t(0.975; 3) = 3.182446
    at_zero = edges[edges[:, 0] == 0][:, 1]
    assert (at_zero.min(), at_zero.max()) == pytest.approx((1.015 - half, 1.015 + half))


def test_theory_is_a_thin_black_line_under_markers():
    t = np.arange(11)
    ax = trajectories(curves(), theory={"(1 − ηλ)ᵗ": (t, 0.9**t), "1": (t, t**0)}, log="y")
    lines = labelled(ax)
    assert lines["(1 − ηλ)ᵗ"].get_color() == "black" and lines["(1 − ηλ)ᵗ"].get_linewidth() <= 1
    assert lines["(1 − ηλ)ᵗ"].get_linestyle() != lines["1"].get_linestyle()
    assert lines["AdamW"].get_linestyle() == "None" and lines["AdamW"].get_marker() == "o"
    assert ax.get_yscale() == "log" and ax.get_xscale() == "linear"
    assert ax.get_ylabel() == "weight norm (Euclidean)" and ax.get_xlabel() == "step t"


def test_trajectories_by_another_column_have_looks_of_their_own():
    lines = labelled(
        trajectories(curves().assign(lr=lambda t: t["arm"].map({"AdamW": 0.1, "Adam": 1e-3}).fillna(0.01)), hue="lr")
    )
    assert list(lines) == ["lr = 0.001", "lr = 0.01", "lr = 0.1"]
    assert len({line.get_color() for line in lines.values()}) == 3
    assert len({line.get_marker() for line in lines.values()}) == 3


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: trajectories(curves().iloc[:0]), "the table is empty"),
        (lambda: trajectories(curves().drop(columns="step")), "the table lacks the column 'step'"),
        (lambda: trajectories(curves().replace("AdamW", "SGD")), "arm 'SGD' has no style; expected one of 'AdamW'"),
        (lambda: trajectories(pd.concat([curves(), curves("loss")])), "metric is None and the table has"),
        (lambda: trajectories(curves(), metric="loss"), "metric is 'loss' and the table has \\['weight norm'\\]"),
        (lambda: trajectories(curves(), log="z"), "log is 'z'"),
        (lambda: dose_response(curves(), metrics="loss"), "no metric 'loss'"),
        (lambda: dose_response(curves(), metrics=[]), "metrics is empty"),
        (lambda: dose_response(curves(), x="dose", metrics="weight norm"), "lacks the column 'dose'"),
        (lambda: dose_response(doses([0.0]), metrics="AUC"), "a logarithmic axis cannot show \\[0.0\\]"),
        (lambda: dose_response(doses([-1.0, 1.0]), metrics="AUC"), "a logarithmic axis cannot show"),
        (
            lambda: dose_response(doses([1.0]), metrics=["AUC"], axes=plt.subplots(2)[1]),
            "axes holds 2 panels for 1 metrics",
        ),
    ],
)
def test_curves_refuse(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def doses(values, metrics=("AUC",)):
    rows = [
        {"arm": "AdamW", "seed": s, "step": t, "metric": m, "weight_decay": d, "value": d + t + 0.1 * s}
        for m in metrics
        for d in values
        for s in range(3)
        for t in (0, 10)
    ]
    return pd.DataFrame(rows)


def test_dose_response_shows_the_last_step_with_zero_on_its_axis():
    axes = dose_response(doses([0.0, 0.3, 1.0, 3.0], ["AUC", "test accuracy"]), metrics=["AUC", "test accuracy"])
    assert axes.shape == (2,) and axes[0].get_xscale() == "symlog"
    line = labelled(axes[0])["AdamW"]
    assert line.get_xdata() == pytest.approx([0, 0.3, 1, 3]) and line.get_ydata() == pytest.approx(
        [10.1, 10.4, 11.1, 13.1]
    )
    assert [tick.get_text() for tick in axes[1].get_xticklabels()] == ["0", "0.3", "1", "3"]
    assert axes[1].get_xlabel() == "decoupled decay λ (weight_decay)"
    assert [ax.get_ylabel() for ax in axes] == ["AUC", "test accuracy (fraction)"]
    assert dose_response(doses([0.3, 1.0]), metrics="AUC", step=0)[0].get_xscale() == "log"


# ---- paired differences


def effect(mean, control="Adam + L2", metric="test accuracy"):
    differences = pd.Series(mean + 0.001 * np.linspace(-1, 1, 12) ** 3)
    return Effect.of(differences, "AdamW", control, metric)


def test_paired_strip_shows_seeds_mean_interval_and_the_band_that_does_not_matter():
    effects = {"deep": effect(0.02), "shallow": effect(0.0)}
    ax = paired_strip(effects, 0.005)
    ax.figure.canvas.draw()  # where the dots find their places
    dots = [swarm.get_offsets() for swarm in ax.collections]
    assert [sorted(places[:, 0]) for places in dots] == [
        pytest.approx(sorted(100 * found.differences)) for found in effects.values()
    ]
    assert all(np.abs(places[:, 1] - (row - 0.15)).max() <= 0.4 for row, places in enumerate(dots))
    assert all(len(np.unique(places.round(6), axis=0)) == len(places) for places in dots)  # none covers another
    means = [line.get_xdata()[0] for line in ax.get_lines() if line.get_marker() == "|"]
    assert means == pytest.approx([2.0, 0.0])
    bars = [line.get_xdata() for line in ax.get_lines() if line.get_linewidth() == 2.2]
    assert bars == [pytest.approx([100 * found.low, 100 * found.high]) for found in effects.values()]
    band = ax.patches[0]
    assert (band.get_x(), band.get_width()) == pytest.approx((-0.5, 1.0))
    texts = [text.get_text() for text in ax.texts]
    assert "\n".join(effects["deep"].parts(unit="pp")) in texts
    assert "← Adam + L2 better" in texts and "AdamW better →" in texts
    assert "difference in test accuracy (percentage points)" in ax.get_xlabel()
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["deep", "shallow"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first regime is at the top


def test_the_strip_of_small_numbers_gives_all_together_four_decimals():
    rows = {name: dataclasses.replace(effect(mean), metric="radius") for name, mean in (("deep", 0.02), ("flat", 0.0))}
    words = [text.get_text() for text in paired_strip(rows, 0.005, together=True).texts]
    assert any(word.startswith("+0.0100\n[") for word in words), words


def test_the_strip_of_tuned_arms_shows_both_parts_what_has_no_decay_and_all_together():
    one = effect(0.02)
    tuned = dataclasses.replace(one, low=one.mean - 0.03, high=one.mean + 0.03, by_seeds=(one.low, one.high))
    rows = {"deep": tuned, "wide": dataclasses.replace(tuned, undecayed=("Adam + L2",)), "flat": effect(0.0)}
    ax = paired_strip(rows, 0.005, together=True)
    bars = {
        (round(line.get_ydata()[0]), line.get_linewidth()): line.get_xdata()
        for line in ax.get_lines()
        if line.get_color() == "black" and len(line.get_xdata()) == 2 and np.ptp(line.get_ydata()) == 0
    }
    assert bars[0, 2.2] == pytest.approx([100 * one.low, 100 * one.high])
    assert bars[0, 0.9] == pytest.approx([100 * tuned.low, 100 * tuned.high]) and (2, 0.9) not in bars
    marks = [
        line.get_marker() for line in ax.get_lines() if line.get_color() == "black" and line.get_marker() != "None"
    ]
    assert marks == ["|", "o", "|"]
    common = pooled(rows)
    (diamond,) = ax.patches[-1:]
    assert sorted({round(x, 6) for x, _ in diamond.get_xy()}) == pytest.approx(
        [100 * common.low, 100 * common.mean, 100 * common.high], abs=1e-5
    )
    assert [label.get_text() for label in ax.get_yticklabels()][-1] == "all together"


def test_paired_strip_keeps_its_band_visible_beside_far_larger_differences():
    ax = paired_strip({"deep": effect(0.5), "shallow": effect(-0.002)}, 0.005)
    assert ax.get_xscale() == "symlog" and "logarithmic beyond ±1" in ax.get_xlabel()
    pixels = ax.transData.transform([(-0.5, 0), (0.5, 0)])[:, 0]
    assert np.diff(pixels) > 0.05 * ax.bbox.width
    assert [text.get_text() for text in ax.get_xticklabels()] == ["−10", "−1", "0", "1", "10"]
    assert paired_strip({"deep": effect(0.02)}, 0.005).get_xscale() == "linear"


def test_paired_strip_in_the_metrics_own_unit():
    ax = paired_strip({"deep": effect(0.02, metric="test loss")}, 0.005)
    assert "difference in test loss (nats)" in ax.get_xlabel()
    assert ax.patches[0].get_width() == pytest.approx(0.01)


@pytest.mark.parametrize(
    "effects, smallest, says",
    [
        ({}, 0.005, "effects is empty"),
        ({"deep": effect(0.02)}, 0.0, "smallest_effect is 0.0"),
        ({"a": effect(0.02), "b": effect(0.02, control="Adam")}, 0.005, "effects compare different things"),
    ],
)
def test_paired_strip_refuses(effects, smallest, says):
    with pytest.raises(ValueError, match=says):
        paired_strip(effects, smallest)


# ---- claims side by side

CLAIMS = pd.DataFrame(
    [
        ("first", 0.02, 0.01, 0.04, 0.005, "supported"),
        ("second", -3.0, -4.0, -2.0, 0.5, "opposite"),
        ("third", 0.001, -0.02, 0.03, 0.01, "undecided"),
    ],
    columns=["name", "mean", "low", "high", "smallest_effect", "outcome"],
)


def test_claims_share_an_axis_in_units_of_what_would_matter_to_each():
    ax = claim_forest(CLAIMS)
    lines = [line for line in ax.get_lines() if line.get_xdata()[0] != 0]
    bars = [tuple(line.get_xdata()) for line in lines if len(line.get_xdata()) == 2]
    assert bars == [pytest.approx(bar) for bar in ((2, 8), (-8, -4), (-2, 3))]
    marks = {line.get_marker(): line.get_xdata()[0] for line in lines if len(line.get_xdata()) == 1}
    assert marks == pytest.approx({">": 4, "<": -6, "o": 0.1})
    assert [line.get_ydata()[0] for line in lines if len(line.get_xdata()) == 1] == [0, 1, 2]
    band = ax.patches[0]
    assert (band.get_x(), band.get_width()) == (-1, 2) and "too small to matter" in ax.get_xlabel()
    low, high = ax.get_xlim()
    assert low < -8 and high > 8 and ax.get_ylim()[0] > ax.get_ylim()[1]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second", "third"]
    told = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert told == ["supported (1)", "opposite (1)", "undecided (1)"]


def test_every_outcome_has_a_mark_of_its_own():
    assert set(OUTCOME_STYLE) == set(OUTCOMES)
    for key in ("marker", "color"):
        assert len({look[key] for look in OUTCOME_STYLE.values()}) == len(OUTCOMES)


@pytest.mark.parametrize(
    "table, says",
    [
        (CLAIMS.drop(columns="low"), r"lacks the columns \['low'\]"),
        (CLAIMS[:0], "table is empty"),
        (CLAIMS.assign(smallest_effect=0.0), "smallest_effect holds 0.0"),
        (CLAIMS.assign(outcome="refuted"), r"outcome holds \['refuted'\]"),
    ],
)
def test_claim_forest_refuses(table, says):
    with pytest.raises(ValueError, match=says):
        claim_forest(table)


def test_functions_draw_on_given_axes_and_leave_the_callers_settings_alone():
    before = dict(mpl.rcParams)
    _, ax = plt.subplots()
    assert trajectories(curves(), ax=ax) is ax
    assert paired_strip({"deep": effect(0.02)}, 0.005, ax=plt.subplots()[1]).get_xlabel()
    assert dict(mpl.rcParams) == before
