"""Checkpoints: async Orbax saves with retention, self-description, and checksums verified on restore.

A checkpoint has three items: `params`, `optimizer` (moments and counters) and `description`. Whatever is
wrong with one is an InputError that names the step and, where it can be known, the array.
"""

import dataclasses
import functools
import logging
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from orbax.checkpoint import checkpoint_managers as policies

from icl import model
from icl.errors import InputError
from icl.training.checksums import PartwiseChecksum, array_name, describe_arrays, type_of, verify_arrays
from icl.training.description import Description
from icl.training.step import TrainState

FOLDER = "checkpoints"
PARAMS, OPTIMIZER, DESCRIPTION = "params", "optimizer", "description"
_CLOSED_LOOP = "Event loop is closed"


def find_checkpoint(path: str | Path, step: int | None = None) -> tuple[Path, int]:
    """The folder of checkpoints and the step that a path names.

    Args:
      path: A run's folder, its `checkpoints` folder, or one `checkpoints/STEP`.
      step: Which step; the newest by default.

    Raises:
      InputError: there is no such checkpoint.
    """
    path = Path(path)
    expected = f"expected a run's folder, its {FOLDER}/ or one {FOLDER}/STEP"
    if not path.is_dir():
        problem = "is a file" if path.exists() else "does not exist"
        raise InputError(f"checkpoint {path} {problem}: {expected}")
    if path.name.isdigit() and (path / DESCRIPTION).is_dir():
        own = int(path.name)
        if step not in (None, own):
            raise InputError(f"checkpoint {path}: step {step} was asked for, but the path names step {own}")
        return path.parent, own
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    steps = _committed_steps(folder)
    if not steps:
        runs = sorted(found.parent.name for found in path.glob(f"*/{FOLDER}"))
        hint = f", perhaps {', '.join(runs)} in it" if runs else ""
        if (path / "config.json").exists():
            hint = f", or hf:{path} for a Hugging Face folder"
        raise InputError(f"checkpoint {path}: holds no checkpoint; {expected}{hint}")
    if step is not None and step not in steps:
        raise InputError(f"checkpoint {folder}: there is no step {step}; expected one of {steps}")
    return folder, steps[-1] if step is None else step


def read_description(path: str | Path, step: int | None = None) -> Description:
    """What a checkpoint says about itself; arguments and errors as `find_checkpoint`."""
    folder, step = find_checkpoint(path, step)
    where = _where(folder, step)
    reader = ocp.Checkpointer(ocp.JsonCheckpointHandler())
    content = _read(where, DESCRIPTION, lambda: reader.restore(folder / str(step) / DESCRIPTION))
    if not isinstance(content, dict):
        raise InputError(f"{where}: the description is damaged, expected a JSON object")
    return Description.from_json(content, where)


def restore_params(
    path: str | Path, step: int | None = None, shardings: Any = None, target: Any = None
) -> tuple[Any, Description]:
    """Parameters of a checkpoint, verified bit by bit; the optimizer's state is not read.

    Args:
      path: As for `find_checkpoint`.
      step: Which step; the newest by default.
      shardings: Tree of shardings of the parameters; all on the first device by default.
      target: Their shapes and types; those of the language model that is described by default.

    Raises:
      InputError: there is no such checkpoint, or it is damaged; names the array and the step.
    """
    folder, step = find_checkpoint(path, step)
    description = read_description(folder, step)
    if target is None:
        target = model.abstract_params(description.model)
    if shardings is None:
        shardings = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), target)
    return _restore_item(folder, step, PARAMS, abstract(target, shardings), description), description


def read_slices(path: str | Path, step: int, name: str) -> Iterator[tuple[int, Any]]:
    """One parameter of a checkpoint in parts along its first axis, as they are stored; verified at the end.

    Args:
      path: As for `find_checkpoint`.
      step: Which step.
      name: A path in the tree of parameters, as layers/mlp/up/kernel.

    Yields:
      Where the part begins on the first axis, and the part.

    Raises:
      InputError: the array is missing or damaged.
    """
    folder, step = find_checkpoint(path, step)
    where, description = _where(folder, step), read_description(folder, step)
    files = folder / str(step) / PARAMS / name.replace("/", ".")
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{files}/"}}
    array = _read(where, PARAMS, lambda: tensorstore.open(spec, open=True).result(), [name])
    checksum = PartwiseChecksum(jax.ShapeDtypeStruct(array.shape, array.dtype.numpy_dtype))
    step_of = array.chunk_layout.read_chunk.shape[0] if array.rank else 1
    for start in range(0, array.shape[0], step_of):
        part = _read(where, PARAMS, array[start : start + step_of].read().result, [name])
        checksum.add(start, part)
        yield start, part
    if (expected := description.checksums.get(f"{PARAMS}/{name}")) != checksum.text:
        raise InputError(
            f"{where}: array {PARAMS}/{name} is damaged: expected {expected}, found {checksum.text}"
        )


