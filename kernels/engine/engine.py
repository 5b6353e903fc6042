"""The engine: requests in, tokens out, a step at a time."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from collections.abc import Sequence as SequenceOf
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from predawn.kernels.engine.decoder import DecoderModel
from predawn.kernels.engine.kv import PAGE
from predawn.kernels.engine.lookup import Lookup
from predawn.kernels.engine.pages import PagePool
from predawn.kernels.engine.prefix import PrefixCache
from predawn.kernels.engine.refusals import ContextOverflow, Overloaded
from predawn.kernels.engine.sampler import Choice, Draw, sample, uniform
from predawn.kernels.engine.sampling import Sampling
from predawn.kernels.engine.scheduler import Scheduler
from predawn.kernels.engine.sequence import Finish, Request, Sequence, Token
from predawn.kernels.engine.stats import Counts, EngineStats
from predawn.kernels.engine.steps import Steps
from predawn.kernels.engine.throughput import Throughput
from predawn.kernels.engine.width import Vote


@dataclass(frozen=True, slots=True)
class _Rows:
    """What one sequence computes in a decode step: tokens it has, then tokens it may get."""

    sequence: Sequence
    known: list[int]
    draft: list[int]

    @property
    def tokens(self) -> list[int]:
        return self.known + self.draft

    @property
    def reaches_end(self) -> bool:
        """Whether the last known token is among them, so that a new one can be chosen."""
        return len(self.known) == self.sequence.pending


class Engine:
    """Continuous batching over one model: synchronous, without threads, not safe to share between them.

    Each `step` computes at most `prefill_chunk` prompt tokens and then one decode batch of at most `max_batch` rows, so
    a long prompt delays running answers by one chunk at most. What a request gets depends on its prompt and sampling
    alone, bit for bit. `most_width` above 1 allows the experiment of `width.py`.
    """

    def __init__(
        self,
        model: DecoderModel,
        *,
        pages: int,
        max_waiting: int,
        eos_ids: Collection[int],
        max_batch: int = 16,
        prefill_chunk: int = 256,
        most_width: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_context = min(model.config.max_positions, pages * PAGE)
        """Tokens of prompt and answer together."""
        self._model = model
        self._kv = model.new_kv(pages + most_width - 1)
        self._vote = Vote(model, self._kv, range(pages, pages + most_width - 1))
        self._pool = PagePool(pages)
        self._prefixes = PrefixCache(self._pool, prefill_chunk)
        self._scheduler = Scheduler(self._pool, self._prefixes, self._copy_page, max_batch=max_batch)
        self._requests: dict[str, Request] = {}
        self._arrivals = 0
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._most_width = most_width
        self._prefill_chunk = prefill_chunk
        self._owes_decoding = False
        self._eos_ids = frozenset(eos_ids)
        self._clock = clock
        self._throughput = Throughput()
        self._counts = Counts()
        self._steps = Steps()

    def __repr__(self) -> str:
        return f"<Engine {self._scheduler!r}>"

    @property
    def idle(self) -> bool:
        """Whether `step` has nothing to do."""
        return not self._requests

    def submit(self, request_id: str, prompt: SequenceOf[int], sampling: Sampling, *, salt: str | None = None) -> None:
        """Takes a request; its tokens come from later steps.

        `salt` lets it share computed prompt chunks with other requests of the same salt. Raises Overloaded,
        ContextOverflow, or ValueError that begins with the name of the parameter that is wrong.
        """
        config = self._model.config
        if request_id in self._requests:
            raise ValueError(f"request_id {request_id!r} is in use")
        if not prompt:
            raise ValueError("prompt must have at least one token")
        if not 0 <= min(prompt) <= max(prompt) < config.vocab:
            raise ValueError(f"prompt must have token ids below {config.vocab}")
        if len(prompt) >= self.max_context:
            raise ContextOverflow(len(prompt), self.max_context)
        sampling.check(config.vocab, config.shape.repeat, self._most_width)
        self._refuse_if_overloaded()
        request = Request(
            id=request_id,
            number=self._arrivals,
            prompt=tuple(prompt),
            sampling=sampling,
            repeat=sampling.repeat or config.shape.repeat,
            seed=secrets.randbits(64) if sampling.seed is None else sampling.seed,
            limit=min(len(prompt) + sampling.max_tokens, self.max_context),
        )
        if salt is not None:
            request.chunks = self._prefixes.keys(salt, request.repeat, request.prompt)
        request.choices = [Sequence(request, index, list(prompt)) for index in range(sampling.n)]
        self._arrivals += 1
        self._requests[request_id] = request
        self._scheduler.add(request)

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """Forgets a request, or one choice of it; its pages are free on return. What is unknown or over is ignored."""
        request = self._requests.get(request_id)
        for sequence in tuple(request.choices) if request else ():
            if index in (None, sequence.index):
                self._retire(sequence)

    def step(self) -> list[Token]:
        """Computes a little of what there is to do and returns the tokens that came of it, in order for each choice.

        First tokens are returned at once, without everybody's next ones; but not twice in a row, however many arrive.
        """
        with torch.inference_mode():
            self._scheduler.admit()
            tokens = self._prefill()
            self._scheduler.admit()  # choices that waited for their sibling's prompt
            self._owes_decoding = bool(tokens) and not self._owes_decoding
            return tokens if self._owes_decoding else tokens + self._decode()

    def stats(self) -> EngineStats:
        """Cheap enough to call after each step."""
        return EngineStats(
            running=len(self._scheduler.active),
            waiting=self._scheduler.waiting_requests,
            pages=self._pool.size,
            free_pages=self._pool.free,
            preemptions=self._scheduler.preemptions,
            **asdict(self._counts),
            steps=self._steps.told(),
        )

    def _refuse_if_overloaded(self) -> None:
        if self._scheduler.queued_requests(1) > self._max_waiting:
            self._counts.refused += 1
            raise Overloaded(self._scheduler.queued_requests(), self._throughput.wait_s(self._scheduler.waiting))

    def _copy_page(self, source: int, target: int) -> None:
        self._kv.k[:, target] = self._kv.k[:, source]
        self._kv.v[:, target] = self._kv.v[:, source]

    def _prefill(self) -> list[Token]:
        """One chunk, or several prompts that together are no longer than one."""
        tokens: list[Token] = []
        budget = self._prefill_chunk
        for sequence in self._scheduler.prompting():
            size = self._next_chunk(sequence)
            if size > budget:
                break
            budget -= size
            logits = self._compute_chunk(sequence, size)
            if sequence.prompted:
                tokens += self._begin_choices(sequence, logits)
        return tokens

    def _next_chunk(self, sequence: Sequence) -> int:
        """Chunks end at multiples of the chunk's length: recomputed, they are cut alike."""
        return min(self._prefill_chunk, len(sequence.request.prompt) - sequence.computed)

    def _compute_chunk(self, sequence: Sequence, size: int) -> Tensor:
        begun = self._clock()
        request, start = sequence.request, sequence.computed
        logits = self._model.prefill(
            torch.tensor(request.prompt[start : start + size]),
            start,
            torch.tensor(sequence.pages, dtype=torch.int32),
            self._kv,
            repeat=request.repeat,
            want="last",
        )
        sequence.computed += size
        self._counts.prefill_tokens += size
        took_s = self._clock() - begun
        self._throughput.prefill_s.add(took_s, size)
        self._steps.prefill.add(took_s)
        return logits

    def _begin_choices(self, sequence: Sequence, logits: Tensor) -> list[Token]:
        """The first token of every choice, all from the prompt's last logits; none if it was computed anew."""
        self._scheduler.prompt_computed(sequence)
        if sequence.begun:
            return []
        self._counts.cached_tokens += sequence.request.cached
        choices = tuple(sequence.request.choices)
        draws = [_draw(choice, len(choice.tokens), ()) for choice in choices]
        picked = sample(logits.expand(len(choices), -1).contiguous(), draws)
        return [self._append(choice, pick) for choice, pick in zip(choices, picked, strict=True)]

    def _decode(self) -> list[Token]:
        begun = self._clock()
        batch = self._scheduler.batch()
        if not batch:
            return []
        groups: dict[int, list[_Rows]] = {}
        for rows in self._rows(batch):
            groups.setdefault(rows.sequence.request.repeat, []).append(rows)
        tokens: list[Token] = []
        for repeat, group in groups.items():
            logits = self._compute_rows(group, repeat)
            self._widen(group, logits)
            tokens += self._choose(group, logits)
        took_s = self._clock() - begun
        self._throughput.decode_s.add(took_s, len(tokens))
        self._steps.decode.add(took_s)
        self._steps.batch.add(len(batch))
        return tokens

    def _rows(self, batch: list[Sequence]) -> list[_Rows]:
        """A row for each sequence; the batch's other rows go to keys to compute anew and to drafts, in equal shares."""
        spare = self._max_batch - len(batch)
        work = []
        for place, sequence in enumerate(batch):
            most = spare // (len(batch) - place)
            known = sequence.tokens[sequence.computed : sequence.computed + 1 + most]
            draft = self._draft(sequence, 1 + most - len(known)) if len(known) == sequence.pending else []
            spare -= len(known) + len(draft) - 1
            work.append(_Rows(sequence, known, draft))
        return work

    def _draft(self, sequence: Sequence, most: int) -> list[int]:
        if not sequence.request.sampling.lookup or sequence.request.sampling.width > 1:
            return []
        if sequence.lookup is None:
            sequence.lookup = Lookup(sequence.tokens)
        draft = sequence.lookup.draft(min(most, sequence.remaining - 1))
        rows = self._scheduler.stretch(sequence, sequence.pending + len(draft))
        return draft[: rows - sequence.pending]

    def _compute_rows(self, group: list[_Rows], repeat: int) -> Tensor:
        """Logits of all rows, sequence by sequence."""
        tokens: list[int] = []
        positions: list[int] = []
        pages: list[list[int]] = []
        widest = max(len(rows.sequence.pages) for rows in group)
        for rows in group:
            sequence, count = rows.sequence, len(rows.tokens)
            tokens += rows.tokens
            positions += range(sequence.computed, sequence.computed + count)
            pages += [sequence.pages + [0] * (widest - len(sequence.pages))] * count
        self._counts.decode_rows += len(tokens)
        return self._model.decode(
            torch.tensor(tokens),
            torch.tensor(positions, dtype=torch.int32),
            torch.tensor(pages, dtype=torch.int32),
            self._kv,
            repeat=repeat,
        )

    def _widen(self, group: list[_Rows], logits: Tensor) -> None:
        """Experiment: replaces the logits of sequences that asked for a vote."""
        last = -1
        for rows in group:
            last += len(rows.tokens)
            if rows.sequence.request.sampling.width > 1 and rows.reaches_end:
                logits[last] = self._vote(logits[last], rows.sequence)

    def _choose(self, group: list[_Rows], logits: Tensor) -> list[Token]:
        """Samples after each row that has a choice to make, and appends as far as the drafts were right."""
        draws: list[Draw] = []
        sources: list[int] = []
        first = 0
        for rows in group:
            if rows.reaches_end:
                sequence, end = rows.sequence, len(rows.sequence.tokens)
                draws += [_draw(sequence, end + ahead, rows.draft[:ahead]) for ahead in range(len(rows.draft) + 1)]
                sources += range(first + len(rows.known) - 1, first + len(rows.tokens))
            first += len(rows.tokens)
        picked = iter(sample(logits if len(sources) == len(logits) else logits[sources], draws) if draws else ())
        tokens: list[Token] = []
        for rows in group:
            picks = [next(picked) for _ in range(len(rows.draft) + 1)] if rows.reaches_end else []
            tokens += self._accept(rows, picks)
        return tokens

    def _accept(self, rows: _Rows, picks: list[Choice]) -> list[Token]:
        """Appends picks until one differs from the draft it would have to follow, or ends the choice."""
        sequence, draft = rows.sequence, rows.draft
        right = 0
        while right < len(draft) and picks[right].token_id == draft[right]:
            right += 1
        sequence.computed += len(rows.known) + right
        if draft:
            self._counts.drafted += len(draft)
            self._counts.accepted += right
            assert sequence.lookup is not None
            sequence.lookup.judge(len(draft), right)
        tokens: list[Token] = []
        for pick in picks[: right + 1]:
            tokens.append(self._append(sequence, pick))
            if tokens[-1].finish:
                break
        return tokens

    def _append(self, sequence: Sequence, pick: Choice) -> Token:
        """One more token; the last one retires the sequence."""
        request = sequence.request
        sequence.append(pick.token_id)
        self._counts.decode_tokens += 1
        finish: Finish | None = None
        if pick.token_id in self._eos_ids and not request.sampling.ignore_eos:
            finish = "stop"
        elif sequence.remaining == 0:
            finish = "length"
        if finish:
            self._throughput.answer.add(len(sequence.tokens) - len(request.prompt), 1)
            self._retire(sequence)
        return Token(request.id, sequence.index, pick.token_id, pick.logprob, pick.top, finish, request.cached)

    def _retire(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence)
        if not sequence.request.choices:
            del self._requests[sequence.request.id]


def _draw(sequence: Sequence, position: int, draft: SequenceOf[int]) -> Draw:
    """What decides the token at `position`, if `draft` is what comes between."""
    request = sequence.request
    return Draw(
        request.sampling,
        0.0 if request.sampling.greedy else uniform(request.seed, sequence.index, position),
        sequence.counts(draft),
    )
