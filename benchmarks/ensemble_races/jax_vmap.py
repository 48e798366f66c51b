"""The ensemble's runs with JAX: one model's training as a scan over its steps, vmapped over the runs and compiled as a
whole, with optax's AdamW. Same data, first weights and batches, and float32 in full, as torch has it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from adamw_book.ensemble import Task, batch_order, initial_parameters

jax.config.update("jax_default_matmul_precision", "highest")


def loss(parameters, x, y):
    *hidden, (weight, bias) = parameters
    for w, b in hidden:
        x = jax.nn.relu(x @ w.T + b)
    return optax.softmax_cross_entropy_with_integer_labels(x @ weight.T + bias, y).mean()


@jax.jit
@partial(jax.vmap, in_axes=(0, 0, 0, 0, None, None, None))
def train(parameters, lr, weight_decay, seed, inputs, targets, orders):
    """All runs; ``seed`` says which of the data sets (S, N, …) and batch orders (S, steps, batch) is a run's own."""
    optimizer = optax.adamw(lr, weight_decay=weight_decay)

    def step(state, batch):
        parameters, moments = state
        gradients = jax.grad(loss)(parameters, inputs[seed, batch], targets[seed, batch])
        updates, moments = optimizer.update(gradients, moments, parameters)
        return (optax.apply_updates(parameters, updates), moments), None

    return jax.lax.scan(step, (parameters, optimizer.init(parameters)), orders[seed])[0][0]


def train_runs(task: Task, runs: pd.DataFrame, steps: int, batch_size: int) -> dict[str, np.ndarray]:
    """The trained parameters {name: (R, …)} of an MLP ``task``, as :func:`adamw_book.ensemble.train` keeps them."""
    seeds = list(runs["seed"].unique())
    splits = [task.data(int(seed))["train"] for seed in seeds]
    inputs, targets = (np.stack([split[i].numpy() for split in splits]) for i in (0, 1))
    orders = np.stack([batch_order(int(s), inputs.shape[1], batch_size, steps).numpy() for s in seeds])
    first = {name: p.numpy() for name, p in initial_parameters(task.model, list(runs["seed"])).items()}
    flat = list(first.values())
    place = {seed: i for i, seed in enumerate(seeds)}
    trained = train(
        list(zip(flat[::2], flat[1::2], strict=True)),
        jnp.asarray(runs["lr"].to_numpy(float), jnp.float32),
        jnp.asarray(runs["weight_decay"].to_numpy(float), jnp.float32),
        jnp.asarray([place[seed] for seed in runs["seed"]], jnp.int32),
        jnp.asarray(inputs), jnp.asarray(targets, jnp.int32), jnp.asarray(orders, jnp.int32),
    )  # fmt: skip
    return {name: np.array(p) for name, p in zip(first, [p for pair in trained for p in pair], strict=True)}
