"""What the host writes and the Triton kernel reads: a table of tensors and where their rows are cut into blocks."""

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from .entry import Flags

VECTOR = 8  # elements to which blocks are aligned: 16 bytes of the narrowest dtype


class Column(IntEnum):
    """What the table says of each tensor. Addresses, except where noted; a stride belongs to the coefficient
    before it.
    """

    PARAM = 0
    GRAD = 1
    EXP_AVG = 2
    EXP_AVG_SQ = 3
    MAX_EXP_AVG_SQ = 4
    LENGTH = 5  # elements of a row: the tensor's, or one replica's; 0 without a gradient
    FIRST_BLOCK = 6  # blocks of a row in the tensors before it
    LR = 7
    LR_STRIDE = 8  # 0 for a number, else the vector's
    WEIGHT_DECAY = 9
    WEIGHT_DECAY_STRIDE = 10
    DECAY_RATE = 11  # what the decay is multiplied with: lr, or the schedule's factor
    DECAY_RATE_STRIDE = 12
    L2 = 13
    L2_STRIDE = 14
    MOMENTS = 15  # (1 − β₁, 1 − β₂, ln β₁, ln β₂, ε)
    MOMENTS_STRIDE = 16  # 0, or their number where a beta is a vector
    STEP = 17
    INDEX = 18  # the parameter's number in the optimizer


def block_size(compute_dtype: torch.dtype) -> int:
    """Elements of a program: eight a thread in float32, four in float64."""
    return 512 if compute_dtype == torch.float64 else 1024


def blocks_of(length: int, rows: int, block: int) -> int:
    """Blocks that cover a row of ``length`` elements wherever it starts on the grid of vectors."""
    shift = 0 if rows == 1 or length % VECTOR == 0 else VECTOR - 1
    return -(-(length + shift) // block)


class WorkTable(NamedTuple):
    """What one launch works through, and what decides how the kernel is compiled for it."""

    table: Tensor  # (columns, tensors), int64
    tensor_of_block: Tensor  # (blocks_a_row,), int32
    blocks_a_row: int
    rows: int
    block: int  # its size
    dtypes: tuple[torch.dtype, ...]  # of parameters, gradients, state and step counts
    compute_dtype: torch.dtype
    flags: Flags

    @property
    def programs(self) -> int:
        """One for each block of each row."""
        return self.blocks_a_row * self.rows
