"""Fresh students: untaught models of the teacher's shape, with an attention module of their own."""

from dataclasses import replace
from functools import partial

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, load_backbone
from ivra.data import Batch
from ivra.losses import row_divergence
from ivra.training.config import TrainConfig
from ivra.training.scaffolding import ScaffoldedStudent, StudentsInTurn
from ivra.training.stream import Endless

STUDENT_LEVELS = ("head", "layer")


class Newcomers:
    """Makes students that have not seen the task, each from a seed of its own.

    A student starts from ``config.student``, or from what the teacher started from. A checkpoint
    whose head is already trained would know the answers, so only its architecture is taken then,
    with weights drawn from the seed.

    Where the teacher has adapters a student is the same base with adapters and a head of its own:
    the base is in memory once for the teacher and all students. So it is for all students that
    start from another model with adapters.
    """

    def __init__(self, config: TrainConfig, teacher: Backbone) -> None:
        self._config = config
        self._teacher = teacher
        other = config.student not in (None, config.model)
        self._loading = replace(config.loading, revision=None) if other else config.loading
        self._base = None if other or teacher.adapter is None else teacher

    def __call__(self, seed: int) -> tuple[Backbone, InterpretableAttention]:
        """The student drawn from ``seed``, and its module."""
        backbone = self._model(seed)
        module = InterpretableAttention(
            backbone.sizes, STUDENT_LEVELS, "gains", saliency_norm=self._config.saliency_norm
        )
        return backbone, module.to(self._teacher.device)

    def _model(self, seed: int) -> Backbone:
        if self._base is not None:
            return self._base.sibling(seed)
        backbone = self._loaded(seed)
        if backbone.adapter is not None:
            self._base = backbone
            return backbone.sibling(seed)
        return backbone if backbone.head_is_new else self._loaded(seed, random_weights=True)

    def _loaded(self, seed: int, random_weights: bool = False) -> Backbone:
        config, teacher = self._config, self._teacher
        return load_backbone(
            config.student or config.model,
            teacher.labels,
            tasks=(teacher.task,),
            seed=seed,
            random_weights=random_weights,
            loading=self._loading,
            device=teacher.device,
        )


def students_of(config: TrainConfig, teacher: Backbone, study: Endless[Batch]) -> StudentsInTurn:
    """The students of a training, of ages spread evenly over a life, who share the batches of
    ``study``; each fresh one is drawn from a seed of its own."""
    newcomers = Newcomers(config, teacher)
    count, life = config.student_count, config.student_life

    def fresh(place: int, number: int) -> tuple[Backbone, InterpretableAttention]:
        return newcomers(config.seed + 1 + 1000 * (number * count + place))

    return StudentsInTurn(
        [
            ScaffoldedStudent(
                fresh=partial(fresh, place),
                study=study,
                rate=config.student_lr or config.rate(config.student_is_tiny),
                beta=config.student_beta,
                life=life,
                divergence=row_divergence(config.student_divergence, config.saliency_norm),
                age=life * place // count,
            )
            for place in range(count)
        ]
    )
