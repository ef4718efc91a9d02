"""Each call of a command that makes a checkpoint fails once; reads and writes stop half-way.

The exit code is 3, with one line of words; or 0, and then the result is right. Nothing
that is half looks whole, the input is untouched, and the same command run again makes
what an undisturbed run makes.
"""
import json
import shutil
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from faults import FAILED, FaultTest, contents, needs_shim, run, shim

# What may fail, and how.
FAULTS = [
    ("open64", ["EMFILE", "EACCES"]), ("opendir", ["EMFILE"]), ("readdir64", ["EIO"]),
    ("pread64", ["EIO"]), ("pwrite64", ["ENOSPC", "EIO"]), ("fsync", ["EIO", "ENOSPC"]),
    ("syncfs", ["EIO"]), ("close", ["EIO"]), ("rename", ["EIO", "ENOSPC", "EACCES"]),
    ("syscall", ["EIO", "EACCES"]), ("mkdir", ["ENOSPC", "EACCES"]), ("rmdir", ["EIO"]),
    ("unlink", ["EIO"]), ("ftruncate64", ["EIO", "ENOSPC"]),
    ("lstat64,stat64,fstat64,fstatat64", ["EIO"]), ("statvfs64", ["EIO"]),
    ("lseek64", ["EIO"]), ("readlink", ["EIO"]), ("realpath", ["EIO"]),
    ("memfd_create,mkostemp64", ["EMFILE"]), ("pthread_create", ["EAGAIN"]),
]
SURVIVE_EINTR = ["open64", "opendir", "pread64", "pwrite64", "fsync", "syncfs", "ftruncate64",
                 "close"]


@needs_shim
class FailedCalls(FaultTest):
    def each_fault(self, name):
        total = {0: 0, FAILED: 0}
        for calls, errors in FAULTS:
            for what in errors:
                for code in self.disturb(name, calls, what):
                    total[code] += 1
        print(f"{name}: {sum(total.values())} faults, of which harmless: {total[0]}",
              file=sys.stderr)
        self.assertGreater(total[FAILED], 200)

    def test_convert(self):
        self.each_fault("convert")

    def test_export(self):
        self.each_fault("export")

    def test_reshard(self):
        self.each_fault("reshard")

    def test_reshard_over_an_old_checkpoint(self):
        self.each_fault("force")

    def test_interrupted_calls_are_made_again(self):
        for name in self.jobs:
            for calls in SURVIVE_EINTR:
                self.disturb(name, calls, "EINTR", codes=[0])

    def test_from_then_on_everything_fails(self):
        """A disk that is gone, or full, and stays so."""
        for calls, what in [("*", "EIO"), ("pwrite64", "ENOSPC"), ("fsync", "EIO"),
                            ("pread64", "EIO"), ("open64,opendir", "EMFILE")]:
            for name in ("convert", "force"):
                self.disturb(name, calls, what, whens=[f"{n}+" for n in (1, 2, 5, 10, 20, 40)])

    def test_short_reads_and_writes(self):
        for name in self.jobs:
            for calls in ("pread64", "pwrite64", "pread64,pwrite64"):
                self.disturb(name, calls, "HALF", codes=[0], whens=["1+"])
                self.disturb(name, calls, "HALF", codes=[0], whens=["1+"], jobs=2)

    def test_what_fsync_has_refused_is_written_again(self):
        """A second fsync would say that all is well, though the pages may be gone."""
        job = self.jobs["convert"]
        for slow in ([], [("pwrite64", "1+", "SLOW")]): # slow: noted while it is worked on
            for n in range(1, 100):
                dst = self.prepare(job)
                done = run(*job.command(dst), env=shim(("fsync", n, "EIO"), *slow))
                self.assertIn("Input/output error", done.stderr)
                if "/model/" in done.stderr:
                    break
            self.assertRegex(done.stderr, r"/model/.*\.h5: cannot fsync: Input/output error")
            again = self.must(run(*job.command(dst), "--json"))
            self.assertEqual(json.loads(again.stdout)["bytes_resumed"], 0)
            self.assertEqual(self.whole(job, dst), "new")

    def test_what_another_job_began_is_never_taken_over(self):
        """Whatever fails while it is looked at."""
        job, other = self.jobs["reshard"], self.jobs["convert"]
        dst = self.prepare(job)
        self.assertEqual(run(*other.command(dst), env=shim(("rename", 3, "EIO"))).returncode, FAILED)
        begun = self.home / "begun"
        shutil.copytree(self.work, begun)
        report = self.home / "report"
        for calls in ("lstat64,stat64,fstat64,fstatat64", "open64", "opendir", "readdir64",
                      "pread64"):
            for n in range(1, 100000):
                shutil.rmtree(self.work)
                shutil.copytree(begun, self.work)
                done = run(*job.command(dst), env=shim((calls, n, "EIO"), report=report))
                with self.subTest(calls=calls, n=n):
                    self.assertEqual(done.returncode, FAILED)
                    self.check_words(done)
                    self.assert_same(contents(self.work), contents(begun))
                if int(report.read_text()) < n:
                    break
            self.assertIn("unfinished work of another job", done.stderr)

    def test_init(self):
        """It reads a config.json only, and makes its bytes itself."""
        for calls, what in [("pwrite64", "ENOSPC"), ("pread64", "EIO"), ("open64", "EMFILE")]:
            self.assertIn(FAILED, self.disturb("init", calls, what))


if __name__ == "__main__":
    unittest.main()
