"""Running the program under test, and looking at what it left on disk.

The program is named by the environment variable MIXCKPT. Every test gets a folder of
its own, self.tmp, that is gone afterwards.
"""
import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "tests" / "reference"
WITNESS = ROOT / "docs" / "mixckpt_digest.py"
LEAF_BYTES = 65536


def program():
    path = os.environ.get("MIXCKPT")
    if not path:
        raise RuntimeError("set MIXCKPT to the program to test")
    return os.path.abspath(path)


# Runs a program and says its peak memory. Linux counts what a process had before exec
# too, so the one that starts the program must be small, which a test may not be.
MEASURE = """
import os, sys
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    file.write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""


class Run:
    """One run: exit code (negative for a signal) and both outputs."""

    def __init__(self, args, before=(), **how):
        self.args = [str(a) for a in args]
        self.files = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]
        self.process = subprocess.Popen([*before, program(), *self.args],
                                        stdin=subprocess.DEVNULL, stdout=self.files[0],
                                        stderr=self.files[1], **how)

    def wait(self):
        self.code = self.process.wait()
        for name, file in zip(("out", "err"), self.files):
            file.seek(0)
            setattr(self, name, file.read().decode("utf-8", "replace"))
            file.close()
        return self

    def ended(self):
        """Without reaping it, so that wait() still finds it."""
        return os.waitid(os.P_PID, self.process.pid,
                         os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def bytes_written(self):
        """What the process has written so far, in system calls."""
        with open(f"/proc/{self.process.pid}/io") as file:
            fields = dict(line.split(": ") for line in file.read().splitlines())
        return int(fields["wchar"])

    def __str__(self):
        return (f"mixckpt {' '.join(self.args)}\nexit {self.code}\n"
                f"stdout: {self.out[-2000:]}\nstderr: {self.err[-2000:]}")


def run_measured(args):
    """A run that has ended, with peak_bytes: the largest resident size of the program."""
    with tempfile.NamedTemporaryFile("r") as peak:
        run = Run(args, before=[sys.executable, "-I", "-S", "-c", MEASURE, peak.name]).wait()
        run.peak_bytes = int(peak.read()) * 1024
    return run


def files_of(folder):
    """Every file below folder, as paths relative to it."""
    folder = Path(folder)
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def witness(folder):
    """The digest lines of a Hugging Face folder, by docs/mixckpt_digest.py."""
    return subprocess.run([sys.executable, WITNESS, folder], check=True,
                          stdout=subprocess.PIPE).stdout.decode()


def real_name(dataset, key):
    """The tensor that an HDF5 dataset is of: its attribute, else what it is called."""
    name = dataset.attrs.get("name", key)
    return name.decode() if isinstance(name, bytes) else name


def flip_byte(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


class ProgramTest(unittest.TestCase):
    maxDiff = 4000

    def setUp(self):
        self.tmp = Path(tempfile.mkdtemp(prefix="mixckpt-test-"))
        self.addCleanup(shutil.rmtree, self.tmp, ignore_errors=True)

    def run_program(self, *args, code=0, **how):
        run = Run(args, **how).wait()
        self.assertEqual(run.code, code, run)
        return run

    def run_json(self, *args, code=0, **how):
        """The one JSON document that --json promises on stdout."""
        run = self.run_program(*args, "--json", code=code, **how)
        try:
            return json.loads(run.out)
        except ValueError as error:
            self.fail(f"{error}\n{run}")

    def need_option(self, command, option):
        """Skip, and say so, where the program under test does not offer an option."""
        if option not in self.run_program(command, "--help").out:
            print(f"SKIPPED: {self.id()}: {command} has no {option}", file=sys.stderr)
            self.skipTest(f"{command} has no {option}")

    def convert(self, src, dst, ep=1, hsd=1, tp=1, *more):
        return self.run_json("convert", src, dst, "--to", "mixckpt", "--ep", ep, "--hsd", hsd,
                             "--tp", tp, *more)

    def reshard(self, src, dst, ep=1, hsd=1, tp=1, *more):
        return self.run_json("reshard", src, dst, "--ep", ep, "--hsd", hsd, "--tp", tp, *more)

    def export(self, src, dst, *more):
        return self.run_json("convert", src, dst, "--to", "hf", *more)

    def digest(self, folder):
        return self.run_program("digest", folder).out

    def assert_whole(self, folder):
        report = self.run_json("verify", folder)
        self.assertTrue(report["ok"], report)
        self.assertEqual(report["defects"], [])
        return report

    def assert_same_folder(self, a, b):
        """The same files with the same bytes."""
        self.assertEqual(files_of(a), files_of(b))
        for name in files_of(a):
            if not filecmp.cmp(Path(a) / name, Path(b) / name, shallow=False):
                self.fail(f"{name} differs between {a} and {b}")

    def interrupt_after(self, byte_count, number, *args, **how):
        """Run; once that much is written, send the signal; return the ended run."""
        run = Run(args, **how)
        while not run.ended() and run.bytes_written() < byte_count:
            time.sleep(0.001)
        if not run.ended():
            run.process.send_signal(number)
            return run.wait()
        self.fail(f"ended before {byte_count} bytes were written\n{run.wait()}")


SIGKILL, SIGINT, SIGTERM = signal.SIGKILL, signal.SIGINT, signal.SIGTERM
