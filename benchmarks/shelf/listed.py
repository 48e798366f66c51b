"""What stands on the shelf: package → optimizers that call themselves Adam or AdamW, or belong to the family."""

import functools
import importlib
from collections.abc import Callable

import torch

# package on the index → (module, {name in the table: (name in the module, keywords)})
DECOUPLED = {"decoupled_weight_decay": True}
SHELF: dict[str, tuple[str, dict[str, tuple[str, dict]]]] = {
    "torch": (
        "torch.optim",
        {
            "Adam": ("Adam", {}),
            "Adam, decoupled_weight_decay": ("Adam", DECOUPLED),
            "AdamW": ("AdamW", {}),
            "AdamW, amsgrad": ("AdamW", {"amsgrad": True}),
            "AdamW, fused": ("AdamW", {"fused": True}),
            "NAdam, decoupled_weight_decay": ("NAdam", DECOUPLED),
            "RAdam, decoupled_weight_decay": ("RAdam", DECOUPLED),
            "Adamax": ("Adamax", {}),
        },
    ),
    "adamw-book": (
        "adamw_book",
        {
            "AdamW": ("AdamW", {}),
            "AdamW, lr_independent": ("AdamW", {"lr_independent": True}),
            "AdamW, cautious": ("AdamW", {"cautious": True}),
        },
    ),
    "timm": (
        "timm.optim",
        {name: (name, {}) for name in ("AdamWLegacy", "AdamP", "NAdamW", "NAdamLegacy", "RAdamLegacy")},
    ),
    "transformers": (
        "transformers.optimization",
        {"Adafactor, lr given": ("Adafactor", {"relative_step": False, "scale_parameter": False})},
    ),
    "pytorch_optimizer": (
        "pytorch_optimizer",
        {
            name: (name, {})
            for name in (
                "AdamW",
                "AdaBelief",
                "AdaMax",
                "AdamC",
                "AdamP",
                "AdamS",
                "AdamWSN",
                "AdaMod",
                "DAdaptAdam",
                "EXAdam",
                "FAdam",
                "FlashAdamW",
                "GrokFastAdamW",
                "NAdam",
                "PAdam",
                "QHAdam",
                "RAdam",
                "ScheduleFreeAdamW",
                "StableAdamW",
            )  # fmt: skip
        },
    ),
    "torch-optimi": (
        "optimi",
        {
            "Adam": ("Adam", {}),
            "Adam, decouple_wd": ("Adam", {"decouple_wd": True}),
            "AdamW": ("AdamW", {}),
            "AdamW, decouple_lr": ("AdamW", {"decouple_lr": True}),
            "RAdam, decouple_wd": ("RAdam", {"decouple_wd": True}),
            "StableAdamW": ("StableAdamW", {}),
        },
    ),
    "bitsandbytes": ("bitsandbytes.optim", {name: (name, {}) for name in ("Adam", "AdamW", "AdamW8bit")}),
    "torchao": ("torchao.optim", {name: (name, {}) for name in ("_AdamW", "AdamW8bit", "AdamW4bit", "AdamWFp8")}),
    "heavyball": ("heavyball", {name: (name, {}) for name in ("AdamW", "AdamC", "NAdam", "UnscaledAdamW")}),
    "schedulefree": (
        "schedulefree",
        {name: (name, {}) for name in ("AdamWScheduleFree", "AdamWScheduleFreeClosure", "RAdamScheduleFree")},
    ),
    "torch_optimizer": (
        "torch_optimizer",
        {name: (name, {}) for name in ("AdaBelief", "AdaMod", "AdamP", "QHAdam", "RAdam")},
    ),
    "adabelief_pytorch": (
        "adabelief_pytorch",
        {"AdaBelief": ("AdaBelief", {"print_change_log": False})},
    ),
    "adam-mini": ("adam_mini", {"Adam_mini": ("Adam_mini", {})}),
    "prodigyopt": ("prodigyopt", {"Prodigy": ("Prodigy", {})}),
    "optax": ("optax", {name: (name, {}) for name in ("adam", "adamw", "nadamw", "adamaxw", "adabelief", "radam")}),
    "keras": ("keras.optimizers", {name: (name, {}) for name in ("Adam", "AdamW", "Nadam", "Adamax")}),
}


def made(package: str, name: str) -> Callable:
    """The class or function behind one name of the table, its keywords bound. Raises what importing it raises."""
    module, entries = SHELF[package]
    inside, keywords = entries[name]
    if package in ("optax", "keras"):
        from . import functional

        return getattr(functional, package)(inside)
    if package == "timm":
        _torchvision()
    found = getattr(importlib.import_module(module), inside)
    if package == "heavyball":
        importlib.import_module("heavyball.utils").compile_mode = None  # minutes of compiling, and the same steps
    if package == "torchao":
        torch.compile = lambda function=None, **_: function
    if package == "adam-mini":

        def mini(params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
            if isinstance(params[0], dict):
                raise NotImplementedError("it makes its groups itself, from names")
            named = [(f"weight{i}", p) for i, p in enumerate(params)]
            return found(named, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

        return mini
    return functools.partial(found, **keywords) if keywords else found


def _torchvision() -> None:
    """timm imports torchvision. Its compiled operators need CUDA's libraries; without, two are named, not defined."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        _torchvision.library = torch.library.Library("torchvision", "DEF")
        _torchvision.library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _torchvision.library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
