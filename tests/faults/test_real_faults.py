"""Faults as they really come: a full disk, a folder that may not be written, an input that
shrinks, Ctrl-C, limits of the process, a result that nobody can read.
"""
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import faults
from faults import FAILED, FaultTest, contents, needs_shim, run, shim

INTERRUPTED, TERMINATED = 130, 143
NOBODY = 65534


def limited(kind, value):
    return lambda: resource.setrlimit(kind, (value, value))


def as_nobody():
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


class Stopped:
    """A run that the shim stops at a call; then anything may be done to it."""

    def __init__(self, words, *rules):
        self.process = subprocess.Popen([faults.PROGRAM, *map(str, words)], text=True,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE,
                                        env={**os.environ, **shim(*rules)})
        self.wait_for_stop()

    def wait_for_stop(self):
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.process.returncode = os.waitstatus_to_exitcode(status)
            raise AssertionError(f"ended instead of stopping: {self.process.communicate()}")

    def go_on(self, *signals):
        for number in signals:
            self.process.send_signal(number)
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        out, err = self.process.communicate(timeout=60)
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, out, err)


class Disks(FaultTest):
    @contextlib.contextmanager
    def small_disk(self, kilobytes, options=""):
        """A file system of that size at self.work."""
        self.prepare(self.jobs["convert"])
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k{options}", "none", self.work]
        done = subprocess.run(mount, capture_output=True, text=True)
        if done.returncode:
            self.skipTest(f"REAL FULL DISKS ARE NOT TESTED, cannot mount: {done.stderr.strip()}")
        try:
            yield self.work / "dst"
        finally:
            subprocess.run(["umount", self.work], check=True)

    def test_a_disk_that_is_full_at_any_moment(self):
        """From too small for a single file to nearly large enough."""
        job, codes = self.jobs["convert"], set()
        for kilobytes in range(60, 900, 60):
            with self.subTest(kilobytes=kilobytes), self.small_disk(kilobytes) as dst:
                done = run(*job.command(dst))
                codes.add(done.returncode)
                self.assertIn(done.returncode, (0, FAILED), done.stderr)
                state = self.check_state(job, dst)
                self.assertEqual(state == "new", done.returncode == 0)
                if done.returncode:
                    self.check_words(done)
                    self.assertRegex(done.stderr, "No space left on device|bytes are needed")
                    subprocess.run(["mount", "-o", "remount,size=10m", self.work], check=True)
                    self.check_again(job, dst, state)
        self.assertEqual(codes, {0, FAILED})

    @needs_shim
    def test_a_disk_that_fills_up_half_way(self):
        """Somebody else takes the room; when it is free again, the job goes on."""
        for name in ("convert", "reshard", "export"):
            job = self.jobs[name]
            with self.subTest(job=name), self.small_disk(2000) as dst:
                stopped = Stopped(job.command(dst), ("pwrite64", 4, "STOP"))
                with open(self.work / "filler", "wb", buffering=0) as filler:
                    with contextlib.suppress(OSError):
                        while filler.write(bytes(4096)):
                            pass
                stopped.go_on()
                done = stopped.end()
                self.assertEqual(done.returncode, FAILED, done.stderr)
                self.check_words(done)
                self.assertIn("No space left on device", done.stderr)
                self.assertFalse(dst.exists())
                self.assertTrue(dst.with_name("dst.partial").exists())
                (self.work / "filler").unlink()
                self.check_again(job, dst, None)

    def test_files_may_not_grow(self):
        """The signal that comes with it is ignored."""
        for name, job in self.jobs.items():
            for limit in (0, 100, 5000, 20000, 60000):
                dst = self.prepare(job)
                done = run(*job.command(dst), preexec_fn=limited(resource.RLIMIT_FSIZE, limit))
                with self.subTest(job=name, limit=limit):
                    self.assertEqual(done.returncode, FAILED, done.stderr)
                    self.check_words(done)
                    self.assertIn("File too large", done.stderr)
                    self.check_again(job, dst, self.check_state(job, dst))

    def test_a_disk_that_may_not_be_written(self):
        with self.small_disk(1000, ",ro") as dst:
            done = run(*self.jobs["convert"].command(dst))
            self.assertEqual(done.returncode, FAILED)
            self.check_words(done)
            self.assertIn("Read-only file system", done.stderr)


