"""Shows the built book to this machine's browsers: `python tools/serve.py [PORT]`."""

from __future__ import annotations

import os
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HTML = Path(__file__).resolve().parent.parent / "_build" / "html"


class Server(ThreadingHTTPServer):
    allow_reuse_address = os.name != "nt"  # on Windows that would let two programs answer at one port


def serve(folder: Path, port: str) -> None:
    """Answer at 127.0.0.1:`port` with the files in `folder`, until Ctrl-C. SystemExit says what is missing."""
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise SystemExit(f"PORT must be a whole number from 1 to 65535, not {port!r}.")
    if not (folder / "index.html").is_file():
        raise SystemExit("There is no built book yet: run make book first.")
    try:
        server = Server(("127.0.0.1", int(port)), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    except OSError as error:
        raise SystemExit(
            f"Port {port} cannot be used ({error.strerror}). Name another, as in: make serve PORT=8123"
        ) from None
    with server:
        print(f"http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    serve(HTML, sys.argv[1] if len(sys.argv) > 1 else "8000")
