"""The student of the simulatability criterion, and its pilot step.

Fernandes et al. 2022 (SMaT), equations 6-9; Xie et al. 2024 (IvRA), equations 14-15.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.losses import LookAhead, View, kl_divergence
from ivra.shapes import Logits, Rows, Saliency
from ivra.training.loop import Loop, Objective, linear_schedule

DIFFERENCE_STEP = 0.01


class ScaffoldedStudent:
    """A classifier with an attention module of its own, trained by SGD on the teacher's word.

    Its loss on a study batch is ``CE(S(x), y_hat) + beta KL(r, r*)`` (IvRA eq. 7), mean over
    rows, with ``r`` the teacher's saliency, ``r*`` its own and all its weights and coefficients
    moving. It runs without dropout, so that the passes of a difference see one function.

    Args:
        backbone: the student's model; its weights are trained here.
        module: the student's attention module.
        study: an endless stream of batches, the rows it may learn from.
        rate: learning rate of its SGD.
        beta: weight of the divergence term.
    """

    def __init__(
        self,
        backbone: Backbone,
        module: InterpretableAttention,
        study: Iterator[Batch],
        rate: float,
        beta: float,
    ) -> None:
        self.backbone = backbone.eval()
        self.module = module
        self.rate = rate
        self.beta = beta
        self._study = study
        self._parameters = [*backbone.parameters(), *module.parameters()]
        for parameter in self._parameters:
            parameter.requires_grad_(True)

    def study_rows(self) -> Batch:
        """The next batch of rows the student may learn from."""
        return next(self._study)

    def practise(self, study: View) -> None:
        """One SGD step on ``study``."""
        self._descend(self._study_gradient(study), self.rate)

    def warm_up(self, view: Callable[[Batch], View], steps: int, rate: float) -> None:
        """Learn the study rows by AdamW for ``steps`` steps before the scaffolding begins.

        A model with random weights is so far from learning anything that nothing can be told
        from how a step of it goes; a pretrained one needs no warm-up.
        """

        def objective(batch: Batch) -> Objective:
            with torch.no_grad():
                study = view(batch)
            return Objective(self._loss(study), {})

        schedule = linear_schedule(steps)
        loop = Loop("warm-up", [(self._parameters, rate)], objective, steps, schedule)
        if loop.run(self._study).interrupted:
            raise KeyboardInterrupt

    def look_ahead(self, study: View, heldout: View) -> LookAhead:
        """The pilot step on ``study``, taken back again, and the direction it is judged by.

        The held-out loss is the cross-entropy with the teacher's predictions. Afterwards the
        student is exactly as before.
        """
        gradient = self._study_gradient(study)
        with self._moved(gradient, -self.rate), torch.enable_grad():
            logits = self.backbone.encode(heldout.batch).logits
            loss = functional.cross_entropy(logits, heldout.predictions, reduction="none")
            direction = self._gradient(loss.mean())
        norm = float(torch.stack([d.square().sum() for d in direction]).sum().sqrt())
        unit = [d / max(norm, 1e-30) for d in direction]
        with torch.no_grad():
            with self._moved(unit, DIFFERENCE_STEP):
                forward = self._read(study.batch)[1]
            with self._moved(unit, -DIFFERENCE_STEP):
                backward = self._read(study.batch)[1]
        return LookAhead(
            forward, backward, DIFFERENCE_STEP, norm, self.rate, self.beta, loss.detach()
        )

    @torch.no_grad()
    def agrees(self, view: View) -> Rows:
        """1 where the student predicts what the teacher predicts, else 0; it sees no saliency."""
        predictions = self.backbone.encode(view.batch).predictions
        return (predictions == view.predictions).to(view.saliency)

    def _read(self, batch: Batch) -> tuple[Logits, Saliency]:
        encoding = self.backbone.encode(batch, self.module)
        saliency = self.module(encoding.readings, batch.explainable, encoding.predictions)
        return encoding.logits, saliency

    def _study_gradient(self, study: View) -> list[Tensor]:
        with torch.enable_grad():
            return self._gradient(self._loss(study))

    def _loss(self, study: View) -> Tensor:
        logits, saliency = self._read(study.batch)
        task = functional.cross_entropy(logits, study.predictions)
        guide = kl_divergence(study.saliency.detach(), saliency, study.explainable).mean()
        return task + self.beta * guide

    def _gradient(self, loss: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        pairs = zip(found, self._parameters, strict=True)
        return [torch.zeros_like(p) if g is None else g for g, p in pairs]

    @torch.no_grad()
    def _descend(self, gradient: list[Tensor], rate: float) -> None:
        for parameter, slope in zip(self._parameters, gradient, strict=True):
            parameter.sub_(slope, alpha=rate)

    @contextmanager
    def _moved(self, direction: list[Tensor], length: float) -> Iterator[None]:
        """The parameters moved by ``length * direction``; restored to the bit afterwards."""
        saved = [parameter.detach().clone() for parameter in self._parameters]
        self._descend(direction, -length)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self._parameters, saved, strict=True):
                    parameter.copy_(value)
