"""Six published recipes, as arguments of :func:`adamw_book.diagnose.audit_numbers`. Numbers are those of the source;
what is derived from them is said."""

_IMAGENET = 1_281_167  # training images of ImageNet-1k

RECIPES = {
    # train.py and config/train_gpt2.py: 12 · 40 sequences of 1,024 of the 9,035,582,198 tokens of OpenWebText
    "nanoGPT": {
        "lr": 6e-4, "weight_decay": 0.1, "steps": 600_000, "schedule": "cosine", "warmup": 2_000, "final": 0.1,
        "batch_size": 480, "dataset_size": 9_035_582_198 // 1024,
    },
    # Devlin et al. (2019), A.2: 256 sequences a step, a million steps, "approximately 40 epochs", which gives the size
    "BERT": {
        "lr": 1e-4, "weight_decay": 0.01, "steps": 1_000_000, "schedule": "linear", "warmup": 10_000,
        "batch_size": 256, "dataset_size": 256 * 1_000_000 // 40,
    },
    # Dosovitskiy et al. (2021), B.1: ViT-B on ImageNet, 300 epochs at 4,096
    "ViT": {
        "lr": 3e-3, "weight_decay": 0.3, "steps": 300 * _IMAGENET // 4096, "schedule": "cosine", "warmup": 10_000,
        "batch_size": 4096, "dataset_size": _IMAGENET,
    },
    # Touvron et al. (2023), 2.2 and Table 2: 7B, 4 million tokens a step, 10¹² tokens
    "Llama": {
        "lr": 3e-4, "weight_decay": 0.1, "steps": 250_000, "schedule": "cosine", "warmup": 2_000, "final": 0.1,
        "batch_size": 4_000_000, "dataset_size": 10**12,
    },
    # Liu et al. (2022), main.py: 300 epochs at 4,096, the last, smaller batch of an epoch dropped, 20 epochs of warm-up
    "ConvNeXt": {
        "lr": 4e-3, "weight_decay": 0.05, "steps": 300 * (_IMAGENET // 4096), "schedule": "cosine",
        "warmup": 20 * (_IMAGENET // 4096), "final": 1e-6 / 4e-3, "batch_size": 4096, "dataset_size": _IMAGENET,
    },
    # TrainingArguments() of transformers 5: 3 epochs at 8; the 25,000 examples are ours
    "Hugging Face's default": {
        "lr": 5e-5, "weight_decay": 0.0, "steps": 3 * 25_000 // 8, "schedule": "linear",
        "batch_size": 8, "dataset_size": 25_000,
    },
}  # fmt: skip
