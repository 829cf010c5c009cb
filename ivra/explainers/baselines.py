"""What a row is compared with: its explainable tokens replaced by nothing in particular."""

from typing import Literal

import torch

from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.shapes import Hidden

Baseline = Literal["mask", "pad", "zero"]
"""What stands in the place of an explainable token: the embedding of the mask token (of padding
where the tokenizer has none), that of padding, or zeros. Position and token type stay."""


def baseline_embeddings(backbone: Backbone, batch: Batch, baseline: Baseline) -> Hidden:
    """The embeddings of the rows with every explainable token replaced, the others their own."""
    own = backbone.embed(batch.input_ids)
    if baseline == "zero":
        other = torch.zeros_like(own)
    else:
        fill = backbone.mask_id if baseline == "mask" else backbone.pad_id
        other = backbone.embed(torch.full_like(batch.input_ids, fill))
    return torch.where(batch.explainable[..., None], other, own)