class Permissions(FaultTest):
    """Root may do everything, so the program runs as nobody, if it can be made to."""

    def run_unprivileged(self, *words):
        program = self.home / "program"
        if not program.exists():
            shutil.copy(faults.PROGRAM, program)
        self.home.chmod(0o755)
        return subprocess.run([program, *map(str, words)], text=True, capture_output=True,
                              preexec_fn=as_nobody if os.geteuid() == 0 else None)

    def test_a_folder_that_may_not_be_written(self):
        job = self.jobs["convert"]
        dst = self.prepare(job)
        self.work.chmod(0o555)
        done = self.run_unprivileged(*job.command(dst))
        self.assertEqual(done.returncode, FAILED)
        self.check_words(done)
        self.assertIn("Permission denied", done.stderr)
        self.assertIn("dst.partial", done.stderr)
        self.assertEqual(os.listdir(self.work), [])

    def test_an_old_checkpoint_that_may_not_be_replaced(self):
        job = self.jobs["force"]
        dst = self.prepare(job)
        self.work.chmod(0o555)
        done = self.run_unprivileged(*job.command(dst))
        self.work.chmod(0o755)
        self.assertEqual(done.returncode, FAILED)
        self.check_words(done)
        self.assertEqual(self.check_state(job, dst), "old")

    def test_a_source_that_may_not_be_read(self):
        for name in ("model-00003-of-00005.safetensors", "config.json", "tokenizer.json",
                     "model.safetensors.index.json"):
            with self.subTest(name):
                src, dst = self.home / "src", self.prepare(self.jobs["convert"])
                shutil.rmtree(src, ignore_errors=True)
                shutil.copytree(self.hf, src)
                (src / name).chmod(0)
                self.work.chmod(0o777)
                done = self.run_unprivileged("convert", src, dst, "--to", "mixckpt")
                self.assertEqual(done.returncode, FAILED)
                self.check_words(done)
                self.assertIn(name, done.stderr)
                self.assertIn("Permission denied", done.stderr)
                self.assertFalse(dst.exists())

    def test_what_may_not_be_read_is_no_defect(self):
        src = self.home / "shards-unreadable"
        shutil.copytree(self.shards, src)
        for path in [next((src / "model").iterdir()), src / "mixckpt.digests",
                     src / "mixckpt.json"]:
            path.chmod(0)
            for command in ("verify", "digest"):
                done = self.run_unprivileged(command, src)
                if command == "digest" and path.suffix == ".digests" and done.returncode == 0:
                    continue # what the manifest says is enough
                with self.subTest(command=command, unreadable=path.name):
                    if command == "digest" and path.parent.name == "model":
                        continue # likewise
                    self.assertEqual(done.returncode, FAILED, done.stdout)
                    self.check_words(done)
                    self.assertIn(path.name, done.stderr)
            path.chmod(0o644)


