"""Run one function over many jobs: in threads here, or on whatever workers joblib has been told of.

    with joblib.parallel_config("loky", n_jobs=2):              # processes of this machine
        train(…)
    ray.util.joblib.register_ray()
    with joblib.parallel_config("ray", n_jobs=64):              # a Ray cluster; "dask" for one of Dask
        train(…)

Jobs and functions travel as cloudpickle, so that a lambda may be part of them.
"""

import copy
import os
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import joblib
import torch
from joblib.parallel import get_active_backend

ATTEMPTS = 3  # of a job whose worker dies


def workers() -> int:
    """Jobs at a time on the workers that ``joblib.parallel_config`` names; 1 where nobody has asked for any."""
    backend, jobs = get_active_backend()
    return backend.effective_n_jobs(jobs)


@contextmanager
def parallel(backend: str, number: int) -> Iterator[None]:
    """Inside, jobs go to ``number`` workers of a joblib ``backend``, "ray" and "dask" among them: of the cluster that
    RAY_ADDRESS or DASK_SCHEDULER_ADDRESS names, or else of one that is started here. 1 worker is this process. Raises
    ImportError without the extra that the backend needs, ValueError for one that joblib does not know."""
    if number <= 1:
        yield
        return
    client = None
    try:
        if backend == "ray":
            from ray.util.joblib import register_ray

            register_ray()
        elif backend == "dask":
            from dask.distributed import Client

            client = Client() if os.environ.get("DASK_SCHEDULER_ADDRESS") else Client(n_workers=number)
    except ImportError as error:
        raise ImportError(f"{error}; pip install 'adamw-book[{backend}]' brings what this backend needs") from error
    try:
        with joblib.parallel_config(backend, n_jobs=number):
            yield
    finally:
        if client is not None:
            client.close()


def side_by_side(function: Callable, jobs: Iterable) -> list:
    """``[function(job) for job in jobs]`` on a CPU, one to a core: a thread each, in which every operation stays on
    that core.

    The operations of one job are too small to be worth sharing between cores: most of the time would go into waiting.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, jobs))
    finally:
        torch.set_num_threads(threads)


def on_workers(function: Callable, jobs: Sequence, finished: Callable[[Any], None] = lambda job: None) -> list:
    """``[function(job) for job in jobs]`` on joblib's workers, each with one thread; ``finished(job)`` is called here
    as jobs are done.

    What a job raises is raised here, and so is what keeps one from travelling. A job whose worker died goes to another
    one; after ``ATTEMPTS`` times that raises ``RuntimeError``. Each job gives one result, whatever became of its
    workers.
    """
    results: dict[int, Any] = {}
    for _ in range(ATTEMPTS):
        waiting = [i for i in range(len(jobs)) if i not in results]
        try:
            for i, result in _answers(function, jobs, waiting):
                if isinstance(result, _Raised):
                    raise result.error
                results[i] = result
                finished(jobs[i])
        except _WorkersDied as error:
            died = error.__cause__
        else:
            return [results[i] for i in range(len(jobs))]
    raise RuntimeError(
        f"workers died {ATTEMPTS} times before {len(jobs) - len(results)} of {len(jobs)} jobs were done; less memory a "
        "job (chunk_size) or fewer workers (n_jobs) may do"
    ) from died


def _answers(function: Callable, jobs: Sequence, waiting: list[int]) -> Iterator[tuple[int, Any]]:
    backend, _ = get_active_backend()
    return_as = "generator_unordered" if backend.supports_return_generator else "list"
    parallel = joblib.Parallel(return_as=return_as, batch_size=1, pre_dispatch="all")
    try:
        yield from parallel(joblib.delayed(_answer)(function, i, jobs[i]) for i in waiting)
    except (pickle.PicklingError, TypeError):  # of what cannot travel, at any attempt
        raise
    except Exception as error:  # what jobs raise is carried
        raise _WorkersDied from error


class _Raised(NamedTuple):
    error: Exception

    def __reduce__(self) -> tuple:
        error = self.error
        try:
            copy.deepcopy(error)
        except Exception:  # it cannot be made anew where it arrives: its words go alone
            error = RuntimeError("".join(traceback.format_exception(error)))
        return _Raised, (error,)


class _WorkersDied(Exception):
    """Carries what the workers died of."""


def _answer(function: Callable, i: int, job: Any) -> tuple[int, Any]:
    torch.set_num_threads(1)
    try:
        return i, function(job)
    except Exception as error:
        return i, _Raised(error)
