"""Adversarial robustness: attacks against exact answers, the networks' data, what judges them, the protocol."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from adamw_book import ledger, trained
from adamw_book.data import DIGITS_TEST, apart, digits, varying
from adamw_book.ensemble import Task, batch_order, initial_parameters, train
from adamw_book.evidence import verdict
from adamw_book.models import MLP
from adamw_book.plots.stepper import stepper
from adamw_book.scenarios.adversarial_robustness import attack, closed_form, plane, study, tasks

EPSILON = 0.1


def drawn(seed: int, n: int = 40, features: int = 6, classes: int = 4):
    """A random linear model in float64, with inputs in [0, 1] that it labels itself."""
    rng = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(classes, features, generator=rng), torch.randn(classes, generator=rng) / 5
    x = torch.rand(n, features, generator=rng)
    weight, bias, x = weight.double(), bias.double(), x.double()
    return weight, bias, x, (x @ weight.T + bias).argmax(-1)


def by_corners(weight, bias, x, y, epsilon, bounds):
    """The smallest margin by trying every corner of the ball, in numpy: a linear model is at its worst in one."""
    low, high = bounds if bounds else (-np.inf, np.inf)
    weight, bias, found = weight.numpy(), bias.numpy(), []
    for point, label in zip(x.numpy(), y.tolist(), strict=True):
        ends = [(max(v - epsilon, low), min(v + epsilon, high)) for v in point]
        logits = np.array(list(itertools.product(*ends))) @ weight.T + bias
        found.append((logits[:, [label]] - np.delete(logits, label, 1)).min())
    return torch.tensor(found)


# ---- the attack against exact answers


def test_margin_is_the_lead_over_the_strongest_rival():
    logits = torch.tensor([[[1.0, 4.0, 2.5], [0.0, -1.0, 3.0]]])
    assert attack.margin(logits, torch.tensor([[1, 0]])).tolist() == [[1.5, -3.0]]
    assert attack.margin_loss(logits, torch.tensor([[1, 0]])).tolist() == [[-1.5, 3.0]]
    assert attack.margin_loss(logits, torch.tensor([[1, 0]]), torch.tensor([[0, 1]])).tolist() == [[-3.0, -1.0]]


@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
def test_the_closed_form_is_the_worst_corner(bounds):
    weight, bias, x, y = drawn(1)
    found = closed_form.linear_margin(weight, bias, x, y, EPSILON, bounds)
    torch.testing.assert_close(found, by_corners(weight, bias, x, y, EPSILON, bounds), rtol=0, atol=1e-12)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
@pytest.mark.parametrize("classes", [2, 4])
def test_pgd_reaches_the_closed_form_on_linear_models(classes, bounds):
    weight, bias, x, y = drawn(2, classes=classes)

    def logits(z):
        return z @ weight.T + bias

    z = attack.pgd(logits, x, y, EPSILON, steps=10, restarts=classes, bounds=bounds)
    exact = closed_form.linear_margin(weight, bias, x, y, EPSILON, bounds)
    torch.testing.assert_close(attack.margin(logits(z), y), exact, rtol=0, atol=1e-5)
    assert (z - x).abs().max() <= EPSILON + 1e-12
    assert bounds is None or (0 <= z.min() and z.max() <= 1)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_last_step_counts(steps):
    """Two and a half times ε goes to the end of the ball in one step, and a linear model is at its worst there."""
    weight, bias, x, y = drawn(2, classes=2)
    z = attack.pgd(lambda z: z @ weight.T + bias, x, y, EPSILON, steps=steps)
    exact = closed_form.linear_margin(weight, bias, x, y, EPSILON)
    torch.testing.assert_close(attack.margin(z @ weight.T + bias, y), exact, rtol=0, atol=1e-6)


def small_network(seed: int = 0) -> nn.Module:
    """A trained ReLU network with three inputs and six hidden units, in float64, and its data."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(60, 3, generator=rng).double()
    y = ((x[:, 0] - 0.5) ** 2 + (x[:, 1] - 0.5) ** 2 > 0.09).long() + (x[:, 2] > 0.6).long()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MLP(3, width=6, classes=3).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.requires_grad_(False), x, y


