"""GGUF files of the Llama family: what was written is loaded, and broken files are named."""

import struct

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from tests.kernels.engine.random_models import (
    LLAMA,
    SPECIAL,
    TEMPLATE,
    config_of,
    pages_for,
    tensors_of,
    tokenizer_of,
    weights_of,
)

from predawn.kernels.engine import checkpoint, gguf_file
from predawn.kernels.engine.errors import CheckpointError
from predawn.kernels.engine.model import Model
from predawn.kernels.engine.rope import Interleaved

WORDS = ("Ġthe", "hello", "ing")
NAMES = {f"model.layers.0.{theirs}.weight": f"blk.0.{ours}.weight" for ours, theirs in {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}.items()}  # fmt: skip
OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def gguf_name(name):
    if name in OUTER:
        return OUTER[name]
    _, _, layer, rest = name.split(".", 3)
    return NAMES[f"model.layers.0.{rest}"].replace("blk.0", f"blk.{layer}")


def write(path, *, config=None, kind=GGMLQuantizationType.F32, metadata=None, tensors=None, pre="smollm"):
    """A file as llama.cpp's converter writes it; returns the weights that it stands for."""
    config = config or config_of(LLAMA, vocab=268)
    weights, s = weights_of(config), config.shape
    out = GGUFWriter(path, "llama")
    about = {
        "block_count": s.layers, "context_length": config.max_positions, "embedding_length": s.dim,
        "feed_forward_length": s.ffn, "attention.head_count": s.heads, "attention.head_count_kv": s.kv_heads,
        "rope.dimension_count": s.head_dim,
    }  # fmt: skip
    for key, value in about.items():
        out.add_uint32(f"llama.{key}", value)
    out.add_float32("llama.attention.layer_norm_rms_epsilon", s.eps)
    out.add_float32("llama.rope.freq_base", s.rope_theta)
    add_tokenizer(out, pre)
    for add, key, value in metadata or ():
        getattr(out, f"add_{add}")(key, value)
    held = {gguf_name(name): tensor for name, tensor in tensors_of(config, weights).items()}
    for name, tensor in (held | (tensors or {})).items():
        if tensor is None:
            continue
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            tensor = Interleaved.reorder(tensor, s.head_dim)
        values = tensor.float().numpy()
        if values.ndim == 1 or values.shape[-1] % 32:
            out.add_tensor(name, values)
        else:
            out.add_tensor(name, quantize(values, kind), raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return config, weights


def add_tokenizer(out, pre):
    theirs = tokenizer_of(WORDS)
    vocab = theirs.get_vocab()
    pieces = sorted(vocab, key=vocab.get)
    import json

    merges = json.loads(theirs.to_str())["model"]["merges"]
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(pre)
    out.add_token_list(pieces)
    out.add_token_types([3 if piece in SPECIAL else 1 for piece in pieces])
    out.add_token_merges([" ".join(merge) for merge in merges])
    out.add_eos_token_id(vocab["<|im_end|>"])
    out.add_bos_token_id(vocab["<|im_start|>"])
    out.add_chat_template(TEMPLATE)


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    return str(caught.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.gguf"


@pytest.mark.parametrize("tied", [True, False])
def test_the_weights_are_those_that_were_written(path, tied):
    config, weights = write(path, config=config_of(LLAMA, vocab=268, tied=tied))

    loaded = checkpoint.load(path)

    assert (loaded.config.shape.layers, loaded.config.tied, loaded.config.max_positions) == (3, tied, 256)
    for name in weights.blocks.__slots__:
        assert torch.equal(getattr(loaded.weights.blocks, name), getattr(weights.blocks, name)), name
    assert torch.equal(loaded.weights.head, weights.head)


def test_rotary_rows_are_restored_so_that_the_logits_are_the_same(path):
    config, weights = write(path)
    loaded = checkpoint.load(path)
    tokens, pages = torch.arange(30), pages_for(30)

    one, other = (
        model.prefill(tokens, 0, pages, model.new_kv(2))
        for model in (Model(config, weights), Model(loaded.config, loaded.weights))
    )

    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantised_weights_are_dequantised(path, kind):
    kind = GGMLQuantizationType[kind]
    _, weights = write(path, kind=kind)
    expected = dequantize(quantize(weights.blocks.o[1].numpy(), kind), kind)

    actual = checkpoint.load(path, dtype=torch.bfloat16).weights.blocks.o[1]

    assert torch.equal(actual, torch.from_numpy(np.array(expected)).to(torch.bfloat16))


def test_frequency_factors_are_those_of_llama_3(path):
    from predawn.kernels.engine.model import _frequencies
    from predawn.kernels.engine.rope import Llama3Scaling, frequencies

    scaled = frequencies(16, 1e4, Llama3Scaling(8.0, 1.0, 4.0, 32))
    factors = frequencies(16, 1e4) / scaled
    write(path, tensors={"rope_freqs.weight": factors})

    torch.testing.assert_close(_frequencies(checkpoint.load(path).config), scaled)


def test_the_tokenizer_is_rebuilt(path):
    write(path)
    loaded = checkpoint.load(path)
    theirs = tokenizer_of(WORDS)
    text = "the hello 123 is\n\n  thing é🌒"
    rendered = loaded.chat.render([{"role": "user", "content": "hi"}])

    digits_apart = [
        token for part in ("the hello ", "1", "2", "3", " is\n\n  thing é🌒") for token in theirs.encode(part).ids
    ]
    assert loaded.tokenizer.encode(text, special=False) == digits_apart
    assert loaded.tokenizer.eos_ids[0] == theirs.token_to_id("<|im_end|>")
    assert loaded.tokenizer.decode(loaded.tokenizer.encode(rendered, special=True)) == "user\nhi\nassistant\n"


def test_sentence_piece_is_rebuilt_from_scores(path):
    from predawn.kernels.engine import gguf_tokens

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "i", "hi", "▁hi", "▁h"]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * 6],
        "tokenizer.ggml.scores": [0.0] * 259 + [-5.0, -6.0, -7.0, -1.0, -2.0, -0.5],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    made = gguf_tokens.tokenizer(path, metadata, 400)
    ids = made.encode("hi hi", special=False)

    # "▁h" scores best, so it is merged before "hi" can be, and nothing makes "▁hi" of "▁h" and "i" but the vocabulary.
    assert [made.token_bytes(token) for token in ids] == [b" hi", b" hi"]
    assert made.encode("é", special=False)[-2:] == [3 + 0xC3, 3 + 0xA9]
    assert (made.adds_bos, made.bos_id, made.eos_ids) == (True, 1, (2,))


