"""A plan as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from predawn.kernels.plan import law
from predawn.kernels.plan.plan import BATCHES, CONTEXTS, Plan
from predawn.kernels.plan.search import Design
from predawn.kernels.roofline import ASSUMED, Comparison


def document(plan: Plan) -> dict[str, Any]:
    """Everything the tables show, and all designs of the Pareto front. Times in microseconds, loss in nats."""
    return {
        "predicted": True,
        "note": "nothing here was measured; see docs/kernels.md",
        "model": {
            "name": plan.model.name,
            **asdict(plan.model.blocks),
            "vocabulary": plan.model.vocabulary,
            "block_parameters": law.block_parameters(plan.model.blocks),
        },
        "gpu": asdict(plan.gpu),
        "workload": asdict(plan.work),
        "assumed": asdict(ASSUMED),
        "training_tokens": plan.tokens,
        "persistent": _comparison(plan.persistent),
        "launched": _comparison(plan.launched),
        "gain": [
            {"batch": batch, "context": context, "gain": plan.gain(batch, context)}
            for batch in BATCHES
            for context in CONTEXTS
        ],
        "references": [_design(design) for design in plan.search.references()],
        "pareto": [_design(design) for design in plan.front],
        "searched": len(plan.designs),
        "law": asdict(law.law_for(law.block_parameters(plan.model.blocks))),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    steps = {"once": comparison.once, "shared": comparison.shared, "distinct": comparison.distinct}
    times = {name: {"us": step.seconds * 1e6, "limit": step.limit} for name, step in steps.items()}
    return {**times, "gain": comparison.gain, "cost": comparison.cost}


def _design(design: Design) -> dict[str, Any]:
    return {
        "name": design.name,
        "shape": asdict(design.shape),
        "mlp_ratio": law.mlp_ratio(design.shape),
        "relative_width": law.relative_width(design.shape),
        "loss": design.loss,
        "step_us": design.step_s * 1e6,
        "beyond_the_law": law.outside_the_fit(design.shape),
    }
