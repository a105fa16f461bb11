"""Training and evaluation rows: packed episodes and corpus text, addressed by index.

Row i is a pure function of (settings, tasks, tokenizer, seed, i): a step's batch is the same on any number
of hosts and workers, and resuming is a matter of the index. Dimension letters: N tokens of a segment.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from icl.data.batch import NO_EXAMPLE, Batch, empty_row
from icl.data.config import DataConfig
from icl.data.corpus import Corpus, open_corpus
from icl.data.episodes import MIN_DEMONSTRATION, Episode, EpisodeWriter
from icl.data.keys import digest, generator
from icl.data.mixture import CorpusSlots, EpisodeMixture, Stage, shares, tempered
from icl.data.tokenizer import Tokenizer
from icl.errors import InputError
from icl.tasks.exclusion import Exclusion
from icl.tasks.held_out import HeldOut, read_held_out
from icl.tasks.task import Split, Task

_NUM_ROWS = 2**40
_ATTEMPTS = 4
_PROBED_ROWS = 128


class _Component(NamedTuple):
    """A task or corpus and its number in the mixture."""

    number: int
    task: Task


class Usage(NamedTuple):
    """How much of a component a number of rows holds: examples, or tokens of a corpus.

    `size` is how many different ones there are, None where they have no end.
    """

    used: float
    size: int | None

    @property
    def repeats(self) -> float | None:
        """How often each is used, on average."""
        return None if self.size is None else self.used / self.size


class Rows:
    """Rows of one split; `rows[i]` is a `Batch` of arrays [row_length].

    Training rows hold episodes drawn from the mixture until they are full, and a slot of corpus text at
    their end. Held-out rows hold one episode each, of a held-out instance of each evaluated task in turn;
    every one of its answers is a test at K = its index, and they do not depend on the seed.

    `components` names what `Batch.tasks_BT` numbers: all tasks of the mixture, then the corpora.
    """

    def __init__(
        self,
        config: DataConfig,
        tasks: Mapping[str, Sequence[Task]],
        tokenizer: Tokenizer,
        split: Split = "train",
        *,
        instruction: bool = False,
        max_examples: int | None = None,
    ) -> None:
        """Opens the corpora, and tries that a demonstration of every task fits into a row.

        Args:
          config: settings of the rows.
          tasks: tasks by mixture key, from `build_tasks`.
          tokenizer: turns text into ids.
          split: "train", or "held_out" for the K-curve.
          instruction: whether held-out episodes begin with their instruction; training rows go by
            `config.instruction_share`.
          max_examples: demonstrations of an episode, instead of `config.max_examples`.

        Raises:
          InputError: a family has no task to train on, a task's demonstrations are longer than a row, or
            a corpus or a file of excluded examples cannot be read.
        """
        missing = [key for key in config.families if not tasks.get(key)]
        if missing:
            raise InputError(f"DataConfig.weights: no tasks for {missing}; there are {sorted(tasks)}")
        self._config = config
        self._tokenizer = tokenizer
        self._split = split
        self._instruction = instruction
        self._max_examples = config.max_examples if max_examples is None else max_examples
        numbers = itertools.count()
        families = {key: [_Component(next(numbers), t) for t in tasks[key]] for key in config.families}
        self._evaluated = list(itertools.chain.from_iterable(families.values()))
        names = [component.task.name for component in self._evaluated]
        self.components: tuple[str, ...] = (*names, *config.corpora)
        for name in config.corpora:
            if name in names:
                raise InputError(f"DataConfig.corpora: {name!r} is also a task; expected another name")
        held_out = read_held_out(config.exclude, tasks) if split == "train" else HeldOut()
        self.exclusion = Exclusion(held_out.identities)
        self._writer = EpisodeWriter(tokenizer, self.exclusion)
        self._mixture: EpisodeMixture[_Component] | None = None
        self.trained_tasks: tuple[str, ...] = ()
        self._slots: CorpusSlots[str] | None = None
        self.corpora: dict[str, Corpus] = {}
        if split == "train":
            self._prepare_episodes(families)
            self._prepare_corpora(held_out.texts)

    def _prepare_episodes(self, families: Mapping[str, list[_Component]]) -> None:
        """Leaves out held-out tasks, checks the room for demonstrations, weighs the tasks."""
        config = self._config
        if not config.trained_families:
            return
        trained = {key: [c for c in families[key] if c.task.trained] for key in config.trained_families}
        for key, components in trained.items():
            if not components:
                raise InputError(
                    f"DataConfig.weights: all tasks of {key!r} are held out; expected one to train on"
                )
            for component in components:
                self._check_room(component.task)
        every = list(itertools.chain.from_iterable(trained.values()))
        self.trained_tasks = tuple(component.task.name for component in every)
        sizes = {component: component.task.size("train") for component in every}
        by_size = tempered(sizes, config.temperature, config.size_limit)

        def weighed(weights: Mapping[str, float]) -> dict[_Component, float]:
            return {
                component: share * by_size[component] / (1 if config.temperature else len(trained[key]))
                for key, share in shares(weights).items()
                for component in trained[key]
            }

        stages = [Stage(row, shares(weighed(weights))) for row, weights, _ in config.stages]
        self._mixture = EpisodeMixture(stages, config.seed)

    def _prepare_corpora(self, held_out_texts: Sequence[str]) -> None:
        """Opens the corpora and weighs them."""
        config = self._config
        for name, sources in config.corpora.items():
            self.corpora[name] = open_corpus(
                sources, self._tokenizer, config.corpus_positions, config.seed, held_out_texts
            )
        if self.corpora:
            sizes: dict[str, int | None] = {name: corpus.num_tokens for name, corpus in self.corpora.items()}
            by_size = tempered(sizes, config.temperature or 1.0, config.size_limit)
            stages = [Stage(row, shares(weights or by_size)) for row, _, weights in config.stages]
            self._slots = CorpusSlots(stages)

    def _check_room(self, task: Task) -> None:
        room = self._config.row_length - self._config.corpus_positions
        rng = generator("room", task.name)
        episodes = (
            self._draw(task, rng, room, 0, instruction=True, look_ahead=1000) for _ in range(_ATTEMPTS)
        )
        if not any(episode.num_examples for episode in episodes):
            raise InputError(
                f"DataConfig.row_length = {self._config.row_length}: {room} positions for episodes hold no "
                f"demonstration of task {task.name!r}; expected longer rows, or shorter examples"
            )

    def __len__(self) -> int:
        return _NUM_ROWS

    def __getitem__(self, index: int) -> Batch:
        """Row `index`, 0 <= index < len(self)."""
        index = int(index)
        if not 0 <= index < _NUM_ROWS:
            raise IndexError(f"row {index}: expected 0 to {_NUM_ROWS - 1}")
        row = _Row(self._config.row_length, self._tokenizer.pad_id)
        if self._split == "held_out":
            self._add_held_out_episode(row, index)
        else:
            self._add_training_episodes(row, index)
            self._add_corpus(row, index)
        return row.arrays

    @property
    def fingerprint(self) -> str:
        """Names what the rows hold, by content: tasks, tokenizer and corpus, and the first rows as made."""
        parts = [self._tokenizer.fingerprint, *(corpus.fingerprint for corpus in self.corpora.values())]
        parts += [component.task.fingerprint() for component in self._evaluated]
        parts += [self.exclusion.fingerprint] if self.exclusion else []
        return digest(*parts, *(np.asarray(array).tobytes() for i in range(16) for array in self[i]))

    def usage(self, num_rows: int) -> dict[str, Usage]:
        """How much of each component the first `num_rows` training rows hold.

        Exact for corpora; for tasks from a sample of the rows.
        """
        found: dict[str, Usage] = {}
        examples_C = np.zeros(len(self.components))
        if self._mixture is not None:
            for i in range(_PROBED_ROWS):
                row = self[i * num_rows // _PROBED_ROWS]
                ids = np.stack([np.asarray(row.segments_BT), np.asarray(row.examples_BT)])
                first = np.flatnonzero((ids[1] >= 0) & np.append(True, (ids[:, 1:] != ids[:, :-1]).any(0)))
                np.add.at(examples_C, np.asarray(row.tasks_BT)[first], 1)
        for number, task in self._evaluated:
            used = float(examples_C[number]) * num_rows / _PROBED_ROWS
            if used or task.trained:
                found[task.name] = Usage(used, task.size("train"))
        slots = self._slots.counts(num_rows) if self._slots else {}
        for name, corpus in self.corpora.items():
            share = slots.get(name, 0) / corpus.num_blocks
            found[name] = Usage(share * corpus.num_tokens, corpus.num_tokens)
        return found

    def _add_training_episodes(self, row: "_Row", index: int) -> None:
        """Fills the row up to its corpus slot."""
        mixture = self._mixture
        if mixture is None:
            return
        config, rng = self._config, generator("row", self._config.seed, index)
        point = mixture.first_point(index)
        failures = 0
        while failures < _ATTEMPTS:
            room = config.row_length - config.corpus_positions - row.used
            least = 1 if not row.used else min(config.min_examples, self._max_examples or config.min_examples)
            if room < least * MIN_DEMONSTRATION:
                return
            number, task = mixture.item(index, point)
            with_instruction = rng.random() < config.instruction_share
            episode = self._draw(task, rng, room, row.answers, instruction=with_instruction)
            if episode.num_examples >= least:
                row.add_episode(episode, number, loss_on=config.loss_on)
            else:
                failures += 1
            point = rng.random()

    def _draw(
        self,
        task: Task,
        rng: np.random.Generator,
        room: int,
        answered: int,
        *,
        instruction: bool,
        look_ahead: int = 4,
    ) -> Episode:
        """A training episode of a random instance of the task, for a row with `answered` answer positions."""
        instance = task.sample("train", rng)
        limit = self._config.answer_positions
        return self._writer.draw(
            task,
            instance,
            instance.demonstrations(rng),
            instruction=instruction,
            positions=room,
            max_examples=self._max_examples,
            answer_positions=limit - answered if limit else None,
            look_ahead=look_ahead,
        )

    def _add_held_out_episode(self, row: "_Row", index: int) -> None:
        lap, place = divmod(index, len(self._evaluated))
        number, task = self._evaluated[place]
        num_instances = task.num_instances("held_out")
        instance = task.instance("held_out", lap if num_instances is None else lap % num_instances)
        episode = self._writer.draw(
            task,
            instance,
            instance.episode(generator("held-out row", task.name, lap)),
            instruction=self._instruction,
            positions=self._config.row_length,
            max_examples=self._max_examples,
        )
        if episode.num_examples:
            row.add_episode(episode, number, loss_on="answers")

    def _add_corpus(self, row: "_Row", index: int) -> None:
        if self._slots is None:
            return
        name, block = self._slots.place(index)
        row.used = self._config.row_length - self._config.corpus_positions
        start_id = self._tokenizer.start_id if self._config.mask_segments else None
        row.add_text(self.corpora[name].block(block), self.components.index(name), start_id)


class _Row:
    """A row that is being filled; `used` counts its positions from the left, `answers` those of answers."""

    def __init__(self, length: int, pad_id: int) -> None:
        self.arrays = empty_row(length, pad_id)
        self.used = self.answers = 0
        self._num_segments = 0

    def add_episode(
        self, episode: Episode, component: int, *, loss_on: Literal["answers", "query", "all"]
    ) -> None:
        """Adds an episode as one segment; the loss weighs its answers, the last of them, or all of it."""
        examples_N = np.array(episode.examples[1:], np.int32)
        weights_N = (examples_N != NO_EXAMPLE) | (loss_on == "all")
        if loss_on == "query":
            weights_N &= examples_N == episode.num_examples - 1
        self.answers += int(np.count_nonzero(examples_N != NO_EXAMPLE))
        start = self.used
        self._add(np.array(episode.tokens, np.int32), component, weights_N, examples_N)
        np.asarray(self.arrays.excluded_BT)[start] = episode.excluded

    def add_text(self, tokens_N: np.ndarray, component: int, start_id: int | None) -> None:
        """Adds text, all of which is trained on; with a start id, each document is a segment."""
        starts = [] if start_id is None else np.flatnonzero(tokens_N[:-1] == start_id).tolist()
        bounds = sorted({0, *starts, len(tokens_N) - 1})
        for start, end in zip(bounds[:-1], bounds[1:], strict=True):
            self._add(tokens_N[start : end + 1], component, 1, NO_EXAMPLE)

    def _add(
        self,
        tokens_N: np.ndarray,
        component: int,
        weights_N: np.ndarray | int,
        examples_N: np.ndarray | int,
    ) -> None:
        """Adds a segment of N tokens, which takes N - 1 positions."""
        self._num_segments += 1
        start, self.used = self.used, self.used + len(tokens_N) - 1
        segment = Batch(
            inputs_BT=tokens_N[:-1],
            targets_BT=tokens_N[1:],
            segments_BT=self._num_segments,
            positions_BT=np.arange(len(tokens_N) - 1),
            weights_BT=weights_N,
            examples_BT=examples_N,
            tasks_BT=component,
            excluded_BT=0,
        )
        for array, values in zip(self.arrays, segment, strict=True):
            np.asarray(array)[start : self.used] = values
