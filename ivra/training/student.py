"""Fresh students: untaught models of the teacher's shape, with an attention module of their own."""

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, load_backbone
from ivra.training.config import TrainConfig

STUDENT_LEVELS = ("head", "layer")


def new_student(
    config: TrainConfig, teacher: Backbone, seed: int
) -> tuple[Backbone, InterpretableAttention]:
    """A student model that has not seen the task, and its module.

    It starts from ``config.student``, or from what the teacher started from. A checkpoint whose
    head is already trained would know the answers, so only its architecture is taken then, with
    weights drawn from ``seed``.
    """
    source = config.student or config.model
    tasks = (teacher.task,)
    backbone = load_backbone(source, teacher.labels, tasks=tasks, seed=seed)
    if not backbone.head_is_new:
        backbone = load_backbone(
            source, teacher.labels, tasks=tasks, seed=seed, random_weights=True
        )
    backbone = backbone.to(teacher.device)
    module = InterpretableAttention(
        backbone.sizes, STUDENT_LEVELS, "gains", saliency_norm=config.saliency_norm
    )
    return backbone, module.to(teacher.device)
