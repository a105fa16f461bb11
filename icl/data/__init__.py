"""Tokenizers, rows and the host loader: from tasks and corpora to batches of tokens."""
