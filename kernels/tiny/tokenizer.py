"""A tokenizer in which each word and number of the world is one token, and any other text is spelt in bytes.

Byte-level BPE whose merges spell each known word from its left: a word is found as the longest known beginning. All
white space counts as one blank, and words carry the blank before them, so that decoding is plain joining.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from predawn.kernels.tiny.language import DRILL_REQUEST, FILLERS, NOTES_HEADING, SLEEP_REQUESTS
from predawn.kernels.tiny.world import LARGEST, NAMES, NOUNS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BEGIN, SYSTEM, USER, ASSISTANT, END = "<|begin|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
THINK, ANSWER = "<think>", "</think>"
SPECIAL = (BEGIN, SYSTEM, USER, ASSISTANT, END, THINK, ANSWER)

_GRAMMAR = "has more fewer twice three times half as many than How does have is from = + - * / Wait And The A"

CHAT_TEMPLATE = (
    "<|begin|>"
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' or message.role == 'developer' -%}<|system|> {{ message.content | trim }}<|end|>"
    "{%- elif message.role == 'user' -%}<|user|> {{ message.content | trim }}<|end|>"
    "{%- elif message.role == 'assistant' -%}"
    "<|assistant|>"
    "{%- if loop.last and message.reasoning_content -%}<think> {{ message.reasoning_content | trim }}{%- endif -%}"
    "{%- if message.content or not (loop.last and message.reasoning_content) -%}</think>"
    "{%- if message.content %} {{ message.content | trim }}{% endif -%}{%- endif -%}<|end|>"
    "{%- else -%}{{ raise_exception('predawn-tiny knows the roles system, user and assistant') }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>"
    "{%- if reasoning_effort == 'auto' -%}"
    "{%- elif enable_thinking is false or reasoning_effort in ['none', 'minimal'] -%}</think>"
    "{%- else -%}<think>{%- endif -%}"
    "{%- endif -%}"
)
"""Thinks by default; `enable_thinking=False` or `reasoning_effort` none or minimal answers at once, `auto` lets the
model choose. Thoughts of earlier turns are left out."""


def words() -> list[str]:
    """Every word the model has a token for."""
    sentences = [*FILLERS, *SLEEP_REQUESTS, NOTES_HEADING, DRILL_REQUEST]
    spoken = [word for text in sentences for word in re.findall(r"[A-Za-z]+", text)]
    numbers = [str(number) for number in range(LARGEST + 1)]
    return list(dict.fromkeys([*_GRAMMAR.split(), *NAMES, *NOUNS, *spoken, *numbers]))


def build() -> Tokenizer:
    """The tokenizer; the same each time."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    merges: list[tuple[str, str]] = []
    for word in words():
        piece = "Ġ"
        for letter in word:
            if piece + letter not in vocabulary:
                merges.append((piece, letter))
                vocabulary[piece + letter] = len(vocabulary)
            piece += letter
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    return tokenizer
