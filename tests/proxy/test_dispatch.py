import asyncio
import logging

import pytest

from predawn.plugins import Budget, Chunk, Difficulty, Exchange, Plugin, PluginSettings, Reply, RequestError, hookimpl
from predawn.proxy.dispatch import FAILURES_UNTIL_OFF, HookError, Hooks, Observers, PluginError, rest
from predawn.proxy.loading import register
from predawn.proxy.tasks import Tasks


def hooks(*plugins, **settings):
    return Hooks(register([(f"p{i}", kind(PluginSettings(**settings))) for i, kind in enumerate(plugins)]))


def pipeline(*plugins, send=None, **settings):
    return hooks(*plugins, **settings).pipeline("m", send)


def exchange():
    return Exchange(b'{"model":"m","messages":[]}', model="m")


async def test_on_request_runs_in_the_order_of_the_settings():
    def adds(word):
        class Adds(Plugin):
            @hookimpl
            async def on_request(self, exchange):
                exchange.edit().setdefault("words", []).append(word)

        return Adds

    asked = exchange()

    await pipeline(adds("a"), adds("b"), adds("c")).edit(asked)

    assert ["a", "b", "c"] == asked.request["words"]
    assert asked.edited


class BreaksRequest(Plugin):
    @hookimpl
    async def on_request(self, exchange):
        raise KeyError("secret detail")


async def test_on_request_fails_closed_and_names_the_plugin():
    with pytest.raises(HookError, match="'p0' failed in on_request"):
        await pipeline(BreaksRequest).edit(exchange())


async def test_on_request_is_skipped_where_the_settings_say_so():
    asked = exchange()

    await pipeline(BreaksRequest, on_error="skip").edit(asked)

    assert ["plugin skipped"] == [decision.what for decision in asked.decisions]


async def test_a_request_error_of_on_request_reaches_the_client_as_it_is():
    class Refuses(Plugin):
        @hookimpl
        async def on_request(self, exchange):
            raise RequestError(451, "not here")

    with pytest.raises(RequestError, match="not here"):
        await pipeline(Refuses).edit(exchange())


async def test_assess_takes_the_first_answer_that_is_not_none_and_passes_over_a_broken_plugin(caplog):
    class Declines(Plugin):
        @hookimpl
        async def assess(self, exchange):
            return None

    class Breaks(Plugin):
        @hookimpl
        async def assess(self, exchange):
            raise ValueError

    class Answers(Plugin):
        @hookimpl
        async def assess(self, exchange):
            await asyncio.sleep(0)
            return Difficulty(0.7)

    asked = exchange()

    await pipeline(Declines, Breaks, Answers).decide(asked)

    assert Difficulty(0.7) == asked.difficulty
    assert "p1 failed in assess" in caplog.text


async def test_allocate_sees_the_difficulty():
    class Both(Plugin):
        @hookimpl
        async def assess(self, exchange):
            return Difficulty(0.5)

        @hookimpl
        async def allocate(self, exchange):
            return Budget(samples=int(exchange.difficulty.score * 10))

    asked = exchange()

    await pipeline(Both).decide(asked)

    assert Budget(samples=5) == asked.budget


async def test_around_completion_surrounds_the_await_and_the_first_plugin_is_outermost():
    log = []

    def layer(name):
        class Layer(Plugin):
            @hookimpl
            async def around_completion(self, exchange, call_next):
                log.append(f"{name}>")
                reply = await call_next(exchange)
                log.append(f"<{name}")
                return reply

        return Layer

    async def upstream(_exchange):
        log.append("up")
        return Reply(200, {})

    await pipeline(layer("a"), layer("b"), send=upstream).complete(exchange())

    assert ["a>", "b>", "up", "<b", "<a"] == log


async def test_around_completion_that_raises_is_named():
    class Breaks(Plugin):
        @hookimpl
        async def around_completion(self, exchange, call_next):
            raise ZeroDivisionError

    with pytest.raises(HookError, match="'p0' failed in around_completion"):
        await pipeline(Breaks, send=None).complete(exchange())


async def test_chunk_filter_opts_out_with_none_and_names_itself_when_it_raises():
    class Out(Plugin):
        @hookimpl
        def chunk_filter(self, exchange):
            return None

    class Breaks(Plugin):
        @hookimpl
        def chunk_filter(self, exchange):
            return lambda _chunk: 1 / 0

    filters = pipeline(Out, Breaks).open_filters(exchange())

    assert 1 == len(filters)
    with pytest.raises(HookError, match="'p1' failed in chunk_filter"):
        filters[0](None)


class Watches(Plugin):
    seen = ()

    @hookimpl
    async def on_done(self, exchange):
        type(self).seen = (*self.seen, exchange.id)


