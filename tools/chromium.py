"""Chromium without a window and a server of the built pages, for what looks at them or prints them."""

from __future__ import annotations

import gzip
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TEXTS = (".html", ".css", ".js", ".svg", ".json", ".txt", ".xml")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


_running: list = []  # a process can start Playwright once: who asks again gets the browser that runs


@contextmanager
def chromium() -> Iterator:
    """Playwright's browser, driving the Chromium of this machine. SystemExit says what is missing."""
    if _running:
        yield _running[0]
        return
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        raise SystemExit("No Chromium was found: on Debian `sudo apt install chromium`, on Ubuntu `chromium-browser`.")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SystemExit("playwright is not installed: pip install -r requirements.txt") from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=OPTIONS)
        _running.append(browser)
        try:
            yield browser
        finally:
            _running.clear()
            browser.close()


@contextmanager
def served(folder: Path, documents: dict[str, str] | None = None, compressed: bool = False) -> Iterator[str]:
    """The address, on this machine, of a server of the files in `folder`, and of `documents` (path → HTML) as if they
    lay there. compressed: as publishers' servers send text."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None:
            pass

        def do_GET(self) -> None:
            path = Path(self.translate_path(self.path))
            if (document := (documents or {}).get(self.path)) is not None:
                self.send(document.encode(), "text/html; charset=utf-8")
            elif compressed and path.suffix in TEXTS and path.is_file():
                self.send(gzip.compress(path.read_bytes()), self.guess_type(path), ("Content-Encoding", "gzip"))
            else:
                super().do_GET()

        def send(self, content: bytes, kind: str, *headers: tuple[str, str]) -> None:
            self.send_response(200)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(content))), *headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    class Server(ThreadingHTTPServer):
        def handle_error(self, request, client_address) -> None:
            # A browser that leaves a page lets go of what it was still loading.
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    with Server(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
