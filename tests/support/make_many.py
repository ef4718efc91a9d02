#!/usr/bin/env python3
"""Write a folder of many small tensors: 10,000 of 1 KiB.

    python3 make_many.py FOLDER [--files] [--count N]

One file, or with --files a file a tensor and an index. config.json names a model type
that no table knows, so the names are kept as they are.
"""
import argparse
import os
import random

import hf_folder


def make_many(folder, count=10000, one_file_each=False, seed=1):
    os.makedirs(folder, exist_ok=True)
    source = random.Random(seed)
    entries = [(f"table.{i:05d}.weight", "F32", [16, 16]) for i in range(count)]
    if one_file_each:
        files = {name: [e] for name, e in zip(hf_folder.file_names(count), entries)}
        hf_folder.write_index(folder, files)
    else:
        files = {"model.safetensors": entries}
    for name, inside in files.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(hf_folder.header(inside))
            for entry in inside:
                file.write(source.randbytes(hf_folder.entry_bytes(entry)))
    hf_folder.write_json(os.path.join(folder, "config.json"), {"model_type": "many-tables"})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--files", action="store_true", help="a file a tensor")
    parser.add_argument("--count", type=int, default=10000)
    args = parser.parse_args()
    make_many(args.folder, args.count, args.files)


if __name__ == "__main__":
    main()