def test_pgd_finds_what_linear_programming_proves_on_a_relu_network():
    model, x, y = small_network()
    x, y = x[:15], y[:15]
    exact = torch.tensor([closed_form.relu_margin(dict(model.named_parameters()), a, b, EPSILON)
                          for a, b in zip(x, y, strict=True)], dtype=torch.float64)  # fmt: skip
    found = attack.margin(model(attack.pgd(model, x, y, EPSILON, steps=50, restarts=60)), y)
    assert (found >= exact - 1e-7).all()  # no attack can do better than the proof
    assert (found - exact).max() < 0.02 and (found - exact).median() < 1e-6


def test_pgd_finds_what_another_optimizer_finds():
    """scipy's L-BFGS-B, with its own gradients by finite differences, from many starts."""
    model, x, y = small_network(1)
    for point, label in zip(x[:4], y[:4], strict=True):
        bounds = [(max(v - EPSILON, 0), min(v + EPSILON, 1)) for v in point.tolist()]
        starts = np.random.default_rng(0).uniform(*np.array(bounds).T, size=(8, 3))

        def lead(z, label=label, rival=None):
            logits = model(torch.tensor(z)[None])[0].numpy()
            return logits[label] - (np.delete(logits, label).max() if rival is None else logits[rival])

        other = min(lead(minimize(lead, start, args=(label, rival), method="L-BFGS-B", bounds=bounds).x)
                    for rival in {0, 1, 2} - {int(label)} for start in starts)  # fmt: skip
        attacked = attack.pgd(model, point[None], label[None], EPSILON, steps=50, restarts=60)
        assert attack.margin(model(attacked), label[None]).item() < other + 0.02


def test_a_linear_radius_is_where_the_margin_under_attack_ends():
    weight, bias, x, y = drawn(3)
    radius = closed_form.linear_radius(weight, bias, x, y)
    at = closed_form.linear_margin(weight, bias, x, y, radius, None)
    torch.testing.assert_close(at, torch.zeros_like(at), rtol=0, atol=1e-12)
    # two classes: y f / ‖w‖, by hand
    two, none = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0])
    point = torch.tensor([[1.0, 2.0], [-1.0, 0.0]])
    assert closed_form.linear_radius(two, none, point, torch.tensor([0, 1])).tolist() == pytest.approx([12 / 7, 2 / 7])
    assert closed_form.linear_radius(two, none, point, torch.tensor([0, 0]), 2).tolist() == pytest.approx([12 / 5, 0])


def test_a_rival_with_the_same_row_of_weights_comes_no_closer():
    weight, x, y = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]]), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    for norm, size in ((torch.inf, 2.0), (2, 2**0.5)):
        # class 1 is behind by 1 everywhere; class 2 by 0.5 + 0.5 + 1, which is size to the boundary times the norm
        ahead = closed_form.linear_radius(weight, torch.tensor([1.0, 0.0, 0.0]), x, y, norm)
        torch.testing.assert_close(ahead, torch.tensor([2.0]) / size)
        for bias in ([0.0, 0.0, 0.0], [0.0, 1.0, 0.0]):  # a tie with class 1, or its victory, everywhere
            assert closed_form.linear_radius(weight, torch.tensor(bias), x, y, norm).tolist() == [0.0]
    alike, bias = torch.ones(3, 2), torch.tensor([1.0, 0.0, 0.0])
    assert closed_form.linear_radius(alike, bias, x, y).tolist() == [torch.inf]  # no change of x alters the prediction
    assert plane.radius(torch.zeros(2), torch.tensor(plane.POINT)).item() == 0


def test_what_leads_by_nothing_is_not_robust():
    x, y = torch.rand(5, 3), torch.zeros(5, dtype=torch.long)

    def tie(z):
        return z @ torch.zeros(3, 2)

    assert not attack.robust(tie, x, y, EPSILON).any() and not attack.attack_radius(tie, x, y).any()
    assert not attack.robust(lambda z: tie(z) * torch.nan, x, y, EPSILON).any()  # nor what has diverged


def test_a_radius_does_not_change_with_the_scale_of_the_weights():
    weight, bias, x, y = drawn(4)
    for norm in (2, torch.inf):
        own = closed_form.linear_radius(weight, bias, x, y, norm)
        torch.testing.assert_close(closed_form.linear_radius(weight / 8, bias / 8, x, y, norm), own, rtol=1e-12, atol=0)


