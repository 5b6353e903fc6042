"""What plugins register for others, and what stops the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from predawn.plugins import Extracted, Plugin, PluginSettings, RequestError, hookimpl
from predawn.plugins.testing import workbench
from predawn.proxy.dispatch import Hooks, PluginError
from predawn.proxy.loading import register


class Short:
    name = "short"
    boundary = "line"

    async def verify(self, step: Any, exchange: Any) -> None: ...


class Offers(Plugin):
    """Registers what it is made with."""

    def __init__(self, verifiers: tuple[Any, ...] = (), estimators: Any = (), extractors: Any = ()) -> None:
        super().__init__(PluginSettings())
        self.verifiers, self.estimators, self.extractors = verifiers, estimators, extractors
        self.app: Any = None

    @hookimpl
    def register_verifiers(self, register: Callable[[Any], None]) -> None:
        for thing in self.verifiers:
            register(thing)

    @hookimpl
    def register_estimators(self, register: Callable[[Any], None]) -> None:
        for thing in self.estimators:
            register(thing)

    @hookimpl
    def register_extractors(self, register: Callable[[Any], None]) -> None:
        for thing in self.extractors:
            register(thing)

    @hookimpl
    async def lifespan(self, app: Any) -> Any:
        self.app = app
        yield


def hooks(*plugins: Plugin[Any]) -> Hooks:
    return Hooks(register([(f"p{number}", plugin) for number, plugin in enumerate(plugins)]))


def test_register_verifiers_offers_them_by_name_with_what_they_left_open() -> None:
    found = hooks(Offers((Short(),))).verifiers

    assert list(found) == ["short"]
    one = found["short"]
    assert (one.reads, one.fails, one.fork, one.plugin) == (("content",), "open", None, "p0")


def test_register_verifiers_takes_what_a_verifier_says_of_itself() -> None:
    class Careful(Short):
        reads = ("reasoning", "content")
        timeout_s = 0.5
        fails = "closed"

        def fork(self, prefix: str) -> tuple[str, int]:
            return prefix, 8

    one = hooks(Offers((Careful(),))).verifiers["short"]

    assert (one.reads, one.timeout_s, one.fails) == (("reasoning", "content"), 0.5, "closed")
    assert one.fork is not None
    assert one.fork("so") == ("so", 8)


def test_register_verifiers_takes_a_boundary_of_the_verifiers_own() -> None:
    class Cuts(Short):
        def boundary(self, text: str) -> int:  # type: ignore[override]
            return text.find(";") + 1

    assert callable(hooks(Offers((Cuts(),))).verifiers["short"].boundary)


def test_register_estimators_offers_them_by_name_with_or_without_learning() -> None:
    class Plain:
        name = "plain"

        async def estimate(self, exchange: Any) -> None: ...

    class Learns(Plain):
        name = "learns"

        def learn(self, exchange: Any, evidence: Any) -> None: ...

    found = hooks(Offers(estimators=(Plain(), Learns()))).estimators

    assert {name: one.learn is not None for name, one in found.items()} == {"plain": False, "learns": True}


class Word:
    def __init__(self, name: str) -> None:
        self.name = name

    def extract(self, text: str) -> None: ...


def test_register_extractors_offers_them_by_name_in_their_order() -> None:
    assert list(hooks(Offers(extractors=(Word("b"), Word("a")))).extractors) == ["b", "a"]


async def test_what_was_registered_is_there_before_the_first_lifespan_whatever_the_order() -> None:
    first, second = Offers(), Offers((Short(),), extractors=(Word("w"),))

    async with workbench(first, second):
        assert list(first.app.verifiers) == ["short"]
        assert list(first.app.extractors) == ["w"]
        assert list(first.app.estimators) == []


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"name": ""}, "its name is ''"),
        ({"name": "Two Words"}, "its name is 'Two Words'"),
        ({"name": None}, "its name is None"),
        ({"boundary": "word"}, "its boundary is 'word', not one of line, sentence"),
        ({"boundary": ["line"]}, "its boundary is"),
        ({"reads": ("thoughts",)}, "it reads"),
        ({"reads": ()}, "it reads"),
        ({"timeout_s": 0}, "its timeout_s is 0"),
        ({"timeout_s": float("nan")}, "its timeout_s is nan"),
        ({"fails": "loudly"}, "its fails is 'loudly'"),
        ({"verify": None}, r"it has no verify\(step, exchange\)"),
        ({"verify": lambda self, step, exchange: None}, "its verify must be async def"),
        ({"fork": lambda self: None}, r"it must have fork\(prefix\)"),
    ],
)
def test_what_is_no_verifier_stops_the_start_and_names_the_plugin(members: dict[str, Any], fault: str) -> None:
    thing = type("Odd", (Short,), members)()

    with pytest.raises(PluginError, match=rf"plugin 'p0': verifier .*: {fault}"):
        hooks(Offers((thing,)))


def test_a_class_in_place_of_a_verifier_is_refused() -> None:
    with pytest.raises(PluginError, match="register an instance"):
        hooks(Offers((Short,)))


def test_a_name_that_is_taken_stops_the_start_and_names_both_plugins() -> None:
    with pytest.raises(PluginError, match="plugin 'p1': there is a verifier 'short' already, of plugin 'p0'"):
        hooks(Offers((Short(),)), Offers((Short(),)))


def test_a_plugin_that_fails_to_register_stops_the_start_and_is_named() -> None:
    class Fails(Plugin):
        @hookimpl
        def register_extractors(self, register: Callable[[Any], None]) -> None:
            raise KeyError("nothing there")

    with pytest.raises(PluginError, match="plugin 'p0' failed in register_extractors: KeyError"):
        hooks(Fails(PluginSettings()))


@pytest.mark.parametrize(
    "result",
    [
        KeyError("nothing"),
        RequestError(400, "no"),
        "red",
        Extracted(["a", "list"], "a list"),  # type: ignore[arg-type]
        Extracted("red", None),  # type: ignore[arg-type]
    ],
)
def test_register_extractors_keeps_what_fails_from_doing_harm(result: Any) -> None:
    class Odd(Word):
        def extract(self, text: str) -> Any:
            if isinstance(result, Exception):
                raise result
            return result

    assert hooks(Offers(extractors=(Odd("odd"),))).extractors["odd"].extract("It is red.") is None


def test_register_extractors_hands_on_what_was_found() -> None:
    class Colour(Word):
        def extract(self, text: str) -> Any:
            return Extracted(text.casefold(), text) if text else None

    extractor = hooks(Offers(extractors=(Colour("colour"),))).extractors["colour"]

    assert extractor.extract("Red") == Extracted("red", "Red")
    assert extractor.extract("") is None
