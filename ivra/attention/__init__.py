"""The interpretable attention module and the maps onto the simplex.

Nothing here knows a model: a backbone's attention function calls ``read_layer`` with the
queries, keys and values of a layer, and the module turns the readings into a saliency.
"""

from ivra.attention.module import (
    LEVELS,
    READINGS,
    AttentionSizes,
    InterpretableAttention,
    mean_query,
    query_key_logits,
)
from ivra.attention.normalisers import (
    NORMALISERS,
    masked_entmax15,
    masked_softmax,
    masked_sparsemax,
    normaliser,
)
from ivra.attention.preference import Preference, Shifted
from ivra.attention.reading import LayerInputs, LayerReader, LayerReading

__all__ = [
    "LEVELS",
    "NORMALISERS",
    "READINGS",
    "AttentionSizes",
    "InterpretableAttention",
    "LayerInputs",
    "LayerReader",
    "LayerReading",
    "Preference",
    "Shifted",
    "masked_entmax15",
    "masked_softmax",
    "masked_sparsemax",
    "mean_query",
    "normaliser",
    "query_key_logits",
]
