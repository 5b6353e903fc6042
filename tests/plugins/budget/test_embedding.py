"""Neighbours by meaning, where an alias embeds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.plugins.budget.cases import CONFIG
from tests.plugins.budget.test_budget_plugin import ask

from predawn.plugins.budget import BudgetPlugin
from predawn.plugins.budget.embedding import Embedder, decoded, vector_of
from predawn.plugins.budget.features import SKETCH
from predawn.plugins.testing import Answer, ScriptedUpstream, workbench


def shared(one, other):
    return len(set(one) & set(other))


def sketched(vector):
    return Embedder(None, "e", 1.0)._sketched(vector)


def test_near_vectors_share_most_of_their_sketch_and_others_little():
    draw = random.Random(1)
    near, far = [], []
    for _ in range(40):
        vector = [draw.gauss(0, 1) for _ in range(384)]
        near.append(shared(sketched(vector), sketched([one + draw.gauss(0, 0.2) for one in vector])))
        far.append(shared(sketched(vector), sketched([draw.gauss(0, 1) for _ in range(384)])))

    assert sum(near) / 40 > 9
    assert sum(far) / 40 < 2.5
    assert len(sketched([0.0] * 32)) == SKETCH


@given(st.binary(max_size=60))
def test_what_is_no_embedding_is_none(body):
    assert vector_of(decoded(body)) is None


@pytest.mark.parametrize("status", [200, 500])
async def test_an_alias_that_embeds_is_asked_and_its_failure_harms_nobody(status):
    def choose(received):
        if received.path.endswith("/embeddings"):
            vector = [0.1 * at for at in range(32)]
            body = {"data": [{"embedding": vector}], "usage": {"prompt_tokens": 9, "total_tokens": 9}}
            return Answer(status=status, body=body)
        return "fine"

    plugin = BudgetPlugin(BudgetPlugin.settings_type(embeddings="plain"))
    async with workbench(plugin, upstream=ScriptedUpstream(choose=choose), config=CONFIG) as bench:
        result = await bench.run(ask("How are you?"))

    (outcome,) = plugin.memory.of("default", "thinker")
    assert result.status == 200
    assert (min(outcome.sketch) >= 1 << 40) == (status == 200)
    assert result.ledger.discarded_prompt == (9 if status == 200 else 0)


async def test_an_alias_for_embeddings_that_is_none_stops_the_start():
    with pytest.raises(Exception) as raised:
        async with workbench(BudgetPlugin(BudgetPlugin.settings_type(embeddings="plane")), config=CONFIG):
            pass

    assert "'plain'" in str(raised.value.__cause__)
