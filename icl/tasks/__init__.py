"""Tasks: what they are, the families that come with the project, and the registry.

Importing this package registers every family; a new one is imported here.
"""

from icl.tasks.affine import Affine
from icl.tasks.arithmetic import Arithmetic
from icl.tasks.cipher import Cipher
from icl.tasks.class_label import ClassLabel
from icl.tasks.cue_label import CueLabel, CueTrials
from icl.tasks.files import FileTasks
from icl.tasks.letter_label import LetterLabel
from icl.tasks.one_instance import OneInstance
from icl.tasks.pairs import PairTasks
from icl.tasks.position_map import PositionMap
from icl.tasks.recall import Recall
from icl.tasks.registry import FAMILIES, build_tasks, describe, family_class, rebuild, register
from icl.tasks.scrambles import Scrambles
from icl.tasks.task import Example, Query, Split, Task, TaskInstance, Template
from icl.tasks.tfds import TfdsTasks
from icl.tasks.word_class import WordClass
from icl.tasks.word_label import WordLabel

__all__ = [
    "FAMILIES",
    "Affine",
    "Arithmetic",
    "Cipher",
    "CueLabel",
    "CueTrials",
    "ClassLabel",
    "Example",
    "FileTasks",
    "LetterLabel",
    "OneInstance",
    "PairTasks",
    "PositionMap",
    "Query",
    "Recall",
    "Scrambles",
    "Split",
    "Task",
    "TaskInstance",
    "Template",
    "TfdsTasks",
    "WordClass",
    "WordLabel",
    "build_tasks",
    "describe",
    "family_class",
    "rebuild",
    "register",
]
