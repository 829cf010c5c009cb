"""Training: the one loop, the two stages, the student, and a run's folder."""

from ivra.training.config import TrainConfig, make_config
from ivra.training.config_file import read_config
from ivra.training.device import environment
from ivra.training.keeping import Validation
from ivra.training.loop import (
    Hooks,
    Loop,
    Objective,
    Outcome,
    linear_schedule,
)
from ivra.training.randomness import seed_everything
from ivra.training.resume import resume
from ivra.training.run import Run, load_plain, load_run
from ivra.training.scaffolding import ScaffoldedStudent, StudentsInTurn
from ivra.training.stages import CriteriaStage, accuracy, finetune
from ivra.training.stream import Endless, endless
from ivra.training.task import Encoder, Splits, read_splits
from ivra.training.train import train
from ivra.training.versions import versions
from ivra.training.whitening import Whitened, WhitenedAdamW, linear_part, whitening

__all__ = [
    "CriteriaStage",
    "Encoder",
    "Endless",
    "Hooks",
    "Loop",
    "Objective",
    "Outcome",
    "Run",
    "ScaffoldedStudent",
    "Splits",
    "StudentsInTurn",
    "TrainConfig",
    "Validation",
    "Whitened",
    "WhitenedAdamW",
    "accuracy",
    "endless",
    "environment",
    "finetune",
    "linear_part",
    "linear_schedule",
    "load_plain",
    "load_run",
    "make_config",
    "read_config",
    "read_splits",
    "resume",
    "seed_everything",
    "train",
    "versions",
    "whitening",
]
