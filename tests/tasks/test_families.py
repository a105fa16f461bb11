"""Claims about the synthetic families."""

import itertools
from collections import Counter
from typing import Any

import pytest

from icl.data.keys import generator
from icl.errors import InputError
from icl.tasks import Affine, Cipher, Example, LetterLabel, PositionMap, Task, TaskInstance, WordLabel

FAMILIES = {
    "cipher": Cipher(),
    "position_map": PositionMap(lengths=(2, 3, 4), length_weights=(1, 1, 2)),
    "word_label": WordLabel(),
    "affine": Affine(),
    "letter_label": LetterLabel(letters=4, length=3),
}
every_family = pytest.mark.parametrize("name", FAMILIES)


def build(name: str, **settings: Any) -> Task:
    family: Any = FAMILIES[name]
    (task,) = (type(family)(**settings) if settings else family).build(name)
    return task


def examples(instance: TaskInstance, number: int, *key: int) -> list[Example]:
    return list(itertools.islice(instance.demonstrations(generator("test", *key)), number))


def content(name: str, instance: TaskInstance) -> set[str]:
    """What the split of a family keeps apart: the words of a label map, else the instance itself."""
    if name == "word_label":
        return {pair.split("=")[0] for pair in instance.name.split(" ")}
    if name == "cipher":
        return {instance.name.split("-")[0]}
    return {instance.name}


@every_family
def test_held_out_content_never_occurs_in_training(name: str) -> None:
    task, renamed = build(name), type(FAMILIES[name])().build("renamed")[0]  # type: ignore[attr-defined]
    rng = generator("split")
    trained = set().union(*(content(name, task.sample("train", rng)) for _ in range(2000)))
    held_out = set().union(*(content(name, renamed.sample("held_out", rng)) for _ in range(400)))
    assert len(trained) > 10 and len(held_out) > 3
    assert not trained & held_out


@pytest.mark.parametrize("share", [0.25, 0.1])
def test_exactly_the_share_of_the_maps_of_each_length_is_held_out(share: float) -> None:
    task = build(
        "position_map", lengths=(2, 3, 4), length_weights=(), held_out_share=share, held_out_full_length=False
    )
    splits: dict[str, Counter[str]] = {}
    for split in ("train", "held_out"):
        number = task.num_instances(split)
        names = [task.instance(split, i).name for i in range(number or 0)]
        assert len(set(names)) == len(names)
        splits[split] = Counter(name.split(":")[0] for name in names)
    for length in (2, 3, 4):
        assert splits["held_out"][str(length)] == round(share * length**length)
        assert splits["train"][str(length)] + splits["held_out"][str(length)] == length**length


def test_a_fifth_of_the_affine_pairs_is_held_out() -> None:
    task = build("affine")
    assert (task.num_instances("train"), task.num_instances("held_out")) == (88, 22)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_hash_splits_hold_out_about_their_share(share: float) -> None:
    task = build("cipher", held_out_share=share)
    rng = generator("share")
    names = {split: {task.sample(split, rng).name for _ in range(4000)} for split in ("train", "held_out")}
    held_out = len({name[:6] for name in names["held_out"]})
    assert abs(held_out / 720 - share) < 0.08
    assert held_out + len({name[:6] for name in names["train"]}) == 720


def test_held_out_instances_have_full_length_unless_told() -> None:
    rng = generator("length")
    for name in ("cipher", "position_map"):
        for full in (True, False):
            task = build(name, lengths=(1, 2, 3), length_weights=(), held_out_full_length=full)
            lengths = {len(examples(task.sample("held_out", rng), 1)[0].input) for _ in range(60)}
            assert lengths == ({3} if full else {1, 2, 3} if name == "cipher" else {2, 3})
            assert {len(q.example.input) for q in itertools.islice(task.queries("held_out"), 40)} <= lengths


