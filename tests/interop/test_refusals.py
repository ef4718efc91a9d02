"""What is refused, with which exit code, in which words, and what is left behind.

Standard library only.
"""
import json
import os
import resource
import shutil
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from program import REFERENCE, ProgramTest, files_of

SRC = REFERENCE / "tiny-mixtral"  # 4 experts, 2 key-value heads, intermediate size 96
MIXCKPT = ("--to", "mixckpt", "--ep", 2, "--hsd", 2)


class Refusals(ProgramTest):
    def refuse(self, code, *args, words=()):
        """Exit `code`, one line on stderr with the words, and the same line as JSON."""
        run = self.run_program(*args, code=code)
        self.assertEqual(run.out, "")
        lines = [l for l in run.err.splitlines() if "warning" not in l]
        self.assertTrue(lines and lines[0].startswith("mixckpt: "), run)
        for word in words:
            self.assertIn(str(word), run.err)
        failure = self.run_json(*args, code=code)["error"]
        self.assertEqual(set(failure), {"kind", "message", "file", "tensor", "begin", "end"})
        return run

    def test_degrees_that_do_not_divide(self):
        dst = self.tmp / "dst"
        for degrees, legal in ((("--ep", 3, "--hsd", 1), ("1, 2", "4")),
                               (("--ep", 1, "--hsd", 1, "--tp", 3), ("1", "2")),
                               (("--ep", 8, "--hsd", 1), ("1, 2", "4")),
                               (("--ep", 1, "--hsd", 1, "--tp", 4), ("1", "2"))):
            with self.subTest(degrees=degrees):
                self.refuse(2, "convert", SRC, dst, "--to", "mixckpt", *degrees, words=legal)
                self.refuse(2, "plan", SRC, *degrees, words=legal)
        for degrees in (("--ep", 0, "--hsd", 1), ("--ep", 1, "--hsd", 0), ("--ep", -1, "--hsd", 1),
                        ("--ep", "x", "--hsd", 1), ("--ep", 1, "--hsd", 99999999999999999999)):
            with self.subTest(degrees=degrees):
                self.refuse(2, "convert", SRC, dst, "--to", "mixckpt", *degrees)
        self.assertEqual(files_of(self.tmp), [])

    def test_wrong_usage(self):
        dst = self.tmp / "dst"
        for args in (("convert", SRC), ("convert", SRC, dst, "--to", "nonsense"),
                     ("convert", SRC, dst, "--no-such-option"), ("no-such-command",),
                     ("convert", SRC, dst, *MIXCKPT, "--memory", "12XB"),
                     ("convert", SRC, dst, *MIXCKPT, "--compress", "zstd", "--container",
                      "safetensors"),
                     ("convert", SRC, dst, *MIXCKPT, "--worker", "3/3"),
                     ("convert", SRC, dst, *MIXCKPT, "--worker", "nonsense")):
            with self.subTest(args=args):
                self.refuse(2, *args)
        self.assertEqual(files_of(self.tmp), [])

    def test_a_model_type_that_no_table_knows_has_ep_1_only(self):
        src = self.tmp / "src"
        shutil.copytree(SRC, src)
        config = json.loads((src / "config.json").read_text())
        (src / "config.json").write_text(json.dumps(dict(config, model_type="else")))
        self.refuse(2, "convert", src, self.tmp / "dst", *MIXCKPT, words=("else",))
        self.convert(src, self.tmp / "dst", 1, 3)
        self.assert_whole(self.tmp / "dst")

    def test_source_and_destination_inside_each_other(self):
        src = self.tmp / "outer" / "src"
        shutil.copytree(SRC, src)
        (self.tmp / "link").symlink_to(src)
        before = files_of(self.tmp)
        for dst in (src, src / "dst", self.tmp / "outer", src / ".." / "src",
                    self.tmp / "link" / "dst"):
            with self.subTest(dst=dst):
                self.refuse(2, "convert", src, dst, *MIXCKPT)
                self.refuse(2, "convert", src, dst, *MIXCKPT, "--force")
        self.assertEqual(files_of(self.tmp), before)
        self.assert_same_folder(SRC, src)

    def test_a_destination_that_is_not_empty(self):
        dst = self.tmp / "dst"
        dst.mkdir()
        self.convert(SRC, dst, 2, 2)  # empty is free
        before = {name: (dst / name).read_bytes() for name in files_of(dst)}
        self.refuse(3, "convert", SRC, dst, "--to", "mixckpt", "--ep", 4, "--hsd", 1,
                    words=(dst, "--force"))
        self.assertEqual({n: (dst / n).read_bytes() for n in files_of(dst)}, before)
        self.assertEqual(os.listdir(self.tmp), ["dst"])
        self.convert(SRC, dst, 4, 1, 1, "--force")
        self.convert(SRC, self.tmp / "fresh", 4, 1)
        self.assert_same_folder(self.tmp / "fresh", dst)
        self.assertEqual(sorted(os.listdir(self.tmp)), ["dst", "fresh"])

    def test_a_destination_that_is_a_file(self):
        (self.tmp / "dst").write_text("mine")
        self.refuse(3, "convert", SRC, self.tmp / "dst", *MIXCKPT, words=(self.tmp / "dst",))
        self.assertEqual((self.tmp / "dst").read_text(), "mine")

    def test_places_that_hold_no_checkpoint(self):
        (self.tmp / "empty").mkdir()
        for place in (self.tmp / "empty", self.tmp / "nowhere"):
            for command in ("inspect", "digest"):
                with self.subTest(command=command, place=place.name):
                    self.refuse(3, command, place, words=(place,))
            self.refuse(3, "convert", place, self.tmp / "dst", *MIXCKPT, words=(place,))
        self.run_program("verify", self.tmp / "empty", code=1)
        self.run_program("verify", self.tmp / "nowhere", code=3)

    def test_broken_folders(self):
        """A defect for verify, an error elsewhere, and the words that say what it is."""
        def spoil(name, change):
            folder = self.tmp / "broken"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(SRC, folder)
            path = folder / name
            path.write_bytes(change(path.read_bytes()))
            return folder

        index, first = "model.safetensors.index.json", "model-00001-of-00005.safetensors"
        for name, change, word in (
                ("config.json", lambda b: b[:40], "config.json"),
                ("config.json", lambda b: b.replace(b'"hidden_size": 64', b'"hidden_size": -64'),
                 "hidden_size"),
                ("config.json", lambda b: b.replace(b'"use_cache"', b'"vocab_size"'), "vocab_size"),
                ("config.json", lambda b: b.replace(b'"vocab_size": 257', b'"vocab_size": 258'),
                 "embed_tokens"),
                (index, lambda b: b[:-20], index),
                (index, lambda b: b.replace(b"00005-of-00005", b"00006-of-00005"),
                 "model-00006-of-00005.safetensors"),
                (index, lambda b: b.replace(b'"model-00005-of', b'"../model-00005-of', 1),
                 "weight_map"),
                (index, lambda b: b.replace(b'"model.norm.weight"', b'"model.norm.wait"'),
                 "model.norm.w"),
                (first, lambda b: b[:7], first), (first, lambda b: b[:100], first),
                (first, lambda b: b[:-1], first), (first, lambda b: b + b"\0", first),
                (first, lambda b: b"\xff" * 8 + b[8:], first),
                (first, lambda b: b.replace(b'"BF16"', b'"bf16"'), first)):
            with self.subTest(file=name, word=word):
                folder = spoil(name, change)
                run = self.run_program("verify", folder, code=1)
                self.assertIn(word, run.out)
                self.refuse(3, "convert", folder, self.tmp / "dst", *MIXCKPT, words=(word,))
                self.assertEqual(os.listdir(self.tmp), ["broken"])

    def test_a_wrong_total_size_is_a_defect_and_a_warning(self):
        folder = self.tmp / "src"
        shutil.copytree(SRC, folder)
        path = folder / "model.safetensors.index.json"
        path.write_text(path.read_text().replace('"total_size": 411520', '"total_size": 411522'))
        report = self.run_json("verify", folder, code=1)
        self.assertEqual([d["file"] for d in report["defects"]], [path.name])
        self.assertIn("411522", report["defects"][0]["message"])
        warnings = self.convert(folder, self.tmp / "dst", 2, 2)["warnings"]
        self.assertIn("411522", "\n".join(warnings))
        self.export(self.tmp / "dst", self.tmp / "back")
        self.assert_same_folder(folder, self.tmp / "back")

    def test_a_destination_that_cannot_be_made(self):
        self.refuse(3, "convert", SRC, "/proc/nowhere/dst", *MIXCKPT, words=("/proc/nowhere",))

    def test_a_file_size_limit_is_an_error_not_a_death(self):
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))
        run = self.run_program("convert", SRC, self.tmp / "dst", *MIXCKPT, code=3,
                               preexec_fn=limit)
        self.assertIn("mixckpt: ", run.err)
        self.assertFalse((self.tmp / "dst").exists())
        self.convert(SRC, self.tmp / "dst", 2, 2)
        self.assert_whole(self.tmp / "dst")


if __name__ == "__main__":
    unittest.main()
