# ruff: noqa: INP001, SLF001 - a script beside the pages; argparse keeps what it knows in private members
"""Writes the generated parts of the documentation: `python docs/generate.py` after a change of settings, metrics, hooks
or commands. A test fails while they are out of date.

A page marks such a part with `<!-- generated: NAME … -->` and `<!-- end -->`; what stands between is replaced.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

DOCS = Path(__file__).parent
PLAIN = {"register_routes", "register_verifiers", "register_estimators", "register_extractors", "chunk_filter"}
_PART = re.compile(r"(<!-- generated: ([\w -]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_WORDS: dict[Any, str] = {
    str: "text",
    int: "number",
    float: "number",
    bool: "true or false",
    SecretStr: "secret",
    Path: "path",
    Any: "anything",
    type(None): "",
}


def render(page: str) -> str:
    """The page with its generated parts as they should be."""
    return _PART.sub(lambda part: f"{part[1]}{_generate(part[2])}{part[3]}", page)


def _generate(name: str) -> str:
    kind, _, argument = name.partition(" ")
    generators: dict[str, Callable[[str], Iterator[str]]] = {
        "settings": _settings, "plugins": _plugins, "plugin": _plugin, "metrics": _metrics, "hook": _hook,
        "commands": _commands, "evidence": _evidence, "peers": _peers, "altered": _altered,
        "sizes": _sizes, "lanes": _lanes, "sleeping": _sleeping, "verifying": _verifying, "thinking": _thinking,
        "sharing": _sharing,
    }  # fmt: skip
    return "".join(f"{line}\n" for line in generators[kind](argument))


# -- settings


def _settings(_: str) -> Iterator[str]:
    from predawn.proxy.settings import Settings

    for heading, model in _parts("", Settings):
        yield from ("", f"### {heading or 'Top level'}", "", *_table(model))
    yield ""


def _plugins(_: str) -> Iterator[str]:
    from predawn.proxy.loading import BUILT_IN, find
    from predawn.proxy.plugin import PluginSettings

    yield from ("", *_table(PluginSettings))
    for name in BUILT_IN:
        kind = find()[name].load()
        yield from ("", f"### {name}", "", inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0])
        yield from _own(kind.settings_type, lambda place, name=name: f"#### {name}: {place}")
    yield ""


def _plugin(name: str) -> Iterator[str]:
    """The settings of one plugin, for its own page."""
    from predawn.proxy.loading import find

    yield from _own(find()[name].load().settings_type, lambda place: f"Each of `{place}`:")
    yield from (
        "",
        "`models`, `timeout_s` and `on_error` are there, too, as in [every plugin](settings.md#plugins).",
        "",
    )


def _own(settings: type[BaseModel], title: Callable[[str], str]) -> Iterator[str]:
    """What a plugin's settings have beyond every plugin's, then the parts inside them."""
    from predawn.proxy.plugin import PluginSettings

    own = [key for key in settings.model_fields if key not in PluginSettings.model_fields]
    if own:
        yield from ("", *_table(settings, own))
    for place, model in _parts("", settings):
        if place:
            yield from ("", title(place), "", *_table(model))


def _parts(place: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """A model and those inside it, each with its place in the file; each model once."""
    if model.__name__ == "PluginEntry":
        return
    yield place, model
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            many = "[]" if get_origin(field.annotation) is tuple else ""
            yield from _parts(f"{place}.{name}{many}".removeprefix("."), inner)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _table(model: type[BaseModel], keys: Iterable[str] = ()) -> Iterator[str]:
    yield from ("| key | value | default | |", "|---|---|---|---|")
    for name in keys or model.model_fields:
        field = model.model_fields[name]
        value = _words(field.annotation) + _limits(field)
        yield f"| `{name}` | {value} | {_default(field)} | {_cell(field.description or '')} |"


def _words(annotation: Any) -> str:
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(inner[0])
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in inner)
    if origin in {Union, types.UnionType}:
        return " or ".join(filter(None, map(_words, inner)))
    if origin is tuple:
        return f"list of {_words(inner[0])}".replace("list of see below", "list, see below")
    if origin is dict:
        return f"mapping to {_words(inner[1])}"
    return "see below"


def _limits(field: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [
        f"{sign} {getattr(limit, key)}"
        for limit in field.metadata
        for key, sign in signs.items()
        if hasattr(limit, key)
    ]
    return f", {', '.join(found)}" if found else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.default
    if default is PydanticUndefined or default is None or default == ():
        return ""
    if isinstance(default, bool):
        default = str(default).lower()
    if isinstance(default, tuple):
        default = ", ".join(str(getattr(item, "name", item)) for item in default)
    return f"`{default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# -- metrics, hooks, commands


def _metrics(prefixes: str) -> Iterator[str]:
    """All families, or those whose names begin with one of the words."""
    from prometheus_client import CollectorRegistry

    from predawn.proxy.metrics import Metrics, families

    yield from ("", "| metric | kind | labels | |", "|---|---|---|---|")
    for family in families(Metrics(CollectorRegistry())):
        if not family.name.startswith(tuple(prefixes.split()) or ""):
            continue
        labels = ", ".join(f"`{label}`" for label in family.labels)
        yield f"| `{family.name}` | {family.kind} | {labels} | {_cell(family.help)} |"
    yield ""


def signature(name: str) -> str:
    """A hook as its author writes it."""
    from predawn.proxy.hookspecs import Spec

    function = getattr(Spec, name)
    prefix = "" if name in PLAIN else "async "
    return f"{prefix}def {name}{inspect.signature(function)}".replace("'", "")


def _hook(name: str) -> Iterator[str]:
    from predawn.proxy.hookspecs import Spec

    yield from ("", "```text", signature(name), "```", "", inspect.cleandoc(getattr(Spec, name).__doc__ or ""), "")


def _commands(_: str) -> Iterator[str]:
    from predawn.proxy.cli import parser

    for command in leaves(parser()):
        positionals = [action.metavar or action.dest for action in command._actions if not action.option_strings]
        yield from (
            "",
            f"### {' '.join([command.prog, *map(str, positionals)])}",
            "",
            _cell(command.description or ""),
            "",
        )
        yield from ("| | |", "|---|---|")
        for action in command._actions:
            if not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS:
                yield f"| `{_option(action)}` | {_cell((action.help or '') % vars(action))} |"
    yield ""


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The commands below a parser that take no further command."""
    deeper = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not deeper:
        yield parser
    for action in deeper:
        for choice in action.choices.values():
            yield from leaves(choice)


