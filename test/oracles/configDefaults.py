"""What config classes of transformers fill in where config.json says nothing: the fixture of models/families/configs.test.ts.

    python -P test/oracles/configDefaults.py   writes test/fixtures/configs/defaults.json

Needs transformers 5. -P keeps this folder's own names out of the import path. A case is the sizes that a config must state, here the
class's own, and what the class makes of them.
"""

import json
from pathlib import Path

import transformers

FAMILIES = [
    "cohere", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "glm4", "gpt2", "gpt_neox", "granite",
    "hunyuan_v1_dense", "llama", "mistral", "nemotron", "olmo2", "phi", "phi3", "qwen2", "qwen3", "smollm3",
    "stablelm", "starcoder2",
]
SIZES = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
EPS = ["rms_norm_eps", "layer_norm_eps", "norm_epsilon", "layer_norm_epsilon", "norm_eps"]
ACT = ["hidden_act", "hidden_activation", "activation_function"]


def first(config, names):
    return next(getattr(config, name) for name in names if hasattr(config, name))


def ids(value):
    return [] if value is None else value if isinstance(value, list) else [value]


def rope(parameters, name):
    given = parameters.get(name, parameters)
    return {"theta": given["rope_theta"], "partial": given.get("partial_rotary_factor", 1)}


def case(model_type):
    config = transformers.AutoConfig.for_model(model_type)
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    parameters = getattr(config, "rope_parameters", None)
    types = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    every = types is None and window is not None
    return {
        "model_type": model_type,
        "sizes": {name: getattr(config, name) for name in SIZES if hasattr(config, name)},
        "num_key_value_heads": getattr(config, "num_key_value_heads", None) or heads,
        "head_dim": head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "eps": first(config, EPS),
        "activation": first(config, ACT),
        "tied": config.tie_word_embeddings,
        "bos": ids(config.bos_token_id),
        "eos": ids(config.eos_token_id),
        "ropes": None if parameters is None else [rope(parameters, name) for name in ("full_attention", "sliding_attention")],
        "windows": [window if every or (types and types[i] == "sliding_attention") else None for i in range(config.num_hidden_layers)],
        "roped": [bool(x) for x in getattr(config, "no_rope_layers", None) or [parameters is not None] * config.num_hidden_layers],
    }


path = Path(__file__).parent.parent / "fixtures/configs/defaults.json"
path.write_text(json.dumps({"transformers": transformers.__version__, "cases": [case(f) for f in FAMILIES]}) + "\n")
