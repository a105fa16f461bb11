"""Training: optimizer, step, loop, checkpoints and metrics."""

from icl.training.loop import train

__all__ = ["train"]
