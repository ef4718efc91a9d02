"""Each allocation of a command that makes a checkpoint fails once: 3, or 0 if harmless."""
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from faults import FAILED, FaultTest, needs_shim


@needs_shim
class FailedAllocations(FaultTest):
    def each_allocation(self, name):
        codes = self.disturb(name, "alloc", "ENOMEM")
        print(f"{name}: {len(codes)} allocations failed, of which harmless: {codes.count(0)}",
              file=sys.stderr)
        self.assertGreater(codes.count(FAILED), 200)

    def test_convert(self):
        self.each_allocation("convert")

    def test_export(self):
        self.each_allocation("export")

    def test_reshard(self):
        self.each_allocation("reshard")

    def test_reshard_over_an_old_checkpoint(self):
        self.each_allocation("force")

    def test_init(self):
        self.each_allocation("init")


if __name__ == "__main__":
    unittest.main()
