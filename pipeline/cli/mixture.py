"""Commands about mixtures themselves: diff, and mixtures list, show and import."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vlmill.pipeline.cli.arguments import JsonFlag, console, print_json

Side = Annotated[
    str,
    typer.Argument(
        metavar="MIXTURE",
        help="DIR or DIR:STAGE of a run, a mixture.lock.json or stats.json, or NAME or NAME:STAGE of a published "
        "mixture.",
    ),
]


def diff(before: Side, after: Side, as_json: JsonFlag = False) -> None:
    """Compare two mixtures by source: samples, images, text, visual and supervised tokens, all tokens.

    Each side is a run, a stage of it, a lock or a published mixture.
    Without a stage, all stages that both sides have are compared.

        vlmill diff demo:align demo:tune
        vlmill diff before after
        vlmill diff before/mixtures/align/mixture.lock.json after:align
        vlmill diff prismatic:llava-v15 prismatic:llava-lrv
    """
    from vlmill.mixtures.compare import make_difference, make_difference_table, pair_stages

    sides = pair_stages(before, after)
    if as_json:
        print_json({f"{one['stage']} -> {other['stage']}": make_difference(one, other) for one, other in sides})
        return
    for one, other in sides:
        console.print(make_difference_table(one, other))


mixtures = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Published mixtures: list them, compare claimed percentages with published counts, import one.",
)


@mixtures.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """List the published mixtures that ship, with the sums of their counts and what was claimed."""
    from vlmill.mixtures.published.catalogue import list_stages, make_listing

    if as_json:
        print_json([asdict(line) for line in list_stages()])
        return
    console.print(make_listing())


@mixtures.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from the list, or a file of the same form.")],
    stage: Annotated[str | None, typer.Option(help="One stage only. Default: all.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare published percentages with what the published counts give, and show where they contradict.

    The table marks percentages that do not follow from their counts.
    Without --stage all stages are shown.

        vlmill mixtures show the_cauldron
        vlmill mixtures show llava_onevision --stage single_image
    """
    from vlmill.mixtures.published.catalogue import list_shares, load_published, make_published_tables

    published = load_published(name)
    if as_json:
        entries = [{"stage": of, **asdict(line)} for of, line in list_shares(published, stage)]
        about = {"reference": published.reference, "contradictions": published.contradictions}
        print_json({"title": published.title, **about, "entries": entries})
        return
    for table in make_published_tables(published, stage):
        console.print(table)
    for number, sentence in enumerate(published.contradictions):
        console.print("The publication contradicts itself:" if not number else "", end="" if number else "\n")
        console.print(f"  - {sentence}", markup=False)
    if published.reference:
        console.print(f"From {published.reference}", markup=False)


@mixtures.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML with `datasets`, as LLaVA-NeXT and LLaVA-OneVision have it.")
    ],
    sequence_length: Annotated[int, typer.Option(min=1, help="Tokens of a packed sequence.")] = 32768,
) -> None:
    """Turn the YAML of LLaVA-NeXT and LLaVA-OneVision into a mixture, printed as YAML.

    Its `mixture` goes into a stage of a recipe whose sources have the same names; `vlmill mixtures show` and `diff`
    read the file as it is.

        vlmill mixtures import scripts/train/onevision.yaml > onevision-as-ours.yaml
        vlmill mixtures show onevision-as-ours.yaml
    """
    from vlmill.mixtures.published.import_llava import read_mixture, to_yaml

    typer.echo(to_yaml(read_mixture(file, sequence_length)), nl=False)
