"""Shared blocks as a transformers model: L * R layers for its cache, L sets of weights. The oracle of the engine."""

import torch
from tests.kernels.engine.random_models import config_json, tensors_of
from transformers import LlamaConfig, LlamaForCausalLM


def transformers_model(config, weights, **more):
    """The same model in transformers."""
    repeat = config.shape.repeat
    keys = {key: value for key, value in config_json(config).items() if "shar" not in key and key != "model_type"}
    keys |= {"num_hidden_layers": config.shape.passes, "rope_theta": config.shape.rope_theta, "use_cache": True, **more}
    model = LlamaForCausalLM(LlamaConfig(**keys)).eval().to(config.dtype)
    for index, layer in enumerate(list(model.model.layers)):
        first = model.model.layers[index - index % repeat]
        for part in ("mlp", "input_layernorm", "post_attention_layernorm"):
            setattr(layer, part, getattr(first, part))
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(layer.self_attn, part, getattr(first.self_attn, part))
    with torch.no_grad():
        state = model.state_dict()
        for name, tensor in tensors_of(config, weights, stride=repeat).items():
            state[name].copy_(tensor)
    return model
