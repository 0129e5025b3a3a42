"""moondream: a Phi whose head has a bias, its projector, and rows of new tokens behind such a head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.train import test_families
from tests.train.test_families import CASES, VISION, document, logits, made
from tests.train.test_train_flops import counted
from vlmill.pipeline.chat.encode import FORMATS
from vlmill.pipeline.core.errors import RecipeError
from vlmill.train import new_rows
from vlmill.train.batch import pad_sequences
from vlmill.train.flops import count_flops
from vlmill.train.model import create_model
from vlmill.train.new_rows import NewRows

CASE, CHAT = CASES["moondream"], FORMATS["vlmill"]
KNOWN = 280
tokenizers = test_families.tokenizers


@pytest.fixture(scope="module")
def phi(tmp_path_factory):
    """A Phi as Microsoft publishes them: in half precision, its head with a bias, low where no token uses a row."""
    from transformers import PhiConfig, PhiForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(5)
    text = PhiForCausalLM(PhiConfig(vocab_size=320, **sizes))
    with torch.no_grad():
        text.lm_head.bias[:] = torch.randn(320)
        text.lm_head.bias[KNOWN:] = -50.0
    text = text.to(torch.bfloat16)
    folder = tmp_path_factory.mktemp("phi")
    text.save_pretrained(folder)
    return folder, text.float()


def with_phi(case, phi):
    return replace(case, text={"kind": "pretrained", "path": str(phi[0])})


def test_a_pretrained_phi_keeps_its_logits_bias_and_all(tokenizers, phi):
    family, model = made(with_phi(CASE, phi), tokenizers)
    words = document(CASE, tokenizers, 3, ())
    ids = torch.tensor([words.ids])
    with torch.no_grad():
        phi[1].resize_token_embeddings(len(model.get_input_embeddings().weight), mean_resizing=False)
        expected = phi[1](input_ids=ids).logits[..., :KNOWN]
    assert (logits(family, model, [[words]])[..., :KNOWN] - expected).abs().max() <= 1e-5
    assert model.lm_head.bias.abs().max() > 1


def test_llava_has_no_place_for_the_bias_and_says_which_family_has(tokenizers, phi):
    with pytest.raises(RecipeError, match="has a bias, and that of .* has none; .* or family moondream"):
        made(with_phi(CASES["llava"], phi), tokenizers)


def test_a_language_model_without_a_bias_gets_one_of_zero(tmp_path, tokenizers):
    from transformers import AutoModelForCausalLM, LlamaConfig

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=KNOWN, **sizes)).save_pretrained(tmp_path)
    _, model = made(replace(CASE, text={"kind": "pretrained", "path": str(tmp_path)}), tokenizers)
    assert not model.lm_head.bias.any()


def test_the_projector_computes_what_moondreams_does(tokenizers):
    _, model = made(replace(CASE, vision={**VISION, "hidden_size": 48}), tokenizers)
    projector = model.model.multi_modal_projector
    published = nn.Sequential(nn.Linear(48, 4 * 32), nn.GELU(approximate="tanh"), nn.Linear(4 * 32, 32))
    published.load_state_dict(
        {f"{2 * place}.{name}": value for place, layer in enumerate((projector.linear_1, projector.linear_2))
         for name, value in layer.state_dict().items()}
    )  # fmt: skip
    features = torch.randn(2, 4, 48)
    with torch.no_grad():
        assert torch.equal(projector(features), published(features))


def test_new_rows_behind_a_head_with_a_bias_start_with_the_bias_of_other_tokens(tokenizers, phi):
    family = with_phi(CASE, phi).found
    drawn = tuple(range(KNOWN, 1 + max(tokenizers["vlmill"].get_vocab().values())))
    new = NewRows(drawn, drawn, end=drawn[3], eos=7)
    model = create_model(family, tokenizers["vlmill"], CHAT, 0, new=new).eval()
    bias = model.lm_head.bias
    used = sorted({*tokenizers["vlmill"].get_vocab().values()} - {*drawn})
    assert bias[drawn[3]] == bias[7]
    assert torch.allclose(bias[torch.tensor([row for row in drawn if row != drawn[3]])], bias[used].mean())
    one = document(CASE, tokenizers, 1)
    before = logits(family, model, [[one]])
    new_rows.insert_rows(model, new)
    assert (logits(family, model, [[one]]) - before).abs().max() <= 1e-5
    rows = next(weights for name, weights in model.named_parameters() if "lm_head.new_rows" in name)
    with torch.no_grad():
        rows.add_(torch.randn_like(rows))
    apart = logits(family, model, [[one]])
    assert (apart - before).abs().max() > 1e-3
    new_rows.merge_rows(model)
    assert (logits(family, model, [[one]]) - apart).abs().max() <= 1e-5


def test_it_costs_what_torch_counts(tokenizers):
    family, model = made(CASE, tokenizers)
    cost = count_flops(model.train(), family, ("vision", "projector", "text"))
    assert cost.linear["projector"] == 32 * 128 + 128 * 32
    batch = pad_sequences([[document(CASE, tokenizers, 1, ((80, 60), (30, 90)))]], 0)
    alone = replace(cost, attention=dict.fromkeys(cost.attention, 0))
    assert alone.of(batch) == pytest.approx(counted(model, family, batch), rel=0.1)
