"""The same runs on other workers: processes of this machine, a Ray cluster; workers that die, jobs that fail."""

import os
import pickle
import signal
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from test_ensemble import RUNS, task

from adamw_book import command_line, evidence_commands, jobs
from adamw_book.ensemble import Snapshot, train

OPTIONS = {"steps": 12, "batch_size": 16, "chunk_size": 2, "keep_parameters": True, "device": "cpu"}


def norm_of_the_gradient(snapshot: Snapshot) -> dict[str, torch.Tensor]:
    return {"gradient": sum(g.flatten(1).square().sum(1) for g in snapshot.gradients.values()).sqrt()}


def kill(folder: Path, times: int) -> None:
    """End this worker as a machine ends a process that takes too much memory, so many times in all."""
    for i in range(times):
        try:
            (folder / str(i)).touch(exist_ok=False)
        except FileExistsError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)


def deadly(snapshot: Snapshot, folder: Path, times: int) -> dict[str, torch.Tensor]:
    """A measurement during which the worker of the runs of seed 1 is killed."""
    if snapshot.step == 6 and 1 in snapshot.runs["seed"].to_numpy():
        kill(folder, times)
    return norm_of_the_gradient(snapshot)


def here(**options):
    return train(task(), RUNS, **OPTIONS | {"measure": norm_of_the_gradient, "record": (0, 6, 12)} | options)


@contextmanager
def ray_cluster():
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.util.joblib import register_ray

    tests = str(Path(__file__).parent)
    monkey = pytest.MonkeyPatch()
    monkey.setenv("RAY_USAGE_STATS_ENABLED", "0")
    environment = {"PYTHONPATH": os.pathsep.join([tests, os.path.dirname(tests), os.environ.get("PYTHONPATH", "")])}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": environment})
    try:
        register_ray()
        with joblib.parallel_config("ray", n_jobs=2):
            yield
    finally:
        ray.shutdown()
        monkey.undo()


@contextmanager
def dask_cluster():
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    monkey = pytest.MonkeyPatch()
    monkey.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    try:
        with (
            distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster),
            joblib.parallel_config("dask", n_jobs=2),
        ):
            yield
    finally:
        monkey.undo()


WORKERS = {
    "processes": lambda: joblib.parallel_config("loky", n_jobs=2),
    "ray": ray_cluster,
    "dask": dask_cluster,
}


def assert_same(found, expected) -> None:
    pd.testing.assert_frame_equal(found.table, expected.table, rtol=1e-9)
    for name, p in expected.parameters.items():
        torch.testing.assert_close(found.parameters[name], p, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("where", WORKERS)
def test_the_same_table_and_parameters_on_any_workers(where):
    expected = here()
    with WORKERS[where]():
        assert jobs.workers() == 2
        assert_same(here(), expected)
    assert jobs.workers() == 1


def process(snapshot: Snapshot) -> dict[str, torch.Tensor]:
    return {"process": torch.full((len(snapshot.runs),), os.getpid(), dtype=torch.float64)}


def test_two_workers_are_enough_to_train_elsewhere():
    with WORKERS["processes"]():
        elsewhere = here(measure=process).table
    local = here(measure=process).table
    assert (local.loc[local["metric"] == "process", "value"] == os.getpid()).all()
    assert (elsewhere.loc[elsewhere["metric"] == "process", "value"] != os.getpid()).all()


@pytest.mark.parametrize("where", WORKERS)
def test_a_worker_that_is_killed_costs_no_row(where, tmp_path):
    expected = here()
    with WORKERS[where]():
        assert_same(here(measure=partial(deadly, folder=tmp_path, times=1)), expected)
    assert (tmp_path / "0").exists()


def test_workers_that_die_again_and_again_are_reported(tmp_path):
    with (
        joblib.parallel_config("loky", n_jobs=2),
        pytest.raises(RuntimeError, match=r"workers died 3 times before \d of 3 jobs were done"),
    ):
        here(measure=partial(deadly, folder=tmp_path, times=100))
    assert len(list(tmp_path.iterdir())) == jobs.ATTEMPTS == 3  # as often as it says


def test_what_a_job_raises_is_raised_once(tmp_path):
    def fail(snapshot):
        (tmp_path / f"{os.getpid()} {snapshot.runs.index[0]}").touch(exist_ok=False)
        raise KeyError("no such thing")

    with joblib.parallel_config("loky", n_jobs=2), pytest.raises(KeyError, match="no such thing"):
        here(measure=fail)


class TwoWords(Exception):
    """Pickled by its arguments, of which it has kept one."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


def test_what_a_job_raises_is_told_where_it_cannot_travel_itself():
    def fail(job):
        raise TwoWords("no", "such thing")

    with joblib.parallel_config("loky", n_jobs=2), pytest.raises(RuntimeError, match="TwoWords: no such thing"):
        jobs.on_workers(fail, range(2))
    with joblib.parallel_config("threading", n_jobs=2), pytest.raises(TwoWords):
        jobs.on_workers(fail, range(2))


def test_a_job_that_cannot_travel_is_no_dead_worker():
    with joblib.parallel_config("loky", n_jobs=2):
        with pytest.raises((pickle.PicklingError, TypeError), match="pickle"):
            jobs.on_workers(lambda job: 0, [threading.Lock(), 1])
        with pytest.raises((pickle.PicklingError, TypeError), match="pickle"):
            jobs.on_workers(lambda job: threading.Lock(), range(2))


def test_what_the_caller_raises_is_no_dead_worker():
    told = []

    def finished(job):
        told.append(job)
        raise ConnectionError("nobody listens")

    with joblib.parallel_config("threading", n_jobs=2), pytest.raises(ConnectionError, match="nobody listens"):
        jobs.on_workers(lambda job: job, range(2), finished)
    assert len(told) == 1


def test_every_job_gives_one_result_in_its_own_place():
    finished = []
    with joblib.parallel_config("threading", n_jobs=3):
        squares = jobs.on_workers(lambda n: n * n, range(20), finished.append)
    assert squares == [n * n for n in range(20)] and sorted(finished) == list(range(20))
    assert jobs.side_by_side(lambda n: n * n, range(20)) == squares


def test_an_operation_in_a_worker_has_one_thread():
    with joblib.parallel_config("loky", n_jobs=2):
        assert jobs.on_workers(lambda _: torch.get_num_threads(), range(4)) == [1] * 4


def test_a_job_takes_the_data_of_its_own_seeds_along(monkeypatch):
    seen = []
    monkeypatch.setattr("adamw_book.ensemble.on_workers", lambda function, some, finished: seen.extend(some) or 1 / 0)
    with joblib.parallel_config("loky", n_jobs=2), pytest.raises(ZeroDivisionError):
        here()
    assert [set(job.splits) for job in seen] == [set(np.unique(job.runs["seed"])) for job in seen]
    assert [len(job.runs) for job in seen] == [2, 2, 1]


def test_the_command_line_says_where_jobs_go(monkeypatch):
    seen = []
    monkeypatch.setattr(evidence_commands, "evidence", lambda chapter: seen.append((chapter, jobs.workers())))
    for options in ([], ["--workers", "3"], ["--workers", "2", "--backend", "threading"]):
        assert command_line.main(["evidence", "--chapter", "overfitting", *options]) == 0
    assert seen == [("overfitting", 1), ("overfitting", 3), ("overfitting", 2)]
