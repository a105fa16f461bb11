"""Rows in the form of TFDS, made up for the golden prompts: for each task two shown and, last, one asked."""

from collections.abc import Sequence
from typing import Any

from icl.tasks.tfds_rows import TOGETHER

_STORIES = (
    ("Ann has a red boat. She sails it on the lake.", "What colour is the boat?", "red"),
    ("Ben baked three loaves. He gave one to Tom.", "How many did he give?", "one"),
    ("Cleo owns a shop. She sells lamps and rugs.", "What does she sell?", "lamps and rugs"),
)
_SECOND = (("Where is it sailed?", "on the lake"), ("To whom?", "Tom"), ("Who owns it?", "Cleo"))
_FACTS = (
    ("who painted the night watch", "Rembrandt", "Rembrandt van Rijn"),
    ("what is the capital of peru", "Lima", "Lima, Peru"),
    ("when did the war of the roses end", "1487", "in 1487"),
)
_SENTENCES = (
    {"en": "The cat sleeps.", "fr": "Le chat dort.", "de": "Die Katze schläft.", "ro": "Pisica doarme."},
    {"en": "It is late.", "fr": "Il est tard.", "de": "Es ist spät.", "ro": "E târziu."},
    {"en": "Open the door.", "fr": "Ouvre la porte.", "de": "Öffne die Tür.", "ro": "Deschide ușa."},
)
_CLAIMS = (
    ("All the lamps were lit.", "It was dark.", 2, 1),
    ("Nobody came to the fair.", "The fair was full.", 1, 1),
    ("Ines sold her old bike.", "Ines had a bike.", 0, 0),
)


def golden_rows(name: str) -> Sequence[dict[str, Any]]:
    """The rows of a task, the last of which is asked."""
    if name in ("natural_questions", "web_questions"):
        field = "answer" if name == "natural_questions" else "answers"
        return [{"question": question, field: answers} for question, *answers in _FACTS]
    if name == "trivia_qa":
        return [
            {"question": f"{question.capitalize()}?", "answer": {"value": answer, "aliases": [other]}}
            for question, answer, other in _FACTS
        ]
    if name.startswith("wmt"):
        return _SENTENCES
    if name.startswith("anli"):
        return [
            {"context": premise, "hypothesis": claim, "label": (0, 2, 1)[label]}
            for premise, claim, label, _ in _CLAIMS
        ]
    if name in ("super_glue_cb", "super_glue_rte"):
        place = 2 if name == "super_glue_cb" else 3
        return [{"premise": claim[0], "hypothesis": claim[1], "label": claim[place]} for claim in _CLAIMS]
    return _OTHERS["arc" if name.startswith("arc") else "race" if name.startswith("race") else name]


def _race(number: int) -> dict[str, Any]:
    story, question, answer = _STORIES[number]
    second, other = _SECOND[number]
    return {
        "article": story,
        "questions": [question, second],
        "answers": ["B", "A"],
        "options": [["seven", answer, "nothing", "sand"], [other, "nowhere", "in town", "by night"]],
    }


