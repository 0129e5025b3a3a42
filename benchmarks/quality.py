"""What the bounds of the recipe `obelics` take of junk, and what they cost on clean pages.

    python -m benchmarks.quality --corpus DIR [--seen] [--documents 360]

DIR holds `obelics/parquet`, `obelics/labels.jsonl` and the image files behind the addresses (`urlmap.tsv`,
`img_blobs`). English pages of its manuals are the clean ones; each manual stands for some hosts, of 5, 10 and more
pages. They are built twice with the shipped recipe: as they are, and with junk planted in them (`benchmarks.junk`):
kinds that nobody looked at while the recipe was made, or with `--seen` the others. A table says by reason what was
taken of both, the next what became of each kind.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

import vlmill
from benchmarks import junk

SITES = (
    "LukeSmithxyz+based.cooking",
    "MicrosoftDocs+iis-docs",
    "gimp-help-en",
    "mavlink+qgc-user-guide",
    "opencv-doc",
    "python-skimage-doc",
)
HOSTS = (5, 10)  # pages of the first hosts of a site; the last has the rest
PREFIX = "http://img.quality.test/"
PER_PAGE = 3  # texts that are planted in a page besides those of its host
SCHEMA = pa.schema(
    [("images", pa.list_(pa.string())), ("texts", pa.list_(pa.string())), ("general_metadata", pa.string())]
)


@dataclass
class Page:
    """A document: texts and addresses in order, and which of them are junk of which kind."""

    host: str
    nodes: list[tuple[str, str]]  # "text" or "image", and the text or the name of the file
    kinds: list[str] = field(default_factory=list)  # of each node; "" for clean ones

    def plant(self, place: int, thing: tuple[str, str], kind: str) -> None:
        """Put junk before the node at `place`."""
        self.nodes.insert(place, thing)
        self.kinds.insert(place, kind)


def read_pages(corpus: Path, most: int, images: Path) -> list[Page]:
    """English pages with their images that are there, which are copied into `images`."""
    labels = [json.loads(line) for line in (corpus / "obelics/labels.jsonl").read_text("utf-8").splitlines()]
    english = {(label["file"], label["row"]) for label in labels if label["lid"] == "en"}
    lines = (corpus / "obelics/urlmap.tsv").read_text("utf-8").splitlines()
    blobs = {path: digest for path, digest, *_ in (line.split("\t") for line in lines)}
    pages = []
    for site in SITES:
        table = pq.read_table(corpus / f"obelics/parquet/{site}.parquet", columns=["images", "texts"]).to_pylist()
        rows = [row for number, row in enumerate(table) if (f"{site}.parquet", number) in english]
        for number, row in enumerate(rows[: most // len(SITES)]):
            page = Page(f"{_name_host(site, number)}.test", [])
            for url, text in zip(row["images"], row["texts"], strict=True):
                if text is not None:
                    page.nodes += [("text", part.strip()) for part in text.split("\n\n") if part.strip()]
                elif digest := blobs.get(unquote(urlsplit(url).path).lstrip("/")):
                    (target := images / digest).exists() or target.write_bytes(_read_blob(corpus, digest))
                    page.nodes.append(("image", digest))
            page.kinds = [""] * len(page.nodes)
            pages.append(page)
    return pages


def _name_host(site: str, number: int) -> str:
    for part, size in enumerate(HOSTS):
        if number < size:
            return f"{site.rpartition('+')[2].lower()}-{part}"
        number -= size
    return f"{site.rpartition('+')[2].lower()}-rest"


def _read_blob(corpus: Path, digest: str) -> bytes:
    return (corpus / "obelics/img_blobs" / digest[:2] / digest).read_bytes()


def plant_junk(pages: Sequence[Page], kinds: junk.Kinds, images: Path) -> None:
    """Junk in every page: what its host shows on all of them at both ends, and some of each page's own."""
    draw = random.Random(17)
    for number, page in enumerate(pages):
        for kind in draw.sample(sorted(kinds.texts), PER_PAGE):
            page.plant(draw.randint(0, len(page.nodes)), ("text", junk.write_text(kinds.texts[kind], draw, draw)), kind)
        kind = sorted(kinds.pictures)[number % len(kinds.pictures)]
        page.plant(draw.randint(0, len(page.nodes)), _save(images, f"own-{number}", kinds.pictures[kind](draw)), kind)
        for kind, template in sorted(kinds.host_texts.items()):
            text = junk.write_text(template, draw, random.Random(page.host + kind))
            page.plant(draw.choice([0, len(page.nodes)]), ("text", text), kind)
        for kind, (show, share) in sorted(kinds.host_pictures.items()):
            if draw.random() < share:
                name = f"{page.host}-{kind.replace(' ', '-')}"
                page.plant(0, _save(images, name, show(random.Random(page.host + kind))), kind)


def _save(images: Path, name: str, data: bytes) -> tuple[str, str]:
    (images / name).write_bytes(data)
    return "image", name


