"""SIGKILLs at random moments of a build with workers: `python -m benchmarks.kills [--kills 20] [--recipe quickstart]`.

Builds the recipe once in one process. Then builds it with two and kills the driver again and again, each time at a
random moment after it has come further than the last one. A build that comes to its end is compared by the sha256 of
everything under shards/ and mixtures/, and begun anew if there are kills left.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
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
    return [sys.executable, "-m", "vlmill.pipeline.cli", "build", recipe, "--out", str(root), "--workers", str(workers)]


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
        print(f"in one process {product(whole)} ({spent:.0f} s)", flush=True)
        kills, ended = 0, False
        while kills < arguments.kills or not ended:
            rest = arguments.kills - kills
            ended = build(command(arguments.recipe, killed, 2), killed, chance.uniform(0, 2) if rest else None)
            kills += not ended
            print(f"kill {kills}: {receipts(killed)} receipts" if not ended else f"ended {product(killed)}", flush=True)
            if ended and product(whole) != product(killed):
                sys.exit("the bytes differ")
            if ended and rest:
                shutil.rmtree(killed)


def build(words: list[str], root: Path, seconds: float | None) -> bool:
    """Run a build, and kill it so many seconds after its next receipt; says whether it ended before that."""
    before = receipts(root)
    driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while driver.poll() is None and (seconds is None or receipts(root) == before):
        time.sleep(0.05)
    try:
        if driver.wait(timeout=seconds):
            sys.exit(f"{' '.join(words)} failed")
    except subprocess.TimeoutExpired:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        return False
    return True


def receipts(root: Path) -> int:
    """How many there are."""
    return sum(1 for _ in root.glob("**/*.receipt.json"))


if __name__ == "__main__":
    main()