@pytest.mark.parametrize("name", ["cipher", "position_map"])
def test_length_weights_are_shares_of_training_instances(name: str) -> None:
    task = build(name, lengths=(2, 3), length_weights=(1, 3))
    rng = generator("weights")
    lengths = Counter(len(examples(task.sample("train", rng), 1)[0].input) for _ in range(1000))
    assert abs(lengths[3] / 1000 - 0.75) < 0.05


def test_cipher_is_a_bijection_of_letters() -> None:
    task = build("cipher")
    for index in range(20):
        instance = task.instance("held_out", index)
        image = dict(zip("abcdef", instance.name, strict=False))
        assert set(image.values()) == set("abcdef")
        for example in examples(instance, 50, index):
            assert example.target == "".join(image[letter] for letter in example.input)


def test_position_map_does_what_its_instruction_says() -> None:
    task = build("position_map")
    for index in range(task.num_instances("train") or 0):
        instance = task.instance("train", index)
        sigma = [int(number) for number in str(instance.instruction).removeprefix("apply ").split()]
        for example in examples(instance, 5, index):
            assert example.target == "".join(example.input[position - 1] for position in sigma)


def test_position_maps_cover_every_composition() -> None:
    task = build("position_map", lengths=(3,), length_weights=())
    names = {
        task.instance(split, i).name
        for split in ("train", "held_out")
        for i in range(task.num_instances(split) or 0)
    }
    assert names == {"3:" + " ".join(m) for m in itertools.product("123", repeat=3)}


def test_output_length_may_differ_from_input_length() -> None:
    task = build("position_map", lengths=(4,), length_weights=(), output_length=2)
    example = examples(task.instance("held_out", 0), 1)[0]
    assert (len(example.input), len(example.target)) == (4, 2)
    assert task.num_instances("held_out") == 4


@pytest.mark.parametrize("letters", [5, 16])
def test_one_demonstration_without_repeated_letters_tells_the_map(letters: int) -> None:
    task = build("position_map", lengths=(4,), length_weights=(), repeat_letters=False, letters=letters)
    shown = examples(task.instance("held_out", 0), 100)
    assert all(len(set(e.input)) == 4 for e in shown) and len({e.input for e in shown}) == 100
    assert len({tuple(e.input.index(letter) for letter in e.target) for e in shown}) == 1
    assert task.chance() == 4**-4


def test_affine_computes_a_x_plus_b() -> None:
    task = build("affine")
    for index in range(22):
        instance = task.instance("held_out", index)
        a, b = map(int, str(instance.instruction).removeprefix("affine ").split())
        assert a != 0
        for example in examples(instance, 30, index):
            assert int(example.target) == (a * int(example.input) + b) % 11


def test_word_label_gives_every_word_a_label_of_its_own() -> None:
    task = build("word_label")
    for index in range(20):
        instance = task.instance("train", index)
        pairs = {(e.input, e.target) for e in examples(instance, 200)}
        assert len(pairs) == len({word for word, _ in pairs}) == len({label for _, label in pairs}) == 4
        assert instance.instruction == "label " + " ".join(sorted(label for _, label in pairs))


@pytest.mark.parametrize("place", [0, 2])
def test_the_letter_at_its_place_alone_decides_the_label(place: int) -> None:
    task = build("letter_label", letters=4, length=3, place=place)
    for index in range(10):
        shown = examples(task.instance("held_out", index), 64)
        assert len({e.input for e in shown}) == 64
        assert len({(e.input[place], e.target) for e in shown}) == 4
    for settings in ({"place": 5}, {"length": 0}, {"labels": "0"}, {"labels": "0 1"}):
        with pytest.raises(InputError, match=f"LetterLabel.{next(iter(settings))} = "):
            build("letter_label", **settings)


@every_family
def test_keyed_instances_show_an_input_once_and_lookup_families_have_no_key(name: str) -> None:
    task = build(name)
    instance = task.instance("held_out", 0)
    shown = examples(instance, 200)
    keyed = name in ("cipher", "position_map", "letter_label")
    assert all((e.key == e.input) if keyed else (e.key is None) for e in shown)
    assert (len({e.input for e in shown}) == len(shown)) == keyed


