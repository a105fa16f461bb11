"""Settings of a training run, checked when they are made.

Every count is global: tokens and rows of one optimizer step over all devices, so a run means the same on
one device as on a thousand.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Protocol

from icl.data.config import DataConfig
from icl.data.ramp import Ramp, make_ramp
from icl.errors import InputError, check_types
from icl.model.config import ModelConfig
from icl.parallel.mesh import MeshConfig
from icl.tracking.config import TrackingConfig
from icl.training.fine_tuning import FineTuneConfig, Start
from icl.training.optimizer import OptimizerConfig, require


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long to train, on how much at a time, and what to write down.

    Attributes:
      steps: Optimizer steps of the whole run.
      tokens: Positions of the whole run, in place of `steps`: it then takes the steps that reach them.
      batch_tokens: Positions of all rows of one step; a multiple of row_length x accumulation_steps.
      accumulation_steps: Microbatches that one step's rows are cut into, to save memory; a smaller batch of
        the ramp is cut into no larger ones.
      ramp_from: Positions of the first step where the batch grows to `batch_tokens`, of which every batch is
        a multiple (GPT-3, appendix B); 0 for no ramp.
      ramp_tokens: Positions over which it grows, linearly in what was seen.
      ramp_stages: Sizes below the full one that it takes on the way; each is compiled when it is reached.
      seed: Seed of the initial parameters. The rows have their own, `DataConfig.seed`.
      save_every: Steps between checkpoints; 0 saves the last step only.
      keep_last: Newest checkpoints that stay.
      keep_every: Checkpoints at multiples of this many steps stay for good; 0 keeps none.
      log_every: Steps between lines of metrics.jsonl.
      eval_every: Steps between K-curves of held-out episodes; 0 measures none.
      eval_rows: Held-out rows of one K-curve, for each of with and without instruction.
      z_loss: Weight of the squared log-partition added to the loss (PaLM, arXiv 2204.02311, section 5).
      skip_nonfinite: Leave parameters and optimizer as they are when loss or gradient is not finite.
      read_threads: Threads that build rows ahead of the step; 0 builds them in the loop.
      read_workers: Processes that do so in place of threads, where one thread is too slow; 0 for none.
    """

    steps: int = 1000
    tokens: int = 0
    batch_tokens: int = 16_384
    accumulation_steps: int = 1
    ramp_from: int = 0
    ramp_tokens: int = 0
    ramp_stages: int = 8
    seed: int = 0
    save_every: int = 500
    keep_last: int = 3
    keep_every: int = 0
    log_every: int = 10
    eval_every: int = 0
    eval_rows: int = 64
    z_loss: float = 0.0
    skip_nonfinite: bool = True
    read_threads: int = 1
    read_workers: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        for name in (
            *("steps", "batch_tokens", "accumulation_steps", "ramp_stages"),
            *("keep_last", "log_every", "eval_rows"),
        ):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in (
            *("tokens", "ramp_from", "ramp_tokens"),
            "seed",
            "save_every",
            "keep_every",
            "eval_every",
            "z_loss",
            "read_threads",
            "read_workers",
        ):
            require(self, name, getattr(self, name) >= 0, "0 or more")
        if self.ramp_from or self.ramp_tokens:
            divides = self.ramp_from > 0 and self.batch_tokens % self.ramp_from == 0
            require(self, "ramp_from", divides, f"a divisor of batch_tokens = {self.batch_tokens}")
            require(self, "ramp_tokens", self.ramp_tokens > 0, "more than 0 where ramp_from is given")


class Run(Protocol):
    """What every run says of itself, whatever it learns from; `data` is a dataclass of settings."""

    @property
    def model(self) -> ModelConfig: ...

    @property
    def data(self) -> Any: ...

    @property
    def families(self) -> Mapping[str, Any]: ...

    @property
    def optimizer(self) -> OptimizerConfig: ...

    @property
    def train(self) -> TrainConfig: ...

    @property
    def mesh(self) -> MeshConfig: ...

    @property
    def tracking(self) -> TrackingConfig: ...

    @property
    def fine_tune(self) -> FineTuneConfig: ...

    @property
    def start(self) -> Start | None: ...

    @property
    def rung(self) -> str: ...

    @property
    def config_text(self) -> str: ...

    @property
    def ramp(self) -> Ramp: ...

    def tokens(self, step: int) -> int:
        """Positions seen after so many steps."""
        ...


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """All that decides a training run; one rung of a ladder, or a single run (rung "").

    Attributes:
      families: Task families by their name in the mixture, as `icl.tasks.registry` builds them.
      config_text: Operative gin text, for the record only.
      fine_tune: Where it starts, and on how few examples it trains.
      start: The checkpoint that `fine_tune` names, opened (`icl.start.find_start`); its model is the run's.
    """

    model: ModelConfig
    data: DataConfig
    families: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    mesh: MeshConfig = MeshConfig()
    tracking: TrackingConfig = TrackingConfig()
    rung: str = ""
    config_text: str = ""
    fine_tune: FineTuneConfig = FineTuneConfig()
    start: Start | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if bool(self.fine_tune.checkpoint) != (self.start is not None):
            raise InputError(
                f"FineTuneConfig.checkpoint = {self.fine_tune.checkpoint!r}: expected RunConfig.start of that"
                " path, as icl.start.find_start gives it, or neither"
            )
        rows, rest = divmod(self.train.batch_tokens, self.data.row_length)
        if rest or rows % self.train.accumulation_steps:
            raise InputError(
                f"TrainConfig.batch_tokens = {self.train.batch_tokens}: expected a multiple of"
                f" DataConfig.row_length x TrainConfig.accumulation_steps"
                f" = {self.data.row_length} x {self.train.accumulation_steps}"
            )
        if self.model.max_length < self.data.row_length:
            raise InputError(
                f"ModelConfig.max_length = {self.model.max_length}:"
                f" expected at least DataConfig.row_length = {self.data.row_length}"
            )
        if self.train.ramp_from % self.data.row_length:
            raise InputError(
                f"TrainConfig.ramp_from = {self.train.ramp_from}: expected a multiple of"
                f" DataConfig.row_length = {self.data.row_length}"
            )
        if self.train.tokens:
            steps = self.ramp.steps(-(-self.train.tokens // self.data.row_length))
            object.__setattr__(self, "train", dataclasses.replace(self.train, steps=steps))
        warmup = self.optimizer.warmup_in_steps(self.train.batch_tokens)
        if warmup > self.train.steps:
            raise InputError(
                f"OptimizerConfig warm-up takes {warmup:g} steps, expected at most"
                f" TrainConfig.steps = {self.train.steps}"
            )

    @property
    def batch_rows(self) -> int:
        """Rows of one (full) step over all devices."""
        return self.train.batch_tokens // self.data.row_length

    @functools.cached_property
    def ramp(self) -> Ramp:
        """The rows of every step."""
        length, train = self.data.row_length, self.train
        return make_ramp(
            self.batch_rows, train.ramp_from // length, train.ramp_tokens // length, train.ramp_stages
        )

    def tokens(self, step: int) -> int:
        """Positions seen after so many steps."""
        return self.ramp.first_row(step) * self.data.row_length
