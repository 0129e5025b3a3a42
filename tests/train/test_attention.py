"""Variable-length attention: its arguments, that it equals what trains on a CPU, and where it is not used.

The kernel itself runs on a GPU alone. Here an SDPA over one document after the other stands in its place, so what is
held is all that we do around it.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tests.train import test_families
from tests.train.test_families import (
    CASES,
    TEXT,
    Case,
    document,
    logits,
    made,
)
from vlmill.train import attention
from vlmill.train.attention import VARLEN, attend_packed, find_borders, supports_flash, use_flash
from vlmill.train.batch import pad_sequences
from vlmill.train.families.language import CONFIGS
from vlmill.train.model import compute_token_losses

CPU, BFLOAT16 = torch.device("cpu"), torch.bfloat16
tokenizers = test_families.tokenizers
FAMILIES = ["fuyu", "llava_next", "llava_onevision", "idefics2", "idefics3", "internvl"]


def one_by_one(query, key, value, starts, ends, longest, _, *, scale, window_size, enable_gqa):
    """`varlen_attn` by its documentation: (tokens, heads, width), causal inside documents and a window."""
    assert longest == (starts[1:] - starts[:-1]).max()
    found = []
    for start, end in zip(starts.tolist(), ends[1:].tolist(), strict=False):
        q, k, v = (each[start:end].transpose(0, 1) for each in (query, key, value))
        place = torch.arange(end - start)
        away = place[:, None] - place
        seen = (away >= 0) & ((away <= window_size[0]) | (window_size[0] < 0))
        done = functional.scaled_dot_product_attention(q, k, v, seen, scale=scale, enable_gqa=enable_gqa)
        found.append(done.transpose(0, 1))
    return torch.cat(found)


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(attention, "varlen_attn", one_by_one)
    monkeypatch.setattr(attention, "use_flash", lambda device, dtype: True)


def rows(case, tokenizers):
    first, second, third = (document(case, tokenizers, seed) for seed in (1, 2, 3))
    plain = document(case, tokenizers, 4, ())
    return [[first, plain, second], [third, plain]]


def with_text(kind, **more):
    return Case("llava", CASES["llava"].policy, text={**TEXT, "kind": kind, **more})


@pytest.mark.parametrize("kind", CONFIGS)
def test_it_gives_every_language_model_the_logits_of_its_own_attention(tokenizers, stand_in, kind):
    case = with_text(kind, heads=4, **({"kv_heads": 2} if kind not in {"persimmon", "phi"} else {}))
    family, model = made(case, tokenizers)
    assert supports_flash(model)
    batch = rows(case, tokenizers)
    before = logits(family, model, batch)
    with attend_packed(model, CPU, BFLOAT16):
        assert model.config.get_text_config()._attn_implementation == VARLEN
        assert model.config.vision_config._attn_implementation == "sdpa"
        found = logits(family, model, batch)
    real = pad_sequences(batch, 0).sources >= 0
    assert (found - before)[real].abs().max() <= 1e-5
    assert torch.equal(logits(family, model, batch), before)  # and it is undone


def test_a_sliding_window_is_kept(tokenizers, stand_in):
    case = with_text("mistral")
    family, model = made(case, tokenizers)
    batch, wide = rows(case, tokenizers), logits(family, model, rows(case, tokenizers))
    model.config.get_text_config().sliding_window = 4
    narrow = logits(family, model, batch)
    assert (narrow - wide).abs().max() > 1e-3
    with attend_packed(model, CPU, BFLOAT16):
        found = logits(family, model, batch)
    assert (found - narrow)[pad_sequences(batch, 0).sources >= 0].abs().max() <= 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_it_reaches_the_language_model_of_every_family(tokenizers, stand_in, name):
    case = next(case for case in CASES.values() if case.family == name)
    family, model = made(case, tokenizers)
    assert supports_flash(model)
    batch = rows(case, tokenizers)
    before = logits(family, model, batch)
    with attend_packed(model, CPU, BFLOAT16):
        found = logits(family, model, batch)
    assert (found - before)[pad_sequences(batch, 0).sources >= 0].abs().max() <= 1e-5


def test_a_family_with_a_mask_of_its_own_keeps_its_attention(tokenizers, stand_in):
    case = next(case for case in CASES.values() if case.family == "idefics")
    _, model = made(case, tokenizers)
    with attend_packed(model, CPU, BFLOAT16):
        assert model.config.get_text_config()._attn_implementation != VARLEN
        assert find_borders(model, torch.zeros(1, 1, dtype=torch.int64)) == {}


def test_gradients_reach_every_part(tokenizers, stand_in):
    case = CASES["llava"]
    family, model = made(case, tokenizers)
    found = []
    for how in (attend_packed(model, CPU, BFLOAT16), torch.enable_grad()):
        with how:
            losses, _ = compute_token_losses(
                model, family, pad_sequences(rows(case, tokenizers), 0), CPU, torch.float32
            )
            losses.mean().backward()
        found.append({name: weights.grad for name, weights in model.named_parameters() if weights.grad is not None})
        model.zero_grad(set_to_none=True)
    assert found[0].keys() == found[1].keys()
    assert all((found[0][name] - found[1][name]).abs().max() <= 1e-5 for name in found[0])


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=3))
def test_borders_are_where_documents_and_the_padding_begin(lengths):
    length = max(map(sum, lengths))
    filled = [[*row, *([length - sum(row)] if length > sum(row) else [])] for row in lengths]
    documents = torch.tensor([[number for number, size in enumerate(row) for _ in range(size)] for row in filled])

    text = SimpleNamespace(_attn_implementation=VARLEN)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))
    found = find_borders(model, documents)
    sizes = [size for row in filled for size in row]
    assert found["cu_seq_lens_q"].tolist() == [sum(sizes[:place]) for place in range(len(sizes) + 1)]
    assert found["cu_seq_lens_q"].dtype == torch.int32
    assert found["max_length_q"] == max(sizes)


def test_queries_are_computed_in_what_autocast_asks_for(monkeypatch):
    seen = []

    def kernel(query, key, value, *_, **__):
        seen.extend([query.dtype, key.dtype, value.dtype])
        return query

    monkeypatch.setattr(attention, "varlen_attn", kernel)
    turned, straight = torch.ones(1, 2, 3, 8), torch.ones(1, 2, 3, 8, dtype=BFLOAT16)
    with torch.autocast("cpu", BFLOAT16):
        attention.attend_varlen(
            None, turned, turned, straight, None, cu_seq_lens_q=torch.tensor([0, 3]), max_length_q=3
        )
    assert seen == [BFLOAT16] * 3


def test_a_mask_is_refused():
    with pytest.raises(ValueError, match="no mask"):
        attention.attend_varlen(None, None, None, None, torch.ones(1), cu_seq_lens_q=None, max_length_q=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_keeps_transformers_attention(tokenizers, dtype):
    _, model = made(CASES["llava"], tokenizers)
    assert not use_flash(CPU, dtype)
    with attend_packed(model, CPU, dtype):
        assert model.config.get_text_config()._attn_implementation == "sdpa"
