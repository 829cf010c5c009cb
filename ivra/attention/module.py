"""The interpretable attention module: a saliency read off the model's own queries and keys.

Xie, Vosoughi & Hassanpour 2024 (IvRA), equations 1-5; with the head level alone it is the
explainer of Fernandes et al. 2022 (SMaT), equation 11.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from ivra.attention.normalisers import normaliser
from ivra.attention.preference import Preference, Shifted
from ivra.attention.reading import LayerInputs, LayerReading, query_key_logits
from ivra.errors import IvraError, unknown_name
from ivra.shapes import (
    AllHeadLogits,
    HeadLogits,
    Labels,
    Query,
    Saliency,
    TokenMask,
    TokenScores,
)

Level = Literal["feature", "head", "layer", "value", "readout"]
Reading = Literal["gains", "coefficients", "literal"]
LEVELS: tuple[str, ...] = get_args(Level)
BEYOND = ("value", "readout")
"""The levels that add scores of their own to the weighted logits, by the predicted class."""
READINGS: tuple[str, ...] = get_args(Reading)


class AttentionSizes(NamedTuple):
    """The sizes a module is built for: ``N`` layers, ``H`` heads, ``D`` features, ``C`` classes.

    ``value_dim`` is the width of a value vector (``D`` in nearly every model), ``places`` how many
    tokens the head reads a prediction off: ``P``, 2 for an answer.
    """

    layers: int
    heads: int
    head_dim: int
    value_dim: int
    classes: int
    places: int = 1


def mean_query(query: Query, visible: TokenMask) -> Tensor:
    """``(1/L) sum_n q_n`` over the visible tokens of each row, ``(B, H, D)``.

    Since a head's logit is linear in the query, averaging the queries first makes the mean
    attention logit of equation 4 cost ``O(L D)`` instead of ``O(L^2 D)``.
    """
    weight = visible.to(query.dtype)
    total = torch.einsum("bhld,bl->bhd", query, weight)
    return total / weight.sum(-1)[:, None, None]


def check_levels(levels: Sequence[str], reading: str, value_hidden: int = 0) -> None:
    """Whether a module can be built so; raises :class:`IvraError` where it cannot."""
    for level in levels:
        if level not in LEVELS:
            raise unknown_name("level", level, list(LEVELS))
    if reading not in READINGS:
        raise unknown_name("reading", reading, list(READINGS))
    added = [level for level in BEYOND if level in levels]
    if reading == "literal" and added:
        raise IvraError(
            f"the {added[0]} level needs scores before the simplex: expected reading 'gains' or "
            "'coefficients', got 'literal'; choose another reading or drop the level"
        )
    if value_hidden and "value" not in levels:
        raise IvraError(
            f"value_hidden is {value_hidden}, but the levels are {','.join(levels)}: hidden "
            "units belong to the level 'value'; add it, or leave them out"
        )


class InterpretableAttention(nn.Module):
    r"""Saliency over tokens from feature, head and layer coefficients (IvRA eq. 1-5).

    For layer ``l`` and head ``h`` with queries ``Q`` and keys ``K`` ``(L, D)``::

        psi_l^h = mean_n(q~_n) . K~^T          (eq. 1, 2, 4)
        r       = NORM over explainable tokens of  sum_{l,h} eta_l lambda_l^h psi_l^h + value

    The paper leaves open what NORM runs over; ``reading`` chooses.

    * ``"gains"`` - ``q~ = w_Q * Q``, ``k~ = w_K * K``; ``w``, ``lambda`` and ``eta`` are
      unconstrained, start at 1 and are averaged over heads and layers; a learned
      log-temperature scales the sum.
    * ``"coefficients"`` - ``w = D * NORM(w')`` over the features of a head, ``lambda`` a NORM
      over the heads of a layer and ``eta`` a NORM over layers: convex weightings. Without the
      layer level ``lambda`` is one NORM over all heads of all layers, so that
      ``levels=("head",)`` with sparsemax is SMaT's explainer.
    * ``"literal"`` - NORM over the features of ``w * Q`` and of ``w * K``, then over heads x
      tokens of a layer, then over layers x heads x tokens, which is summed to ``r``.

    In the first two readings every subset of levels starts as the mean of all heads' attention
    logits. The value level is beyond the paper: it adds ``sum_{l,h} u_{c,l,h} . v_j^{l,h}``
    with ``v`` the head's value vectors and ``u`` (start 0) learned for the predicted class ``c``.
    With ``value_hidden`` units ``k`` it also adds, ``v-`` being the mean over visible tokens::

        sum_k o_{c,k} gelu( sum_{l,h} w_{k,l,h} . v_j^{l,h} + w'_{k,l,h} . v-^{l,h}  +  b_k )

    so that a token's score may depend on what stands beside it (``o`` starts at 0, ``w`` and
    ``w'`` are drawn). The readout level, ours too, adds ``sum_{p,l,h} a_{c,p,l,h} A_{p,j}^{l,h}``:
    the attention probability that the token at place ``p`` gives to ``j``, places being those that
    the head reads its prediction off ([CLS], a decoder's last token, the two ends of an answer);
    ``a`` starts at 0.

    Args:
        sizes: layers, heads, features, value features and classes of the backbone.
        levels: any subset of ``feature, head, layer, value, readout``; ``()`` gives the
            untrained start (the mean of all heads' attention logits).
        reading: see above.
        coefficients_norm: ``softmax | sparsemax | entmax15`` of the coefficients (unused by
            ``gains``).
        saliency_norm: the final map onto the simplex.
        preferences: criteria; every coefficient is then ``base + sum_c p_c delta_c`` of a
            preference ``p`` over them (see :meth:`prefer`), uniform at the start; ``base`` stays.
        value_hidden: hidden units of the value level, none by default.
        by_class: whether the value and readout levels learn a ``u`` for each class; else one for
            all (``C = 1``), and no saliency depends on what is predicted.

    Raises:
        IvraError: unknown level, reading or normaliser, the value or readout level with
            ``literal`` (its sum over layers is already on the simplex), or hidden units without
            the value level.
    """

    def __init__(
        self,
        sizes: AttentionSizes,
        levels: Sequence[str] = ("feature", "head", "layer"),
        reading: str = "gains",
        coefficients_norm: str = "softmax",
        saliency_norm: str = "softmax",
        preferences: Sequence[str] = (),
        value_hidden: int = 0,
        by_class: bool = True,
    ) -> None:
        super().__init__()
        check_levels(levels, reading, value_hidden)
        self.sizes = sizes
        self.value_hidden = value_hidden
        self.by_class = by_class
        self.levels = tuple(level for level in LEVELS if level in levels)
        self.reading = reading
        self.coefficients_norm = coefficients_norm
        self.saliency_norm = saliency_norm
        self._coefficients = normaliser(coefficients_norm)
        self._saliency = normaliser(saliency_norm)
        start = torch.zeros if reading == "coefficients" else torch.ones
        n, h, d, dv, _, p = sizes
        c = self._classes
        if "feature" in levels:
            self.feature_query = nn.Parameter(start(n, h, d))
            self.feature_key = nn.Parameter(start(n, h, d))
        if "head" in levels:
            self.head = nn.Parameter(start(n, h))
        if "layer" in levels:
            self.layer = nn.Parameter(start(n))
        if "value" in levels:
            self.value = nn.Parameter(torch.zeros(c, n, h, dv))
            self._add_hidden_units(value_hidden)
        if "readout" in levels:
            self.readout = nn.Parameter(torch.zeros(c, p, n, h))
        if reading == "gains" and levels:
            self.log_temperature = nn.Parameter(torch.zeros(()))
        self.preferences = tuple(preferences)
        if self.preferences:
            self.preference = Preference(self.preferences)
            for name, parameter in list(self.named_parameters()):
                register_parametrization(self, name, Shifted(parameter, self.preference))
                parameter.requires_grad_(False)

    @property
    def learnable(self) -> list[nn.Parameter]:
        """The parameters that training moves: all, or with preferences the shifts ``delta_c``
        alone. As shares sum to 1, a ``base`` that moves would add nothing but a way for one
        criterion to pull the others along."""
        if not self.preferences:
            return list(self.parameters())
        return [own.delta for own in self.modules() if isinstance(own, Shifted)]

    def _add_hidden_units(self, count: int) -> None:
        if not count:
            return
        n, h, _, dv, *_ = self.sizes
        self.hidden_value = nn.Parameter(torch.randn(count, n, h, dv))
        self.hidden_context = nn.Parameter(torch.randn(count, n, h, dv))
        self.hidden_bias = nn.Parameter(torch.zeros(count))
        self.hidden_out = nn.Parameter(torch.zeros(self._classes, count))

    @property
    def _classes(self) -> int:
        """``C`` of what is learned by class."""
        return self.sizes.classes if self.by_class else 1

    def prefer(self, shares: Mapping[str, float] | None = None) -> None:
        """Explain by the trade-off ``shares``, divided by their sum; uniform without.

        Raises:
            IvraError: shares that do not fit, or of a module that was built without preferences.
        """
        if not self.preferences:
            raise IvraError(
                "the module knows one trade-off only: expected a run that was trained with "
                "--combine preference, or no preference"
            )
        self.preference.set(dict.fromkeys(self.preferences, 1.0) if shares is None else shares)

    def read_layer(self, layer: int, inputs: LayerInputs) -> LayerReading:
        """Equations 1, 2 and 4 of one layer, its share of the value level, and what the readout
        level will need once it is known what is predicted.

        What is read of a model in half precision is float32.
        """
        attending = inputs.attending if "readout" in self.levels else None
        inputs = inputs.wide()
        query, key = inputs.query, inputs.key
        if self.reading == "literal" and "feature" in self.levels:
            heads = self._literal_heads(layer, inputs)
        else:
            mean = mean_query(query, inputs.visible) * inputs.scaling
            if "feature" in self.levels:
                mean = mean * self.feature_weights()[layer]
            heads = query_key_logits(mean, key)
        values = None
        if "value" in self.levels:
            values = self._read_values(layer, inputs)
        return LayerReading(heads, values, attending)

    def _read_values(self, layer: int, inputs: LayerInputs) -> Tensor:
        """A layer's share of every class's evidence and of every hidden unit, ``(B, C + K, L)``."""
        groups = inputs.value.shape[1]

        def grouped(weights: Tensor) -> Tensor:
            return self._scaled(weights[:, layer]).unflatten(1, (groups, -1)).sum(2)

        weights = grouped(self.value)
        if not self.value_hidden:
            return torch.einsum("cgd,bgld->bcl", weights, inputs.value)
        weights = torch.cat([weights, grouped(self.hidden_value)])
        found = torch.einsum("cgd,bgld->bcl", weights, inputs.value)
        mean = mean_query(inputs.value, inputs.visible)
        context = torch.einsum("kgd,bgd->bk", grouped(self.hidden_context), mean)
        classes = self._classes
        return torch.cat([found[:, :classes], found[:, classes:] + context[..., None]], dim=1)

    def _scaled(self, weights: Tensor) -> Tensor:
        """Parameters of the value level as they multiply value vectors."""
        return weights / (self.sizes.layers * self.sizes.heads * self.sizes.value_dim) ** 0.5

    def _literal_heads(self, layer: int, inputs: LayerInputs) -> HeadLogits:
        repeat = inputs.query.shape[1] // inputs.key.shape[1]
        key = inputs.key.repeat_interleave(repeat, dim=1)
        query = self._coefficients(self.feature_query[layer][:, None] * inputs.query, None)
        key = self._coefficients(self.feature_key[layer][:, None] * key, None)
        return query_key_logits(mean_query(query, inputs.visible), key)

    def feature_weights(self) -> Tensor:
        """``w_Q * w_K`` as they multiply ``q . k``, ``(N, H, D)``; ones at the start.

        Only their product matters where NORM does not stand between them (not ``literal``).
        """
        if self.reading == "coefficients":
            dim = self.sizes.head_dim
            query = dim * self._coefficients(self.feature_query, None)
            return query * dim * self._coefficients(self.feature_key, None)
        return self.feature_query * self.feature_key

    def value_weights(self) -> Tensor:
        """``u``, ``(C, N, H, D)``, as it multiplies the value vectors; zeros at the start.

        The parameter is ``u * sqrt(N H D)``, so that one learning rate suits a score summed over
        all features of all heads and the gains, which are averaged.
        """
        return self._scaled(self.value)

    def head_coefficients(self) -> Tensor:
        """``eta_l lambda_l^h`` of every head, ``(N, H)``: what a head's logits are weighed by.

        They sum to 1 in ``coefficients`` and start at ``1 / (N H)`` there and in ``gains``.
        In ``literal`` they are the raw ``eta_l lambda_l^h``.
        """
        n, h = self.sizes.layers, self.sizes.heads
        reference = next(self.parameters(), torch.empty(()))
        if self.reading == "coefficients":
            layer = reference.new_full((n, 1), 1 / n)
            if "layer" in self.levels:
                layer = self._coefficients(self.layer, None)[:, None]
            if "head" not in self.levels:
                return layer.expand(n, h) / h
            if "layer" in self.levels:
                return layer * self._coefficients(self.head, None)
            return self._coefficients(self.head.flatten(), None).view(n, h)
        head = self.head if "head" in self.levels else reference.new_ones(n, h)
        weights = head * self.layer[:, None] if "layer" in self.levels else head
        return weights if self.reading == "literal" else weights / (n * h)

    def scores(
        self, readings: Sequence[LayerReading], predictions: Labels | None = None
    ) -> TokenScores:
        """The unnormalised score of every token, before the map onto the simplex.

        ``predictions`` (the class each row is explained for) is needed by the value and the
        readout level only, and not even there without ``by_class``.
        """
        psi = torch.stack([reading.heads for reading in readings], dim=1)
        scores = torch.einsum("bnhl,nh->bl", psi, self.head_coefficients().to(psi))
        if not self.by_class:
            predictions = torch.zeros(len(psi), dtype=torch.long, device=psi.device)
        if predictions is None and not set(BEYOND).isdisjoint(self.levels):
            raise ValueError("the value and readout levels need the predicted class of every row")
        if "readout" in self.levels and predictions is not None:
            scores = scores + self._readout_scores(readings, predictions)
        if "value" in self.levels and predictions is not None:
            evidence = [reading.values for reading in readings if reading.values is not None]
            total = torch.stack(evidence).sum(0)
            scores = scores + total[torch.arange(len(predictions)), predictions]
            if self.value_hidden:
                scores = scores + self._hidden_scores(total[:, self._classes :], predictions)
        if self.reading == "gains" and self.levels:
            scores = scores * self.log_temperature.exp()
        return scores

    def _readout_scores(self, readings: Sequence[LayerReading], predictions: Labels) -> TokenScores:
        given = [reading.readout for reading in readings if reading.readout is not None]
        if len(given) < len(readings):
            raise ValueError(
                "the readout level needs to know where the head reads: expected readings that "
                "a backbone gave, or that were settled"
            )
        attention = torch.stack(given)
        weights = self.readout[predictions].to(attention)
        return torch.einsum("nbphl,bpnh->bl", attention, weights)

    def _hidden_scores(self, sums: Tensor, predictions: Labels) -> TokenScores:
        active = nn.functional.gelu(sums + self.hidden_bias[:, None])
        out = self.hidden_out[predictions] / self.value_hidden**0.5
        return torch.einsum("bkl,bk->bl", active, out)

    def forward(
        self,
        readings: Sequence[LayerReading],
        explainable: TokenMask,
        predictions: Labels | None = None,
    ) -> Saliency:
        """``r``: sums to 1 over each row's explainable tokens, exact 0 elsewhere (eq. 5)."""
        if self.reading == "literal":
            psi = torch.stack([reading.heads for reading in readings], dim=1)
            return self._literal_saliency(psi, explainable)
        return self._saliency(self.scores(readings, predictions), explainable)

    def _literal_saliency(self, psi: AllHeadLogits, explainable: TokenMask) -> Saliency:
        mask = explainable[:, None, None].expand_as(psi)
        if "head" in self.levels:
            weighed = self.head[:, :, None] * psi
            psi = self._coefficients(weighed.flatten(2), mask.flatten(2)).view_as(psi)
        if "layer" in self.levels:
            psi = self.layer[:, None, None] * psi
        joint = self._saliency(psi.flatten(1), mask.flatten(1))
        return joint.view_as(psi).sum((1, 2))

    def config(self) -> dict[str, object]:
        """Everything needed to build an equal, untrained module (JSON-ready)."""
        return {
            "sizes": self.sizes._asdict(),
            "levels": list(self.levels),
            "reading": self.reading,
            "coefficients_norm": self.coefficients_norm,
            "saliency_norm": self.saliency_norm,
            "preferences": list(self.preferences),
            "value_hidden": self.value_hidden,
            "by_class": self.by_class,
        }
