"""Lightning's and Hugging Face's own trainers: the recorder's callbacks in them, and audits of what they make."""

import math
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from adamw_book.diagnose import DecayRecorder, audit
from adamw_book.diagnose.auditing.training_arguments import run_of


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))


def check(recorder: DecayRecorder, lrs: list[float], weight_decay: float) -> None:
    """What a matrix's rows say of a run with these rates at its steps."""
    table = recorder.table().query("kind == 'matrix' and group == 0")
    assert table["step"].tolist() == list(range(0, len(lrs), recorder.every))
    np.testing.assert_allclose(table["lr"], lrs[:: recorder.every], rtol=1e-9)
    np.testing.assert_allclose(table["decay_norm"], weight_decay * table["lr"] * table["param_norm"], rtol=1e-5)
    left = np.cumprod([1.0, *(1 - weight_decay * np.array(lrs))])[: len(lrs) : recorder.every]
    np.testing.assert_allclose(table["decay_alone"], table["param_norm"].iloc[0] * left, rtol=1e-9)


# ---- Lightning


@pytest.fixture
def lightning():
    return pytest.importorskip("lightning.pytorch")


def lit(lightning, stop_at: int = -1):
    """A module that Lightning trains on 64 examples by AdamW, the rate falling in a straight line of 8 steps."""

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch, index):
            if self.global_step == stop_at:
                raise RuntimeError("out of memory")
            return self.network(batch[0]).square().mean()

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=0.5)
            schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.2, 8)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    return Module()


def fit(lightning, recorder: DecayRecorder, module, **options):
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[recorder.lightning()], **options,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(torch.ones(64, 4)), 8))
    return trainer


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning_records_each_step_of_its_optimizer(lightning, precision: str):
    recorder, module = DecayRecorder(every=2), lit(lightning)
    trainer = fit(lightning, recorder, module, accumulate_grad_batches=2, precision=precision)
    check(recorder, [1e-2 * (1 - 0.8 * t / 8) for t in range(8)], 0.5)
    assert set(recorder.table()["kind"]) == {"matrix", "bias", "norm"}
    trainer.optimizers[0].step()  # no longer
    assert recorder.table()["step"].max() == 6


def test_lightning_leaves_the_recorder_free_when_a_run_breaks(lightning):
    recorder = DecayRecorder()
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(lightning, recorder, lit(lightning, stop_at=3))
    assert recorder.table()["step"].max() == 2
    fit(lightning, recorder, lit(lightning))
    assert recorder.table()["step"].max() == 2 + 16


def test_lightning_records_a_backbone_from_the_epoch_in_which_it_is_unfrozen(lightning):
    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = network(), nn.Linear(2, 2)

        def training_step(self, batch, index):
            return self.head(self.backbone(batch[0])).square().mean()

        def configure_optimizers(self):
            return torch.optim.AdamW(self.head.parameters(), lr=1e-2, weight_decay=0.5)

    recorder = DecayRecorder()
    unfreeze = lightning.callbacks.BackboneFinetuning(unfreeze_backbone_at_epoch=1, verbose=False)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[recorder.lightning(), unfreeze],
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(TensorDataset(torch.ones(64, 4)), 8))
    table = recorder.table().groupby("group")
    assert table["step"].min().to_dict() == {0: 0, 1: 8} and table["step"].max().to_dict() == {0: 15, 1: 15}
    assert set(table.get_group(1)["kind"]) == {"matrix", "bias", "norm"}


