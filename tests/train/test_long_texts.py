"""Long texts in training: the parts of a document hold its tokens and labels, each once and in order, images once."""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import asdict
from functools import cache
from itertools import accumulate

import pytest
import torch
from PIL import Image

from tests.helpers.chats import PUBLISHED
from tests.helpers.stages import ANYRES, model_settings, write_shards, write_tokenizer
from tests.helpers.synthetic import Store
from vlmill.mixtures import Shard
from vlmill.mixtures.config import MixtureSettings
from vlmill.mixtures.reader import PlannedMixture, Segment
from vlmill.pipeline.chat.encode import IGNORE, WHOLE, load_tokenizer
from vlmill.pipeline.chat.reading import fill_chat
from vlmill.pipeline.chat.settings import PublishedChat, describe_chat, find_format
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.sample import Node
from vlmill.train.data import Reader
from vlmill.train.families import find_family

PICTURE = Image.new("RGB", (40, 30), (20, 90, 160))
SENTENCES = "The {0} of {0} is a colour. What is it?\nIt is the picture 長い文。「はい。」 😀 of {0}! "
LENGTH = 150


def say(times):
    return "".join(SENTENCES.format(number) for number in range(times))


PAGE = ((Node("image", image=0, required=True), Node("text", supervised=True, text=say(12))), [PICTURE])
ARTICLE = (
    (
        Node("text", supervised=True, text=say(2)),
        Node("image", image=0),
        Node("text", supervised=True, text=say(7)),
        Node("text", supervised=True, text="A short line."),
        Node("image", image=1),
        Node("text", supervised=True, text="x" * 400),
    ),
    [PICTURE, PICTURE.rotate(90, expand=True)],
)
SHORT = ((Node("text", supervised=True, text="It is the colour."),), [])
TALK = (
    (
        Node("image", "user", image=0, required=True),
        Node("text", "user", text="What colour is it?"),
        Node("text", "assistant", supervised=True, text=say(5)),
    ),
    [PICTURE],
)
LATER = (
    (
        Node("text", "user", 0, text="What is it?"),
        Node("text", "assistant", 0, supervised=True, text="It is the colour."),
        Node("text", "user", 1, text="Is it?"),
        Node("text", "assistant", 1, supervised=True, text=say(6)),
        Node("text", "user", 2, text="What?"),
        Node("text", "assistant", 2, supervised=True, text="It is."),
    ),
    [],
)
MADE = [PAGE, ARTICLE, SHORT, TALK, LATER]
CHATS = ("vlmill", "qwen2", "llama 3", "mistral", "mistral, spaces before the first word alone", "vicuna", "phi 3")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """A planned stage over MADE in a chat format, and its statistics."""

    @cache
    def make(name, truncate=False):
        root = tmp_path_factory.mktemp("run")
        chat = "vlmill"
        if name == chat:
            write_tokenizer(root / "tokenizer.json")
        else:
            data = fill_chat({"chat": PUBLISHED[name].recipe(root / "chat")}, root)
            chat = parse_block(PublishedChat, data["chat"], "chat")
            shutil.copyfile(root / "chat" / "tokenizer.json", root / "tokenizer.json")
        store = Store(root, find_format(chat).overhead)
        files = write_shards(root, "web", ANYRES, MADE, chat=chat)
        store.shards["web"] = tuple(Shard("web", "anyres", **file) for file in files)
        for shard in store.shards["web"]:
            store.inputs |= {path: root / path for path in (shard.index, shard.lengths, shard.lineage)}
        policy = {"kind": ANYRES.kind, **asdict(ANYRES)}
        tokenizer = {"path": "tokenizer.json", "sha256": hash_file(root / "tokenizer.json")}
        settings = MixtureSettings(LENGTH, repeat={"web": 1}, truncate=truncate)
        _, stats = store.lock(settings, policy=policy, tokenizer=tokenizer, chat=describe_chat(chat))
        folder = root / "mixtures" / "align"
        (folder / "plan").mkdir(parents=True)
        for file, path in store.inputs.items():
            if file.startswith("plan/") or file in {"mixture.lock.json", "held_out.parquet"}:
                shutil.copyfile(path, folder / file)
        return root, stats

    return make


def open_reader(root, loss):
    mixture = PlannedMixture(root, "align")
    tokenizer = load_tokenizer(mixture.tokenizer, mixture.chat)
    return Reader(mixture, tokenizer, find_family(model_settings(), mixture.policy), loss)


