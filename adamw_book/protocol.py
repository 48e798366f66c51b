"""THE protocol, once: a chapter declares its conditions, measurements and claims, and everything else follows.

Every arm of every condition is tuned by one search law on its own seeds; the winner by validation data, and each rival
that other tuning seeds might have chosen, meets the test data on fresh seeds; effects are differences of the whole
procedure (:func:`adamw_book.evidence.smoothed`). The same steps run again on other seeds for `make stability`, a few
runs serve as the record's probe, and the winners are trained again live in the chapter.

    tune → choose → evaluate → side, contrast → effects           (`run` and `effects`: the record)
    live                                                            (the winners now, in the chapter)
    retuned                                                         (a smaller design on other seeds)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from .arms import ADAM_L2, ADAMW, THREE, Arm
from .ensemble import Result, train
from .evidence import CONFIGURATION, Claim, Effect, Side, choose, paired, search, smoothed
from .evidence.grids import retrain
from .ledger import Study, probe_rows
from .models import matrices
from .replicas import Replicas
from .task import Snapshot, Task
from .untrained import untrained

Tables = Mapping[str, pd.DataFrame]
Part = Callable[[str, Callable[[], pd.DataFrame]], pd.DataFrame]


def at_once(name: str, function: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A part of a protocol that nothing is kept of: it is run."""
    return function()


@dataclass(frozen=True)
class Condition:
    """One task and how its arms are tuned and judged.

    search: the ranges of :func:`adamw_book.evidence.search`. rules: {name: the validation metric that chooses}, the
    first being the chapter's own; a metric that ends in "loss", or counts "bits per" something, is better when lower.
    seen: the splits that tuning sees, more than one where a rule needs it. judged: those on which what was chosen is
    evaluated. decays: parameters that decay acts on, by default matrices (gains of norms and biases are exempt). tuned:
    the columns of ``runs`` that make a configuration. chunk_size: replicas trained at a time, where the ensemble's own
    choice outgrows the caches.
    vary(runs): gives runs further columns that are tuned, such as a schedule. judge(result, splits): what else is
    measured on the trained models (attacks, thresholds), a table of rows with the columns of ``result.table``;
    ``splits`` is ``seen`` when tuning and ``judged`` when evaluating. measure: along the way, as in
    :func:`adamw_book.ensemble.train`, made anew for each training by ``measure(condition)``. kind: how runs are
    trained, as there; one of its own says with ``described()`` what a record keeps of it.
    """

    task: Task
    search: Mapping
    steps: int
    batch_size: int | None = None
    schedule: str = "constant"
    arms: Sequence[Arm] = THREE
    rules: Mapping[str, str] = field(default_factory=lambda: {"accuracy": "validation accuracy"})
    seen: Sequence[str] = ("validation",)
    judged: Sequence[str] = ("train", "test")
    decays: Callable[[str], bool] = matrices
    tuned: Sequence[str] = CONFIGURATION
    chunk_size: int | None = None
    vary: Callable[[pd.DataFrame], pd.DataFrame] = lambda runs: runs
    judge: Callable[[Result, Sequence[str]], pd.DataFrame] | None = None
    measure: Callable[[Condition], Callable[[Snapshot], dict]] | None = None
    kind: Callable[..., Replicas] = Replicas

    def train(self, runs: pd.DataFrame, evaluate: Sequence[str], **options) -> pd.DataFrame:
        """The table of these runs; ``options`` are those of :func:`adamw_book.ensemble.train`."""
        names = ("steps", "batch_size", "schedule", "decays", "chunk_size", "kind")
        own = {name: getattr(self, name) for name in names}
        if self.measure is not None:
            own["measure"] = self.measure(self)
        result = train(self.task, runs, evaluate=evaluate, **own | options, keep_parameters=self.judge is not None)
        if self.judge is None:
            return result.table
        return pd.concat([result.table, self.judge(result, evaluate)], ignore_index=True)

    def runs(self, seeds: Sequence[int], count: int | None = None) -> pd.DataFrame:
        """The tuning runs, of ``count`` configurations an arm where one is given."""
        ranges = dict(self.search) | ({"count": count} if count else {})
        return self.vary(search(ranges, seeds, self.arms))

    def middle(self) -> pd.DataFrame:
        """One configuration an arm, from the middle of its ranges: (arm, lr, weight_decay, l2)."""
        middles = {name: (bounds[0] * bounds[1]) ** 0.5 for name, bounds in self.search.items() if name != "count"}
        rows = [
            {"arm": arm.name, "lr": middles["lr"]} | arm.coefficients(middles[arm.decay] if arm.decay else 0.0)
            for arm in self.arms
        ]
        return pd.DataFrame(rows)

    def described(self) -> dict:
        """What a record keeps of a condition; its task is told apart by the probe."""
        listed = {name: list(value) if name != "count" else value for name, value in self.search.items()}
        return {
            "search": listed, "steps": self.steps, "batch_size": self.batch_size, "schedule": self.schedule,
            "arms": [arm.name for arm in self.arms], "rules": dict(self.rules), "judged": list(self.judged),
            "tuned": list(self.tuned), **({} if self.kind is Replicas else self.kind.described()),
        }  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """A mechanism or a dose, measured without tuning: ``function(seeds)`` → a table.

    probed: which rows of the first seed's table a record's probe keeps, as tidy rows (arm, seed, step, metric, value),
    held to ``atol``. tunes: whether it runs on tuning seeds, from which something is chosen.
    """

    name: str
    function: Callable[[Sequence[int]], pd.DataFrame]
    seeds: Sequence[int]
    probed: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    atol: float = 1e-3
    tunes: bool = False


