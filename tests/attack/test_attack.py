"""For every rule of every format a checkpoint that breaks it, and the words it must produce.

A row says what is wrong, how to make it so, and what `verify` must report: kind, file and
tensor of a defect, and words of its message. Whoever reads the checkpoint for something
else must refuse it with one line that holds such words too, and leave nothing behind;
or, where nothing is lost, go on with a warning. Standard library only.
"""
import json
import os
import shutil
import struct
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from forge import Manifest, compact, join_weights, split_weights
from program import REFERENCE, ProgramTest, Run, files_of, flip_byte, run_measured

SRC = REFERENCE / "tiny-mixtral"
INDEX = "model.safetensors.index.json"
FIRST = "model-00001-of-00005.safetensors"  # lm_head.weight and embed_tokens, BF16 [257, 64]
LAST = "model-00005-of-00005.safetensors"
KINDS = {"corrupt", "missing", "truncated", "overlap", "hole", "bad-format", "unexpected",
         "non-finite", "all-zero", "mismatch", "bad-signature"}
FIELDS = {"kind", "file", "tensor", "begin", "end", "message"}
HUGE = 2**63


class Attack(ProgramTest):
    def defects(self, place, code=1):
        report = self.run_json("verify", place, code=code)
        self.assertFalse(report["ok"])
        for d in report["defects"]:
            self.assertEqual(set(d), FIELDS)
            self.assertIn(d["kind"], KINDS)
            for key in ("file", "tensor"):  # null where it does not apply
                self.assertNotEqual(d[key], "")
                d[key] = d[key] or ""
        return report["defects"]

    def assert_defect(self, place, kind, file, tensor, says, span=None):
        found = self.defects(place)
        mine = [d for d in found if d["kind"] == kind and d["file"] == file and
                (tensor is None or d["tensor"] == tensor) and says in d["message"]]
        self.assertTrue(mine, f"no defect {kind} {file} {tensor} '{says}' in {found}")
        if span:
            self.assertIn(span, [(d["begin"], d["end"]) for d in mine])
        out = self.run_program("verify", place, code=1).out
        shown = "".join(c if c.isprintable() else "?" for c in file) or "-"
        self.assertIn(f"{kind} {shown} ", out)
        self.assertFalse([c for c in out if c < " " and c != "\n"], "for a terminal")

    def refuse(self, words, *args):
        """Exit 3, one line on stderr with the words, and nothing is left."""
        before = files_of(self.tmp)
        run = self.run_program(*args, code=3)
        lines = [line for line in run.err.splitlines() if "warning: " not in line]
        self.assertEqual(len(lines), 1, run)
        self.assertTrue(lines[0].startswith("mixckpt: "), run)
        for word in (words,) if isinstance(words, str) else words:
            self.assertIn(word, lines[0])
        self.assertEqual(run.out, "")
        self.assertEqual(files_of(self.tmp), before)
        error = self.run_json(*args, code=3)["error"]
        self.assertEqual(set(error), {"kind", "message", "file", "tensor", "begin", "end"})
        return error

    def go_on(self, word, src, dst):
        """The other case: nothing is lost, so it is converted, with a warning."""
        result = self.convert(src, dst, 2, 2)
        self.assertIn(word, "\n".join(result["warnings"]))
        shutil.rmtree(dst)


# ---- a Hugging Face folder ----

def edit(name, change):
    """Change the bytes of a file."""
    def spoil(folder):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))
    return spoil


def swap(name, old, new):
    """Change a text that must be there."""
    def change(data):
        old_bytes, new_bytes = (x if isinstance(x, bytes) else x.encode() for x in (old, new))
        assert old_bytes in data, (name, old)
        return data.replace(old_bytes, new_bytes, 1)
    return edit(name, change)


def index(change):
    """Change the index as an object."""
    def spoil(folder):
        value = json.loads((folder / INDEX).read_text())
        change(value)
        (folder / INDEX).write_text(json.dumps(value))
    return spoil


def put(key, value):
    return lambda o: o["weight_map"].__setitem__(key, value)


def config(**fields):
    def spoil(folder):
        value = json.loads((folder / "config.json").read_text())
        value.update(fields)
        (folder / "config.json").write_text(json.dumps(value))
    return spoil


def header(change):
    """Change the text of the header of the first weight file; its length follows."""
    def change_file(data):
        text, rest = split_weights(data)
        return join_weights(change(text), rest)
    return edit(FIRST, change_file)


def field(name, key, value):
    """Change one field of one tensor in that header; value is JSON text."""
    def change(text):
        fields = json.loads(text)
        fields[name][key] = "@value@"
        return compact(fields).replace('"@value@"', value).encode()
    return header(change)


def rename(name, new):
    """`new` is JSON text, quotes included."""
    return header(lambda text: text.replace(compact(name).encode(), new.encode("utf-8"), 1))


def remove(name):
    return lambda folder: (folder / name).unlink()


def as_folder(name):
    def spoil(folder):
        (folder / name).unlink()
        (folder / name).mkdir()
    return spoil


def both(*steps):
    def spoil(folder):
        for step in steps:
            step(folder)
    return spoil


LM, EMBED, NORM = "lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"
TAIL = "model.layers.0.input_layernorm.weight"  # the last in the first file
SIZE = 257 * 64 * 2

