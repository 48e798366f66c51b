"""What is claimed, and the protocol that decides it."""

from collections.abc import Mapping

import pandas as pd

from adamw_book.evidence import Claim, Effect
from adamw_book.protocol import Measurement, Protocol, Tables

from .rules import CONSTANT, TIMESCALE, TOTAL, one_of, rule_against, tuning_again
from .settings import AXES, COUPLED, DOSES, LABEL_NOISE, MODELS, PEAK, REFERENCE, SETTINGS, condition, maps

DATA = [name for axis in ("batch size", "data, same epochs", "data, same steps") for name in AXES[axis]]
HELD_OUT = [name for name in SETTINGS if name != REFERENCE]
FORMS = (REFERENCE, "WSD", *AXES["form of the decay"])

INTERPLAY = Claim(
    id="learning_rate_schedules.interplay",
    tag="3096515",
    statement="A decay that was tuned under one learning-rate schedule costs accuracy under another, compared with one "
    "that is tuned there.",
    source="The interplay of weight decay with the learning-rate schedule is a subtle one, and a piece of engineering "
    "craft in itself.",
    criterion="Six other schedules and the cosine, one peak rate. Supported: test accuracy with the decay tuned under "
    "the schedule itself, minus that with the decay tuned under another, averaged over all pairs, is half a percentage "
    "point or more, with the 95% interval above zero.",
    metric="accuracy gained by tuning again",
    smallest_effect=0.005,
    primary="MLP, LayerNorm · another schedule",
    dividing="what changes and on the network",
)
RULE = Claim(
    id="learning_rate_schedules.timescale",
    tag="3096515",
    statement="Keeping the timescale 1/(ηλ), counted in epochs, carries a tuned decay to other batch and data set "
    "sizes with a higher accuracy than keeping λ.",
    source="The craft has a rule in the literature: the best timescale 1/(ηλ), in epochs, hardly changes with the size "
    "of the data set (Wang and Aitchison, 2025).",
    criterion="λ is tuned in one setting and carried to nine others that differ in batch or data set size and had no "
    "part in the rule. Supported: mean test accuracy there is higher than with λ kept by half a percentage point or "
    "more, with the 95% interval above zero.",
    metric="accuracy gained by the rule",
    smallest_effect=0.005,
    primary="MLP, LayerNorm · batch and data set size, against λ kept",
    dividing="what changes, on the network and on the rule that it is compared with",
)


def _whole(tables: Tables) -> pd.DataFrame:
    return pd.concat([tables["tuned"], tables["tested"]], ignore_index=True)


def interplay_effects(tables: Tables) -> dict[str, Effect]:
    """What tuning the decay again is worth, for each network and whatever changes: schedule, form, length, batch size,
    data; and for Adam + L2 when the schedule does."""
    changes: Mapping[str, list[str]] = {
        "another schedule": list(COUPLED),
        "another form of the decay": list(FORMS),
        "another length": [REFERENCE, *AXES["length"]],
        "another batch size": [REFERENCE, *AXES["batch size"]],
        "other data, same epochs": [REFERENCE, *AXES["data, same epochs"]],
        "other data, same steps": [REFERENCE, *AXES["data, same steps"]],
    }
    table, found = _whole(tables), {}
    for model in MODELS:
        for change, names in changes.items():
            found[f"{model} · {change}"] = tuning_again(one_of(table, model), names, INTERPLAY.metric)
        coupled = one_of(table, model, "Adam + L2")
        found[f"{model} · another schedule, Adam + L2"] = tuning_again(coupled, COUPLED, INTERPLAY.metric)
    return found


def rule_effects(tables: Tables) -> dict[str, Effect]:
    """The timescale rule against its rivals, for each network, in the held-out settings together and by what they
    change."""
    sets = {"batch and data set size": DATA, "all held-out settings": HELD_OUT, "length": list(AXES["length"])}
    table, found = _whole(tables), {}
    for model in MODELS:
        own = one_of(table, model)
        for which, names in sets.items():
            for rival in (CONSTANT, TOTAL):
                if (which, rival) == ("length", CONSTANT):
                    continue  # the two rules are one there
                regime = f"{model} · {which}, against {rival}"
                found[regime] = rule_against(own, TIMESCALE, rival, names, RULE.metric)
    return found


PROTOCOL = Protocol(
    chapter="frontier/learning_rate_schedules",
    conditions={},
    claims={INTERPLAY: interplay_effects, RULE: rule_effects},
    tuning_seeds=range(10),
    evaluation_seeds=range(2000, 2020),
    measurements=[
        Measurement("tuned", maps, list(range(10)), tunes=True),
        Measurement("tested", lambda seeds: maps(seeds, "test"), list(range(2000, 2020))),
    ],
    measured={model: condition(model) for model in MODELS},
    probed=list(MODELS),
    settings={
        "settings": {name: vars(one) for name, one in SETTINGS.items()},
        "peak": PEAK, "doses": DOSES, "label_noise": LABEL_NOISE, "coupled": list(COUPLED),
    },
)  # fmt: skip
STUDY = PROTOCOL.study
