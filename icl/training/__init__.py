"""Training: optimizer, step, loop, checkpoints and metrics."""

from icl.training.config import RunConfig, TrainConfig
from icl.training.loop import train
from icl.training.optimizer import OptimizerConfig
from icl.training.setup import Setup

__all__ = ["OptimizerConfig", "RunConfig", "Setup", "TrainConfig", "train"]
