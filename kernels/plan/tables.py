"""A plan in words and tables, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from predawn.kernels.columns import columns
from predawn.kernels.plan import law
from predawn.kernels.plan.plan import BATCHES, CONTEXTS, WINS, Plan
from predawn.kernels.plan.search import Design, thinned
from predawn.kernels.roofline import ASSUMED, block_bytes, fits_cache, kv_token_bytes

MARK = "predicted, not measured"
MOST_ROWS = 16
WIDTH = 110


def lines(plan: Plan) -> Iterator[str]:
    """The whole plan, line by line."""
    yield from _heading(plan)
    yield ""
    yield from _times(plan)
    yield ""
    yield from _loads(plan)
    yield ""
    yield from _shapes(plan)
    yield ""
    yield from _assumptions(plan)


def _heading(plan: Plan) -> Iterator[str]:
    shape, work, gpu = plan.model.blocks, plan.work, plan.gpu
    note = f" ({gpu.note})" if gpu.note else ""
    where = "fits" if fits_cache(shape, gpu, work) else "does not fit"
    megabytes, room = block_bytes(shape, work) / 1e6, ASSUMED.cache_share * gpu.cache_mb
    yield from _prose(
        f"{plan.model.name}: {shape.layers} stored blocks x {shape.repeat} passes, hidden {shape.dim}, "
        f"{shape.heads} heads ({shape.kv_heads} KV) of {shape.head_dim}, feed-forward {shape.ffn}, "
        f"vocabulary {plan.model.vocabulary}; {law.block_parameters(shape) / 1e6:.1f}M block parameters"
    )
    yield f"on {gpu.name}{note}, batch {work.batch}, context {work.context}, {work.weight_bytes:g} bytes per weight"
    yield (
        f"a block has {megabytes:.1f} MB and {where} the {room:.0f} MB for weights in a cache of {gpu.cache_mb:g} MB"
    )


def _times(plan: Plan) -> Iterator[str]:
    shape, one, graph = plan.model.blocks, plan.persistent, plan.launched
    names = (
        f"{shape.layers} blocks, run once",
        f"{shape.layers} x {shape.repeat} shared",
        f"{shape.passes} distinct blocks",
    )
    ways = zip(names, (one.once, one.shared, one.distinct), (graph.once, graph.shared, graph.distinct), strict=True)
    rows = [[name, _us(left.seconds), left.limit, _us(right.seconds), right.limit] for name, left, right in ways]
    rows.append(["sharing against distinct", f"{one.gain:.2f}x", "", f"{graph.gain:.2f}x", ""])
    rows.append(["sharing against once", f"{1 / one.cost:.2f}x", "", f"{1 / graph.cost:.2f}x", ""])
    unit = "time per token" if plan.work.batch == 1 else "time per step"
    yield from columns([f"{unit}, µs ({MARK})", "one kernel", "limit", "launches", "limit"], rows)


def _loads(plan: Plan) -> Iterator[str]:
    rows = [[f"batch {batch}", *(_gain(plan.gain(batch, context)) for context in CONTEXTS)] for batch in BATCHES]
    yield from columns([f"gain over distinct blocks ({MARK})", *(f"{context}" for context in CONTEXTS)], rows)
    shape, work = plan.model.blocks, plan.work
    even = block_bytes(shape, work) / kv_token_bytes(shape, work)
    yield from _prose(
        f"+ sharing wins (at least {WINS}x); - it loses: distinct blocks take about as long and know more. "
        f"At {even:,.0f} tokens of batch x context, the KV of a pass is as large as a block. "
        "Prefill is bound by maths: no gain."
    )


def _shapes(plan: Plan) -> Iterator[str]:
    front = plan.front
    shown = thinned(front, MOST_ROWS)
    rows = [_design(design) for design in (*plan.search.references(), *shown)]
    header = ["shape", "hidden", "ffn", "heads", "KV", "passes", "MLP:attn", "d/√N", "loss", "µs"]
    yield (
        f"{len(plan.designs)} shapes of the same depth and stored size: the model and its neighbours, "
        f"then {len(shown)} of the {len(front)}"
    )
    yield f"that no other beats in both loss and time ({MARK})"
    yield from columns(header, rows)
    if any(row[0].endswith("*") for row in rows):
        yield "* beyond what the law was fitted on"


def _design(design: Design) -> list[str]:
    shape = design.shape
    mark = " *" if law.outside_the_fit(shape) else ""
    return [
        design.name + mark,
        *map(str, (shape.dim, shape.ffn, shape.heads, shape.kv_heads, shape.passes)),
        f"{law.mlp_ratio(shape):.2f}",
        f"{law.relative_width(shape):.3f}",
        f"{design.loss:.3f}",
        _us(design.step_s),
    ]


def _assumptions(plan: Plan) -> Iterator[str]:
    gpu, fit = plan.gpu, law.law_for(law.block_parameters(plan.model.blocks))
    yield "What this rests on:"
    yield from _prose(
        f"- {gpu.name}: {gpu.memory_tb_s:g} TB/s of memory, {gpu.tflops:g} dense bf16 TFLOP/s (vendor's peaks). "
        f"Assumed: cache {gpu.cache_tb_s:g} TB/s, barrier {ASSUMED.barrier_us:g} µs, launch {ASSUMED.launch_us:g} µs."
    )
    yield from _prose(
        "- Loss: the conditional scaling law of 'Scaling Laws Meet Model Architecture' (arXiv 2510.18245) with the "
        f"coefficients it publishes for {fit.fitted_on}, on top of Chinchilla (arXiv 2203.15556) for "
        f"{plan.tokens / 1e9:.1f}B tokens. Another corpus has another level: compare losses within this table only. "
        f"Its error on new sizes is about {law.ERROR:g}; it says nothing of heads per KV head."
    )
    yield from _prose(
        f"- Repeats: R passes count as R^{law.RECURRENCE_EXPONENT} times the parameters ('How Much Is One Recurrence "
        "Worth?', arXiv 2604.21106). Joining the two laws is our own step, untested; more than 2 passes have hurt "
        "models for which the law promises a gain."
    )


def _prose(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  " if text.startswith("- ") else "")


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}"


def _gain(gain: float) -> str:
    return f"{gain:.2f} {'+' if gain >= WINS else '-'}"
