"""Mistakes that a type checker must catch: each line with a mark is an error of that kind, and no other line is."""

from predawn.plugins import Budget, Chunk, Exchange, Plugin, PluginSettings, Reply, RequestError
from predawn.plugins.testing import Answer, Script, run_plugin


class Own(PluginSettings):
    marks: int = 1


class Mistaken(Plugin[Own]):
    settings_type = Own

    async def on_request(self, exchange: Exchange) -> None:
        exchange.request["temperature"] = 0  # E: index
        exchange.ledger.outputs = 1  # E: attr-defined
        exchange.stream = "yes"  # E: assignment
        self.settings.mark  # E: attr-defined
        self.settings.marks + "!"  # E: operator

    async def around_completion(self, exchange: Exchange) -> Reply:
        return Chunk.of({})  # E: return-value

    async def allocate(self, exchange: Exchange) -> Budget | None:
        return Budget(effort="lots")  # E: arg-type


class Other(Plugin["int"]):  # E: type-var
    pass


async def tests() -> None:
    RequestError("no")  # E: call-arg, arg-type
    Answer(fault="explode")  # E: arg-type
    Answer(txt="a")  # E: call-arg
    Script(answers=("a",))  # E: arg-type
    result = await run_plugin(Mistaken, route="chats")  # E: arg-type
    result.texts = []  # E: misc
    await run_plugin("shout")  # E: arg-type
