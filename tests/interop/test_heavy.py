"""transformers and torch.distributed.checkpoint on what mixckpt wrote.

Needs torch and transformers; without them it says so on stderr and is skipped.
"""
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from program import REFERENCE, ProgramTest

try:
    import torch
    import torch.distributed.checkpoint as dcp
    from safetensors.torch import load_file
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    from transformers import AutoModelForCausalLM, AutoTokenizer
except ImportError as error:
    print(f"SKIPPED: {Path(__file__).name}: {error}", file=sys.stderr)
    raise unittest.SkipTest(str(error))

NAMES = ("tiny-mixtral", "tiny-mixtral-tied")


def load_model(folder):
    # "eager": the grouped kernel refuses rows that are no multiple of 16 bytes.
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", output_loading_info=True, experts_implementation="eager")
    return model.eval(), report


class Heavy(ProgramTest):
    def assert_same_model(self, original, folder):
        expected, _ = load_model(original)
        model, report = load_model(folder)
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
            self.assertFalse(report[kind], report)
        state = model.state_dict()
        for name, weight in expected.state_dict().items():
            self.assertTrue(torch.equal(weight, state[name]), name)
        tokens = torch.arange(3, 35).reshape(2, 16)
        with torch.no_grad():
            self.assertTrue(torch.equal(expected(tokens).logits, model(tokens).logits))

    def test_transformers_loads_the_export(self):
        for name in NAMES:
            with self.subTest(name):
                src, there, back = REFERENCE / name, self.tmp / (name + " ckpt"), self.tmp / name
                self.convert(src, there, 4, 3, 2)
                self.export(there, back)
                self.assert_same_model(src, back)
                tokenizer = AutoTokenizer.from_pretrained(back)
                self.assertEqual(tokenizer("w7 w9")["input_ids"], [7, 9])

    def test_transformers_loads_an_export_that_was_cut_anew(self):
        self.convert(REFERENCE / NAMES[0], self.tmp / "ckpt", 2, 2, 2)
        self.export(self.tmp / "ckpt", self.tmp / "hf", "--max-shard-size", "70KB")
        self.assert_same_model(REFERENCE / NAMES[0], self.tmp / "hf")

    def test_transformers_loads_whole_safetensors_shards(self):
        self.convert(REFERENCE / NAMES[0], self.tmp / "ckpt", 2, 1, 1, "--container",
                     "safetensors")
        self.assert_same_model(REFERENCE / NAMES[0], self.tmp / "ckpt" / "model")

    def test_transformers_loads_what_init_made(self):
        for to, folder in (("hf", "hf"), ("mixckpt", "ckpt")):
            self.run_program("init", REFERENCE / NAMES[0] / "config.json", self.tmp / folder,
                             "--to", to, "--seed", 1)
        self.export(self.tmp / "ckpt", self.tmp / "back")
        self.assert_same_model(self.tmp / "hf", self.tmp / "back")

    def load_with_dcp(self, folder, expected):
        """Every tensor whole, read from its pieces by stock DCP."""
        state = {name: torch.full_like(value, float("nan")) for name, value in expected.items()}
        dcp.load(state, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
        for name, value in expected.items():
            self.assertTrue(torch.equal(state[name], value), name)

    def test_dcp_loads_the_shards(self):
        for name in NAMES:
            for mesh in ((2, 4, 2), (4, 3, 1), (1, 1, 1)):
                with self.subTest(name=name, mesh=mesh):
                    ckpt, expected = self.tmp / f"{name} {mesh}", {}
                    for path in (REFERENCE / name).glob("*.safetensors"):
                        expected.update(load_file(path))
                    self.convert(REFERENCE / name, ckpt, *mesh, "--container", "safetensors")
                    self.load_with_dcp(ckpt / "model", expected)

    def test_dcp_loads_optimizer_state(self):
        ckpt, expected = self.tmp / "ckpt", {}
        config = REFERENCE / NAMES[0] / "config.json"
        self.run_program("init", config, self.tmp / "whole", "--to", "mixckpt", "--optimizer",
                         "--container", "safetensors")
        self.reshard(self.tmp / "whole", ckpt, 2, 4, 2)
        for path in (self.tmp / "whole" / "optimizer").glob("*.safetensors"):
            expected.update(load_file(path))
        self.assertTrue(expected)
        self.load_with_dcp(ckpt / "optimizer", expected)


if __name__ == "__main__":
    unittest.main()
