"""The tokenizer that a GGUF file describes, in the form of `tokenizer.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from predawn.kernels.engine.errors import CheckpointError
from predawn.kernels.engine.tokens import Tokenizer

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)
ENDS = ("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "</s>")
"""Control tokens that end an answer in any model that has them, as llama.cpp takes them."""
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(*, splits_words: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": splits_words}


def _then(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


_PRE_TOKENIZERS = {
    "gpt-2": _byte_level(splits_words=True),
    "smollm": _then({"type": "Digits", "individual_digits": True}, _byte_level(splits_words=True)),
    "llama-bpe": _then(
        {"type": "Split", "pattern": {"Regex": _LLAMA3}, "behavior": "Isolated", "invert": False},
        _byte_level(splits_words=False),
    ),
}
"""How text is cut into words before merging, by llama.cpp's names; names of the same way are alike."""
_ALIKE = {"starcoder": "smollm", "refact": "smollm", "llama3": "llama-bpe", "llama-v3": "llama-bpe"}


def tokenizer(path: Path, metadata: Mapping[str, Any], vocab: int) -> Tokenizer:
    """Raises `CheckpointError` for kinds of tokenizers that would be rebuilt wrongly."""
    kind = metadata.get("tokenizer.ggml.model")
    pieces = _listed(path, metadata, "tokens", str)
    kinds = _listed(path, metadata, "token_type", int) or [_NORMAL] * len(pieces)
    if len(kinds) != len(pieces):
        raise _damaged(path, "token_type", "has not one type for each token")
    builders: dict[object, Callable[..., dict[str, Any]]] = {"gpt2": _gpt2, "llama": _sentence_piece}
    if kind not in builders:
        raise CheckpointError(
            path,
            f"{kind!r:.60} is none of gpt2, llama",
            tensor="tokenizer.ggml.model",
            fix="use the folder of the same model with its tokenizer.json",
        )
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "post_processor": None,
        "added_tokens": _added(pieces, kinds),
        **builders[kind](path, metadata, pieces, kinds),
    }
    controls = {piece for piece, one in zip(pieces, kinds, strict=True) if one == _CONTROL}
    named = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    ends = [one for one in named if isinstance(one, int)] + [pieces.index(end) for end in ENDS if end in controls]
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    return Tokenizer(
        definition,
        file=path,
        vocab=vocab,
        eos_ids=ends,
        bos_id=bos if isinstance(bos, int) else None,
        adds_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", kind == "llama")) and isinstance(bos, int),
    )


def _damaged(path: Path, name: str, what: str) -> CheckpointError:
    return CheckpointError(path, what, tensor=f"tokenizer.ggml.{name}", fix="fetch it again")


def _listed(path: Path, metadata: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    found = metadata.get(f"tokenizer.ggml.{name}", [])
    if not isinstance(found, list) or not all(isinstance(one, kind) for one in found):
        raise _damaged(path, name, "is not a list as it should be")
    if name == "tokens" and not found:
        raise _damaged(path, name, "is missing")
    return found


def _added(pieces: Sequence[str], kinds: Sequence[int]) -> list[dict[str, Any]]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": number, "content": piece, "special": kind != _USER, **plain}
        for number, (piece, kind) in enumerate(zip(pieces, kinds, strict=True))
        if kind in (_CONTROL, _USER, _UNKNOWN)
    ]


def _gpt2(path: Path, metadata: Mapping[str, Any], pieces: Sequence[str], _kinds: Sequence[int]) -> dict[str, Any]:
    """Byte-level BPE."""
    pre = metadata.get("tokenizer.ggml.pre")
    name = _ALIKE.get(str(pre), str(pre))
    if name not in _PRE_TOKENIZERS:
        raise CheckpointError(
            path,
            f"{pre!r:.60} is none of {', '.join([*_PRE_TOKENIZERS, *_ALIKE])}",
            tensor="tokenizer.ggml.pre",
            fix="use the folder of the same model with its tokenizer.json",
        )
    merges = [merge.split(" ", 1) for merge in _listed(path, metadata, "merges", str)]
    model = {"type": "BPE", "merges": merges, "vocab": _vocab(pieces), "ignore_merges": name == "llama-bpe"}
    return {
        "normalizer": None,
        "pre_tokenizer": _PRE_TOKENIZERS[name],
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": model,
    }


def _sentence_piece(
    path: Path, metadata: Mapping[str, Any], pieces: Sequence[str], kinds: Sequence[int]
) -> dict[str, Any]:
    """SentencePiece BPE: the merge that makes the best-scored piece comes first."""
    scores = _listed(path, metadata, "scores", float)
    if len(scores) != len(pieces):
        raise _damaged(path, "scores", "has not one score for each token")
    vocab = _vocab(pieces)
    found = sorted(_merges(pieces, kinds, scores, vocab), key=lambda one: (-one[0], vocab[one[1]], vocab[one[2]]))
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    prefix = [{"type": "Prepend", "prepend": "\u2581"}] if metadata.get("tokenizer.ggml.add_space_prefix", True) else []
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, blanks]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "unk_token": pieces[unknown] if isinstance(unknown, int) and 0 <= unknown < len(pieces) else None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": [[left, right] for _, left, right in found],
        },
    }


def _merges(
    pieces: Sequence[str], kinds: Sequence[int], scores: Sequence[float], vocab: Mapping[str, int]
) -> Iterator[tuple[float, str, str]]:
    mergeable = {piece for piece, kind in zip(pieces, kinds, strict=True) if kind == _NORMAL}
    for piece in mergeable:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in mergeable and right in mergeable:
                yield scores[vocab[piece]], left, right


def _vocab(pieces: Sequence[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(pieces)}
