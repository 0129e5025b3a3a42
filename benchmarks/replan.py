"""What a changed share costs: `python -m benchmarks.replan RECIPE DIR`, where DIR holds a finished build of RECIPE.

Works on a copy. Builds it again as it is, then with one share doubled, and prints the seconds of both in this process, how many files of
samples, images and shards were written, and how many of the plan. `tests/mixtures/test_notes.py` holds the first number at 0.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import yaml
from rich.console import Console

from vlmill.mixtures.build import build_stages
from vlmill.pipeline.core.progress import ProgressBars
from vlmill.pipeline.engine.build import Build, list_phases
from vlmill.pipeline.engine.executor import open_executor
from vlmill.pipeline.engine.workdir import open_run_folder
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.recipe.lock import lock_folder


def build(recipe: str, root: Path, sets: dict[str, str]) -> float:
    """Build again, in this process; seconds."""
    started = time.perf_counter()
    loaded, data, base = load_recipe(recipe, sets=sets)
    with open_run_folder(root), open_executor(0, None) as pool, ProgressBars(Console(quiet=True)) as watcher:
        lock_folder(root, data, accept_changes=bool(sets))  # a folder of another recipe would be built anew
        run = Build(root, loaded, base, pool, watcher, {})
        for phase in list_phases(run, None):
            phase()
        build_stages(run)
    return time.perf_counter() - started


def files(root: Path) -> dict[Path, tuple[int, int]]:
    """Path -> inode and time of writing."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    _, data, _ = load_recipe(options.recipe)
    stage = data["stages"][0]
    source, share = next(iter(stage["mixture"]["shares"].items()))
    with tempfile.TemporaryDirectory() as folder:
        root = shutil.copytree(options.run, Path(folder) / "run")
        unchanged = build(options.recipe, root, {})
        before = files(root)
        changed = build(
            options.recipe, root, {f"stages.{stage['name']}.mixture.shares.{source}": yaml.safe_dump(2 * share)}
        )
        written = [path for path, state in files(root).items() if before.get(path) != state]
    planned = [path for path in written if "mixtures" in path.entries]
    tables = [path for path in written if path not in planned and path.suffix in {".tar", ".parquet", ".npy"}]
    result = {
        "unchanged_s": unchanged,
        "changed_s": changed,
        "tables_and_shards": len(tables),
        "of_the_plan": len(planned),
    }
    print(json.dumps({name: round(value, 2) for name, value in result.items()}))


if __name__ == "__main__":
    main()
