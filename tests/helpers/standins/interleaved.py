"""Stand-ins for interleaved documents beside OBELICS: MMC4, OmniCorpus, MINT-1T and CoMM."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from PIL import Image

from tests.helpers.standins.dataset import Dataset
from tests.helpers.standins.tree import STRING, STRINGS, Contents, Row, Tree, number_shard
from tests.helpers.standins.web import ADDRESSES
from tests.helpers.upstream import tiff

Places = list[tuple[str | None, str | None]]
"""A document: in each place the address of an image, or a text."""


def _draw_places(tree: Tree, number: int) -> Places:
    """A text, an image at an address, and another text."""
    material = tree.material("default")
    drawing = material.picture(number)
    name = f"{material.original(number)}.{drawing.suffix}"
    tree.write_picture(name, drawing)
    address = f"{ADDRESSES}{tree.repository}/{name}"
    return [(None, material.sentences(number)), (address, None), (None, material.sentences(number, 3))]


def _split_places(places: Places) -> dict[str, Any]:
    return {"images": [image for image, _ in places], "texts": [text for _, text in places]}


def write_mmc4(tree: Tree, rows: Mapping[str, int]) -> None:
    """Sentences and matched images in the two forms of fewer faces; one row names a sentence that is not there."""
    names = {"fewer_faces": "data_v1.1/docs_no_face_shard_0_v2.jsonl", "core": "data_core_v1.1/docs_shard_0_v3.jsonl"}
    for subset, count in rows.items():
        good = [_match_images(tree, number) for number in range(count)]
        spare = _match_images(tree, 90)
        wrong = {**spare, "image_info": [{**spare["image_info"][0], "matched_text_index": 9}]}
        tree.write_json_lines(names[subset], tree.mix(good, [(wrong, "bad_row")]))


def _match_images(tree: Tree, number: int) -> dict[str, Any]:
    (_, first), (address, _), (_, second) = _draw_places(tree, number)
    image = {
        "face_detections": None,
        "image_name": f"{number:012x}.jpg",
        "matched_sim": 0.27,
        "matched_text_index": 1,
        "raw_url": address,
    }
    return {
        "image_info": [image],
        "similarity_matrix": [[0.24, 0.27]],
        "text_list": [first, second],
        "url": f"http://web.standins.test/{number}",
        "could_have_url_duplicate": 0,
    }


OMNICORPUS = {
    "general_metadata": pa.struct(
        {
            "domain": STRINGS,
            **dict.fromkeys(("fluency_prob", "non_advertisement_prob", "porn_prob"), pa.float64()),
            **dict.fromkeys(("id", "url"), STRING),
        }
    ),
    "images": STRINGS,
    "texts": STRINGS,
    "metadata": pa.list_(pa.struct({"aesthetic_prob": pa.float64(), "height": pa.int64(), "img_url_sha": STRING})),
}


def write_omnicorpus(tree: Tree, rows: Mapping[str, int]) -> None:
    """Documents with ratings and hashes; in one place nothing stands; one document is empty."""
    tree.write_card("cc-by-4.0")
    good = [_rate_document(tree, number) for number in range(rows["default"])]
    empty = {**_rate_document(tree, 90), "images": [], "texts": [], "metadata": []}
    tree.write_shards(
        lambda place, parts: f"CC-MAIN-2013-20/{number_shard(place, parts)}",
        OMNICORPUS,
        tree.mix(good, [(empty, "empty_row")]),
    )


def _rate_document(tree: Tree, number: int) -> dict[str, Any]:
    places = [*_draw_places(tree, number), (None, None)]
    ratings = {"fluency_prob": 0.9, "non_advertisement_prob": 0.9, "porn_prob": 0.0}
    about = {"domain": ["news"], "id": str(number), "url": f"http://web.standins.test/{number}", **ratings}
    picture = {"aesthetic_prob": 0.5, "height": 80, "img_url_sha": "0"}
    said = [picture if image else None for image, _ in places]
    return {"general_metadata": about, **_split_places(places), "metadata": said}


def write_omnicorpus_yt(tree: Tree, rows: Mapping[str, int]) -> None:
    """Subtitles between frames, in lists that are written as JSON; one video has no frame and no subtitle."""
    tree.write_card("cc-by-4.0")
    good = [_list_frames(tree, number) for number in range(rows["default"])]
    silent = {"id": "silent", "images": "[]", "texts": "[]"}
    columns = dict.fromkeys(("id", "images", "texts"), STRING)
    tree.write_parquet("shard_0.parquet", columns, tree.mix(good, [(silent, "empty_row")]))


def _list_frames(tree: Tree, number: int) -> dict[str, str]:
    material, name = tree.material("default"), f"video{number}"
    frames = [f"{1.5 + place:.2f}" for place in range(2)]
    for place, frame in enumerate(frames):
        tree.write_picture(f"{name}/{frame}.jpg", material.picture(number, place, form="JPEG"))
    lists = {"images": [frames[0], None, frames[1]], "texts": [None, material.sentences(number), None]}
    return {"id": name, **{key: json.dumps(value) for key, value in lists.items()}}


def write_omnicorpus_cw(tree: Tree, rows: Mapping[str, int]) -> None:
    """Chinese documents; one is empty."""
    good = [_rate_document(tree, number) for number in range(rows["default"])]
    empty = {**_rate_document(tree, 90), "images": [], "texts": []}
    tree.write_json_lines("part-00000.jsonl", tree.mix(good, [(empty, "empty_row")]))


def write_mint_html(tree: Tree, rows: Mapping[str, int]) -> None:
    """Documents with their address; the lists of one do not match."""
    tree.write_card("cc-by-4.0")
    columns = {**dict.fromkeys(("images", "texts", "image_hashes"), STRINGS), "url": STRING, "cc_dump": STRING}

    def make(number: int) -> dict[str, Any]:
        about = {"image_hashes": ["0"], "url": f"http://web.standins.test/{number}", "cc_dump": "CC-MAIN-2017-22"}
        return {**_split_places(_draw_places(tree, number)), **about}

    odd: list[Row] = [({**make(90), "texts": ["one"]}, "bad_row")]
    tree.write_parquet("data_v1_1/shard_0000.parquet", columns, tree.mix(map(make, range(rows["default"])), odd))


def write_mint_tars(tree: Tree, rows: Mapping[str, int]) -> None:
    """Documents with their images in one TIFF; one has none; one's JSON is broken."""
    tree.write_card("cc-by-4.0")
    good = [_draw_document(tree, number) for number in range(rows["default"])]
    mixed = tree.mix(good, [({**_draw_document(tree, 90), "json": b"{"}, "bad_row")])
    keyed = [(f"{number:07d}", members) for number, (members, _) in enumerate(mixed)]
    refused = {number: (reason,) for number, (_, reason) in enumerate(mixed) if reason}
    folder = "CC-MAIN-2024-18-shard-0/" if "PDF" in tree.repository else ""
    tree.write_tar(f"{folder}CC-MAIN-20240412101354-00000.tar", keyed, Contents(len(mixed) - len(refused), refused))