def test_one_letter_ciphers_are_lookup_and_endless() -> None:
    task = build("cipher", lengths=(1,), length_weights=())
    shown = examples(task.instance("held_out", 0), 100)
    assert len(shown) == 100 and all(e.key is None for e in shown)


def test_keyed_instances_end_with_their_inputs() -> None:
    task = build("cipher", lengths=(2,), length_weights=())
    assert len({e.input for e in examples(task.instance("train", 0), 100)}) == 36
    large = build("position_map", lengths=(4,), length_weights=(), letters=9)
    assert len({e.input for e in examples(large.instance("train", 0), 10_000)}) == 9**4


@every_family
def test_demonstrations_are_nested_and_repeatable(name: str) -> None:
    instance = build(name).instance("held_out", 3)
    assert examples(instance, 10, 5) == examples(instance, 40, 5)[:10]
    assert examples(instance, 10, 5) != examples(instance, 10, 6)


@every_family
def test_instances_are_a_pure_function_of_split_and_index(name: str) -> None:
    one, two = build(name), build(name)
    for split in ("train", "held_out"):
        for index in (3, 0, 2):
            first, second = one.instance(split, index), two.instance(split, index)
            assert (first.name, first.instruction) == (second.name, second.instruction)
            assert examples(first, 5) == examples(second, 5)


@every_family
@pytest.mark.parametrize("number", [1, 5])
def test_number_of_training_instances_is_a_setting(name: str, number: int) -> None:
    lengths = {"lengths": (3,), "length_weights": ()} if name in ("cipher", "position_map") else {}
    task = build(name, num_training_instances=number, **lengths)
    rng = generator("number")
    drawn = {task.sample("train", rng).name for _ in range(60 * number)}
    assert task.num_instances("train") == number == len(drawn)
    assert drawn == {task.instance("train", i).name for i in range(number)}


@every_family
def test_queries_have_unique_content_keyed_names_and_spread_over_instances(name: str) -> None:
    task = build(name)
    queries = list(itertools.islice(task.queries("held_out"), 100))
    assert len({q.name for q in queries}) == 100
    for query in queries:
        assert query.name == f"{query.instance.name}:{query.example.input}"
    per_instance = Counter(q.instance.name for q in queries)
    assert len(per_instance) >= min(50, task.num_instances("held_out") or 50)
    again = list(itertools.islice(build(name).queries("held_out"), 10))
    assert [q.name for q in again] == [q.name for q in queries[:10]]
    known = {e.input: e.target for e in examples(queries[0].instance, 10_000)}
    assert known[queries[0].example.input] == queries[0].example.target


def test_queries_of_a_small_task_end() -> None:
    queries = list(build("affine", prime=3, held_out_share=0.34).queries("held_out"))
    assert len(queries) == 6


@every_family
def test_chance_is_the_rate_at_which_another_instance_answers_right(name: str) -> None:
    one_length: dict[str, dict[str, Any]] = {
        "cipher": {"lengths": (3,), "length_weights": ()},
        "position_map": {"lengths": (3,), "length_weights": (), "letters": 6},
    }
    task = build(name, **one_length.get(name, {}))
    hits = trials = 0
    for index in range(300):
        right, guess = (dict(_pairs(task, name, 2 * index + i)) for i in range(2))
        common = right.keys() & guess.keys()
        hits += sum(right[key] == guess[key] for key in common)
        trials += len(common)
    assert trials > 200
    assert abs(hits / trials - task.chance()) < 0.25 * task.chance() + 0.003


def _pairs(task: Task, name: str, index: int) -> list[tuple[Any, str]]:
    rng = generator("chance", index)
    if name == "word_label":  # no words are shared: the guess is any label, so compare by order
        return list(enumerate(e.target for e in examples(task.sample("train", rng), 4, index)))
    return [(e.input, e.target) for e in examples(task.sample("train", rng), 216, index)]


