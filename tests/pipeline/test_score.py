"""The step that scores a partition: chunks, batches of one shape, and models that die of what they are asked."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tests.helpers.signals import SIGNALS, make_signal, write_partition
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.keys import make_key
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.resources import Resources
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, Node, Sample, SampleId, read_verdicts
from vlmill.pipeline.core.scores import read_scores
from vlmill.pipeline.filters.custom import hash_code
from vlmill.pipeline.images.views import View
from vlmill.pipeline.signals import SIGNALS as TABLE
from vlmill.pipeline.signals.base import SignalBatch, list_units
from vlmill.pipeline.signals.chunks import IMAGES, list_asked, make_batch
from vlmill.pipeline.signals.custom import CustomSignal
from vlmill.pipeline.signals.worker import SignalWorker, quantise_values
from vlmill.pipeline.steps.score import ScoreSignal, merge_scores, read_chunks


def score(signal, inputs, folder, name="signal"):
    folder.mkdir()
    counts = ScoreSignal(name, signal).run(inputs, folder)
    return counts["scored"], read_scores(folder / f"{name}.scores.parquet"), folder


# -- chunks ------------------------------------------------------------------------------------------------------------


def test_pictures_come_in_order_drawn_once_a_chunk_and_bounded(tmp_path):
    samples = [[0, "a", 1], ["b"], [2, 2, None], list(range(3, 3 + IMAGES + 5))]
    inputs = write_partition(tmp_path, samples)
    views = [View(8), View(8), View(12, shorter=14)]
    chunks = list(read_chunks(inputs, views))
    assert [[(piece.row, piece.first, piece.last) for piece in chunk.pieces] for chunk in chunks] == [
        [(0, 0, 3), (1, 0, 1), (2, 0, 3)],
        [(3, 0, IMAGES)],
        [(3, IMAGES, IMAGES + 5)],
    ]
    assert all(chunk.images <= IMAGES for chunk in chunks)
    assert set(chunks[0].pictures) == {View(8), View(12, shorter=14)}
    assert chunks[0].pictures[View(8)].shape == (4, 8, 8, 3)  # the damaged one is in none
    asked = [(item.row, item.unit.node) for chunk in chunks for item in list_asked(chunk, make_signal("redness"))]
    assert asked == [
        (row, node) for row, things in enumerate(samples) for node, thing in enumerate(things) if isinstance(thing, int)
    ]


def test_a_batch_is_padded_to_its_full_shape():
    sample = Sample(SampleId("a", "b", 0), (Node("text", text="x"), Node("text", text="y")))
    units = list(list_units(sample, "texts"))
    from vlmill.pipeline.signals.chunks import SamplePiece, SignalChunk

    batch = make_batch(SignalChunk((SamplePiece(0, sample, 0, 2),)), units, 5, None)
    assert (batch.size, batch.filled, batch.texts) == (5, 2, (("x",), ("y",), (), (), ()))


def test_the_texts_of_an_image_are_those_of_its_sample_turn_or_neighbours():
    nodes = (
        Node("text", "user", 0, text="first"),
        Node("image", "user", 1, image=0),
        Node("text", "user", 1, text="what"),
        Node("text", "assistant", 1, text="that"),
        Node("image", "user", 2, image=1),
    )
    sample = Sample(SampleId("a", "b", 0), nodes)
    texts = {
        text: [unit.texts for unit in list_units(sample, "pairs", text)] for text in ("caption", "turn", "neighbours")
    }
    assert texts == {
        "caption": [("first\nwhat\nthat",)] * 2,
        "turn": [("what\nthat",), ()],
        "neighbours": [("first", "what"), ("that",)],
    }
    (whole,) = list_units(sample, "samples")
    assert (whole.node, whole.texts) == (WHOLE_SAMPLE, ("first\n\nwhat\n\nthat",))


# -- values ------------------------------------------------------------------------------------------------------------


def test_values_are_those_of_the_pictures_whatever_is_beside_them_in_a_batch(tmp_path):
    inputs = write_partition(tmp_path / "all", [[n, n + 1] for n in range(0, 20, 2)])
    count, table, folder = score(make_signal("redness"), inputs, tmp_path / "out")
    (chunk,) = read_chunks(inputs, [View(16)])
    expected = chunk.pictures[View(16)][..., 0].mean((1, 2)) / 255
    assert np.allclose(table["signal"], expected, atol=5.1e-5)
    assert (count.came, count.kept) == (20, 20)
    alone = write_partition(tmp_path / "alone", [[13]])
    _, one, _ = score(make_signal("redness"), alone, tmp_path / "one")
    assert one["signal"].to_list() == table["signal"].to_list()[13:14]
    about = json.loads((folder / "signal.model.json").read_text())
    assert about["devices"] == [{"device": about["devices"][0]["device"]}]
    assert (about["batch"], about["side"], about["threads"]) == (8, 16, 1)


def test_a_partition_of_nothing_has_an_empty_table(tmp_path):
    count, table, _ = score(
        make_signal("redness"), write_partition(tmp_path / "in", [["no image"], []]), tmp_path / "out"
    )
    assert (table.height, table.columns, count.came) == (0, ["sample", "node", "reason", "signal"], 0)


def test_parts_are_merged_in_order_and_one_without_values_has_the_width_of_the_others(tmp_path):
    with SignalWorker("fragile", make_signal("fragile")) as worker:
        parts = [
            worker.score_chunk(chunk).scores for chunk in read_chunks(write_partition(tmp_path, [["ab"], ["KILL"]]), [])
        ]
    merged = merge_scores([*parts, parts[0]], 1)
    assert merged.values.shape == (4, 1)
    assert merged.samples.tolist() == [0, 0, 1, 1]


def test_a_chunk_names_a_device_only_where_its_own_units_were_answered(tmp_path):
    (full,) = read_chunks(write_partition(tmp_path / "full", [["ab"]]), [])
    (bare,) = read_chunks(write_partition(tmp_path / "bare", [[0]]), [])
    with SignalWorker("fragile", make_signal("fragile")) as worker:
        before = worker.score_chunk(bare)
        assert worker.score_chunk(full).device
        assert worker.score_chunk(bare).device == before.device == {}


def test_values_are_rounded_and_have_one_zero():
    assert (
        quantise_values(np.array([0.123449, -0.00001]), 2).tobytes()
        == np.array([[0.1234], [0.0]], np.float32).tobytes()
    )
    with pytest.raises(ValueError, match=r"shape \(3, 1\); a batch has 2 places"):
        quantise_values(np.zeros(3), 2)


# -- models that die ---------------------------------------------------------------------------------------------------


def test_what_kills_or_hangs_a_model_is_found_and_is_a_verdict(tmp_path):
    texts = [[f"text {n}"] for n in range(11)]
    texts[3], texts[9] = ["KILL me"], ["HANG on"]
    inputs = write_partition(tmp_path / "in", texts)
    count, table, folder = score(make_signal("fragile", seconds=4.0), inputs, tmp_path / "out", "fragile")
    assert table["reason"].to_list() == [{3: "crashed", 9: "timed_out"}.get(n) for n in range(11)]
    assert table["fragile"].to_list() == [None if n in (3, 9) else len(texts[n][0]) for n in range(11)]
    found = [(v.sample, v.node, v.filter, v.reason) for v in read_verdicts(folder / "fragile.verdicts.parquet")]
    assert found == [(3, 0, "fragile", Reason.CRASHED), (9, 0, "fragile", Reason.TIMED_OUT)]
    assert (count.came, count.kept, count.lost) == (11, 9, {Reason.CRASHED: 1, Reason.TIMED_OUT: 1})


def test_a_model_that_dies_of_nothing_is_itself_at_fault(tmp_path):
    inputs = write_partition(tmp_path / "in", [["a"], ["b"]])
    with pytest.raises(StoreError, match="model of signal 'signal' dies of an empty batch .*nothing that was asked"):
        score(make_signal("fragile", always=True), inputs, tmp_path / "out")


def custom(body, of="texts"):
    code = f"""