def read_parts(reader):
    """The segments of each sample in order, with their documents."""
    found = defaultdict(list)
    for number in range(reader.mixture.sequences):
        segments = reader.mixture.sequence(number)
        for segment, document in zip(segments, reader.sequence(number), strict=True):
            found[segment.row].append((segment, document))
    order = {row: sorted(parts, key=lambda part: (part[0].first, part[0].begin)) for row, parts in found.items()}
    return {row: ([segment for segment, _ in parts], [made for _, made in parts]) for row, parts in order.items()}


@pytest.mark.parametrize("loss", ["answers", "text"])
@pytest.mark.parametrize("name", CHATS)
def test_the_parts_of_a_document_hold_its_tokens_and_labels_once(plan, name, loss):
    root, _ = plan(name)
    reader = open_reader(root, loss)
    found = read_parts(reader)
    head = reader.mixture.chat.overhead - 1  # BOS, where there is one
    for row, (nodes, pictures) in enumerate(MADE[:3]):
        segments, parts = found[row]
        whole = reader.document(Segment(0, 0, row))
        assert len(parts) > 1 or row == 2
        assert [token for part in parts for token in part.ids[head:-1]] == whole.ids[head:-1]
        labels = [label for part in parts for label in part.labels[head:-1]]
        starts = accumulate([0, *(len(part.ids) - head - 1 for part in parts[:-1])])
        unseen = set() if head else set(starts)  # nothing stands before the first token of a part without BOS
        assert labels == [IGNORE if place in unseen else label for place, label in enumerate(whole.labels[head:-1])]
        assert [part.labels[-1] for part in parts[:-1]] == [IGNORE] * (len(parts) - 1)
        assert parts[-1].labels[-1] == whole.labels[-1]
        assert all(part.ids[:head] == whole.ids[:head] and part.ids[-1] == whole.ids[-1] for part in parts)
        assert sum(len(part.tiles) for part in parts) == len(pictures)
        assert all(len(part.ids) == segment.tokens <= LENGTH for segment, part in zip(segments, parts, strict=True))
        assert len(nodes) == segments[-1].last


def test_a_text_is_cut_at_ends_of_sentences(plan):
    root, _ = plan("vlmill")
    reader = open_reader(root, "text")
    segments, parts = read_parts(reader)[0]
    assert len(parts) > 5
    assert parts[0].tiles
    assert not any(part.tiles for part in parts[1:])
    for segment, part in zip(segments, parts, strict=True):
        text = reader.tokenizer.decode(part.ids[:-1]).rstrip()
        assert segment.end == WHOLE or text.endswith((".", "?", "!", "。", "。」")), text


@pytest.mark.parametrize("name", CHATS)
def test_a_truncated_answer_is_the_beginning_of_its_conversation(plan, name):
    root, stats = plan(name, truncate=True)
    reader = open_reader(root, "answers")
    found = read_parts(reader)
    supervised = 0
    for row in (3, 4):
        (segment,), (part,) = found[row]
        whole = reader.document(Segment(0, 0, row))
        stops = len(part.ids) - (part.ids[-1] != whole.ids[len(part.ids) - 1])  # EOS in formats of ours
        assert part.ids[:stops] == whole.ids[:stops]
        assert part.labels[:stops] == whole.labels[:stops]
        assert len(part.ids) == segment.tokens == LENGTH
        assert part.labels[-1] in {IGNORE, part.ids[-1]}
        assert part.ids[-1] != whole.labels[-1] or part.labels[-1] == IGNORE
        supervised += sum(label != IGNORE for label in part.labels)
    (source,) = stats["sources"]
    assert source["cut"]["answers"] == 2
    parts = [part for row in range(3) for part in found[row][1]]
    documents = sum(sum(label != IGNORE for label in part.labels) for part in parts)
    if reader.mixture.chat.overhead == 1:
        documents += len(parts) - 1  # first tokens of parts, which no BOS stands before; of one an image
    assert source["available"]["supervised"] == supervised + documents


@pytest.mark.parametrize("name", CHATS)
def test_without_truncation_an_answer_that_does_not_fit_is_a_counted_loss(plan, name):
    root, stats = plan(name)
    found = read_parts(open_reader(root, "answers"))
    assert 3 not in found
    (segment,), _ = found[4]
    assert (segment.last, segment.end) == (2, WHOLE)
    lost = stats["sources"][0]["lost"]
    assert lost["samples"] == {"too_long": 1}
    assert lost["supervised"]["too_long"] > 100
    assert lost["supervised"]["later_turns"] > 100
