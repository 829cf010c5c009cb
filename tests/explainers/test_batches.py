"""What goes through the model at once is bounded, and no score depends on the bound.

Every explainer of the registry is held to it, with as few samples and steps as it allows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from ivra.backbones import Backbone
from ivra.data import Item, Row, encode_rows
from ivra.evaluation import token_scores
from ivra.explainers import (
    LayerConductance,
    explainer_options,
    known_explainers,
    static_explainer,
)

TEXTS = (
    "not good .",
    "the plot was hardly good , but the music was not bad either .",
    "great !",
    "a very dull film .",
    "the soup was good",
)
FEW = {"samples": 30, "steps": 6}
Loud = Callable[[str], Backbone]


def items_of(backbone: Backbone) -> list[Item]:
    rows = [Row(f"row-{i}", (text,)) for i, text in enumerate(TEXTS)]
    return encode_rows(rows, backbone.tokenizer, None, 64)


@contextmanager
def passes(backbone: Backbone) -> Iterator[list[int]]:
    """Tokens of every pass through the model inside, padding included."""
    seen: list[int] = []

    def note(module: torch.nn.Module, args: tuple[()], kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["input_ids"].numel())

    handle = backbone.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("model", ["tiny-bert", "tiny-gpt2", "tiny-llama"])
@pytest.mark.parametrize("name", list(known_explainers()))
def test_a_bound_on_tokens_bounds_every_pass_and_changes_no_score(
    name: str, model: str, side: str, loud: Loud
) -> None:
    backbone = loud(model)
    backbone.tokenizer.padding_side = side
    items = items_of(backbone)
    options = explainer_options(known_explainers()[name].explainer)
    text = ":".join([name, *(f"{key}={FEW[key]}" for key in FEW if key in options)])
    longest = max(len(item.input_ids) for item in items)
    found, counted = {}, {}
    for bound in (1, 64, 4096):
        with passes(backbone) as seen:
            explainer = static_explainer(text, batch_tokens=bound)
            found[bound] = token_scores(explainer, backbone, items, bound)
        assert max(seen, default=0) <= max(bound, 2 * longest)
        counted[bound] = len(seen)
    assert counted[1] >= counted[4096]
    largest = max(float(row.abs().max()) for row in found[4096])
    for bound in (1, 64):
        for one, other in zip(found[bound], found[4096], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=3e-4 * largest)


def test_a_batch_larger_than_the_bound_is_cut_where_copies_are_made(loud: Loud) -> None:
    """Whoever calls ``explain`` with a batch of his own has chosen its size, not the copies'."""
    backbone = loud("tiny-bert")
    items = items_of(backbone)
    with passes(backbone) as seen:
        token_scores(LayerConductance(steps=6, batch_tokens=50), backbone, items, 4096)
    assert max(seen) <= 50


def test_passes_are_as_full_as_the_bound_allows(loud: Loud) -> None:
    backbone = loud("tiny-bert")
    items = items_of(backbone)[:1]
    length = len(items[0].input_ids)
    for name, copies in (
        ("lime:samples=30:baseline=mask", 30),  # what is deleted is not run at all
        ("integrated-gradients:steps=30", 30),
    ):
        with passes(backbone) as seen:
            token_scores(static_explainer(name, batch_tokens=10 * length), backbone, items)
        assert seen.count(10 * length) == copies / 10
