"""What `vlmill new` shows of a proposal: files, columns, the kind, samples, or why there is no kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from rich import box
from rich.table import Table

from vlmill.pipeline.core.excerpt import make_excerpt
from vlmill.pipeline.core.shown import describe_more
from vlmill.pipeline.proposal.attempts import Attempt
from vlmill.pipeline.proposal.document_columns import MIXED, SCANS
from vlmill.pipeline.proposal.page_texts import OF_A_PAGE
from vlmill.pipeline.proposal.place_names import WHOLE
from vlmill.pipeline.proposal.proposal import Proposal
from vlmill.pipeline.proposal.unread_speakers import SAID
from vlmill.pipeline.sources import SOURCES, Page
from vlmill.pipeline.sources.known_keys import PICTURES, classify_key

SHOWN = 3
"""Samples that are shown, and kinds that are named where none fits."""
NAMED = "name what columns hold, such as --column question=COLUMN --column answer=COLUMN, or --column caption=COLUMN"
NESTED = (
    "what is within an object is named by dotted keys, such as --column turns=talk.turns (docs/sources.md, Rows of "
    "nested objects)"
)
"""What to do where no kind fits and a column holds objects."""
OWN = "docs/adding.md, A custom source, has how a file of yours reads rows as they are"
WITHOUT = (
    "preferences, histories, tools, thoughts and videos are not trained on, and rows are not read without them (docs/"
    "sources.md, Keys that rows may not be read without); where the other columns are worth it, make a file without"
)
"""What to do about columns that a row may not be read without; their names follow."""
BETTER = "chosen"
CHOSEN = (
    "to train on the better answers alone, make a file where they are the answers: jq -c '{answer: .chosen} + . | "
    "del(.chosen, .rejected)' FILE.jsonl > chosen.jsonl && vlmill new chosen.jsonl"
)
"""What to do about preferences (DPO), by the column of the better answer."""
LAYERLESS = "has no text layer"
"""What kind `pdf` says of a page of a scan."""
UNREAD_PAGES = f"`ocrmypdf -s IN.pdf OUT.pdf` adds a text layer, and {SCANS}"
"""What to do about PDFs without a text layer: nothing is recognised here."""
MEMBERS = re.compile(r"its members are ([a-z0-9., ]+)")
UNPACK = (
    "no kind reads a conversation, or questions with answers, beside a picture in a tar: unpack each tar into a folder "
    'of its own, since several may hold files of one name (for tar in *.tar; do mkdir -p "unpacked/$tar" && tar -xf '
    '"$tar" -C "unpacked/$tar"; done), and look at them with `vlmill new unpacked`, which makes rows of pictures with '
    "JSON"
)
"""What to do about tars of pictures and JSON."""
TASKS = (
    "these seem to be tasks of Label Studio, whose annotations lie in lists of results: its exports JSON-MIN and CSV "
    "have a column for each, such as caption; where answers belong to questions, docs/conversations.md, Conversations "
    "in other forms, has a script that makes a conversation of each annotation, and paths of the addresses"
)
UNSPOKEN = (
    "who speaks is named otherwise: `speaker`, `said` and `speakers` of kind table say which keys and which names "
    "(docs/sources.md, Rows of nested objects); where speakers are ids of many people, docs/conversations.md, "
    "Conversations in other forms, has a script"
)
"""What to do about speakers that no kind knows."""
STRANGER = "and in kind table what its option speaker"
"""How a kind says that it knows no speaker of this name."""
TASK_KEYS = frozenset({"data", "annotations"})
"""How tasks are told."""
COLUMNS = 100
"""Columns that are shown."""
LINES = 10
"""Texts and images of a sample, and endings of files, that are shown."""


def make_proposal_table(found: Proposal) -> Table:
    """Files, columns and the kind."""
    table = Table("what", "found", box=box.SIMPLE, show_header=False)
    for suffix, (count, size) in list(found.suffixes.items())[:LINES]:
        table.add_row("files", f"{count:,} {suffix or 'without a suffix'}, {size:,} bytes")
    if len(found.suffixes) > LINES:
        table.add_row("files", f"and {len(found.suffixes) - LINES} other endings")
    for column, said in islice(found.columns.items(), COLUMNS):
        table.add_row("column", f"{column}: {said}")
    if more := describe_more(len(found.columns) - COLUMNS, "column"):
        table.add_row("column", more.strip())
    if found.chosen:
        chosen = found.chosen
        first = (SOURCES[chosen.kind].__doc__ or "").split("\n")[0]
        table.add_row("kind", f"{chosen.kind}: {first}")
        table.add_row("rows", f"{len(chosen.pages)} of {chosen.rows} give samples")
    return table


def list_samples(chosen: Attempt) -> Iterator[str]:
    """The first samples, a line for each node."""
    for number, page in enumerate(chosen.pages[:SHOWN]):
        yield f"sample {number}"
        yield from (f"  {line}" for line in islice(_list_nodes(page), LINES))
        if len(page.nodes) > LINES:
            yield f"  and {len(page.nodes) - LINES} more texts and images"


def _list_nodes(page: Page) -> Iterator[str]:
    before = ("", -1)
    for node in page.nodes:
        role = "" if node.role == "none" else f"{node.role}: "
        said, before = before, (node.role, node.turn)
        role = " " * len(role) if said == before else role  # of one message the role stands once
        if node.kind == "text":
            yield f"{role}{make_excerpt(node.text or '')}{' (supervised)' if node.supervised else ''}"
            continue
        picture = page.pictures[node.image or 0]
        lost = f" (lost: {picture.reason})" if picture.reason else ""
        yield f"{role}[image] {picture.path or picture.url or f'{len(picture.data or bytes()):,} bytes'}{lost}"


def _list_ways(found: Proposal) -> list[str]:
    """What to do about files without columns: PDFs, and tars."""
    whys = " ".join(one.why for one in found.others)
    members = {name for said in MEMBERS.findall(whys) for name in said.split(", ")}
    ways = [UNREAD_PAGES] if LAYERLESS in whys else []
    return ways + ([UNPACK] if "json" in members and members & {*PICTURES} else [])


def explain_nothing(found: Proposal) -> str:
    """Why no kind was taken: what is there, and which kinds came nearest."""
    where = "docs/sources.md, Tables of any making, has what a cell may hold"
    kinds = {*found.columns.values()}
    listed = kinds & {"list of addresses", "list of paths of pictures"}
    several = (
        "a text with several images is a row of kind web_documents or file_documents: two lists of one length, of "
        "which one is empty in each place, named by --column texts=COLUMN --column images=COLUMN"
    )
    advice = [NAMED, where, *([NESTED] if any("." in name for name in found.columns) else [])]
    advice = [*([TASKS] if {*found.columns} >= TASK_KEYS else []), *advice]
    advice = [*([UNSPOKEN] if any(STRANGER in one.why for one in found.others) else []), *advice]
    advice += [*([several] if listed else []), OWN]
    nearest = dict.fromkeys(f"{one.kind}: {one.why or 'no rows'}" for one in found.others)
    meant = [name for name in found.columns if "." not in name and classify_key(name) in {"content", "media"}]
    whole = [note for note in found.notes if note.startswith(WHOLE) or note == OF_A_PAGE]
    spoken = [note for note in found.notes if SAID in note or MIXED in note]
    advice = [*spoken, *advice, *([f"{WITHOUT}: {', '.join(meant)}"] if meant and not spoken else [])]
    advice += [CHOSEN] if BETTER in meant else []
    if whole:  # what is no row tells nothing of columns and kinds
        return "\n".join([f"{found.place}: no kind makes samples of this", *(f"  {one}" for one in (*whole, OWN))])
    parts = {
        "columns": [
            *(f"{name} ({said})" for name, said in islice(found.columns.items(), COLUMNS)),
            *filter(None, [describe_more(len(found.columns) - COLUMNS, "column").strip()]),
        ]
        or ["none"],
        "nearest kinds": list(islice(nearest, SHOWN)),
        "ways on": advice if found.columns else _list_ways(found),
    }
    lines = [f"  {head}:\n    " + "\n    ".join(said) for head, said in parts.items() if said]
    return "\n".join([f"{found.place}: no kind makes samples of these rows", *lines])
