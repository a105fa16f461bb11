"""Training and evaluation rows: packed episodes and corpus text, addressed by index.

Row i is a pure function of (settings, tasks, tokenizer, seed, i): a step's batch is the same on any number
of hosts and workers, and resuming is a matter of the index. Dimension letters: T positions of a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from icl.data.batch import NO_EXAMPLE, Batch, empty_row
from icl.data.config import DataConfig
from icl.data.corpus import Corpus, tokenize_documents
from icl.data.episodes import Episode, EpisodeWriter
from icl.data.keys import digest, generator
from icl.data.tokenizer import Tokenizer
from icl.errors import InputError
from icl.tasks.task import Split, Task

CORPUS = "corpus"
_NUM_ROWS = 2**40
_ATTEMPTS = 4
_FIRST_ATTEMPTS = 32
_MIN_DEMONSTRATION = 4
_GOLDEN = 0x9E3779B97F4A7C15


class _Component(NamedTuple):
    """A task with its number in the mixture."""

    number: int
    task: Task


class Rows:
    """Rows of one split; `rows[i]` is a `Batch` of arrays [row_length].

    Training rows hold episodes drawn from the mixture until they are full, and a slot of corpus text at
    their end. Held-out rows hold one episode each, of a held-out instance of each evaluated task in turn;
    every one of its answers is a test at K = its index.
    """

    def __init__(
        self,
        config: DataConfig,
        tasks: Mapping[str, Sequence[Task]],
        tokenizer: Tokenizer,
        split: Split = "train",
        *,
        instruction: bool | None = None,
        max_examples: int | None = None,
    ) -> None:
        """Checks that every family of the mixture has tasks, and reads the corpus.

        Args:
          config: settings of the rows.
          tasks: tasks by mixture key, from `build_tasks`.
          tokenizer: turns text into ids.
          split: "train", or "held_out" for the K-curve.
          instruction: whether held-out episodes carry their instruction (default: no); training rows go by
            `config.instruction_share`.
          max_examples: demonstrations of an episode, instead of `config.max_examples`.

        Raises:
          InputError: a family is missing, nothing can be trained on, or the corpus cannot be read.
        """
        missing = [key for key in config.families if not tasks.get(key)]
        if missing:
            raise InputError(f"DataConfig.weights: no tasks for {missing}; there are {sorted(tasks)}")
        self._config = config
        self._tokenizer = tokenizer
        self._writer = EpisodeWriter(tokenizer)
        self._split = split
        self._instruction = bool(instruction)
        self._max_examples = config.max_examples if max_examples is None else max_examples
        names = [task.name for key in config.families for task in tasks[key]]
        self.components: tuple[str, ...] = (*names, CORPUS) if config.corpus else tuple(names)
        numbers = {name: number for number, name in enumerate(names)}
        self._evaluated = [_Component(numbers[t.name], t) for key in config.families for t in tasks[key]]
        self._trained = {
            key: [_Component(numbers[t.name], t) for t in tasks[key] if t.trained]
            for key in config.trained_weights
        }
        empty = [key for key, components in self._trained.items() if not components]
        if empty and split == "train":
            raise InputError(
                f"DataConfig.weights: every task of {empty} is held out; expected one to train on"
            )
        self._bounds = np.cumsum(list(config.trained_weights.values())).tolist()
        self._corpus = self._read_corpus() if split == "train" else None

    def _read_corpus(self) -> Corpus | None:
        positions = self._config.corpus_positions
        if not positions:
            return None
        tokens = tokenize_documents(self._config.corpus, self._tokenizer)
        return Corpus(tokens, positions, self._config.seed)

    def __len__(self) -> int:
        return _NUM_ROWS

    def __getitem__(self, index: int) -> Batch:
        """Row `index`, 0 <= index < len(self)."""
        if not 0 <= index < _NUM_ROWS:
            raise IndexError(f"row {index}: expected 0 to {_NUM_ROWS - 1}")
        row = _Row(self._config.row_length, self._tokenizer.pad_id)
        if self._split == "held_out":
            self._add_held_out_episode(row, int(index))
        else:
            self._add_training_episodes(row, int(index))
            self._add_corpus(row, int(index))
        return row.arrays

    @property
    def fingerprint(self) -> str:
        """Names what the rows hold: settings, tokenizer, corpus and the first rows of this split."""
        first = [array.tobytes().hex() for i in range(4) for array in self[i]]
        corpus = self._corpus.fingerprint if self._corpus else ""
        return digest(repr(self._config), self._tokenizer.fingerprint, corpus, *first)

    def _add_training_episodes(self, row: "_Row", index: int) -> None:
        """Fills the row up to its corpus slot."""
        end = self._config.row_length - self._config.corpus_positions
        if not self._trained:
            return
        rng = generator("row", self._config.seed, index)
        attempts = _FIRST_ATTEMPTS
        points = self._first_point(index)
        while (
            end - row.used >= _MIN_DEMONSTRATION * (1 if row.used == 0 else self._config.min_examples)
            and attempts
        ):
            component = self._component(points, rng)
            points = rng.random()
            episode = self._training_episode(component.task, rng, end - row.used)
            if episode.num_examples >= (1 if row.used == 0 else self._config.min_examples):
                row.add_episode(episode, component.number, answers_only=self._config.loss_on == "answers")
                attempts = _ATTEMPTS
            else:
                attempts -= 1
        if not row.used:
            raise InputError(
                f"DataConfig.row_length = {self._config.row_length}: {end} positions for episodes take no "
                f"demonstration of {component.task.name!r}; expected longer rows"
            )

    def _first_point(self, index: int) -> float:
        """Where row `index` falls in the mixture: multiples of the golden ratio, so that the rows of every
        batch are spread over the mixture more evenly than by chance."""
        offset = int(digest("mixture", self._config.seed)[:16], 16)
        return ((offset + index * _GOLDEN) % 2**64) / 2**64

    def _component(self, point: float, rng: np.random.Generator) -> _Component:
        for components, bound in zip(self._trained.values(), self._bounds, strict=True):
            if point < bound:
                break
        return components[0] if len(components) == 1 else components[int(rng.integers(len(components)))]

    def _training_episode(self, task: Task, rng: np.random.Generator, positions: int) -> Episode:
        instance = task.sample("train", rng)
        return self._writer.draw(
            instance,
            task.template,
            instance.demonstrations(rng),
            instruction=rng.random() < self._config.instruction_share,
            positions=positions,
            max_examples=self._max_examples,
        )

    def _add_held_out_episode(self, row: "_Row", index: int) -> None:
        lap, place = divmod(index, len(self._evaluated))
        component = self._evaluated[place]
        num_instances = component.task.num_instances("held_out")
        instance = component.task.instance("held_out", lap if num_instances is None else lap % num_instances)
        episode = self._writer.draw(
            instance,
            component.task.template,
            instance.episode(generator("held-out row", component.task.name, lap)),
            instruction=self._instruction,
            positions=self._config.row_length,
            max_examples=self._max_examples,
        )
        row.add_episode(episode, component.number, answers_only=True)

    def _add_corpus(self, row: "_Row", index: int) -> None:
        if self._corpus is None:
            return
        row.used = self._config.row_length - self._config.corpus_positions
        tokens_N = self._corpus.block(index)
        start_id = self._tokenizer.start_id if self._config.mask_segments else None
        row.add_text(tokens_N, len(self.components) - 1, start_id)


class _Row:
    """A row that is being filled; `used` counts its positions from the left."""

    def __init__(self, length: int, pad_id: int) -> None:
        self.arrays = empty_row(length, pad_id)
        self.used = 0
        self._num_segments = 0

    def add_episode(self, episode: Episode, task: int, *, answers_only: bool) -> None:
        """Adds an episode as one segment; the loss weighs its answers, or all of it."""
        tokens_N = np.array(episode.tokens, np.int32)
        examples_N = np.array(episode.examples[1:], np.int32)
        weights_N = (examples_N != NO_EXAMPLE).astype(np.float32) if answers_only else None
        self._add(tokens_N, task, weights_N, examples_N)

    def add_text(self, tokens_N: np.ndarray, task: int, start_id: int | None) -> None:
        """Adds text; with a start id, each document is a segment of its own."""
        cuts = [] if start_id is None else np.flatnonzero(tokens_N[:-1] == start_id).tolist()
        bounds = sorted({0, *cuts, len(tokens_N) - 1})
        for start, end in zip(bounds[:-1], bounds[1:], strict=True):
            self._add(tokens_N[start : end + 1], task, None, None)

    def _add(
        self, tokens_N: np.ndarray, task: int, weights_N: np.ndarray | None, examples_N: np.ndarray | None
    ) -> None:
        """Adds a segment of N tokens, which takes N - 1 positions."""
        place = slice(self.used, self.used + len(tokens_N) - 1)
        self._num_segments += 1
        self.used = place.stop
        self.arrays.inputs_BT[place] = tokens_N[:-1]
        self.arrays.targets_BT[place] = tokens_N[1:]
        self.arrays.segments_BT[place] = self._num_segments
        self.arrays.positions_BT[place] = np.arange(len(tokens_N) - 1)
        self.arrays.weights_BT[place] = 1 if weights_N is None else weights_N
        self.arrays.tasks_BT[place] = task
        if examples_N is not None:
            self.arrays.examples_BT[place] = examples_N
