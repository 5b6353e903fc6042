"""Text to tokens and back, with control tokens that no text can forge.

A tokenizer finds its control tokens, such as `<|im_end|>`, wherever they stand in a text, so a message that spells one
would end its own turn and speak for somebody else. Here the tokens' spellings are changed when the tokenizer is built:
each is wrapped in a character that is removed from every text. What a template writes is rewritten to that form; what a
message says cannot be, because `guarded` broke it up before the template saw it.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from predawn.kernels.engine.errors import CheckpointError

BREAK = "\ufdd0"
"""Breaks up control tokens in messages; a Unicode noncharacter, which no text for interchange holds."""
_CONTROL = "\ufdd1"
"""Wraps the spelling of control tokens."""
_FORBIDDEN = str.maketrans("", "", BREAK + _CONTROL)
REASONING_TAGS = ("<think>", "</think>")
"""Shown in what a model says, though they may be control tokens: its readers split reasoning from answer there."""
_REFETCH = "fetch it again"


@dataclass(frozen=True, slots=True)
class Control:
    """A token that is no text: special ones, and those added beside the vocabulary, such as `<tool_call>`."""

    id: int
    text: str
    special: bool
    """Left out of what a model says."""


class Tokenizer:
    """One model's tokenizer; not for several threads at once."""

    def __init__(
        self,
        definition: Mapping[str, Any],
        *,
        file: Path,
        vocab: int,
        eos_ids: Iterable[int] = (),
        bos_id: int | None = None,
        adds_bos: bool = False,
    ) -> None:
        """`definition` is what `tokenizer.json` holds; `vocab` is how many tokens the model knows."""
        self.controls = _controls(definition, file)
        self._hidden = frozenset(one.id for one in self.controls if one.special and one.text not in REASONING_TAGS)
        self._of_text = {control.text: control.id for control in self.controls}
        self._spelt = re.compile("|".join(map(re.escape, sorted(self._of_text, key=len, reverse=True))) or r"(?!)")
        self._starts = _proper_prefixes(self._of_text)
        try:
            wrapped = _wrapped(definition, self.controls)
        except (TypeError, ValueError, AttributeError, KeyError) as exc:
            raise CheckpointError(file, f"is no tokenizer ({exc})", fix=_REFETCH) from None
        self._inner = _built(wrapped, self.controls, file)
        self._bytes = _bytes_of(self._inner, self.controls, definition)
        if len(self._bytes) > vocab:
            raise CheckpointError(
                file,
                f"has {len(self._bytes)} tokens, but the model knows {vocab}",
                fix="use the tokenizer that belongs to the weights",
            )
        self.eos_ids = tuple(dict.fromkeys(eos_ids))
        self.bos_id = bos_id
        self.adds_bos = adds_bos
        """Whether a raw prompt begins with `bos_id` by this model's custom; templates write it themselves."""
        self._prepends = _prepends_space(definition)

    def __repr__(self) -> str:
        return f"Tokenizer({len(self._bytes)} tokens, {len(self.controls)} of them control)"

    @property
    def longest_token(self) -> int:
        """Bytes of the longest token of text: a text of n bytes has at least n / longest_token tokens."""
        return max(map(len, self._bytes), default=1) or 1

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokens of `text`, nothing added before or after it.

        With `special`, spellings of control tokens stand for them, except where `guarded` broke them up. Without it,
        no text whatever gives a control token.
        """
        text = text.replace(_CONTROL, "").encode("utf-8", "replace").decode("utf-8")  # lone surrogates become "?"
        if special:
            text = self._spelt.sub(lambda found: f"{_CONTROL}{found[0]}{_CONTROL}", text)
        return list(self._inner.encode(text.replace(BREAK, ""), add_special_tokens=False).ids)

    def guarded(self, text: str, *, spare: Sequence[str] = ()) -> str:
        """`text` so that no control token is found in it, nor across its end, when it is part of a rendered prompt.

        `spare` are spellings that are left alone.
        """
        text = text.translate(_FORBIDDEN)

        def broken(found: re.Match[str]) -> str:
            spelling = found[0]
            return spelling if spelling in spare else spelling[0] + BREAK + spelling[1:]

        while (more := self._spelt.sub(broken, text)) != text:  # again: what is left of one may be another
            text = more
        return text + BREAK if text.endswith(self._starts) else text

    def token_bytes(self, token: int) -> bytes:
        """What a token stands for, control tokens included; nothing for ids without a token."""
        return self._bytes[token] if 0 <= token < len(self._bytes) else b""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a whole sequence, special tokens left out."""
        stream = self.stream()
        text = "".join([stream.push(token) for token in ids]) + stream.rest()
        return text[1:] if self._prepends and text.startswith(" ") else text

    def stream(self) -> Detokenizer:
        """Text of tokens as they come, as the continuation of other text."""
        return Detokenizer(self, self._hidden)


