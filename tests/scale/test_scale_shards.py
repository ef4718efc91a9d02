"""A mixckpt checkpoint on 4,096 ranks: millions of pieces, and memory that does not follow.

test_scale.py does the same for Hugging Face folders. The checkpoints here are sparse: their
headers, records and digests are real and their tensors are zeros (make_sparse_shards.c); what
is written from them stays sparse too (sparse_writes.c). Only memory is asserted, never time.
"""
import os
import subprocess
import sys
import unittest
import unittest.mock
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from make_many import make_many
from make_sparse import CONFIG_8X22B, make_sparse
from program import ProgramTest, program, run_measured

MEMORY_BOUND = 256 << 20
HELPERS = Path(program()).parent / "tests"  # of the same build

# As many tensors as 8x22B has, and so as many pieces; of 1.5 GB instead of 2 TB.
NARROW_8X22B = dict(CONFIG_8X22B, hidden_size=256, intermediate_size=256, head_dim=64,
                    num_attention_heads=4, num_key_value_heads=4, vocab_size=256)


class ScaleOfShards(ProgramTest):
    def bounded(self, *args):
        run = run_measured(args)
        self.assertEqual(run.code, 0, run)
        self.assertLessEqual(run.peak_bytes, MEMORY_BOUND, run)
        return run.out

    def make(self, config, ep, hsd, container, *more):
        """The words of the maker, and the folder."""
        source, shards = self.tmp / "source", self.tmp / "shards"
        make_sparse(source, config, optimizer=True)
        words = subprocess.run([HELPERS / "make_sparse_shards", source, shards, str(ep), str(hsd),
                                "1", container, *more], check=True, stdout=subprocess.PIPE)
        return words.stdout.decode(), shards

    def test_8x22b_with_optimizer_state_on_4096_ranks(self):
        words, shards = self.make(CONFIG_8X22B, 8, 512, "hdf5", "--bare")
        self.assertEqual(words, "6956 tensors, 3448544 pieces in 9216 files, 30040140 leaves, "
                                "1968688877568 bytes\n")
        name = "model.layers.55.block_sparse_moe.experts.7.w2.weight@master"
        self.assertIn(name, self.bounded("inspect", shards))
        one = self.bounded("inspect", shards, "--json", "--tensors", name)
        self.assertIn("optimizer/experts-ep00007of00008-hsd00511of00512.h5", one)
        self.bounded("plan", shards, "--ep", 4, "--hsd", 512, "--tp", 2, "--json")

        # Every piece with its file and box: 340 MB of JSON, which nobody may hold at once.
        every = subprocess.Popen([program(), "inspect", shards, "--json"],
                                 stdout=subprocess.DEVNULL)
        _, every.returncode, usage = os.wait4(every.pid, 0)
        self.assertEqual(every.returncode, 0)
        self.assertLessEqual(usage.ru_maxrss * 1024, MEMORY_BOUND)

    def test_verify_reshard_and_digest_of_800_000_pieces(self):
        _, shards = self.make(NARROW_8X22B, 8, 128, "safetensors")
        self.bounded("verify", shards)
        digest = self.bounded("digest", self.tmp / "source")
        out = self.tmp / "out"
        with unittest.mock.patch.dict(os.environ, LD_PRELOAD=str(HELPERS / "libsparse_writes.so")):
            self.bounded("reshard", shards, out, "--ep", 4, "--hsd", 64, "--tp", 4, "--no-fsync")
        self.assertEqual(self.bounded("digest", out), digest)

    def test_ten_thousand_weight_files(self):
        many, out = self.tmp / "many", self.tmp / "out"
        make_many(many, 10000, one_file_each=True)
        self.bounded("convert", many, out, "--to", "mixckpt", "--hsd", 2, "--no-fsync")
        self.bounded("verify", out)


if __name__ == "__main__":
    unittest.main()
