#!/usr/bin/env python3
"""Print what `mixckpt digest` prints for a Hugging Face folder, without mixckpt.

    python3 mixckpt_digest.py FOLDER

FOLDER holds model.safetensors.index.json and the files that it names, or
model.safetensors. digest.md, beside this file, defines every number. Plain Python 3;
memory does not grow with the model: a tensor is read leaf by leaf.
"""
import hashlib
import json
import os
import sys

LEAF_BYTES = 65536


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def merkle_root(file, size):
    """The root over the next `size` bytes of file: RFC 6962 in a stack of perfect subtrees."""
    stack, count = [], 0
    while size:
        leaf = file.read(min(size, LEAF_BYTES))
        if len(leaf) < min(size, LEAF_BYTES):
            sys.exit(f"{file.name}: ends {size - len(leaf)} bytes too early")
        node, full = sha256(b"\0", leaf), count
        while full & 1:  # two subtrees of the same height become one
            node, full = sha256(b"\1", stack.pop(), node), full >> 1
        stack.append(node)
        size, count = size - len(leaf), count + 1
    while len(stack) > 1:  # what is left over joins from the right
        right = stack.pop()
        stack.append(sha256(b"\1", stack.pop(), right))
    return stack[0] if stack else sha256()


def header(path):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        tensors = json.loads(file.read(length))
    tensors.pop("__metadata__", None)
    return {name: (path, 8 + length, t) for name, t in tensors.items()}


def main(folder):
    index, tensors = os.path.join(folder, "model.safetensors.index.json"), {}
    if os.path.exists(index):
        with open(index, encoding="utf-8") as file:
            names = json.load(file)["weight_map"]
        for path in sorted(set(names.values())):
            tensors.update(header(os.path.join(folder, path)))
    else:
        tensors = header(os.path.join(folder, "model.safetensors"))
    totals = {"model": hashlib.sha256()}
    for name in sorted(tensors, key=str.encode):
        path, start, t = tensors[name]
        dtype, shape = t["dtype"], json.dumps(t["shape"], separators=(",", ":"))
        begin, end = t["data_offsets"]
        with open(path, "rb") as file:
            file.seek(start + begin)
            root = merkle_root(file, end - begin)
        digest = sha256(f"mixckpt-tensor-v1\n{dtype}\n{shape}\n".encode(), root).hex()
        line = f"{digest}  {dtype}  {shape}  {name}\n".encode()
        sys.stdout.buffer.write(line)
        kind = "optimizer" if "@" in name else "model"
        totals.setdefault(kind, hashlib.sha256()).update(line)
    for kind, total in totals.items():
        sys.stdout.buffer.write(f"{total.hexdigest()}  {kind}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1]) if len(sys.argv) == 2 else sys.exit(__doc__)
