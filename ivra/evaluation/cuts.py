"""Which tokens are the top ``t_k`` of each row, for many rows and bins by one sort."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ivra.data import Item
from ivra.errors import IvraError
from ivra.evaluation.aopc_settings import AopcSettings
from ivra.shapes import BinCounts, Labels, TokenIds, TokenMask, TokenScores, TopTokens

_SLACK = 1e-9


class Removable(NamedTuple):
    """What may be removed of padded rows, and in which units.

    ``present`` is false on padding. ``first`` is the place of the first removable token of a
    token's unit (its word, or the token alone); of a token that stays, its own place.
    """

    present: TokenMask
    removable: TokenMask
    first: TokenIds


def removable(items: Sequence[Item], settings: AopcSettings) -> Removable:
    """What ``settings`` let go of ``items``; at least no padding."""
    present = _padded([torch.ones(len(item.input_ids), dtype=torch.bool) for item in items])
    place = torch.arange(present.shape[1])
    if settings.protected in ("first", "ends"):
        loose = present & (place > 0)
        if settings.protected == "ends":
            loose &= place < present.sum(1, keepdim=True) - 1
    else:
        loose = _padded([torch.tensor(item.explainable) for item in items])
        if settings.protected == "query":
            loose &= ~_padded([_first_of_pair(item) for item in items])
    first = place.expand(len(items), -1)
    if settings.granularity == "word":
        words = _padded([torch.tensor(item.word) for item in items])
        # A token without a word, or one that stays, is a unit of its own.
        length = present.shape[1]
        unit = torch.where(loose & (words >= 0), words, words.amax() + 1 + place)
        starts = torch.full((len(items), int(unit.amax()) + 1), length)
        first = starts.scatter_reduce(1, unit, first, "amin").gather(1, unit)
    return Removable(present, loose, first)


def _padded(rows: list[Tensor]) -> Tensor:
    return pad_sequence(rows, batch_first=True)


def _first_of_pair(item: Item) -> Tensor:
    segment = torch.tensor(item.segment)
    return (segment == 0) & bool((segment == 1).any())


def padded_scores(scores: Sequence[Tensor], present: TokenMask) -> TokenScores:
    """One row's scores a row, in float64, 0 on padding.

    Raises:
        IvraError: a row whose scores are not one a token, or not numbers.
    """
    lengths = present.sum(1).tolist()
    for row, (given, length) in enumerate(zip(scores, lengths, strict=True)):
        if given.shape != (length,):
            raise IvraError(
                f"row {row} has scores of shape {tuple(given.shape)}: expected one for each of its "
                f"{length} tokens"
            )
    padded = _padded([given.detach().double().cpu() for given in scores])
    if bool(padded.isnan().any()):
        row = int(padded.isnan().any(1).nonzero()[0])
        raise IvraError(f"row {row} has a score that is not a number: expected finite scores")
    return padded


def top_tokens(scores: TokenScores, tokens: Removable, settings: AopcSettings) -> TopTokens:
    """``t_k`` of every row and bin; ``settings`` must hold their bins.

    One stable sort a row ranks its units, ties to the earlier one; a bin is then a comparison.
    """
    assert settings.bins is not None
    own = torch.arange(scores.shape[1]).expand_as(tokens.first)
    leads = tokens.present & (tokens.first == own)
    if settings.ranked == "removable":
        leads &= tokens.removable
    scores = _unit_scores(scores, tokens, settings)
    if settings.cut == "percent":
        key = scores.abs() if settings.negative == "absolute" else scores
        order = key.masked_fill(~leads, -torch.inf).argsort(dim=1, descending=True, stable=True)
        rank = torch.empty_like(order).scatter_(1, order, own)
        sizes = top_sizes(leads.sum(1), settings)
        inside = rank[:, None] < sizes[:, :, None]
    else:
        bins = torch.tensor(settings.bins, dtype=torch.float64)[:, None]
        key = scores.abs() if settings.negative == "absolute" else scores
        if settings.cut == "threshold":
            inside = key[:, None] >= bins
        else:
            inside = min_max(key, leads)[:, None] > bins
    allowed = leads & (scores > 0) if settings.negative == "drop" else leads
    inside = inside & allowed[:, None]
    spread = tokens.first[:, None].expand_as(inside)
    return inside.gather(2, spread) & tokens.removable[:, None]


def top_sizes(count: Labels, settings: AopcSettings) -> BinCounts:
    """How many of ``count`` ranked units each bin takes; never more than there are."""
    assert settings.bins is not None
    share = count[:, None].double() * torch.tensor(settings.bins, dtype=torch.float64) / 100
    if settings.rounding == "ceil":
        size = (share - _SLACK).ceil().clamp_min(1)
    elif settings.rounding == "round":
        size = share.round().clamp_min(1)
    else:
        size = (share + _SLACK).floor()
        if settings.rounding == "floor":
            size = size.clamp_min(1)
    return size.long().minimum(count[:, None])


def min_max(scores: TokenScores, counted: TokenMask) -> TokenScores:
    """``(s - min) / (max - min)`` over the ``counted`` tokens of each row; 0 if all are equal."""
    low = scores.masked_fill(~counted, torch.inf).amin(1, keepdim=True)
    high = scores.masked_fill(~counted, -torch.inf).amax(1, keepdim=True)
    scaled = (scores - low) / (high - low)
    return torch.where(counted & (high > low), scaled, torch.zeros_like(scaled))


def _unit_scores(scores: TokenScores, tokens: Removable, settings: AopcSettings) -> TokenScores:
    """Each unit's score, at the place of its first token."""
    if settings.granularity == "token":
        return scores
    how = {"max": "amax", "sum": "sum"}[settings.word_score]
    return torch.zeros_like(scores).scatter_reduce(1, tokens.first, scores, how, include_self=False)
