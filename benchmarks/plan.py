"""How long planning takes, what it holds in memory, and how near realised shares come: `python -m benchmarks.plan`.

Made-up entries of 10^5, 10^6 and 10^7 samples, each size in a process of its own: OBELICS-like documents (a third of them longer
than a row), picture pairs, and questions; one source has 313 samples whatever the size. All blocks are planned, one after
another; a cluster plans them side by side. Seconds are of the processor, megabytes the most that was resident at a time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from vlmill.mixtures.config import MixtureSettings
from vlmill.mixtures.steps.mix import Mix
from vlmill.mixtures.steps.plan import Plan
from vlmill.mixtures.steps.select import AMOUNTS, CUTS, SHARDS, SIZES, UNITS

LENGTH = 2048
OVERHEAD = 2
IMAGE = 64  # visual tokens of an image, as in Idefics2
PER_SHARD = 10_000
SHARES = {"web": 0.45, "pairs": 0.35, "scans": 0.15, "quiz": 0.05}
SIZES_OF = {"web": 0.6, "pairs": 0.3, "scans": 0.1}
QUIZ = 313
"""Samples of the smallest source: as many as VQA-RAD has in The Cauldron."""

RANKS = (1, 8, 512, 1024)


def lengths(source: str, samples: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Text tokens and images of every sample."""
    if source == "web":  # about 815 text tokens and 2.5 images a document, with a long tail
        return random.lognormal(6.2, 1.0, samples).astype(np.int64) + 8, random.geometric(0.4, samples)
    if source == "pairs":
        return random.poisson(20, samples) + 1, np.ones(samples, np.int64)
    return random.integers(50, 900, samples), np.ones(samples, np.int64)


