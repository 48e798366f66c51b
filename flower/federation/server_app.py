"""The server: it hands the common model out, averages the replies that can be averaged, and reports the others."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from adamw_book.clients import why_refused

from . import task

app = ServerApp()


class CheckedFedAvg(FedAvg):
    """FedAvg that averages nothing it has not looked at.

    A reply with an error, with other names or shapes than the model's, or with a number that is not finite, is left
    out and reported; the others' weights are rescaled to 1. With fewer than ``quorum`` left the model stays, which is
    reported, too (client −1). ``reports``: {round, client, reason}, rounds from 0.
    """

    def __init__(self, who: dict[int, int], like: dict, quorum: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=len(who), min_available_nodes=len(who))
        self.who, self.like, self.quorum, self.reports = who, like, quorum, []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The model and the round's number, for every client that takes part."""
        config["server-round"] = server_round
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        return self._construct_messages(record, list(self.who), MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The weighted mean of the sound replies; None, None where they are fewer than the quorum."""
        sound, silent = [], dict(self.who)
        for reply in replies:
            client = silent.pop(reply.metadata.src_node_id)
            reason = f"died: {reply.error.reason}" if reply.has_error() else self._why_refused(reply)
            if reason is None:
                sound.append((client, reply))
            else:
                self._report(server_round, client, reason)
        for client in silent.values():
            self._report(server_round, client, "no reply")
        if len(sound) < self.quorum:
            self._report(server_round, -1, f"{len(sound)} replies for a quorum of {self.quorum}: the model stays")
            return None, None
        return super().aggregate_train(server_round, [reply for _, reply in sorted(sound, key=lambda one: one[0])])

    def _why_refused(self, reply: Message) -> str | None:
        arrays = reply.content.get("arrays")
        if not isinstance(arrays, ArrayRecord):
            return "no arrays"
        return why_refused(dict(arrays.to_torch_state_dict()), self.like)

    def _report(self, server_round: int, client: int, reason: str) -> None:
        self.reports.append({"round": server_round - 1, "client": client, "reason": reason})


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask who is there, run the rounds, and write the common model and the reports to the folder ``out``."""
    config = context.run_config
    model = task.model(config)
    nodes = list(grid.get_node_ids())
    while len(nodes) < config["clients"]:
        nodes = list(grid.get_node_ids())
    asked = [Message(RecordDict(), message_type=MessageType.QUERY, dst_node_id=node) for node in nodes]
    found = {reply.metadata.src_node_id: reply.content["who"] for reply in grid.send_and_receive(asked)}
    who = {node: int(one["client"]) for node, one in found.items() if one["num-examples"]}
    like = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    strategy = CheckedFedAvg(who, like, config["quorum"])
    strategy.reports += [
        {"round": -1, "client": int(one["client"]), "reason": "0 examples for at least 1: takes no part"}
        for one in found.values() if not one["num-examples"]
    ]  # fmt: skip
    result = strategy.start(grid=grid, initial_arrays=ArrayRecord(model.state_dict()), num_rounds=config["rounds"])
    out = Path(config["out"])
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "model.npz", **{name: value.numpy() for name, value in result.arrays.items()})
    (out / "reports.json").write_text(json.dumps(strategy.reports, indent=1), encoding="utf-8")