def test_an_audit_in_lightning_says_what_its_run_does(lightning):
    found = []

    class First(lightning.Callback):
        def on_train_start(self, trainer, module) -> None:
            [schedule] = [config.scheduler for config in trainer.lr_scheduler_configs]
            found.append(audit(trainer.optimizers[0], module, trainer.estimated_stepping_batches, schedule, 8, 64))

    recorder = DecayRecorder()
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[First(), recorder.lightning()],
    )  # fmt: skip
    trainer.fit(lit(lightning), DataLoader(TensorDataset(torch.ones(64, 4)), 8))
    matrix = found[0].table.set_index("kind").loc["matrix"]
    last = recorder.table().query("kind == 'matrix'").iloc[[0, -1]]
    left = last["decay_alone"].iloc[1] * (1 - 0.5 * last["lr"].iloc[1]) / last["decay_alone"].iloc[0]
    assert matrix["remaining"] == pytest.approx(left, rel=1e-9) and matrix["epochs"] == 1
    assert "exempt_decayed" in [finding.code for finding in found[0].findings]


# ---- Hugging Face


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.body = nn.Embedding(10, 4), network()

    def forward(self, x=None, labels=None):
        logits = self.body(self.tokens(x)).mean(1)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@pytest.fixture
def hugging_face(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def trainer(examples: int, callbacks=(), **arguments):
        data = [{"x": torch.arange(5), "labels": torch.tensor(i % 2)} for i in range(examples)]
        settings = {
            "learning_rate": 1e-2, "weight_decay": 0.5, "num_train_epochs": 2, "report_to": [], "use_cpu": True,
            "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no",
        } | arguments  # fmt: skip
        return transformers.Trainer(
            Classifier(),
            transformers.TrainingArguments(str(tmp_path), **settings),
            train_dataset=data,
            callbacks=[*callbacks],
        )

    return trainer


def test_hugging_faces_trainer_records_each_step_of_its_optimizer(hugging_face):
    recorder = DecayRecorder()
    trainer = hugging_face(32, [recorder.hugging_face()], gradient_accumulation_steps=2, warmup_steps=1)
    trainer.train()
    check(recorder, [0.0, 1e-2, 2e-2 / 3, 1e-2 / 3], 0.5)
    assert set(recorder.table()["kind"]) == {"matrix", "embedding", "bias", "norm"}
    recorder.attach(trainer.optimizer)  # it is free again
    recorder.detach()


def test_hugging_faces_trainer_takes_the_recorder_again_after_a_run_that_broke(hugging_face):
    transformers = pytest.importorskip("transformers")

    class Breaks(transformers.TrainerCallback):
        def on_step_end(self, *args, **kwargs) -> None:
            raise RuntimeError("out of memory")

    recorder = DecayRecorder()
    with pytest.raises(RuntimeError, match="out of memory"):
        hugging_face(16, [recorder.hugging_face(), Breaks()]).train()
    hugging_face(16, [recorder.hugging_face()], max_steps=2).train()
    assert recorder.table()["step"].unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("examples", "arguments"),
    [
        (49, {"per_device_train_batch_size": 1}),  # 1 / (1 / 49) is more than 49
        (50, {"gradient_accumulation_steps": 2}),
        (40, {"num_train_epochs": 1.5, "lr_scheduler_type": "cosine", "warmup_steps": 0.3}),
        (40, {"max_steps": 7, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 3}),
    ],
)
def test_an_audit_of_training_arguments_is_that_of_the_trainers_run(hugging_face, examples: int, arguments: dict):
    recorder = DecayRecorder()
    trainer = hugging_face(examples, [recorder.hugging_face()], **arguments)
    run = run_of(trainer.args, trainer.model, dataset_size=examples)
    found = audit(trainer.args, trainer.model, dataset_size=examples)
    trainer.train()
    assert run.steps == trainer.state.max_steps
    theirs = [[id(p) for p in group["params"]] for group in trainer.optimizer.param_groups]
    assert [[id(p) for p in group["params"]] for group in run.optimizer.param_groups] == theirs
    assert [g["weight_decay"] for g in run.optimizer.param_groups] == [0.5, 0.0]
    # the named schedule takes its steps half a step later than theirs
    rates = recorder.table().query("kind == 'matrix'")["lr"].to_numpy()
    left = math.prod(1 - 0.5 * rates)
    matrix = found.table.set_index("kind").loc["matrix"]
    assert matrix["remaining"] == pytest.approx(left, abs=0.5 * 1e-2)
    assert matrix["warmup_steps"] == pytest.approx(run.warmup, abs=1)


