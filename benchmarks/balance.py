"""How long ranks wait for each other in a step: `python -m benchmarks.balance [--run DIR]`.

For 8, 64, 512 and 1,024 ranks and some numbers of sequences of each: the time of a step over what it would be if all
ranks had the same to do (the sum over micro-batches of the most vision and the most text FLOPs that a rank has, over
the mean), where each rank takes the next sequences of the plan, where they are dealt as training deals them, and with
the buckets of `train.ranks`; and the seconds of the processor that dealing a step takes.

Plans: those of a run (`--run`, the quickstart's for example), and made ones, packed by the packer of a mixture from
documents of log-normal length and pictures under three image policies. FLOPs are those of three pairs of towers; in a
run's plan, those of its recipe. A line has as many steps as the plan has, 8 at most.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.pack import WINDOW, of_policy, segments, windowed
from tests.helpers.stages import write_tokenizer
from vlmill.mixtures.algorithms.order import make_order_key, permute_index
from vlmill.mixtures.algorithms.pack import pack_segments
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.chat.encode import FORMATS, load_tokenizer
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.policy import Policy
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.train.balance import LOOKED_AT, choose_bucket, deal_sequences, estimate_costs, group_alike, measure_time
from vlmill.train.data import open_reader, price_sequences
from vlmill.train.families import find_family
from vlmill.train.flops import count_family_flops
from vlmill.train.settings import ModelSettings, read_model_settings, read_training_settings

RANKS = (8, 64, 512, 1024)
DEALS = ((1, 1), (4, 1), (8, 1), (8, 2))
"""Sequences of a rank, and micro-batches."""

STEPS, LENGTH, DOCUMENTS = 8, 8192, 90_000
BASE = {"kind": "siglip", "hidden_size": 768, "layers": 12, "heads": 12, "patch_size": 14}
LARGE = {"kind": "siglip", "hidden_size": 1152, "layers": 27, "heads": 16, "patch_size": 14}
TOWERS: Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]] = {
    "SigLIP base, 135M": (BASE, {"kind": "llama", "hidden_size": 576, "layers": 30, "heads": 9, "kv_heads": 3}),
    "SigLIP 400M, 1.7B": (LARGE, {"kind": "llama", "hidden_size": 2048, "layers": 24, "heads": 32}),
    "SigLIP 400M, 8B": (LARGE, {"kind": "llama", "hidden_size": 4096, "layers": 36, "heads": 32, "kv_heads": 8}),
}
POLICIES: Mapping[str, Policy] = {
    "AnyRes, documents": AnyRes(),
    "AnyRes, half of them text alone": AnyRes(),
    "letterbox 384": Letterbox(side=384, patch=14),
}


@dataclass(frozen=True)
class Planned:
    """Sequences of a plan in order: what they hold, and their FLOPs."""

    name: str
    shapes: np.ndarray  # (sequences, 3), as `PlannedMixture.measure` has them
    costs: np.ndarray  # (sequences, 2)


def read_plans(root: Path) -> Iterator[Planned]:
    """The plans of a run."""
    recipe = read_locked_recipe(root)
    model = read_model_settings(recipe)
    for stage in recipe.stages:
        mixture, training = PlannedMixture(root, stage.name), read_training_settings(stage, recipe.scale)
        price = price_sequences(open_reader(mixture, model, training.loss), training)
        numbers = range(mixture.sequences)
        yield Planned(f"{root.name}: {stage.name}", mixture.measure(numbers), price(numbers))


def make_plans(folder: Path, documents: int) -> Iterator[Planned]:
    """Plans of made documents, for each policy and pair of towers."""
    chat = FORMATS["vlmill"]
    tokenizer = load_tokenizer(write_tokenizer(folder / "tokenizer.json"), chat)
    for name, policy in POLICIES.items():
        shapes = _pack_documents(policy, documents, text_alone="text alone" in name)
        for towers, (vision, text) in TOWERS.items():
            values = {"family": "llava_next", "vision": {**vision, "image_size": policy.side}, "text": text}
            family = find_family(parse_block(ModelSettings, values, "model"), policy)
            cost = count_family_flops(family, tokenizer, chat, ("vision", "projector", "text"))
            yield Planned(f"{name}; {towers}", shapes, cost.estimate(shapes, policy.side))


def _pack_documents(policy: Policy, documents: int, *, text_alone: bool) -> np.ndarray:
    """What the sequences of made documents hold, as a plan has them: shuffled within windows."""
    made = segments(documents, LENGTH, 64, of_policy(policy))
    tokens, tiles = made.tokens.astype(np.float64), made.tiles.astype(np.float64)
    if text_alone:
        tiles[np.random.default_rng(1).random(tiles.size) < 0.5] = 0
    packed = windowed(pack_segments)(tokens.astype(np.int64), tiles.astype(np.int64), LENGTH, 64)
    held = np.stack([tokens, tokens * (tokens + 1) / 2, tiles], axis=1)
    sums = np.zeros((int(packed.max()) + 1, 3))
    np.add.at(sums, packed, held)
    per_window = max(1, WINDOW * len(sums) // tokens.size)
    key = make_order_key(0, "benchmark")
    windows = (sums[start : start + per_window] for start in range(0, len(sums), per_window))
    return np.concatenate([some[permute_index(np.arange(len(some)), len(some), key)] for some in windows])


def show_plan(plan: Planned) -> None:
    """Print a line for each number of ranks that the plan has a step for."""
    share, tiles = plan.costs[:, 0].sum() / plan.costs.sum(), plan.shapes[:, 2]
    print(
        f"{plan.name}: {len(tiles):,} sequences of {tiles.mean():.1f} tiles ({tiles.min():.0f} to {tiles.max():.0f}), "
        f"{share:.0%} of the FLOPs vision"
    )
    for ranks in RANKS:
        for rest, accumulation in DEALS:
            size = ranks * rest
            if size <= len(tiles):
                print(_compare_deals(plan, size, ranks, accumulation), flush=True)


def _compare_deals(plan: Planned, size: int, ranks: int, accumulation: int) -> str:
    """A line for steps of `size` sequences."""
    count = min(STEPS, len(plan.costs) // size)
    steps = [np.arange(size * number, size * (number + 1)) for number in range(count)]
    in_order = _measure(plan.costs, steps, lambda costs: np.arange(len(costs)).reshape(ranks, accumulation, -1))
    began = time.process_time()
    dealt = _measure(plan.costs, steps, lambda costs: deal_sequences(costs, ranks, accumulation))
    spent = (time.process_time() - began) / count
    line = (
        f"  {ranks:>5} ranks, {size // ranks} sequences each in {accumulation}, {count} steps of {size:>5}: "
        f"in order {in_order:.3f}, dealt {dealt:.3f} in {1000 * spent:.0f} ms"
    )
    bucket = choose_bucket(plan.shapes[: LOOKED_AT * size], size, ranks, accumulation)
    if bucket == 1:
        return line
    whole = len(plan.costs) // (bucket * size)
    filled = [
        numbers[some]
        for numbers in np.split(np.arange(whole * bucket * size), whole)[:2]
        for some in group_alike(estimate_costs(plan.shapes[numbers]), bucket)
    ]
    bucketed = _measure(plan.costs, filled, lambda costs: deal_sequences(costs, ranks, accumulation))
    return f"{line}, in buckets of {bucket} steps {bucketed:.3f}"


def _measure(costs: np.ndarray, steps: Sequence[np.ndarray], deal: Callable[[np.ndarray], np.ndarray]) -> float:
    """The time of some steps over what it would be if all ranks had the same to do."""
    times = [measure_time(costs[step], deal(costs[step])) for step in steps]
    slowest, mean = np.sum(times, axis=0)
    return float(slowest / mean)


def main() -> None:
    """Print a line per plan and number of ranks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run whose plans are measured as well")
    parser.add_argument("--documents", type=int, default=DOCUMENTS, help="of made plans")
    options = parser.parse_args()
    if options.run:
        for plan in read_plans(options.run):
            show_plan(plan)
    with tempfile.TemporaryDirectory() as folder:
        for plan in make_plans(Path(folder), options.documents):
            show_plan(plan)


if __name__ == "__main__":
    main()
