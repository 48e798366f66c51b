"""Synthetic texts: bags of words in which we decide how common each word is, and which words carry the meaning."""

from numbers import Integral

import torch
from torch import Tensor

from adamw_book.data import Splits, generator

CONDITIONS = ("all words informative", "rare words are noise", "only rare words informative", "equal frequency")


def word_frequencies(words: int, length: float, zipf: bool = True, highest: float = 0.5) -> Tensor:
    """The share of texts that hold each word (words,), the commonest first; they add up to ``length`` words a text.

    With ``zipf`` the frequency falls as 1/rank (Zipf's law) and is capped at ``highest``; otherwise all are equal.

    Raises ValueError where texts of that mean length cannot be made.
    """
    if not isinstance(words, Integral) or words < 1:
        raise ValueError(f"words: {words}; a positive whole number is needed")
    if not 0 < highest <= 1:
        raise ValueError(f"highest: {highest}; a share above 0, up to 1, is needed")
    if not 0 < length < highest * words:
        raise ValueError(f"length: {length}; a number between 0 and highest · words = {highest * words:g} is needed")
    if not zipf:
        return torch.full((words,), length / words)
    rank = torch.arange(1, words + 1, dtype=torch.float64)
    low, high = 0.0, highest * words
    for _ in range(60):  # the sum grows with the scale: bisection
        scale = (low + high) / 2
        short = (scale / rank).clamp(max=highest).sum() < length
        low, high = (scale, high) if short else (low, scale)
    return (scale / rank).clamp(max=highest).float()


def meaning(condition: str, words: int, frequent: int, rng: torch.Generator) -> Tensor:
    """What each word says for class 1 and against class 0 (words,): normal draws, and 0 where the condition makes a
    word noise. The first ``frequent`` words count as frequent."""
    if condition not in CONDITIONS:
        raise ValueError(f"condition: {condition!r}; choose from {', '.join(map(repr, CONDITIONS))}")
    if not isinstance(frequent, Integral) or not 0 < frequent < words:
        raise ValueError(f"frequent: {frequent}; a number of words between 1 and {words - 1} is needed")
    weights = torch.randn(words, generator=rng)
    if condition == "rare words are noise":
        weights[frequent:] = 0
    if condition == "only rare words informative":
        weights[:frequent] = 0
    return weights


def synthetic_texts(
    condition: str, seed: int, *, train: int = 1000, validation: int = 1000, test: int = 1000, words: int = 400,
    length: float = 10, frequent: int = 40, strength: float = 4.0,
) -> Splits:  # fmt: skip
    """Texts as (N, words) indicators of the words that occur, with classes 0 and 1: splits train, validation, test.

    Words occur independently of each other, with :func:`word_frequencies`. Class 1 has probability sigmoid(z), where z
    is the sum of the :func:`meaning` of a text's words, shifted to mean 0 and scaled to standard deviation
    ``strength``: in each condition the words say equally much about the class. What they say and the test texts are the
    same under each seed.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    for name, size in sizes.items():
        if not isinstance(size, Integral) or size < 1:
            raise ValueError(f"{name}: {size}; a positive number of texts is needed")
    if not 0 <= strength < float("inf"):
        raise ValueError(f"strength: {strength}; a finite number of 0 or more is needed")
    rng = generator(0, "language")
    share = word_frequencies(words, length, zipf=condition != "equal frequency")
    weights = meaning(condition, words, frequent, rng)
    scale = strength / (share * (1 - share) * weights**2).sum().sqrt()
    own, splits = generator(seed, "texts"), {}
    for name, size in sizes.items():
        draw = rng if name == "test" else own
        x = (torch.rand(size, words, generator=draw) < share).float()
        z = scale * ((x - share) @ weights)
        splits[name] = x, (torch.rand(size, generator=draw) < z.sigmoid()).long()
    return splits
