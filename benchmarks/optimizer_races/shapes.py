"""The parameters of well-known models, written out as shapes."""

Shapes = list[tuple[int, ...]]


def resnet50() -> Shapes:
    """The 161 parameters of ResNet-50 (He et al., 2016), 25,557,032 numbers."""
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    width = 64
    for blocks, inner in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            for out, into, kernel in ((inner, width, 1), (inner, inner, 3), (4 * inner, inner, 1)):
                shapes += [(out, into, kernel, kernel), (out,), (out,)]
            if block == 0:
                shapes += [(4 * inner, width, 1, 1), (4 * inner,), (4 * inner,)]
            width = 4 * inner
    return shapes + [(1000, 2048), (1000,)]


def gpt2() -> Shapes:
    """The 148 parameters of GPT-2 124M (Radford et al., 2019), 124,439,808 numbers."""
    d = 768
    block: Shapes = [(d,), (d,), (d, 3 * d), (3 * d,), (d, d), (d,), (d,), (d,), (d, 4 * d), (4 * d,), (4 * d, d), (d,)]
    return [(50257, d), (1024, d)] + 12 * block + [(d,), (d,)]


def llama() -> Shapes:
    """246 parameters in the shape of a Llama (Touvron et al., 2023) of 27 layers, 1,518,450,688 numbers."""
    d, inner = 2048, 5632
    layer: Shapes = [(d, d)] * 4 + [(inner, d), (inner, d), (d, inner), (d,), (d,)]
    return [(32000, d)] + 27 * layer + [(d,), (32000, d)]
