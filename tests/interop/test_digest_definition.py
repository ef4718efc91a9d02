"""docs/digest.md, its script, the safetensors package and the program agree.

Needs safetensors and numpy.
"""
import hashlib
import json
import re
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from make_model import make_model
from program import LEAF_BYTES, REFERENCE, ROOT, ProgramTest, witness
from safetensors import safe_open


def root_by_the_book(leaves):
    """RFC 6962, section 2.1, as it is written there: recursive, and slow."""
    if len(leaves) <= 1:
        return hashlib.sha256(b"\0" + leaves[0] if leaves else b"").digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + root_by_the_book(leaves[:k]) +
                          root_by_the_book(leaves[k:])).digest()


def digest_by_the_book(dtype, shape, data):
    leaves = [data[i:i + LEAF_BYTES] for i in range(0, len(data), LEAF_BYTES)]
    text = f"mixckpt-tensor-v1\n{dtype}\n[{','.join(map(str, shape))}]\n".encode()
    return hashlib.sha256(text + root_by_the_book(leaves)).hexdigest()


def lines_by_the_book(folder):
    lines = {}
    for path in Path(folder).glob("*.safetensors"):
        with safe_open(path, "np") as file:
            for name in file.keys():
                part = file.get_slice(name)
                # numpy has no bfloat16 of its own, so the bytes come from the file
                lines[name] = (part.get_dtype(), part.get_shape(), path)
    return lines


def raw_bytes(path, name):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        begin, end = json.loads(file.read(length))[name]["data_offsets"]
        file.seek(8 + length + begin)
        return file.read(end - begin)


class DigestDefinition(ProgramTest):
    def test_the_worked_example_of_the_page(self):
        page = (ROOT / "docs" / "digest.md").read_text()
        code = re.search(r"```python\n(.*?)```", page, re.S).group(1)
        steps, output = re.findall(r"```\n((?:leaf 0,|[0-9a-f]{64} ).*?)```", page, re.S)
        subprocess.run([sys.executable, "-c", code], cwd=self.tmp, check=True)
        self.assertEqual(witness(self.tmp / "example"), output)

        long = raw_bytes(self.tmp / "example" / "model.safetensors", "long")
        leaf = [hashlib.sha256(b"\0" + long[i:i + LEAF_BYTES]).digest()
                for i in range(0, len(long), LEAF_BYTES)]
        node = hashlib.sha256(b"\1" + leaf[0] + leaf[1]).digest()
        root = hashlib.sha256(b"\1" + node + leaf[2]).digest()
        digest = digest_by_the_book("BF16", [5, 16384], long)
        self.assertEqual([line.split()[-1] for line in steps.splitlines()],
                         [x.hex() for x in (*leaf, node, root)] + [digest])
        self.assertEqual(self.digest(self.tmp / "example"), output)

    def test_the_script_computes_what_the_page_says(self):
        make_model(self.tmp / "odd", seed=3, hidden=640, vocab=1031, extra=True,
                   optimizer=True, layers=1, dtypes=("BF16", "F32"))
        for folder in (REFERENCE / "tiny-mixtral", self.tmp / "odd"):
            tensors = lines_by_the_book(folder)
            expected = {"model": [], "optimizer": []}
            for name in sorted(tensors, key=str.encode):
                dtype, shape, path = tensors[name]
                digest = digest_by_the_book(dtype, shape, raw_bytes(path, name))
                shape = "[" + ",".join(map(str, shape)) + "]"
                expected["optimizer" if "@" in name else "model"].append(
                    (name, f"{digest}  {dtype}  {shape}  {name}\n"))
            lines = [line for _, line in sorted(sum(expected.values(), []),
                                                key=lambda pair: pair[0].encode())]
            for kind, part in expected.items():
                if part or kind == "model":
                    text = "".join(line for _, line in part).encode()
                    lines.append(f"{hashlib.sha256(text).hexdigest()}  {kind}\n")
            self.assertEqual(witness(folder), "".join(lines))

    def test_json_says_the_same_as_the_lines(self):
        lines = self.digest(REFERENCE / "tiny-mixtral").splitlines()
        report = self.run_json("digest", REFERENCE / "tiny-mixtral")
        again = [f"{t['digest']}  {t['dtype']}  [{','.join(map(str, t['shape']))}]  {name}"
                 for name, t in sorted(report["tensors"].items(), key=lambda p: p[0].encode())]
        self.assertEqual(again + [f"{report['model']}  model"], lines)
        self.assertIsNone(report["optimizer"])


if __name__ == "__main__":
    unittest.main()
