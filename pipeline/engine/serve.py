"""Folders that a recipe's sources name under `serve`, on loopback while a build runs.

The fetch step asks them in place of the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from vlmill.pipeline.recipe.schema import Recipe


class FolderServer(ThreadingHTTPServer):
    """Serves one folder; many connections may wait."""

    request_queue_size = 512  # with the default of 5, connections are lost and asked for again after a second
    daemon_threads = True


class QuietHandler(SimpleHTTPRequestHandler):
    """Answers with the files of a folder and logs nothing."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def serve_folders(recipe: Recipe, base: Path) -> Iterator[dict[str, dict[str, str]]]:
    """Serve the folders on ports of loopback that are free; yields source -> {URL prefix: served prefix}.

    Args:
        recipe: whose sources may name folders under `serve`.
        base: where their relative paths start.
    """
    servers: list[FolderServer] = []
    mirrors: dict[str, dict[str, str]] = {}
    try:
        for name, settings in recipe.sources.items():
            for prefix, folder in settings.serve.items():
                server = FolderServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(base / folder)))
                Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
                servers.append(server)
                mirrors.setdefault(name, {})[prefix] = f"http://127.0.0.1:{server.server_address[1]}/"
        yield mirrors
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