class BreaksAfter(Plugin):
    calls = 0

    @hookimpl
    async def on_done(self, exchange):
        type(self).calls += 1
        raise RuntimeError("boom")


async def test_on_done_errors_reach_nobody_and_switch_the_observer_off(caplog):
    caplog.set_level(logging.CRITICAL)
    observers = Observers(hooks(BreaksAfter, Watches).observers, Tasks())

    for number in range(FAILURES_UNTIL_OFF + 3):
        observers.done(Exchange(b"{}", id=str(number)))
    await observers.drain()

    assert FAILURES_UNTIL_OFF == BreaksAfter.calls
    assert FAILURES_UNTIL_OFF + 3 == len(Watches.seen)
    assert "on_done is off" in caplog.text


async def test_on_done_drops_the_oldest_beyond_its_queue():
    class Keeps(Plugin):
        seen = ()

        @hookimpl
        async def on_done(self, exchange):
            type(self).seen = (*self.seen, exchange.id)

    observers = Observers(hooks(Keeps).observers, Tasks(), limit=2)

    for name in "abcd":
        observers.done(Exchange(b"{}", id=name))
    await observers.drain()

    assert (("c", "d"), 2) == (Keeps.seen, observers.dropped)


async def test_register_routes_and_lifespan_are_found():
    class Serves(Plugin):
        @hookimpl
        def register_routes(self, register):
            register("GET", "/v1/x", None)

        @hookimpl
        async def lifespan(self, app):
            yield

    found = hooks(Serves)

    assert (1, 1) == (len(found.routes), len(found.lifespans))


def test_a_plain_def_where_async_is_due_is_refused_with_the_fix():
    class Bad(Plugin):
        @hookimpl
        def on_request(self, exchange): ...

    with pytest.raises(PluginError, match="'p0': on_request must be async def, it is a plain def"):
        hooks(Bad)


def test_an_async_filter_is_refused():
    class Bad(Plugin):
        @hookimpl
        async def chunk_filter(self, exchange): ...

    with pytest.raises(PluginError, match="chunk_filter must be a plain def"):
        hooks(Bad)


def test_a_lifespan_without_yield_is_refused():
    class Bad(Plugin):
        @hookimpl
        async def lifespan(self, app): ...

    with pytest.raises(PluginError, match="lifespan must be an async generator"):
        hooks(Bad)


def test_a_missing_parameter_is_refused():
    class Bad(Plugin):
        @hookimpl
        async def around_completion(self, exchange): ...

    with pytest.raises(PluginError, match=r"must take \(exchange, call_next\), it takes \(exchange\)"):
        hooks(Bad)


def test_a_wrapper_is_refused_with_the_hook_to_use():
    class Bad(Plugin):
        @hookimpl(wrapper=True)
        def chunk_filter(self, exchange):
            return (yield)

    with pytest.raises(PluginError, match="use around_completion"):
        hooks(Bad)


def test_a_misspelt_hook_is_refused_with_the_nearest_name():
    class Bad(Plugin):
        @hookimpl
        async def on_requests(self, exchange): ...

    with pytest.raises(PluginError, match="did you mean 'on_request'"):
        hooks(Bad)


def test_a_plugin_acts_only_on_the_models_of_its_settings():
    found = hooks(BreaksRequest, models=("m",))

    assert (1, 0) == (len(found.pipeline("m", None).editors), len(found.pipeline("other", None).editors))


async def test_a_hook_that_takes_too_long_is_ended():
    class Sleeps(Plugin):
        @hookimpl
        async def on_request(self, exchange):
            await asyncio.Event().wait()

    with pytest.raises(HookError):
        await pipeline(Sleeps, timeout_s=0.01).edit(exchange())


async def bounded(coro, timeout_s):
    return await rest(coro, coro.send(None), timeout_s)