@needs_shim
class Inputs(FaultTest):
    """The input changes while it is read. That is its fault, so nothing is kept."""

    def change_while_it_is_read(self, job, src, change, words):
        codes = []
        for call in range(1, 1000, 5):
            dst = self.prepare(job)
            shutil.rmtree(self.home / "src", ignore_errors=True)
            shutil.copytree(src, self.home / "src")
            command = job.command(dst)
            command[1] = self.home / "src"
            with self.subTest(call=call):
                try:
                    stopped = Stopped(command, ("pread64", call, "STOP"))
                except AssertionError: # it makes no such call any more
                    break
                change(self.home / "src")
                stopped.go_on()
                done = stopped.end()
                codes.append(done.returncode)
                if done.returncode == 0: # all was read before
                    self.assertEqual(self.whole(job, dst), "new")
                    continue
                self.assertEqual(done.returncode, FAILED, done.stderr)
                self.check_words(done)
                self.assertRegex(done.stderr, words)
                self.assertEqual(os.listdir(self.work), [])
        self.assertGreater(codes.count(FAILED), 2)

    def test_a_file_that_shrinks(self):
        def shrink(src):
            for path in src.rglob("*.safetensors"):
                os.truncate(path, path.stat().st_size // 2)
        self.change_while_it_is_read(self.jobs["convert"], self.hf, shrink,
                                     r"model-0000\d-of-00005.safetensors")

    def test_a_shard_that_shrinks(self):
        def shrink(src):
            for path in src.rglob("*.h5"):
                os.truncate(path, path.stat().st_size // 3)
        self.change_while_it_is_read(self.jobs["reshard"], self.shards, shrink, r"\.h5")

    def test_a_shard_that_changes(self):
        def change(src):
            for path in src.rglob("*.h5"):
                with open(path, "r+b") as file:
                    file.seek(path.stat().st_size - 100)
                    file.write(b"other")
        self.change_while_it_is_read(self.jobs["reshard"], self.shards, change,
                                     r"tensor '.*', bytes \[\d+, \d+\).*damaged|"
                                     r"\.h5: was changed while it was read")


@needs_shim
class Signals(FaultTest):
    def stop_by(self, number, code, words):
        for name in ("convert", "export", "force"):
            job = self.jobs[name]
            dst = self.prepare(job)
            # Slow from then on, or so small a job is done before its signal has come.
            stopped = Stopped(job.command(dst), ("pwrite64", 4, "STOP"), ("pread64", "20+", "SLOW"))
            stopped.go_on(number)
            done = stopped.end()
            with self.subTest(job=name):
                self.assertEqual(done.returncode, code, done.stderr)
                self.check_words(done)
                self.assertIn(words, done.stderr)
                state = self.check_state(job, dst)
                self.assertEqual(state, "old" if job.force else None)
                self.assertTrue(dst.with_name("dst.partial").joinpath("job/job.json").exists())
                self.check_again(job, dst, state)

    def test_interrupt(self):
        self.stop_by(signal.SIGINT, INTERRUPTED, "SIGINT")

    def test_terminate(self):
        self.stop_by(signal.SIGTERM, TERMINATED, "SIGTERM")

    def test_interrupt_twice_is_at_once(self):
        job = self.jobs["convert"]
        dst = self.prepare(job)
        stopped = Stopped(job.command(dst), ("pwrite64,close", "30+", "STOP"))
        self.assertTrue(dst.with_name("dst.partial").joinpath("job/job.json").exists())
        stopped.go_on(signal.SIGINT)
        stopped.wait_for_stop() # it is about to end in good order
        stopped.go_on(signal.SIGINT)
        done = stopped.end()
        self.assertEqual((done.returncode, done.stderr), (INTERRUPTED, ""))
        self.assertIsNone(self.check_state(job, dst))
        self.assertTrue(dst.with_name("dst.partial").exists())
        self.check_again(job, dst, None)

    def test_at_any_moment_it_is_stopped_or_done(self):
        for calls in ("pwrite64", "fsync", "rename", "open64"):
            for n in range(1, 60, 3):
                job = self.jobs["force"]
                dst = self.prepare(job)
                try:
                    stopped = Stopped(job.command(dst), (calls, n, "STOP"))
                except AssertionError:
                    break
                stopped.go_on(signal.SIGTERM)
                done = stopped.end()
                with self.subTest(calls=calls, n=n):
                    self.assertIn(done.returncode, (0, TERMINATED), done.stderr)
                    state = self.check_state(job, dst)
                    self.assertEqual(state, "old" if done.returncode else "new")
                    self.check_again(job, dst, state)


class Limits(FaultTest):
    def test_few_descriptors(self):
        """Many more files than may be open at a time."""
        many, back = self.home / "many", self.home / "back"
        job = ["--to", "mixckpt", "--ep", 4, "--hsd", 16, "--tp", 2, "--jobs", 2]
        few = {"preexec_fn": limited(resource.RLIMIT_NOFILE, 64)}
        self.must(run("convert", self.hf, many, *job, **few))
        self.assertGreater(len(os.listdir(many / "model")), 100)
        self.must(run("verify", many, **few))
        self.must(run("reshard", many, self.home / "again", "--ep", 2, "--hsd", 2, **few))
        self.must(run("convert", many, back, "--to", "hf", **few))
        self.assert_same(contents(back), contents(self.hf))

    def test_hardly_any_descriptors(self):
        job, codes = self.jobs["convert"], set()
        for limit in range(4, 32):
            dst = self.prepare(job)
            done = run(*job.command(dst), preexec_fn=limited(resource.RLIMIT_NOFILE, limit))
            with self.subTest(limit=limit):
                codes.add(done.returncode)
                if done.returncode == 127:
                    continue # not even its libraries could be opened
                self.assertIn(done.returncode, (0, FAILED), done.stderr)
                if done.returncode:
                    self.check_words(done)
                    self.check_again(job, dst, self.check_state(job, dst))
        self.assertIn(0, codes)
        self.assertIn(FAILED, codes)

    @unittest.skipIf("asan" in os.environ.get("LD_PRELOAD", ""), "sanitizers need room")
    def test_little_address_space(self):
        for name in ("convert", "force"):
            job, codes = self.jobs[name], set()
            for megabytes in [*range(6, 40, 2), 60, 100, 200]:
                dst = self.prepare(job)
                done = run(*job.command(dst, 2),
                           preexec_fn=limited(resource.RLIMIT_AS, megabytes << 20))
                with self.subTest(job=name, megabytes=megabytes):
                    if done.returncode == 127:
                        continue # not even its libraries could be loaded
                    codes.add(done.returncode)
                    self.assertIn(done.returncode, (0, FAILED), done.stderr)
                    if done.returncode:
                        self.check_words(done)
                        self.check_again(job, dst, self.check_state(job, dst))
            self.assertEqual(codes, {0, FAILED})


class Outputs(FaultTest):
    """What was asked for could not be said: 3, though the checkpoint is there, whole."""

    def test_nobody_can_read_the_result(self):
        for job in (self.jobs["convert"], self.jobs["force"]):
            for how in ("full", "closed"):
                with self.subTest(how=how, force=job.force), open("/dev/full", "w") as full:
                    dst = self.prepare(job)
                    if how == "full":
                        done = run(*job.command(dst), stdout=full)
                    else:
                        done = run(*job.command(dst), stdout=None, preexec_fn=lambda: os.close(1))
                    self.assertEqual(done.returncode, FAILED, done.stderr)
                    self.check_words(done)
                    self.assertIn("standard output", done.stderr)
                    self.assertEqual(self.check_state(job, dst), "new")

    def test_every_command_says_it(self):
        for words in (["verify", self.shards], ["digest", self.shards], ["inspect", self.hf],
                      ["diff", self.shards, self.hf], ["plan", self.hf, "--ep", 2, "--hsd", 2]):
            for json in ([], ["--json"]):
                with self.subTest(words=words, json=json), open("/dev/full", "w") as full:
                    done = run(*words, *json, stdout=full)
                    self.assertEqual(done.returncode, FAILED)
                    self.check_words(done)


@needs_shim
class Resuming(FaultTest):
    def test_a_finished_shard_that_is_gone_is_missed(self):
        """Somebody has tidied up in .partial: nothing with a hole is published."""
        job = self.jobs["convert"]
        for damage in (lambda path: path.unlink(), lambda path: os.truncate(path, 10)):
            dst = self.prepare(job)
            done = run(*job.command(dst), env=shim(("rename", 2, "EIO")))
            self.assertEqual(done.returncode, FAILED)
            shard = sorted(dst.with_name("dst.partial").joinpath("model").iterdir())[1]
            damage(shard)
            done = run(*job.command(dst))
            self.assertEqual(done.returncode, FAILED)
            self.check_words(done)
            self.assertIn(shard.name, done.stderr)
            self.assertFalse(dst.exists())
            shutil.rmtree(dst.with_name("dst.partial"))
            self.check_again(job, dst, None)

    def test_a_torn_journal_is_cut_off(self):
        job = self.jobs["convert"]
        whole = None
        for cut in range(0, 400, 7):
            dst = self.prepare(job)
            done = run(*job.command(dst), env=shim(("rename", 2, "EIO")))
            self.assertEqual(done.returncode, FAILED)
            journal = dst.with_name("dst.partial") / "job" / "worker-00000.journal"
            whole = journal.stat().st_size
            with self.subTest(cut=cut):
                if cut > whole:
                    break
                os.truncate(journal, whole - cut)
                with open(journal, "ab") as file:
                    file.write(b"MXSL torn") # what a record looks like that was not finished
                self.check_again(job, dst, None)
        self.assertGreater(whole, 100)

    def test_a_destination_that_was_changed_since_is_not_called_finished(self):
        """Killed after the last rename, with only the tidying left."""
        job = self.jobs["convert"]
        for change in (lambda dst: (dst / "mine").write_text("x"),
                       lambda dst: (shutil.rmtree(dst), dst.mkdir(), (dst / "x").touch())):
            for n in range(1, 100):
                dst = self.prepare(job)
                run(*job.command(dst), env=shim(("unlink", n, "KILL")))
                if dst.exists():
                    break
            self.assertTrue(dst.with_name("dst.partial.job").joinpath("job.json").exists())
            change(dst)
            before = contents(dst)
            done = run(*job.command(dst))
            self.assertEqual(done.returncode, FAILED, done.stdout)
            self.assertIn("is not empty", done.stderr)
            self.assert_same(contents(dst), before)
            self.assertEqual(os.listdir(self.work), ["dst"])


if __name__ == "__main__":
    unittest.main()