def save_params(workdir: Path, params: Any, description: Description) -> None:
    """Writes a checkpoint of parameters alone, from NumPy arrays that may lie in files; each layer by itself.

    `description` names the step and the checksums. Errors are those of the disk.
    """
    logging.getLogger("absl").addFilter(_is_news)
    handler = ocp.PyTreeCheckpointHandler(
        use_ocdbt=False,
        use_zarr3=False,
        type_handler_registry=ocp.type_handlers.create_type_handler_registry(
            (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False))
        ),
    )
    by_layer = jax.tree.map(lambda leaf: ocp.SaveArgs(shard_axes=(0,) if leaf.ndim > 1 else ()), params)
    with ocp.CheckpointManager(
        workdir.absolute() / FOLDER,
        options=ocp.CheckpointManagerOptions(enable_async_checkpointing=False),
        item_handlers={PARAMS: handler, DESCRIPTION: ocp.JsonCheckpointHandler()},
    ) as manager:
        items = {
            PARAMS: ocp.args.PyTreeSave(params, save_args=by_layer),
            DESCRIPTION: ocp.args.JsonSave(description.to_json()),
        }
        manager.save(description.step, args=ocp.args.Composite(**items))


class Checkpoints:
    """The checkpoints of one run, for the training loop; a context manager that ends pending saves."""

    def __init__(self, workdir: Path, *, keep_last: int, keep_every: int = 0) -> None:
        """Opens or makes `workdir/checkpoints`, and clears what killed saves left there."""
        logging.getLogger("absl").addFilter(_is_news)
        _silence_abandoned_work()
        self._folder = workdir.absolute() / FOLDER
        if jax.process_index() == 0:
            for stale in self._folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(stale)
        keep = [policies.LatestN(keep_last)]
        if keep_every:
            keep.append(policies.EveryNSteps(keep_every))
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(preservation_policy=policies.AnyPreservationPolicy(keep)),
            item_handlers={
                PARAMS: _array_handler(),
                OPTIMIZER: _array_handler(),
                DESCRIPTION: ocp.JsonCheckpointHandler(),
            },
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """Step of the newest committed checkpoint."""
        step: int | None = self._manager.latest_step()
        return step

    def save(self, step: int, state: TrainState, description: Description) -> None:
        """Begins to save a state; it is copied off the device before this returns.

        `description` is that of the run; step and checksums are filled in here.
        """
        optimizer = _optimizer_item(state)
        checksums = describe_arrays(state.params, PARAMS) | describe_arrays(optimizer, OPTIMIZER)
        description = dataclasses.replace(description, step=step, checksums=checksums)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                **{
                    PARAMS: ocp.args.PyTreeSave(state.params),
                    OPTIMIZER: ocp.args.PyTreeSave(optimizer),
                    DESCRIPTION: ocp.args.JsonSave(description.to_json()),
                }
            ),
        )

    def save_params(self, step: int, params: Any, description: Description) -> None:
        """Saves parameters alone, with no optimizer's state; they are on the disk when this returns."""
        description = dataclasses.replace(description, step=step, checksums=describe_arrays(params, PARAMS))
        items = {
            PARAMS: ocp.args.PyTreeSave(params),
            DESCRIPTION: ocp.args.JsonSave(description.to_json()),
        }
        self._manager.save(step, args=ocp.args.Composite(**items))
        self._manager.wait_until_finished()

    def drop_after(self, step: int) -> None:
        """Deletes checkpoints of later steps, which a run that goes on from `step` has not made yet."""
        for later in [saved for saved in self._manager.all_steps() if saved > step]:
            self._manager.delete(later)

    def restore(self, step: int, target: TrainState) -> TrainState:
        """A whole state, verified; `target` gives shapes, types and shardings.

        Raises:
          InputError: the checkpoint is damaged, or of another model or optimizer.
        """
        description = read_description(self._folder, step)
        params = _restore_item(self._folder, step, PARAMS, target.params, description)
        rest = _restore_item(self._folder, step, OPTIMIZER, _optimizer_item(target), description)
        return TrainState(rest["step"], params, rest["moments"], rest["skipped"], rest["excluded"])


