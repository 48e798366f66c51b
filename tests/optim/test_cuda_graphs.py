"""A step recorded into a CUDA graph: its replays are the steps that would have been taken."""

import pytest
import torch

from adamw_book.optim import AdamW

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"max_norm": 0.5}, {"cautious": True, "l2": 0.1}], ids=str)
@pytest.mark.parametrize("replicas", [None, 3])
def test_replay_equals_eager(replicas, options):
    """Forward, backward and step in one graph; lr changes between replays."""

    def run(graphed: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        shape = () if replicas is None else (replicas,)
        params = [torch.randn(*shape, *s, device="cuda", requires_grad=True) for s in ((30, 40), (40,))]
        lr = torch.full(shape, 0.1, device="cuda")
        optimizer = AdamW(params, lr=lr, capturable=True, **options)
        x = torch.randn(*shape, 8, 30, device="cuda")

        def step():
            optimizer.zero_grad(set_to_none=True)
            (x @ params[0] + params[1].unsqueeze(-2)).square().mean().backward()
            optimizer.step()

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        if graphed:
            optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):
                step()
        for t in range(5):
            lr.fill_(0.1 / (1 + t))
            graph.replay() if graphed else step()
        return [*params, optimizer.state[params[0]]["step"]]

    for a, b in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(a, b)


def test_without_capturable_recording_is_refused():
    p = torch.ones(3, device="cuda")
    p.grad = torch.ones_like(p)
    optimizer = AdamW([p])
    optimizer.step()
    with pytest.raises(RuntimeError, match="capturable is False"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        optimizer.step()