# defect, how, kind, file, tensor, words of the defect; then, if they are others, words of the
# refusal. With "~" in front they are those of a warning instead, for nothing is lost.
FOLDERS = [
    # the index
    ("index-cut-short", edit(INDEX, lambda b: b[:-9]), "bad-format", INDEX, "", "not JSON at byte"),
    ("index-empty", edit(INDEX, lambda b: b""), "bad-format", INDEX, "", "not JSON"),
    ("index-a-list", edit(INDEX, lambda b: b"[]"), "bad-format", INDEX, "", "no object 'weight_map'"),
    ("index-with-a-byte-order-mark", edit(INDEX, lambda b: b"\xef\xbb\xbf" + b), "bad-format", INDEX,
     "", "not JSON at byte 0"),
    ("index-with-trailing-nul", edit(INDEX, lambda b: b + b"\0"), "bad-format", INDEX, "", "not JSON"),
    ("index-not-utf-8", swap(INDEX, b"lm_head", b"lm_h\xffad"), "bad-format", INDEX, "", "UTF-8"),
    ("index-key-twice", swap(INDEX, '"lm_head.weight"', '"model.norm.weight"'), "bad-format", INDEX,
     "", "the key 'model.norm.weight' stands twice"),
    ("index-metadata-key-twice", swap(INDEX, '"total_parameters"', '"total_size"'), "bad-format",
     INDEX, "", "the key 'total_size' stands twice"),
    ("index-without-weight-map", swap(INDEX, '"weight_map"', '"weight_mop"'), "bad-format", INDEX, "",
     "no object 'weight_map'"),
    ("index-weight-map-null", index(lambda o: o.update(weight_map=None)), "bad-format", INDEX, "",
     "no object 'weight_map'"),
    ("index-file-a-number", index(put(NORM, 5)), "bad-format", INDEX, "", "puts 'model.norm.weight' into"),
    ("index-file-null", index(put(NORM, None)), "bad-format", INDEX, "", "names no .safetensors file"),
    ("index-file-empty", index(put(NORM, "")), "bad-format", INDEX, "", "names no .safetensors file"),
    ("index-file-outside", index(put(NORM, "../x.safetensors")), "bad-format", INDEX, "",
     "'../x.safetensors'"),
    ("index-file-absolute", index(put(NORM, "/etc/passwd")), "bad-format", INDEX, "", "'/etc/passwd'"),
    ("index-file-dots", index(put(NORM, "..")), "bad-format", INDEX, "", "names no .safetensors file"),
    ("index-file-in-a-folder", index(put(NORM, "a/b.safetensors")), "bad-format", INDEX, "",
     "'a/b.safetensors'"),
    ("index-file-not-weights", index(put(NORM, "config.json")), "bad-format", INDEX, "",
     "names no .safetensors file"),
    ("index-file-of-control-characters", index(put(NORM, "\x1b[31m.safetensors")), "bad-format",
     "\x1b[31m.safetensors", "", "control character"),
    ("index-file-that-is-not-there", index(put(NORM, "model-00006-of-00005.safetensors")), "missing",
     "model-00006-of-00005.safetensors", "", "no such file"),
    ("index-tensor-that-is-not-there", index(put("model.more.weight", LAST)), "missing", LAST,
     "model.more.weight", "is not in this file"),
    ("index-tensor-in-another-file", index(put(LM, LAST)), "missing", LAST, LM, "is not in this file"),
    ("index-tensor-not-named", index(lambda o: o["weight_map"].pop(LM)), "bad-format", INDEX, LM,
     "does not name the tensor", "~does not name the tensor"),
    ("index-total-size-wrong", swap(INDEX, '"total_size": 411520', '"total_size": 411522'),
     "bad-format", INDEX, "", "total_size is 411522, the tensors have 411520 bytes",
     "~total_size is 411522"),
    ("index-total-size-huge", swap(INDEX, '"total_size": 411520', f'"total_size": {2**64 - 1}'),
     "bad-format", INDEX, "", f"total_size is {2**64 - 1}", "~total_size is"),
    ("index-a-folder", as_folder(INDEX), "missing", "mixckpt.json", "", "holds no checkpoint"),

    # files
    ("weights-missing", remove(LAST), "missing", LAST, "", "no such file"),
    ("weights-a-folder", as_folder(LAST), "bad-format", LAST, "", "is a folder"),
    ("weights-a-dangling-link", both(remove(LAST), lambda f: (f / LAST).symlink_to("nowhere")),
     "missing", LAST, "", "no such file"),
    ("weights-that-nobody-lists", lambda f: shutil.copy(f / LAST, f / "model-00009-of-00009.safetensors"),
     "unexpected", "model-00009-of-00009.safetensors", "", "no index lists",
     "~1 weight file that the index does not name"),
    ("tensor-in-two-files", edit(LAST, lambda b: (SRC / FIRST).read_bytes()), "overlap", LAST, LM,
     "stands in model-00001-of-00005.safetensors too"),

    # config.json
    ("config-cut-short", edit("config.json", lambda b: b[:40]), "bad-format", "config.json", "", "not JSON"),
    ("config-key-twice", swap("config.json", '"use_cache"', '"vocab_size"'), "bad-format", "config.json",
     "", "the key 'vocab_size' stands twice"),
    ("config-a-list", edit("config.json", lambda b: b"[1]"), "bad-format", "config.json", "", "not a JSON object"),
    ("config-without-hidden-size", swap("config.json", "hidden_size", "hidden_sise"), "bad-format",
     "config.json", "", "hidden_size"),
    ("config-hidden-size-negative", config(hidden_size=-64), "bad-format", "config.json", "", "hidden_size"),
    ("config-hidden-size-zero", config(hidden_size=0), "bad-format", "config.json", "", "hidden_size"),
    ("config-hidden-size-huge", config(hidden_size=HUGE), "bad-format", "config.json", "", "hidden_size"),
    ("config-hidden-size-text", config(hidden_size="64"), "bad-format", "config.json", "", "hidden_size"),
    ("config-hidden-size-fraction", config(hidden_size=64.5), "bad-format", "config.json", "", "hidden_size"),
    ("config-heads-and-kv-heads", config(num_key_value_heads=3), "bad-format", "config.json", "",
     "num_key_value_heads"),
    ("config-more-chosen-than-experts", config(num_experts_per_tok=5), "bad-format", "config.json", "",
     "num_experts_per_tok"),
    ("config-one-layer-more", config(num_hidden_layers=3), "missing", "",
     "model.layers.2.self_attn.q_proj.weight", "config.json implies it with shape [64,64]",
     "is missing; config.json implies it"),
    ("config-one-expert-more", config(num_local_experts=5), "missing", "",
     "model.layers.0.block_sparse_moe.experts.4.w1.weight", "is missing", "tensor"),
    ("config-other-vocabulary", config(vocab_size=258), "bad-format", FIRST, EMBED,
     "has shape [257,64]; config.json implies [258,64]", "has shape [257,64]"),
    ("config-other-width", config(intermediate_size=97), "bad-format", None,
     "model.layers.0.block_sparse_moe.experts.0.w2.weight", "config.json implies [64,97]", "tensor"),
    ("config-layers-without-end", config(num_hidden_layers=2**31), "missing", "",
     "model.layers.2.input_layernorm.weight", "is missing"),

    # headers of weight files
    ("file-empty", edit(FIRST, lambda b: b""), "truncated", FIRST, "", "ends at byte 0 of 8"),
    ("file-of-seven-bytes", edit(FIRST, lambda b: b[:7]), "truncated", FIRST, "", "ends at byte 7 of 8"),
    ("header-length-huge", edit(FIRST, lambda b: b"\xff" * 8 + b[8:]), "bad-format", FIRST, "",
     "the header claims 18446744073709551615 bytes"),
    ("header-length-over-the-limit", edit(FIRST, lambda b: struct.pack("<Q", 100000001) + b[8:]),
     "bad-format", FIRST, "", "claims 100000001 bytes"),
    ("header-length-past-the-end", edit(FIRST, lambda b: struct.pack("<Q", 10**6) + b[8:]), "truncated",
     FIRST, "", "the header covers bytes 8..1000008"),
    ("header-length-zero", edit(FIRST, lambda b: bytes(8) + b[8:]), "bad-format", FIRST, "", "not JSON"),
    ("header-cut-short", edit(FIRST, lambda b: b[:100]), "truncated", FIRST, "", "but the file ends at byte 100"),
    ("header-a-list", header(lambda t: b"[]"), "bad-format", FIRST, "", "the header is no JSON object"),
    ("header-not-json", header(lambda t: t[:-1] + b"}"), "bad-format", FIRST, "", "header: not JSON"),
    ("header-not-utf-8", header(lambda t: t.replace(b"lm_head", b"lm_\xc3ad")), "bad-format", FIRST, "",
     "UTF-8"),
    ("header-with-nul", header(lambda t: t + b"\0"), "bad-format", FIRST, "", "not JSON"),
    ("header-nul-in-a-name", rename(LM, '"lm\\u0000"'), "bad-format", FIRST, "", "not JSON"),
    ("header-lone-surrogate", rename(LM, '"\\ud800"'), "bad-format", FIRST, "", "not JSON"),
    ("header-deep", header(lambda t: b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"), "bad-format", FIRST,
     "", "nested deeper than"),
    ("header-tensor-twice", rename(LM, compact(EMBED)), "bad-format", FIRST, "",
     "the key 'model.embed_tokens.weight' stands twice"),
    ("header-metadata-twice", header(lambda t: b'{"__metadata__":{},' + t[1:]), "bad-format", FIRST, "",
     "the key '__metadata__' stands twice"),
    ("header-metadata-a-number", header(lambda t: t.replace(b'"pt"', b"5")), "bad-format", FIRST, "",
     "holds 'format', which is no string"),
    ("header-entry-a-number", header(lambda t: b'{"x":5}'), "bad-format", FIRST, "", "tensor 'x' is no object"),
    ("header-without-dtype", header(lambda t: t.replace(b'"dtype"', b'"dtipe"', 1)), "bad-format",
     FIRST, "", "has no dtype"),
    ("header-dtype-unknown", field(LM, "dtype", '"BF17"'), "bad-format", FIRST, "", "unknown dtype 'BF17'"),
    ("header-dtype-in-small-letters", field(LM, "dtype", '"bf16"'), "bad-format", FIRST, "",
     "unknown dtype 'bf16'"),
    ("header-dtype-of-another-width", field(LM, "dtype", '"F32"'), "bad-format", FIRST, "",
     f"has {2 * SIZE} bytes by its dtype and shape"),
    ("header-shape-negative", field(LM, "shape", "[-257,64]"), "bad-format", FIRST, "",
     "the shape of tensor 'lm_head.weight'"),
    ("header-shape-a-fraction", field(LM, "shape", "[257.0,64]"), "bad-format", FIRST, "", "the shape of"),
    ("header-shape-wraps", field(LM, "shape", "[4294967296,4294967296]"), "bad-format", FIRST, "",
     "the number of elements passes 2^64"),
    ("header-shape-wraps-before-a-zero", field(LM, "shape", "[1099511627776,1099511627776,0]"),
     "bad-format", FIRST, "", "the number of elements passes 2^64"),
    ("header-shape-wraps-to-the-right-size", field(LM, "shape", f"[257,64,{2**64 + 1}]"), "bad-format",
     FIRST, "", "the shape of"),
    ("header-half-bytes", both(field(LM, "dtype", '"F4"'), field(LM, "shape", "[3]")), "bad-format", FIRST,
     "", "do not fill whole bytes"),
    ("header-offsets-backwards", field(LM, "data_offsets", f"[{SIZE},0]"), "bad-format", FIRST, "",
     "end before they begin"),
    ("header-offsets-three", field(LM, "data_offsets", "[0,1,2]"), "bad-format", FIRST, "",
     "are not two integers"),
    ("header-offsets-negative", field(LM, "data_offsets", f"[-1,{SIZE}]"), "bad-format", FIRST, "",
     "are not two integers"),
    ("header-offsets-wrap", field(LM, "data_offsets", f"[{2**64 - SIZE},{2**64 - 1}]"), "bad-format",
     FIRST, "", "pass 2^64"),
    ("header-offsets-on-another", field(EMBED, "data_offsets", f"[0,{SIZE}]"), "overlap", FIRST, EMBED,
     "but the next free byte is"),
    ("header-hole", both(field(EMBED, "data_offsets", f"[{SIZE + 2},{2 * SIZE + 2}]"),
                         edit(FIRST, lambda b: b + b"xx")), "hole", FIRST, EMBED, "but the next free byte is"),
    ("header-data-cut-short", edit(FIRST, lambda b: b[:-5]), "truncated", FIRST, TAIL,
     "but the file ends at byte"),
    ("header-data-left-over", edit(FIRST, lambda b: b + b"\0"), "bad-format", FIRST, "", "tensors end at byte"),
    ("name-with-a-line-feed", rename(LM, '"lm\\nhead"'), "bad-format", FIRST, "", "control character 0x0a"),
    ("name-with-an-escape", rename(LM, '"\\u001b[31mlm"'), "bad-format", FIRST, "", "control character 0x1b"),
    ("name-with-delete", rename(LM, '"lm\x7f"'), "bad-format", FIRST, "", "control character 0x7f"),
    ("name-with-an-at", rename(LM, '"lm@head"'), "bad-format", FIRST, "", "holds an '@'"),
    ("name-with-two-suffixes", rename(LM, '"lm@master@exp_avg"'), "bad-format", FIRST, "", "holds an '@'"),
]


class Folders(Attack):
    def test_every_broken_folder_is_named(self):
        for row in FOLDERS:
            defect, spoil, kind, file, tensor, says = row[:6]
            refused = says if len(row) == 6 else row[6]
            with self.subTest(defect=defect):
                folder = self.tmp / defect
                shutil.copytree(SRC, folder)
                spoil(folder)
                if file is None:
                    file = next(d["file"] for d in self.defects(folder) if d["tensor"] == tensor)
                self.assert_defect(folder, kind, file, tensor, says)
                if not refused.startswith("~"):
                    words = [refused] + [file] * (kind != "missing" and refused == says)
                    self.refuse([w for w in words if w.isprintable()], "convert", folder,
                                self.tmp / "dst", "--to", "mixckpt", "--ep", 2, "--hsd", 2)
                else:
                    self.go_on(refused[1:], folder, self.tmp / "dst")
                shutil.rmtree(folder)

    def test_more_dimensions_than_anything_can_hold(self):
        """Well formed, and beyond what this program does: an error, not a defect."""
        folder = self.tmp / "rank-33"
        shutil.copytree(SRC, folder)
        field(LM, "shape", compact([1] * 31 + [257, 64]))(folder)
        for args in (("verify", folder), ("digest", folder)):
            self.refuse((FIRST, "33 dimensions"), *args)

    def test_files_that_cannot_travel_are_left_out(self):
        """Names that the folders of a job and of a checkpoint need themselves, and no names."""
        folder = self.tmp / "src"
        shutil.copytree(SRC, folder)
        (folder / "job").write_text("mine")
        (folder / ".weights").write_text("mine")
        (folder / "a\nb\x1b.txt").write_text("mine")
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.txt")).write_text("mine")
        warnings = "\n".join(self.convert(folder, self.tmp / "dst", 2, 2)["warnings"])
        for name in ("job", ".weights", "a?b?.txt", ".txt"):
            self.assertIn(f"{name}: no file of this name can be carried along", warnings)
        self.assert_whole(self.tmp / "dst")
        self.export(self.tmp / "dst", self.tmp / "back")
        self.assert_same_folder(SRC, self.tmp / "back")

    def test_a_broken_file_that_was_named(self):
        """The same rules for one file alone."""
        path = self.tmp / "one.safetensors"
        shutil.copy(SRC / FIRST, path)
        path.write_bytes(path.read_bytes()[:-1])
        self.assert_defect(path, "truncated", path.name, TAIL, "but the file ends at byte", (127, 128))
        self.refuse(("one.safetensors", TAIL), "digest", path)


# ---- a mixckpt checkpoint ----

def text(old, new):
    """Change the text of the manifest."""
    def spoil(m):
        def change(data):
            old_bytes, new_bytes = (x if isinstance(x, bytes) else x.encode() for x in (old, new))
            assert old_bytes in data, old
            return data.replace(old_bytes, new_bytes, 1)
        m.write(change)
    return spoil


def tensor(name, **fields):
    def spoil(m):
        m.tensor(name).update(fields)
        m.write()
    return spoil


def side(name, **fields):
    """Change the entry of a side file, after the real ones were made."""
    def spoil(m):
        def change(data):
            entry = next(s for s in m.side if s["name"] == name)
            old = compact(entry).encode()
            assert old in data
            return data.replace(old, compact(dict(entry, **fields)).encode(), 1)
        m.write(change)
    return spoil


def more_side(name, data=b"x"):
    """A side file more, which is there."""
    def spoil(m):
        path = m.folder / name
        if ".." not in Path(name).parts:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            m.describe(name)
        else:
            m.side = sorted(m.side + [{"name": name, "bytes": 1, "sha256": "0" * 64}],
                            key=lambda s: s["name"].encode())
        m.write()
    return spoil


def record(name, part, **fields):
    """Change fields of the record of a piece."""
    def spoil(m):
        r = m.records[m.pieces_of(name)[part]]
        for key, value in fields.items():
            at = ("file", "zero", "offset", "bytes").index(key)
            r[at] = value(r[at]) if callable(value) else value
        m.write()
    return spoil


JSON = "mixckpt.json"
O_PROJ = "model.layers.0.self_attn.o_proj.weight"  # [64, 64], cut along both dimensions

# defect, how, kind, file, tensor, words of the defect; words of the refusal if others
MANIFESTS = [
    ("version-later", text('"version":1', '"version":2'), None, JSON, "", "format version 2"),
    ("format-other", text('"mixckpt"', '"mixchpt"'), "bad-format", JSON, "", "'format' is 'mixchpt'"),
    ("container-unknown", text('"hdf5"', '"zarr"'), "bad-format", JSON, "", "no container 'zarr'"),
    ("mesh-zero", text('"ep":2', '"ep":0'), "bad-format", JSON, "", "'ep' is not an integer from 1"),
    ("mesh-huge", text('"hsd":2', '"hsd":65537'), "bad-format", JSON, "", "'hsd' is not an integer"),
    ("step-text", text('"step":null', '"step":"x"'), "bad-format", JSON, "", "'step' is not an integer"),
    ("key-twice", text('"step":null', '"step":null,\n"step":null'), "bad-format", JSON, "",
     "the key 'step' stands twice"),
    ("key-unknown", text('"step":null', '"step":null,\n"stop":null'), "bad-format", JSON, "",
     "canonical spelling"),
    ("white-space", text('"step":null', '"step": null'), "bad-format", JSON, "", "canonical spelling"),
    ("escape-not-needed", text('"lm_head.weight"', '"lm_h\\u0065ad.weight"'), "bad-format", JSON, "",
     "canonical spelling"),
    ("not-utf-8", text(b'"lm_head.weight"', b'"lm_h\xffad.weight"'), "bad-format", JSON, "", "UTF-8"),
    ("model-key-twice", text('"use_cache"', '"vocab_size"'), "bad-format", JSON, "", "stands twice"),
    ("model-broken", text('"hidden_size":64', '"hidden_size":-64'), "bad-format", JSON, "", "hidden_size"),
    ("model-other-vocabulary", text('"vocab_size":257', '"vocab_size":258'), "bad-format", "", LM,
     "config.json implies [258,64]", "config.json implies [258,64]"),
    ("model-one-layer-more", text('"num_hidden_layers":2', '"num_hidden_layers":3'), "missing", "",
     "model.layers.2.input_layernorm.weight", "is missing", "config.json implies it"),

    ("side-outside", more_side("../x"), "bad-format", JSON, "", "the path '../x' leaves the checkpoint"),
    ("side-deep-outside", more_side("hf/../../x"), "bad-format", JSON, "", "leaves the checkpoint"),
    ("side-absolute", text('"hf/config.json"', '"/etc/passwd"'), "bad-format", JSON, "",
     "'/etc/passwd' leaves the checkpoint"),
    ("side-of-control-characters", text('"hf/config.json"', '"hf/config\\u001b.json"'), "bad-format", JSON,
     "", "control character"),
    ("side-twice", text('"hf/generation_config.json"', '"hf/config.json"'), "bad-format", JSON, "",
     "the file 'hf/config.json' is out of order"),
    ("side-would-become-weights", more_side(f"hf/{FIRST}"), "bad-format", JSON, "",
     f"lists 'hf/{FIRST}'; no such file travels"),
    ("side-would-become-the-index", more_side(f"hf/{INDEX}"), "bad-format", JSON, "", "no such file travels"),
    ("side-would-become-a-manifest", more_side("hf/mixckpt.json"), "bad-format", JSON, "",
     "no such file travels"),
    ("side-would-become-the-job", more_side("hf/job"), "bad-format", JSON, "", "no such file travels"),
    ("side-in-a-folder", more_side("hf/a/b"), "bad-format", JSON, "", "no such file travels"),
    ("side-header-of-no-weights", more_side("hf/.weights/config.json.header"), "bad-format", JSON, "",
     "no such file travels"),
    ("side-header-in-a-folder", more_side("hf/.weights/a/b.safetensors.header"), "bad-format", JSON, "",
     "no such file travels"),
    ("side-without-records", text('"mixckpt.pieces"', '"mixckpt.pisces"'), "bad-format", JSON, "",
     "lists mixckpt.pieces with 0 bytes"),
    ("side-records-too-few", side("mixckpt.pieces", bytes=24), "bad-format", JSON, "",
     "lists mixckpt.pieces with 24 bytes; its tensors need"),
    ("side-digests-too-many", side("mixckpt.digests", bytes=3200), "bad-format", JSON, "",
     "lists mixckpt.digests with 3200 bytes; its tensors need"),
    ("side-digest-wrong", side("hf/config.json", sha256="0" * 64), "corrupt", "hf/config.json", "",
     "its SHA-256 differs", "differs from the SHA-256 in the manifest"),
    ("side-missing", lambda m: (m.folder / "hf" / "tokenizer.json").unlink(), "missing",
     "hf/tokenizer.json", "", "no such file", "no such file"),

    ("files-outside", text('"model/dense-hsd00000of00002-tp00000of00002.h5"', '"../../x.h5"'), "bad-format",
     JSON, "", "'../../x.h5' leaves the checkpoint"),
    ("files-size-huge", text('"files":[\n{"name":"model/dense-hsd00000of00002-tp00000of00002.h5","bytes":',
                             '"files":[\n{"name":"model/dense-hsd00000of00002-tp00000of00002.h5","bytes":9'
                             * 1 + "9999999999999999999"), "bad-format", JSON, "", "'bytes' is not an integer"),
    ("files-checksum-no-hex", text('"crc64nvme":"', '"crc64nvme":"x'), "bad-format", JSON, "",
     "'crc64nvme' is not 16 lower-case hex digits"),

    ("tensor-control-character", text('"lm_head.weight"', '"lm\\u001b.weight"'), "bad-format", JSON, "",
     "control character 0x1b"),
    ("tensor-at", text('"lm_head.weight"', '"lm@head.weight"'), "bad-format", JSON, "", "holds an '@'"),
    ("tensor-twice", text('"lm_head.weight"', '"model.embed_tokens.weight"'), "bad-format", JSON, "",
     "'model.embed_tokens.weight' is out of order"),
    ("tensor-out-of-order", text('"lm_head.weight"', '"z.weight"'), "bad-format", JSON, "", "is out of order"),
    ("tensor-dtype-unknown", tensor(LM, dtype="bf16"), "bad-format", JSON, "", "no dtype 'bf16'"),
    ("tensor-dtype-of-equal-width", tensor(LM, dtype="F16"), "corrupt", "mixckpt.digests", LM,
     "do not give the digest", "do not give the digest"),
    ("tensor-shape-wraps", tensor(LM, shape=[2**32, 2**32]), "bad-format", JSON, "", "passes 2^64"),
    ("tensor-shape-of-33", tensor(LM, shape=[1] * 33), "bad-format", JSON, "", "at most 32 sizes"),
    ("tensor-shape-negative", tensor(LM, shape=[-257, 64]), "bad-format", JSON, "", "no size"),
    ("tensor-half-bytes", tensor(LM, dtype="F4", shape=[3, 3]), "bad-format", JSON, "",
     "do not fill whole bytes"),
    ("tensor-grid-too-large", tensor(LM, grid=[258, 1], nest=[2, 129]), "bad-format", JSON, "",
     "more parts than there are rows"),
    ("tensor-grid-absurd", tensor(LM, grid=[2**64 - 1, 1]), "bad-format", JSON, "", "more parts than"),
    ("tensor-grid-zero", tensor(LM, grid=[0, 1]), "bad-format", JSON, "", "'grid' cuts dimension 0 into 0"),
    ("tensor-grid-too-short", tensor(LM, grid=[4]), "bad-format", JSON, "", "has the wrong length"),
    ("tensor-nest-of-one", tensor(LM, nest=[1, 4]), "bad-format", JSON, "", "has the wrong length"),
    ("tensor-digest-wrong", tensor(LM, digest="0" * 64), "corrupt", "mixckpt.digests", LM,
     "the leaves of this tensor do not give the digest", "do not give the digest"),

    ("record-of-no-file", record(LM, 1, file=999), "bad-format", "mixckpt.pieces", LM, "of file 999"),
    ("record-reserved", record(LM, 1, zero=1), "bad-format", "mixckpt.pieces", LM, "piece 1"),
    ("record-outside-its-file", record(LM, 1, offset=2**40), "bad-format", "mixckpt.pieces", LM,
     "at 1099511627776 of file"),
    ("record-wraps", record(LM, 1, offset=2**64 - 100), "bad-format", "mixckpt.pieces", LM,
     "at 18446744073709551516 of file"),
    ("record-of-other-bytes", record(LM, 1, bytes=lambda n: n - 2), "bad-format", "mixckpt.pieces", LM,
     "were expected"),
]


def overlap(m):
    """Two pieces at one place: both lie in their file, and neither is outside."""
    a, b = m.records[m.pieces_of(LM)[0]], m.records[m.pieces_of(EMBED)[0]]
    assert a[0] == b[0]
    b[2] = a[2]
    m.write()


def swapped(m):
    """Two pieces of one tensor have changed places."""
    a, b = m.pieces_of(LM)[0], m.pieces_of(LM)[1]
    m.records[a][0], m.records[b][0] = m.records[b][0], m.records[a][0]
    m.write()


def shifted(m):
    m.records[m.pieces_of(LM)[0]][2] += 2
    m.write()


def wrong_leaf(m):
    at = m.leaves_of("model.layers.0.block_sparse_moe.experts.0.w2.weight")[0]
    m.leaves[at] = bytes(32)
    m.write()


def wrong_crc(m):
    m.files[0]["crc64nvme"] = "0" * 16
    m.write()


class Checkpoints(Attack):
    def setUp(self):
        super().setUp()
        self.whole = {}
        for container in ("hdf5", "safetensors"):
            self.whole[container] = self.tmp / container
            self.convert(SRC, self.tmp / container, 2, 2, 2, "--container", container)

    def copy(self, container="hdf5"):
        folder = self.tmp / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.whole[container], folder)
        return folder

    def test_the_forger_forges_well(self):
        """What is put together without a change is what was there."""
        for container, whole in self.whole.items():
            copy = self.copy(container)
            Manifest(copy).write()
            self.assert_same_folder(whole, copy)

    def test_every_forged_manifest_is_found_out(self):
        for row in MANIFESTS:
            defect, spoil, kind, file, name, says = row[:6]
            refused = [row[6]] if len(row) > 6 else [says, file]
            with self.subTest(defect=defect):
                copy = self.copy()
                spoil(Manifest(copy))
                if kind:
                    self.assert_defect(copy, kind, file, name, says)
                else:  # no fault of the checkpoint
                    self.refuse([says, file], "verify", copy)
                self.refuse(refused, "reshard", copy, self.tmp / "dst", "--ep", 1, "--hsd", 1)

    def test_self_is_looked_at_first(self):
        copy = self.copy()
        edit(JSON, lambda b: b.replace(b"lm_head", b"lm_haed", 1))(copy)
        self.assert_defect(copy, "corrupt", JSON, "", "its bytes have SHA-256")
        for command in ("digest", "inspect"):
            self.refuse((JSON, "its bytes have SHA-256", "'self' says"), command, copy)

    def test_pieces_that_overlap_or_lie_elsewhere(self):
        """Records that each lie in a file, and together make no shard."""
        for spoil in (overlap, shifted, swapped):
            for container in self.whole:
                with self.subTest(defect=spoil.__name__, container=container):
                    copy = self.copy(container)
                    spoil(Manifest(copy))
                    found = self.defects(copy)
                    shards = [d for d in found if d["file"].startswith("model/dense-")]
                    self.assertTrue(shards, found)
                    self.assertTrue({d["kind"] for d in shards} <= {"bad-format", "corrupt"}, found)
                    self.assertTrue(any("is said to begin at byte" in d["message"] or
                                        "holds two pieces" in d["message"] for d in shards), found)
                    self.refuse(("weight", "mixckpt.digests"), "reshard", copy, self.tmp / "dst",
                                "--ep", 1, "--hsd", 1)

    def test_a_leaf_hash_that_is_wrong(self):
        copy, name = self.copy(), "model.layers.0.block_sparse_moe.experts.0.w2.weight"
        wrong_leaf(Manifest(copy))
        self.assert_defect(copy, "corrupt", "mixckpt.digests", name, "do not give the digest")
        found = [d for d in self.defects(copy) if d["file"].startswith("model/")]
        self.assertEqual([(d["kind"], d["tensor"], d["begin"], d["end"]) for d in found],
                         [("corrupt", name, 0, 96 * 64 * 2)])
        self.refuse((name, "[0, 12288)"), "reshard", copy, self.tmp / "dst", "--ep", 1, "--hsd", 1)

    def test_a_checksum_that_is_wrong(self):
        """Every leaf is right, so nobody who reshards needs to notice."""
        copy = self.copy()
        wrong_crc(Manifest(copy))
        self.assert_defect(copy, "corrupt", "model/dense-hsd00000of00002-tp00000of00002.h5", "",
                           "its CRC-64/NVME differs")

    def test_a_file_without_pieces_is_no_shard(self):
        copy = self.copy("safetensors")
        m = Manifest(copy)
        name = "model/zzz-hsd00000of00002.safetensors"
        (copy / name).write_bytes(bytes(100))
        m.files.append({"name": name, "bytes": 100, "crc64nvme": "0" * 16})
        m.write()
        self.assert_defect(copy, "bad-format", name, "", "is said to hold 100 bytes; its pieces make")

    def test_a_size_that_the_file_does_not_have(self):
        for more, kind in ((4096, "truncated"), (-1, "bad-format")):
            copy = self.copy("safetensors")
            m = Manifest(copy)
            m.files[-1]["bytes"] += more
            m.write()
            self.assertIn((kind, m.files[-1]["name"]),
                          [(d["kind"], d["file"]) for d in self.defects(copy)])

    def test_a_tensor_less_than_the_config_implies(self):
        copy, name = self.copy(), NORM
        m = Manifest(copy)
        first, leaf = m.pieces_of(name), m.leaves_of(name)
        del m.records[first[0]:first[-1] + 1], m.leaves[leaf[0]:leaf[-1] + 1]
        m.tensors.remove(m.tensor(name))
        m.write()
        self.assert_defect(copy, "missing", "", name, "config.json implies it with shape [64]")
        self.refuse(name, "reshard", copy, self.tmp / "dst", "--ep", 1, "--hsd", 1)

    def test_headers_and_padding_of_shards(self):
        """Bytes that no leaf covers: every part of a header, and zeros between pieces."""
        for container, ending in (("hdf5", "h5"), ("safetensors", "safetensors")):
            name = f"model/dense-hsd00001of00002-tp00001of00002.{ending}"
            m = Manifest(self.whole[container])
            number = [f["name"] for f in m.files].index(name)
            pieces = sorted((r[2], r[2] + r[3]) for r in m.records if r[0] == number)
            places = [*range(0, pieces[0][0], 211), pieces[0][0] - 1]
            gaps = [(end, begin) for (_, end), (begin, _) in zip(pieces, pieces[1:]) if end < begin]
            self.assertEqual(bool(gaps), container == "hdf5")  # which aligns pieces to 4 KiB
            places += [at for end, begin in gaps[:3] for at in (end, begin - 1)]
            for at in places:
                with self.subTest(file=name, at=at):
                    copy = self.copy(container)
                    flip_byte(copy / name, at)
                    self.assert_defect(copy, "corrupt", name, "", f"byte {at}")

    def test_extra_shards_are_unexpected(self):
        for name in ("model/dense-hsd00007of00009.h5", "model/experts-ep00000of00001-hsd00000of00001.h5",
                     "optimizer/dense-hsd00000of00001.safetensors"):
            copy = self.copy()
            (copy / name).parent.mkdir(exist_ok=True)
            (copy / name).write_bytes(b"x")
            self.assert_defect(copy, "unexpected", name, "", "does not list this shard file")
            self.reshard(copy, self.tmp / "dst", 1, 1)  # nobody reads it
            shutil.rmtree(self.tmp / "dst")
        copy = self.copy()
        for name in ("README.md", "model/README.md", ".gitattributes", "model/.nfs01", "model/x.h5"):
            (copy / name).write_text("mine")
        (copy / "lost+found").mkdir()
        self.assert_whole(copy)

    def test_headers_that_travel(self):
        """hf/.weights/: broken, or of other weights than those that are there."""
        name = f"hf/.weights/{FIRST}.header"
        copy = self.copy()
        flip_byte(copy / name, 30)
        self.assert_defect(copy, "corrupt", name, "", "differs from the")
        self.refuse((name, "differs from the SHA-256"), "convert", copy, self.tmp / "dst", "--to", "hf")
        for defect, change, says in (
                ("cut short", lambda b: b[:50], "ends at byte"),
                ("not JSON", lambda b: join_weights(b"{", b""), "not JSON"),
                ("a tensor twice", lambda b: join_weights(split_weights(b)[0].replace(
                    b'"lm_head.weight"', compact(EMBED).encode()), b""), "stands twice"),
                ("with data", lambda b: b + b"data", "a header of"),
                ("a hole", lambda b: join_weights(split_weights(b)[0].replace(
                    b'"data_offsets":[0,', b'"data_offsets":[2,', 1), b""), "bytes")):
            with self.subTest(defect=defect):
                copy = self.copy()
                edit(name, change)(copy)
                m = Manifest(copy)
                m.describe(name)
                m.write()
                found = [d for d in self.defects(copy) if d["file"] == name]
                self.assertTrue(found and says in found[0]["message"], found)
                self.refuse((name, says), "convert", copy, self.tmp / "dst", "--to", "hf")
        # Well formed, but of other tensors: the manifest counts, and stderr says why.
        copy = self.copy()
        edit(name, lambda b: join_weights(split_weights(b)[0].replace(b"lm_head.w", b"lm_haed.w"),
                                          b""))(copy)
        m = Manifest(copy)
        m.describe(name)
        m.write()
        self.assert_whole(copy)
        run = self.run_program("convert", copy, self.tmp / "dst", "--to", "hf")
        self.assertIn("lm_haed.weight", run.err)
        self.assertEqual(self.digest(self.tmp / "dst"), self.digest(SRC))

    def test_a_claim_of_a_petabyte_costs_no_memory(self):
        """All numbers of a manifest agree with each other, and none with the disk."""
        copy, size = self.copy("safetensors"), 2**50
        m = Manifest(copy)
        pieces, leaves = m.pieces_of(LM), m.leaves_of(LM)
        del m.records[pieces[1]:pieces[-1] + 1]
        m.records[pieces[0]][2:] = [4096, size]
        m.files[m.records[pieces[0]][0]]["bytes"] = 2 * size
        m.tensor(LM).update(shape=[size, 1], grid=[1, 1], dtype="U8")
        m.tensor(LM).pop("nest")
        m.model = None
        claimed = 32 * (len(m.leaves) - len(leaves) + size // 65536)

        def change(data):
            entry = next(s for s in m.side if s["name"] == "mixckpt.digests")
            return data.replace(compact(entry).encode(), compact(dict(entry, bytes=claimed)).encode())
        m.write(change)
        for command in (("verify", copy), ("reshard", copy, self.tmp / "dst", "--ep", 1, "--hsd", 1)):
            run = run_measured(command)
            self.assertEqual(run.code, 3, run)
            self.assertLess(run.peak_bytes, 64 << 20)


# ---- HDF5 files of others ----

class Hdf5(Attack):
    def test_what_is_refused_is_refused_with_words(self):
        """Each file of the corpus that uses what shards do not have."""
        corpus = Path(__file__).resolve().parents[1] / "fuzz" / "corpus" / "h5shard"
        files = sorted(corpus.glob("refused-*.h5"))
        self.assertGreater(len(files), 20)
        for path in files:
            with self.subTest(file=path.name):
                self.refuse(path.name, "digest", path)
                run = self.run_program("verify", path, "--json", code=None)
                self.assertIn(run.code, (1, 3), run)

    def test_any_flipped_byte_of_a_header_ends_well(self):
        """Read alone, a shard has nothing to vouch for it: refused or not, never a crash."""
        self.convert(SRC, self.tmp / "c", 1, 8)
        whole = (self.tmp / "c" / "model" / "dense-hsd00000of00008.h5").read_bytes()
        path = self.tmp / "x.h5"
        for at in range(0, 4096, 37):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xff]) + whole[at + 1:])
            run = self.run_program("digest", path, code=None)
            self.assertIn(run.code, (0, 3), (at, run))
            self.assertEqual(run.code == 3, "mixckpt: " in run.err and run.out == "", (at, run))

    def run_program(self, *args, code=0, **how):
        if code is not None:
            return super().run_program(*args, code=code, **how)
        return Run(args, **how).wait()


