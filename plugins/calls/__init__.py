"""For plugins that ask a model more than once: further calls of an exchange, heard, cancelled and paid for.

A `SideCall` is one more request for the same answer: a child exchange, sent through `call_next` (the plugins further in
see it) or through `App.send` (none does). `Heard` is what has come of it so far, whatever becomes of it. What it cost
is booked on the client's exchange exactly once, when it ends: under `discarded` or `verify`, or as the answer's own if
it was chosen (`side.choose()`). `answer(side)` makes the reply that a client gets: the chosen call's chunks, its usage
in the standard members, and all else in `usage.predawn`.

    async with SideCall(exchange, call_next, changes={"seed": 1}) as side:
        async for chunk in side:
            if enough(side.heard.text):
                await side.cancel()  # ends the loop; the upstream stops at once
"""

from predawn.plugins.calls.answer import answer, usage_of_calls
from predawn.plugins.calls.heard import Heard, HeardChoice, TokenLogprob
from predawn.plugins.calls.refused import Refused
from predawn.plugins.calls.side import SideCall, Stopped
from predawn.plugins.calls.tokens import Tokens

__all__ = [
    "Heard",
    "HeardChoice",
    "Refused",
    "SideCall",
    "Stopped",
    "TokenLogprob",
    "Tokens",
    "answer",
    "usage_of_calls",
]
