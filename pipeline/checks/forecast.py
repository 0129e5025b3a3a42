"""What a changed recipe makes of a run: which steps are kept and which run again, and why, said before any work begins.

The recipe that the folder is locked to is compared with the new one, step by step: a step runs again where its own
parameters differ, or where a step that it reads from runs again. Input files on this machine are compared, up to some
size (`changed_inputs.py`); others are taken to be those that were read, but for those of sources and benchmarks that
were moved: of these only their sha256 can tell, and the build computes them. A step that runs again may leave the bytes
that it left before; what reads them is then kept after all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from rich.table import Table

from vlmill.pipeline.core.keys import canonicalise_value, hash_file, make_key
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, SAMPLES_FILE
from vlmill.pipeline.core.progress import ProgressBars
from vlmill.pipeline.core.step import Step, get_parameters, match_names
from vlmill.pipeline.core.terminal import make_console
from vlmill.pipeline.core.yaml_format import read_yaml
from vlmill.pipeline.engine.asking_hosts import list_hosts_step
from vlmill.pipeline.engine.build import Build
from vlmill.pipeline.engine.chain import ChainStep, read_manifest
from vlmill.pipeline.engine.clustering import list_run_steps
from vlmill.pipeline.engine.executor import Inline
from vlmill.pipeline.engine.table_history import TableHistory
from vlmill.pipeline.engine.workdir import EDITIONS
from vlmill.pipeline.fetch.hosts import ListHosts
from vlmill.pipeline.filters import CustomFilter, FilterStep, ReadsLists
from vlmill.pipeline.recipe.mapping import list_differences
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.signals.weights import list_weights
from vlmill.pipeline.steps.clusters import AssignClusters, ValueClusters
from vlmill.pipeline.steps.score import ScoreSignal
from vlmill.pipeline.steps.signal_columns import AddSignalColumns

Outcome = Literal["kept", "run again", "run again where the files differ", "run", "removed"]
"""`run`: it was not complete before. `removed`: the new recipe has no such step. What reads from moved input files runs
again where their sha256 differ."""

UNDECIDED: Final = "run again where the files differ"

READS = "reads "
"""How the reason begins of a step that reads what is made again."""

ASSUMED = (
    "input files elsewhere, of benchmarks, and beyond 1 GiB are taken to be those that were read, unless --source or "
    "--set moves them"
)


@dataclass(frozen=True)
class ForecastStep:
    """A step as a recipe has it, over one source or over all of them."""

    folder: str
    parameters: Mapping[str, Any]  # canonical
    chain: tuple[str, ...] = ()  # folders of the steps before it in its chain; of files of one name the last counts
    reads: tuple[str, ...] = ()  # names or patterns of the files that it reads of these
    direct: tuple[str, ...] = ()  # folders that it reads all of, and files of the run's folder
    inputs: tuple[str, ...] = ()  # sources and benchmarks whose input files it reads
    unlocked: tuple[str, ...] = ()  # what it was made with otherwise, of settings that are in no lock


@dataclass(frozen=True)
class StepForecast:
    """What happens to one step, and why."""

    folder: str  # of the step, in the run's
    outcome: Outcome  # what a build does with it
    tasks: int  # that were done of it
    reasons: tuple[str, ...] = field(default=())  # what differs, or what it reads that is made again


def list_forecast_steps(root: Path, recipe: Recipe) -> list[ForecastStep]:
    """The steps of a recipe but those of mixtures, each behind those that it reads from."""
    run = Build(root, recipe, None, Inline(), ProgressBars(make_console(quiet=True)), {})
    chains = [list(_list_chain(run, name)) for name in recipe.sources]
    before = [_count_before_clusters(recipe, chain) for chain in chains]
    early = [step for chain, stop in zip(chains, before, strict=True) for step in chain[:stop]]
    late = [step for chain, start in zip(chains, before, strict=True) for step in chain[start:]]
    resolved = tuple(_list_dedupe(recipe))
    shards = (step for name in recipe.sources for step in _list_shards(run, name, bool(resolved)))
    return [*_list_benchmarks(recipe), *early, *_list_clusters(recipe), *late, *resolved, *shards]


def forecast_steps(
    root: Path,
    before: Sequence[ForecastStep],
    now: Sequence[ForecastStep],
    changed: Iterable[str] = (),
    moved: Collection[str] = (),
    differ: Mapping[str, bool] | None = None,
) -> tuple[StepForecast, ...]:
    """What happens to each step of the new recipe, in order, then the steps that it no longer has.

    Args:
        root: the run's folder; nothing but its manifests is read.
        before: the steps of the recipe that it is locked to.
        now: those of the new one.
        changed: files of the folder that are others now, such as `tokenizer.json`.
        moved: sources and benchmarks whose input files lie elsewhere now.
        differ: whether the input files of a source are others than those that were read; see `find_changed_inputs`.
    """
    earlier, remade, undecided = {step.folder: step for step in before}, {*changed}, set[str]()
    differ = differ or {}
    found = list[StepForecast]()
    for step in now:
        tasks, then = len(_read_names(root, step.folder)), earlier.get(step.folder)
        inputs = _find_inputs(root, step)
        reasons = (*_explain_change(then, step), *step.unlocked) if then else ()
        reasons += tuple(f"{READS}{name}" for name in inputs if name in remade)
        if not reasons:
            reasons = tuple(
                f"input files of {name} are not those that were read" for name in step.inputs if differ.get(name)
            )
        unsure = [name for name in step.inputs if name in moved and name not in differ]
        doubts = tuple(f"input files of {name} were moved" for name in unsure)
        doubts += tuple(f"{READS}{name}" for name in inputs if name in undecided)
        if then is None or not tasks:
            found.append(StepForecast(step.folder, "run", tasks))
        elif reasons:
            found.append(StepForecast(step.folder, "run again", tasks, reasons))
        else:
            found.append(StepForecast(step.folder, UNDECIDED if doubts else "kept", tasks, doubts))
        if found[-1].outcome != "kept":
            (undecided if found[-1].outcome == UNDECIDED else remade).add(step.folder)
    gone = [folder for folder in earlier if folder not in {step.folder for step in now}]
    return (*found, *(StepForecast(folder, "removed", len(_read_names(root, folder))) for folder in gone))


def find_changed_files(root: Path, recipe: Recipe, base: Path) -> list[str]:
    """The tokenizer and the lists that are others than the run's copies, by the names that steps know them by."""
    changed, copy = [], root / "tokenizer.json"
    tokenizer = base / recipe.tokenizer if recipe.tokenizer else None
    if tokenizer and tokenizer.is_file() and copy.exists() and hash_file(tokenizer) != hash_file(copy):
        changed.append("tokenizer.json")
    editions = read_yaml(root / EDITIONS) if (root / EDITIONS).exists() else {}
    for lists in (filter_.lists for filter_ in recipe.filters if isinstance(filter_, ReadsLists)):
        for name, path in lists.items():
            old = root / editions.get(path, "")
            if old.is_file() and (base / path).is_file() and hash_file(base / path) != hash_file(old):
                changed.append(name)
    return changed


