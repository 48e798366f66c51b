"""Optimizers of other libraries behind the window of a torch optimizer: values and gradients are copied to and fro.

What the other library has no notion of (a gradient that is None, groups with coefficients of their own) raises
NotImplementedError, and is not asked.
"""

import inspect

import numpy as np
import torch


class Adapted:
    """``param_groups`` holds one group, with the coefficients by the library's own names."""

    def __init__(self, params, coefficients: dict) -> None:
        params = list(params)
        if params and isinstance(params[0], dict):
            raise NotImplementedError("there are no parameter groups")
        self.param_groups, self.state = [{"params": params, **coefficients}], {}

    @property
    def coefficients(self) -> dict:
        return {key: value for key, value in self.param_groups[0].items() if key != "params"}

    @torch.no_grad()
    def step(self) -> None:
        params = self.param_groups[0]["params"]
        if any(p.grad is None for p in params):
            raise NotImplementedError("there is no gradient None")
        moved = self.moved([p.numpy() for p in params], [p.grad.numpy() for p in params])
        for p, new in zip(params, moved, strict=True):
            p.copy_(torch.tensor(np.asarray(new), dtype=p.dtype).reshape(p.shape))

    def state_dict(self) -> dict:
        return {"kept": self.kept(), "coefficients": self.coefficients}

    def load_state_dict(self, saved: dict) -> None:
        self.param_groups[0].update(saved["coefficients"])
        self.keep(saved["kept"])


def optax(name: str):
    """A function of parameters and keywords that makes ``optax.NAME``; coefficients go through inject_hyperparams."""
    import jax
    import optax as library

    jax.config.update("jax_enable_x64", True)
    transform = getattr(library, name)
    takes = inspect.signature(transform).parameters
    defaults = {key: takes[key].default for key in ("b1", "b2", "eps", "weight_decay") if key in takes}

    # One for all: coefficients are set before each step, and what is compiled is kept.
    shared = library.inject_hyperparams(transform)(learning_rate=1e-3, **defaults)
    update = jax.jit(shared.update)

    class Optax(Adapted):
        def __init__(self, params, learning_rate=1e-3, **coefficients) -> None:
            super().__init__(params, {"learning_rate": learning_rate} | defaults | coefficients)
            self._kept = shared.init([jax.numpy.asarray(p.detach().numpy()) for p in self.param_groups[0]["params"]])

        def moved(self, values, gradients):
            for key, value in self.coefficients.items():
                self._kept.hyperparams[key] = jax.numpy.asarray(value, dtype=values[0].dtype)
            values, gradients = ([jax.numpy.asarray(a) for a in arrays] for arrays in (values, gradients))
            updates, self._kept = update(gradients, self._kept, values)
            return library.apply_updates(values, updates)

        def kept(self) -> list:
            return [np.asarray(leaf) for leaf in jax.tree.leaves(self._kept)]

        def keep(self, kept: list) -> None:
            self._kept = jax.tree.unflatten(jax.tree.structure(self._kept), list(map(jax.numpy.asarray, kept)))

    return Optax


def keras(name: str):
    """A function of parameters and keywords that makes ``keras.optimizers.NAME``, on Keras' torch backend."""
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras as library

    make = getattr(library.optimizers, name)
    takes = inspect.signature(make).parameters
    own = ("learning_rate", "beta_1", "beta_2", "epsilon", "weight_decay")
    defaults = {key: takes[key].default for key in own}

    class Keras(Adapted):
        def __init__(self, params, **coefficients) -> None:
            super().__init__(params, defaults | coefficients)
            self._optimizer = make(**self.coefficients)
            self._variables = [
                library.Variable(p.detach().numpy().copy(), dtype=str(p.dtype).removeprefix("torch."))
                for p in self.param_groups[0]["params"]
            ]
            library.config.set_floatx(self._variables[0].dtype)
            self._optimizer.build(self._variables)

        def moved(self, values, gradients):
            for key, value in self.coefficients.items():
                setattr(self._optimizer, key, value)
            for variable, value in zip(self._variables, values, strict=True):
                variable.assign(value)
            gradients = [torch.tensor(g, device=self._variables[0].value.device) for g in gradients]
            self._optimizer.apply(gradients, self._variables)
            return [v.value.detach().cpu().numpy() for v in self._variables]

        def kept(self) -> list:
            return [v.value.detach().cpu().numpy().copy() for v in self._optimizer.variables]

        def keep(self, kept: list) -> None:
            for variable, value in zip(self._optimizer.variables, kept, strict=True):
                variable.assign(value)

    return Keras
