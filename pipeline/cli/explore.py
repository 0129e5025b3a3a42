"""The command that shows a run in the browser: explore."""

from __future__ import annotations

from typing import Annotated

import typer

from vlmill.pipeline.cli.arguments import Folder, console


def explore(
    directory: Folder,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port to listen on, at 127.0.0.1. Default: a free one.")
    ] = 0,
) -> None:
    """Show a run in the browser: samples, thresholds with sliders, duplicates, mixtures, a running build.

    A server on this machine alone: it prints an address with a token, answers nobody without it, changes nothing in
    the run and asks for nothing elsewhere. Ctrl-C ends it. The first time it reads every table once, in the background;
    what it learns stays in ~/.cache/vlmill/explore, without texts or pictures.

    On a machine that you reach by ssh, forward the port: ssh -L 8123:127.0.0.1:8123 HOST.

        vlmill explore demo
        vlmill explore run --port 8123
    """
    from vlmill.explore.app import serve_run

    def tell(address: str) -> None:
        console.print(f"{directory} at {address}", markup=False, soft_wrap=True)
        console.print("Ctrl-C ends it.")

    serve_run(directory, port, tell)
