"""Frequencies, attention factors, cosines and sines of rope as transformers computes them: the fixture of models/rope.test.ts.

    python -P test/oracles/rope.py            writes test/fixtures/rope/rope.json
    python -P test/oracles/rope.py --measure  prints how far four ways to round are from transformers

Needs transformers 5 and torch (CPU). -P keeps this folder's own names out of the import path.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import LlamaConfig, Phi3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

SHORT = [1.0, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]
LONG = [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 16.0]
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
YARN = {"factor": 4.0, "original_max_position_embeddings": 32}

# name, head_dim, keys of config.json, lengths of the pass
CASES = [
    ("default, no rope key at all", 16, {"max_position_embeddings": 128}, [128]),
    ("default, old", 16, {"max_position_embeddings": 128, "rope_theta": 10000.0, "rope_scaling": None}, [128]),
    ("default, new", 16, {"max_position_embeddings": 128, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}, [128]),
    ("default, theta 1e5, 8192 positions", 64, {"max_position_embeddings": 8192, "rope_theta": 100000}, [8192]),
    ("default, theta 5e5, 131072 positions", 128, {"max_position_embeddings": 131072, "rope_theta": 500000.0}, [131072]),
    ("default, head_dim 80", 80, {"max_position_embeddings": 8192, "rope_theta": 10000.0}, [8192]),
    ("default, head_dim 2", 2, {"max_position_embeddings": 64, "rope_theta": 10000.0}, [64]),
    ("default, head_dim 96, theta 1e6, new without a type", 96, {"max_position_embeddings": 4096, "rope_parameters": {"rope_theta": 1000000.0}}, [4096]),
    ("linear, old type", 16, {"max_position_embeddings": 128, "rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 4.0}}, [128]),
    ("linear, old rope_type, factor 3", 80, {"max_position_embeddings": 128, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 3}}, [128]),
    ("linear, new", 16, {"max_position_embeddings": 128, "rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 500000.0}}, [128]),
    ("dynamic, old", 16, {"max_position_embeddings": 32, "rope_theta": 10000.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, [24, 32, 33, 48, 500]),
    ("dynamic, new, factor 3.3", 80, {"max_position_embeddings": 512, "rope_parameters": {"rope_type": "dynamic", "factor": 3.3, "rope_theta": 100000.0}}, [512, 513, 2000]),
    ("llama3, old, as Llama 3.1", 128, {"max_position_embeddings": 131072, "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", **LLAMA3}}, [131072]),
    ("llama3, new, as Llama 3.2", 64, {"max_position_embeddings": 8192, "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, **LLAMA3, "factor": 32.0}}, [8192]),
    ("llama3, all three bands", 16, {"max_position_embeddings": 256, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "llama3", **LLAMA3, "original_max_position_embeddings": 32}}, [256]),
    ("llama3, original length left out", 16, {"max_position_embeddings": 64, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}}, [64]),
    ("yarn, new", 32, {"max_position_embeddings": 128, "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "beta_fast": 1.0, "beta_slow": 0.25, **YARN}}, [128]),
    ("yarn, old, default betas, as Qwen", 128, {"max_position_embeddings": 32768, "rope_theta": 1000000.0, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}, [4096]),
    ("yarn, both mscales", 16, {"max_position_embeddings": 128, "rope_theta": 10000.0, "rope_scaling": {"type": "yarn", "mscale": 0.8, "mscale_all_dim": 0.6, "beta_fast": 1, "beta_slow": 0.25, **YARN}}, [128]),
    ("yarn, one mscale is none", 16, {"max_position_embeddings": 128, "rope_theta": 10000.0, "rope_scaling": {"type": "yarn", "mscale": 0.8, **YARN}}, [128]),
    ("yarn, attention_factor", 16, {"max_position_embeddings": 128, "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "attention_factor": 0.75, **YARN}}, [128]),
    ("yarn, without truncation", 64, {"max_position_embeddings": 4096, "rope_theta": 150000.0, "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 128, "truncate": False}}, [4096]),
    ("yarn, factor null is the ratio", 16, {"max_position_embeddings": 256, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 32}}, [256]),
    ("yarn, one step wide", 8, {"max_position_embeddings": 64, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "beta_fast": 40.0, "beta_slow": 39.0}}, [64]),
    ("yarn, no step at all", 16, {"max_position_embeddings": 64, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 4}}, [64]),
    ("yarn, ends crossed", 128, {"max_position_embeddings": 64, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 2}}, [64]),
    ("longrope, new", 16, {"max_position_embeddings": 128, "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32, "short_factor": SHORT, "long_factor": LONG}}, [24, 32, 33, 128]),
    ("longrope, original length at the top, no factor", 16, {"max_position_embeddings": 128, "original_max_position_embeddings": 32, "rope_theta": 10000.0, "rope_scaling": {"type": "longrope", "short_factor": SHORT, "long_factor": LONG}}, [32, 48]),
    ("longrope, attention_factor", 16, {"max_position_embeddings": 128, "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, "attention_factor": 1.25, "original_max_position_embeddings": 64, "short_factor": SHORT, "long_factor": LONG}}, [64, 65]),
    ("partial, linear", 32, {"max_position_embeddings": 128, "partial_rotary_factor": 0.5, "rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}, [128]),
    ("partial, yarn, new", 32, {"max_position_embeddings": 128, "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "partial_rotary_factor": 0.75, **YARN}}, [128]),
    ("partial, default", 32, {"max_position_embeddings": 128, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}}, [128]),
]


def embedding(head_dim, keys):
    """The rotary module of a fresh model: it remembers the lengths it has seen."""
    keys = json.loads(json.dumps(keys))  # configs change what they are given
    shape = {"hidden_size": 2 * head_dim, "num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 1, "head_dim": head_dim}
    plain = (keys.get("rope_parameters") or {}).get("rope_type") == "default"
    if plain and "partial_rotary_factor" in keys["rope_parameters"]:  # Llama's default rope knows no partial rotation
        return Phi3RotaryEmbedding(Phi3Config(**shape, **keys, pad_token_id=0))
    return LlamaRotaryEmbedding(LlamaConfig(**shape, **keys))


def exact(tensor):
    """float32 values as the shortest decimals that read back as the same float32."""
    return [float(np.format_float_positional(value, unique=True)) if value else 0.0 for value in tensor.numpy().astype(np.float32)]


def passes(head_dim, keys, lengths):
    for length in lengths:
        rope = embedding(head_dim, keys)
        cos, sin = rope(torch.zeros(1), torch.arange(length)[None])
        half = rope.inv_freq.shape[0]
        positions = sorted({0, 1, length // 3, length - 1})
        rows = [exact(torch.cat((cos[0, p, :half], sin[0, p, :half]))) for p in positions]
        yield {
            "length": length,
            "inv_freq": exact(rope.inv_freq),
            "attention_scaling": float(rope.attention_scaling),
            "positions": positions,
            "rows": rows,
        }


def write():
    cases = [
        {"name": name, "head_dim": head_dim, "config": keys, "passes": list(passes(head_dim, keys, lengths))}
        for name, head_dim, keys, lengths in CASES
    ]
    made_by = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}
    path = Path(__file__).parent.parent / "fixtures" / "rope" / "rope.json"
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    path.write_text(f'{{"made_by":{json.dumps(made_by)},"cases":[\n{lines}\n]}}\n')
    print(f"{len(cases)} cases, {path.stat().st_size} bytes")


def measure():
    f32 = np.float32
    worst = {}
    for head_dim in (64, 80, 128):
        for theta in (1e4, 1e5, 5e5):
            rope = embedding(head_dim, {"max_position_embeddings": 131072, "rope_theta": theta})
            i = np.arange(0, head_dim, 2)
            once = theta ** (-i / head_dim)
            steps = f32(1) / (theta ** (i / head_dim).astype(f32).astype(float)).astype(f32)
            print(f"head_dim {head_dim}, theta {theta:g}: {np.sum(steps != rope.inv_freq.numpy())} of {len(i)} frequencies differ")
            ways = {
                "exact, exact product": (once, False),
                "rounded once, exact product": (once.astype(f32).astype(float), False),
                "rounded step by step, exact product": (steps.astype(float), False),
                "rounded step by step, product rounded": (steps.astype(float), True),
            }
            for end in (512, 8192, 131072):
                positions = np.arange(end) if end <= 8192 else np.arange(0, end, 7)
                cos, sin = rope(torch.zeros(1), torch.tensor(positions)[None])
                for way, (frequencies, rounded) in ways.items():
                    angle = positions[:, None] * frequencies[None]
                    angle = angle.astype(f32).astype(float) if rounded else angle
                    errors = [abs(of(angle) - got[0, :, : len(i)].numpy()).max() for of, got in ((np.cos, cos), (np.sin, sin))]
                    worst[way, end] = max(worst.get((way, end), 0), *errors)
    for (way, end), error in worst.items():
        print(f"{way:40} below {end:6}: {error:.0e}")


measure() if "--measure" in sys.argv else write()
