"""What the chapter on the kernel measures and compiles."""

import time

import pytest
import torch

from adamw_book.optim import AdamW
from adamw_book.scenarios import triton_kernel as scenario


def test_bytes_of_an_operation_and_of_a_step():
    class Doubling(torch.optim.SGD):
        def step(self):
            with torch.no_grad():
                for p in self.param_groups[0]["params"]:
                    p.mul_(2)  # read and written: 8 bytes
                    p.addcmul_(p.grad, p.grad)  # two read, one written: 12 bytes
                    p.exp()  # read, and one made: 8 bytes

    assert scenario.bytes_moved(lambda params: Doubling(params, lr=1.0)) == 28
    # decay 8, first moment 12, second 8 and 12, root 8, its correction 8, eps 8, step 16
    assert scenario.bytes_moved(lambda params: torch.optim.AdamW(params, foreach=True)) == 80


def test_times_are_of_steps():
    params = scenario.parameters([(3,), (2, 2)], "cpu")
    assert [tuple(p.grad.shape) for p in params] == [(3,), (2, 2)]
    turns = []
    steps = {"ours": AdamW(params).step, "long": lambda: time.sleep(0.01 if turns.append(0) or len(turns) > 1 else 1)}
    taken = scenario.race(steps, "cpu", rounds=3)
    assert 0 < taken["ours"] < 1 and 0.01 <= taken["long"] < 0.5
    assert len(turns) == 4  # the first is not counted


def test_the_host_is_timed_without_launches():
    """No parameter moves, and afterwards all is as before."""
    pytest.importorskip("triton", reason="Triton is not available for this platform")
    seen = []

    def make(params):
        seen.append((params[0], params[0].detach().clone()))
        return torch.optim.AdamW(params, fused=True)

    assert 0 < scenario.host_seconds({"torch": make}, [(5,)], "cpu", rounds=2)["torch"] < 1
    assert all(torch.equal(p, start) for p, start in seen)
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    torch.optim.AdamW([p], fused=True).step()
    assert (p < 1).all()


def test_the_table_takes_the_newest_figure_of_each_line():
    def record(date, measured):
        row = {
            "what": "speed",
            "device": "CPU",
            "asked": "≤ 1",
            "measured": measured,
            "met": measured and measured <= 1,
        }
        other = {"what": "on a GPU", "device": "GPU", "asked": "≥ 1", "measured": None, "met": None}
        return {"date": date, "asked": [row, other]}

    table = scenario.asked_table([record("2026-02-01", 0.5), record("2026-01-01", 2.0), record("2026-03-01", None)])
    assert table["measured"].tolist()[0] == 0.5 and table["measured"].isna().tolist() == [False, True]
    assert list(scenario.asked_table([]).columns) == ["what", "device", "asked", "measured", "met"]


def test_kernels_of_a_page_compile():
    triton = pytest.importorskip("triton", reason="Triton is not available for this platform")
    import triton.language as tl

    @triton.jit
    def double(x_ptr, n, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(x_ptr + i, 2 * tl.load(x_ptr + i, i < n), i < n)

    types = {"aligned": {"x_ptr": "*fp32:16", "n": "i32:16"}, "anywhere": {"x_ptr": "*fp32", "n": "i32"}}
    made = scenario.compile_sources({k: (double, t, {"BLOCK": 512}) for k, t in types.items()})
    assert (made["aligned"]["wide loads"], made["aligned"]["wide stores"], made["aligned"]["narrower"]) == (1, 1, 0)
    assert made["anywhere"]["wide loads"] == 0 and made["anywhere"]["narrower"] > 0
    assert "ld.global" in made["anywhere"]["ptx"]


def test_a_kernel_that_does_not_compile_says_why():
    triton = pytest.importorskip("triton", reason="Triton is not available for this platform")
    import triton.language as tl

    @triton.jit
    def broken(x_ptr, BLOCK: tl.constexpr):
        tl.store(x_ptr, missing)  # noqa: F821

    with pytest.raises(RuntimeError, match="missing is not defined"):
        scenario.compile_sources({"broken": (broken, {"x_ptr": "*fp32"}, {"BLOCK": 16})})


def test_the_races_of_a_record_have_a_floor_each():
    """28 bytes for each of 2 million numbers take 0.056 ms at 10¹² bytes a second, however long a contender took."""

    def contender(whole, device=None):
        share = 56e6 / (device or whole) / 1e12
        known = {} if device is None else {"device": device, "launches": 3}
        return {"whole": whole, "share": share} | known

    def record(kind, **contenders):
        race = {"tensors": 4, "numbers": 2_000_000, "contenders": contenders}
        return {"device": f"a {kind}", "kind": kind, "scenarios": {"two million": race}}

    gpu = record("GPU", adamw_book=contender(2e-4, 7e-5), torch=contender(3e-4, 1e-4))
    table = scenario.race_table([gpu, record("CPU", adamw_book=contender(5e-4))])
    assert table["floor ms"].tolist() == pytest.approx([0.056] * 3)
    assert table["ms"].tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert table["contender"].tolist() == ["this book's", "torch", "this book's"]
    assert table["kind"].tolist() == ["GPU", "GPU", "CPU"] and table["launches"].isna().tolist() == [False, False, True]
    assert list(scenario.race_table([]).columns) == list(table.columns)
