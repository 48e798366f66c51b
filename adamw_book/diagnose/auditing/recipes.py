"""Six published recipes, as arguments of :func:`adamw_book.diagnose.audit_numbers`, and where each number stands. What
is derived from the source's numbers is said; commits are those that were read."""

from __future__ import annotations

from typing import NamedTuple

_IMAGENET = 1_281_167  # training images of ImageNet-1k

RECIPES = {
    "nanoGPT": {
        "lr": 6e-4, "weight_decay": 0.1, "steps": 600_000, "schedule": "cosine", "warmup": 2_000, "final": 0.1,
        "batch_size": 480, "dataset_size": 9_035_582_198 // 1024,
    },
    "BERT": {
        "lr": 1e-4, "weight_decay": 0.01, "steps": 1_000_000, "schedule": "linear", "warmup": 10_000,
        "batch_size": 256, "dataset_size": 256 * 1_000_000 // 40,
    },
    "ViT": {
        "lr": 3e-3, "weight_decay": 0.3, "steps": 300 * _IMAGENET // 4096, "schedule": "cosine", "warmup": 10_000,
        "batch_size": 4096, "dataset_size": _IMAGENET,
    },
    "Llama": {
        "lr": 3e-4, "weight_decay": 0.1, "steps": 250_000, "schedule": "cosine", "warmup": 2_000, "final": 0.1,
        "batch_size": 4_000_000, "dataset_size": 10**12,
    },
    "ConvNeXt": {
        "lr": 4e-3, "weight_decay": 0.05, "steps": 300 * (_IMAGENET // 4096), "schedule": "cosine",
        "warmup": 20 * (_IMAGENET // 4096), "final": 1e-6 / 4e-3, "batch_size": 4096, "dataset_size": _IMAGENET,
    },
    "Hugging Face's default": {
        "lr": 5e-5, "weight_decay": 0.0, "steps": 3 * 25_000 // 8, "schedule": "linear",
        "batch_size": 8, "dataset_size": 25_000,
    },
}  # fmt: skip


class Source(NamedTuple):
    """cite: the key in the book's bibliography. where: the place, and what is derived from it. betas: (β₁, β₂).
    exempt: who is not decayed, "not said" where the source is silent."""

    cite: str
    where: str
    betas: tuple[float, float]
    exempt: str


SOURCES = {
    "nanoGPT": Source(
        "karpathy2022nanogpt",
        "train.py and config/train_gpt2.py at 3adf61e: 12 · 40 sequences of 1,024 of the 9,035,582,198 tokens that "
        "data/openwebtext/readme.md counts; groups in model.py",
        (0.9, 0.95),
        "biases, norms",
    ),
    "BERT": Source(
        "devlin2019bert",
        'Appendix A.2: 256 sequences a step, a million steps, "approximately 40 epochs", which gives the size. '
        "optimization.py of google-research/bert at eedf571 decays outside the gradient, scaled by the rate, without "
        "bias correction; its straight fall begins at step 0, under the warm-up",
        (0.9, 0.999),
        "biases, norms",
    ),
    "ViT": Source(
        "dosovitskiy2021image",
        "Section 4.1 and Table 3: ViT-B on ImageNet, 300 epochs at 4,096. The decay that is named stands for the share "
        "η · λ in google-research/big_vision at 0127fb6: configs/vit_i21k.py has wd=0.0001 at lr=0.001 for checkpoints "
        "that are called wd_0.1; optax.py scales it by the schedule alone, on kernels alone",
        (0.9, 0.999),
        "biases, norms, embeddings",
    ),
    "Llama": Source(
        "touvron2023llama",
        "Section 2.3 and Table 2: 7B, 4 million tokens a step, 10¹² tokens",
        (0.9, 0.95),
        "not said",
    ),
    "ConvNeXt": Source(
        "liu2022convnet",
        "Table 5; main.py and utils.py at 048efce: 300 epochs at 4,096, the last, smaller batch of an epoch dropped, "
        "20 epochs of warm-up, down to min_lr=1e-6; groups in optim_factory.py",
        (0.9, 0.999),
        "biases, norms, layer scales",
    ),
    "Hugging Face's default": Source(
        "wolf2020transformers",
        "TrainingArguments() of transformers 5: 3 epochs at 8 on one device; the 25,000 examples are ours",
        (0.9, 0.999),
        "biases, norms",
    ),
}
