"""What becomes of nodes that leave: messages, what is said otherwise, texts cut between tokens, how often is shown."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.helpers.stages import article, question, write_run, write_tokenizer
from vlmill.mixtures.export.cut_texts import cut_texts
from vlmill.mixtures.export.record import REMARKS, compose_messages
from vlmill.mixtures.export.stage_records import SampleUses, StageRecords
from vlmill.mixtures.reader import Found, PlannedMixture
from vlmill.pipeline.chat.encode import WHOLE, Cut, encode_nodes, load_tokenizer
from vlmill.pipeline.chat.settings import find_format
from vlmill.pipeline.core.sample import Node

TEXT = "The first line is here.\nThe second one has an é and 漢字, and a third follows."


def said(messages):
    return [(message.role, message.parts, message.supervised) for message in messages]


def test_turns_become_messages_with_images_in_their_places():
    nodes = (
        Node("text", "system", text="Be brief."),
        Node("text", "user", text="Look: "),
        Node("image", "user", image=0),
        Node("text", "user", text=" and?"),
        Node("text", "assistant", supervised=True, text="Red."),
        Node("text", "user", 1, text="Sure?"),
        Node("text", "assistant", 1, supervised=False, text="Yes."),
    )
    messages, remarks = compose_messages(nodes)
    assert said(messages) == [
        ("system", ("Be brief.",), False),
        ("user", ("Look: ", None, " and?"), False),
        ("assistant", ("Red.",), True),
        ("user", ("Sure?",), False),
        ("assistant", ("Yes.",), False),
    ]
    assert remarks == ["unsupervised_answers"]


def test_a_document_is_one_message_whose_texts_are_divided():
    nodes = (Node("text", text="One."), Node("image", image=0), Node("text", text="Two."), Node("image", image=1))
    messages, remarks = compose_messages(nodes)
    assert said(messages) == [("assistant", ("One.\n\n", None, "Two.\n\n", None), True)]
    assert remarks == ["documents"]


def test_messages_of_one_role_in_a_row_are_joined_and_counted():
    nodes = (
        Node("image", "user", 0, image=0),  # its texts were dropped
        Node("text", "user", 1, text="What?"),
        Node("text", "assistant", 1, supervised=True, text="This."),
        Node("text", "assistant", 1, supervised=False, text=" Perhaps."),
    )
    messages, remarks = compose_messages(nodes)
    assert said(messages) == [("user", (None, "What?"), False), ("assistant", ("This.", " Perhaps."), True)]
    assert Counter(remarks) == {"merged_messages": 1, "partly_supervised": 1}
    assert set(remarks) <= set(REMARKS)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"), CHAT)


CHAT = find_format("vlmill")


def cut(nodes, tokenizer, begin, end):
    return cut_texts(Found(tuple(nodes), slice(0, 0), Cut(begin, end, end != WHOLE)), (), tokenizer, CHAT)


@pytest.mark.parametrize("at", [1, 5, 12, 20])
def test_segments_of_a_document_add_up_to_its_text(tokenizer, at):
    nodes = [Node("text", text=TEXT)]
    (head,), (tail,) = cut(nodes, tokenizer, 0, at), cut(nodes, tokenizer, at, WHOLE)
    assert 0 < len(head.text) < len(TEXT)
    assert head.text + tail.text == TEXT
    (middle,) = cut(nodes, tokenizer, 1, at + 3)
    assert TEXT.startswith(middle.text, len(cut(nodes, tokenizer, 0, 1)[0].text))


@pytest.mark.parametrize("kept", [1, 7, 19])
def test_a_truncated_answer_has_the_text_of_the_tokens_that_are_kept(tokenizer, kept):
    nodes = [Node("text", "user", text="Tell."), Node("text", "assistant", supervised=True, text=TEXT)]
    ids = encode_nodes(nodes, (), tokenizer, CHAT)[1].ids
    shown = cut(nodes, tokenizer, 0, kept + 1)  # behind the mark of the role
    assert shown[0] == nodes[0]
    assert TEXT.startswith(shown[1].text)
    whole = tokenizer.decode(ids[1 : kept + 1])
    assert shown[1].text.startswith(whole.rstrip("\N{REPLACEMENT CHARACTER}"))
    assert len(shown[1].text) - len(whole) <= 1


@pytest.mark.parametrize("most", [1, 4, 1 << 22])
def test_how_often_a_plan_shows_each_sample_is_counted(tmp_path, most):
    made = {"quiz": [question(number) for number in range(7)], "web": [article(number) for number in range(5)]}
    root = write_run(tmp_path / "run", made, epochs=3, hold_out=2, per_shard=3)
    mixture = PlannedMixture(root, "align")
    uses = SampleUses(mixture, most)
    counted = Counter(
        (segment.source, segment.shard, segment.row)
        for number in range(mixture.sequences)
        for segment in mixture.sequence(number)
    )
    shards = [(source, shard) for source in range(2) for shard in range(len(mixture.lock["sources"][source]["shards"]))]
    found = {
        (source, shard, row): number
        for source, shard in [*shards, *shards[::-1]]
        for row, number in enumerate(uses.find(source, shard).tolist())
    }
    assert {place: number for place, number in found.items() if number} == counted
    assert set(counted.values()) == {3}
    assert sum(found.values()) == 3 * (5 + 3)


def test_entries_whose_folders_would_be_one_are_refused(tmp_path):
    root = write_run(tmp_path / "run", {"a b": [question(0)], "a-b": [question(1)]})
    (root / "recipe.lock.yaml").write_text("name: two\nsources: {a-b: {kind: cauldron, files: x}}\n")
    from vlmill.pipeline.core.errors import StoreError

    with pytest.raises(StoreError, match="a b, a-b cannot be told apart"):
        _ = StageRecords(root, "align", "samples", "policy").parts