def make_forecast_table(forecasts: Sequence[StepForecast], title: str = "what the change touches") -> Table:
    """The forecast for a terminal."""
    table = Table(title=title, caption=ASSUMED)
    for name in ("step", "tasks", "is", "why"):
        table.add_column(name, justify="right" if name == "tasks" else "left")
    for found in forecasts:
        table.add_row(found.folder, str(found.tasks), found.outcome, "\n".join(found.reasons))
    return table


def describe_causes(forecasts: Sequence[StepForecast]) -> Iterator[str]:
    """The same in a few lines: the steps that differ themselves, and how many follow from them."""
    causes = [found for found in forecasts if any(not reason.startswith(READS) for reason in found.reasons)]
    alike = dict[tuple[str, str, str], list[StepForecast]]()
    for found in causes:
        why = "; ".join(reason for reason in found.reasons if not reason.startswith(READS))
        top, _, below = found.folder.partition("/")
        step = below.partition("/")[2]
        alike.setdefault((found.outcome, f"{top}/*/{step}" if step else found.folder, why), []).append(found)
    for (outcome, folder, why), group in alike.items():
        tasks = sum(found.tasks for found in group)
        named = f"{folder} of {len(group)} sources" if len(group) > 1 else group[0].folder
        yield f"{outcome}: {named} ({tasks} tasks): {why}"
    outcomes = Counter(found.outcome for found in forecasts if found not in causes)
    if follow := outcomes["run again"] + outcomes[UNDECIDED]:
        yield f"run again because they read these: {follow} steps"
    said: dict[Outcome, str] = {"run": "not complete yet", "removed": "no longer there", "kept": "kept"}
    yield from (f"{text}: {outcomes[outcome]} steps" for outcome, text in said.items() if outcomes[outcome])


