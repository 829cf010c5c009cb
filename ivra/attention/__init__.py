"""The interpretable attention module and the maps onto the simplex.

Nothing here knows a model: a backbone's attention function calls ``read_layer`` with the
queries, keys and values of a layer, and the module turns the readings into a saliency.
"""

from ivra.attention.module import (
    LEVELS,
    READINGS,
    AttentionSizes,
    InterpretableAttention,
    check_levels,
    mean_query,
)
from ivra.attention.normalisers import (
    NORMALISERS,
    masked_entmax15,
    masked_softmax,
    masked_sparsemax,
    normaliser,
)
from ivra.attention.preference import Preference, Shifted
from ivra.attention.reading import (
    Attending,
    LayerInputs,
    LayerReader,
    LayerReading,
    query_key_logits,
)

__all__ = [
    "LEVELS",
    "NORMALISERS",
    "READINGS",
    "Attending",
    "AttentionSizes",
    "InterpretableAttention",
    "LayerInputs",
    "LayerReader",
    "LayerReading",
    "Preference",
    "Shifted",
    "check_levels",
    "masked_entmax15",
    "masked_softmax",
    "masked_sparsemax",
    "mean_query",
    "normaliser",
    "query_key_logits",
]
