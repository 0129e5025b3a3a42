"""Folders that a recipe's sources name under `serve`, answered for while a build runs.

The fetch step asks them in place of the network: on loopback, or on a cluster at this machine's address there. A path
begins with a word that nobody else knows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import compare_digest, token_urlsafe
from threading import Thread
from typing import Any, BinaryIO

from vlmill.pipeline.core.confined import FileRefused, open_confined
from vlmill.pipeline.recipe.schema import Recipe


class FolderServer(ThreadingHTTPServer):
    """Serves one folder; many connections may wait."""

    request_queue_size = 512  # with the default of 5, connections are lost and asked for again after a second
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.secret = token_urlsafe(16)


class QuietHandler(SimpleHTTPRequestHandler):
    """Answers with the regular files of a folder, and with none that links lead to outside; logs nothing."""

    protocol_version = "HTTP/1.1"
    server: FolderServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def send_head(self) -> BinaryIO | None:
        """Send the head of an answer; the file, if there is one, is for the base class to copy."""
        secret, _, wanted = self.path.removeprefix("/").partition("/")
        path = self.translate_path("/" + wanted)
        try:
            if path.endswith("/") or not compare_digest(secret.encode(), self.server.secret.encode()):
                raise FileNotFoundError(path)
            file = open_confined(Path(self.directory), str(Path(path).relative_to(self.directory)))
        except (FileRefused, OSError, ValueError):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
        self.end_headers()
        return file


@contextmanager
def serve_folders(recipe: Recipe, base: Path, address: str = "127.0.0.1") -> Iterator[dict[str, dict[str, str]]]:
    """Serve the folders on ports that are free; yields source -> {URL prefix: served prefix}.

    Args:
        recipe: whose sources may name folders under `serve`.
        base: where their relative paths start.
        address: of this machine, as those that fetch reach it.
    """
    servers: list[FolderServer] = []
    mirrors: dict[str, dict[str, str]] = {}
    try:
        for name, settings in recipe.sources.items():
            for prefix, folder in settings.serve.items():
                server = FolderServer((address, 0), partial(QuietHandler, directory=str(base / folder)))
                Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
                servers.append(server)
                mirrors.setdefault(name, {})[prefix] = f"http://{address}:{server.server_address[1]}/{server.secret}/"
        yield mirrors
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
