"""Tokenizers: bytes, SentencePiece made lossless, and those of Hugging Face (a module of their own).

Of the first two decode(encode(text)) == text for every string; of the last it is as its maker wanted it.
SentencePiece writes a space as U+2581, so a real U+2581 in the text would come back as a space; it is
escaped on the way in and out. A tokenizer's JSON holds its whole model: a checkpoint needs no other file.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import sentencepiece

from icl.data.huggingface_tokenizer import HuggingFaceTokenizer
from icl.data.keys import digest
from icl.errors import InputError, utf8

ESCAPE = "\ue000"
SPACE_MARK = "\u2581"
_PROBES = ("  two  spaces ", "a\n\tb\n", "ﬁ Å Ⅳ", "☃ \U0001f600\x00\x7f", "▁\ue000")


class Tokenizer(Protocol):
    """Text to token ids and back.

    `start_id` begins every segment of a training row and ends every document. `prompt_start` is what stands
    before a text that the model is asked to continue, perhaps nothing. `end_ids` end a generated text.
    """

    kind: str
    vocab_size: int
    start_id: int
    pad_id: int
    prompt_start: tuple[int, ...]
    end_ids: tuple[int, ...]

    def __hash__(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Names the tokenizer by its content."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without start token. Raises InputError for a lone surrogate."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; special tokens have none, and broken UTF-8 gives U+FFFD."""
        ...

    def continuation(self, ids: Iterable[int]) -> str:
        """The text that token ids add to a text before them; as `decode`, and never loses a space there."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to the UTF-8 of a text; nothing where it is special.

        Those of a text's tokens, joined, are its UTF-8, in SentencePiece with U+2581 and U+E000 escaped.
        """
        ...

    def to_json(self) -> dict[str, str]:
        """The tokenizer as JSON, whole."""
        ...


class ByteTokenizer:
    """UTF-8 bytes as ids 0..255, then start and pad; 264 ids in all, a multiple of 8."""

    kind = "bytes"
    vocab_size = 264
    start_id = 256
    pad_id = 257
    prompt_start: tuple[int, ...] = (start_id,)
    end_ids: tuple[int, ...] = (start_id,)

    @property
    def fingerprint(self) -> str:
        return digest("tokenizer", self.kind)

    def encode(self, text: str) -> list[int]:
        return list(utf8(text))

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(i for i in ids if 0 <= i < 256).decode(errors="replace")

    def continuation(self, ids: Iterable[int]) -> str:
        return self.decode(ids)

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if 0 <= token_id < 256 else b""

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind}


class SentencePieceTokenizer:
    """A SentencePiece model that was trained to lose nothing (`tools/train_tokenizer.py`)."""

    kind = "sentencepiece"

    def __init__(self, model: bytes, source: str = "SentencePiece model") -> None:
        """Loads the model.

        Raises:
          InputError: the bytes are no model, or the model changes text.
        """
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise InputError(f"{source}: not a SentencePiece model") from error
        self.vocab_size = self._processor.vocab_size()
        self.start_id = self._processor.bos_id()
        self.pad_id = self._processor.pad_id()
        self.prompt_start: tuple[int, ...] = (self.start_id,)
        self.end_ids: tuple[int, ...] = (self.start_id,)
        if min(self.start_id, self.pad_id) < 0:
            raise InputError(
                f"{source}: has no start or no pad token; train one with tools/train_tokenizer.py"
            )
        for probe in _PROBES:
            back = self.decode(self.encode(probe))
            if back != probe:
                raise InputError(
                    f"{source}: makes {back!r} of {probe!r}; expected a lossless model, as "
                    "tools/train_tokenizer.py trains it"
                )

    @property
    def fingerprint(self) -> str:
        return digest("tokenizer", self.kind, self.model)

    def encode(self, text: str) -> list[int]:
        text = escape(text)
        utf8(text)
        ids: list[int] = self._processor.EncodeAsIds(text)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        special = (self.start_id, self.pad_id)
        text: str = self._processor.DecodeIds([int(i) for i in ids if i not in special])
        if ESCAPE in text:
            text = text.replace(f"{ESCAPE}1", SPACE_MARK).replace(f"{ESCAPE}0", ESCAPE)
        return text

    def continuation(self, ids: Iterable[int]) -> str:
        return self.decode(ids)

    def token_bytes(self, token_id: int) -> bytes:
        processor = self._processor
        if token_id in (self.start_id, self.pad_id) or processor.IsControl(token_id):
            return b""
        piece: str = processor.IdToPiece(token_id)
        if processor.IsByte(token_id):  # written as <0x0A>
            return bytes([int(piece[3:-1], 16)])
        if processor.IsUnknown(token_id):  # decoded as a mark that stands for no text in particular
            piece = processor.DecodeIds([token_id])
        return piece.replace(SPACE_MARK, " ").encode()

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind, "model": base64.b64encode(self.model).decode()}


def escape(text: str) -> str:
    """Text without U+2581, as SentencePiece models read it here."""
    if ESCAPE in text or SPACE_MARK in text:
        return text.replace(ESCAPE, f"{ESCAPE}0").replace(SPACE_MARK, f"{ESCAPE}1")
    return text


def load_tokenizer(spec: str) -> Tokenizer:
    """The tokenizer that a setting names: "bytes", or the path of a SentencePiece model.

    Raises:
      InputError: the file is missing or holds no lossless model.
    """
    if spec == ByteTokenizer.kind:
        return ByteTokenizer()
    path = Path(spec).expanduser()
    try:
        model = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"tokenizer {spec!r}: {error.strerror}; expected 'bytes' or the path of a SentencePiece model"
        ) from error
    return SentencePieceTokenizer(model, str(path))


def tokenizer_from_json(description: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that `to_json` described.

    Raises:
      InputError: the description is of no known kind, or damaged.
    """
    kind = description.get("kind")
    if kind == ByteTokenizer.kind:
        return ByteTokenizer()
    if kind == HuggingFaceTokenizer.kind:
        return HuggingFaceTokenizer.from_json(description)
    if kind != SentencePieceTokenizer.kind:
        raise InputError(
            f"tokenizer description: kind {kind!r}, expected 'bytes', 'sentencepiece' or 'huggingface'"
        )
    try:
        model = base64.b64decode(description["model"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InputError("tokenizer description: no SentencePiece model in base64 under 'model'") from error
    return SentencePieceTokenizer(model, "tokenizer description")
