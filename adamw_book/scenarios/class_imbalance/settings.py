"""What is run and what is claimed, written down before the protocol was run."""

from adamw_book.evidence import Claim, spread

from .tasks import COUNTS


def _grid(lr: list[float], weight_decay: list[float], l2: list[float]) -> dict[str, list[float]]:
    """One condition's grids: six by six for each decay, and 36 learning rates over the same range for plain Adam."""
    return {"lr": lr, "weight_decay": weight_decay, "l2": l2, "lr_adam": spread(lr[0], lr[-1], 36)}


_DIGITS_L2 = [0.0, 1e-5, 1e-4, 1e-3, 1e-2, 0.1]
_CANCER_L2 = [0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0]
SETTINGS = {
    "counts": {name: {split: list(n) for split, n in counts.items()} for name, counts in COUNTS.items()},
    "steps": 1000,
    "batch_size": 50,
    "schedule": "cosine",
    "tuning_metric": "balanced accuracy",
    "grids": {
        "digit 8 · MLP · unweighted": _grid(
            [0.001, 0.003, 0.01, 0.03, 0.1, 0.3], [0.0, 0.03, 0.1, 0.3, 1.0, 3.0], _DIGITS_L2
        ),
        "digit 8 · MLP · class-weighted": _grid(
            [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1], [0.0, 0.1, 0.3, 1.0, 3.0, 8.0], _DIGITS_L2
        ),
        "breast cancer · MLP · unweighted": _grid(
            [0.003, 0.01, 0.03, 0.1, 0.3, 0.6], [0.0, 0.05, 0.15, 0.5, 1.0, 1.6], _CANCER_L2
        ),
        "breast cancer · MLP · class-weighted": _grid(
            [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03], [0.0, 0.3, 1.0, 3.0, 10.0, 30.0], _CANCER_L2
        ),
    },
    "tuning_seeds": list(range(10)),
    "evaluation_seeds": list(range(100, 148)),
    # One learning rate for all doses; longer training is the same with more steps.
    "dose": {"lr": 0.01, "weight_decay": [0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0], "steps": 1000, "seeds": 24},
    "long": {"lr": 0.01, "weight_decay": [0.0, 1.0], "steps": 5000},
}

# What validation data may be asked when a configuration is chosen. The first is the rule of this chapter; the others
# show what hangs on it. "best balanced accuracy" is the balanced accuracy once the threshold has been moved.
TUNING_METRICS = ("balanced accuracy", "best balanced accuracy", "accuracy", "AUC")
KEPT = ("recall", "balanced accuracy", "AUC", "calibration error",
        "balanced accuracy, threshold moved", "balanced accuracy, threshold at the prior")  # fmt: skip

# What is tuned. A condition's name says its data set, model and loss, and whether decay acts on the bias too.
CONDITIONS = [key + bias for bias in ("", " · decayed bias") for key in SETTINGS["grids"]]


MINORITY = Claim(
    id="class_imbalance.minority",
    tag="3096556",
    statement="On imbalanced data, without class weights, AdamW's decay makes a model recognise more of the minority "
    "than Adam without decay does.",
    source="On imbalanced data the majority class wins by huge weights; AdamW punishes those weights, so that the "
    "model learns the finer features of the minority and becomes fairer.",
    criterion="Recall of the minority on test data, at the usual threshold, at least two percentage points higher than "
    "with plain Adam, with the 95% interval above zero: when both are tuned with the same budget for balanced accuracy "
    "on validation data, and at one fixed learning rate with λ = 1 against no decay.",
    metric="test recall",
    smallest_effect=0.02,
)
WEIGHTS = Claim(
    id="class_imbalance.weights",
    tag=None,
    statement="Where the loss weights the classes, decoupled decay makes the weights count: balanced accuracy rises.",
    source="Byrd and Lipton (2019, not the source itself) find that the effect of class weights fades on data that a "
    "network can separate, and that regularisation restores some of it.",
    criterion="Balanced accuracy on test data at least one percentage point higher, with the 95% interval above zero: "
    "than Adam's and than Adam + L2's, all tuned with the same budget for balanced accuracy on validation data; and "
    "than Adam's in long training at one fixed learning rate, with λ = 1.",
    metric="test balanced accuracy",
    smallest_effect=0.01,
)
THRESHOLD = Claim(
    id="class_imbalance.threshold",
    tag=None,
    statement="AdamW with class weights beats the simplest remedy: plain Adam, no weights, no decay, and a threshold "
    "that is moved after training.",
    source="AdamW makes a model more useful on imbalanced data. (Any remedy in training has to beat the one that costs "
    "nothing.)",
    criterion="Balanced accuracy on test data at least one percentage point higher, with the 95% interval above zero. "
    "Both sides are tuned with the same budget; the threshold is chosen on the validation data of each run.",
    metric="test balanced accuracy",
    smallest_effect=0.01,
)