# ---- where outputs go ----

class Links(Attack):
    """Inputs follow symbolic links, outputs never do."""
    TO = ("--to", "mixckpt", "--ep", 2, "--hsd", 2)

    def setUp(self):
        super().setUp()
        self.victim = self.tmp / "victim"
        (self.victim / "model").mkdir(parents=True)
        (self.victim / "file").write_text("mine")
        self.before = files_of(self.victim)

    def assert_untouched(self):
        self.assertEqual(files_of(self.victim), self.before)
        self.assertEqual((self.victim / "file").read_text(), "mine")

    def run_any(self, *args):
        run = Run(args).wait()
        self.assertIn(run.code, (0, 3), run)
        return run

    def test_a_destination_that_is_a_link(self):
        """To a full folder, to an empty one, to a file, to nothing."""
        (self.victim / "empty").mkdir()
        for target in (self.victim, self.victim / "empty", self.victim / "file", self.victim / "none"):
            for force in ((), ("--force",)):
                with self.subTest(target=target.name, force=force):
                    dst = self.tmp / "dst"
                    dst.symlink_to(target)
                    self.run_any("convert", SRC, dst, *self.TO, *force)
                    self.assert_untouched()
                    self.assertEqual(os.listdir(self.victim / "empty"), [])
                    self.assertFalse((self.victim / "none").exists())
                    if dst.is_symlink():
                        dst.unlink()
                    for name in ("dst", "dst.partial", "dst.old", "dst.partial.job"):
                        shutil.rmtree(self.tmp / name, ignore_errors=True)

    def test_work_in_progress_that_is_a_link(self):
        for name in ("dst.partial", "dst.partial.job", "dst.old"):
            for force in ((), ("--force",)):
                with self.subTest(name=name, force=force):
                    (self.tmp / name).symlink_to(self.victim)
                    self.run_any("convert", SRC, self.tmp / "dst", *self.TO, *force)
                    self.assert_untouched()
                    (self.tmp / name).unlink(missing_ok=True)
                    for rest in ("dst", "dst.partial"):
                        shutil.rmtree(self.tmp / rest, ignore_errors=True)

    def test_links_inside_work_in_progress(self):
        """Somebody puts links where the files of a job that goes on will be written."""
        job = ("init", SRC / "config.json", self.tmp / "dst", "--to", "mixckpt")
        self.run_program(*job, "--worker", "0/2", "--wait", 1, code=3)  # the other never comes
        begun = self.tmp / "begun"
        (self.tmp / "dst.partial").rename(begun)
        self.assertTrue((begun / "job" / "job.json").exists())
        for name in ("model", "hf", "job", "job/job.json.tmp", "job/worker-00000.journal",
                     "job/worker-00000.digests", "job/worker-00000.status.tmp",
                     "model/dense-hsd00000of00001.h5", "model/experts-ep00000of00001-hsd00000of00001.h5",
                     "mixckpt.pieces", "mixckpt.digests", "mixckpt.json.tmp", "mixckpt.json"):
            with self.subTest(name=name):
                partial = self.tmp / "dst.partial"
                for rest in ("dst", "dst.partial", "dst.partial.job"):
                    shutil.rmtree(self.tmp / rest, ignore_errors=True)
                shutil.copytree(begun, partial)
                path = partial / name
                if path.is_dir():
                    shutil.rmtree(path)
                path.parent.mkdir(exist_ok=True)
                path.unlink(missing_ok=True)
                path.symlink_to(self.victim / "model" if "." not in name else self.victim / "file")
                self.run_any(*job)
                self.assert_untouched()


if __name__ == "__main__":
    unittest.main()