def test_the_radius_by_attack_is_the_exact_one_on_a_linear_model():
    weight, bias, x, y = drawn(5, n=20)
    y[:3] = (y[:3] + 1) % 4  # three wrong predictions
    found = attack.attack_radius(lambda z: z @ weight.T + bias, x, y, 1.0, 12, steps=5, restarts=4, bounds=None)
    exact = closed_form.linear_radius(weight, bias, x, y).clamp(max=1.0)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1 / 2**13 + 1e-6)  # half of the last interval
    assert (found[:3] == 0).all()


def test_one_radius_for_each_example():
    weight, bias, x, y = drawn(6)
    radii = torch.linspace(0, 0.2, len(x)).double()
    z = attack.pgd(lambda z: z @ weight.T + bias, x, y, radii, restarts=4, bounds=None)
    torch.testing.assert_close((z - x).abs().amax(-1), radii, rtol=0, atol=1e-12)


def test_replicas_are_attacked_as_if_alone():
    models = [drawn(seed)[:2] for seed in (7, 8, 9)]
    x, y = drawn(7)[2:]
    weight, bias = (torch.stack(part) for part in zip(*models, strict=True))

    def found_by(w, b, x, y):  # one step from a random place: what it finds depends on the place
        return attack.pgd(lambda z: torch.sin(9 * z) @ w.mT + b, x, y, EPSILON, steps=1, restarts=3)

    together = found_by(weight, bias[:, None], x.expand(3, -1, -1), y.expand(3, -1))
    for found, (w, b) in zip(together, models, strict=True):
        torch.testing.assert_close(found, found_by(w, b, x, y), rtol=0, atol=1e-12)


def test_more_steps_and_restarts_never_leave_a_larger_margin():
    model, x, y = small_network(2)

    def left(**options):
        return attack.margin(model(attack.pgd(model, x, y, EPSILON, **options)), y)

    assert (left(steps=20, restarts=6) <= left(steps=20, restarts=1)).all()
    assert (left(steps=20, restarts=1) <= attack.margin(model(x), y)).all()


# ---- gradient masking


def test_cross_entropy_is_fooled_by_the_scale_of_the_logits_and_the_margin_is_not():
    model, x, y = small_network(3)
    model, x = model.float(), x.float()
    kept = model(x).argmax(-1) == y
    x, y = x[kept], y[kept]

    def robust(factor, loss):
        scaled = attack.rescaled(dict(model.named_parameters()), factor)
        return attack.robust(lambda z: torch.func.functional_call(model, scaled, (z,)), x, y, 0.2, loss=loss)

    plain, large = (robust(f, attack.margin_loss).float().mean() for f in (1.0, 16.0))
    fooled = robust(64.0, attack.cross_entropy_loss).float().mean()
    assert plain == large and plain < 0.9 and fooled > plain + 0.05

    def huge(z):
        return 1e4 * model(z)

    # only the first input acts: that is not a gradient of zero
    assert attack.zero_gradients(lambda z: torch.stack([z[:, 0], -z[:, 0]], 1), x, y.clamp(max=1)) == 0
    assert attack.zero_gradients(huge, x, y) > 0.9
    assert attack.zero_gradients(huge, x, y, attack.margin_loss) < 0.2


def test_rescaled_layers_change_the_logits_by_one_factor():
    model, x, _ = small_network(4)
    p = attack.rescaled(dict(model.named_parameters()), 0.25)
    torch.testing.assert_close(torch.func.functional_call(model, p, (x,)), model(x) / 16)


