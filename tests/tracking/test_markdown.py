import re

from hypothesis import given
from hypothesis import strategies as st

from icl.tracking.markdown import MAX_CHARACTERS, as_markdown, shortened, visible
from icl.tracking.tracker import Sample

TEXTS = st.text(alphabet=st.sampled_from("`~ab<>&*_#|[]() \t\n\r\x00\x02\x0b\ud800·"), max_size=40)


@given(prompt=TEXTS, answer=TEXTS, gold=TEXTS)
def test_no_prompt_or_answer_ends_its_code(prompt: str, answer: str, gold: str) -> None:
    """Of the lines between the fences none is a fence, and they are the prompt's."""
    text = as_markdown([Sample("K = 1", prompt, answer, gold, False)])
    title, blank, fence, *rest = text.split("\n")
    assert (title, blank) == ("**K = 1**", "") and set(fence) == {"`"} and len(fence) >= 3
    end = next(i for i, line in enumerate(rest) if re.fullmatch(rf"{fence}`*[ ]*", line))
    assert "\n".join(rest[:end]) == visible(prompt)
    assert rest[end + 1] == "" and rest[end + 3 :] == [""]
    said = re.fullmatch(r"\*\*✗ wrong\*\*: (.*), expected (.*)", rest[end + 2])
    assert said
    spans = re.findall(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)|(nothing)", rest[end + 2])
    assert [content.strip() for _, content, _ in spans] == [
        visible(each).replace("\n", "⏎").strip() for each in (answer, gold)
    ]


@given(TEXTS)
def test_whitespace_and_control_characters_can_be_seen(text: str) -> None:
    seen = visible(text)
    assert seen.count("\n") == text.count("\n")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]| $", seen, re.MULTILINE)
    assert seen.count("⇥") == text.count("\t")
    seen.encode()


def test_right_and_wrong_are_marked() -> None:
    right = as_markdown([Sample("K = 0", "2+2=", "4", "4", True)])
    wrong = as_markdown([Sample("K = 0", "2+2=", "", "4", False)])
    assert right.endswith("**✓ right**: `4`\n")
    assert wrong.endswith("**✗ wrong**: nothing, expected `4`\n")


def test_of_a_long_prompt_the_start_and_the_end_are_shown() -> None:
    text = "start" + "x" * MAX_CHARACTERS + "end"
    short = shortened(text)
    assert short.startswith("start") and short.endswith("end") and "… 8 characters are left out" in short
    assert shortened("x" * MAX_CHARACTERS) == "x" * MAX_CHARACTERS
