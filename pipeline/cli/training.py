"""Commands that train on a run and score what was trained: train, evaluate, ablate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vlmill.pipeline.cli.arguments import (
    FilterFiles,
    Folder,
    JsonFlag,
    RowLimit,
    SourcePlaces,
    console,
    parse_pairs,
    print_json,
)
from vlmill.pipeline.core.errors import NotBuiltError, RecipeError
from vlmill.pipeline.core.terminal import make_console

Device = Annotated[str, typer.Option(help="auto takes a GPU if there is one; or cpu, cuda, cuda:1.")]
Ranks = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of processes that share the model (FSDP2), each with a GPU, started by Ray. Default: this "
        "process.",
    ),
]
RayAddress = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="The Ray cluster for --ranks, as in build. Default: this machine.")
]
ReduceAfter = Literal["auto", "step", "micro-batch"]
Threads = Annotated[
    int, typer.Option(min=0, help="Threads of torch on a CPU. Default (0): all cores but one, which reads and decodes.")
]
Shards = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="Where copies of the run's shards are, under the same paths as in DIR: a folder, s3://bucket/run, or "
        "what else fsspec reads. Default: DIR.",
    ),
]


def train(
    directory: Folder,
    stage: Annotated[
        str | None,
        typer.Option(help="One stage only, starting from the stage before it. Default: all stages in order."),
    ] = None,
    device: Device = "auto",
    ranks: Ranks = None,
    ray: RayAddress = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Recompute activations of layers: less memory, about a third more time.")
    ] = False,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile layers (torch.compile): the first steps take minutes, later ones are faster."
        ),
    ] = False,
    reduce_after: Annotated[
        ReduceAfter,
        typer.Option(
            help="When ranks add up gradients. Once a step is less to send; meanwhile each rank has those of the whole "
            "model, in float32. auto does that where they fit beside weights and moments into half of the memory."
        ),
    ] = "auto",
    threads: Threads = 0,
    readers: Annotated[int, typer.Option(min=1, help="Threads of each process that read and decode.")] = 2,
    shards: Shards = None,
    wandb: Annotated[
        str | None,
        typer.Option(
            metavar="PROJECT",
            help="Send the log to Weights & Biases as well: one run a stage. WANDB_MODE=offline keeps it on disk.",
        ),
    ] = None,
) -> None:
    """Train the recipe's model on its mixtures: one stage, or all in order. Resumes where it was interrupted.

    It may resume with other ranks, devices, readers or --shards than it began with: every step sees the same samples.
    Under torchrun each process is a rank. `tensorboard --logdir DIR/train` shows the curves of all stages.

        vlmill train demo
        vlmill train demo --stage align
        vlmill train /shared/run --ranks 8 --ray auto
        torchrun --nproc-per-node 8 -m vlmill.pipeline.cli train /shared/run
        vlmill train run --shards s3://bucket/run
    """
    leads = os.environ.get("RANK", "0") == "0"  # set by torchrun; only the first rank prints
    if leads:
        console.print("loading torch and transformers")
    from vlmill.api.training import train_run
    from vlmill.train.settings import Machine

    machine = Machine(
        device=device,
        threads=threads,
        readers=readers,
        recompute=recompute,
        compile=compile_,
        reduce_after=reduce_after,
        shards=_resolve_shards(shards),
        wandb=wandb,
    )
    results = train_run(directory, stage, machine, ranks, ray, console)
    if not leads:
        return
    last = results[-1]
    console.print(
        f"trained {', '.join(result.stage for result in results)}. The model is in {last.export}: "
        "transformers 5 loads it as its README.md says; other code there may show it other pixels.\n"
        f"Next: vlmill trace {directory} ID follows a sample to its input file, vlmill verify {directory} checks "
        "every file; copy a recipe, change a share or a threshold, and build again with --accept-changes: only the "
        "steps that the change touches run again."
    )


def _resolve_shards(shards: str | None) -> str | None:
    """Where the shards are, as processes with other working folders find them."""
    return shards if shards is None or "://" in shards else str(Path(shards).absolute())


def evaluate(
    directory: Folder,
    stage: Annotated[str | None, typer.Option(help="The stage. Default: the last one.")] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Score the exported model in this folder, in place of the trained stage."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Held-out samples of each source. Default: the stage's `evaluate`.")
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Metrics to show, separated by commas: exact, vqa, anls, relaxed.")
    ] = "exact,vqa,anls,relaxed",
    answers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write each question, its reference and the model's answer, as JSON Lines."),
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
    shards: Shards = None,
    as_json: JsonFlag = False,
) -> None:
    """Score a trained stage on held-out samples: loss per token, and answers to their questions by four metrics.

    Under torchrun the processes divide the samples among them. A scoring that was interrupted goes on where it was.

        exact    word for word, beside the most frequent answer of training
        vqa      VQAv2's accuracy, with one reference in place of ten
        anls     similarity of letters, as for DocVQA
        relaxed  numbers within 5 %, as for ChartQA

        vlmill evaluate demo
        vlmill evaluate demo --stage align --samples 50 --metrics exact,anls
        vlmill evaluate demo --export demo/train/tune/export --answers answers.jsonl
        torchrun --nproc-per-node 8 -m vlmill.pipeline.cli evaluate /shared/run
    """
    from dataclasses import asdict

    from vlmill.pipeline.core.config import suggest_names
    from vlmill.pipeline.core.progress import ProgressBars
    from vlmill.train.evaluate import make_score_table
    from vlmill.train.metrics import METRICS
    from vlmill.train.run import evaluate_stage
    from vlmill.train.settings import Machine
    from vlmill.train.validate import describe_outdated_training

    shown = [name.strip() for name in metrics.split(",") if name.strip()]
    for name in shown:
        if name not in METRICS:
            raise RecipeError(f"--metrics {name}: there is no such metric; {suggest_names(name, list(METRICS))}")
    with ProgressBars(make_console(stderr=True) if as_json else console) as watcher:
        machine = Machine(device=device, threads=threads, shards=_resolve_shards(shards))
        name, scores = evaluate_stage(directory, stage, samples, export, machine, watcher, answers)
    if not scores:
        raise NotBuiltError(
            f"stage {name} has no held-out samples; set them in its mixture, held_out: {{SOURCE: 0.05}}, then: vlmill "
            f"build RECIPE --out {directory} --accept-changes && vlmill train {directory}"
        )
    if os.environ.get("RANK", "0") != "0":  # set by torchrun; only the first rank prints
        return
    if as_json:
        hidden = {*METRICS} - {*shown}
        print_json(
            {source: {k: v for k, v in asdict(score).items() if k not in hidden} for source, score in scores.items()}
        )
    else:
        console.print(make_score_table(scores, name, shown))
    own = directory / "train" / name / "export"
    if export in (None, own) and (said := describe_outdated_training(directory, name)):
        make_console(stderr=True).print(
            f"warning: {name}: {said}: of the samples that today's plan holds out, it may have been trained on some, "
            f"and their scores are too good. To train on this plan: delete {directory / 'train' / name}, then "
            f"vlmill train {directory} --stage {name}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )


def ablate(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="A YAML file, or the name of a shipped one such as quickstart.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The folder for all runs. Default: build/ablate- and the file's name.")
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="DIR", help="An existing run whose files are reused where variants ask for the same."
        ),
    ] = None,
    source: SourcePlaces = None,
    limit: RowLimit = None,
    filter_: FilterFiles = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace one value of the SPEC, such as seeds=[0,1] or variants.NAME.KEY=VALUE, or of the recipe of "
            "all variants.",
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Build the data, say what could be shown, and train nothing.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=0, help="Worker processes of the builds, as in build.")] = None,
    device: Device = "auto",
    ranks: Ranks = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The Ray cluster that builds, and trains with --ranks.")
    ] = None,
    threads: Threads = 0,
) -> None:
    """Train variants of a recipe with several seeds and compare them: differences, intervals, p-values, costs.

    What variants share is built once. Every variant and seed is an ordinary run, DIR/VARIANT/SEED, which all other
    commands take. Run it again after any interruption: finished trainings are kept. The comparison is paired over
    held-out samples and seeds.

        vlmill ablate quickstart
        vlmill ablate my.yaml --out ablation --from run
        vlmill ablate my.yaml --out /shared/ablation --ranks 8 --ray auto
        vlmill ablate image_fit --plan

    A SPEC names the recipe, what each variant changes in it (keys as in --set), the baseline and the seeds:

        recipe: my-recipe.yaml
        baseline: letterbox
        variants:
          letterbox: {}
          anyres: {stages.tune.policy: large}
        seeds: [0, 1, 2]
        metric: exact          # or loss, vqa, anls, relaxed
    """
    from vlmill.api.ablation import ablate, plan_ablation
    from vlmill.train.ablation.report import make_ablation_table, write_ablation_notes
    from vlmill.train.settings import Machine

    asked: dict[str, Any] = {
        "source_run": input_file,
        "sources": parse_pairs(source, "--source"),
        "limit": limit,
        "filters": filter_ or [],
        "settings": parse_pairs(set_, "--set"),
        "workers": workers,
        "ray": ray,
        "console": console,
    }
    if plan:
        planned = plan_ablation(spec, out, **asked)
        console.print(f"the data lie in {planned.folder}; the same command without --plan trains")
        return
    found = ablate(spec, out, machine=Machine(device=device, threads=threads), ranks=ranks, **asked)
    console.print(make_ablation_table(found.report))
    for sentence in write_ablation_notes(found.report):
        console.print(sentence)
    console.print(f"wrote {found.folder}/ablation.json and {' and '.join(path.name for path in found.plots)} beside it")
