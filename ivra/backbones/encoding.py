"""What one forward pass of a backbone gives."""

from dataclasses import dataclass

from ivra.attention import LayerReading
from ivra.shapes import Hidden, Labels, Outputs, Predictions
from ivra.tasks import CLASSIFICATION, Task


@dataclass(frozen=True)
class Encoding:
    """What one forward pass gives: logits, a reading of every layer, averaged hidden states.

    ``logits`` are the outcome of ``task``. ``readings`` is empty where nothing was asked to read;
    ``hidden`` (mean over the layers' outputs, embeddings not counted) is ``None`` unless asked for.
    """

    logits: Outputs
    readings: tuple[LayerReading, ...]
    hidden: Hidden | None
    task: Task = CLASSIFICATION

    @property
    def predictions(self) -> Predictions:
        """``y_hat``, what the model finds most probable."""
        return self.task.predict(self.logits)

    @property
    def classes(self) -> Labels:
        """The class that each row is explained for by the value level."""
        return self.task.classes(self.predictions)