def abstract(tree: Any, shardings: Any) -> Any:
    """Shapes and types of a tree, with these shardings."""

    def one(leaf: Any, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(one, tree, shardings)


def _optimizer_item(state: TrainState) -> dict[str, Any]:
    return {
        "step": state.step,
        "moments": state.moments,
        "skipped": state.skipped,
        "excluded": state.excluded_C,
    }


def _array_handler() -> ocp.PyTreeCheckpointHandler:
    """One file a shard of an array: layers are stacked, so files are few, and each holds live data only.

    (Orbax's default, OCDBT, packs arrays into shared files with dead parts, where damage stays unseen.)
    """
    return ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=False)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a log record is worth a line: what Orbax cannot do it also raises, after pages of traceback."""
    return "orbax" not in record.pathname


def _restore_item(folder: Path, step: int, item: str, target: Any, description: Description) -> Any:
    where = _where(folder, step)
    _check_types(target, item, description, where)
    args = ocp.args.PyTreeRestore(target, restore_args=ocp.checkpoint_utils.construct_restore_args(target))
    reader = ocp.Checkpointer(_array_handler())
    names = [name.partition("/")[2] for name in description.checksums if name.startswith(f"{item}/")]
    restored = _read(where, item, lambda: reader.restore(folder / str(step) / item, args=args), names)
    verify_arrays(restored, item, description.checksums, where)
    return restored


def _check_types(target: Any, item: str, description: Description, where: str) -> None:
    """Holds names, types and shapes against the description: Orbax casts types without a word."""
    said = {
        name: text.rpartition(":")[0]
        for name, text in description.checksums.items()
        if name.startswith(f"{item}/")
    }
    leaves = jax.tree_util.tree_leaves_with_path(target)
    wanted = {array_name(item, path): type_of(leaf) for path, leaf in leaves}
    for name in sorted(said.keys() | wanted.keys()):
        if said.get(name) != wanted.get(name):
            raise InputError(
                f"{where}: array {name} is {said.get(name, 'absent')} in the checkpoint,"
                f" expected {wanted.get(name, 'none of this name')}"
            )


def _read(where: str, item: str, restore: Callable[[], Any], names: Sequence[str] = ()) -> Any:
    """Runs an Orbax restore; whatever it raises on a damaged file becomes an InputError.

    It names the one of `names` whose folder (dots for slashes) the error tells of, if any.
    """
    _silence_abandoned_work()
    try:
        return restore()
    except Exception as error:  # Orbax and TensorStore raise nearly every type on damaged files
        kind, text = type(error).__name__, str(error).strip()
    folders = set(re.findall(rf"/{item}/([\w.]*\w)", text))
    damaged = [name for name in names if name.replace("/", ".") in folders]
    array = f"array {item}/{damaged[0]}" if damaged else f"item {item}"
    reason = " ".join(text[:160].split())
    raise InputError(f"{where}: {array} is damaged or missing ({kind}: {reason})")


@functools.cache
def _silence_abandoned_work() -> None:
    """Keeps Python from reporting, at any later time, what a failed save or restore left unfinished.

    TensorStore's threads call back into an event loop that is closed by then, and print that as uncaught.
    """
    report, report_uncaught = sys.unraisablehook, sys.excepthook

    def hook(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        is_orbax = code is not None and "orbax" in code.co_filename
        if not is_orbax and _CLOSED_LOOP not in str(unraisable.exc_value):
            report(unraisable)

    def uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if _CLOSED_LOOP not in str(error):
            report_uncaught(kind, error, traceback)

    sys.unraisablehook, sys.excepthook = hook, uncaught


def _committed_steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(found.step for found in ocp.path.step.standard_name_format().find_all(folder))


def _where(folder: Path, step: int) -> str:
    return f"checkpoint {folder}, step {step}"