def _draw_document(tree: Tree, number: int) -> dict[str, bytes]:
    material, count = tree.material("default"), number % 3
    frames = [Image.open(io.BytesIO(material.picture(number, place).data)).convert("RGB") for place in range(count)]
    names = [f"page_{place}_image_{place + 7}" for place in range(count)]
    about = {
        "texts": [material.sentences(number), *[None] * count],
        "images": [None, *names],
        "image_metadata": [{"page": place, "xref": place + 7} for place in range(count)],
        "url": f"http://web.standins.test/{number}.pdf",
        "language_id_whole_page_fasttext": {"en": 0.9},
    }
    return {"json": json.dumps(about).encode(), **({"tiff": tiff(frames)} if frames else {})}


def write_comm(tree: Tree, rows: Mapping[str, int]) -> None:
    """Instructions in steps; one step is no list."""
    good = [_write_steps(tree, number) for number in range(rows["default"])]
    wrong = {**_write_steps(tree, 90), "step_info": ["Take it."]}
    tree.write_json_lines("train_data.jsonl", tree.mix(good, [(wrong, "bad_row")]))


def _write_steps(tree: Tree, number: int) -> dict[str, Any]:
    parts = [
        {"type": "image", "url": image, "image_path": f"ehow/{number}.jpg"}
        if image
        else {"type": "text", "content": text}
        for image, text in _draw_places(tree, number)
    ]
    name = f"ehow_{number}"
    return {"data_id": name, "dataset_type": "ehow", "title": "", "summary_info": parts[:1], "step_info": [parts[1:]]}


