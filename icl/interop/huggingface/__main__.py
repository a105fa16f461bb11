"""Imports a Hugging Face folder as a checkpoint, or exports a checkpoint as such a folder.

python -m icl.interop.huggingface import DIR --workdir RUN [--step N]
python -m icl.interop.huggingface export RUN DIR [--step N] [--architecture NAME] [--dtype bfloat16]
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from icl.errors import InputError
from icl.progress import Progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 2 for bad input."""
    settings = _parser().parse_args(arguments)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a conversion needs no accelerator, and should hold none
    try:
        if settings.command == "import":
            _import(settings)
        else:
            _export(settings)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'the disk'}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    reading = commands.add_parser("import", help="Hugging Face folder to checkpoint")
    reading.add_argument("folder", help="folder with config.json, tokenizer.json and safetensors")
    reading.add_argument("--workdir", required=True, type=Path, help="the run's folder to make")
    reading.add_argument("--step", type=int, default=0, help="step to name the checkpoint by (default: 0)")
    writing = commands.add_parser("export", help="checkpoint to Hugging Face folder")
    writing.add_argument("checkpoint", help="a run's folder, or one of its checkpoints/STEP")
    writing.add_argument("folder", type=Path, help="folder to make")
    writing.add_argument("--step", type=int, help="step to export (default: the newest)")
    writing.add_argument(
        "--architecture", help="model_type to write (default: the first that has such a model)"
    )
    writing.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the weights"
    )
    writing.add_argument(
        "--max_shard_gb", type=float, default=5.0, help="size of a file of weights, at most (default: 5)"
    )
    for command in (reading, writing):
        command.add_argument("--dry_run", action="store_true", help="check, say what would be done, and stop")
    return parser


def _import(settings: argparse.Namespace) -> None:
    from icl.interop.huggingface import import_folder, open_folder

    folder = open_folder(settings.folder)
    described = folder.description(settings.step)
    files = {entry.file.name for entry in folder.entries.values()}
    print(
        f"{folder.path}: {described.params:,} parameters in {len(files)} file{'s' * (len(files) > 1)}, "
        f"{folder.tokenizer.vocab_size:,} tokens, context of {folder.config.max_length:,}"
    )
    if settings.dry_run:
        return
    if settings.step < 0:
        raise InputError(f"--step {settings.step}: expected 0 or more")
    with Progress("import", 4 * described.params, unit="B") as bar:
        import_folder(folder, settings.workdir, step=settings.step, progress=bar.advance)
    print(f"{settings.workdir}: checkpoint of step {settings.step}, parameters only")


def _export(settings: argparse.Namespace) -> None:
    from icl import model
    from icl.interop.huggingface import export_checkpoint
    from icl.interop.huggingface.convert import describe_export
    from icl.training.checkpoints import find_checkpoint, read_description

    if not settings.max_shard_gb > 0:
        raise InputError(f"--max_shard_gb {settings.max_shard_gb}: expected a positive number")
    folder, step = find_checkpoint(settings.checkpoint, settings.step)
    params = model.num_params(read_description(folder, step).model)
    described = describe_export(folder, step, settings.architecture)
    print(f"{folder}, step {step}: {params:,} parameters, as {described['architectures'][0]}")
    if settings.dry_run:
        return
    with Progress("export", 4 * params, unit="B") as bar:
        export_checkpoint(
            folder,
            settings.folder,
            step=step,
            architecture=settings.architecture,
            dtype=settings.dtype,
            max_shard_bytes=int(settings.max_shard_gb * 1e9),
            progress=bar.advance,
        )
    print(f"{settings.folder}: written")


if __name__ == "__main__":
    sys.exit(main())
