"""Connectors of the LLaVA families: the harness of families, numbers of tokens, what each learns and costs."""

from __future__ import annotations

import pytest

from tests.train import test_families
from tests.train.test_families import CASES, FINE, PINPOINTS, Case
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.letterbox import Letterbox

tokenizers = test_families.tokenizers
one_thread = test_families.one_thread

ONE = Letterbox(side=28, patch=7)
TILES = AnyRes(side=28, patch=7, pinpoints=PINPOINTS)
BLOCKS = {
    "pool": {"kind": "pool", "side": 3},
    "bilinear": {"kind": "bilinear", "side": 2},
    "shuffle": {"kind": "shuffle", "factor": 2},
    "perceiver": {"kind": "perceiver", "latents": 5, "depth": 2},
    "c_abstractor": {"kind": "c_abstractor", "side": 3, "depth": 1},
    "upsampled": {"kind": "mlp", "upsample": 2},
    "upsampled and pooled": {"kind": "pool", "upsample": 4, "side": 3},
}
CONNECTED = {f"llava, {name}": Case("llava", ONE, FINE, connector=block) for name, block in BLOCKS.items()}
CONNECTED |= {
    f"llava_next, {name}": Case("llava_next", TILES, FINE, connector=block)
    for name, block in BLOCKS.items()
    if name != "perceiver"
}


@pytest.mark.parametrize(
    "promise",
    [
        "packed_documents_have_the_logits_that_they_have_alone",
        "transformers_processor_and_model_see_what_our_shards_show",
        "an_export_answers_several_questions_at_once_as_each_alone",
        "an_export_in_half_precision_is_read_and_run_as_it_is",
    ],
)
@pytest.mark.parametrize("name", CONNECTED)
def test_what_families_promise_holds_under_every_connector(request, monkeypatch, promise, name):
    monkeypatch.setitem(CASES, name, CONNECTED[name])
    test = getattr(test_families, f"test_{promise}")
    wanted = test.__code__.co_varnames[: test.__code__.co_argcount]
    test(**{each: name if each == "name" else request.getfixturevalue(each) for each in wanted})