_OTHERS: dict[str, Sequence[dict[str, Any]]] = {
    "coqa": [
        {"story": story, "questions": [one, two[0]], "answers": {"input_text": [answer, two[1]]}}
        for (story, one, answer), two in zip(_STORIES, _SECOND, strict=True)
    ],
    "quac": [
        {
            "title": title, "section_title": "Early life", "context": f"{story} CANNOTANSWER",
            "question": question, "answers": {"text": [answer]}, "orig_answer": {"text": answer},
        }
        for title, (story, question, answer) in zip(("Ann Lee", "Ben Roe", "Cleo Fox"), _STORIES, strict=True)
    ],
    "squad_v2": [
        {
            TOGETHER: [
                {"id": "1", "title": title, "context": story, "question": one, "answers": {"text": [answer]}},
                {"id": "2", "title": title, "context": story, "question": "Who swam?",
                 "answers": {"text": []}},
            ]
        }
        for title, (story, one, answer) in zip(("Ann_Lee", "Ben_Roe", "Cleo_Fox"), _STORIES, strict=True)
    ],
    "drop": [
        {"passage": story, "question": question, "answer": answer, "validated_answers": [answer, "some"]}
        for story, question, answer in _STORIES
    ],
    "race": [_race(number) for number in range(3)],
    "lambada": [
        {"passage": "He lit the lamp, and soon there was light in the whole house"},
        {"passage": "They rowed until the boat was close to the other shore"},
        {"passage": "She had lost the key, so nobody could open the door"},
    ],
    "hellaswag": [
        {"activity_label": "Washing a car", "context": "A man fills a bucket. He", "label": 1,
         "endings": ["flies off.", "scrubs the hood.", "eats it.", "plants a tree."]},
        {"activity_label": "Making tea", "context": "A woman boils water. She", "label": 0,
         "endings": ["pours it into a pot.", "sits on it.", "reads it.", "paints it blue."]},
        {"activity_label": "Fishing", "context": "Two boys stand by a river. They", "label": 3,
         "endings": ["melt.", "bark.", "fold the river.", "throw out their lines."]},
    ],
    "story_cloze": [
        {"context": "Joe found a stray dog. He put up signs.", "label": 0,
         "endings": ["The owner called him.", "The signs ate the dog."]},
        {"context": "Mia trained all year. The race came.", "label": 1,
         "endings": ["She had never run.", "She won a medal."]},
        {"context": "Lou burnt the toast. Smoke filled the room.", "label": 0,
         "endings": ["Lou opened a window.", "Lou went to sea."]},
    ],
    "piqa": [
        {"goal": "To dry a wet shoe,", "sol1": "fill it with paper.",
         "sol2": "fill it with water.", "label": 0},
        {"goal": "To open a jar,", "sol1": "turn the table.", "sol2": "turn the lid.", "label": 1},
        {"goal": "To cool soup,", "sol1": "boil it.", "sol2": "stir it.", "label": 1},
    ],
    "winogrande": [
        {"sentence": "Kim lent Lee a coat because _ was cold.", "option1": "Kim", "option2": "Lee",
         "label": 1},
        {"sentence": "The mug fits the box since the _ is small.", "option1": "mug", "option2": "box",
         "label": 0},
        {"sentence": "Pat beat Sam at chess as _ played well.", "option1": "Pat", "option2": "Sam",
         "label": 0},
    ],
    "winograd": [
        {"text": text, "pronoun_start": text.index(f" {pronoun} ") + 1, "label": label,
         "pronoun_end": text.index(f" {pronoun} ") + 1 + len(pronoun), "option1": one, "option2": two}
        for text, pronoun, one, two, label in (
            ("The vase broke the shelf because it was heavy.", "it", "the vase", "the shelf", 0),
            ("Kim called Lee but she was out.", "she", "Kim", "Lee", 1),
            ("The dog chased the cat until it was tired.", "it", "the dog", "the cat", 0),
        )
    ],
    "arc": [
        {"question": question, "answerKey": key,
         "choices": {"text": ["iron", "milk", "steam"], "label": ["A", "B", "C"]}}
        for question, key in (
            ("Which is a metal?", "A"), ("Which is a gas?", "C"), ("Which do calves drink?", "B"),
        )
    ],
    "openbookqa": [
        {"question": {"stem": stem, "choice_A": "grow", "choice_B": "melt", "choice_C": "sing",
                      "choice_D": "rust"}, "answerKey": label}
        for stem, label in (("Plants in the sun", 0), ("Ice cubes in tea will", 1), ("Wet nails will", 3))
    ],
    "super_glue_boolq": [
        {"passage": f"{title} -- {story}", "question": question, "label": label}
        for title, story, question, label in (
            ("Boat", _STORIES[0][0], "is the boat red", 1),
            ("Loaf", _STORIES[1][0], "did tom bake the loaves", 0),
            ("Shop", _STORIES[2][0], "does the shop sell rugs", 1),
        )
    ],
    "super_glue_copa": [
        {"premise": "The street was wet.", "choice1": "It had rained.", "choice2": "It was noon.",
         "question": "cause", "label": 0},
        {"premise": "He dropped the plate.", "choice1": "It sang.", "choice2": "It broke.",
         "question": "effect", "label": 1},
        {"premise": "She was hungry.", "choice1": "She slept.", "choice2": "She cooked.",
         "question": "effect", "label": 1},
    ],
    "super_glue_multirc": [
        {
            TOGETHER: [
                {"paragraph": story, "question": question, "answer": answer, "label": 1},
                {"paragraph": story, "question": question, "answer": "nothing", "label": 0},
            ]
        }
        for story, question, answer in _STORIES
    ],
    "super_glue_record": [
        {"passage": f"{one} met {two} in {place}.\n@highlight\nThey talked\n@highlight\nBoth were glad",
         "query": "They said that @placeholder was a fine town", "entities": [one, place, two],
         "answers": [place]}
        for one, two, place in (("Ann", "Ben", "Oslo"), ("Cleo", "Dan", "Lima"), ("Eve", "Finn", "Bern"))
    ],
    "super_glue_wic": [
        {"word": "bank", "sentence1": "He sat on the bank.", "sentence2": "The bank was shut.", "label": 0},
        {"word": "run", "sentence1": "We run a mile.", "sentence2": "They run fast.", "label": 1},
        {"word": "cold", "sentence1": "A cold wind.", "sentence2": "I caught a cold.", "label": 0},
    ],
    "super_glue_wsc": [
        {
            TOGETHER: [
                {"text": text, "span1_text": noun, "span2_text": "it", "span2_index": place, "label": label}
                for noun, label in nouns
            ]
        }
        for text, place, nouns in (
            ("The vase broke the shelf because it was heavy.", 6, (("The vase", 1), ("the shelf", 0))),
            ("The key opened the box when it was clean.", 6, (("the box", 0), ("The key", 1))),
            ("The cart hit the wall and it fell down.", 6, (("the wall", 1), ("The cart", 0))),
        )
    ],
}  # fmt: skip