async def test_a_hook_that_suspends_returns_raises_and_cancels_like_a_plain_await():
    async def adds(a, b):
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return a + b

    async def raises():
        await asyncio.sleep(0)
        raise LookupError

    cleaned = []

    async def waits():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    assert 3 == await bounded(adds(1, 2), 5)
    with pytest.raises(LookupError):
        await bounded(raises(), 5)
    task = asyncio.get_running_loop().create_task(bounded(waits(), 5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [True] == cleaned


async def test_around_completion_is_blamed_for_what_its_own_chunks_raise():
    class Breaks(Plugin):
        @hookimpl
        async def around_completion(self, exchange, call_next):
            async def chunks():
                yield Chunk(b"data: 1\n\n")
                raise ZeroDivisionError

            return Reply.of_chunks(chunks())

    reply = await pipeline(Breaks, send=None).complete(exchange())

    with pytest.raises(HookError, match="'p0' failed in around_completion"):
        assert [b"data: 1\n\n"] == [chunk.raw async for chunk in reply.chunks]


async def test_lifespan_of_an_earlier_plugin_is_closed_when_a_later_one_cannot_start(tmp_path):
    from predawn.proxy.generation import _lifespan

    closed = []

    class Opens(Plugin):
        @hookimpl
        async def lifespan(self, app):
            yield
            closed.append("opened")

    (impl,) = hooks(Opens).lifespans

    with pytest.raises(LookupError):
        async with _lifespan(impl, None):
            raise LookupError

    assert ["opened"] == closed


async def test_on_done_goes_on_after_a_plugin_waited_for_something_cancelled():
    class Cancelled(Plugin):
        seen = ()

        @hookimpl
        async def on_done(self, exchange):
            type(self).seen = (*self.seen, exchange.id)
            waited_for = asyncio.get_running_loop().create_future()
            waited_for.cancel()
            await waited_for

    observers = Observers(hooks(Cancelled).observers, Tasks())
    for number in range(2):
        observers.done(Exchange(b"{}", id=str(number)))
    async with asyncio.timeout(5):
        await observers.aclose()

    assert ("0", "1") == Cancelled.seen


def test_chunk_filter_that_is_a_generator_is_named_when_it_raises():
    class Yields(Plugin):
        @hookimpl
        def chunk_filter(self, exchange):
            def function(chunk):
                yield chunk
                raise ValueError("boom")

            return function

    (function,) = pipeline(Yields).open_filters(exchange())

    with pytest.raises(HookError, match="'p0' failed in chunk_filter"):
        list(function(Chunk(b"data: {}\n\n")))


async def test_on_done_follows_the_alias_that_served_not_the_name_that_was_asked_for():
    class Keeps(Plugin):
        seen = ()

        @hookimpl
        async def on_done(self, exchange):
            type(self).seen = (*self.seen, exchange.alias)

    observers = Observers(hooks(Keeps, models=("*",)).observers, Tasks())
    for alias in ("*", "m"):
        done = exchange()
        done.alias = alias
        observers.done(done)
    await observers.drain()

    assert ("*",) == Keeps.seen


class HalfIdle(Plugin):
    """Its filter has no work."""

    @property
    def unused_hooks(self):
        return frozenset({"chunk_filter"})

    @hookimpl
    def chunk_filter(self, exchange):
        raise AssertionError("asked all the same")

    @hookimpl
    async def on_done(self, exchange): ...


def test_a_hook_that_the_settings_leave_without_work_is_never_called():
    made = pipeline(HalfIdle)

    assert () == made.open_filters(exchange())
    assert made.is_plain


@pytest.mark.parametrize("wrong", ["chunk_fliter", "lifespan"])
def test_an_unused_hook_must_be_a_request_hook(wrong):
    class Mistypes(HalfIdle):
        @property
        def unused_hooks(self):
            return frozenset({wrong})

    with pytest.raises(PluginError, match=f"'p0': unused_hooks: there is no request hook '{wrong}'"):
        hooks(Mistypes)


def test_any_hook_before_the_client_s_answer_makes_a_pipeline_more_than_plain():
    def having(name):
        async def hook(self, exchange): ...

        async def around_completion(self, exchange, call_next): ...

        def chunk_filter(self, exchange): ...

        made = {"around_completion": around_completion, "chunk_filter": chunk_filter}.get(name, hook)
        return type("Acts", (Plugin,), {name: hookimpl(made)})

    names = ("on_request", "assess", "allocate", "around_completion", "chunk_filter", "on_done")

    assert ["on_done"] == [name for name in names if pipeline(having(name)).is_plain]
    assert all(pipeline(having(name), models=("another",)).is_plain for name in names)


async def test_an_exchange_that_nobody_observes_is_not_queued():
    class Fails(Plugin):
        seen = ()

        @hookimpl
        async def on_done(self, exchange):
            type(self).seen = (*self.seen, exchange.alias)
            raise RuntimeError("boom")

    observers = Observers(hooks(Fails, models=("m", "n")).observers, Tasks(), limit=1)
    other = Exchange(b"{}", model="other")
    serving = [observers.serving(alias) for alias in ("m", "n", "other")]

    for _ in range(FAILURES_UNTIL_OFF):
        observers.done(exchange())
        observers.done(other)  # would take the other's place
        await observers.drain()

    assert [True, True, False] == serving
    assert ("m",) * FAILURES_UNTIL_OFF == Fails.seen
    assert [False, False] == [observers.serving(alias) for alias in ("m", "n")]  # it is off


def test_nobody_observes_where_there_is_no_observer():
    assert not Observers((), Tasks()).serving("m")
    assert Observers(hooks(HalfIdle).observers, Tasks()).serving("anything")
