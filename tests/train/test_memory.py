"""What a rank holds, and the loss that does not hold the logits of all tokens."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vlmill.train import cross_entropy
from vlmill.train.cross_entropy import compute_cross_entropy
from vlmill.train.memory import count_held, measure_memory, reduces_once
from vlmill.train.settings import Machine

GIB = 1 << 30


def make_model(trained: int, frozen: int) -> list[torch.nn.Parameter]:
    """So many parameters, of no memory."""
    sizes = ((trained, True), (frozen, False))
    return [torch.nn.Parameter(torch.empty(size, device="meta"), requires_grad=learns) for size, learns in sizes]


def test_a_rank_holds_its_share_of_weights_gradients_and_moments():
    held = count_held(make_model(80, 20), 4)
    assert (held.weights, held.gradients, held.moments) == (100, 80, 160)
    assert held.state == 340
    assert held.whole_gradients == 320
    assert count_held(make_model(80, 20), 1).whole_gradients == 0


@pytest.mark.parametrize(
    ("billions", "memory", "once"),
    [(8, 80, False), (8, 141, True), (8, 96, True), (1, 80, True), (3, 80, True)],
)
def test_gradients_stay_whole_until_a_steps_end_where_they_fit(billions, memory, once):
    held = count_held(make_model(billions * 10**9, 0), 8)
    assert held.whole_gradients == billions * 4 * 10**9
    assert reduces_once(Machine(), held, memory * GIB, accumulation=4) is once
    assert reduces_once(Machine(reduce_after="step"), held, memory * GIB, accumulation=4)
    assert not reduces_once(Machine(reduce_after="micro-batch"), held, memory * GIB, accumulation=4)


def test_ranks_of_one_machine_share_its_memory(monkeypatch):
    whole = measure_memory(torch.device("cpu"))
    assert whole > GIB
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert measure_memory(torch.device("cpu")) == whole // 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [0, 7, 8, 50])
def test_the_loss_of_chunks_is_that_of_all_tokens_with_its_gradients(monkeypatch, dtype, tokens):
    torch.manual_seed(0)
    head, widest = torch.nn.Linear(16, 100, bias=False), []
    head.register_forward_hook(lambda module, given, logits: widest.append(len(logits)))
    hidden, labels = torch.randn(tokens, 16, requires_grad=True), torch.randint(0, 100, (tokens,))

    def compute(loss):
        head.weight.grad = hidden.grad = None
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            losses = loss()
        losses.sum().backward()
        return losses.detach(), head.weight.grad, hidden.grad

    plain = compute(lambda: functional.cross_entropy(head(hidden).float(), labels, reduction="none"))
    monkeypatch.setattr(cross_entropy, "LOGITS", 8 * 100)
    widest.clear()
    chunked = compute(lambda: compute_cross_entropy(head, hidden, labels))
    assert max(widest) <= 8
    assert chunked[0].dtype == torch.float32
    # bfloat16 rounds the gradients of each chunk
    near = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 5e-2, "atol": 5e-2}
    torch.testing.assert_close(chunked[0], plain[0], rtol=1e-6, atol=1e-6)
    for one, other in zip(chunked[1:], plain[1:], strict=True):
        torch.testing.assert_close(one, other, **near)
