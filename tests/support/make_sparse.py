#!/usr/bin/env python3
"""Write a folder that looks like the published Mixtral-8x7B or 8x22B and takes no room.

    python3 make_sparse.py 8x7b|8x22b FOLDER [--optimizer]

The files have the published cut, headers and sizes (the 19 of 8x7B are 93,405,713,504
bytes); all tensor bytes are holes, so they read as zeros. --optimizer adds @exp_avg,
@exp_avg_sq and @master in F32 to every weight, in further files of the same index.
"""
import argparse
import os

import hf_folder

SHARD_BYTES = 5 * 10**9  # transformers' default when both were published

CONFIG_8X7B = {
    "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
    "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mixtral",
    "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "num_local_experts": 8, "output_router_logits": False,
    "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02,
    "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "transformers_version": "4.36.0.dev0", "use_cache": True, "vocab_size": 32000,
}
CONFIG_8X22B = dict(CONFIG_8X7B, hidden_size=6144, intermediate_size=16384,
                    max_position_embeddings=65536, num_attention_heads=48,
                    num_hidden_layers=56, rope_theta=1000000, router_aux_loss_coef=0.001,
                    router_jitter_noise=0.0, transformers_version="4.40.0.dev0")
CONFIGS = {"8x7b": CONFIG_8X7B, "8x22b": CONFIG_8X22B}


def write_sparse(path, entries):
    head = hf_folder.header(hf_folder.in_file_order(entries))
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(len(head) + sum(map(hf_folder.entry_bytes, entries)))


def make_sparse(folder, config, optimizer=False):
    """Returns the size of all weight files together."""
    os.makedirs(folder, exist_ok=True)
    weights = hf_folder.mixtral_entries(config, "BF16")
    groups = [("model", weights)]
    if optimizer:
        groups.append(("optimizer", hf_folder.optimizer_entries(weights)))
    files = {}
    for stem, entries in groups:
        cut = hf_folder.cut_greedy(entries, SHARD_BYTES)
        files.update(zip(hf_folder.file_names(len(cut), stem), cut))
    for name, entries in files.items():
        write_sparse(os.path.join(folder, name), entries)
    hf_folder.write_index(folder, files)
    hf_folder.write_json(os.path.join(folder, "config.json"), config)
    return sum(os.path.getsize(os.path.join(folder, name)) for name in files)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=sorted(CONFIGS))
    parser.add_argument("folder")
    parser.add_argument("--optimizer", action="store_true")
    args = parser.parse_args()
    print(make_sparse(args.folder, CONFIGS[args.model], args.optimizer), "bytes")


if __name__ == "__main__":
    main()
