"""The fake provider that ships with Predawn: it says what a script tells it, when the script says so, and counts.

Four ideas carry it:

- a *Script* says what is answered, how fast, and how it fails (`script.py`);
- a *Speech* is what one request hears, as tokens (`speech.py`); one file per API puts it into words (`chat.py`, …);
- a *Plan* is the reply down to its bytes, pauses and ending, faults included (`plan.py`);
- a *Stage* picks the answer, keeps what arrived and counts what was generated (`stage.py`).

`upstream.py` performs plans in process, as an `Upstream`; `server.py` performs the same plans over HTTP.
"""

from predawn.proxy.upstreams.scripted.script import Answer, Script, ScriptError, ToolCall
from predawn.proxy.upstreams.scripted.stage import Counts, Received
from predawn.proxy.upstreams.scripted.upstream import ScriptedUpstream

__all__ = ["Answer", "Counts", "Received", "Script", "ScriptError", "ScriptedUpstream", "ToolCall"]
