"""Checkpoints in the layout of Hugging Face: whole, in parts, and broken in every way that has a message."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.kernels.engine.random_models import (
    LLAMA,
    SHARED,
    config_json,
    config_of,
    pages_for,
    tensors_of,
    weights_of,
    write_checkpoint,
)

from predawn.kernels.engine import checkpoint
from predawn.kernels.engine.errors import CheckpointError
from predawn.kernels.engine.model import Model

QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path / "tiny", SHARED)
    return tmp_path / "tiny"


def change_config(folder, **keys):
    path = folder / "config.json"
    found = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def refusal(folder):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(folder)
    return str(caught.value)


def same(left, right):
    pairs = [(left.embedding, right.embedding), (left.norm, right.norm), (left.head, right.head)]
    pairs += [(getattr(left.blocks, name), getattr(right.blocks, name)) for name in left.blocks.__slots__]
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("shape", [LLAMA, SHARED])
@pytest.mark.parametrize("tied", [True, False])
def test_what_was_written_is_loaded(tmp_path, shape, tied):
    config, weights = write_checkpoint(tmp_path / "m", shape, tied=tied)

    loaded = checkpoint.load(tmp_path / "m")

    assert loaded.config.shape == config.shape
    assert (loaded.config.tied, loaded.config.vocab, loaded.config.max_positions) == (tied, 259, 256)
    assert same(loaded.weights, weights)
    assert (loaded.weights.head is loaded.weights.embedding) == tied
    assert loaded.tokenizer.eos_ids == (258,)


def test_a_loaded_model_has_the_logits_of_the_one_in_memory(folder):
    config = config_of(SHARED)
    loaded = checkpoint.load(folder)
    tokens = torch.arange(20)
    models = Model(config, weights_of(config)), Model(loaded.config, loaded.weights)

    one, other = (model.prefill(tokens, 0, pages_for(20), model.new_kv(2)) for model in models)

    assert torch.equal(one, other)


def test_a_sharded_checkpoint_is_the_same(tmp_path, folder):
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:7], "model-00002-of-00002.safetensors": names[7:]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    whole = checkpoint.load(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    assert same(checkpoint.load(folder).weights, whole.weights)

    (folder / "model-00002-of-00002.safetensors").unlink()

    assert "model-00002-of-00002.safetensors: is missing" in refusal(folder)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", ".."])
def test_an_index_cannot_name_files_elsewhere(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {QUERY: name}}))

    assert "not a file beside it" in refusal(folder)


def test_a_pickle_of_tensors_is_loaded(folder):
    whole = checkpoint.load(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()

    assert same(checkpoint.load(folder).weights, whole.weights)


class Attack:
    def __reduce__(self):
        return os.mkdir, (os.environ["PREDAWN_TEST_MARK"],)


def test_code_in_a_pickle_is_not_run(folder, tmp_path, monkeypatch):
    mark = tmp_path / "ran"
    monkeypatch.setenv("PREDAWN_TEST_MARK", str(mark))
    torch.save({QUERY: Attack()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    words = refusal(folder)

    assert "pytorch_model.bin: holds more than tensors" in words
    assert not mark.exists()


@pytest.mark.parametrize("keep", [0, 3, 100, 5000])
def test_a_truncated_file_is_named(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])

    assert "model.safetensors: is not a complete safetensors file" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 10, 20_000])
def test_a_truncated_pickle_is_named(folder, keep):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:keep])

    assert str(path) in refusal(folder)


def test_a_header_of_absurd_size_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}" * 50)

    assert "is not a complete safetensors file" in refusal(folder)


def test_a_missing_tensor_is_named(folder):
    change_tensors(folder, lambda tensors: tensors.pop(QUERY))

    assert f"{QUERY}: is missing" in refusal(folder)


def test_a_wrong_shape_is_named_with_both_shapes(folder):
    change_tensors(folder, lambda tensors: tensors.update({QUERY: torch.zeros(64, 32)}))

    assert f"{QUERY}: has shape [64, 32], but the config asks for [64, 64]" in refusal(folder)


@pytest.mark.parametrize(
    "name",
    ["model.layers.1.self_attn.q_proj.bias", "model.layers.2.mlp.up_proj.weight", "model.layers.0.q_norm.weight"],
)
def test_a_tensor_that_would_be_ignored_is_refused(folder, name):
    change_tensors(folder, lambda tensors: tensors.update({name: torch.zeros(64)}))

    assert f"{name}: is no tensor of this architecture" in refusal(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantised_numbers_are_not_taken_for_weights(folder, dtype):
    change_tensors(folder, lambda tensors: tensors.update({QUERY: torch.zeros(64, 64).to(dtype)}))

    assert f"{QUERY}: holds {dtype}" in refusal(folder)


def test_buffers_of_old_checkpoints_are_ignored(folder):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change_tensors(
        folder, lambda tensors: tensors.update({name: torch.zeros(8), "lm_head.weight": torch.zeros(259, 64)})
    )

    checkpoint.load(folder)


CONFIGS = {
    "another architecture": ({"model_type": "qwen2"}, "model_type: 'qwen2' is none of llama, mobilellm"),
    "no architecture": ({"model_type": None}, "model_type"),
    "biases": ({"attention_bias": True}, "attention_bias: biases are not supported"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act: 'gelu'"),
    "a scaling of another kind": ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_scaling: 'yarn'"),
    "linear scaling, in old words": ({"rope_scaling": {"type": "linear", "factor": 4}}, "rope_scaling: 'linear'"),
    "quantised": ({"quantization_config": {"bits": 4}}, "quantization_config"),
    "a window": ({"sliding_window": 128}, "sliding_window"),
    "a missing key": ({"hidden_size": None}, "hidden_size: is missing"),
    "a float for a count": ({"num_hidden_layers": 2.5}, "num_hidden_layers: must be a whole number"),
    "a text for a count": ({"vocab_size": "259"}, "vocab_size: must be a whole number"),
    "an absurd count": ({"vocab_size": 10**15}, "vocab_size: must be a whole number from 1 to"),
    "an absurd context": ({"max_position_embeddings": 2**60}, "max_position_embeddings"),
    "no layers": ({"num_hidden_layers": 0}, "num_hidden_layers"),
    "heads that do not divide": ({"num_key_value_heads": 3}, "cannot share 3"),
    "an odd head": ({"head_dim": 15}, "head_dim: 15 is odd"),
    "not a number": ({"rope_theta": float("nan")}, "rope_theta: must be a positive number"),
    "a flag that is none": ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: must be true or false"),
    "more layers than there are": ({"num_hidden_layers": 3}, "model.layers.2.self_attn.q_proj.weight: is missing"),
    "fewer layers than there are": ({"num_hidden_layers": 1}, "is no tensor of this architecture"),
    "a head that is not there": (
        {"tie_word_embeddings": False, "share_embedding": False},
        "lm_head.weight: is missing",
    ),
    "an end that is no token": ({"eos_token_id": "</s>"}, "eos_token_id: must be token ids"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_that_cannot_be_followed_is_refused(folder, case):
    keys, words = CONFIGS[case]
    change_config(folder, **keys)

    assert words in refusal(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00", '"text"', "[" * 100_000])
def test_a_config_that_is_not_json_is_named(folder, text):
    (folder / "config.json").write_text(text)

    assert "config.json: is not" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named_with_a_fix(folder, name):
    (folder / name).unlink()

    assert f"{name}: is missing; " in refusal(folder)


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()

    assert "has no model.safetensors" in refusal(folder)


def test_a_path_that_is_not_there_is_refused(tmp_path):
    assert "is missing" in refusal(tmp_path / "none")


def test_mobilellm_keys_mean_two_passes_and_a_tied_head(folder):
    change_config(folder, share_repeat=None, tie_word_embeddings=None)
    loaded = checkpoint.load(folder)

    assert (loaded.config.shape.repeat, loaded.config.tied) == (2, True)

    for keys, repeat in (
        ({"layer_sharing": False}, 1),
        ({"layer_sharing": False, "share_repeat": 3}, 1),
        ({"layer_sharing": None, "share_repeat": 3}, 3),
        ({"layer_sharing": True, "share_repeat": 3}, 3),
    ):
        change_config(folder, **keys)

        assert checkpoint.load(folder).config.shape.repeat == repeat


def test_rope_is_read_where_transformers_5_writes_it(folder):
    change_config(folder, rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 5e5})

    assert checkpoint.load(folder).config.shape.rope_theta == 5e5


def test_ends_come_from_generation_config_and_tokenizer(folder):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [256, 7]}))

    assert checkpoint.load(folder).tokenizer.eos_ids == (256, 7, 258)


def test_the_dtype_is_the_stored_one_unless_asked_or_slow(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "m", dtype=torch.bfloat16)
    write_checkpoint(tmp_path / "h", dtype=torch.float16)

    assert checkpoint.load(tmp_path / "m", dtype=torch.float16).weights.blocks.qkv.dtype == torch.float16
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(checkpoint, "_multiplies_bfloat16", lambda native=native: native)
        assert checkpoint.load(tmp_path / "m").weights.embedding.dtype == expected
    assert checkpoint.load(tmp_path / "h").weights.embedding.dtype == torch.float32
    assert checkpoint.load(tmp_path / "h", device="cuda").weights.embedding.dtype == torch.float16


def test_progress_rises_to_the_whole(folder):
    seen = []
    checkpoint.load(folder, progress=lambda done, total: seen.append((done, total)))
    config = config_of(SHARED)
    whole = sum(tensor.nbytes for tensor in tensors_of(config, weights_of(config)).values())

    assert seen[0] == (0, whole)
    assert seen[-1] == (whole, whole)
    assert seen == sorted(seen)


def test_a_model_too_large_for_any_memory_says_how_large(folder, tmp_path):
    """A pickle may claim any size: one number, repeated without taking room."""
    vocab, config = 1 << 24, config_json(config_of(SHARED))
    dim = 1 << 20
    keys = {"hidden_size": dim, "vocab_size": vocab, "head_dim": 16}
    (folder / "config.json").write_text(json.dumps(config | keys))
    (folder / "model.safetensors").unlink()
    small = torch.zeros(1)
    shapes = {
        "q_proj": (64, dim), "k_proj": (32, dim), "v_proj": (32, dim), "o_proj": (dim, 64),
        "gate_proj": (96, dim), "up_proj": (96, dim), "down_proj": (dim, 96), "layernorm": (dim,),
    }  # fmt: skip
    tensors = {
        name: small.expand(next((shape for part, shape in shapes.items() if part in name), (vocab, dim)))
        for name in tensors_of(config_of(SHARED), weights_of(config_of(SHARED)))
    }
    tensors["model.norm.weight"] = small.expand(dim)
    torch.save(tensors, folder / "pytorch_model.bin")

    assert "GB of memory" in refusal(folder)
