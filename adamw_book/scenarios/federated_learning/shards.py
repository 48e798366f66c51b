"""Who holds which examples: splits of a training set over clients."""

import numpy as np
import torch
from torch import Tensor

from adamw_book.arguments import whole
from adamw_book.data import generator


def evenly(seed: int, labels: Tensor, clients: int) -> list[Tensor]:
    """The indices (n_c,) of each of ``clients``, drawn at random, in equal numbers as far as that goes."""
    whole("clients", clients, 1, len(labels), f"a whole number from 1 to the {len(labels)} examples")
    return list(torch.randperm(len(labels), generator=generator(seed, "shards")).tensor_split(clients))


def one_label(seed: int, labels: Tensor, clients: int) -> list[Tensor]:
    """The same where each client holds one class: the clients share out the classes, and the clients of one class its
    examples. Raises ``ValueError`` where the classes cannot be shared out evenly."""
    classes = labels.unique()
    if clients % len(classes):
        raise ValueError(f"clients: {clients}; a multiple of the {len(classes)} classes is needed")
    rng = generator(seed, "shards")
    found = []
    for one in classes:
        own = torch.nonzero(labels == one)[:, 0]
        found += own[torch.randperm(len(own), generator=rng)].tensor_split(clients // len(classes))
    return found


def dirichlet(seed: int, labels: Tensor, clients: int, alpha: float) -> list[Tensor]:
    """The same where the share of each class that a client gets is drawn from a Dirichlet distribution with
    concentration ``alpha``, class by class (Yurochkin et al., 2019): at 0.1 most of a class goes to one or two clients,
    and clients differ widely in size; some may be left with nothing. Raises ``ValueError`` for an alpha of 0 or
    less."""
    if not alpha > 0:
        raise ValueError(f"alpha: {alpha}; a number above 0 is needed")
    whole("clients", clients)
    entropy = int(torch.randint(2**62, (1,), generator=generator(seed, "shards")))
    rng = np.random.default_rng(entropy)
    parts: list[list[Tensor]] = [[] for _ in range(clients)]
    for one in labels.unique():
        own = torch.nonzero(labels == one)[:, 0]
        own = own[torch.from_numpy(rng.permutation(len(own)))]
        ends = np.round(np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1] * len(own)).astype(int)
        for part, piece in zip(parts, own.tensor_split(ends.tolist()), strict=True):
            part.append(piece)
    return [torch.cat(part) for part in parts]
