"""torchvision in a folder of its own: the project's environment has none, and those of its users may.

A build that is not torch's own cannot load its compiled operators, and then breaks every import of transformers. The
image processors use none of these operators.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BESIDE_ANOTHER_BUILD = """
import sys
from types import ModuleType
sys.modules["torchvision._meta_registrations"] = ModuleType("torchvision._meta_registrations")
"""
"""Leaves out the one module of torchvision that asks for its compiled operators when it is imported."""


def install_torchvision(folder: Path) -> str:
    """Install the torchvision of this environment's torch into a folder, without its dependencies.

    Returns:
        What a process has to run before it imports torchvision from there.

    Raises:
        LookupError: it cannot be had; says why.
    """
    number, _, build = version("torch").partition("+")
    release = f"0.{int(number.split('.')[1]) + 15}.{number.split('.')[2]}"  # torchvision 0.28.0 is for torch 2.13.0
    for wanted in [f"{release}+{build}"] * bool(build) + [release]:
        quick = ("--retries", "0", "--timeout", "20", "--disable-pip-version-check", "--quiet")
        command = ["install", *quick, "--no-deps", "--only-binary", ":all:", "--target", str(folder)]
        done = _run(["-m", "pip", *command, f"torchvision=={wanted}"], folder)
        if not done.returncode:
            break
    else:
        raise LookupError(f"torchvision {release} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    for first in ("", BESIDE_ANOTHER_BUILD):
        done = _run(["-c", f"{first}\nimport torchvision.transforms.v2.functional"], folder)
        if not done.returncode:
            return first
    raise LookupError(f"torchvision {wanted} cannot be imported: {done.stderr.strip().splitlines()[-1]}")


def _run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """This Python with a folder ahead of its packages."""
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