def test_accelerates_wrappers_are_seen_through():
    accelerate = pytest.importorskip("accelerate")
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5)
    bare = audit(optimizer, model, 20, schedule)
    wrapped = accelerate.Accelerator(cpu=True).prepare(optimizer, schedule)
    assert type(wrapped[1]) is not type(schedule)
    assert audit(wrapped[0], model, 20, wrapped[1]).as_dict() == bare.as_dict()


@pytest.mark.parametrize("settings", [{}, {"split_batches": True}, {"step_with_optimizer": False}])
def test_accelerate_steps_a_schedule_once_a_process(monkeypatch, settings: dict):
    accelerate = pytest.importorskip("accelerate")
    from accelerate.scheduler import AcceleratedScheduler

    accelerate.Accelerator(cpu=True)
    monkeypatch.setitem(accelerate.state.PartialState._shared_state, "num_processes", 4)
    check_processes(lambda schedule: AcceleratedScheduler(schedule, [], **settings))


# ---- Without them


class AcceleratedScheduler:
    """What a step of Accelerate's wrapper does on four processes."""

    def __init__(self, scheduler, step_with_optimizer: bool = True, split_batches: bool = False) -> None:
        self.scheduler, self.step_with_optimizer, self.split_batches = scheduler, step_with_optimizer, split_batches

    def step(self) -> None:
        for _ in range(4 if self.step_with_optimizer and not self.split_batches else 1):
            if getattr(self.scheduler, "_step_count", 0) <= getattr(self.scheduler, "total_steps", math.inf):
                self.scheduler.step()


class DeepSpeedSchedulerWrapper(AcceleratedScheduler):
    def step(self) -> None:
        self.scheduler.step()  # as DeepSpeed's engine does itself


def check_processes(wrap) -> None:
    """That the audit of a wrapped schedule is that of the rates which its steps make."""
    for make in (
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 1 - t / 80),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1e-2, total_steps=60),
        lambda o: torch.optim.lr_scheduler.ChainedScheduler([torch.optim.lr_scheduler.ExponentialLR(o, 0.95)]),
    ):
        optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2, 2))], lr=1e-2, weight_decay=1.0)
        schedule = wrap(make(optimizer))
        found, left = audit(optimizer, steps=20, schedule=schedule), 1.0
        for _ in range(20):
            left *= 1 - optimizer.param_groups[0]["lr"]
            optimizer.step()
            schedule.step()
        assert found.table["remaining"][0] == pytest.approx(left, rel=1e-12)
        ends_low = optimizer.param_groups[0]["lr"] < 5e-3
        assert ("schedule_unfinished" in [finding.code for finding in found.findings]) != ends_low


@pytest.mark.parametrize("wrap", [
    AcceleratedScheduler,
    lambda schedule: AcceleratedScheduler(schedule, split_batches=True),
    lambda schedule: AcceleratedScheduler(schedule, step_with_optimizer=False),
    DeepSpeedSchedulerWrapper,
])  # fmt: skip
def test_a_wrapper_of_accelerates_is_read_at_its_pace(monkeypatch, wrap):
    state = types.ModuleType("accelerate.state")
    state.AcceleratorState = lambda: types.SimpleNamespace(num_processes=4)
    monkeypatch.setitem(sys.modules, "accelerate.state", state)
    check_processes(wrap)


@pytest.mark.parametrize(
    ("callback", "absent", "message"),
    [
        ("lightning", ("lightning.pytorch.callbacks", "pytorch_lightning.callbacks"), "pip install lightning"),
        ("hugging_face", ("transformers",), "pip install transformers"),
    ],
)
def test_a_trainer_that_is_not_installed_is_named(monkeypatch, callback: str, absent: tuple, message: str):
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=message):
        getattr(DecayRecorder(), callback)()
