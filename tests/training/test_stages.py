"""What stage 1 shows a model."""

import torch

from ivra.training.stages import thinned


def test_nothing_is_removed_from_a_share_of_no_rows() -> None:
    explainable = torch.rand(50, 20) < 0.8
    assert torch.equal(thinned(explainable, 0.0), torch.ones(50, 20))


def test_only_explainable_tokens_go_in_about_the_share_of_the_rows() -> None:
    torch.manual_seed(0)
    explainable = torch.rand(4000, 30) < 0.8
    keep = thinned(explainable, 0.25)
    assert set(keep.unique().tolist()) == {0.0, 1.0}
    assert (keep[~explainable] == 1).all()
    touched = (keep == 0).any(-1)
    assert 0.2 < touched.float().mean() < 0.25, "a row may be drawn and lose nothing"


def test_how_much_of_a_row_goes_is_drawn_evenly() -> None:
    torch.manual_seed(1)
    gone = (thinned(torch.ones(4000, 200, dtype=torch.bool), 1.0) == 0).float().mean(-1)
    quartiles = gone.quantile(torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quartiles, torch.tensor([0.25, 0.5, 0.75]), atol=0.03, rtol=0)