import os
from dataclasses import dataclass
import numpy as np
@dataclass(frozen=True)
class Mine:
    name = "mine"
    of = {of!r}
{body}
"""
    return CustomSignal("mine", {}, hash_code(code), code, "mine.py")


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (
            "    def load(self): os._exit(3)\n    def score(self, model, batch): pass",
            StoreError,
            "'signal' cannot be loaded: exit status 3",
        ),
        (
            "    def load(self): 1 / 0\n    def score(self, model, batch): pass",
            RecipeError,
            r"mine.py, line 9: ZeroDivisionError",
        ),
        (
            "    def score(self, model, batch): raise KeyError('k')",
            RecipeError,
            r"signals.signal: mine.py, line 9: KeyError: 'k'",
        ),
        (
            "    def score(self, model, batch): return [1, 2, 3]",
            RecipeError,
            "gives 3 numbers for a batch of 32 places",
        ),
        ("    def score(self, model, batch): return 'many'", RecipeError, "score gives str, not numbers"),
        ("    def score(self, model, batch): return [10**400]", RecipeError, "score gives list, not numbers: int too"),
        (
            "    def score(self, m, batch):\n        import torch; return [torch.ones(2, requires_grad=True)] * 32",
            RecipeError,
            "signals.signal: mine.py: score gives list, not numbers: ",
        ),
    ],
)
def test_errors_of_a_model_name_the_signal_and_the_line(tmp_path, body, error, message):
    with pytest.raises(error, match=message):
        score(custom(body), write_partition(tmp_path / "in", [["a"]]), tmp_path / "out")


def test_a_tensor_that_requires_grad_is_numbers_like_any_other(tmp_path):
    body = "    def score(self, model, batch):\n        import torch\n        "
    body += "return torch.arange(batch.size, dtype=torch.float32, requires_grad=True) / 4"
    _, table, _ = score(custom(body), write_partition(tmp_path / "in", [["a", "b"]]), tmp_path / "out")
    assert table["signal"].to_list() == [0, 0.25]


def test_a_gpu_that_is_not_there_is_refused_for_a_custom_signal_too():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RecipeError, match="resources.gpus: this machine has no GPU that torch sees; take 0"):
        dataclasses.replace(make_signal("redness"), resources=Resources(gpus=1)).load()


def test_a_worker_may_load_its_model_before_it_is_asked(tmp_path):
    count = tmp_path / "loaded"
    body = f"    def load(self): open({str(count)!r}, 'a').write('x')\n"
    body += "    def score(self, model, batch): return [1] * batch.size"
    with SignalWorker("mine", custom(body)) as worker:
        worker.load()
        assert count.read_text() == "x"
        (chunk,) = read_chunks(write_partition(tmp_path / "in", [["a"]]), [])
        assert worker.score_chunk(chunk).scores.values.tolist() == [[1]]
    assert count.read_text() == "x"
    broken = custom("    def load(self): 1 / 0\n    def score(self, model, batch): pass")
    with (
        SignalWorker("mine", broken) as worker,
        pytest.raises(RecipeError, match=r"signals.mine: mine.py, line 9: ZeroDivisionError"),
    ):
        worker.load()


@pytest.mark.parametrize(
    ("body", "of", "message"),
    [
        (
            "    def score(self, model, batch): pass",
            "pictures",
            "has of = 'pictures'; .*allowed: images, pairs, samples, texts",
        ),
        ("    side = 0\n    def score(self, model, batch): pass", "images", "has side = 0; allowed: 1 to 16384"),
        ("    batch = 'x'\n    def score(self, model, batch): pass", "images", "has batch = 'x'"),
    ],
)
def test_a_class_that_cannot_be_a_signal_is_refused(body, of, message):
    with pytest.raises(RecipeError, match=message):
        custom(body, of)


def test_settings_of_a_custom_signal_are_its_fields():
    assert make_signal("exclamations", mark="?").load() == "?"
    with pytest.raises(RecipeError, match=r"unknown key 'marc'; did you mean 'mark'\?"):
        make_signal("exclamations", marc="?")
    with pytest.raises(RecipeError, match="has no signal 'redess'; did you mean 'redness'"):
        make_signal("redess")


def test_the_key_knows_code_and_settings_and_not_where_it_runs():
    def key(signal):
        return make_key(ScoreSignal("a", signal), {})

    assert key(make_signal("fragile", seconds=5.0)) == key(make_signal("fragile"))
    assert key(make_signal("fragile", always=True)) != key(make_signal("fragile"))
    edited = SIGNALS + "\n"
    assert key(CustomSignal("fragile", {}, hash_code(edited), edited, "signals.py")) != key(make_signal("fragile"))


def test_a_signal_whose_code_was_not_named_is_known_and_not_asked():
    untrusted = CustomSignal("redness", {}, hash_code(SIGNALS), None, "signals.py")
    assert untrusted.columns("red") == ("red",)
    with pytest.raises(RecipeError, match="'redness' .*cannot be asked: its code runs only if it is named"):
        untrusted.view()


def test_the_table_of_signals_goes_by_their_kinds():
    assert all(signal.kind == name for name, signal in TABLE.items())
    assert SignalBatch(2, 0).images is None
