"""What every explainer is: one score a token, from a backbone and a batch."""

from abc import ABC, abstractmethod
from typing import ClassVar

from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.shapes import TokenScores


class Explainer(ABC):
    """Gives every token of every row a score; higher means more important.

    Scores may be signed and need not sum to anything; they count on explainable tokens only
    and are 0 elsewhere. ``is_saliency`` says that they are points of the simplex.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    is_saliency: ClassVar[bool] = False

    @abstractmethod
    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        """Scores ``(B, L)`` of the model's own prediction, without gradient."""
