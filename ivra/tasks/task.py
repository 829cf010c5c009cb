"""What differs between tasks: what a model says of a row, what it predicts, and how sure it is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ivra.data import Batch, Item, Row
from ivra.shapes import (
    Labels,
    Logits,
    Outputs,
    Places,
    Predictions,
    RowMask,
    Rows,
    Saliency,
    TokenMask,
)


class Claim(NamedTuple):
    """What a model says of one row, in words: the prediction, its probability, and that of others.

    ``span`` is where the prediction stands in the row's last text, for an answer. ``gold`` is
    what it should have said, ``None`` if nobody knows; of several answers the one that is right.
    """

    prediction: str
    confidence: float
    probabilities: dict[str, float]
    gold: str | None = None
    correct: bool | None = None
    span: tuple[int, int] | None = None


class Task(ABC):
    """Everything that criteria, training and evaluation need to know of a task.

    A prediction is one or more categorical choices whose log-probabilities add. An *outcome* is
    what a model says of each row, shaped as the task has it. Log-probabilities and divergences of
    half precision are computed in float32.
    """

    name: ClassVar[str]
    architecture: ClassVar[str]
    """What transformers calls the models: ``*ForSequenceClassification``."""
    measure: ClassVar[str]
    """What the share of right predictions is called."""
    removal: ClassVar[Literal["attention", "embedding"]]
    """How a token is removed where nobody says how: as if it were deleted, or by the mask token."""
    gold_name: ClassVar[str]
    """What a row has that says what should be predicted."""
    unmeasured: ClassVar[Mapping[str, str]] = {}
    """Metrics that rows never allow, and why."""
    has_classes: ClassVar[bool] = False
    """Whether a prediction is one of a few classes, the same in every row."""
    places: ClassVar[int] = 1
    """How many tokens a prediction is read off."""
    head: ClassVar[str | None] = None
    """The attribute that holds a head which reads every token; ``None``: the family's own head,
    which reads one."""

    @abstractmethod
    def encode(
        self,
        rows: Sequence[Row],
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str] | None,
        max_length: int,
    ) -> list[Item]:
        """Tokenised rows, in order; one or more items a row, neighbours in the result."""

    @abstractmethod
    def knows(self, row: Row) -> bool:
        """Whether the row says what should be predicted."""

    @abstractmethod
    def outcome(self, output: Any, batch: Batch) -> Outputs:
        """What is used of a model's own output."""

    @abstractmethod
    def predict(self, outcome: Outputs) -> Predictions:
        """``y_hat``, the most probable prediction of every row."""

    @abstractmethod
    def log_prob(self, outcome: Outputs, prediction: Predictions) -> Rows:
        """``log p(prediction)`` in nats, always finite."""

    @abstractmethod
    def divergence(self, p: Outputs, q: Outputs) -> Rows:
        """``KL(p || q)`` in nats between what is said of each row, at least 0 up to rounding."""

    @abstractmethod
    def score(self, outcome: Outputs, prediction: Predictions) -> Rows:
        """The logit of ``prediction``: what gradients are taken of."""

    @abstractmethod
    def same(self, one: Predictions, other: Predictions) -> RowMask:
        """Whether both predict the same."""

    @abstractmethod
    def classes(self, prediction: Predictions) -> Labels:
        """The class that a row is explained for, see the value level of the attention module."""

    def places_of(self, prediction: Predictions) -> Places | None:
        """The tokens that ``prediction`` is read off; ``None`` where it is the same one whatever is
        predicted, which the family's head knows."""
        return None

    @abstractmethod
    def gold(self, batch: Batch) -> Predictions:
        """What should be predicted; -100 where nobody knows."""

    @abstractmethod
    def standard(self, outcome: Outputs) -> Outputs:
        """The outcome about its mean, with a mean square of 1 over the batch."""

    @abstractmethod
    def leak(self, explainable: TokenMask, prediction: Predictions) -> Saliency:
        """A saliency that gives the prediction away by position and explains nothing."""

    @abstractmethod
    def contrast(self, outcome: Outputs, prediction: Predictions) -> tuple[Logits, Labels]:
        """The outcome as logits of classes, and the class that ``prediction`` is of them."""

    @abstractmethod
    def filled(self, rows: int, parts: Sequence[tuple[Tensor, Tensor]], classes: int) -> Outputs:
        """``(rows, ...)`` on the CPU with each part's outcome at its indices."""

    @abstractmethod
    def claims(self, items: Sequence[Item], outcome: Outputs, labels: Sequence[str]) -> list[Claim]:
        """What is said of each item, given outcomes without padding before a row."""

    def probability(self, outcome: Outputs, prediction: Predictions) -> Rows:
        """``p(prediction)``, in ``[0, 1]``."""
        return self.log_prob(outcome, prediction).exp()

    def losses(self, outcome: Outputs, target: Predictions) -> Rows:
        """``-log p(target)`` of every row."""
        return -self.log_prob(outcome, target)

    def loss(self, outcome: Outputs, target: Predictions) -> Tensor:
        """The mean of :meth:`losses`."""
        return self.losses(outcome, target).mean()

    def lessons(self, items: Sequence[Item]) -> list[Item]:
        """The items that a model can learn the task from."""
        return list(items)

    def kept(self, outcome: Outputs, keep: Tensor) -> Outputs:
        """The outcome of a rerun in which token ``j`` is seen in proportion ``keep_j (B, L)``."""
        return outcome

    def unpadded(self, outcome: Outputs, batch: Batch) -> Outputs:
        """The outcome of a batch with padding behind every row."""
        return outcome

    def placed(self, prediction: Predictions, batch: Batch) -> Predictions:
        """Predictions of items, as those of the same rows in a padded batch."""
        return prediction

    def moved(self, prediction: Predictions, kept: Tensor) -> Tensor:
        """Predictions ``(B, ...)`` as those of rows of which ``kept (B, K, L)`` alone is left.

        The result is ``(B K, ...)``.
        """
        return prediction.repeat_interleave(kept.shape[1], dim=0)

    def chosen(self, items: Sequence[Item], outcome: Outputs) -> list[int]:
        """Of the items of every row the one that its prediction is read from, as places."""
        return list(range(len(items)))

    def right(self, items: Sequence[Item], outcome: Outputs) -> Tensor:
        """Which rows ``(rows,)`` are predicted right, given the outcomes of all their items."""
        places = torch.tensor(self.chosen(items, outcome), dtype=torch.long)
        chosen = [items[place] for place in places.tolist()]
        return torch.tensor([c.correct is True for c in self.claims(chosen, outcome[places], ())])
