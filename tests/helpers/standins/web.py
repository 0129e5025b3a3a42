"""Stand-ins for web documents, screenshots and pairs: OBELICS, WebSight, LAION COCO, and CC3M and CC12M as tars."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from tests.helpers.standins.dataset import Dataset
from tests.helpers.standins.material import Material
from tests.helpers.standins.tree import IMAGE, STRING, STRINGS, Contents, Row, Tree, as_image, number_shard

ADDRESSES = "http://img.standins.test/"
"""What addresses of pictures begin with. They go on with the repository and a file's name."""

END_OF_DOCUMENT = "END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED"
OPTED_OUT = "opt_out_docs_removed_2023_07_12"


def write_obelics(tree: Tree, rows: Mapping[str, int]) -> None:
    """Documents of text and addresses; some addresses are dead, and one document is empty."""
    folders = {"default": "data", OPTED_OUT: OPTED_OUT}
    tree.write_card(
        "cc-by-4.0", {name: {"train": f"{folders[name]}/train-*"} for name in folders}, pretty_name="OBELICS"
    )
    columns = {"images": STRINGS, "metadata": STRING, "general_metadata": STRING, "texts": STRINGS}
    empty = {"images": [], "metadata": "[]", "general_metadata": "", "texts": []}
    for subset, count in rows.items():
        good = [_obelics_document(tree, number) for number in range(count)]
        mixed = tree.mix(good, [(empty, "empty_row")])
        folder = folders[subset]
        tree.write_shards(lambda place, parts, folder=folder: f"{folder}/{number_shard(place, parts)}", columns, mixed)


def _obelics_document(tree: Tree, number: int) -> dict[str, Any]:
    material = tree.material("default")  # the other subset has some of the same documents
    drawing = material.picture(number)
    name = f"{material.original(number)}.{drawing.suffix}"
    tree.write_picture(name, drawing)
    address = f"{ADDRESSES}{tree.repository}/{name}"
    places: list[tuple[str | None, str | None]] = [
        (None, material.sentences(number)),
        (address, None),
        (None, material.sentences(number, 3)),
    ]
    if number % 4 == 1:
        places.insert(0, (f"{ADDRESSES}{tree.repository}/gone-{number}.jpg", None))
    if number % 4 == 2:
        places.append((None, f"{END_OF_DOCUMENT}\n\n{material.sentences(number, 1)}"))
    url = f"http://web.standins.test/{number}"
    said = [image and _describe_image(image, url) for image, _ in places]
    general = {"url": url, "warc_filename": "a.warc.gz", "warc_record_offset": number, "warc_record_length": 100}
    return {
        "images": [image for image, _ in places],
        "metadata": json.dumps([item or None for item in said]),
        "general_metadata": "" if number % 6 == 3 else json.dumps(general),
        "texts": [text for _, text in places],
    }


def _describe_image(address: str, document: str) -> dict[str, Any]:
    return {
        "document_url": document,
        "unformatted_src": address,
        "src": address,
        "formatted_filename": "a picture",
        "alt_text": "A picture",
        "rendered_width": None,
        "rendered_height": None,
        "original_width": 80,
        "original_height": 80,
        "format": "jpeg",
    }


def write_websight(tree: Tree, rows: Mapping[str, int]) -> None:
    """Screenshots and HTML in the two versions; one row has no screenshot, one no HTML."""
    folders = {"v0.1": "data", "v0.2": "v0.2"}
    tree.write_card("cc-by-4.0", {name: {"train": f"{folder}/train-*"} for name, folder in folders.items()})
    for subset, count in rows.items():
        material = tree.material(subset)
        columns = {"image": IMAGE, "text": STRING}
        if subset == "v0.2":
            columns["llm_generated_idea"] = STRING

        def make(number: int, columns: Mapping[str, Any] = columns, material: Any = material) -> dict[str, Any]:
            html = f"<html><body><h1>{number}</h1><p>{material.sentences(number)}</p></body></html>"
            row = {"image": as_image(material.picture(number, form="PNG")), "text": html}
            return {**row, "llm_generated_idea": "A shop"} if "llm_generated_idea" in columns else row

        odd: list[Row] = [({**make(90), "image": None}, "bad_row"), ({**make(91), "text": ""}, "empty_row")]
        folder = folders[subset]
        tree.write_shards(
            lambda place, parts, folder=folder: f"{folder}/{number_shard(place, parts)}",
            columns,
            tree.mix(map(make, range(count)), odd),
        )


