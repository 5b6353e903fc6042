import json
from dataclasses import replace

import pytest
import torch

from predawn.kernels.engine import checkpoint
from predawn.kernels.engine.model import Model
from predawn.kernels.tiny import export, tokenizer, train
from predawn.kernels.tiny.network import Network, Places

SMALL = replace(train.SHAPE, dim=64, heads=2, kv_heads=1, head_dim=32, ffn=64, layers=2)


@pytest.fixture
def exported(monkeypatch, tmp_path):
    monkeypatch.setattr(export, "SHAPE", SMALL)
    torch.manual_seed(0)
    network = Network(SMALL, tokenizer.build().get_vocab_size())
    export.write(network.state_dict(), tmp_path)
    return network, tmp_path


def test_the_engine_computes_what_was_trained(exported):
    network, folder = exported
    loaded = checkpoint.load(folder, dtype=torch.float32)
    model = Model(loaded.config, loaded.weights)
    tokens = torch.arange(3, 15)
    with torch.inference_mode():
        trained = network(tokens[None], Places.table(SMALL, 32), torch.arange(12))
        served = model.prefill(tokens, 0, torch.tensor([0], dtype=torch.int32), model.new_kv(1), want="all")

    assert torch.allclose(served, trained, atol=0.05, rtol=0.05)  # the trained one multiplies in bf16


def test_blocks_are_stored_once_and_run_twice(exported):
    _, folder = exported
    loaded = checkpoint.load(folder)

    assert (loaded.config.shape.layers, loaded.config.shape.repeat) == (2, 2)


def rendered(folder, messages, **variables):
    return checkpoint.load(folder).chat.render(messages, **variables)


USER = {"role": "user", "content": "How many?"}


def test_the_template_thinks_unless_told_not_to(exported):
    _, folder = exported

    assert rendered(folder, [USER]) == "<|begin|><|user|> How many?<|end|><|assistant|><think>"
    assert rendered(folder, [USER], enable_thinking=False).endswith("<|assistant|></think>")
    assert rendered(folder, [USER], reasoning_effort="none").endswith("<|assistant|></think>")
    assert rendered(folder, [USER], reasoning_effort="high").endswith("<|assistant|><think>")
    assert rendered(folder, [USER], reasoning_effort="auto").endswith("<|assistant|>")


def test_thoughts_of_earlier_turns_are_left_out(exported):
    _, folder = exported
    earlier = {"role": "assistant", "content": "7", "reasoning_content": "3 + 4 = 7."}

    assert rendered(folder, [USER, earlier, USER]) == (
        "<|begin|><|user|> How many?<|end|><|assistant|></think> 7<|end|><|user|> How many?<|end|><|assistant|><think>"
    )


def test_reasoning_can_be_continued(exported):
    _, folder = exported
    begun = {"role": "assistant", "reasoning_content": "3 + 4 = 7. Wait: Bob = 8."}
    text = rendered(folder, [USER, begun], continue_final=True, add_generation_prompt=False)

    assert text.endswith("<|assistant|><think> 3 + 4 = 7. Wait: Bob = 8.")


def test_an_answer_can_be_continued(exported):
    _, folder = exported
    begun = {"role": "assistant", "content": "Bob has"}
    text = rendered(folder, [USER, begun], continue_final=True, add_generation_prompt=False)

    assert text.endswith("<|assistant|></think> Bob has")


def test_the_configuration_is_plain_json(exported):
    _, folder = exported
    config = json.loads((folder / "config.json").read_text())

    assert config["vocab_size"] == tokenizer.build().get_vocab_size()