# ---- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": -0.1}, "epsilon: -0.1; finite radii of 0 or more"),
        ({"epsilon": float("nan")}, "epsilon: nan; finite radii"),
        ({"steps": 0}, "steps: 0; a positive whole number"),
        ({"restarts": 0}, "restarts: 0; a positive whole number"),
        ({"x": torch.rand(0, 6).double(), "y": torch.zeros(0, dtype=torch.long)}, "x: shape .0, 6., no examples"),
        ({"y": torch.full((40,), 4)}, "y: labels from 4 to 4; with 4 logits they must lie in 0…3"),
        ({"y": torch.zeros(3, dtype=torch.long)}, r"y: shape \(3,\); one label an example"),
        ({"x": torch.full((40, 6), 2.0).double()}, r"x: values from 2 to 2; with bounds=\(0.0, 1.0\)"),
        ({"x": torch.full((40, 6), torch.nan), "bounds": None}, "x: torch.float32, from nan to nan; finite"),
        ({"x": torch.ones(40, 6).long()}, "x: torch.int64, from 1 to 1; finite floating-point numbers"),
        ({"y": torch.zeros(40)}, "y: torch.float32; class labels of an integer type"),
        ({"epsilon": torch.ones(40, 1)}, r"epsilon: shape \(40, 1\); one radius, or \(40,\), one for each"),
        ({"logits": lambda z: z[:, :1], "y": torch.zeros(40).long()}, "logits: 1 for each example; at least two"),
    ],
)
def test_an_attack_names_what_is_wrong(change, message):
    weight, bias, x, y = drawn(0)
    given = {"logits": lambda z: z.double() @ weight.T + bias, "x": x, "y": y, "epsilon": EPSILON} | change
    with pytest.raises(ValueError, match=message):
        attack.pgd(**given)


def test_whole_numbers_of_numpy_will_do():
    weight, bias, x, y = drawn(0)

    def logits(z):
        return z @ weight.T + bias

    one, other = (attack.pgd(logits, x, y, EPSILON, steps=n, restarts=n) for n in (2, np.int64(2)))
    assert torch.equal(one, other)


def test_other_functions_name_what_is_wrong():
    weight, bias, x, y = drawn(0)
    for change in ({"weight": weight[:, :1]}, {"bias": bias[:2]}):
        given = {"weight": weight, "bias": bias, "x": x, "y": y} | change
        with pytest.raises(ValueError, match=r"weight, bias: shapes .*; \(..., C, 6\) and \(..., C\) are needed"):
            closed_form.linear_radius(**given)
        with pytest.raises(ValueError, match="weight, bias: shapes"):
            closed_form.linear_margin(**given, epsilon=EPSILON)
    for one in (closed_form.linear_radius, lambda *given: closed_form.linear_margin(*given, EPSILON)):
        with pytest.raises(ValueError, match="logits: 1 for each example; at least two"):
            one(weight[:1], bias[:1], x, y * 0)
    with pytest.raises(ValueError, match="logits: 1 for each example; at least two"):
        attack.margin(x[:, :1], y * 0)
    for halvings in (0, 2.5):
        with pytest.raises(ValueError, match=f"halvings: {halvings}; a positive whole number"):
            attack.attack_radius(lambda z: z @ weight.T, x, y, halvings=halvings)
    with pytest.raises(ValueError, match="largest: inf; a finite radius above 0"):
        attack.attack_radius(lambda z: z @ weight.T, x, y, largest=float("inf"))
    with pytest.raises(ValueError, match="x: shape .0, 6., no examples"):
        attack.zero_gradients(lambda z: z @ weight.T, x[:0], y[:0])
    for factor in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"factor: {factor}; a finite number above 0"):
            attack.rescaled({"weight": weight}, factor)
    with pytest.raises(ValueError, match="norm: 1; 2 .Euclidean. or inf"):
        closed_form.linear_radius(weight, bias, x, y, norm=1)
    with pytest.raises(ValueError, match="largest: 0; a finite radius above 0"):
        attack.attack_radius(lambda z: z @ weight.T, x, y, largest=0)
    with pytest.raises(ValueError, match="pixels: 'few'; choose from 'all pixels'"):
        tasks.task("few")
    with pytest.raises(ValueError, match="model: 'RNN'; choose from 'linear', 'MLP'"):
        tasks.task(model="RNN")
    with pytest.raises(ValueError, match="sd: 0.9; no feature varies more"):
        varying(digits()[0], 0.9)
    wide = MLP(3, width=64, classes=3).double()
    with pytest.raises(ValueError, match="epsilon: 0.5 leaves .* hidden units undecided"):
        closed_form.relu_margin(dict(wide.named_parameters()), torch.full((3,), 0.5).double(), 0, 0.5)
    own, point = dict(wide.named_parameters()), torch.full((3,), 0.5).double()
    for change, message in (
        ({"x": point[:2]}, r"x: shape \(2,\); one example of 3 inputs"),
        ({"x": point * torch.nan, "bounds": None}, "x: torch.float64, from nan to nan"),
        ({"parameters": own | {"layers.1.bias": own["layers.1.bias"] * torch.nan}}, "the four .*, all finite"),
        ({"parameters": own | {"layers.2.bias": own["layers.1.bias"]}}, "parameters: layers.0.weight, .*; the four"),
    ):
        with pytest.raises(ValueError, match=message):
            closed_form.relu_margin(**{"parameters": own, "x": point, "y": 0, "epsilon": 0.01} | change)
    for label in (-1, 3, 0.5):
        with pytest.raises(ValueError, match=f"y: {label}; a class from 0 to 2 is needed"):
            closed_form.relu_margin(dict(wide.named_parameters()), torch.full((3,), 0.5).double(), label, 0.01)


