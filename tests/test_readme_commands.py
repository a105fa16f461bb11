"""Commands that the README and other pages show are right, and the check of them sees what is not."""

from pathlib import Path

from icl import config
from icl.tasks import FAMILIES
from tools.check_readme import families, pages, problems
from tools.readme_commands import blocks, commands_of
from tools.readme_copy import marked_commands, save_modules

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text()


def test_every_command_that_a_page_shows_is_right() -> None:
    texts = pages()
    assert {"README.md", "CONTRIBUTING.md", "experiments/gpt3_battery.md", "icl/__init__.py"} <= texts.keys()
    commands = {name: list(commands_of(text, name)) for name, text in texts.items()}
    silent = {name for name in commands if not commands[name]}
    assert not {"README.md", "CONTRIBUTING.md", "icl/__init__.py", "gin/runs/smoke.gin"} & silent
    with families(texts.values()):
        assert problems([command for found in commands.values() for command in found]) == []


TRAIN = "python -m icl.train --workdir DIR --gin_file gin/runs/smoke.gin"
EVAL = "python -m icl.eval --checkpoint RUN --output_dir OUT --gin_file gin/eval/k_curve.gin"
PLAN = "python -m icl.plan --gin_file gin/runs/smoke.gin"


WRONG = [
    (f"{TRAIN} --gin_bindngs 'TrainConfig.steps = 3'", "Unknown command line flag 'gin_bindngs'"),
    (f"{TRAIN} --gin_bindings 'TrainConfig.stps = 3'", "no setting 'stps'"),
    (f"{TRAIN} --gin_bindings 'TrainConfig.steps = three'", "cannot parse"),
    (f"{TRAIN} --gin_bindings 'DataConfig.weights = {{\"ciper\": 1}}'", "no task family 'ciper'"),
    (f"{TRAIN} --gin_file gin/models/smal.gin", "gin/models/smal.gin does not exist"),
    (f"{TRAIN} --gin_file models/smal.gin", "gin file 'models/smal.gin' does not exist"),
    (f"{TRAIN} --rungs xs", "rung 'xs'"),
    (f"{TRAIN} more", "unexpected argument 'more'"),
    ("python -m icl.train --gin_file runs/smoke.gin", "--workdir is missing"),
    (f"{EVAL} --step last", "flag --step=last"),
    (f"{EVAL} --gin_bindings 'EvalConfig.kss = (1,)'", "no setting 'kss'"),
    ("python -m icl.eval --output_dir OUT --gin_file eval/k_curve.gin", "--checkpoint is missing"),
    (f"{PLAN} --topology v5p:3x3", "v5p:3x3"),
    (PLAN, "--topology is missing"),
    ("python tools/prepare_corpus.py --source x --outptu y", "--output"),
    ("python tools/train_tokenizer.py --output x --vocab_size many books", "invalid int value: 'many'"),
    ("python -m tools.benchmark_train --round 6 --shapes 0.8m --deep", "unrecognized arguments: --deep"),
    ("python tools/kill_tset.py --gin_file gin/runs/smoke.gin", "tools/kill_tset.py does not exist"),
    ("python -m tools.kill_tset --gin_file gin/runs/smoke.gin", "No module named 'tools.kill_tset'"),
    ("python -m tools.readme_commands", "tools.readme_commands is no command"),
    ("python -m icl.interop.no_such", "No module named 'icl.interop.no_such'"),
    ("bash tools/quickstart.sh --work DIR", "tools/quickstart.sh has no --work"),
    ("pip install -e '.[plan,tup]'", "no extra 'tup'"),
    ("pyton -m icl.train", "a command that cannot be checked"),
]


def test_each_command_that_is_wrong_is_named_with_its_line_and_what_is_wrong() -> None:
    shown = "\n".join(command for command, _ in WRONG)
    page = f"Text.\n\n```bash\n{TRAIN} \\\n    --dry_run   # fine\n{shown}\n```\n"
    found = problems(list(commands_of(page, "PAGE.md")))
    assert len(found) == len(WRONG)
    for line, (said, (_, problem)) in enumerate(zip(found, WRONG, strict=True), 6):
        assert said.startswith(f"PAGE.md, line {line}: ")
        assert problem in said


def test_a_command_that_is_not_whole_is_passed_over_and_one_in_text_is_not() -> None:
    page = "As `python tools/kill_tset.py` shows:\n\n```bash\npython -m icl.train --workdir DIR ...\n```\n"
    page += (
        "`python -m icl.train` and `python tools/kill_test.py` are names; `python -m icl.no.such` is none.\n"
    )
    first, second = problems(list(commands_of(page, "PAGE.md")))
    assert first.startswith("PAGE.md, line 1: tools/kill_tset.py does not exist")
    assert second.startswith("PAGE.md, line 6: No module named 'icl.no'")


def test_families_of_a_page_are_known_to_gin_only_while_it_is_checked() -> None:
    bindings = ["DataConfig.weights = {'order': 1}", "Order.letters = 'abc'"]
    with families([README]):
        assert config.load_runs([], bindings)[0].families["order"].letters == "abc"
    assert "order" not in FAMILIES


def test_marked_blocks_are_run_with_their_settings_and_others_are_not() -> None:
    page = (
        "<!-- run: TrainConfig.steps = 60; EvalConfig.queries = 2 -->\n```bash\nsource .venv/bin/activate\n"
        "python -m icl.train --workdir x\npython tools/kill_test.py\n```\n```bash\npython -m icl.eval\n```\n"
    )
    train, tool = marked_commands(blocks(page, "bash"))
    short = ("--gin_bindings", "TrainConfig.steps = 60", "--gin_bindings", "EvalConfig.queries = 2")
    assert train == ("python", "-m", "icl.train", "--workdir", "x", *short)
    assert tool == ("python", "tools/kill_test.py")
    assert len(list(marked_commands(blocks(README, "bash")))) >= 6


def test_the_copy_gets_the_family_that_the_readme_shows(tmp_path: Path) -> None:
    package = tmp_path / "icl/tasks/__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text("")
    save_modules(README, tmp_path)
    assert package.read_text().strip() == "from icl.tasks.order import Order"
    assert "class OrderTask" in (tmp_path / "icl/tasks/order.py").read_text()
