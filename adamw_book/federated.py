"""A federation: clients train on data of their own, from round to round, and a server averages what they send.

Clients are replicas. The clients of all runs (arms × grid × seeds) lie on one axis, so that one local step trains all
of them at once; after ``local_steps`` of these the server of each run averages its own (McMahan et al., 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adamw_book.arguments import whole
from adamw_book.clients import Clients, Update

STATES = ("reset", "kept")


@dataclass(frozen=True)
class Federation:
    """How clients train together: for the argument ``kind`` of :func:`adamw_book.ensemble.train`, whose ``steps`` are
    local ones then.

    shards(seed, labels): the indices (n_c,) of each client's examples, one tensor a client; what it calls itself
    (``name``) goes into the record. A client's say in the average is its number of examples; one with fewer than
    ``least_examples`` takes no part, which is reported once (round −1). local_steps: between two averages.
    participants: clients drawn for each round, the same for all arms of a seed; None: all. state: what becomes of a
    client's Adam moments and step count between rounds, "reset" or "kept" (with all clients only). quorum: replies that
    an average needs. reply(seed, round, client, parameters): what a client sends in the place of its parameters {name:
    tensor}, if anything: a fault to be tried, a compression.

    A run's optional columns say more. ``pull``: where its decay, of either kind, leads: to the "origin"; to the
    "global" model that the round began with (l2 is FedProx then, Li et al., 2020); or, in a step of the "server" with
    AdamW on the average's change as a gradient (Reddi et al., 2021), with ``server_lr`` and the run's weight_decay, to
    the origin, while the clients have none. ``toward`` "start" moves the origin, and goes with no other ``pull``.

    A reply that raises, or is refused (:func:`why_refused`), is left out: the others' weights are rescaled to 1, and
    the result's ``reports`` say which client, when and why. With fewer than ``quorum`` replies left the global model
    stays as it was, a server's moments and step count as well, which is reported, too (client −1). Where moments are
    kept, those of a client that was left out start again at 0. Each step records, beside the splits' metrics of the
    global model (between two averages: of the average at that step, where there is one), of every split but "train" the
    mean accuracy of the clients' own models, "<split> client accuracy", and how often two clients' predictions agree,
    "<split> client agreement"; the root mean square over clients of the distance from the model of the round's start,
    "client drift", and from their mean, "client disagreement"; "replies left out", a count over all rounds. Raises
    ``ValueError`` for arguments and columns that cannot be.
    """

    name: str
    shards: Callable[[int, Tensor], Sequence[Tensor]]
    clients: int
    local_steps: int
    participants: int | None = None
    state: str = "reset"
    least_examples: int = 1
    quorum: int = 1
    reply: Callable[[int, int, int, Update], Update] | None = None

    def __post_init__(self) -> None:
        for name in ("clients", "local_steps", "least_examples"):
            whole(name, getattr(self, name))
        whole("participants", self.models, 1, self.clients, f"None, or a whole number from 1 to {self.clients},")
        whole("quorum", self.quorum, 1, self.models, f"a whole number from 1 to the {self.models} clients of a round")
        if self.state not in STATES:
            raise ValueError(f"state: {self.state!r}; choose from {', '.join(map(repr, STATES))}")
        if self.state == "kept" and self.models < self.clients:
            raise ValueError(
                "state: 'kept' with participants drawn anew in each round; 'reset', or participants=None, is needed"
            )

    @property
    def models(self) -> int:
        """Clients that one run trains at a time."""
        return self.clients if self.participants is None else self.participants

    def described(self) -> dict:
        """What a record keeps of it."""
        names = ("name", "clients", "local_steps", "participants", "state", "least_examples", "quorum")
        return {"federation": {name: getattr(self, name) for name in names}}

    def cut(self, seed: int, labels: Tensor) -> list[Tensor]:
        """The clients' examples under one seed. Raises ``ValueError`` where they are not those of so many clients."""
        found = list(self.shards(seed, labels))
        together = torch.cat(found) if found else torch.empty(0, dtype=torch.long)
        inside = not len(together) or (0 <= int(together.min()) and int(together.max()) < len(labels))
        if len(found) != self.clients or len(together.unique()) != len(together) or not inside:
            raise ValueError(
                f"shards: {len(found)} clients with {len(together)} examples, {len(together.unique())} of them "
                f"distinct; {self.clients} clients with examples of their own, from 0 to {len(labels) - 1}, are needed"
            )
        return found

    def __call__(self, *arguments) -> Clients:
        return Clients(self, *arguments)
