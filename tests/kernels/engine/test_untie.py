"""Shared blocks written as a plain Llama."""

import json

import torch
from tests.kernels.engine.random_models import SHARED, pages_for, write_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer

from predawn.kernels.engine import checkpoint, untie
from predawn.kernels.engine.model import Model

TOKENS = torch.arange(40) * 5 % 259


def logits_of(folder):
    loaded = checkpoint.load(folder)
    model = Model(loaded.config, loaded.weights)
    return model.prefill(TOKENS, 0, pages_for(40), model.new_kv(3), want="all")


def test_transformers_loads_the_export_with_the_same_logits(tmp_path, capsys):
    write_checkpoint(tmp_path / "shared", SHARED, tied=False)
    code = untie.main([str(tmp_path / "shared"), str(tmp_path / "plain")])
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
        found = plain(TOKENS[None]).logits[0]

    assert (code, capsys.readouterr().out) == (0, f"wrote {tmp_path / 'plain'}: 4 layers\n")
    assert plain.config.num_hidden_layers == 4
    torch.testing.assert_close(found, logits_of(tmp_path / "shared"), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, logits_of(tmp_path / "plain"), rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "plain").encode("<|im_end|>") == [258]


def test_the_export_is_an_ordinary_llama(tmp_path):
    write_checkpoint(tmp_path / "shared", SHARED)
    untie.untie(tmp_path / "shared", tmp_path / "plain")
    config = json.loads((tmp_path / "plain" / "config.json").read_text())

    assert (config["model_type"], config["num_hidden_layers"]) == ("llama", 4)
    assert not {"layer_sharing", "share_repeat", "share_embedding"} & config.keys()


def test_nothing_is_overwritten(tmp_path, capsys):
    write_checkpoint(tmp_path / "shared", SHARED)

    assert untie.main([str(tmp_path / "shared"), str(tmp_path / "shared")]) == 1
    assert "exists already; name a new folder" in capsys.readouterr().err


def test_a_source_that_is_no_model_is_named(tmp_path, capsys):
    assert untie.main([str(tmp_path), str(tmp_path / "plain")]) == 1
    assert "config.json: is missing" in capsys.readouterr().err
    assert not (tmp_path / "plain").exists()
