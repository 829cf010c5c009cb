"""Run with ``pytest`` once the package is installed."""

import pytest
import torch
from ivra_lead import Lead, lead

from ivra import EvalConfig, IvraError
from ivra.backbones import load_backbone
from ivra.data import Row, encode_rows
from ivra.evaluation import token_scores
from ivra.explainers import known_explainers, static_explainer


def test_explainable_tokens_count_by_their_place() -> None:
    explainable = torch.tensor([[False, True, False, True, True], [False] * 5])
    assert lead(explainable, 0.5).tolist() == [[0.0, 1.0, 0.0, 0.5, 0.25], [0.0] * 5]


@pytest.mark.parametrize("model", ["tiny-electra", "tiny-gpt2"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_is_explained_as_its_rows(model: str, side: str) -> None:
    backbone = load_backbone(model, ("no", "yes"))
    backbone.tokenizer.padding_side = side
    rows = [Row("one", ("not good .",)), Row("two", ("the soup was hardly good",))]
    items = encode_rows(rows, backbone.tokenizer, None, 32)
    explainer = static_explainer("lead:decay=0.5")
    for item, scores in zip(items, token_scores(explainer, backbone, items), strict=True):
        kept = scores[torch.tensor(item.explainable)].tolist()
        assert kept == [0.5**place for place in range(len(kept))]


def test_ivra_lists_it_and_checks_its_option() -> None:
    known = known_explainers()["lead"]
    assert known.explainer is Lead
    assert known.package == "ivra-lead 0.1.0"
    with pytest.raises(IvraError, match=r"lead.decay is '2': input should be less than 1"):
        EvalConfig(explainers=("lead:decay=2",))
