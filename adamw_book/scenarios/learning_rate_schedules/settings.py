"""The *settings*: one way to train after another, each of which tunes a decay of its own over the same doses."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from adamw_book.arms import ADAM_L2, ADAMW, Arm
from adamw_book.data import digits_splits
from adamw_book.ensemble import Task
from adamw_book.evidence import grid
from adamw_book.models import MLP
from adamw_book.protocol import Condition
from adamw_book.schedules import decay_factors, learning_rate_factors

LABEL_NOISE = 0.2
ARMS = (ADAMW, ADAM_L2)
MODELS = {"MLP": MLP, "MLP, LayerNorm": lambda: MLP(norm=True)}
PEAK = {"MLP": 0.01, "MLP, LayerNorm": 0.005}  # the peak rate of each network, the same in all settings
DOSES = {  # smallest of eight decays, each twice the one before; settled on validation data of the reference
    "MLP": {"AdamW": 0.05, "Adam + L2": 0.0008},
    "MLP, LayerNorm": {"AdamW": 0.8, "Adam + L2": 0.04},
}
COUNT = 8


@dataclass(frozen=True)
class Setting:
    """One way to train. ``images``: in the training set."""

    schedule: str = "cosine"
    warmup: float = 0.0
    decay_schedule: str = "torch"
    steps: int = 400
    batch_size: int = 50
    images: int = 400

    @property
    def share(self) -> float:
        """Mean over the steps of what decay takes, as a share of what it takes at the peak rate."""
        factors = learning_rate_factors(self.schedule, self.steps, self.warmup)
        return float((factors * decay_factors(self.decay_schedule, factors)).mean())

    @property
    def steps_an_epoch(self) -> float:
        """Steps in which the training set is seen once."""
        return self.images / self.batch_size


REFERENCE = "reference"
AXES = {  # what changes against the reference: {axis: {name: setting}}; epochs are 50 where they are not named
    "schedule": {
        "constant": Setting("constant"),
        "linear": Setting("linear"),
        "WSD": Setting("WSD"),
        "one-cycle": Setting("one-cycle"),
        "10% warm-up": Setting(warmup=0.1),
        "50% warm-up": Setting(warmup=0.5),
    },
    "form of the decay": {
        "cosine, λ constant": Setting(decay_schedule="constant"),
        "cosine, AdamC": Setting(decay_schedule="AdamC"),
        "WSD, λ constant": Setting("WSD", decay_schedule="constant"),
        "WSD, AdamC": Setting("WSD", decay_schedule="AdamC"),
    },
    "length": {f"{steps} steps": Setting(steps=steps) for steps in (100, 200, 800, 1600)},
    "batch size": {f"batches of {b}": Setting(batch_size=b, steps=20_000 // b) for b in (25, 100, 200)},
    "data, same epochs": {f"{n} images, 50 epochs": Setting(images=n, steps=n) for n in (100, 200, 800)},
    "data, same steps": {f"{n} images, 400 steps": Setting(images=n) for n in (100, 200, 800)},
}
SETTINGS = {REFERENCE: Setting()} | {name: one for axis in AXES.values() for name, one in axis.items()}
COUPLED = (REFERENCE, *AXES["schedule"])  # the settings that Adam + L2 is tuned in, too


def task(model: str, images: int) -> Task:
    """A network (a name in ``MODELS``) on so many digits, one in five of them with a wrong label, and 597 test images
    that no seed tunes on."""
    return Task(
        f"{model} · {images} digits",
        MODELS[model],
        lambda seed: digits_splits(seed, train=images, label_noise=LABEL_NOISE, fixed_test=True),
    )


def decays(model: str, arm: Arm) -> list[float]:
    """The eight doses of an arm in every setting of a network, ascending."""
    return [float(f"{DOSES[model][arm.name] * 2**k:.4g}") for k in range(COUNT)]


def condition(model: str, steps: int = 400, batch_size: int = 50, images: int = 400) -> Condition:
    """What the settings of one length, batch size and data set size have in common."""
    ranges = {arm.decay: (decays(model, arm)[0], decays(model, arm)[-1]) for arm in ARMS}
    return Condition(
        task(model, images),
        {"lr": (PEAK[model] / 2, PEAK[model] * 2), **ranges, "count": COUNT},
        steps=steps,
        batch_size=batch_size,
        schedule="cosine",
        arms=ARMS,
        chunk_size=40,
    )


def runs(model: str, name: str, seeds: Sequence[int]) -> pd.DataFrame:
    """The runs of one setting (a name in ``SETTINGS``): every dose for each seed, of Adam + L2 as well in the settings
    ``COUPLED``. Columns setting, schedule, warmup and decay_schedule beside those of every run."""
    arms = ARMS if name in COUPLED else (ADAMW,)
    table = grid({arm.name: {"lr": [PEAK[model]], arm.decay: decays(model, arm)} for arm in arms}, seeds)
    one = SETTINGS[name]
    how = {column: getattr(one, column) for column in ("schedule", "warmup", "decay_schedule")}
    return table.assign(setting=name, **how)


def train_map(model: str, seeds: Sequence[int], split: str, names: Sequence[str] = tuple(SETTINGS)) -> pd.DataFrame:
    """The accuracy on ``split`` at the end of every run of some settings of a network: arm, lr, weight_decay, l2, seed,
    setting, step, metric, value, condition (the network)."""
    together: dict[tuple, list[str]] = {}
    for name in names:
        one = SETTINGS[name]
        together.setdefault((one.steps, one.batch_size, one.images), []).append(name)
    tables = [
        condition(model, *shape).train(pd.concat([runs(model, name, seeds) for name in own]), (split,))
        for shape, own in together.items()
    ]
    table = pd.concat(tables, ignore_index=True).drop(columns=["schedule", "warmup", "decay_schedule"])
    return table[table["metric"] == f"{split} accuracy"].assign(condition=model)


def maps(seeds: Sequence[int], split: str = "validation") -> pd.DataFrame:
    """:func:`train_map` of every network."""
    return pd.concat([train_map(model, seeds, split) for model in MODELS], ignore_index=True)