def _list_benchmarks(recipe: Recipe) -> Iterable[ForecastStep]:
    if held := recipe.decontaminate:
        parameters = {"index": get_parameters(held.index()), "against": held.against, "stats": recipe.image_stats}
        parameters = canonicalise_value({**parameters, "partition": recipe.partition})
        yield ForecastStep("steps/benchmarks/index", parameters, inputs=tuple(held.against))


def _list_chain(run: Build, source: str) -> Iterable[ForecastStep]:
    """Survey, and the steps of a partition of a source."""
    recipe, folder = run.recipe, f"steps/{source}"
    settings = recipe.sources[source]
    files = {"files": settings.files, "subset": settings.subset, "split": settings.split, "kind": settings.kind}
    surveyed = {**files, "options": settings.options, "partition": recipe.partition}
    yield ForecastStep(f"{folder}/survey", canonicalise_value(surveyed), inputs=(source,))
    chain = [f"{folder}/survey"]
    for found in run.list_steps(source):
        if isinstance(found, TableHistory):
            continue
        taken = (
            {"limit": recipe.limit, "scale": recipe.scale} if found.step.name == "read" else _name_weights(found.step)
        )
        directly = {"read": (chain[0],), "contamination": ("steps/benchmarks/index",)}
        clusters = (found.step.called,) if isinstance(found.step, AssignClusters | ValueClusters) else ()
        over_all = tuple(f"steps/signals/{name}/{step}" for name in clusters for step in ("centroids", "sizes"))
        yield _make_step(found, chain, directly.get(found.step.name, over_all), taken)
        chain.append(found.folder)
        if found.step.name == "read" and (hosts := list_hosts_step(run, source)):
            known = _was_listed_so(run, source, hosts.folder, found.folder)
            unlocked = () if known else ("fetch.mirrors and serve: others there",)
            yield ForecastStep(hosts.folder, {}, tuple(chain), ListHosts.reads, unlocked=unlocked)


def _was_listed_so(run: Build, source: str, folder: str, reads: str) -> bool:
    """Whether the hosts of a source were listed under the mirrors that it has, which are in no lock.

    Their keys tell, over the files that are there.
    """
    if not all((run.root / one / "manifest.json").exists() for one in (folder, reads)):
        return True
    step = ListHosts(tuple(sorted({*run.fetch_step(source).mirrors, *run.recipe.sources[source].serve})))
    made = {receipt.partition: receipt.key for receipt in read_manifest(run.root, folder)}
    return all(
        made.get(receipt.partition) == make_key(step, {name: sums[name] for name in step.reads})
        for receipt in read_manifest(run.root, reads)
        for sums in [{file.name: file.sha256 for file in receipt.files}]
    )


def _name_weights(step: Step) -> dict[str, Any]:
    """Where the weights of a signal lie: what is in them is known when it is scored."""
    found = list_weights(step.signal) if isinstance(step, ScoreSignal) else {}
    return {f"weights of {key}": [weights.path, weights.revision] for key, weights in found.items()}


def _make_step(
    found: ChainStep, chain: Sequence[str], direct: tuple[str, ...], more: Mapping[str, Any] | None = None
) -> ForecastStep:
    parameters = canonicalise_value({**get_parameters(found.step), **(more or {})})
    return ForecastStep(found.folder, parameters, tuple(chain), _list_reads(found.step), direct)


def _list_reads(step: Step) -> tuple[str, ...]:
    """What a step reads; of a custom filter that the command line did not name, all that a filter may."""
    if isinstance(step, FilterStep) and isinstance(step.filter, CustomFilter) and step.filter.code is None:
        return (SAMPLES_FILE, IMAGE_STATS_FILE)
    return step.reads


