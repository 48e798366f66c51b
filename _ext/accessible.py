"""Mends what the theme and the writers of tables and bibliographies leave in the way of those who do not see the page,
or have no mouse. tests/book/test_pages.py has axe look for such things on every page."""

from __future__ import annotations

from bs4 import BeautifulSoup


def mend(soup: BeautifulSoup) -> None:
    """Change the page in place."""
    for spare in soup.select('meta[name="viewport"]')[1:]:
        spare.decompose()
    # The theme's book title is a part of the sidebar, outside of its navigation.
    for sidebar in soup.select("#pst-primary-sidebar"):
        sidebar["role"], sidebar["aria-label"] = "complementary", "The book"
    # What shows a text is called by that text: whoever speaks to the browser says what they read.
    for named in soup.select("a[aria-label], button[aria-label], summary[aria-label]"):
        if (text := named.get_text(" ", strip=True)) and text.lower() not in named["aria-label"].lower():
            del named["aria-label"]
    # The corner of a table over its row names, as pandas writes it, is no heading.
    for cell in soup.find_all("th"):
        if not cell.get_text(strip=True) and not cell.find("img"):
            cell.name = "td"
            del cell["scope"]
    # docutils' role for a reference is deprecated.
    for entry in soup.select("[role=doc-biblioentry]"):
        entry["role"] = "listitem"
    # An id is that of the first who has it: links lead there.
    seen = set()
    for element in soup.find_all(id=True):
        if element["id"] in seen:
            del element["id"]
        seen.add(element.get("id"))
