"""Writing Hugging Face folders with nothing but the standard library.

Shared by the makers beside it. A file is described by entries (name, dtype, shape);
its header is spelled byte for byte as the safetensors package spells it.
"""
import json
import math
import os

DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2,
    "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}
OPTIMIZER_SUFFIXES = ("@exp_avg", "@exp_avg_sq", "@master")


def entry_bytes(entry):
    _, dtype, shape = entry
    return math.prod(shape) * DTYPE_BYTES[dtype]


def in_file_order(entries):
    """As safetensors sorts them: wide dtypes first (in its own order), then by name."""
    rank = {dtype: i for i, dtype in enumerate(DTYPE_BYTES)}
    return sorted(entries, key=lambda e: (-rank[e[1]], e[0].encode()))


def header(entries, metadata={"format": "pt"}):
    """The length, the header, and the spaces that align the data to 8."""
    fields, at = {"__metadata__": metadata} if metadata else {}, 0
    for entry in entries:
        name, dtype, shape = entry
        end = at + entry_bytes(entry)
        fields[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def mixtral_entries(config, dtype):
    """All weights of a Mixtral model, in the order in which transformers 4 holds them."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    vocab, experts = config["vocab_size"], config["num_local_experts"]
    shapes = [("model.embed_tokens.weight", [vocab, hidden])]
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        shapes += [(p + "self_attn.q_proj.weight", [q, hidden]),
                   (p + "self_attn.k_proj.weight", [kv, hidden]),
                   (p + "self_attn.v_proj.weight", [kv, hidden]),
                   (p + "self_attn.o_proj.weight", [hidden, q]),
                   (p + "block_sparse_moe.gate.weight", [experts, hidden])]
        for e in range(experts):
            x = p + f"block_sparse_moe.experts.{e}."
            shapes += [(x + "w1.weight", [inner, hidden]), (x + "w2.weight", [hidden, inner]),
                       (x + "w3.weight", [inner, hidden])]
        shapes += [(p + "input_layernorm.weight", [hidden]),
                   (p + "post_attention_layernorm.weight", [hidden])]
    shapes.append(("model.norm.weight", [hidden]))
    if not config.get("tie_word_embeddings"):
        shapes.append(("lm_head.weight", [vocab, hidden]))
    return [(name, dtype, shape) for name, shape in shapes]


def optimizer_entries(entries):
    return [(name + suffix, "F32", shape) for name, _, shape in entries
            for suffix in OPTIMIZER_SUFFIXES]


def cut_greedy(entries, shard_bytes):
    """Files as transformers cuts them: a new one where the next tensor would not fit."""
    files, size = [[]], 0
    for entry in entries:
        if files[-1] and size + entry_bytes(entry) > shard_bytes:
            files.append([])
            size = 0
        files[-1].append(entry)
        size += entry_bytes(entry)
    return files


def file_names(count, stem="model"):
    return [f"{stem}-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]


def write_text(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def write_json(path, value):
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_index(folder, files):
    """files: {file name: entries}."""
    total = sum(entry_bytes(e) for entries in files.values() for e in entries)
    names = {e[0]: name for name, entries in files.items() for e in entries}
    write_json(os.path.join(folder, "model.safetensors.index.json"),
               {"metadata": {"total_size": total}, "weight_map": names})
