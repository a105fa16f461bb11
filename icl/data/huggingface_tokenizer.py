"""A Hugging Face tokenizer: a `tokenizer.json`, read and run by the `tokenizers` library.

What stands before a prompt comes from the file's post-processor, and nowhere else: a start token for Llama,
nothing for GPT-2 and GPT-NeoX. The file is kept as it is, so that it can be written again.
"""

import base64
import binascii
import functools
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import tokenizers

from icl.data.keys import digest
from icl.errors import InputError, utf8

_SPACE_MARK = "\u2581"
_DECODERS = {"ByteLevel", "Metaspace", "ByteFallback", "Replace", "Fuse", "Strip", "Sequence"}


class HuggingFaceTokenizer:
    """A tokenizer read from the text of a `tokenizer.json`.

    Texts are encoded as that file says, special tokens written in them included; a normalizer may change
    them, so decode(encode(text)) == text is not promised.
    """

    kind = "huggingface"

    def __init__(
        self,
        model: str,
        *,
        start_id: int,
        end_ids: tuple[int, ...],
        pad_id: int | None = None,
        config: str = "{}",
        source: str = "tokenizer.json",
    ) -> None:
        """Loads the tokenizer.

        Args:
          model: Text of `tokenizer.json`.
          start_id: Token that begins a text where the post-processor puts none and a text is empty.
          end_ids: Tokens that end a generated text, at least one.
          pad_id: Fills what is not read; the first of `end_ids` by default.
          config: Text of `tokenizer_config.json`, kept to be written again.
          source: What errors call it.

        Raises:
          InputError: the text describes no tokenizer, or one that is not supported here.
        """
        self._model, self._config = model, config
        self._tokenizer = _load(model, source)
        self._is_byte_level = _check_decoder(json.loads(model).get("decoder"), source)
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {number for number, token in added.items() if token.special}
        self._added = {number: str(token.content) for number, token in added.items()}
        self.vocab_size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        self.start_id, self.end_ids = start_id, end_ids
        self.pad_id = end_ids[0] if pad_id is None else pad_id
        for name, number in (("start", start_id), ("pad", self.pad_id), *(("end", i) for i in end_ids)):
            if not 0 <= number < self.vocab_size:
                raise InputError(
                    f"{source}: {name} token {number}: expected one of its {self.vocab_size} tokens"
                )
        self.prompt_start = self._before_a_text(source)

    @property
    def fingerprint(self) -> str:
        return digest("tokenizer", self.kind, self._model, self.start_id, *self.end_ids)

    @property
    def files(self) -> dict[str, str]:
        """The files that it came from, as text by name."""
        return {"tokenizer.json": self._model, "tokenizer_config.json": self._config}

    def encode(self, text: str) -> list[int]:
        utf8(text)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        text: str = self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)
        return text

    def continuation(self, ids: Iterable[int]) -> str:
        return b"".join(self.token_bytes(int(i)) for i in ids).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        if token_id in self._special:
            return b""
        if token_id in self._added:
            return self._added[token_id].encode()
        piece = self._tokenizer.id_to_token(token_id)
        if piece is None:  # ids of the vocabulary may have gaps
            return b""
        if self._is_byte_level:
            characters = _byte_characters()
            return b"".join(
                bytes([characters[c]]) if c in characters else c.encode(errors="replace") for c in piece
            )
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        return str(piece).replace(_SPACE_MARK, " ").encode()

    def to_json(self) -> dict[str, str]:
        return {
            "kind": self.kind,
            "model": _packed(self._model),
            "config": _packed(self._config),
            "start_id": str(self.start_id),
            "end_ids": ",".join(map(str, self.end_ids)),
            "pad_id": str(self.pad_id),
        }

    @classmethod
    def from_json(cls, description: Mapping[str, Any]) -> "HuggingFaceTokenizer":
        """The tokenizer that `to_json` described.

        Raises:
          InputError: the description is damaged.
        """
        try:
            model, config = (_unpacked(description[name]) for name in ("model", "config"))
            start_id, pad_id = int(description["start_id"]), int(description["pad_id"])
            end_ids = tuple(map(int, description["end_ids"].split(",")))
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error, zlib.error) as error:
            raise InputError("tokenizer description: no tokenizer.json under 'model', or no ids") from error
        return cls(
            model,
            start_id=start_id,
            end_ids=end_ids,
            pad_id=pad_id,
            config=config,
            source="tokenizer description",
        )

    def _before_a_text(self, source: str) -> tuple[int, ...]:
        """What the post-processor puts before a text."""
        plain, whole = (
            self._tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True)
        )
        before = len(whole) - len(plain)
        if whole[before:] != plain:
            raise InputError(
                f"{source}: its post-processor adds tokens after a text, which then cannot be continued; "
                "expected a tokenizer of a language model"
            )
        return tuple(whole[:before])


def _load(model: str, source: str) -> tokenizers.Tokenizer:
    try:
        loaded = tokenizers.Tokenizer.from_str(model)
    except BaseException as error:  # the library raises bare exceptions, and panics are no `Exception`
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise InputError(f"{source}: not a tokenizer.json of the tokenizers library: {error}") from None
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def _check_decoder(decoder: Any, source: str) -> bool:
    """Whether tokens are bytes written as characters (GPT-2), not text with marks for spaces (Llama)."""
    kinds = _kinds(decoder)
    unknown = sorted(kinds - _DECODERS)
    if unknown or not kinds:
        named = f"decoder {unknown[0]!r}" if unknown else "no decoder"
        raise InputError(f"{source}: {named}: expected that of GPT-2 (ByteLevel) or Llama (ByteFallback)")
    return "ByteLevel" in kinds


def _kinds(decoder: Any) -> set[str]:
    if not isinstance(decoder, dict):
        return set()
    parts = decoder.get("decoders")
    inner = set().union(*map(_kinds, parts)) if isinstance(parts, list) else set()
    return {str(decoder.get("type"))} | inner


@functools.cache
def _byte_characters() -> dict[str, int]:
    """The bytes that GPT-2's characters stand for."""
    return {character: byte for byte, character in byte_level_characters().items()}


def byte_level_characters() -> dict[int, str]:
    """How GPT-2 writes each byte as a visible character: its own, or one of those from U+0100 on."""
    own = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in own]
    return {byte: chr(byte) if byte in own else chr(256 + hidden.index(byte)) for byte in range(256)}


def _packed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode())).decode()


def _unpacked(packed: str) -> str:
    return zlib.decompress(base64.b64decode(packed, validate=True)).decode()
