"""What the fault tests share: jobs to disturb, and what must hold after each fault.

Environment: MIXCKPT is the program, MIXCKPT_SHIM the library built from shim.c.
"""
import errno
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

PROGRAM = os.environ.get("MIXCKPT", "mixckpt")
SHIM = os.environ.get("MIXCKPT_SHIM")
SOURCE = Path(__file__).resolve().parent.parent / "reference" / "tiny-mixtral"
KILLED = -9
# What errno says must be in the words. (ENOMEM: an allocation has no errno of its own.)
ERRORS = {name: getattr(errno, name) for name in ("EIO", "ENOSPC", "EMFILE", "EACCES", "EAGAIN")}
FAILED = 3


def fast_folder():
    """Where files cost least: memory, if it can hold them. Thousands of runs are made."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def run(*words, before=(), env=(), **more):
    """Run the program; `before` stands in front of it: strace and its options."""
    return subprocess.run([*before, PROGRAM, *map(str, words)], stdin=subprocess.DEVNULL,
                          text=True, errors="replace", timeout=120,
                          env={**os.environ, **dict(env)},
                          **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more})


def contents(folder):
    """Name and bytes of everything below a folder; folders and links count too."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        else:
            found[name] = path.read_bytes() if path.is_file() else "folder"
    return found


class Job:
    """A command that makes a checkpoint, and what it must make."""

    def __init__(self, words, src, force=False):
        self.words, self.src, self.force = words, src, force
        self.new = self.old = None

    def command(self, dst, jobs=1):
        force = ["--force"] if self.force else []
        return [self.words[0], self.src, dst, *self.words[1:], "--jobs", jobs, *force]


class FaultTest(unittest.TestCase):
    """Makes the jobs once; gives each test case an empty folder."""

    @classmethod
    def setUpClass(cls):
        cls.home = Path(tempfile.mkdtemp(prefix="mixckpt-faults-", dir=fast_folder()))
        cls.addClassCleanup(shutil.rmtree, cls.home, ignore_errors=True)
        cls.hf, shards, cls.old_folder = (cls.home / name for name in ("hf", "shards", "old"))
        shutil.copytree(SOURCE, cls.hf)
        degrees = ["--ep", 2, "--hsd", 2]
        cls.must(run("convert", cls.hf, shards, "--to", "mixckpt", *degrees))
        cls.must(run("init", cls.hf / "config.json", cls.old_folder, "--to", "hf"))
        cls.jobs = {
            "convert": Job(["convert", "--to", "mixckpt", *degrees], cls.hf),
            "export": Job(["convert", "--to", "hf"], shards),
            "reshard": Job(["reshard", "--ep", 4, "--hsd", 1, "--tp", 2], shards),
            "init": Job(["init", "--ep", 2, "--hsd", 2], cls.hf / "config.json"),
            "force": Job(["reshard", "--ep", 4, "--hsd", 1, "--container", "safetensors"], shards, True),
        }
        for name, job in cls.jobs.items():
            whole = cls.home / f"whole-{name}"
            cls.must(run(*job.command(whole)))
            cls.must(run("verify", whole))
            job.new = contents(whole)
            job.old = contents(cls.old_folder) if job.force else None
        cls.inputs = {folder: contents(folder) for folder in (cls.hf, shards)}
        cls.shards = shards
        cls.work = cls.home / "work"

    @staticmethod
    def must(done):
        if done.returncode:
            raise RuntimeError(f"{done.args} ended with {done.returncode}: {done.stderr}")
        return done

    def prepare(self, job):
        """An empty folder to work in; with --force, an old checkpoint stands at dst."""
        if self.work.exists():
            shutil.rmtree(self.work)
        self.work.mkdir()
        dst = self.work / "dst"
        if job.force:
            shutil.copytree(self.old_folder, dst, copy_function=os.link)
        return dst

    def assert_same(self, found, expected, what=""):
        """Of two contents(). assertEqual() would be minutes at work to show what differs."""
        names = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
        self.assertEqual(names, [], what)

    def check_inputs(self):
        for folder, before in self.inputs.items():
            self.assert_same(contents(folder), before, f"{folder} was written to")

    def whole(self, job, folder):
        """"old", "new" or None, if that is what stands at `folder`; anything else is half."""
        if not folder.exists():
            return None
        found = contents(folder)
        if found == job.new:
            return "new"
        if job.force and found == job.old:
            return "old"
        self.fail(f"{folder} is neither the old nor the new checkpoint: {sorted(found)}")

    def check_state(self, job, dst):
        """What must hold after any fault: dst is old, new or absent; nothing else looks whole."""
        state = self.whole(job, dst)
        partial = dst.with_name("dst.partial")
        begun = partial.joinpath("job", "job.json").exists() # what says that it is no checkpoint
        if partial.exists() and not begun and run("verify", partial).returncode == 0:
            self.whole(job, partial)
        if job.force and state is None:
            # Between the two renames: both copies are whole beside it. (What is replaced
            # may be what an earlier run has made.)
            self.assertIn(self.whole(job, dst.with_name("dst.old")), ("old", "new"))
            self.assertEqual(self.whole(job, partial), "new")
        return state

    def check_again(self, job, dst, state, jobs=1):
        """The same command again makes the very folder, and leaves nothing beside it."""
        finished = not dst.with_name("dst.partial.job").joinpath("job.json").exists()
        again = run(*job.command(dst, jobs))
        if state == "new" and finished and not job.force:
            # It was done, to the last call: refused as any full folder.
            self.assertEqual(again.returncode, FAILED, again.stderr)
            self.assertIn("is not empty", again.stderr)
        else:
            self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(self.whole(job, dst), "new")
        self.assertEqual(os.listdir(self.work), ["dst"])

    def disturb(self, name, calls, what, codes=(0, FAILED), whens=None, jobs=1):
        """Let call 1, 2, ... fail until the program makes no such call. Returns the codes."""
        job, report = self.jobs[name], self.home / "report"
        seen = []
        for when in whens or range(1, 100000):
            dst = self.prepare(job)
            done = run(*job.command(dst, jobs), env=shim((calls, when, what), report=report))
            with self.subTest(job=name, calls=calls, when=when, what=what):
                if not whens and int(report.read_text()) < when:
                    self.assertEqual(done.returncode, 0, done.stderr)
                    break
                self.assertIn(done.returncode, codes, done.stderr)
                seen.append(done.returncode)
                state = self.check_state(job, dst)
                if done.returncode == 0:
                    self.assertEqual(state, "new")
                else:
                    self.check_words(done)
                    if what in ERRORS:
                        self.assertIn(os.strerror(ERRORS[what]), done.stderr)
                    self.check_again(job, dst, state, jobs)
        self.check_inputs()
        return seen

    def check_words(self, done):
        """One line that says what went wrong."""
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertTrue(lines[0].startswith("mixckpt: "), done.stderr)
        self.assertGreater(len(lines[0]), len("mixckpt: ") + 10)


def shim(*rules, report=None):
    """The environment that makes these faults happen: ("fsync,close", 3, "EIO"), ..."""
    env = {"LD_PRELOAD": SHIM, "FAULTS": ";".join(f"{a}:{b}:{c}" for a, b, c in rules)}
    if report:
        env["FAULTS_REPORT"] = str(report)
    return env


def needs_shim(test):
    return test if SHIM else unittest.skip("MIXCKPT_SHIM is not set: the shim is not built")(test)
