"""What both sides know: the model, the data of each client, and the run's settings."""

import torch
from torch import Tensor, nn

from adamw_book.clients import client_order
from adamw_book.replicas import made
from adamw_book.scenarios.federated_learning.tasks import MODELS, federation
from adamw_book.scenarios.federated_learning.tasks import condition as of

DTYPE = torch.float64  # Adam divides by the size of a gradient: in float32, what rounding leaves of zero would count


def model(config: dict) -> nn.Module:
    """The network, as it is drawn under the run's seed."""
    return made(MODELS[config["model"]], config["seed"]).to(DTYPE)


def examples(config: dict, client: int) -> tuple[Tensor, Tensor, Tensor]:
    """One client's inputs and labels, and the order (rounds · local steps, batch) of its batches. A deployment reads
    them from where the client lies."""
    x, y = of(config["split"], config["model"], {}).task.data(config["seed"])["train"]
    own = federation(config["split"], config["clients"]).cut(config["seed"], y)[client]
    steps = config["rounds"] * config["local-steps"]
    order = client_order(config["seed"], client, max(1, len(own)), config["batch-size"], steps)
    return x[own].to(DTYPE), y[own], order