# ---- the networks and what judges them


def one_run(lr: float = 0.01, seeds=(0,), weight_decay: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame({"arm": "AdamW", "lr": lr, "weight_decay": weight_decay, "l2": 0.0, "seed": list(seeds)})


def test_varying_pixels_are_found_without_the_test_part():
    x = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.1]])
    assert varying(x, 0.1).tolist() == [1]
    columns = tasks.PIXELS["pixels that vary"]()
    spread = apart(*digits(), DIGITS_TEST)["rest"][0].std(0)
    assert columns.tolist() == torch.nonzero(spread > tasks.VARYING_SD)[:, 0].tolist() and 30 < len(columns) < 40
    assert torch.equal(tasks.task("pixels that vary").data(0)["train"][0], tasks.task().data(0)["train"][0][:, columns])


def test_no_seed_tunes_on_a_test_image():
    first, second = (tasks.task().data(seed) for seed in (0, 2001))
    assert torch.equal(first["test"][0], second["test"][0]) and len(first["test"][0]) == DIGITS_TEST
    assert not torch.equal(first["validation"][0], second["validation"][0])
    images = [set(map(tuple, x.tolist())) for x, _ in (first["train"], first["validation"], first["test"])]
    assert all(len(a & b) <= 1 for a, b in itertools.combinations(images, 2))  # no split holds another's images


def test_a_perturbation_is_what_is_trained_on_and_no_perturbation_changes_nothing():
    plain = tasks.task()

    def trained(perturb):
        changed = Task(plain.name, plain.model, plain.data, perturb=perturb)
        table = train(changed, one_run(seeds=[0, 1]), steps=2, batch_size=50, evaluate=("train",)).table
        return table.sort_values(["metric", "seed"])["value"]

    seen = []

    def keep(logits, x, y):
        seen.append(logits(x))
        return x

    np.testing.assert_allclose(trained(keep), trained(None), rtol=1e-6)
    assert (trained(lambda f, x, y: x / 2) / trained(None) - 1).abs().max() > 0.01
    # each seed's batch at each step, however many replicas a chunk holds
    assert {tuple(logits.shape[1:]) for logits in seen} == {(50, 10)} and sum(map(len, seen)) == 2 * 2
    assert not any(logits.requires_grad for logits in seen)


def test_adversarial_training_is_torchs_adamw_on_attacked_batches():
    condition = tasks.CONDITIONS[tasks.ADVERSARIAL]
    result = train(condition.task, one_run(seeds=[3], weight_decay=0.5), steps=2, batch_size=50, evaluate=(),
                   keep_parameters=True, decays=condition.decays)  # fmt: skip
    model, (x, y) = condition.task.model(), condition.task.data(3)["train"]
    model.load_state_dict({n: p[0] for n, p in initial_parameters(condition.task.model, [3]).items()})
    groups = [{"params": [p for p in model.parameters() if (p.ndim > 1) == matrix], "weight_decay": 0.5 * matrix}
              for matrix in (True, False)]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    for batch in batch_order(3, len(x), 50, 2):
        attacked = tasks.adversarial(model, x[batch], y[batch])
        assert (attacked - x[batch]).abs().max() > 0.09
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(attacked), y[batch]).backward()
        optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(result.parameters[name][0], p.detach(), rtol=1e-4, atol=1e-5)