LAION_COCO = {
    "SAMPLE_ID": pa.int64(),
    "URL": STRING,
    "TEXT": STRING,
    "HEIGHT": pa.int32(),
    "WIDTH": pa.int32(),
    "LICENSE": STRING,
    "NSFW": STRING,
    "similarity": pa.float64(),
    "hash": pa.int64(),
    "top_caption": STRING,
    "all_captions": STRINGS,
    "all_similarities": pa.list_(pa.float64()),
}


def write_laion_coco(tree: Tree, rows: Mapping[str, int]) -> None:
    """Addresses with written captions; one row has no address, one a blank caption, some addresses are dead."""
    tree.write_card("cc-by-4.0")
    material = tree.material("default")

    def make(number: int) -> dict[str, Any]:
        drawing = material.picture(number, form="JPEG")
        if number % 5 != 4:
            tree.write_picture(f"{number}.jpg", drawing)
        caption = material.sentences(number, 1, language="en")
        return {
            "SAMPLE_ID": number,
            "URL": f"{ADDRESSES}{tree.repository}/{number}.jpg",
            "TEXT": material.sentences(number, 1),
            "HEIGHT": 80,
            "WIDTH": 80,
            "LICENSE": "?",
            "NSFW": "UNLIKELY",
            "similarity": 0.3,
            "hash": -number,
            "top_caption": caption,
            "all_captions": [caption, "a photo"],
            "all_similarities": [0.3, 0.2],
        }

    odd: list[Row] = [({**make(90), "URL": None}, "bad_row"), ({**make(91), "top_caption": " "}, "empty_row")]
    tree.write_parquet(
        "part-00000-2256f782-126f-4dc6-b9c6-e6757637749d-c000.snappy.parquet",
        LAION_COCO,
        tree.mix(map(make, range(rows["default"])), odd),
    )


PIXELPROSE_SUBSETS = ("commonpool", "cc12m", "redcaps")
PIXELPROSE = dict.fromkeys(("uid", "url", "key", "status", "original_caption", "vlm_model", "vlm_caption"), STRING)


def write_pixelprose(tree: Tree, rows: Mapping[str, int]) -> None:
    """Addresses with long captions, in files by where the addresses are from, which are splits; one has no caption."""
    paths = {name: f"data/vlm_captions_{name}_*" for name in PIXELPROSE_SUBSETS}
    tree.write_card("cc-by-4.0")
    for subset, count in rows.items():
        material = tree.material(subset)

        def make(number: int, subset: str = subset, material: Material = material) -> dict[str, Any]:
            name = f"{subset}/{material.original(number)}.jpg"
            tree.write_picture(name, material.picture(number, form="JPEG"))
            return {
                "uid": f"{subset}-{number}",
                "url": f"{ADDRESSES}{tree.repository}/{name}",
                "key": str(number),
                "status": "success",
                "original_caption": material.sentences(number, 1),
                "vlm_model": "a model",
                "vlm_caption": f"This image displays this. {material.sentences(number, 3, language='en')}",
            }

        mixed = tree.mix(map(make, range(count)), [({**make(90), "vlm_caption": ""}, "empty_row")])
        tree.write_parquet(paths[subset].replace("*", "00.parquet"), PIXELPROSE, mixed)


