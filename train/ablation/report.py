"""The report of an ablation: scores and costs of every variant, and its difference from the baseline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from vlmill.mixtures.report.stats import shorten_number
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.train.ablation import paired
from vlmill.train.ablation.power import POWER, estimate_variation, find_detectable
from vlmill.train.ablation.spec import Spec
from vlmill.train.answers import ANSWERS
from vlmill.train.digests import check_result_file
from vlmill.train.evaluate import HeldOut, read_answers
from vlmill.train.metrics import METRICS
from vlmill.train.run import find_final_checkpoint

MEASURES = ("loss", *METRICS)
NOT_FLAT = ("p", "corrected", "detectable")
"""What a difference without any variance does not have."""
Runs = Mapping[tuple[str, int], Path]
"""The run of every variant and seed."""


def make_report(spec: Spec, runs: Runs) -> dict[str, Any]:
    """Everything that `ablation.json` holds. A function of the runs' files.

    Scores are those of the last stage on the held-out samples that all runs have in common, all sources together.

    Raises:
        StoreError: a run is not trained to its end, or they have too few samples in common.
    """
    answered = {run: _read_answers(folder) for run, folder in runs.items()}
    shared = set.intersection(*(set(found) for found in answered.values()))
    measured = {name: _tabulate_contributions(spec, answered, sorted(shared), name) for name in MEASURES}
    tables, samples = measured[spec.metric]
    if samples < 2:
        raise StoreError(
            f"the runs have {samples} held-out samples in common that {spec.metric} can be measured on; at least "
            "two are needed: see `held_out` in the mixtures and `evaluate` of the last stage's training"
        )
    return {
        "baseline": spec.baseline,
        "metric": spec.metric,
        "seeds": list(spec.seeds),
        "samples": samples,
        "level": paired.LEVEL,
        "variants": {
            name: {
                "scores": {
                    measure: tables[name].mean(axis=1).tolist()
                    for measure, (tables, found) in measured.items()
                    if found
                },
                "cost": _average_costs([runs[name, seed] for seed in spec.seeds]),
            }
            for name in spec.variants
        },
        "differences": describe_differences(tables, spec.baseline),
    }


def describe_differences(tables: Mapping[str, paired.Table], baseline: str) -> dict[str, dict[str, Any]]:
    """What every variant scores above the baseline, from tables of contributions; pure.

    A difference that came out without any variance has no p, and counts as the largest in correcting the others'.
    """
    found = {
        name: paired.compare_variants(table, tables[baseline]) for name, table in tables.items() if name != baseline
    }
    flat = {name for name, one in found.items() if one.low == one.high}
    corrected = paired.adjust_holm({name: 1.0 if name in flat else one.p for name, one in found.items()})
    return {
        name: {
            **asdict(one),
            "corrected": corrected[name],
            **_describe_variation(tables[name] - tables[baseline]),
            **(dict.fromkeys(NOT_FLAT) if name in flat else {}),
        }
        for name, one in found.items()
    }


def _describe_variation(table: paired.Table) -> dict[str, Any]:
    """How a difference varied, and which one would have been seen; nothing of one seed."""
    if len(table) < 2:
        return {}
    found = estimate_variation(table)
    return {"variation": asdict(found), "detectable": find_detectable(found, *table.shape)}


def _read_answers(folder: Path) -> dict[tuple[str, str], HeldOut]:
    """The last stage's held-out samples, by source and id."""
    stage = read_locked_recipe(folder).stages[-1].name
    find_final_checkpoint(folder, stage)
    check_result_file(folder / "train" / stage, ANSWERS)
    return {(sample.source, sample.id): sample for sample in read_answers(folder / "train" / stage / ANSWERS)}


def _tabulate_contributions(
    spec: Spec,
    answered: Mapping[tuple[str, int], Mapping[tuple[str, str], HeldOut]],
    ids: Sequence[tuple[str, str]],
    measure: str,
) -> tuple[dict[str, paired.Table], int]:
    """Contributions (seeds, samples) by variant, and the number of samples.

    Samples are those with a score in all runs.
    """
    found = {run: [_measure_sample(samples[name], measure) for name in ids] for run, samples in answered.items()}
    kept = [place for place in range(len(ids)) if all(samples[place][1] for samples in found.values())]
    if not kept:
        return {}, 0
    tables = {}
    for variant in spec.variants:
        both = np.array([[found[variant, seed][place] for place in kept] for seed in spec.seeds])
        tables[variant] = paired.linearise_ratios(both[..., 0], both[..., 1])
    return tables, len(kept)