def boundary_at(place: float) -> nn.Linear:
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight[:], model.bias[:] = torch.tensor([[-1.0], [1.0]]), torch.tensor([2 * place, 0.0])
    return model


@pytest.mark.parametrize("wrapped", [False, True])  # wrapped: only an attack can find its radius
def test_the_judge_attacks_the_splits_that_are_named(wrapped):
    """One input and a boundary at ½ that stays where it is: what is nearer to it than ε is lost."""
    places = {"train": [0.1, 0.2, 0.8, 0.9], "validation": [0.1, 0.45, 0.7, 0.9], "test": [0.42, 0.45, 0.55, 0.9]}
    y, splits = torch.tensor([0, 0, 1, 1]), {}
    splits = {name: (torch.tensor(x)[:, None], y) for name, x in places.items()}
    still = Task("still", lambda: nn.Sequential(boundary_at(0.5)) if wrapped else boundary_at(0.5), lambda seed: splits)
    result = train(still, one_run(1e-9, [0, 1]), steps=1, batch_size=4, keep_parameters=True)
    judge = tasks.attacked(still)
    assert judge(result, ("validation",))["value"].tolist() == [0.75, 0.75]
    table = judge(result, ("train", "test"))
    assert list(table.columns) == list(result.table.columns) and set(table["step"]) == {1}
    values = table.groupby("metric")["value"].mean()
    assert values["test robust accuracy"] == 0.25 and len(values) == 2
    assert values["test L∞ radius"] == pytest.approx(np.abs(np.array(places["test"]) - 0.5).mean(), abs=0.5 / 2**7)
    without = tasks.attacked(still, radius=False)(result, ("train", "test"))
    assert set(without["metric"]) == {"test robust accuracy"}


def test_a_radius_may_leave_the_range_of_pixels():
    """The boundary lies at 1.2, beyond any image, also for a network whose radius only an attack can find."""
    data = torch.tensor([[1.0], [0.9]]), torch.tensor([0, 0])
    beyond = Task("beyond", lambda: nn.Sequential(boundary_at(1.2)), lambda seed: {"train": data, "test": data})
    result = train(beyond, one_run(1e-9), steps=1, batch_size=2, evaluate=("test",), keep_parameters=True)
    assert tasks.mean_radius(beyond, result, "test").item() == pytest.approx(0.25, abs=0.5 / 2**7)


def test_each_gives_every_replica_its_own_weights_and_data():
    two = train(tasks.task(), one_run(seeds=[0, 1]), steps=1, batch_size=50, evaluate=(), keep_parameters=True)

    def first_logit(f, x, y):
        return f(x)[:, 0, 0]

    by_one = trained.each(tasks.task(), two, "validation", first_logit, block=1)
    torch.testing.assert_close(by_one, trained.each(tasks.task(), two, "validation", first_logit))
    for i in (0, 1):
        model = tasks.task().model()
        model.load_state_dict({name: p[i] for name, p in two.parameters.items()})
        torch.testing.assert_close(by_one[i], model(tasks.task().data(i)["validation"][0])[0, 0].detach())
    with pytest.raises(ValueError, match="result: it kept no parameters"):
        trained.each(tasks.task(), train(tasks.task(), one_run(), steps=1, batch_size=50), "validation", first_logit)


def test_weights_by_ink_are_sorted_by_the_images_of_their_own_run():
    rows = [("Adam", "MLP · all pixels", "accuracy", 1e-9), ("Adam", "MLP · all pixels", "robust", 1.0),
            ("Adam", "CNN · all pixels", "accuracy", 1.0)]  # fmt: skip
    winners = pd.DataFrame(rows, columns=["arm", "condition", "rule", "lr"]).assign(weight_decay=0.0, l2=0.0)
    found = tasks.weights_by_ink(winners, [300, 301])  # a learning rate that leaves the start
    assert found.groupby("seed")["share"].sum().tolist() == pytest.approx([1, 1])
    for seed, own in found.groupby("seed"):
        ink = (tasks.task().data(seed)["train"][0] > 0).float().mean(0)
        start = initial_parameters(tasks.task().model, [seed])["layers.0.weight"][0].abs().mean(0)
        by_group = own.set_index("group")["size"]
        assert by_group[0] == pytest.approx(start[ink == 0].mean().item(), rel=1e-3)
        assert by_group[4] == pytest.approx(start[ink > 0.5].mean().item(), rel=1e-3)


