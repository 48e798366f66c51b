"""Clients that fail, to be tried: what they send in one round in the place of their model."""

import os
import re
from collections.abc import Callable

import torch

from adamw_book.clients import Update


def _dies(own: Update) -> Update:
    raise ConnectionError("gone")


def _exits(own: Update) -> Update:
    os._exit(1)


def _nan(own: Update) -> Update:
    name = next(iter(own))
    value = own[name].clone()
    value.view(-1)[0] = torch.nan
    return dict(own) | {name: value}


def _shape(own: Update) -> Update:
    name = next(iter(own))
    return dict(own) | {name: own[name][..., :-1]}


FAULTS = {"dies": _dies, "exits": _exits, "NaN": _nan, "shape": _shape}


def faults(planned: str) -> Callable[[int, int, int, Update], Update]:
    """For the argument ``reply`` of :class:`adamw_book.federated.Federation`: clients that fail as ``planned``, such as
    "dies@1:0 NaN@2:1", client 1 in round 0 and client 2 in round 1, in a way named in ``FAULTS`` ("exits" ends the
    process that the client runs in). Raises ``ValueError`` for another text."""
    plan = {}
    for one in planned.split():
        found = re.fullmatch(r"(\w+)@(\d+):(\d+)", one)
        if found is None or found[1] not in FAULTS:
            raise ValueError(f"planned: {one!r}; kind@client:round is needed, kind one of {', '.join(FAULTS)}")
        plan[int(found[2]), int(found[3])] = FAULTS[found[1]]

    def reply(seed: int, turn: int, client: int, own: Update) -> Update:
        return plan.get((client, turn), dict)(own)

    return reply
