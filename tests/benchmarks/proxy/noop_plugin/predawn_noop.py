"""Three plugins that implement every request hook and do nothing: what is left is the price of being asked."""

from predawn.plugins import Budget, CallNext, ChunkFilter, Difficulty, Exchange, Plugin, Reply, hookimpl


class Noop(Plugin):
    """Declines to decide, edits nothing, filters nothing."""

    @hookimpl
    async def on_request(self, exchange: Exchange) -> None:
        return

    @hookimpl
    async def assess(self, exchange: Exchange) -> Difficulty | None:
        return None

    @hookimpl
    async def allocate(self, exchange: Exchange) -> Budget | None:
        return None

    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        return await call_next(exchange)

    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> ChunkFilter | None:
        return None

    @hookimpl
    async def on_done(self, exchange: Exchange) -> None:
        return