# ---- the declared protocol


def test_each_arm_of_a_condition_tries_the_same_learning_rates_on_fresh_seeds():
    for condition in study.PROTOCOL.conditions.values():
        runs = condition.runs([0])
        assert runs.groupby("arm")["lr"].apply(lambda lr: tuple(sorted(lr))).nunique() == 1
        widths = [np.log(np.divide(*condition.search[name][::-1])) for name in ("weight_decay", "l2")]
        assert np.ptp(widths) < 0.3 and min(widths) > np.log(200)
    assert not set(study.PROTOCOL.tuning_seeds) & set(study.PROTOCOL.evaluation_seeds)


def test_ordinary_training_is_tuned_on_clean_accuracy_and_adversarial_training_on_robust_accuracy():
    first = {name: next(iter(c.rules.values())) for name, c in study.PROTOCOL.conditions.items()}
    assert first.pop(tasks.ADVERSARIAL) == "validation robust accuracy" and set(first.values()) == {
        "validation accuracy"
    }
    attacked = [name for name, c in study.PROTOCOL.conditions.items() if c.task.perturb is not None]
    assert attacked == [tasks.ADVERSARIAL]
    assert any("Norm" in name for name in first) and all(c.seen == ("validation",) for c in tasks.CONDITIONS.values())


def test_recorded_verdicts_follow_from_the_recorded_tables():
    for claim in study.PROTOCOL.claims:
        record = ledger.read(claim.id)
        effects = study.PROTOCOL.effects(record.tables)[claim.id]
        assert claim.primary in effects and list(effects) == list(record.effects)
        for regime, effect in effects.items():
            assert effect.mean == pytest.approx(record.effects[regime].mean, abs=1e-6)
        assert verdict(claim, effects) == record.verdict
        winners = record.tables["winners"]
        assert (winners.loc[winners["rule"] == "accuracy", "edge"].fillna("") == "").all()


# ---- the picture in the plane


def test_in_the_plane_the_silent_weight_follows_each_arm():
    paths = plane.paths()
    settings = plane.PLANE
    silent = {arm: path[-1, 1].item() for arm, path in paths.items()}
    assert silent["Adam"] == settings["start"][1]
    kept = (1 - settings["lr"] * settings["weight_decay"]) ** settings["steps"]
    assert silent["AdamW"] == pytest.approx(settings["start"][1] * kept, rel=1e-3)
    assert abs(silent["Adam + L2"]) < 0.05
    point = torch.tensor(plane.POINT)
    at_end = {arm: plane.radius(path[-1], point).item() for arm, path in paths.items()}
    assert at_end["Adam"] < at_end["AdamW"] < at_end["Adam + L2"] < plane.POINT[0]
    # by hand: f = 3·2 + 1·0 = 6, ‖w‖₁ = 4
    assert plane.radius(torch.tensor([3.0, 1.0]), point).item() == 1.5
    assert plane.radius(torch.tensor([3.0, 1.0]), point, -1.0).item() == 0
    with pytest.raises(ValueError, match="n: 3; an even number"):
        plane.examples(3)


def test_the_player_is_one_piece_of_text_in_which_each_frame_has_words():
    player = plane.player()
    assert len(player.html) < 1_000_000
    assert "http" not in player.html.replace("http://www.w3.org/2000/svg", "")
    assert not any(word in player.html for word in ("src=", "href=", "@import", "url("))
    frames = player.html.count('class="frame"')
    assert frames == player.html.count("<li>") == 20 and f'max="{frames - 1}"' in player.html
    assert 'role="img" aria-label="Rescaling' in player.html and 'type="range"' in player.html
    assert player.html == plane.player().html  # the same page each time
    rescaling = [line for line in player.markdown.splitlines() if "Rescaling" in line]
    assert len({line.rsplit("L∞ radius", 1)[1] for line in rescaling}) == 1
    with pytest.raises(ValueError, match="frames is empty"):
        stepper([], "", (1, 1), "nothing")
    with pytest.raises(ValueError, match="a frame has no caption"):
        stepper([("<g/>", " ")], "", (1, 1), "nothing")