def _count_before_clusters(recipe: Recipe, chain: Sequence[ForecastStep]) -> int:
    """The steps of a source's chain before the first that knows the centroids of the run."""
    ends = tuple(f"/{name}/assigned" for name in recipe.clusters)
    return next((number for number, step in enumerate(chain) if ends and step.folder.endswith(ends)), len(chain))


def _list_clusters(recipe: Recipe) -> Iterable[ForecastStep]:
    """What clusters need of all sources: samples of vectors, centroids, sizes."""
    for name, settings in recipe.clusters.items():
        vectors = tuple(f"steps/{source}/{settings.of}" for source in recipe.sources)
        sampled = {source: f"steps/{source}/{name}/sample" for source in recipe.sources}
        of, seed, number = settings.of, settings.seed, settings.clusters * settings.per_cluster
        for folder in sampled.values():
            yield ForecastStep(folder, {"of": of, "seed": seed, "number": number}, direct=vectors)
        train, count = list_run_steps(name, settings)
        yield ForecastStep(train.folder, canonicalise_value(get_parameters(train.step)), direct=tuple(sampled.values()))
        yield ForecastStep(count.folder, {}, direct=(train.folder, *vectors))


def _list_dedupe(recipe: Recipe) -> Iterable[ForecastStep]:
    """Candidates, pairs, on request those of vectors, and resolve, over all sources."""
    if (settings := recipe.dedupe) is None:
        return
    signatures = tuple(f"steps/{source}/signature" for source in recipe.sources)
    verdicts = tuple(f"steps/{source}/{name}" for source in recipe.sources for name in recipe.verdict_steps())
    sources = {"sources": sorted(recipe.sources)}
    resolve = recipe.resolve_step(settings, ())
    folders = [f"steps/dedupe/{name}" for name in ("candidates", "pairs", "resolve")]
    compared = recipe.list_semantic_steps()
    semantic = ("steps/dedupe/semantic",) if compared else ()
    vectors = tuple(f"steps/{source}/semantic" for source in recipe.sources)
    for folder, steps, direct in (
        (folders[0], settings.candidates(), signatures),
        (folders[1], settings.pair_steps(), (folders[0], *signatures)),
        *((folder, compared, vectors) for folder in semantic),
        (folders[2], (resolve,), (*folders[:2], *semantic, *signatures, *verdicts)),
    ):
        parameters = {"steps": [get_parameters(step) for step in steps], **sources}
        yield ForecastStep(folder, canonicalise_value(parameters), direct=direct)


def _list_shards(run: Build, source: str, deduped: bool) -> Iterable[ForecastStep]:
    """Render and token lengths of a source under the policies that stages use of it."""
    chain = [found.folder for found in run.list_steps(source) if not isinstance(found, TableHistory)]
    for policy in run.recipe.list_policies(source):
        render, *lengths = run.list_shard_steps(source, policy)
        yield _make_step(render, chain, ("steps/dedupe/resolve",) if deduped else ())
        for found in lengths:
            if isinstance(found.step, AddSignalColumns):
                yield _make_step(found, (*chain, render.folder), ())
            else:
                yield _make_step(found, (render.folder,), ("tokenizer.json",))


def _explain_change(then: ForecastStep, now: ForecastStep) -> tuple[str, ...]:
    """The parameters in which two forms of a step differ."""
    lines = list_differences(dict(then.parameters), dict(now.parameters)).splitlines()
    return tuple(line.strip() for line in lines)


def _find_inputs(root: Path, step: ForecastStep) -> list[str]:
    """The folders and files that a step reads from."""
    makers: dict[str, str] = {}
    for folder in step.chain:
        for names in _read_names(root, folder):
            makers |= dict.fromkeys(names, folder)
    wanted = [makers[name] for name in match_names(makers, step.reads)]
    unmade = [folder for folder in step.chain if not _read_names(root, folder)]
    named = [want for want in step.reads if "*" not in want and want not in makers]
    return list(dict.fromkeys([*step.direct, *wanted, *unmade, *named]))


def _read_names(root: Path, folder: str) -> list[list[str]]:
    """The names of the files of each task of a complete step; none where it is not complete."""
    if not (root / folder / "manifest.json").exists():
        return []
    return [[file.name for file in receipt.files] for receipt in read_manifest(root, folder)]
