"""The tokenizer of a Hugging Face folder: read as it is, and ours written as one.

Its text goes into a checkpoint whole and comes out the same. Bytes and SentencePiece become a
`tokenizer.json` that gives the same ids, but for two things: a text that spells out a special token, which
Hugging Face reads as the token and ours as text; and what a unigram model can cut in several ways of the same
likelihood, as runs of spaces, which the two libraries may cut differently.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from icl.data.huggingface_tokenizer import HuggingFaceTokenizer, byte_level_characters
from icl.data.tokenizer import ESCAPE, SPACE_MARK, ByteTokenizer, SentencePieceTokenizer, Tokenizer
from icl.errors import InputError
from icl.interop.huggingface.shards import read_json

MODEL, CONFIG, GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"


def read_tokenizer(folder: Path, described: Mapping[str, Any]) -> HuggingFaceTokenizer:
    """The tokenizer of a folder; `described` is its config.json.

    Raises:
      InputError: there is no `tokenizer.json`, it is none, or nothing tells which token ends a text.
    """
    path = folder / MODEL
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text; expected a tokenizer.json") from error
    except OSError as error:
        older = [name for name in ("tokenizer.model", "vocab.json") if (folder / name).exists()]
        found = f"; {older[0]} is an older form, which transformers can convert" if older else ""
        raise InputError(
            f"{path}: {error.strerror}; expected the tokenizers library's file{found}"
        ) from error
    config: dict[str, Any] = {}
    config_text = ""
    if (folder / CONFIG).exists():
        config, config_text = read_json(folder / CONFIG), (folder / CONFIG).read_text(encoding="utf-8")
    generation = read_json(folder / GENERATION) if (folder / GENERATION).exists() else {}
    ids = _ids(text, path)
    ends = [ids.get(_content(config.get("eos_token")))]
    ends += [*_numbers(described.get("eos_token_id")), *_numbers(generation.get("eos_token_id"))]
    end_ids = tuple(dict.fromkeys(number for number in ends if number is not None and number in ids.values()))
    if not end_ids:
        raise InputError(
            f"{folder}: no eos_token in {CONFIG} and no eos_token_id in config.json that {MODEL} has: "
            "expected the token that ends a text"
        )
    start_id, pad_id = (
        next(
            number
            for number in (ids.get(_content(token)), *_numbers(said), end_ids[0])
            if number is not None and number in ids.values()
        )
        for token, said in (
            (config.get("bos_token"), described.get("bos_token_id")),
            (config.get("pad_token"), described.get("pad_token_id")),
        )
    )
    return HuggingFaceTokenizer(
        text, start_id=start_id, end_ids=end_ids, pad_id=pad_id, config=config_text, source=str(path)
    )


def _ids(text: str, path: Path) -> dict[str, int]:
    """Ids of all tokens by their text."""
    try:
        backend = Backend.from_str(text)
    except Exception as error:
        raise InputError(f"{path}: not a tokenizer.json of the tokenizers library: {error}") from None
    return dict(backend.get_vocab(with_added_tokens=True))


def _content(token: Any) -> str:
    """The text of a special token, which is written as it is or as an object."""
    return str(token.get("content")) if isinstance(token, Mapping) else str(token)


def _numbers(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [number for number in values if isinstance(number, int) and not isinstance(number, bool)]


def tokenizer_files(tokenizer: Tokenizer, max_length: int) -> dict[str, str]:
    """The files of a tokenizer as text by name.

    Args:
      tokenizer: Ours of bytes or SentencePiece, or one that came from such files.
      max_length: Positions of the model.

    Raises:
      InputError: it is of another kind.
    """
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return {name: text for name, text in tokenizer.files.items() if text}
    if isinstance(tokenizer, ByteTokenizer):
        backend, names = _bytes(tokenizer)
    elif isinstance(tokenizer, SentencePieceTokenizer):
        backend, names = _sentencepiece(tokenizer)
    else:
        raise InputError(f"tokenizer of kind {tokenizer.kind!r}: expected bytes or SentencePiece")
    start, pad = names[tokenizer.start_id], names[tokenizer.pad_id]
    backend.add_special_tokens([AddedToken(name, special=True) for name in names.values()])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, tokenizer.start_id)]
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": start,
        "eos_token": start,
        "pad_token": pad,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
    }
    return {MODEL: backend.to_str(pretty=False) + "\n", CONFIG: json.dumps(config, indent=2) + "\n"}


def _bytes(tokenizer: ByteTokenizer) -> tuple[Backend, dict[int, str]]:
    """Byte-level BPE without a merge, whose ids are the bytes; and the names of special tokens."""
    vocabulary = {character: byte for byte, character in byte_level_characters().items()}
    names = {number: f"<|{number}|>" for number in range(256, tokenizer.vocab_size)}
    names |= {tokenizer.start_id: "<|start|>", tokenizer.pad_id: "<|pad|>"}
    vocabulary |= {name: number for number, name in names.items()}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return backend, names


def _sentencepiece(tokenizer: SentencePieceTokenizer) -> tuple[Backend, dict[int, str]]:
    """The same pieces as the SentencePiece model, BPE or unigram; and the names of special tokens."""
    messages: Any = sentencepiece_model_pb2  # generated: no types
    proto = messages.ModelProto.FromString(tokenizer.model)
    kinds = messages.ModelProto.SentencePiece
    pieces = [piece.piece for piece in proto.pieces]
    special = {n: p.piece for n, p in enumerate(proto.pieces) if p.type in (kinds.CONTROL, kinds.UNKNOWN)}
    whole = [p.piece for p in proto.pieces if p.type == kinds.USER_DEFINED]
    unknown = next(n for n, p in enumerate(proto.pieces) if p.type == kinds.UNKNOWN)
    inner: models.Model
    if proto.trainer_spec.model_type == messages.TrainerSpec.BPE:
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        merges = list(_merges([(p.piece, p.score) for p in proto.pieces if p.type == kinds.NORMAL]))
        inner = models.BPE(vocab=vocabulary, merges=merges, unk_token=pieces[unknown], byte_fallback=True)
    else:
        scored = [(p.piece, p.score) for p in proto.pieces]
        inner = models.Unigram(scored, unk_id=unknown, byte_fallback=True)
    backend = Backend(inner)
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(ESCAPE, f"{ESCAPE}0"),
            normalizers.Replace(SPACE_MARK, f"{ESCAPE}1"),
            normalizers.Replace(" ", SPACE_MARK),
        ]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE_MARK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Replace(f"{ESCAPE}1", SPACE_MARK),
            decoders.Replace(f"{ESCAPE}0", ESCAPE),
        ]
    )
    backend.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in whole])
    return backend, special


def _merges(scored: Iterable[tuple[str, float]]) -> Iterable[tuple[str, str]]:
    """All pairs of pieces that make a piece, the best piece first, as SentencePiece merges them."""
    scored = list(scored)
    known = {piece for piece, _ in scored}
    for piece, _ in sorted(scored, key=lambda each: -each[1]):
        for cut in range(1, len(piece)):
            if piece[:cut] in known and piece[cut:] in known:
                yield piece[:cut], piece[cut:]
