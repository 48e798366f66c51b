"""Figures that are light, that keep their place before they come, and that come when the reader nears them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from bs4 import BeautifulSoup


def size(soup: BeautifulSoup, file_of: Callable[[str], Path]) -> None:
    """Give each SVG figure of a page its width and height in pixels, and let all pictures but the first be fetched
    late. `file_of` leads from a figure's address to its file. Raises ValueError for a figure without a size."""
    for image in soup.select("article img[src*='_images/'][src$='.svg']"):
        drawing = ElementTree.parse(file_of(image["src"])).getroot()
        for side in ("width", "height"):
            if not (points := re.fullmatch(r"([\d.]+)pt", drawing.get(side, ""))):
                raise ValueError(f"the figure {image['src']} has no {side} in points")
            image[side] = f"{float(points[1]) * 4 / 3:.0f}"
    for image in soup.select("article img")[1:]:
        image["loading"] = "lazy"


def slim(drawing: str) -> str:
    """An SVG figure as matplotlib writes it, without what nobody sees: metadata, comments, names of groups, spaces
    between elements, and of a coordinate (in points) all but two decimals."""
    drawing = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)
    drawing = re.sub(r"\s*\n\s*", "\n", drawing).replace(">\n<", "><")

    def rounded(match: re.Match[str]) -> str:
        return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", match[0])

    return re.sub(r' (?:d|x|y)="[^"]*"', rounded, drawing)
