"""Before the checkpoint exists, all of it is on the disk: what a power cut would find.

A kill cannot show this, for the kernel lives on. strace shows the order of the calls.
"""
import re
import shutil
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from faults import FaultTest, run

CALLS = "openat,pwrite64,ftruncate,fsync,mkdir,rename,renameat2"


class Trace:
    """When each path was last changed and last synced, up to the rename that publishes."""

    def __init__(self, lines, dst):
        self.dst, self.partial = str(dst), f"{dst}.partial"
        self.changed, self.synced, self.published, self.after = {}, {}, None, set()
        begun = {}
        for at, line in enumerate(lines):
            pid, call = line.split(None, 1)
            if call.endswith("<unfinished ...>"):
                begun[pid] = (at, call.removesuffix("<unfinished ...>"))
                continue
            start = at
            if call.startswith("<..."):
                start, first = begun.pop(pid)
                call = first + call.split("resumed>", 1)[1]
            if not re.search(r"= (-1|\?)", call): # a call that failed has done nothing
                self.see(call, start, at)

    def see(self, call, start, end):
        name = call.split("(", 1)[0]
        texts, folders = re.findall(r'"([^"]*)"', call), re.findall(r"\d<([^>]*)>", call)
        if name == "fsync":
            self.synced[folders[0]] = start
            if self.published is not None:
                self.after.add(folders[0])
        elif name in ("pwrite64", "ftruncate"):
            self.changed[folders[0]] = end
        elif name == "mkdir" or (name == "openat" and "O_CREAT" in call):
            self.changed[str(Path(texts[0]).parent)] = end
        elif name.startswith("rename") and texts[0] == self.partial and texts[1] == self.dst:
            self.published, self.at_rename = end, (dict(self.changed), dict(self.synced))
        elif name == "rename":
            source, target = texts
            for times in (self.changed, self.synced):
                for path in [p for p in times if p == source or p.startswith(source + "/")]:
                    times[target + path[len(source):]] = times.pop(path)
            for path in (source, target):
                self.changed[str(Path(path).parent)] = end


@unittest.skipUnless(shutil.which("strace"), "strace IS NOT INSTALLED (scripts/setup --tests): "
                     "THE ORDER OF SYNC AND RENAME IS NOT TESTED")
class SyncOrder(FaultTest):
    def trace(self, job, *options):
        dst, log = self.prepare(job), self.home / "log"
        strace = ["strace", "-f", "-qq", "-y", "-o", log, "-e", f"trace={CALLS}"]
        self.must(run(*job.command(dst, 2), *options, before=strace,
                      env={"ASAN_OPTIONS": "detect_leaks=0"}))
        return Trace(log.read_text(errors="replace").splitlines(), dst)

    def test_everything_is_synced_before_it_exists(self):
        for name, job in self.jobs.items():
            with self.subTest(job=name):
                trace = self.trace(job)
                self.assertIsNotNone(trace.published)
                changed, synced = trace.at_rename
                ours = [p for p in changed if p.startswith(trace.partial) and
                        "/worker-" not in p] # journals have had their use
                self.assertGreater(len(ours), 8)
                for path in ours:
                    if path == f"{trace.partial}.job":
                        continue # its files are synced, and it is gone in a moment
                    self.assertGreater(synced.get(path, -1), changed[path],
                                       f"{path} was not synced after its last change")
                self.assertIn(str(self.work), trace.after)

    def test_no_fsync_means_none(self):
        trace = self.trace(self.jobs["convert"], "--no-fsync")
        self.assertIsNotNone(trace.published)
        self.assertEqual(trace.synced, {})


if __name__ == "__main__":
    unittest.main()
