"""Trains language models on packed multi-task sequences and measures their in-context learning."""

__version__ = "0.1.0"
