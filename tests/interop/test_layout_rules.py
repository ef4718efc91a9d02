"""Which rank holds which rows and columns: the rules, written down a second time.

Needs numpy (to make models).
"""
import itertools
import json
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from make_model import make_model
from program import REFERENCE, ProgramTest, files_of

ROWS = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "w1.weight", "w3.weight",
        "embed_tokens.weight", "lm_head.weight")
COLUMNS = ("o_proj.weight", "w2.weight")


def chunk(size, parts, i):
    """[begin, end) of part i, as torch.chunk cuts."""
    step = -(-size // parts)
    return min(i * step, size), min((i + 1) * step, size)


def tp_cuts(weight, shape, tp):
    """(tp rank, row begin, row end, column begin, column end or None) of what each rank holds."""
    rows, columns = shape[0], shape[1] if len(shape) > 1 else None
    for i in range(tp):
        if weight.endswith(ROWS):
            yield i, *chunk(rows, tp, i), 0, columns
        elif weight.endswith(COLUMNS):
            yield i, 0, rows, *chunk(columns, tp, i)
        elif i == 0:
            yield i, 0, rows, 0, columns


def expected_pieces(name, shape, mesh, experts, extension):
    """{(file, offsets, lengths)} of one tensor."""
    (ep, hsd, tp), (weight, _, state) = mesh, name.partition("@")
    folder, words = "optimizer" if state else "model", weight.split(".experts.")
    group = "dense"
    if len(words) == 2:
        group = f"experts-ep{int(words[1].split('.')[0]) * ep // experts:05d}of{ep:05d}"

    def file(h, t):
        tail = f"-tp{t:05d}of{tp:05d}" if tp > 1 else ""
        return f"{folder}/{group}-hsd{h:05d}of{hsd:05d}{tail}.{extension}"

    if not shape or 0 in shape:
        return {(file(0, 0), (0,) * len(shape), tuple(shape))}
    pieces = set()
    for (t, top, bottom, left, right), h in itertools.product(tp_cuts(weight, shape, tp),
                                                              range(hsd)):
        begin, end = chunk(bottom - top, hsd, h)
        if begin < end and right != left:
            offsets, lengths = [top + begin], [end - begin]
            if right is not None:
                offsets, lengths = offsets + [left], lengths + [right - left]
            pieces.add((file(h, t), tuple(offsets + [0] * (len(shape) - len(offsets))),
                        tuple(lengths + list(shape[len(lengths):]))))
    return pieces


class LayoutRules(ProgramTest):
    def check(self, src, *meshes):
        experts = json.loads((src / "config.json").read_text())["num_local_experts"]
        for i, mesh in enumerate(meshes):
            container, extension = (("hdf5", "h5"), ("safetensors", "safetensors"))[i % 2]
            ckpt, files = self.tmp / f"{src.name} {mesh}", set()
            self.convert(src, ckpt, *mesh, "--container", container)
            for t in self.run_json("inspect", ckpt)["tensors"]:
                found = {(p["file"], tuple(p["offsets"]), tuple(p["lengths"]))
                         for p in t["pieces"]}
                expected = expected_pieces(t["name"], t["shape"], mesh, experts, extension)
                self.assertEqual(found, expected, f"{t['name']} on {mesh}")
                files |= {file for file, _, _ in found}
            on_disk = {f for f in files_of(ckpt) if f.endswith("." + extension)}
            self.assertEqual(on_disk, files)

    def test_models_that_transformers_wrote(self):
        self.check(REFERENCE / "tiny-mixtral", (1, 1, 2), (2, 4, 1), (4, 3, 2), (4, 300, 1))
        self.check(REFERENCE / "tiny-mixtral-tied", (8, 3, 2), (2, 5, 2), (1, 16, 1))

    def test_uneven_sizes_optimizer_state_and_tensors_that_no_rule_knows(self):
        make_model(self.tmp / "odd", seed=31, hidden=42, intermediate=51, heads=6, kv_heads=3,
                   experts=6, vocab=101, extra=True, optimizer=True, spelling=4)
        self.check(self.tmp / "odd", (3, 4, 3), (6, 2, 1), (2, 7, 3), (1, 1, 1))


if __name__ == "__main__":
    unittest.main()
