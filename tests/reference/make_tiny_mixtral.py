#!/usr/bin/env python3
"""Make the two folders beside this script, with torch and transformers.

    python3 make_tiny_mixtral.py [DESTINATION]

    tiny-mixtral        as transformers 5 saves a model: BF16, several shards with an
                        index (its tensors in an order of transformers' own)
    tiny-mixtral-tied   with the config.json that transformers 4 wrote: F16, one file,
                        8 experts, tied embeddings, sizes that 3 does not divide

Both are committed, so that the tests need neither torch nor transformers. Another
version of transformers may spell config.json or cut shards in another way; that is
no reason to make them again.
"""
import json
import os
import shutil
import sys

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast


def make_model(config, seed):
    """Every weight random, norms too: all ones would hide a mix-up."""
    torch.manual_seed(seed)
    model = MixtralForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            mean = 1.0 if "norm" in name else 0.0
            weight.copy_(torch.normal(mean, 0.05, weight.shape))
    return model


def save_tokenizer(folder, vocab_size):
    words = ["<unk>", "<s>", "</s>"] + [f"w{i}" for i in range(3, vocab_size)]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>",
                            eos_token="</s>").save_pretrained(folder)


def save(folder, model, **how):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **how)
    save_tokenizer(folder, model.config.vocab_size)
    with open(os.path.join(folder, "README.md"), "w") as file:
        file.write(f"Random weights, saved by transformers {transformers.__version__} "
                   "and made by make_tiny_mixtral.py.\n")
    for name in os.listdir(folder):
        os.chmod(os.path.join(folder, name), 0o644)


def spell_as_transformers_4(path):
    with open(path) as file:
        config = json.load(file)
    config["torch_dtype"] = config.pop("dtype")
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["transformers_version"] = "4.36.0.dev0"
    for newer in ("head_dim", "pad_token_id", "router_jitter_noise"):
        config.pop(newer, None)
    with open(path, "w") as file:
        file.write(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main(destination):
    sizes = dict(max_position_embeddings=128, num_hidden_layers=2, vocab_size=257)
    plain = MixtralConfig(hidden_size=64, intermediate_size=96, num_attention_heads=4,
                          num_key_value_heads=2, num_local_experts=4, **sizes)
    save(os.path.join(destination, "tiny-mixtral"),
         make_model(plain, 1).to(torch.bfloat16), max_shard_size="100KB")

    tied = MixtralConfig(hidden_size=56, intermediate_size=70, num_attention_heads=14,
                         num_key_value_heads=2, num_local_experts=8,
                         tie_word_embeddings=True, sliding_window=4096, **sizes)
    folder = os.path.join(destination, "tiny-mixtral-tied")
    save(folder, make_model(tied, 2).to(torch.float16))
    spell_as_transformers_4(os.path.join(folder, "config.json"))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__)))