def _option(action: argparse.Action) -> str:
    """`--port PORT`; not argparse's own words, which differ from one Python to the next."""
    if not action.option_strings:
        return str(action.metavar or action.dest)
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return f"{', '.join(action.option_strings)}{value}"


# -- evidence: figures stand in docs/evidence, and nowhere are they written by hand


def _run(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "evidence" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _evidence(name: str) -> Iterator[str]:
    """The bars of a run, what it measured against them, and how to run it again."""
    if not (DOCS / "evidence" / f"{name}.json").exists():
        yield from ("", f"`make {name}` has not been run in full yet, so no figure is claimed here.", "")
        return
    run = _run(name)
    held = sum(bar["holds"] for bar in run["bars"].values())
    yield from ("", f"`{_again(name, run)}` wrote [{name}.json](evidence/{name}.json) on {run['date'][:10]};")
    yield from (f"{held} of {len(run['bars'])} bars hold.", "", "| measured | value | bar | |", "|---|---|---|---|")
    for what, bar in run["bars"].items():
        sign = "≥" if bar.get("at_least") else "≤"
        words = _cell(what if " " in what else what.replace("_", " "))
        value = _cell(f"{_figure(bar['value'])} {bar.get('unit', '')}".rstrip())
        verdict = "holds" if bar["holds"] else "**missed**"
        yield f"| {words} | {value} | {sign} {_figure(bar['bar'])} | {verdict} |"
    yield ""


def _again(name: str, run: dict[str, Any]) -> str:
    """The command for a run like it: make's, if it has one."""
    makefile = (DOCS.parent / "Makefile").read_text(encoding="utf-8")
    return f"make {name}" if f"\n{name}:" in makefile else str(run["command"])


def _figure(number: float) -> str:
    """Four digits, and no minus before nothing."""
    return f"{number:.4g}" if number else "0"


_PEERS = {
    "nginx": "nginx",
    "vllm-router": "vllm-router (Rust)",
    "predawn-bare": "**Predawn**, no plugin",
    "predawn-keys": "**Predawn**, keys, metrics and ledger",
    "predawn": "**Predawn**, the same and `record`",
    "portkey": "Portkey (Node)",
    "litellm": "LiteLLM proxy",
}
_COSTS = (
    ("cpu_us_per_request_1.5kb", "µs", 0),
    ("cpu_us_per_request_60kb", "µs", 0),
    ("cpu_us_per_chunk", "µs", 0),
    ("added_p50_ms_at_50_per_s", "ms", 2),
    ("added_ttft_p50_ms", "ms", 2),
)


def _peers(_: str) -> Iterator[str]:
    """What a relay costs, beside others."""
    run = _run("bench-proxy")
    peers, heads = run["figures"]["peers"], ("1.5 KB", "60 KB", "streamed chunk")
    yield from (
        "",
        f"| | CPU: {' | CPU: '.join(heads)} | added p50 at 50/s | added time to first token |",
        "|---|---|---|---|---|---|",
    )
    for key, name in _PEERS.items():
        if key not in peers:
            continue
        costs = (f"{peers[key][cost]:,.{digits}f} {unit}" for cost, unit, digits in _COSTS)
        version = "" if "Predawn" in name else f" {run['versions'][key]}"
        yield f"| {name}{version} | {' | '.join(costs)} |"
    yield ""


def _altered(_: str) -> Iterator[str]:
    """What became of bodies on their way upstream."""
    peers = _run("bench-proxy")["figures"]["peers"]
    yield from ("", "| | of 11 bodies, not upstream as they were sent | idle stream |", "|---|---|---|")
    for key, name in _PEERS.items():
        if peers.get(key, {}).get("bodies_altered") is not None:
            idle = peers[key]["idle_streams"]
            memory = f"{idle['kb_per_stream']:.0f} KB" if idle else ""
            yield f"| {name} | {len(peers[key]['bodies_altered'])} | {memory} |"
    yield ""


_LANES = {
    "predawn-bare": "fast lane, nothing switched on",
    "predawn-idle": "the same with every built-in plugin, all limited to another model",
    "predawn-keys": "fast lane with keys, metrics and the ledger of usage",
    "predawn-this-python": "the same, on the Python that runs the benchmark",
    "predawn": "fast lane with keys, metrics, the ledger and `record`",
    "predawn-full": "full lane, nothing switched on",
    "predawn-slow": "full lane with keys, metrics, the ledger and `record`",
    "nginx": "nginx, for comparison",
}
_LANE_COSTS = {
    "cpu_us_per_request_1.5kb": "1.5 KB",
    "cpu_us_per_request_1.5kb_in_turn": "in turn with rivals",
    "cpu_us_per_request_1.5kb_beside_another": "two at the same time",
    "cpu_us_per_request_1.5kb_fresh_heads": "each head new",
    "cpu_us_per_request_60kb": "60 KB",
    "cpu_us_per_chunk": "streamed chunk",
    "cpu_us_per_chunk_in_turn": "in turn with nginx",
    "cpu_us_per_chunk_beside_another": "at the same time as nginx",
    "cpu_us_per_chunk_of_128_streams": "of 128 streams",
}


def _lanes(_: str) -> Iterator[str]:
    """What a request costs in each lane."""
    peers = _run("bench-proxy")["figures"]["peers"]
    yield from ("", f"| CPU | {' | '.join(_LANE_COSTS.values())} |", f"|---|{'---|' * len(_LANE_COSTS)}")
    for key, name in _LANES.items():
        if key in peers:
            costs = (peers[key].get(cost) for cost in _LANE_COSTS)
            yield f"| {name} | {' | '.join('' if cost is None else f'{cost:,.0f} µs' for cost in costs)} |"
    yield ""


def _sizes(_: str) -> Iterator[str]:
    """What a server needs."""
    peer, soak = _run("bench-proxy")["figures"]["peers"]["predawn"], _run("bench-soak")
    request, chunk, idle = peer["cpu_us_per_request_1.5kb"], peer["cpu_us_per_chunk"], peer["idle_streams"]
    stream = request + 500 * chunk
    yield from ("", "| | measured | so one core is enough for |", "|---|---|---|")
    yield f"| a request of 1.5 KB, not streamed | {request:.0f} µs of CPU | {_rough(1e6 / request)} a second |"
    large = peer["cpu_us_per_request_60kb"]
    yield f"| a request of 60 KB, not streamed | {large:.0f} µs | {_rough(1e6 / large)} a second |"
    yield f"| a chunk of a stream | {chunk:.0f} µs | {_rough(1e6 / chunk)} a second |"
    yield f"| a streamed answer of 500 chunks | {stream / 1000:.1f} ms, computed | {_rough(1e6 / stream)} a second |"
    yield f"| an idle stream | {idle['kb_per_stream']:.0f} KB | |"
    yield f"| a server before the first request, with keys and `record` | {idle['before_mb']:.0f} MB | |"
    yield (
        f"| ten minutes at {soak['settings']['rate_per_s']:.0f} requests a second, streamed, with faults | memory "
        f"{soak['bars']['drift of memory after warm-up']['value']:+.1%} after warm-up | |"
    )
    yield ""


def _rough(number: float) -> str:
    """Two digits: what is divided out of a benchmark is no promise."""
    return f"{float(f'{number:.2g}'):,.0f}"


def _sleeping(_: str) -> Iterator[str]:
    """Where sleep pays, by what is counted and what a token in a hurry costs against one at leisure."""
    costs = _run("eval-sleep")["figures"]["stories"]["costs"]
    yield from ("", "| counted | a token awake costs | pays from | at ten questions |", "|---|---|---|---|")
    for counted, found in costs.items():
        for price in ("t=10", "t=1"):
            times = found[price]["times_cheaper_at_10_queries"]
            words = f"{times:.1f} times cheaper" if times >= 1 else f"{1 / times - 1:.0%} dearer"
            even = found[price]["break_even_queries"]
            yield f"| {counted} | {price[2:]} asleep | {even:.1f} questions for each context | {words} |"
    yield ""


def _verifying(_: str) -> Iterator[str]:
    """What each way of verifying came to."""
    ways = _run("eval-verify")["figures"]["accuracy"]["ways"]
    yield from ("", "| | right | tokens written | all tokens | calls | mean time |", "|---|---|---|---|---|---|")
    for way, found in ways.items():
        yield (
            f"| {way} | {found['right']:.1%} | {found['output_tokens']:.0f} | {found['all_tokens']:.0f} "
            f"| {found['calls']:.2f} | {found['alone_mean_s'] * 1000:.0f} ms |"
        )
    yield ""


def _thinking(_: str) -> Iterator[str]:
    """The bundled model, by how much it may spend."""
    yield from ("", "| the bundled model | right | tokens written |", "|---|---|---|")
    for way, found in _run("eval-tiny")["figures"].items():
        yield f"| {way} | {found['right']:.1%} | {found['tokens']:,.0f} |"
    yield ""


def _sharing(_: str) -> Iterator[str]:
    """Shared against distinct blocks on a CPU."""
    yield from ("", "| size of a block | each twice in a row | all blocks, then all again |", "|---|---|---|")
    for row in _run("bench-kernels")["figures"]["sharing"]["rows"]:
        yield f"| {row['block_mb']} MB | {row['shared_r2_gain']:.2f} | {row['cyclic_r2_gain']:.2f} |"
    yield ""


def pages() -> list[Path]:
    """Pages with generated parts; the README's links to other files are its own."""
    every = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]
    return [page for page in every if _PART.search(page.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    for page in pages():
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
