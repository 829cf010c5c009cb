"""Every choice behind an AOPC figure, and the choices that other projects made."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ivra.backbones import Backbone
from ivra.errors import IvraError, unknown_name
from ivra.losses import AOPC_BINS

CHOICES: dict[str, tuple[str, ...]] = {
    "cut": ("percent", "threshold", "min-max"),
    "rounding": ("ceil", "round", "floor", "floor-none"),
    "ranked": ("removable", "all"),
    "negative": ("keep", "drop", "absolute"),
    "granularity": ("token", "word"),
    "word_score": ("max", "sum"),
    "protected": ("special", "query", "first", "ends"),
    "removal": ("auto", "deletion", "mask", "pad", "attention"),
    "normaliser": ("bins", "bins+1", "distinct"),
    "null": ("special", "zero-embeddings"),
    "guard": ("zero", "shift"),
}
"""The values of every choice but the bins; the first is the default."""
THRESHOLDS = (0.5,)
IMPORTANT = tuple(tenths / 10 for tenths in range(1, 10))
"""Thresholds of IvRA's figure 7."""


@dataclass(frozen=True)
class AopcSettings:
    """How the top tokens ``t_k`` are found, removed and averaged over.

    Args:
        bins: percentages in ``(0, 100]``, or thresholds where ``cut`` is one. ``None`` takes
            those of the run (percent), 0.5 (threshold) or 0.1 to 0.9 (min-max).
        cut: ``percent`` takes the n highest, ``threshold`` scores of at least the bin, ``min-max``
            scores above the bin once each row is scaled to ``[0, 1]`` (equal scores become 0).
        rounding: n from x = k% of the ranked units. ``ceil``: max(1, ceil x); ``round``:
            max(1, round x), halves to even; ``floor``: max(1, floor x); ``floor-none``: floor x,
            which may be 0.
        ranked: what is counted and ranked. ``removable``: what may be removed; ``all``: protected
            tokens too, with the scores that they have - they can take places in the top, but stay.
        negative: ``keep`` ranks by value, ``absolute`` by size, ``drop`` lets only scores above 0
            into the top.
        granularity: ``token``, or ``word`` (whitespace-delimited; goes with all its tokens).
        word_score: of a word, ``max`` or ``sum`` over its tokens.
        protected: what always stays. ``special``: tokens that are not explainable; ``query``:
            these and the first text of a pair; ``first``: the row's first token alone; ``ends``:
            its first and last alone.
        removal: ``deletion`` (positions renumbered), ``mask`` or ``pad`` (that token instead,
            attended to), ``attention`` (hidden from attention, positions kept). ``auto``:
            deletion; for answers mask (pad where the tokenizer has no mask token), since a
            deleted token can be no answer.
        normaliser: 1/|bins|, 1/(|bins| + 1), or ``distinct``: the mean over the bins that take
            something and not the same as the bin before.
        null: the input without evidence of the normalised figures: ``special`` keeps protected
            tokens alone, ``zero-embeddings`` is the sufficiency input with word embeddings of 0.
        guard: against a null difference of 0: ``zero`` makes the figure 0 below 1e-5, ``shift``
            adds 1e-4 (sufficiency) and 2e-4 (comprehensiveness) to it.

    Raises:
        IvraError: an unknown choice, or bins that are empty or out of range.
    """

    bins: tuple[float, ...] | None = None
    cut: str = "percent"
    rounding: str = "ceil"
    ranked: str = "removable"
    negative: str = "keep"
    granularity: str = "token"
    word_score: str = "max"
    protected: str = "special"
    removal: str = "auto"
    normaliser: str = "bins"
    null: str = "special"
    guard: str = "zero"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                kind = f"{name.replace('_', ' ')} of AOPC"
                raise unknown_name(kind, getattr(self, name), list(choices))
        if self.bins is None:
            return
        if not self.bins:
            raise IvraError("the bins of AOPC are empty: expected at least one number")
        for number in self.bins:
            fits = 0 < number <= 100 if self.cut == "percent" else math.isfinite(number)
            if not fits or (self.cut == "min-max" and not 0 <= number < 1):
                expected = {
                    "percent": "percentages above 0, at most 100",
                    "threshold": "finite numbers",
                    "min-max": "thresholds from 0 to below 1",
                }[self.cut]
                raise IvraError(f"a bin of AOPC is {number}: expected {expected}")

    def with_bins(self, percent: tuple[float, ...] = AOPC_BINS) -> "AopcSettings":
        """These settings with their bins filled in; ``percent`` where they are percentages."""
        if self.bins is not None:
            return self
        defaults = {"percent": percent, "threshold": THRESHOLDS, "min-max": IMPORTANT}
        return replace(self, bins=defaults[self.cut])

    def settled(self, backbone: Backbone, percent: tuple[float, ...] = AOPC_BINS) -> "AopcSettings":
        """These settings :meth:`with_bins`, and with the removal that ``auto`` means here."""
        settings = self.with_bins(percent)
        if settings.removal != "auto":
            return settings
        if backbone.task.removal == "attention":
            return replace(settings, removal="deletion")
        has_mask = backbone.tokenizer.mask_token_id is not None
        return replace(settings, removal="mask" if has_mask else "pad")

    def described(self) -> dict[str, object]:
        """JSON-ready, with what no choice changes."""
        bins = None if self.bins is None else list(self.bins)
        preset = next((name for name, made in PRESETS.items() if made == self), None)
        return {
            "preset": preset,
            **asdict(self),
            "bins": bins,
            "ties": "earlier token",
            "class": "the model's prediction on the whole row",
        }


OURS = AopcSettings()
"""The default."""

PRESETS: dict[str, AopcSettings] = {
    "eraser": AopcSettings(bins=AOPC_BINS, removal="deletion"),
    "unirex": AopcSettings(
        bins=AOPC_BINS,
        rounding="round",
        protected="first",
        removal="deletion",
        normaliser="bins+1",
    ),
    "ferret": AopcSettings(
        bins=tuple(float(tens) for tens in range(10, 101, 10)),
        rounding="floor-none",
        negative="drop",
        protected="ends",
        removal="deletion",
        normaliser="distinct",
    ),
    "carton": AopcSettings(
        bins=THRESHOLDS, cut="threshold", granularity="word", removal="deletion"
    ),
    "ferreira": AopcSettings(
        bins=(1.0, 20.0, 40.0, 60.0, 80.0, 100.0),
        rounding="floor",
        ranked="all",
        removal="deletion",
        null="zero-embeddings",
        guard="shift",
    ),
}
"""What other projects' code does; ``docs/evaluation.md`` says what is not reproduced."""


def aopc_settings(
    preset: str | None = None, changes: Mapping[str, object] | None = None
) -> AopcSettings:
    """The settings of ``preset`` (default: ours) with ``changes`` by field name.

    Bins of the preset that do not fit a changed ``cut`` are dropped for that cut's own.

    Raises:
        IvraError: an unknown preset, field or choice.
    """
    if preset is not None and preset not in PRESETS:
        raise unknown_name("AOPC preset", preset, list(PRESETS))
    start = OURS if preset is None else PRESETS[preset]
    values: dict[str, Any] = dict(changes or {})
    names = [field.name for field in fields(AopcSettings)]
    for name in values:
        if name not in names:
            raise unknown_name("choice of AOPC", name, names)
    if values.get("cut", start.cut) != start.cut and "bins" not in values:
        values["bins"] = None
    return replace(start, **values)
