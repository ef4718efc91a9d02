#!/usr/bin/env python3
"""Write a small random Mixtral folder of any geometry, the same for the same seed.

    python3 make_model.py FOLDER --seed 7 --hidden 48 --experts 6 --dtypes BF16,F32 ...

Needs numpy. Values are normal, 0.02 wide, so that no number is NaN or infinite.
"""
import argparse
import os
import random

import numpy as np

import hf_folder

# Tensors that no rule of a Mixtral model knows: kinds and names that are all legal.
EXTRA_ENTRIES = [
    ("adapter.down.weight", "F32", [5, 3]),
    ("counters", "I64", [11]),
    ("empty", "F16", [0, 7]),
    ("logit_scale", "F32", []),
    ("mask", "BOOL", [3, 2, 5]),
    ("model.layers.0.quantised", "F8_E4M3", [9, 4]),
    ("odd/na%me . of \u00fcn\u00ef\u7801", "U8", [70000]),
    (".", "I16", [2, 2]),
]


def normal_bytes(rng, dtype, count):
    if dtype == "BOOL":
        return rng.integers(0, 2, count, dtype=np.uint8).tobytes()
    if dtype not in ("BF16", "F16", "F32", "F64"):
        width = hf_folder.DTYPE_BYTES[dtype]
        return rng.integers(0, 100, count * width, dtype=np.uint8).tobytes()
    values = rng.standard_normal(count, dtype=np.float32) * np.float32(0.02)
    if dtype == "BF16":  # the upper half of an F32
        return (values.view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).tobytes()


def write_file(path, entries, rng):
    with open(path, "wb") as file:
        file.write(hf_folder.header(entries))
        for _, dtype, shape in entries:
            file.write(normal_bytes(rng, dtype, int(np.prod(shape, dtype=np.int64))))


def make_config(spelling, dtype, hidden, intermediate, layers, heads, kv_heads, experts,
                vocab, tied, head_dim):
    config = {
        "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": hidden,
        "initializer_range": 0.02, "intermediate_size": intermediate,
        "max_position_embeddings": 128, "model_type": "mixtral", "num_attention_heads": heads,
        "num_experts_per_tok": min(2, experts), "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads, "num_local_experts": experts, "rms_norm_eps": 1e-05,
        "router_aux_loss_coef": 0.02, "sliding_window": None, "tie_word_embeddings": tied,
        "use_cache": True, "vocab_size": vocab,
    }
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    if head_dim:
        config["head_dim"] = head_dim
    if spelling == 4:
        config.update(torch_dtype=names[dtype], rope_theta=1e6, transformers_version="4.36.0")
    else:
        config.update(dtype=names[dtype], transformers_version="5.0.0",
                      rope_parameters={"rope_theta": 1e6, "rope_type": "default"})
    return config


def write_side_files(folder):
    """What lies beside the weights of a published model; it must come back untouched."""
    hf_folder.write_json(os.path.join(folder, "tokenizer_config.json"), {"bos_token": "<s>"})
    hf_folder.write_text(os.path.join(folder, "README.md"), "# random\r\n\r\nnot trained\r\n")
    hf_folder.write_text(os.path.join(folder, "chat_template.jinja"), "{{ messages }}")
    hf_folder.write_text(os.path.join(folder, ".gitattributes"), "*.safetensors -text\n")
    with open(os.path.join(folder, "tokenizer.model"), "wb") as file:
        file.write(bytes(range(256)) * 9)
    open(os.path.join(folder, "empty.txt"), "wb").close()


def make_model(folder, seed=1, hidden=64, intermediate=96, layers=2, heads=4, kv_heads=2,
               experts=4, vocab=257, head_dim=None, dtypes=("BF16",), tied=False, shards=3,
               extra=False, optimizer=False, spelling=5, order="sorted"):
    """
    dtypes: each tensor takes one of them, config.json names the first. order: how
    tensors stand in a file, "sorted" as safetensors writes them, or "shuffled".
    """
    os.makedirs(folder, exist_ok=True)
    rng, pick = np.random.default_rng(seed), random.Random(seed)
    config = make_config(spelling, dtypes[0], hidden, intermediate, layers, heads, kv_heads,
                         experts, vocab, tied, head_dim)
    entries = [(name, pick.choice(dtypes), shape)
               for name, _, shape in hf_folder.mixtral_entries(config, dtypes[0])]
    if optimizer:
        entries += hf_folder.optimizer_entries(entries)
    if extra:
        entries += EXTRA_ENTRIES
    pick.shuffle(entries)
    names = ["model.safetensors"] if shards == 1 else hf_folder.file_names(shards)
    files = {name: entries[i::shards] for i, name in enumerate(names)}
    for name in files:
        if order == "sorted":
            files[name] = hf_folder.in_file_order(files[name])
        write_file(os.path.join(folder, name), files[name], rng)
    if shards > 1:
        hf_folder.write_index(folder, files)
    hf_folder.write_json(os.path.join(folder, "config.json"), config)
    write_side_files(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    for name, value in (("seed", 1), ("hidden", 64), ("intermediate", 96), ("layers", 2),
                        ("heads", 4), ("kv-heads", 2), ("experts", 4), ("vocab", 257),
                        ("head-dim", None), ("shards", 3)):
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--dtypes", default="BF16", help="for example BF16,F32")
    parser.add_argument("--spelling", type=int, choices=(4, 5), default=5,
                        help="config.json as this version of transformers writes it")
    parser.add_argument("--order", choices=("sorted", "shuffled"), default="sorted")
    for name in ("tied", "extra", "optimizer"):
        parser.add_argument("--" + name, action="store_true")
    args = vars(parser.parse_args())
    args["dtypes"] = args["dtypes"].split(",")
    make_model(**args)


if __name__ == "__main__":
    main()
