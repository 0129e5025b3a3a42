"""Each format read back by the packages that it is for, and by our own sources: the records that were written."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from dataclasses import replace
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
import yaml
from PIL import Image

from tests.helpers.stages import picture
from vlmill.mixtures.export.base import ExportedShard, ExportPart
from vlmill.mixtures.export.folder import ExportFolder
from vlmill.mixtures.export.formats import FORMATS
from vlmill.mixtures.export.parquet import FEATURES, SCHEMA
from vlmill.mixtures.export.pictures import make_picture
from vlmill.mixtures.export.record import REMARKS, ExportMessage, Record
from vlmill.pipeline.core.yaml_format import format_yaml
from vlmill.pipeline.sources.conversation import ConversationImage, Picture, read_marked_page


def encode(colour, number, form):
    buffer = io.BytesIO()
    picture(colour, number).save(buffer, form)
    return make_picture(buffer.getvalue())


RED, BLUE = encode("red", 1, "PNG"), encode("blue", 2, "JPEG")
RECORDS = [
    Record(
        "quiz/a.parquet#1",
        "quiz",
        "CC0-1.0",
        "",
        "quiz-0001",
        False,
        (
            ExportMessage("system", ("Be brief.",)),
            ExportMessage("user", (None, "What is this, and this: ", None)),
            ExportMessage("assistant", ("Red and blue.",), supervised=True),
            ExportMessage("user", ("Sure?",)),
            ExportMessage("assistant", ("Yes.",), supervised=False),
        ),
        (RED, BLUE),
        sequence=4,
    ),
    Record(
        "quiz/a.parquet#2",
        "quiz",
        "",
        "",
        "",
        False,
        (ExportMessage("user", ("Write <image> in HTML",)), ExportMessage("assistant", ("<img>",), supervised=True)),
        (),
        sequence=4,
    ),
    Record(
        "web/b.parquet#7",
        "web",
        "",
        "http://a.example/",
        "b7",
        True,
        (ExportMessage("assistant", ("One.\n\n", None, "Two."), supervised=True),),
        (RED,),
        sequence=5,
    ),
]


@pytest.fixture(params=FORMATS)
def written(request, tmp_path):
    """An export of one shard of these records, as the export writes it."""
    made, folder = FORMATS[request.param], ExportFolder(tmp_path, "key")
    (tmp_path / "data/train").mkdir(parents=True)
    folder.scratch.mkdir()
    path = tmp_path / f"data/train/00000{made.suffix}"
    file = made.open_shard(path, folder)
    remarks = [list(file.add(record)) for record in RECORDS]
    size = file.size
    file.close()
    folder.scratch.rmdir()
    part = ExportPart("data", "train")
    listed = {"path": f"data/train/{path.name}", "sha256": "", "size": 0}
    shards = {part.folder: [ExportedShard(part.folder, 3, 3, (listed,), members=tuple(sorted(file.members)))]}
    for name, text in made.finish("run-stage", [part], shards).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "README.md").write_text(f"---\n{format_yaml(dict(made.describe_configs([part], shards)))}---\n")
    return SimpleNamespace(name=request.param, folder=tmp_path, path=path, remarks=remarks, size=size)


def load(folder):
    return datasets.load_dataset(str(folder), split="train", cache_dir=str(folder / "cache"))


def of(name):
    return pytest.mark.parametrize("written", [name], indirect=True)


@of("parquet")
def test_datasets_reads_parquet_with_pictures(written):
    rows = load(written.folder)
    assert isinstance(rows.features["images"].feature, datasets.Image)
    for row, record in zip(rows, RECORDS, strict=True):
        assert [
            row[name] for name in ("id", "source", "licence", "url", "upstream_id", "kind", "sequence", "weight")
        ] == [
            record.id,
            record.source,
            record.licence,
            record.url,
            record.upstream_id,
            record.kind,
            record.sequence,
            None,
        ]
        assert [
            (message["role"], [part["text"] for part in message["content"]], message["loss"])
            for message in row["messages"]
        ] == [(message.role, list(message.parts), message.supervised) for message in record.messages]
        assert {part["type"] for message in row["messages"] for part in message["content"] if part["text"] is None} <= {
            "image"
        }
        for shown, kept in zip(row["images"], record.pictures, strict=True):
            assert shown.convert("RGB").tobytes() == Image.open(io.BytesIO(kept.data)).convert("RGB").tobytes()
    stored = rows.cast_column("images", [datasets.Image(decode=False)])
    assert [image["bytes"] for row in stored for image in row["images"]] == [RED.data, BLUE.data, RED.data]


def test_the_schema_is_that_of_its_features():
    features = datasets.Features.from_dict(FEATURES)
    assert features.arrow_schema.remove_metadata() == SCHEMA.remove_metadata()


@of("parquet")
def test_pictures_are_not_compressed_again(written):
    group = pq.ParquetFile(written.path).metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    found = {column.path_in_schema: column.compression for column in columns}
    assert found.pop("images.list.element.bytes") == "UNCOMPRESSED"
    assert set(found.values()) == {"ZSTD"}


def test_row_groups_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmill.mixtures.export.parquet.GROUP_BYTES", RECORDS[0].size + 1)
    file = FORMATS["parquet"].open_shard(tmp_path / "a.parquet", ExportFolder(tmp_path, ""))
    for _ in range(3):
        file.add(RECORDS[0])
    file.close()
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 3
    assert isinstance(pq.read_schema(tmp_path / "a.parquet"), pa.Schema)


# -- JSON --------------------------------------------------------------------------------------------------------------


def read_page(turns, paths, folder):
    """What our own source makes of turns and paths of pictures."""
    beside = [ConversationImage(Picture(path=path), path) for path in paths]
    page = read_marked_page(turns, beside)
    assert all((folder / path).is_file() for path in paths)
    return [(node.role, node.text, node.supervised) for node in page.nodes]


EXPECTED = [
    ("system", "Be brief.", False),
    ("user", None, False),
    ("user", "What is this, and this: ", False),
    ("user", None, False),
    ("assistant", "Red and blue.", True),
    ("user", "Sure?", False),
    ("assistant", "Yes.", False),
]


@of("llava")
def test_llavas_json_is_what_our_source_reads(written):
    rows = json.loads(written.path.read_text())
    assert [row["id"] for row in rows] == [record.id for record in RECORDS]
    assert [row["upstream_id"] for row in rows] == [record.upstream_id for record in RECORDS]
    paths = [f"images/{one.sha256[:2]}/{one.name}" for one in (RED, BLUE)]
    assert [row.get("image") for row in rows] == [paths, None, paths[0]]
    assert read_page(rows[0]["conversations"], rows[0]["image"], written.folder) == EXPECTED
    assert rows[2]["conversations"][0] == {"from": "human", "value": ""}
    assert rows[2]["conversations"][1]["value"] == "One.\n\n<image>Two."
    assert (written.folder / paths[1]).read_bytes() == BLUE.data
    listed = yaml.safe_load((written.folder / "mixture.yaml").read_text())["datasets"]
    assert listed == [{"json_path": "data/train/00000.json", "sampling_strategy": "all"}]
    assert written.remarks == [["system_prompts"], ["marks_in_texts"], []]


@of("messages")
def test_messages_are_what_our_source_and_llama_factory_read(written):
    rows = [json.loads(line) for line in written.path.read_text().splitlines()]
    assert read_page(rows[0]["messages"], rows[0]["images"], written.folder) == EXPECTED
    assert [row["upstream_id"] for row in rows] == [record.upstream_id for record in RECORDS]
    for row in rows:  # what LLaMA-Factory asks of a conversation
        roles = [message["role"] for message in row["messages"] if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert sum(message["content"].count("<image>") for message in row["messages"]) == len(row["images"])
    assert rows[1]["messages"][0]["content"] == "Write <image > in HTML"
    assert written.remarks == [[], ["marks_in_texts"], []]
    told = json.loads((written.folder / "dataset_info.json").read_text())
    assert told["run-stage"]["file_name"] == "data/train"
    loaded = datasets.load_dataset("json", data_files=str(written.path), split="train", cache_dir=str(written.folder))
    assert loaded[2]["messages"][1]["loss"] is True


# -- tars --------------------------------------------------------------------------------------------------------------


@of("webdataset")
def test_webdataset_reads_the_tars(written):
    samples = list(webdataset.WebDataset(str(written.path), shardshuffle=False).decode("pil"))
    for sample, record in zip(samples, RECORDS, strict=True):
        told = sample["json"]
        assert (told["id"], told["kind"], told["sequence"]) == (record.id, record.kind, record.sequence)
        parts = [part for message in told["messages"] for part in message["content"]]
        assert [part["text"] for part in parts] == [part for one in record.messages for part in one.parts]
        shown = [sample[part["image"]] for part in parts if part["type"] == "image"]
        for image, kept in zip(shown, record.pictures, strict=True):
            assert image.tobytes() == Image.open(io.BytesIO(kept.data)).convert("RGB").tobytes()


@of("webdataset")
def test_datasets_reads_the_tars_by_the_card_though_pictures_differ_in_number(written):
    rows = load(written.folder)
    assert {name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)} == {"0.png", "1.jpg"}
    assert [row["json"]["id"] for row in rows] == [record.id for record in RECORDS]
    assert [row["json"]["upstream_id"] for row in rows] == [record.upstream_id for record in RECORDS]
    assert [(row["0.png"] is None, row["1.jpg"] is None) for row in rows] == [
        (False, False),
        (True, True),
        (False, True),
    ]


@of("webdataset")
def test_energons_metadata_say_where_samples_are(written):
    data = written.path.with_name("00000.tar.idx").read_bytes()
    *offsets, end = struct.unpack(f"<{len(data) // 8}Q", data)
    with tarfile.open(written.path) as tar:
        members = tar.getmembers()
    assert [member.offset for member in members if member.name.endswith(".json")] == offsets
    last = members[-1]
    assert end == last.offset_data + -(-last.size // 512) * 512
    meta = written.folder / "data/.nv-meta"
    assert json.loads((meta / ".info.json").read_text()) == {"shard_counts": {"train/00000.tar": 3}}
    assert yaml.safe_load((meta / "split.yaml").read_text())["split_parts"] == {"train": ["train/00000.tar"]}
    assert yaml.safe_load((meta / "dataset.yaml").read_text())["__class__"] == "CrudeWebdataset"
    blend = yaml.safe_load((written.folder / "metadataset.yaml").read_text())["splits"]["train"]["blend"]
    assert blend == [{"weight": 1, "path": "data", "subflavors": {"source": "data"}}]


def test_a_shard_says_how_large_it_is(written):
    assert written.size > 100
    if written.name != "parquet":
        assert written.size <= written.path.stat().st_size


@pytest.mark.parametrize("form", FORMATS)
def test_formats_without_weights_say_how_many_records_the_plan_repeats(form, tmp_path):
    folder = ExportFolder(tmp_path, "key")
    folder.scratch.mkdir()
    file = FORMATS[form].open_shard(tmp_path / f"00000{FORMATS[form].suffix}", folder)
    plain = replace(RECORDS[2], sequence=None)
    remarks = [list(file.add(replace(plain, id=f"web/b.parquet#{n}", weight=n))) for n in (1, 2, 3)]
    file.close()
    repeated = ["weights"] if form in {"llava", "messages"} else []
    assert remarks == [[], repeated, repeated]
    assert {*repeated} <= {*REMARKS}
