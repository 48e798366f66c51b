"""The ensemble's runs with JAX: one model's training as a scan over its steps, vmapped over the runs and compiled as a
whole, with optax's AdamW. Same data, first weights and batches, and float32 in full, as torch has it.

Convolutions are gathers and products, which XLA vmaps faster on a CPU than its own convolution.
"""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from adamw_book.ensemble import Task, batch_order, initial_parameters

jax.config.update("jax_default_matmul_precision", "highest")


def mlp(p, x):
    h = jax.nn.relu(x @ p["layers.0.weight"].T + p["layers.0.bias"])
    return h @ p["layers.1.weight"].T + p["layers.1.bias"]


def rnn(p, x):
    drive = x.reshape(len(x), -1, 8) @ p["input.weight"].T + p["input.bias"]
    h = jnp.tanh(drive[:, 0])
    for t in range(1, drive.shape[1]):
        h = jnp.tanh(drive[:, t] + h @ p["recurrent.weight"].T)
    return h @ p["head.weight"].T + p["head.bias"]


def cnn(p, x):
    def convolution(h, weight, bias):  # (N, C, side, side), 3 × 3, stride 2, padding 1
        side = h.shape[2] // 2
        h = jnp.pad(h, ((0, 0), (0, 0), (1, 1), (1, 1)))
        seen = [h[:, :, i : i + 2 * side : 2, j : j + 2 * side : 2] for i in range(3) for j in range(3)]
        seen = jnp.stack(seen, 2).reshape(len(h), -1, side * side)  # (N, 9 C, side²)
        found = jnp.einsum("of,nfs->nos", weight.reshape(len(weight), -1), seen) + bias[:, None]
        return found.reshape(len(h), -1, side, side)

    h = jax.nn.relu(convolution(x.reshape(-1, 1, 8, 8), p["conv1.weight"], p["conv1.bias"]))
    h = jax.nn.relu(convolution(h, p["conv2.weight"], p["conv2.bias"]))
    return h.reshape(len(h), -1) @ p["head.weight"].T + p["head.bias"]


MODELS = {"MLP": mlp, "RNN": rnn, "CNN": cnn}


@lru_cache
def trainer(name: str):
    """Trains all runs of a model; ``seed`` says which of the data sets (S, N, …) and batch orders (S, steps, batch) is
    a run's own."""

    def loss(parameters, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(MODELS[name](parameters, x), y).mean()

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, 0, 0, None, None, None))
    def train(parameters, lr, weight_decay, seed, inputs, targets, orders):
        optimizer = optax.adamw(lr, weight_decay=weight_decay)

        def step(state, batch):
            parameters, moments = state
            gradients = jax.grad(loss)(parameters, inputs[seed, batch], targets[seed, batch])
            updates, moments = optimizer.update(gradients, moments, parameters)
            return (optax.apply_updates(parameters, updates), moments), None

        return jax.lax.scan(step, (parameters, optimizer.init(parameters)), orders[seed])[0][0]

    return train


def train_runs(task: Task, runs: pd.DataFrame, steps: int, batch_size: int) -> dict[str, np.ndarray]:
    """The trained parameters {name: (R, …)} of a ``task`` whose model is one of MODELS, as
    :func:`adamw_book.ensemble.train` keeps them."""
    seeds = list(runs["seed"].unique())
    splits = [task.data(int(seed))["train"] for seed in seeds]
    inputs, targets = (np.stack([split[i].numpy() for split in splits]) for i in (0, 1))
    orders = np.stack([batch_order(int(s), inputs.shape[1], batch_size, steps).numpy() for s in seeds])
    place = {seed: i for i, seed in enumerate(seeds)}
    trained = trainer(task.model.__name__)(
        {name: p.numpy() for name, p in initial_parameters(task.model, list(runs["seed"])).items()},
        jnp.asarray(runs["lr"].to_numpy(float), jnp.float32),
        jnp.asarray(runs["weight_decay"].to_numpy(float), jnp.float32),
        jnp.asarray([place[seed] for seed in runs["seed"]], jnp.int32),
        jnp.asarray(inputs), jnp.asarray(targets, jnp.int32), jnp.asarray(orders, jnp.int32),
    )  # fmt: skip
    return {name: np.array(p) for name, p in trained.items()}