def write_part(folder: Path, source: str, samples: int) -> None:
    """The arrays that the select step would leave, documents cut into rows' lengths."""
    random = np.random.default_rng(sum(source.encode()))
    text, images = lengths(source, samples, random)
    tokens = text + images * IMAGE + OVERHEAD
    whole = tokens <= LENGTH
    sizes, units = np.zeros(samples, SIZES), np.zeros(samples, UNITS)
    for name, values in {"tokens": tokens, "tiles": images, "nodes": images * 2, "weight": tokens}.items():
        sizes[name] = np.where(whole, values, 0)
    sizes["tokens"][~whole] = 1
    for name, values in {"images": images, "text": text, "supervised": text}.items():
        units[name] = np.where(whole, values, 0)
    long = np.flatnonzero(~whole)
    pieces = -(-tokens[long] // LENGTH)
    cuts = np.zeros(int(pieces.sum()), CUTS)
    cuts["sample"] = np.repeat(long, pieces)
    cuts["text"] = cuts["supervised"] = np.repeat(text[long] // pieces, pieces).clip(max=LENGTH - OVERHEAD)
    cuts["tokens"] = cuts["text"] + OVERHEAD
    cuts["first"] = np.arange(cuts.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    cuts["last"] = cuts["first"] + 1
    shard = np.arange(samples) // PER_SHARD
    totals = np.zeros(int(shard[-1]) + 1, SHARDS)
    totals["rows"] = totals["samples"] = np.bincount(shard)
    totals["segments"] = np.bincount(shard, whole) + np.bincount(shard[cuts["sample"]], minlength=totals.size)
    sums = {
        "images": images,
        "text": text,
        "supervised": text,
        "visual": images * IMAGE,
        "tokens": tokens,
        "tiles": images,
    }
    for name, values in sums.items():
        totals[name] = np.bincount(shard, values * whole) + np.bincount(shard[cuts["sample"]], cuts[name], totals.size)
    available = {name: int(totals[name].sum()) for name in ("samples", *AMOUNTS)}
    counts = {level: {"in": samples, "kept": samples, "dropped": {}, "failed": {}} for level in ("samples", "nodes")}
    image_stats = {
        "entry": {"source": source},
        "available": available,
        "counts": counts,
        "licences": {"CC0-1.0": samples},
    }
    arrays = {"sizes": sizes, "units": units, "cuts": cuts, "shards": totals}
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "selection.json").write_text(json.dumps(image_stats), encoding="utf-8")


def write_entries(folder: str, samples: int) -> None:
    """The inputs of the mix step, a folder per entry."""
    for source, number in (
        {name: int(fraction * samples) for name, fraction in SIZES_OF.items()} | {"quiz": QUIZ}
    ).items():
        write_part(Path(folder) / source, source, number)


def measure(samples: int, unit: str, folder: str) -> dict[str, Any]:
    """Plan a made-up mixture whose arrays lie in `folder`; seconds and megabytes."""
    root = Path(folder)
    inputs = {f"{path.parent.name}/{path.name}": path for path in root.glob("*/*")}
    mixture = MixtureSettings(sequence_length=LENGTH, tiles_per_sequence=32, shares=SHARES, unit=unit)  # type: ignore[arg-type]
    (root / "mix").mkdir()
    (root / "plan").mkdir()
    before, started = _peak(), time.process_time()
    Mix("bench", mixture, 17).run(inputs, root / "mix")
    mixed, mix_mb = time.process_time(), _peak()
    inputs |= {path.name: path for path in (root / "mix").iterdir()}
    mix = json.loads(inputs["mix.json"].read_text(encoding="utf-8"))
    for block in range(mix["blocks"]):
        Plan(block).run(inputs, root / "plan")
    planned, plan_mb = time.process_time(), _peak()
    return {
        "unit": unit,
        "samples": samples,
        "planned": mix["samples"],
        "blocks": mix["blocks"],
        "mix_s": mixed - started,
        "plan_s": planned - mixed,
        "mix_us_per_sample": (mixed - started) / mix["samples"] * 1e6,
        "plan_us_per_sample": (planned - mixed) / mix["samples"] * 1e6,
        "select_bytes_per_sample": _bytes(root, "*/sizes.npy") / samples,
        "plan_bytes_per_sample": _bytes(root, "plan/*") / mix["samples"],
        "imports_mb": before,
        "mix_peak_mb": mix_mb,
        "plan_peak_mb": plan_mb,
        **_rows(root / "plan"),
        "prefixes": _prefixes(root / "plan", mix),
    }


def _bytes(root: Path, form: str) -> int:
    return sum(path.stat().st_size for path in root.glob(form))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _rows(folder: Path) -> dict[str, float]:
    tokens = np.concatenate(
        [pq.read_table(path, columns=["tokens"])["tokens"].to_numpy() for path in sorted(folder.iterdir())]
    )
    return {"rows": tokens.size, "efficiency": float(tokens.sum() / tokens.size / LENGTH)}


def _prefixes(folder: Path, mix: dict[str, Any]) -> list[dict[str, Any]]:
    """Realised shares of the first rows of the plan, for numbers of ranks that read them in turn."""
    declared = np.array([SHARES[entry["label"]] for entry in mix["entries"]])
    rows, sources, amounts = segments_of(folder, mix["mixture"]["unit"])
    found = []
    for prefix in (10**power for power in range(2, 7)):
        if prefix > rows.max():
            break
        inside = rows < prefix
        realised = np.bincount(sources[inside], amounts[inside], len(declared)) / amounts[inside].sum()
        found.append(
            {
                "rows": prefix,
                "error": float(np.abs(realised - declared).max()),
                "quiz": float(realised[-1]),
                "ranks": _ranks(rows, sources, amounts, prefix),
            }
        )
    return found


def segments_of(folder: Path, unit: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plan row, source and amount of every segment; a sample counts with its first segment."""
    rows, sources, amounts, start = [], [], [], 0
    for path in sorted(folder.iterdir()):
        column = pq.read_table(path, columns=["segments"])["segments"].combine_chunks()
        segments = column.flatten()
        rows.append(column.value_parent_indices().to_numpy() + start)
        sources.append(segments.field("source").to_numpy())
        amounts.append(
            segments.field("tokens").to_numpy()
            if unit == "tokens"
            else (segments.field("first").to_numpy() == 0).astype(np.int64)
        )
        start += len(column)
    return np.concatenate(rows), np.concatenate(sources), np.concatenate(amounts)


def _ranks(rows: np.ndarray, sources: np.ndarray, amounts: np.ndarray, prefix: int) -> dict[int, float]:
    """The smallest source's share over all ranks together, after each has read its entry of the first `prefix` rows."""
    result = {}
    for ranks in RANKS:
        if ranks > prefix:
            continue
        whole = rows < prefix // ranks * ranks  # step s of R rows: rank r reads row s * R + r
        result[ranks] = float(amounts[whole & (sources == sources.max())].sum() / amounts[whole].sum())
    return result


def main() -> None:
    """Print a line per size and unit, then the shares at prefixes of the largest plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=float, nargs="*", default=[1e5, 1e6, 1e7])
    parser.add_argument("--units", nargs="*", default=["samples", "tokens"])
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for unit in options.units:
        for size in options.sizes:
            with tempfile.TemporaryDirectory() as folder, context.Pool(1, maxtasksperchild=1) as pool:
                pool.apply(write_entries, (folder, int(size)))
                result = pool.apply(measure, (int(size), unit, folder))
            prefixes = result.pop("prefixes")
            print(
                json.dumps(
                    {name: round(value, 4) if isinstance(value, float) else value for name, value in result.items()}
                )
            )
        for prefix in prefixes:
            ranks = ", ".join(f"{number}: {share:.4%}" for number, share in prefix["ranks"].items())
            print(
                f"  first {prefix['rows']:>9,} rows: largest error {prefix['error']:.4%}; quiz (declared 5 %) by ranks {ranks}"
            )


if __name__ == "__main__":
    main()
