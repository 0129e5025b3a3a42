"""The server of `vlmill explore`: its addresses, and how it begins and ends."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vlmill.explore.answers import Answers
from vlmill.explore.guard import Guard, make_address
from vlmill.explore.state import Explorer, NotReadyError
from vlmill.pipeline.core.errors import VlmillError

HOST = "127.0.0.1"
ENDING = 2.0
"""Seconds that work in the background has to come to its end."""


def make_app(explorer: Explorer, token: str) -> Guard:
    """The application over a run, behind its guard."""
    answers = Answers(explorer)
    routes = [
        Route("/", answers.page),
        Route("/static/{name}", answers.static),
        Route("/api/overview", answers.overview),
        Route("/api/index", answers.index),
        Route("/api/held", answers.held),
        Route("/api/build", answers.building),
        Route("/api/training", answers.training),
        Route("/api/dimensions", answers.dimensions),
        Route("/api/counts", answers.counts),
        Route("/api/samples", answers.samples),
        Route("/api/samples/{number:int}", answers.sample),
        Route("/api/samples/{number:int}/segments", answers.segments),
        Route("/api/samples/{number:int}/neighbours", answers.neighbours),
        Route("/api/find", answers.find),
        Route("/api/bounds", answers.bounds),
        Route("/api/values", answers.values),
        Route("/api/prepare", answers.prepare),
        Route("/api/slide", answers.slide),
        Route("/api/what-if", answers.what_if),
        Route("/api/duplicates", answers.duplicates),
        Route("/api/cluster", answers.cluster),
        Route("/api/compare", answers.compare),
        Route("/api/mixtures", answers.mixtures),
        Route("/api/mixtures/{stage}", answers.solve),
        Route("/picture/{source}/{partition}/{image:int}", answers.picture),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            VlmillError: _answer_error(404),
            NotReadyError: _answer_not_ready,
            ValueError: _answer_error(400),
            OSError: _answer_gone,
        },
    )
    return Guard(app, token)


def _answer_error(status: int) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        del request
        return JSONResponse({"error": str(error)}, status)

    return answer


def _answer_not_ready(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, NotReadyError)
    return JSONResponse({"error": str(error), "index": error.state}, 503)


def _answer_gone(request: Request, error: Exception) -> Response:
    """A file that the index or its tables named is another one by now."""
    del request
    return JSONResponse({"error": f"the run has changed since its tables were read: read it again ({error})"}, 409)


def serve_run(root: Path, port: int, tell: Callable[[str], None]) -> None:
    """Serve a run on this machine until it is interrupted.

    Args:
        root: the run's folder.
        port: to listen on; 0 is any free one.
        tell: is told the address to open, once it answers.

    Raises:
        StoreError: the folder holds no run.
        OSError: the port is taken.
    """
    explorer, token = Explorer(root), secrets.token_urlsafe(24)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(64)
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(explorer, token),
                lifespan="off",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        explorer.begin_index()
        tell(make_address(HOST, listening.getsockname()[1], token))
        with suppress(KeyboardInterrupt):  # uvicorn has closed everything, and passes the signal on
            server.run(sockets=[listening])
        explorer.stop(ENDING)
        end_threads()


def end_threads() -> None:
    """End the process at once where a thread is deep in a library still; Python would wait for it, or abort.

    Nothing that such a thread does is needed any more: it reads, and what it writes into the cache counts when it is
    whole.
    """
    if [thread for thread in threading.enumerate() if thread is not threading.current_thread()]:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