def _measure_sample(sample: HeldOut, measure: str) -> tuple[float, int]:
    """A sample's sum, and what it is divided by: its supervised tokens or its questions."""
    if measure == "loss":
        return sample.loss, sample.supervised
    metric = METRICS[measure]
    return sum(metric(turn.answer, [turn.reference]) for turn in sample.answers), len(sample.answers)


def _average_costs(folders: Sequence[Path]) -> dict[str, float]:
    """The mean cost over seeds of training all stages: steps, tokens, tiles, operations, seconds in its steps."""
    spent = [_sum_costs(folder) for folder in folders]
    return {name: float(np.mean([one[name] for one in spent])) for name in spent[0]}


def _sum_costs(folder: Path) -> dict[str, float]:
    lines = [
        json.loads(line)
        for stage in read_locked_recipe(folder).stages
        for line in (folder / "train" / stage.name / "log.jsonl").read_text().splitlines()
    ]
    sums = {name: float(sum(line[name] for line in lines)) for name in ("tokens", "tiles", "flops")}
    seconds = sum(line["tokens"] / line["tokens_per_second"] for line in lines)
    return {"steps": float(len(lines)), **sums, "seconds": seconds}


def make_ablation_table(found: Mapping[str, Any]) -> Table:
    """The comparison for a person."""
    seeds = len(found["seeds"])
    percent = found["metric"] != "loss"
    measure = f"{found['metric']} in %" if percent else found["metric"]
    shown = Table(title=f"{measure} on {found['samples']} held-out samples, {seeds} seed{'s' * (seeds > 1)}")
    for heading in (
        "variant",
        "score",
        "sd",
        "difference",
        "95 % interval",
        "p",
        "p (Holm)",
        "steps",
        "tokens",
        "FLOPs",
        "time",
    ):
        shown.add_column(heading, justify="left" if heading == "variant" else "right")
    for name, variant in found["variants"].items():
        scores, cost = variant["scores"][found["metric"]], variant["cost"]
        spread, difference = paired.compute_spread(scores), found["differences"].get(name)
        shown.add_row(
            name,
            _format_number(float(np.mean(scores)), percent),
            "" if spread is None else _format_number(spread, percent),
            *(_format_difference(difference, percent) if difference else ("baseline", "", "", "")),
            f"{cost['steps']:.0f}",
            shorten_number(cost["tokens"]),
            f"{cost['flops']:.2e}",
            f"{cost['seconds']:.0f} s",
        )
    return shown


def write_ablation_notes(found: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on what the table shows."""
    seeds = len(found["seeds"])
    flat = [name for name, difference in found["differences"].items() if difference["low"] == difference["high"]]
    if seeds == 1:
        yield (
            "One seed: what differs here differs between these models, and another training of the same recipe may "
            "turn it round."
        )
    else:
        yield (
            f"Intervals and p-values are over other held-out samples and other seeds than these {seeds}; an "
            f"interval is that of its own comparison, p (Holm) counts all {len(found['differences'])}. Seeds change "
            "new weights, dropout and noise, not the data's order."
        )
        seen = [difference["detectable"] for name, difference in found["differences"].items() if name not in flat]
        if seen:
            least, most = (_format_number(value, found["metric"] != "loss") for value in (min(seen), max(seen)))
            yield (
                f"As trainings and samples varied here, such an ablation shows differences from {least} on (the "
                f"steadiest variant) or {most} on (the least steady) in {POWER:.0%}, p < 0.05, of one comparison."
            )
    if flat:
        yield (
            f"{', '.join(flat)}: the difference from the baseline came out without any variance, as where all answers "
            "are wrong, or all right. So there is no interval and no p, and whether there is a difference stays open: "
            "train longer, or choose another metric, such as loss."
        )
    yield "An interval across 0 does not show that nothing differs: it says which differences are left possible."


def _format_difference(found: Mapping[str, Any], percent: bool) -> tuple[str, ...]:
    """Four cells: difference, interval, p, corrected p; of one without any variance the difference alone."""
    said = _format_number(found["difference"], percent, sign="+")
    if found["low"] == found["high"]:
        return (said, "-", "-", "-")
    low, high = (_format_number(found[end], percent, sign="+") for end in ("low", "high"))
    ps = (f"{found[name]:.3f}" if found[name] >= 0.001 else "< 0.001" for name in ("p", "corrected"))
    return (said, f"{low} to {high}", *ps)


def _format_number(value: float, percent: bool, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f}" if percent else f"{value:{sign}.3f}"