@dataclass(frozen=True)
class Regime:
    """Where a claim is judged: a condition, the metric that is read there, and the rule that chose (by default the
    condition's first)."""

    condition: str
    metric: str
    rule: str | None = None


@dataclass(frozen=True)
class Contrast:
    """A claim's effects: treatment − control in its metric, under each condition (all where none are named).

    regimes: {name: Regime}, where these are not the conditions one by one: several metrics or rules under one.
    """

    treatment: Arm = ADAMW
    control: Arm = ADAM_L2
    conditions: Sequence[str] = ()
    rule: str | None = None
    regimes: Mapping[str, Regime] = field(default_factory=dict)

    def over(self, claim: Claim, conditions: Sequence[str]) -> Mapping[str, Regime]:
        """Every regime of the claim, of a protocol with these conditions."""
        return self.regimes or {n: Regime(n, claim.metric, self.rule) for n in self.conditions or conditions}


@dataclass(frozen=True)
class Protocol:
    """A chapter's conditions × arms × seeds, its measurements, and the claims that they decide.

    claims: {claim: a Contrast, or a function of the tables → {regime: Effect}}. measured: conditions that measurements
    train by themselves, without tuning. probed: the conditions, of either kind, of which a record's probe trains a run
    an arm, probed_metrics a pattern of what it keeps of them. settings: what else defines the protocol, as JSON holds
    it. kept: a pattern of the metrics that the evaluation keeps.
    """

    chapter: str
    conditions: Mapping[str, Condition]
    claims: Mapping[Claim, Contrast | Callable[[Tables], dict[str, Effect]]]
    tuning_seeds: Sequence[int]
    evaluation_seeds: Sequence[int]
    measurements: Sequence[Measurement] = ()
    measured: Mapping[str, Condition] = field(default_factory=dict)
    probed: Sequence[str] = ()
    probed_metrics: str = ""
    settings: Mapping = field(default_factory=dict)
    kept: str = "accuracy|norm"

    def __getitem__(self, name: str) -> Condition:
        if name not in self.all:
            raise ValueError(f"name: {name!r} is no condition; choose from {', '.join(map(repr, self.all))}")
        return self.all[name]

    @property
    def all(self) -> dict[str, Condition]:
        """The conditions of either kind, tuned and measured."""
        return {**self.conditions, **self.measured}

    def tune(self, name: str, seeds: Sequence[int] | None = None, count: int | None = None) -> pd.DataFrame:
        """What chooses, for every configuration on the tuning seeds."""
        condition = self[name]
        runs = condition.runs(self.tuning_seeds if seeds is None else seeds, count)
        table = condition.train(runs, tuple(condition.seen))
        return table[table["metric"].isin(condition.rules.values())].assign(condition=name)

    def choose(self, tuning: pd.DataFrame) -> pd.DataFrame:
        """Winners and rivals of every condition in the table, by each of its rules (column ``rule``)."""
        found = []
        for name, table in tuning.groupby("condition", sort=False):
            for rule, metric in self[name].rules.items():
                chosen = choose(table, metric, None, _higher(metric), tuned=self[name].tuned)
                found.append(chosen.assign(condition=name, rule=rule))
        return pd.concat(found, ignore_index=True)

    def evaluate(self, name: str, chosen: pd.DataFrame, seeds: Sequence[int] | None = None, **options) -> pd.DataFrame:
        """One condition's chosen configurations, whatever the rule that chose them, on fresh seeds."""
        condition = self[name]
        own = chosen.loc[chosen["condition"] == name, ["arm", *condition.tuned]].drop_duplicates()
        runs = retrain(own, self.evaluation_seeds if seeds is None else seeds, used=self.tuning_seeds)
        table = condition.train(runs, tuple(condition.judged), **options).assign(condition=name)
        return table[table["metric"].str.contains(self.kept)]

    def run(self, part: Part = at_once) -> dict[str, pd.DataFrame]:
        """The full protocol as named tables; ``part(name, function)`` runs each of its parts, or remembers it."""
        tables: dict[str, list[pd.DataFrame]] = {"tuning": [], "candidates": [], "evaluation": []}
        for name in self.conditions:
            tables["tuning"].append(part(f"tuning of {name}", lambda name=name: self.tune(name)))
            chosen = self.choose(tables["tuning"][-1])
            tables["candidates"].append(chosen)
            evaluated = part(f"evaluation of {name}", lambda name=name, chosen=chosen: self.evaluate(name, chosen))
            tables["evaluation"].append(evaluated)
        found = {name: pd.concat(frames, ignore_index=True) for name, frames in tables.items() if frames}
        if found:
            found["winners"] = found["candidates"][found["candidates"]["winner"]].drop(columns="winner")
        for one in self.measurements:
            found[one.name] = part(one.name, lambda one=one: one.function(one.seeds))
        return found

    def side(self, tables: Tables, name: str, arm: Arm, metric: str, rule: str | None = None) -> Side:
        """One tuned arm under one condition, as a rule chose it."""
        condition = self[name]
        rule = next(iter(condition.rules)) if rule is None else rule
        tuning, candidates, evaluation = (_of(tables[t], name, arm) for t in ("tuning", "candidates", "evaluation"))
        mine = candidates.loc[candidates["rule"] == rule, list(condition.tuned)]
        evaluation = evaluation.merge(mine, on=list(condition.tuned))
        scored = condition.rules[rule]
        return Side.of(
            tuning, evaluation, scored, metric, decayed=arm.decay is not None, higher_is_better=_higher(scored),
            tuned=condition.tuned,
        )  # fmt: skip

    def contrast(
        self, tables: Tables, name: str, metric: str, treatment: Arm, control: Arm, rule: str | None = None
    ) -> Effect:
        """treatment − control under one condition, with an interval that covers the tuning."""
        sides = [self.side(tables, name, arm, metric, rule) for arm in (treatment, control)]
        return smoothed(*sides, metric, higher_is_better=_higher(metric))

    def effects(self, tables: Tables) -> dict[str, dict[str, Effect]]:
        """{claim's id: {regime: effect}}, from the tables alone; of a Contrast, for the conditions in the tables."""
        found = {}
        for claim, how in self.claims.items():
            if not isinstance(how, Contrast):
                found[claim.id] = how(tables)
                continue
            there = tables["evaluation"]["condition"].unique() if "evaluation" in tables else ()
            found[claim.id] = {
                name: replace(
                    self.contrast(tables, one.condition, one.metric, how.treatment, how.control, one.rule),
                    metric=claim.metric,
                )
                for name, one in how.over(claim, self.conditions).items()
                if one.condition in there
            }
        return found

    def primary_condition(self, claim: Claim) -> str | None:
        """The condition under which a claim is decided; None where a measurement decides it."""
        how = self.claims[claim]
        if isinstance(how, Contrast):
            primary = how.over(claim, self.conditions).get(claim.primary)
            return primary and primary.condition
        return claim.primary if claim.primary in self.conditions else None

    def live(
        self,
        tables: Tables,
        name: str,
        seeds: Sequence[int],
        metric: str,
        treatment: Arm = ADAMW,
        control: Arm = ADAM_L2,
    ) -> Effect:
        """The winners of one condition, trained again now: treatment − control on other seeds."""
        winners = tables["winners"]
        own = winners[winners["arm"].isin([treatment.name, control.name]) & (winners["condition"] == name)]
        rule = next(iter(self[name].rules))
        table = self.evaluate(name, own[own["rule"] == rule], seeds)
        return paired(table, treatment.name, control.name, metric, higher_is_better=_higher(metric))

    def retuned(
        self, tuning: Sequence[int] | None = None, evaluation: Sequence[int] | None = None
    ) -> dict[str, dict[str, Effect]]:
        """The claims' primary comparisons once more from the start, tuning included, on other seeds or on the
        protocol's own."""
        tables: dict[str, pd.DataFrame] = {}
        for one in self.measurements:
            seeds = tuning if one.tunes else evaluation
            tables[one.name] = one.function(one.seeds if seeds is None else seeds)
        primary = list(dict.fromkeys(name for claim in self.claims if (name := self.primary_condition(claim))))
        if primary:
            tunings = [self.tune(name, tuning) for name in primary]
            tables["tuning"] = pd.concat(tunings, ignore_index=True)
            tables["candidates"] = self.choose(tables["tuning"])
            found = [self.evaluate(name, tables["candidates"], evaluation) for name in primary]
            tables["evaluation"] = pd.concat(found, ignore_index=True)
        effects = self.effects(tables)
        primaries = {claim.id: claim.primary for claim in self.claims}
        return {
            claim: {primaries[claim]: regimes[primaries[claim]]}
            for claim, regimes in effects.items()
            if primaries[claim] in regimes
        }

    def probe(self) -> pd.DataFrame:
        """A few of the protocol's runs, on the CPU: one of each arm of the ``probed`` conditions, a seed of each
        measurement, and every task untrained."""
        found = []
        for name in self.probed:
            condition = self[name]
            steps = min(200, condition.steps)
            runs = condition.vary(condition.middle().assign(seed=0))
            record = sorted({1, min(20, steps), steps})
            table = condition.train(runs, ("train", "validation"), record=record, steps=steps, device="cpu")
            found.append(table[table["metric"].str.contains(self.probed_metrics)].assign(condition=name))
        probes = [probe_rows(pd.concat(found, ignore_index=True))] if found else []
        for one in self.measurements:
            if one.probed is not None:
                probes.append(probe_rows(one.probed(one.function(list(one.seeds)[:1])), atol=one.atol))
        if self.all:
            tasks = {name: condition.task for name, condition in self.all.items()}
            probes.append(untrained(tasks, {name: condition.decays for name, condition in self.all.items()}))
        return pd.concat(probes, ignore_index=True)

    @property
    def study(self) -> Study:
        """What the ledger keeps and checks."""
        conditions = {n: condition.described() for n, condition in self.all.items()}
        seeds = {"tuning_seeds": list(self.tuning_seeds), "evaluation_seeds": list(self.evaluation_seeds)}
        measured = {one.name: list(one.seeds) for one in self.measurements}
        settings = {"conditions": conditions, **seeds, "measurements": measured} | dict(self.settings)
        return Study(
            self.chapter, tuple(self.claims), settings, self.run, self.effects, self.probe, retuned=self.retuned
        )  # fmt: skip


def _higher(metric: str) -> bool:
    return not (metric.endswith("loss") or "bits per" in metric)


def _of(table: pd.DataFrame, name: str, arm: Arm) -> pd.DataFrame:
    return table[(table["condition"] == name) & (table["arm"] == arm.name)]
