"""SIGKILLs at random moments of a build on Ray: `python -m benchmarks.kills [--kills 20] [--recipe quickstart]`.

Builds the recipe once in one process. Then builds it on Ray, killing the driver at random moments, until it has been killed
so many times; lets it end, and compares the sha256 of everything under shards/ and mixtures/.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def product(root: Path) -> str:
    """One sha256 over names and contents of what a build is for."""
    sha256 = hashlib.sha256()
    for part in ("shards", "mixtures"):
        for path in sorted(path for path in (root / part).rglob("*") if path.is_file()):
            sha256.update(f"{path.relative_to(root)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return sha256.hexdigest()


def command(recipe: str, root: Path, workers: int) -> list[str]:
    """The build."""
    return [sys.executable, "-m", "pipeline.cli", "build", recipe, "--out", str(root), "--workers", str(workers)]


def main() -> None:
    """Print both digests, the number of kills, and how far each came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="vlmill-kills-") as name:
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        began = time.perf_counter()
        subprocess.run(command(arguments.recipe, whole, 0), check=True, stdout=subprocess.DEVNULL)
        spent = time.perf_counter() - began
        kills = 0
        for _ in range(10 * arguments.kills):
            driver = subprocess.Popen(
                command(arguments.recipe, killed, 2),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                driver.wait(timeout=chance.uniform(2.0, 8.0))
            except subprocess.TimeoutExpired:
                os.kill(driver.pid, signal.SIGKILL)
                driver.wait()
                kills += 1
                receipts = len(list(killed.glob("**/*.receipt.json")))
                print(f"kill {kills}: {receipts} receipts", flush=True)
            if kills == arguments.kills:
                break
        subprocess.run(command(arguments.recipe, killed, 2), check=True, stdout=subprocess.DEVNULL)
        print(f"in one process {product(whole)} ({spent:.0f} s)\nafter {kills} kills {product(killed)}")
        sys.exit(product(whole) != product(killed))


if __name__ == "__main__":
    main()
