"""One request in the engine's process, from its prompts to its last piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from predawn.kernels.engine.asks import AnyAsk, ChatAsk, CompletionAsk
from predawn.kernels.engine.channels import Channels
from predawn.kernels.engine.prompts import Prompt
from predawn.kernels.engine.protocol import Began, Ended, News, Piece
from predawn.kernels.engine.sampling import Sampling
from predawn.kernels.engine.utterance import Detokenizer, SpokenToken, Utterance, Vocabulary


class CountedToken(SpokenToken, Protocol):
    """A token that tells to which choice it belongs."""

    @property
    def index(self) -> int: ...
    @property
    def cached(self) -> int:
        """Tokens of the prompt that need not be computed."""
        ...


class Speaker(Vocabulary, Protocol):
    """The tokenizer as sessions use it."""

    def stream(self) -> Detokenizer: ...


@dataclass(frozen=True, slots=True)
class Call:
    """What the engine is asked for one prompt."""

    key: str
    """Names the prompt: `REQUEST/PROMPT`."""
    prompt: list[int]
    sampling: Sampling
    salt: str | None


class Session:
    """Turns the engine's tokens for one request into news, and counts them.

    Choices are numbered prompt by prompt: choice `i` of prompt `p` has the index `p * n + i`. Without streaming each
    choice comes as one piece, so that what nobody reads piecewise costs the reader one message.
    """

    def __init__(self, number: int, ask: AnyAsk, prompts: list[Prompt], speaker: Speaker) -> None:
        self.number = number
        self.ask = ask
        self._prompts = prompts
        self._streams = ask.stream is True
        self._cached = [0] * len(prompts)
        self._kept: dict[int, list[Piece]] = {}
        scored, stops = ask.top is not None, ask.stops

        def utterance(index: int, prompt: Prompt) -> Utterance:
            channels = Channels(prompt.beginning, continues=prompt.continues)
            place = (number, index)
            return Utterance(place, speaker.stream(), speaker, channels, stops=stops, scored=scored)

        owners = [prompt for prompt in prompts for _ in range(ask.choices)]
        self._utterances = [utterance(index, prompt) for index, prompt in enumerate(owners)]

    @property
    def is_over(self) -> bool:
        """Whether every choice has ended."""
        return all(utterance.is_over for utterance in self._utterances)

    def calls(self, context: int, *, lookup: bool, salt: str | None) -> Iterator[Call]:
        """What to ask the engine; answers longer than the context are cut to it."""
        for place, prompt in enumerate(self._prompts):
            sampling = sampling_of(self.ask, context - len(prompt.tokens), lookup=lookup)
            yield Call(f"{self.number}/{place}", prompt.tokens, sampling, salt)

    def begin(self) -> list[News]:
        """What is said once the engine has taken the request: `Began`, and the prompts where they are to be echoed."""
        ask = self.ask
        news: list[News] = [Began(self.number, len(self._utterances), self._streams, ask.wants_usage)]
        if isinstance(ask, CompletionAsk) and ask.echo:
            owners = [prompt for prompt in self._prompts for _ in range(ask.choices)]
            for index, prompt in enumerate(owners):
                news += self._told(Piece(self.number, index, prompt.text))
        return news

    def hear(self, place: int, token: CountedToken, cancel: Callable[[int], None]) -> list[News]:
        """What a token for prompt `place` gives to say; `cancel` ends a choice that came to a stop string."""
        utterance = self._utterances[place * self.ask.choices + token.index]
        if utterance.is_over:  # tokens of the same step after a stop string
            return []
        self._cached[place] = token.cached
        piece = utterance.hear(token)
        if piece is not None and piece.finish is not None and token.finish is None:
            cancel(token.index)
        news = self._told(piece) if piece is not None else []
        if self.is_over:
            news.append(self._ended())
        return news

    def _told(self, piece: Piece) -> list[News]:
        if self._streams:
            return [piece]
        kept = self._kept.setdefault(piece.index, [])
        kept.append(piece)
        return [_joined(self._kept.pop(piece.index))] if piece.finish is not None else []

    def _ended(self) -> Ended:
        return Ended(
            id=self.number,
            prompt=sum(len(prompt.tokens) for prompt in self._prompts),
            cached=sum(self._cached),
            output=sum(utterance.output_tokens for utterance in self._utterances),
            reasoning=sum(utterance.reasoning_tokens for utterance in self._utterances),
        )


def sampling_of(ask: AnyAsk, room: int, *, lookup: bool) -> Sampling:
    """The engine's parameters for a request whose answers have `room` tokens. Raises `AskError`."""
    return Sampling(
        max_tokens=min(ask.limit or room, room),
        temperature=1.0 if ask.temperature is None else ask.temperature,
        top_p=1.0 if ask.top_p is None else ask.top_p,
        top_k=max(ask.top_k or 0, 0),  # -1 says "all" elsewhere
        min_p=ask.min_p or 0.0,
        seed=ask.seed,
        n=ask.choices,
        logprobs=ask.top,
        frequency_penalty=ask.frequency_penalty or 0.0,
        presence_penalty=ask.presence_penalty or 0.0,
        logit_bias=ask.biases,
        ignore_eos=ask.ignore_eos is True,
        repeat=ask.repeat,
        lookup=lookup if ask.lookup is None else ask.lookup,
        width=ask.width or 1,
    )


def prompt_param(ask: AnyAsk) -> str:
    """The member that holds what is continued."""
    return "messages" if isinstance(ask, ChatAsk) else "prompt"


def _joined(pieces: list[Piece]) -> Piece:
    """One piece that says what all of them say."""
    last = pieces[-1]
    scored = last.scores is not None
    return Piece(
        last.id,
        last.index,
        "".join([piece.text for piece in pieces]),
        "".join([piece.reasoning for piece in pieces]),
        last.finish,
        [score for piece in pieces for score in piece.scores or ()] if scored else None,
        [score for piece in pieces for score in piece.reasoning_scores or ()] if scored else None,
    )