@pytest.mark.parametrize(
    ("family", "settings", "names"),
    [
        (Cipher, {"letters": 4}, "Cipher.held_out_share"),
        (Cipher, {"letters": 1}, "Cipher.letters = 1"),
        (Cipher, {"letters": 27}, "Cipher.letters = 27"),
        (Cipher, {"letters": "six"}, "Cipher.letters = 'six'"),
        (Cipher, {"alphabet": "aabcdef"}, "Cipher.alphabet"),
        (Cipher, {"lengths": ()}, "Cipher.lengths"),
        (Cipher, {"lengths": (0, 1)}, "Cipher.lengths"),
        (Cipher, {"length_weights": (1.0,)}, "Cipher.length_weights"),
        (Cipher, {"held_out_share": 0}, "Cipher.held_out_share"),
        (Cipher, {"num_training_instances": -1}, "Cipher.num_training_instances"),
        (PositionMap, {"lengths": (1,), "length_weights": ()}, "PositionMap.lengths"),
        (PositionMap, {"lengths": (9,), "length_weights": ()}, "PositionMap.lengths"),
        (PositionMap, {"output_length": -1}, "output_length = -1"),
        (PositionMap, {"repeat_letters": False, "letters": 2}, "PositionMap.letters"),
        (PositionMap, {"held_out_share": 0.001}, "PositionMap.held_out_share"),
        (PositionMap, {"num_training_instances": 21}, "PositionMap.num_training_instances"),
        (WordLabel, {"num_words": 11}, "WordLabel.num_words"),
        (WordLabel, {"labels": "001"}, "WordLabel.labels"),
        (WordLabel, {"word_length": 0}, "WordLabel.word_length"),
        (WordLabel, {"word_length": 1}, "WordLabel.held_out_share"),
        (Affine, {"prime": 12}, "Affine.prime = 12"),
        (Affine, {"held_out_share": float("inf")}, "Affine.held_out_share"),
        (Affine, {"num_training_instances": 89}, "Affine.num_training_instances"),
    ],
)
def test_wrong_settings_name_field_and_value(family: Any, settings: dict[str, Any], names: str) -> None:
    with pytest.raises(InputError, match="expected") as error:
        family(**settings)
    assert names in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("family", "shown", "query", "want"),
    [
        (Cipher(letters=6), [], "abc", 1 / (6 * 5 * 4)),
        (Cipher(letters=6), ["abd"], "abc", 1 / 3),
        (Cipher(letters=6), ["abd", "cde"], "abc", 1.0),
        (Affine(prime=7), [], "3", 1 / 7),
        (Affine(prime=7), ["1", "2"], "3", 1 / 5),
        (Affine(prime=7), ["1", "3"], "3", 1.0),
        (PositionMap(lengths=(3,), length_weights=(1.0,)), [], "klm", 1 / 27),
        (PositionMap(lengths=(3,), length_weights=(1.0,)), ["klm"], "mlk", 1.0),
        (PositionMap(lengths=(3,), length_weights=(1.0,)), [], "kkl", (2 / 3) ** 3),
    ],
)
def test_a_ceiling_counts_what_the_demonstrations_leave_open(
    family: Any, shown: list[str], query: str, want: float
) -> None:
    (task,) = family.build("family")
    instance = task.instance("held_out", 0)
    examples = {word: _answered(instance, word) for word in (*shown, query)}
    found = instance.ceiling(examples[query], [examples[word] for word in shown])
    assert found == pytest.approx(want)


def _answered(instance: TaskInstance, word: str) -> Example:
    """The instance's own example with that input."""
    return next(e for e in instance.demonstrations(generator("ceiling")) if e.input == word)


def test_the_ceiling_of_labels_excludes_those_that_were_shown() -> None:
    (task,) = WordLabel().build("word_label")
    instance = task.instance("held_out", 0)
    examples = {e.input: e for e in itertools.islice(instance.demonstrations(generator("labels")), 200)}
    first, second, *_ = examples.values()
    assert instance.ceiling(first, []) == pytest.approx(task.chance())
    assert instance.ceiling(first, [second]) == pytest.approx(1 / (1 / task.chance() - 1))
    assert instance.ceiling(first, [second, first]) == 1.0
