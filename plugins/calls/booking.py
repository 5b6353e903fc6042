"""What a side call cost, onto the ledger of the exchange it was made for; whatever became of it, and once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from predawn.plugins.calls.tokens import Entry, Tokens
from predawn.proxy.prompt_size import estimated_prompt_tokens
from predawn.proxy.spend import cost_usd

if TYPE_CHECKING:
    from predawn.plugins import Call, Exchange, Ledger
    from predawn.plugins.calls.heard import Heard


COUNTED = "calls.counted"
"""Key of `exchange.state`: tokens that one prompt had, and what its size had made one expect."""


def own_tokens(child: Exchange, heard: Heard) -> Tokens:
    """What the answer of a child exchange cost; what a plugin further in answered without a call cost nothing."""
    ledger = child.ledger
    if ledger.is_answer_booked:
        return Tokens(ledger.prompt, ledger.output, ledger.cached_prompt, ledger.reasoning, ledger.estimated)
    call = ledger.own_call
    if call is None or call.status >= 400 or call.outcome == "connect":
        return Tokens()
    usage = heard.usage
    if usage is None:
        return Tokens(guessed_prompt(child), heard.output_tokens, estimated=True)
    return Tokens(usage.prompt, heard.output_tokens, usage.cached, usage.reasoning, not heard.is_whole)


def guessed_prompt(child: Exchange) -> int:
    """Tokens of a prompt that nobody counted: by its size, and by what one of its siblings was counted to have."""
    assert child.parent is not None
    counted: int
    of_size: int
    counted, of_size = child.parent.state.get(COUNTED, (1, 1))
    return round(estimated_prompt_tokens(child.body) * counted / of_size)


def see_count(child: Exchange, heard: Heard) -> bool:
    """Remember how many tokens a prompt was counted to have; False if that was known, or is not now."""
    assert child.parent is not None
    state, size = child.parent.state, estimated_prompt_tokens(child.body)
    if COUNTED in state or heard.usage is None or not heard.usage.prompt or not size or child.ledger.is_answer_booked:
        return False
    state[COUNTED] = (heard.usage.prompt, size)
    return True


def with_counted_prompt(child: Exchange, entry: Entry, serving: list[Call]) -> Entry:
    """Book a prompt again, by what has become known since; only of a call that made its answer itself."""
    parent, ledger = child.parent, child.ledger
    assert parent is not None
    prompt = guessed_prompt(child)
    more = prompt - entry.tokens.prompt
    again = replace(entry, tokens=replace(entry.tokens, prompt=prompt))
    rebook(parent.ledger, serving, entry, again)
    spend = cost_usd(child.price, prompt, 0, 0) - cost_usd(child.price, prompt - more, 0, 0)
    parent.ledger.spend_usd += spend
    ledger.spend_usd += spend
    ledger.prompt = serving[-1].prompt_tokens = prompt
    return again


def book(child: Exchange, entry: Entry) -> list[Call]:
    """Write a child's costs onto its parent's ledger; returns the calls that made its answer."""
    parent, ledger, tokens = child.parent, child.ledger, entry.tokens
    assert parent is not None
    call = ledger.own_call
    if call is not None and ledger.is_answer_booked:
        _book_replaced(child, call)
    elif call is not None:
        call.prompt_tokens, call.output_tokens, call.cached_tokens = tokens.prompt, tokens.output, tokens.cached
        call.estimated = tokens.estimated
        Entry(tokens, "serve").write(ledger)
        ledger.estimated = ledger.estimated or tokens.estimated
        ledger.spend_usd += cost_usd(child.price, tokens.prompt, tokens.cached, tokens.output)
    alias = child.alias if child.alias != parent.alias else ""
    for one in ledger.calls:
        one.booked = True
        one.alias = one.alias or alias
    into = parent.ledger
    into.calls += ledger.calls
    into.discarded += ledger.discarded
    into.discarded_prompt += ledger.discarded_prompt
    into.verify += ledger.verify
    into.verify_prompt += ledger.verify_prompt
    into.spend_usd += ledger.spend_usd
    into.estimated = into.estimated or ledger.estimated
    serving = [one for one in ledger.calls if one.phase == "serve"]
    _enter(into, serving, entry)
    return serving


def _book_replaced(child: Exchange, call: Call) -> None:
    """A call of the child's own whose answer was given up for others: how far it came is not known."""
    if call.status >= 400 or call.outcome == "connect":
        return
    prompt = estimated_prompt_tokens(child.body)
    call.prompt_tokens, call.estimated, call.phase = prompt, True, "discarded"
    child.ledger.discarded_prompt += prompt
    child.ledger.estimated = True
    child.ledger.spend_usd += cost_usd(child.price, prompt, 0, 0)


def rebook(ledger: Ledger, serving: list[Call], former: Entry, entry: Entry) -> None:
    """Put an entry in the place of another."""
    former.write(ledger, -1)
    for call in serving[-1:]:
        call.wasted_tokens -= former.wasted
    _enter(ledger, serving, entry)


def _enter(ledger: Ledger, serving: list[Call], entry: Entry) -> None:
    entry.write(ledger)
    for call in serving:
        call.phase = entry.phase
    for call in serving[-1:]:
        call.wasted_tokens += entry.wasted
    if entry.phase == "serve" and serving:
        ledger.is_answer_booked = True
