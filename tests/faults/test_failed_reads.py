"""Each call and each allocation of the commands that only look fails once."""
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from faults import FAILED, FaultTest, needs_shim, run, shim


@needs_shim
class FailedReads(FaultTest):
    """0 with another result would be a lie, and so would 1."""

    FAULTS = [
        ("alloc", ["ENOMEM"]), ("open64", ["EIO", "EMFILE"]), ("opendir", ["EIO", "EMFILE"]),
        ("readdir64", ["EIO"]), ("pread64", ["EIO"]), ("pthread_create", ["EAGAIN"]),
        ("lstat64,stat64,fstat64,fstatat64", ["EIO"]), ("readlink", ["EIO"]),
        ("memfd_create,mkostemp64", ["EMFILE"]), ("fsync,pwrite64,lseek64", ["EIO"]),
    ]

    def each_fault(self, *words):
        report = self.home / "report"
        right = self.must(run(*words))
        failed = 0
        for calls, errors in self.FAULTS:
            for what in errors:
                for n in range(1, 100000):
                    done = run(*words, env=shim((calls, n, what), report=report))
                    with self.subTest(words=words[0], calls=calls, n=n, what=what):
                        self.assertIn(done.returncode, (0, FAILED), done.stdout + done.stderr)
                        if done.returncode:
                            self.check_words(done)
                            failed += 1
                        else:
                            self.assertEqual(self.steady(done.stdout), self.steady(right.stdout))
                            self.assertEqual(done.stderr, right.stderr)
                    if int(report.read_text()) < n:
                        break
        self.check_inputs()
        self.assertGreater(failed, 30, words)

    @staticmethod
    def steady(text):
        """Without what a clock has said."""
        return [line for line in text.splitlines() if " in 0." not in line]

    def test_verify_shards(self):
        self.each_fault("verify", self.shards, "--jobs", 1)

    def test_verify_deep_against_a_hugging_face_folder(self):
        self.each_fault("verify", self.shards, "--deep", "--against", self.hf, "--jobs", 1)

    def test_verify_a_hugging_face_folder(self):
        self.each_fault("verify", self.hf, "--jobs", 1)

    def test_digest(self):
        self.each_fault("digest", self.shards, "--jobs", 1)
        self.each_fault("digest", self.hf, "--jobs", 1)

    def test_diff(self):
        self.each_fault("diff", self.shards, self.hf, "--numeric", "--jobs", 1)

    def test_inspect(self):
        self.each_fault("inspect", self.shards)
        self.each_fault("inspect", self.hf)
        self.each_fault("inspect", next((self.shards / "model").iterdir()))

    def test_plan(self):
        self.each_fault("plan", self.hf, "--ep", 2, "--hsd", 2)

    def test_short_reads(self):
        for words in (["verify", self.shards], ["digest", self.hf], ["inspect", self.shards],
                      ["diff", self.shards, self.hf, "--numeric"]):
            right = self.must(run(*words))
            done = self.must(run(*words, env=shim(("pread64", "1+", "HALF"))))
            self.assertEqual(self.steady(done.stdout), self.steady(right.stdout))


if __name__ == "__main__":
    unittest.main()
