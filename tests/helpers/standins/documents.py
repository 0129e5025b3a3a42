"""Stand-ins for documents with their text: IDL, PDFA and RenderedText."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image

from tests.helpers.standins.dataset import Dataset
from tests.helpers.standins.material import Material
from tests.helpers.standins.tree import Contents, Row, Tree
from tests.helpers.upstream import pdf, tiff

BOX = [0.1, 0.1, 0.5, 0.04]


def write_idl(tree: Tree, rows: Mapping[str, int]) -> None:
    """Scans of one to three pages; a document lacks its scan, another's JSON is broken."""
    tree.write_card("other", license_name="idl-train", task_categories=["image-to-text"])
    material = tree.material("default")
    good = [_idl_document(material, number) for number in range(rows["default"])]
    spare = _idl_document(material, 90)
    broken = {**spare, "json": spare["json"][:20]}
    odd: list[Row] = [({"json": spare["json"], "ocr": b"{}"}, "bad_row"), (broken, "bad_row")]
    _write_documents(tree, "idl-train-00000.tar", "{:05d}", tree.mix(good, odd))


def _idl_document(material: Material, number: int) -> dict[str, bytes]:
    count = 1 + number % 3
    lines = [_list_lines(material, number, page) for page in range(count)]
    pages = [
        {"text": said, "bbox": [BOX] * len(said), "poly": [[]] * len(said), "score": [0.9] * len(said)}
        for said in lines
    ]
    scans = [
        Image.open(io.BytesIO(material.picture(number, page, "PNG").data)).convert("L").resize((120, 160))
        for page in range(count)
    ]
    return {
        "json": json.dumps({"pages": pages}).encode(),
        "ocr": json.dumps({"Blocks": []}).encode(),
        "pdf": pdf(lines),
        "tif": tiff(scans),
    }


def _list_lines(material: Material, number: int, page: int) -> list[str]:
    """Lines of English, as the two collections have them almost alone."""
    words = material.sentences(number + 11 * page, 2, language="en").split()
    return [" ".join(words[start : start + 6]) for start in range(0, len(words), 6)]


def write_pdfa(tree: Tree, rows: Mapping[str, int]) -> None:
    """PDFs of one to three pages; a PDF is broken, a document has a page without lines, another's JSON is no object."""
    tree.write_card("", task_categories=["image-to-text"])
    tree.write("_info.json", json.dumps({"splits": {"train": {"num_samples": rows["default"]}}}).encode())
    material = tree.material("default")
    good = [_pdfa_document(material, number) for number in range(rows["default"])]
    spare, cut = (_pdfa_document(material, number) for number in (90, 91))
    pages = json.loads(cut["json"])["pages"]
    cut["json"] = json.dumps({"pages": [*pages[:-1], {}]}).encode()
    odd: list[Row] = [
        ({**spare, "json": b"[]"}, "bad_row"),
        ({**spare, "pdf": b"%PDF-1.4 and no more"}, "bad_page"),
    ]
    mixed = tree.mix(good, odd) + ([(cut, "")] if tree.odd else [])
    _write_documents(tree, "pdfa-eng-train-0000.tar", "{:07d}", mixed)


def _pdfa_document(material: Material, number: int) -> dict[str, bytes]:
    pages = [_list_lines(material, number, page) for page in range(1 + number % 3)]
    return {"json": json.dumps({"pages": [_describe_page(lines) for lines in pages]}).encode(), "pdf": pdf(pages)}


def _describe_page(lines: list[str]) -> dict[str, Any]:
    words = [word for line in lines for word in line.split()]
    places = [[line, place] for line, text in enumerate(lines) for place in range(len(text.split()))]
    ends = [sum(len(line.split()) for line in lines[: number + 1]) for number in range(len(lines))]
    return {
        "words": {"text": words, "bbox": [BOX] * len(words), "score": [1.0] * len(words), "line_pos": places},
        "lines": {
            "text": lines,
            "bbox": [BOX] * len(lines),
            "score": [1.0] * len(lines),
            "word_slice": list(zip([0, *ends[:-1]], ends, strict=True)),
        },
        "images_bbox": [],
        "images_bbox_no_text_overlap": [],
    }


def _write_documents(tree: Tree, name: str, key: str, mixed: list[Row]) -> None:
    """Documents of a tar. A page is a sample; one without lines is lost alone, all where a reason says so."""
    samples, refused = 0, dict[int, tuple[str, ...]]()
    for number, (members, reason) in enumerate(mixed):
        if reason == "bad_row":
            refused[number] = (reason,)
            continue
        readable = [bool(page) and not reason for page in json.loads(members["json"])["pages"]]
        samples += sum(readable)
        if not all(readable):
            refused[number] = ("bad_page",) * readable.count(False)
    keyed = [(key.format(number), members) for number, (members, _) in enumerate(mixed)]
    tree.write_tar(name, keyed, Contents(samples, refused))


def write_rendered_text(tree: Tree, rows: Mapping[str, int]) -> None:
    """Pictures of text with boxes of lines and characters; tars in the root and in `remaining/`."""
    tree.write_card("", task_categories=["text-to-image", "image-to-text"], tags=["OCR", "blender"])
    for subset, count in rows.items():
        material = tree.material(subset)
        good = [_rendered_row(material, number) for number in range(count)]
        spare = _rendered_row(material, 90)
        odd: list[Row] = [
            ({**spare, "json": b'{"lines": ['}, "bad_row"),
            ({**spare, "json": json.dumps({"text": "  "}).encode()}, "empty_row"),
        ]
        mixed = tree.mix(good, odd)
        refused = {number: (reason,) for number, (_, reason) in enumerate(mixed) if reason}
        keyed = [(f"{number:08d}", members) for number, (members, _) in enumerate(mixed)]
        name = "000044.tar" if subset == "default" else "remaining/000045.tar"
        tree.write_tar(name, keyed, Contents(len(mixed) - len(refused), refused))


def _rendered_row(material: Material, number: int) -> dict[str, bytes]:
    lines = _list_lines(material, number, 0)
    about = {
        "text": "\n".join(lines),
        "font": "Roboto",
        "lines": [{"text": line, "bb": [[0, 0], [9, 0], [9, 9], [0, 9]]} for line in lines],
    }
    return {"png": material.picture(number, form="PNG").data, "json": json.dumps(about).encode()}


DATASETS = (
    Dataset(
        "pixparse/idl-wds",
        write_idl,
        files="idl-train-*.tar, five digits",
        shape="json: pages of text, bbox, poly, score; tif; pdf; ocr",
        kind="idl",
        licence="other: idl-train",
        known="card: members and keys; chug's reader",
        guessed="the content of ocr, and documents that lack a scan",
    ),
    Dataset(
        "pixparse/pdfa-eng-wds",
        write_pdfa,
        files="pdfa-eng-train-*.tar, four digits",
        shape="json: pages of words, lines, images_bbox; pdf",
        kind="pdfa",
        licence="",
        known="card: members, keys; the typed schema of vikp/pdf_bench",
        guessed="what stands in _info.json; broken PDFs",
    ),
    Dataset(
        "wendlerc/RenderedText",
        write_rendered_text,
        files="*.tar, remaining/*.tar",
        shape="png; json: lines and characters with boxes, text, font, colour, rotation",
        kind="rendered_text",
        licence="",
        known="card: WebDataset of png and json, what the JSON is about, no licence (discussion 2)",
        guessed="every key of the JSON",
        subsets=("default", "remaining"),
    ),
)
