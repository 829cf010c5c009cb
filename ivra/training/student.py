"""Fresh students: untaught models of the teacher's shape, with an attention module of their own."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, load_backbone
from ivra.data import Batch, Item
from ivra.losses import row_divergence
from ivra.training.config import TrainConfig
from ivra.training.loop import linear_schedule
from ivra.training.scaffolding import ScaffoldedStudent, Schedule, StudentsInTurn
from ivra.training.stream import Endless, endless
from ivra.training.task import Encoder

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


def students_of(config: TrainConfig, encoder: Encoder, pool: Sequence[Item]) -> StudentsInTurn:
    """The students of a training, of ages spread evenly over a life; each fresh one is drawn from
    a seed of its own. All share the rows of ``pool`` and their order, or with
    ``config.student_pool`` each draws ``config.student_rows`` of them by its seed."""
    newcomers = Newcomers(config, encoder.backbone)
    count, life = config.student_count, config.student_life
    shared = endless(lambda n: encoder.batches(pool, config.seed + 2000 + n))

    def seed_of(place: int, number: int) -> int:
        return config.seed + 1 + 1000 * (number * count + place)

    def fresh(place: int, number: int) -> tuple[Backbone, InterpretableAttention]:
        return newcomers(seed_of(place, number))

    def study(place: int, number: int) -> Endless[Batch]:
        if config.student_pool is None:
            return shared
        seed = seed_of(place, number)
        own = random.Random(seed).sample(list(pool), min(config.student_rows, len(pool)))
        return endless(lambda n: encoder.batches(own, seed + n))

    return StudentsInTurn(
        [
            ScaffoldedStudent(
                fresh=partial(fresh, place),
                study=partial(study, place),
                rate=config.student_lr or config.rate(config.student_is_tiny),
                beta=config.student_beta,
                life=life,
                divergence=row_divergence(config.student_divergence, config.saliency_norm),
                age=life * place // count,
                schedule=student_schedule(config),
            )
            for place in range(count)
        ]
    )


def student_schedule(config: TrainConfig) -> Schedule:
    """Of the learning rate over a student's life."""
    if config.student_schedule == "linear":
        return linear_schedule(config.student_life)
    return lambda step: 1.0