def build(pages: Sequence[Page], folder: Path, images: Path) -> vlmill.Run:
    """The shipped recipe over these pages, up to dedupe."""
    (folder / "rows").mkdir(parents=True)
    rows = [
        {
            "images": [PREFIX + value if kind == "image" else None for kind, value in page.nodes],
            "texts": [value if kind == "text" else None for kind, value in page.nodes],
            "general_metadata": json.dumps({"url": f"http://{page.host}/{number}"}),
        }
        for number, page in enumerate(pages)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "rows/web.parquet")
    settings = {"sources.obelics.serve": {PREFIX: str(images)}, "partition.rows": 100, "fetch.retries": 0}
    sources = {"obelics": str(folder / "rows/*.parquet")}
    return vlmill.build(
        vlmill.load_recipe("obelics", sources=sources, settings=settings), folder / "run", until="dedupe", workers=0
    )


def find_reasons(run: vlmill.Run, pages: Sequence[Page]) -> Iterator[tuple[Page, int, str]]:
    """Of each node (-1: the page), why it goes first; empty where it stays."""
    joined = run.verdicts().join(run.samples(), on=["source", "partition", "sample"]).collect()
    order = {name: place for place, name in enumerate(["language", "shape", "text_quality", "image_quality", "dedupe"])}
    found: dict[tuple[int, int], tuple[int, str]] = {}
    for row in joined.iter_rows(named=True):
        if row["node"] >= -1:
            place = row["row"], row["node"]
            found[place] = min(found.get(place, (9, "")), (order[row["filter"]], row["reason"]))
    for number, page in enumerate(pages):
        whole = found.get((number, -1), (9, ""))[1]
        yield page, -1, whole
        for node in range(len(page.nodes)):
            yield page, node, found.get((number, node), (9, f"page: {whole}" if whole else ""))[1]


def main() -> None:
    """Build both and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--seen", action="store_true", help="the junk that was looked at while the recipe was made")
    parser.add_argument("--documents", type=int, default=360)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, kinds = Path(temporary), junk.read_kinds("seen" if given.seen else "held_back")
        (images := folder / "images").mkdir()
        clean = list(
            find_reasons(
                build(pages := read_pages(given.corpus, given.documents, images), folder / "clean", images), pages
            )
        )
        planted = read_pages(given.corpus, given.documents, images)
        plant_junk(planted, kinds, images)
        dirty = list(find_reasons(build(planted, folder / "junk", images), planted))
    for table in (_make_bounds_table(clean, dirty), _make_sites_table(clean), _make_kinds_table(dirty)):
        Console(width=150).print(table)


Reasons = Sequence[tuple[Page, int, str]]


def _make_bounds_table(clean: Reasons, dirty: Reasons) -> Table:
    table = Table("reason", "junk", "clean texts", "of their words", "clean images", "clean pages", title="taken by")
    columns = {name: Counter[str]() for name in ("junk", "texts", "words", "images", "pages")}
    for page, node, reason in dirty:
        if node >= 0 and page.kinds[node]:
            columns["junk"].update({reason: 1, "all": 1})
    for page, node, reason in clean:
        thing = "pages" if node < 0 else f"{page.nodes[node][0]}s"
        columns[thing].update({reason: 1, "all": 1})
        if thing == "texts":
            words = len(page.nodes[node][1].split())
            columns["words"].update({reason: words, "all": words})
    for reason in sorted({reason for column in columns.values() for reason in column} - {"", "all"}):
        table.add_row(reason, *(_format(column[reason], column["all"]) for column in columns.values()))
    kept = [_format(column["all"] - column[""], column["all"]) for column in columns.values()]
    table.add_section()
    table.add_row("any", *kept)
    return table


def _make_sites_table(clean: Reasons) -> Table:
    table = Table("site", "pages", "texts", "words", "images", title="kept of clean pages")
    found: Mapping[str, list[Counter[bool]]] = defaultdict(lambda: [Counter() for _ in range(4)])
    for page, node, reason in clean:
        pages, texts, words, images = found[page.host.rpartition("-")[0]]
        if node < 0:
            pages[not reason] += 1
        elif page.nodes[node][0] == "image":
            images[not reason] += 1
        else:
            texts[not reason] += 1
            words[not reason] += len(page.nodes[node][1].split())
    for site, columns in found.items():
        table.add_row(site, *(_format(column[True], column.total()) for column in columns))
    return table


def _make_kinds_table(dirty: Reasons) -> Table:
    table = Table("kind", "taken", "by", title="what became of planted junk")
    found: Mapping[str, Counter[str]] = defaultdict(Counter)
    for page, node, reason in dirty:
        if node >= 0 and page.kinds[node]:
            found[f"{page.nodes[node][0]}: {page.kinds[node]}"][reason] += 1
    for kind, reasons in sorted(found.items()):
        total, by = (
            reasons.total(),
            ", ".join(f"{reason} {number}" for reason, number in reasons.most_common() if reason),
        )
        table.add_row(kind, _format(total - reasons[""], total), by)
    gone = sum(reasons[""] * 2 < reasons.total() for reasons in found.values())
    table.add_section()
    table.add_row(f"{len(found)} kinds", f"{gone}", "more than half of them taken")
    return table


def _format(number: int, total: int) -> str:
    return f"{number} of {total} ({number / max(total, 1):.1%})" if number else "-"


if __name__ == "__main__":
    main()