def write_conceptual_captions(tree: Tree, rows: Mapping[str, int]) -> None:
    """Tars of pictures, captions and what img2dataset notes; one caption is blank, one is no UTF-8."""
    stem = tree.repository.partition("/")[2].removesuffix("-wds")
    tree.write_card("other", license_name="conceptual-captions")
    mixed = tree.mix(list(_caption_members(tree, rows["default"])), _odd_captions(tree))
    keyed = [(f"{number:09d}", members) for number, (members, _) in enumerate(mixed)]
    refused = {number: (reason,) for number, (_, reason) in enumerate(mixed) if reason}
    tree.write_tar(f"{stem}-train-0000.tar", keyed, Contents(len(mixed) - len(refused), refused))


def _caption_members(tree: Tree, count: int) -> Iterator[dict[str, bytes]]:
    material = tree.material("default")
    for number in range(count):
        text = material.sentences(number, 1)
        about = {
            "caption": text,
            "url": f"{ADDRESSES}{number}.jpg",
            "key": f"{number:09d}",
            "status": "success",
            "error_message": None,
            "width": 80,
            "height": 80,
            "exif": "{}",
            "original_width": 80,
            "original_height": 80,
        }
        yield {
            "jpg": material.picture(number, form="JPEG").data,
            "txt": text.encode(),
            "json": json.dumps(about).encode(),
        }


def _odd_captions(tree: Tree) -> list[Row]:
    picture = tree.material("default").picture(90, form="JPEG").data
    return [({"jpg": picture, "txt": b"  "}, "empty_row"), ({"jpg": picture, "txt": b"\xff\xfe"}, "bad_row")]


DATASETS = (
    Dataset(
        "HuggingFaceM4/OBELICS",
        write_obelics,
        files="data/train-*.parquet, opt_out_docs_removed_2023_07_12/train-*.parquet",
        shape="images: list of addresses, texts: list, in each place one is null; metadata, general_metadata: JSON",
        kind="obelics",
        licence="cc-by-4.0",
        known="card (README of the repository): configs, features, licence; OBELICS' code: keys of the metadata",
        guessed="names of the Parquet files after `train-`; the empty document",
        subsets=("default", OPTED_OUT),
    ),
    Dataset(
        "HuggingFaceM4/WebSight",
        write_websight,
        files="data/train-*.parquet (v0.1), v0.2/train-*.parquet",
        shape="image, text: HTML; v0.2 also llm_generated_idea",
        kind="websight",
        licence="cc-by-4.0",
        known="card: columns, licence; loaders of others: llm_generated_idea",
        guessed="the folder of v0.2; rows without screenshot or HTML",
        subsets=("v0.1", "v0.2"),
    ),
    Dataset(
        "laion/laion-coco",
        write_laion_coco,
        files="*.parquet",
        shape="URL, TEXT, top_caption, all_captions, all_similarities, LICENSE, similarity, ...",
        kind="pairs",
        options={"url": "URL", "caption": "top_caption", "licence": "LICENSE", "signals": ["similarity"]},
        licence="cc-by-4.0",
        known="code of others: the columns URL, TEXT, top_caption, hash",
        guessed="file names, the other columns, the licence; that it was withdrawn in December 2023, with LAION-5B",
        gated=True,
    ),
    Dataset(
        "tomg-group-umd/pixelprose",
        write_pixelprose,
        files="data/vlm_captions_*.parquet",
        shape="uid, url, key, status, original_caption, vlm_model, vlm_caption, scores",
        kind="pairs",
        options={"url": "url", "caption": "vlm_caption"},
        licence="cc-by-4.0",
        known="readers of others: url, uid, vlm_caption, original_caption, the name of a file, a split commonpool",
        guessed="the other columns, the other files' names, the licence",
        subsets=PIXELPROSE_SUBSETS,
    ),
    *(
        Dataset(
            f"pixparse/{name}-wds",
            write_conceptual_captions,
            files=f"{name}-train-*.tar",
            shape="jpg, txt: caption, json: what img2dataset notes",
            kind="pairs_wds",
            licence="other: conceptual-captions",
            known="names of repository and tars; img2dataset: members and keys",
            guessed="digits of the tars' numbers; captions that are blank or no UTF-8",
        )
        for name in ("cc3m", "cc12m")
    ),
)
