"""``resume``: from a run's folder to the end that it would have come to."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ivra.errors import IvraError
from ivra.storage import locked, remove_temporary, remove_whole
from ivra.training.checkpoint import FOLDER, Checkpoint, load_checkpoint, parse_every
from ivra.training.config import TrainConfig, make_config
from ivra.training.config_file import read_config
from ivra.training.devices import is_main
from ivra.training.lesson import read_lesson
from ivra.training.log import LOG, cut_log
from ivra.training.loop import Hooks
from ivra.training.run import CONFIG, RECORD, Run, begun_folder, save_config
from ivra.training.train import Training, unfinished

HARMLESS = frozenset({"skip_nonfinite"})
"""Options that a run may be resumed with another value of."""


def resume(
    path: str | Path,
    *,
    given: Mapping[str, object] | None = None,
    device: str | None = None,
    hooks: tuple[Hooks, ...] = (),
    checkpoint_every: str | int | None = None,
) -> Run:
    """Go on with a run that was killed, failed or was interrupted, from its last checkpoint.

    On the same machine, with the same versions and number of threads, it ends as the run would have
    ended without the break, to the last bit. The log is cut back to the checkpoint and goes on
    from there. A run that had not come to its first checkpoint begins anew. ``record["resumed"]``
    lists where it was taken up.

    Args:
        path: the run's folder; it may have been moved.
        given: values of options, as for :func:`~ivra.training.make_config`. They must be the
            run's own but for :data:`HARMLESS` ones.
        device: where to go on (default: where it was).
        hooks: called as the training goes, after the run's own log.
        checkpoint_every: see :func:`train`.

    Raises:
        IvraError: no such run, one that is finished, that another process is at work on, or whose
            checkpoint, configuration or data are not as they were.
    """
    every = parse_every(checkpoint_every)
    folder = begun_folder(Path(path))
    with locked(folder) if is_main() else nullcontext():
        checkpoint = load_checkpoint(folder)
        if checkpoint is None and (folder / RECORD).exists():
            remove_whole(folder, FOLDER)
            raise IvraError(f"{folder} is finished: nothing to resume")
        config = _same_config(folder, given or {}, checkpoint)
        lesson = read_lesson(config, device or (checkpoint.device if checkpoint else "cpu"))
        if checkpoint is not None and checkpoint.data != lesson.data:
            raise IvraError(
                f"{config.data} has other rows than when {folder} was begun: put the data back, or "
                "train anew under another name"
            )
        devices = lesson.devices
        if checkpoint is not None and checkpoint.processes != devices.count:
            raise IvraError(
                f"{folder} was begun by {checkpoint.processes} processes, not {devices.count}: "
                "start as many"
            )
        training = Training(lesson, folder, hooks, every, checkpoint)

        def prepare() -> None:
            remove_temporary(folder)
            cut_log(folder / LOG, checkpoint.log if checkpoint else 0)
            (folder / RECORD).unlink(missing_ok=True)
            save_config(folder, config)

        with unfinished(folder, devices):
            devices.first(prepare)
            return training.run()


def _same_config(
    folder: Path, given: Mapping[str, object], checkpoint: Checkpoint | None
) -> TrainConfig:
    """The configuration of a run, with the harmless ones of ``given``."""
    values = read_config(folder / CONFIG)
    own = make_config(values, str(folder / CONFIG))
    wanted = make_config(_merged(values, given), "command line")
    was = own.model_dump(mode="json")
    if checkpoint is not None:
        changed = _first_difference(was, checkpoint.config)
        if changed is not None:
            raise IvraError(
                f"{folder / CONFIG} was changed: {changed} is {was.get(changed)!r}, but "
                f"{checkpoint.config.get(changed)!r} in the checkpoint; put it back"
            )
    wish = wanted.model_dump(mode="json")
    changed = _first_difference(wish, was)
    if changed is not None:
        raise IvraError(
            f"cannot resume {folder} with {changed} {wish[changed]!r}: it was begun with "
            f"{was[changed]!r}; leave the option out, or train anew under another name"
        )
    return wanted


def _merged(values: dict[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """``values`` with what is given, options of criteria one by one."""
    merged = values | dict(given)
    own, more = values.get("options"), given.get("options")
    if isinstance(own, dict) and isinstance(more, dict):
        both = {name: own.get(name, {}) | wish for name, wish in more.items()}
        merged["options"] = own | both
    return merged


def _first_difference(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    keys = dict.fromkeys([*one, *other])
    return next((k for k in keys if k not in HARMLESS and one.get(k) != other.get(k)), None)