OMNICORPUS_OPTIONS = {"url": "general_metadata.url"}

DATASETS = (
    Dataset(
        "allenai/mmc4",
        write_mmc4,
        files="data_v1.1/docs_no_face_shard_*_v2.jsonl.zip, data_core_v1.1/docs_no_face_shard_*_v3.jsonl.zip",
        shape="text_list, image_info of raw_url, matched_text_index, matched_sim; similarity_matrix, url",
        kind="mmc4",
        licence="ODC-BY",
        known="README of the repository on GitHub: files, keys, an example; OpenFlamingo: where images go",
        guessed="names of the files of the forms with faces",
        remark="Unpack the files.",
        subsets=("fewer_faces", "core"),
        on_hub=False,
    ),
    Dataset(
        "OpenGVLab/OmniCorpus-CC",
        write_omnicorpus,
        files="CC-MAIN-YEAR-WEEK/train-*.parquet",
        shape="images, texts: lists, in each place one is null or both are; general_metadata: struct, metadata",
        kind="web_documents",
        options=OMNICORPUS_OPTIONS,
        licence="cc-by-4.0",
        known="card: columns with their types, licence; tree pages of the repository: files",
        guessed="that places may hold nothing; the empty document",
    ),
    Dataset(
        "OpenGVLab/OmniCorpus-YT",
        write_omnicorpus_yt,
        files="shard_*.parquet",
        shape="id: of the video; images: times of frames, texts: subtitles, lists as JSON",
        kind="file_documents",
        options={"file": "{id}/{image}.jpg"},
        images="a folder with a frame of each time by video, which you take from the videos",
        licence="cc-by-4.0",
        known="tree pages of the repository: files, licence",
        guessed="columns and what is in them (the card, from memory); how frames are named",
    ),
    Dataset(
        "Li-Qingyun/OmniCorpus-CW",
        write_omnicorpus_cw,
        files="unknown, on OpenDataLab",
        shape="as OmniCorpus-CC",
        kind="web_documents",
        options=OMNICORPUS_OPTIONS,
        licence="",
        known="README of OmniCorpus on GitHub: where it is",
        guessed="that rows are those of OmniCorpus-CC, and the format",
        on_hub=False,
    ),
    Dataset(
        "mlfoundations/MINT-1T-HTML",
        write_mint_html,
        files="data_v1_1/*.parquet, before that CC-MAIN-YEAR-WEEK/shard_*.parquet",
        shape="images, texts: lists, in each place one is null; url, cc_dump, image_hashes, ...",
        kind="web_documents",
        licence="cc-by-4.0",
        known="tree pages of the repository: files, licence; a reader of others: columns, one thing in a place",
        guessed="lists that do not match",
    ),
    *(
        Dataset(
            f"mlfoundations/{name}",
            write_mint_tars,
            files=files,
            shape="json: texts, images: names by page and number, image_metadata; tiff: a frame for each of these",
            kind="mint_documents",
            licence="cc-by-4.0",
            known=known,
            guessed="documents without a TIFF; broken JSON" + more,
        )
        for name, files, known, more in (
            (
                "MINT-1T-PDF-CC-2024-18",
                "CC-MAIN-2024-18-shard-*/*.tar; a repository for each crawl",
                "a tutorial and readers of others: files, keys, names of images, order of frames",
                "",
            ),
            (
                "MINT-1T-ArXiv",
                "*.tar",
                "readers of others: tars, texts in the json, tiff",
                "; that images are named as in the PDFs, or else stand in order",
            ),
        )
    ),
    Dataset(
        "weisuxi/CoMM",
        write_comm,
        files="train_data.pth and others in an archive: pickles",
        shape="data_id, dataset_type, title, summary_info, step_info: lists of parts of type text or image",
        kind="comm",
        licence="",
        known="CoMM's code (datasets/download_images.py, MiniGPT-5/dataloader.py): keys, forms of parts",
        guessed="a step that is no list",
        remark="No pickle is read: docs/sources.md has the line that writes the rows to JSON Lines.",
    ),
)