class Detokenizer:
    """Text of tokens as they come; never half a character."""

    def __init__(self, tokenizer: Tokenizer, hidden: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._hidden = hidden
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that is complete now; bytes that are no UTF-8 become U+FFFD."""
        if token in self._hidden:
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def rest(self) -> str:
        """What a character that never became complete is shown as."""
        return self._decoder.decode(b"", final=True)


def read(
    folder: Path, *, vocab: int, eos_ids: Iterable[int] = (), bos_id: int | None = None
) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer of a folder, and its `tokenizer_config.json`, which is empty if there is none."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise CheckpointError(
            path,
            "is missing",
            fix="save the model's tokenizer with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
        )
    definition = _json_object(path)
    about_path = folder / "tokenizer_config.json"
    about = _json_object(about_path) if about_path.exists() else {}
    spelt = {control.text: control.id for control in _controls(definition, path)}
    bos = spelt.get(token_text(about.get("bos_token")), bos_id)
    eos = spelt.get(token_text(about.get("eos_token")))
    known = [*eos_ids, *([] if eos is None else [eos])]
    adds = bos is not None and _first_added(definition, path) == bos
    return Tokenizer(definition, file=path, vocab=vocab, eos_ids=known, bos_id=bos, adds_bos=adds), about


def token_text(entry: object) -> str:
    """`tokenizer_config.json` gives a token as text or as an object with its content."""
    if isinstance(entry, Mapping):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else ""


def _json_object(path: Path) -> dict[str, Any]:
    from predawn.kernels.engine.hf import read_json

    return read_json(path)


def _controls(definition: Mapping[str, Any], file: Path) -> tuple[Control, ...]:
    """Added tokens, except those of blanks alone: these are a shorter spelling of text."""
    try:
        return tuple(
            Control(int(one["id"]), str(one["content"]), bool(one["special"]))
            for one in definition.get("added_tokens") or ()
            if one["special"] or one["content"].strip()
        )
    except (TypeError, KeyError, ValueError, AttributeError) as exc:
        raise CheckpointError(file, f"is not understood ({exc!r})", tensor="added_tokens", fix=_REFETCH) from None


def _proper_prefixes(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple({text[:length] for text in texts for length in range(1, len(text))})


def _wrapped(definition: Mapping[str, Any], controls: Sequence[Control]) -> dict[str, Any]:
    """The definition with all control tokens spelt as no text is, in vocabulary and options alike."""
    wrapped = {control.text: f"{_CONTROL}{control.text}{_CONTROL}" for control in controls}
    made = dict(definition)
    added = definition.get("added_tokens") or ()
    made["added_tokens"] = [{**one, "content": wrapped.get(one["content"], one["content"])} for one in added]
    made["post_processor"] = None  # it would add tokens, which `encode` never does
    made["truncation"] = made["padding"] = None
    inner = dict(definition.get("model") or {})
    vocab = inner.get("vocab")
    if isinstance(vocab, dict):
        inner["vocab"] = {wrapped.get(piece, piece): number for piece, number in vocab.items()}
    elif isinstance(vocab, list):
        inner["vocab"] = [[wrapped.get(piece, piece), score] for piece, score in vocab]
    if inner.get("unk_token") in wrapped:
        inner["unk_token"] = wrapped[inner["unk_token"]]
    made["model"] = inner
    return made


def _built(definition: Mapping[str, Any], controls: Sequence[Control], file: Path) -> tokenizers.Tokenizer:
    try:
        made = tokenizers.Tokenizer.from_buffer(json.dumps(definition).encode())
    except ValueError as exc:
        raise CheckpointError(file, f"is no tokenizer ({exc!s:.200})", fix=_REFETCH) from None
    for control in controls:
        if made.token_to_id(f"{_CONTROL}{control.text}{_CONTROL}") != control.id:
            raise CheckpointError(file, f"does not give it its id {control.id}", tensor=control.text, fix=_REFETCH)
    return made


def _first_added(definition: Mapping[str, Any], file: Path) -> int | None:
    """The token that the tokenizer's own post-processor puts before a text."""
    ids = _built(definition, (), file).encode("").ids
    return ids[0] if ids else None


def _parts(definition: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """A normalizer, pre-tokenizer or decoder as the list of its steps."""
    found = definition.get(key)
    if not isinstance(found, Mapping):
        return []
    for inner in ("normalizers", "pretokenizers", "decoders"):
        if isinstance(found.get(inner), list):
            return [step for step in found[inner] if isinstance(step, Mapping)]
    return [found]


def _prepends_space(definition: Mapping[str, Any]) -> bool:
    """Whether a blank is put before each text, as SentencePiece does."""
    for step in (*_parts(definition, "normalizer"), *_parts(definition, "pre_tokenizer")):
        if step.get("type") == "Prepend":
            return True
        if step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never":
            return True
    return False


def _bytes_of(made: tokenizers.Tokenizer, controls: Sequence[Control], definition: Mapping[str, Any]) -> list[bytes]:
    """What each token stands for, by its id."""
    decoders = {step.get("type") for step in _parts(definition, "decoder")}
    piece_bytes = _byte_level if "ByteLevel" in decoders else _sentence_piece
    vocab = made.get_vocab(with_added_tokens=True)
    found = [b""] * (max(vocab.values(), default=-1) + 1)
    for piece, number in made.get_vocab(with_added_tokens=False).items():
        found[number] = piece_bytes(piece)
    for number, added in made.get_added_tokens_decoder().items():
        found[number] = added.content.encode()
    for control in controls:
        found[control.id] = control.text.encode()
    return found


def _byte_alphabet() -> dict[str, int]:
    """The characters that stand for bytes in byte-level vocabularies: printable ones for themselves (GPT-2)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(rest)}


_BYTES = _byte_alphabet()


def _byte_level(piece: str) -> bytes:
    if all(letter in _BYTES for letter in piece):
        return bytes([_BYTES[letter] for letter in piece])
    return piece.encode()


def _sentence_piece(piece: str) -> bytes:
    if re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", piece):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("\u2581", " ").encode()
