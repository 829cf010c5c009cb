"""The symbol key of the project: every tensor shape that crosses a function boundary.

``B`` rows, ``L`` tokens, ``C`` classes, ``H`` heads of a layer, ``D`` features of a head,
``N`` layers. The tests check these at every call of the package (jaxtyping + beartype).
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

TokenIds = Int[Tensor, "B L"]
TokenMask = Bool[Tensor, "B L"]
TokenScores = Float[Tensor, "B L"]
"""A real number a token: unnormalised logits, attributions, or how much of a token to keep."""
Saliency = Float[Tensor, "B L"]
"""A point of the simplex over each row's explainable tokens; exact 0 elsewhere."""
Rows = Float[Tensor, "B"]
RowMask = Bool[Tensor, "B"]
Labels = Int[Tensor, "B"]
Logits = Float[Tensor, "B C"]
SpanLogits = Float[Tensor, "B L 2"]
"""Logits of every token as the first and as the last of an answer."""
Spans = Int[Tensor, "B 2"]
"""First and last token (inclusive) of a span in each row."""
Outputs = Float[Tensor, "B ..."]
"""What a model says of each row, whatever its task: :data:`Logits` or :data:`SpanLogits`."""
Predictions = Int[Tensor, "B ..."]
"""What is predicted for each row: :data:`Labels` or :data:`Spans`."""
Hidden = Float[Tensor, "B L E"]
"""Token representations; ``E`` is the width of the model."""
Pairs = Float[Tensor, "B B"]
Query = Float[Tensor, "B H L D"]
KeyValue = Float[Tensor, "B G L D"]
"""Keys or values; ``G`` divides ``H`` (grouped-query attention), else ``G = H``."""
HeadLogits = Float[Tensor, "B H L"]
AllHeadLogits = Float[Tensor, "B N H L"]
ClassLogits = Float[Tensor, "B C L"]
Places = Int[Tensor, "B P"]
"""``P`` tokens of each row, by where they stand in it."""
PlaceScores = Float[Tensor, "B P H L"]
"""A score a token of each head and each of ``P`` places."""
BinLogits = Float[Tensor, "B K C"]
"""Logits for each row and each of ``K`` bins of AOPC."""
BinRows = Float[Tensor, "B K"]
BinMask = Bool[Tensor, "B K"]
BinCounts = Int[Tensor, "B K"]
TopTokens = Bool[Tensor, "B K L"]
"""For each row and bin, which tokens are its top."""
