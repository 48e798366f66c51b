"""A client: it takes its local steps from the model that the server sends, and sends its own back."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.nn.functional import cross_entropy

from adamw_book.models import matrices
from adamw_book.scenarios.federated_learning.faults import faults

from . import task

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Who lives on this node: the client's number and how many examples it has."""
    client = int(context.node_config["partition-id"])
    count = len(task.examples(context.run_config, client)[0])
    return Message(RecordDict({"who": MetricRecord({"client": client, "num-examples": count})}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round. Adam's moments begin anew, or, with state = "kept", stay in the node's own state between rounds; after
    a round that failed they are those of the last one that did not (in the ensemble they are 0 then)."""
    torch.set_num_threads(1)
    config, turn = context.run_config, int(message.content["config"]["server-round"]) - 1
    client = int(context.node_config["partition-id"])
    x, y, order = task.examples(config, client)
    model = task.model(config)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if matrices(n) == decays], "weight_decay": config["weight-decay"] * decays}
        for decays in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=config["lr"])
    if config["state"] == "kept" and "moments" in context.state:
        restore(optimizer, context.state["moments"].to_torch_state_dict())
    for batch in order[turn * config["local-steps"] : (turn + 1) * config["local-steps"]]:
        optimizer.zero_grad()
        cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    now = moments(optimizer)
    if config["state"] == "kept" and all(value.isfinite().all() for value in now.values()):
        context.state["moments"] = ArrayRecord(now)
    own = faults(config["faults"])(config["seed"], turn, client, dict(model.state_dict()))
    metrics = MetricRecord({"num-examples": len(x)})
    return Message(RecordDict({"arrays": ArrayRecord(own), "metrics": metrics}), reply_to=message)


def moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimizer's state as one dict of tensors, "<number of the parameter>.<name>"."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, one in state.items() for name, value in one.items()}


def restore(optimizer: torch.optim.Optimizer, saved: dict[str, torch.Tensor]) -> None:
    """Give an optimizer the state that :func:`moments` has taken from another."""
    state: dict[int, dict] = {}
    for key, value in saved.items():
        number, name = key.split(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