REFUSED = {
    "another architecture": ([("string", "general.architecture", "qwen2")], {}, "general.architecture: 'qwen2'"),
    "a scaling": ([("string", "llama.rope.scaling.type", "yarn")], {}, "llama.rope.scaling.type: 'yarn'"),
    "experts": ([("uint32", "llama.expert_count", 8)], {}, "llama.expert_count: 8 is not supported"),
    "a part of a split": ([("uint16", "split.count", 3)], {}, "split.count: 3 is not supported; merge"),
    "another head": ([("uint32", "llama.attention.key_length", 32)], {}, "rotating a part"),
    "an absurd context": ([("uint32", "llama.context_length", 4_000_000_000)], {}, "llama.context_length"),
    "another tokenizer": ([("string", "tokenizer.ggml.model", "bert")], {}, "tokenizer.ggml.model: 'bert'"),
    "another way to cut words": ([("string", "tokenizer.ggml.pre", "tekken")], {}, "tokenizer.ggml.pre: 'tekken'"),
    "a missing tensor": ([], {"blk.1.attn_q.weight": None}, "blk.1.attn_q.weight: is missing"),
    "a wrong shape": ([], {"blk.1.attn_v.weight": torch.zeros(64, 64)}, "blk.1.attn_v.weight: has shape [64, 64]"),
    "a bias": ([], {"blk.1.attn_q.bias": torch.zeros(64)}, "blk.1.attn_q.bias: is no tensor of this architecture"),
    "factors of another head": ([], {"rope_freqs.weight": torch.ones(3)}, "rope_freqs.weight: needs 8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_computed_wrongly_is_refused(path, case):
    metadata, tensors, words = REFUSED[case]
    write_changed(path, metadata, tensors)

    assert words in refusal(path)


def write_changed(path, metadata, tensors):
    class Changing(GGUFWriter):
        """Lets a key be given twice; the later one counts."""

        def add_key_value(self, key, *args, **more):
            self.kv_data[0].pop(key, None)
            super().add_key_value(key, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.GGUFWriter", Changing)
        write(path, metadata=metadata, tensors=tensors)


@pytest.mark.parametrize("keep", [0, 3, 4, 10, 24, 100, 3000, 9000, -1, -4000])
def test_a_truncated_file_is_named(path, keep):
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    words = refusal(path)

    assert str(path) in words
    assert "fetch it again" in words or "name a .gguf file" in words


def test_truncation_anywhere_and_damage_anywhere_end_in_a_message(path):
    """Nothing else is raised, and nothing runs for long, wherever the header is hit."""
    write(path)
    whole = path.read_bytes()
    header = 9000
    damage = np.random.default_rng(0)
    for _ in range(150):
        at = int(damage.integers(4, header))
        broken = bytearray(whole)
        broken[at : at + 8] = damage.bytes(8)
        path.write_bytes(bytes(broken))
        try:
            checkpoint.load(path)
        except CheckpointError as exc:
            assert str(path) in str(exc)


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("<4sIQQ", b"GGUF", 3, 2**60, 1),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**60),
        struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 2**62),
        struct.pack("<4sIQQQ1sIIQ", b"GGUF", 3, 0, 1, 1, b"a", 9, 0, 2**62),
        struct.pack("<4sIQQQ1sIIQ", b"GGUF", 3, 0, 1, 1, b"a", 9, 9, 2**40),
        struct.pack("<4sIQQ", b"GGUF", 99, 0, 0),
        struct.pack(">4sIQQ", b"GGUF", 3, 0, 0),
    ],
)
def test_absurd_sizes_in_the_header_are_refused_at_once(path, head):
    path.write_bytes(head + bytes(100))

    assert str(path) in refusal(path)


def test_a_file_that_is_none_is_refused(path):
    path.write_bytes(b"PK\x03\x04" + bytes(100))

    assert "is not a GGUF file" in refusal(path)


def test_names_of_tensors_are_llama_cpp_s():
    assert gguf_file.NAMING.block(3)["down"] == "blk.3.ffn_down.weight"
