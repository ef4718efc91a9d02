"""Checkpoints of format version 1 that are committed: they are read, and written again, byte
for byte. The environment variable MIXCKPT names the program. Standard library only.
"""
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "support"), str(HERE.parent / "interop")]

from mixckpt_reader import Checkpoint
from program import REFERENCE, ProgramTest, files_of, witness

GOLDEN = HERE / "v1"
CONTAINERS = ("hdf5", "safetensors")
STATE = ("--optimizer", "--seed", 1)


class Golden(ProgramTest):
    def each(self):
        """(name, container, folder) of every committed checkpoint."""
        return [(name, container, GOLDEN / f"{name}-{container}")
                for name in ("tiny", "state") for container in CONTAINERS]

    def check_written(self, folder, golden):
        self.assertGreater(len(files_of(golden)), 10)
        self.assert_same_folder(folder, golden)

    def test_nothing_is_wrong_with_them(self):
        for _, _, folder in self.each():
            self.assertEqual(self.assert_whole(folder)["proof"], "digests")

    def test_they_hold_the_committed_digests(self):
        for name, _, folder in self.each():
            self.assertEqual(self.digest(folder), (GOLDEN / f"{name}.digest").read_text())
        self.assertEqual(witness(REFERENCE / "tiny-mixtral"),
                         (GOLDEN / "tiny.digest").read_text())

    def test_an_independent_reader_reads_them(self):
        for name, _, folder in self.each():
            checkpoint = Checkpoint(folder)
            lines = (GOLDEN / f"{name}.digest").read_text()
            self.assertGreater(len(checkpoint.tensors), 40)
            for tensor in checkpoint.tensors:
                checkpoint.read(tensor)  # checks leaves and digest
                self.assertIn(tensor.digest, lines)

    def test_the_way_back_gives_the_source(self):
        self.run_program("init", GOLDEN / "state-config.json", self.tmp / "state", "--to", "hf",
                         "--seed", 1)
        for name, container, folder in self.each():
            back = self.tmp / f"{name} {container} back"
            self.export(folder, back)
            self.assert_same_folder(back, REFERENCE / "tiny-mixtral" if name == "tiny"
                                    else self.tmp / "state")

    def test_the_same_bytes_are_written_from_the_source(self):
        for container in CONTAINERS:
            tiny, state = (self.tmp / f"{name} {container}" for name in ("tiny", "state"))
            self.convert(REFERENCE / "tiny-mixtral", tiny, 2, 3, 2, "--container", container)
            self.check_written(tiny, GOLDEN / f"tiny-{container}")
            self.run_program("init", GOLDEN / "state-config.json", state, "--to", "mixckpt",
                             "--ep", 2, "--hsd", 2, *STATE, "--container", container)
            self.check_written(state, GOLDEN / f"state-{container}")

    def test_the_same_bytes_are_written_from_the_other_container(self):
        mesh = {"tiny": (2, 3, 2), "state": (2, 2, 1)}
        for name, container, folder in self.each():
            other = CONTAINERS[container == "hdf5"]
            self.reshard(GOLDEN / f"{name}-{other}", self.tmp / folder.name, *mesh[name],
                         "--container", container)
            self.check_written(self.tmp / folder.name, folder)


if __name__ == "__main__":
    unittest.main()
