"""The *larger GPT*: GPT-2's architecture with 10.8 million parameters, three hundred times the chapter's model, which
reads 256 bytes at a time and passes once over Python's standard library. A study of its own, and one for a GPU:

    python -m adamw_book evidence --chapter larger_gpt

It is sized for one data-centre GPU with 16 GB or more, and not measured yet. The tuning and the evaluation of each
condition are kept as they end, so that what was stopped goes on. The text is that of the Python that runs it; a record
says in its table "corpus" which text that was.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
import torch
from torch.cuda import is_available

from adamw_book.ledger import Study, Unavailable
from adamw_book.protocol import Contrast, Measurement, Protocol, Regime

from .study import NEXT_BYTE
from .tasks import SIZES, SMALL, Setting, condition
from .text import LEFT_OUT, VOCABULARY, parts, standard_library

LENGTH, TIMES = 256, 10
PRIMARY = "10 million weights · one pass"
AGAIN = "10 million weights · a tenth of the windows, ten times"

# The ranges are reckoned, not settled on a card: the edges that a record names will say how well. A penalty matters
# where ℓ|w| is comparable with the gradient's entries. The gradient's norm is much the same in both models once they
# have begun, so with 300 times as many entries each is √300 times smaller, and so is ℓ. Both decays span one ratio.
LARGE = Setting(
    model={"vocabulary": VOCABULARY, "context": LENGTH, "width": 384, "depth": 6, "heads": 6},
    batch=32,
    steps=600,  # 4.9 MB of windows, which each of today's libraries has, once its tests are left out
    data={"validation": 128, "test": 256, "length": LENGTH, "apart": True},
    ranges={"lr": (0.0002, 0.005), "weight_decay": (0.03, 9.0), "l2": (0.00003, 0.009), "count": 10},
    corpus=standard_library,
)
# What a record's probe runs, on any machine: the same conditions, with the small model and the packaged text.
SHRUNK = replace(SMALL, steps=100, data=SIZES | {"apart": True})

LARGER = replace(
    NEXT_BYTE,
    id="larger_gpt.next_byte",
    statement="A language model of ten million parameters that passes once over its text predicts held-out text better "
    "under tuned AdamW than under Adam + L2 tuned by the same law.",
    primary=PRIMARY,
    dividing="how often the network meets its text",
)


def read(setting: Setting) -> pd.DataFrame:
    """What the text was: a row a split, with its bytes and their SHA-256."""
    texts = {name: bytes(text.tolist()) for name, text in parts(setting.corpus).items()}
    return pd.DataFrame(
        [(name, len(text), hashlib.sha256(text).hexdigest()) for name, text in texts.items()],
        columns=["split", "bytes", "sha256"],
    )


def protocol(setting: Setting) -> Protocol:
    """The two conditions with the models and the text of a setting: every window once, or a tenth of them ten times."""
    few = setting.steps * setting.batch // TIMES
    # The windows that are met again are not judged: to read 1,920 of 256 bytes at once takes 17 GB a model.
    again = replace(condition(AGAIN, windows=few, setting=setting), judged=("test",))
    conditions = {PRIMARY: condition(PRIMARY, setting=setting), AGAIN: again}
    return Protocol(
        chapter="frontier/language_model/larger_gpt",
        conditions=conditions,
        claims={LARGER: Contrast(regimes={name: Regime(name, "test bits per byte") for name in conditions})},
        tuning_seeds=range(40, 42),
        evaluation_seeds=range(4000, 4006),
        measurements=[Measurement("corpus", lambda seeds: read(setting), [0])],
        probed=[AGAIN],
        probed_metrics="bits per byte|norm",
        settings={
            "model": dict(setting.model), "data": dict(setting.data), "windows met again": few,
            "left out": sorted(LEFT_OUT), "matrix products": "TF32",
        },
        kept="bits|norm|kurtosis|outlier|rows left",
    )  # fmt: skip


@contextmanager
def on_a_card() -> Iterator[None]:
    """Matrix products in TF32, which rounds their factors to 11 bits, within. Raises :class:`Unavailable` without a
    CUDA device."""
    if not is_available():
        raise Unavailable(
            "larger_gpt trains hundreds of models of 10.8 million parameters, and torch finds no CUDA device here; one "
            "with 16 GB of memory or more would do"
        )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def on_demand(full: Protocol) -> Study:
    """The study of a protocol that a card runs, and any machine checks."""
    card = on_a_card()
    return replace(full.study, run=card(full.run), retuned=card(full.retuned), probe=protocol(SHRUNK).probe)


PROTOCOL = protocol(LARGE)
STUDY = on_demand(PROTOCOL)
