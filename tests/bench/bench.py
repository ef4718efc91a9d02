#!/usr/bin/env python3
"""Measure mixckpt against named peers: the same data, the same run, taking turns.

Every row is a ratio: the seconds of the peer over those of mixckpt, so more than 1 means
that mixckpt is faster. Both run once unmeasured and then in turns (A B B A A B ...); the
row shows median, least and greatest ratio of the rounds. Rows without a peer show the
seconds, or the peak of memory. A peer that is not there is said to be skipped. No time
makes this fail: the exit code is 0.
"""
import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(SUPPORT))

from program import MEASURE

MB, GB, MIB = 10**6, 10**9, 1 << 20
MEMORY_BOUND = 256 * MIB

CONFIG = {
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "dtype": "bfloat16",
    "hidden_size": 1024, "intermediate_size": 2432, "num_attention_heads": 16,
    "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2,
    "vocab_size": 16000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-05,
    "hidden_act": "silu", "initializer_range": 0.02,
    "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
    "tie_word_embeddings": False,
}
LAYER_BYTES = 126 * MB  # of this config


class Skipped(Exception):
    """Why something is not measured."""


def parse_size(text):
    units = {"MB": MB, "GB": GB, "MiB": MIB, "GiB": 1 << 30}
    for unit, factor in units.items():
        if text.endswith(unit):
            return int(float(text[:-len(unit)]) * factor)
    return int(text)


# ---- running ----


def run(command, **how):
    """Run to the end; anything but exit 0 ends this row."""
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise Skipped(f"{os.path.basename(str(command[0]))} exits {done.returncode}: "
                      f"{words[-1] if words else 'without a word'}")
    return done.stdout.decode("utf-8", "replace")


def seconds_of(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak_of(command, **how):
    """
    Seconds and peak memory of a command. Linux counts what a process had before exec too,
    so a small Python starts it, which has about 9 MiB: less than that is not seen.
    """
    with tempfile.NamedTemporaryFile("r") as peak:
        seconds = seconds_of(lambda: run([sys.executable, "-I", "-S", "-c", MEASURE, peak.name,
                                          *command], **how))
        return seconds, int(peak.read()) * 1024


def has_module(python, module):
    return bool(python) and subprocess.run([python, "-c", f"import {module}"],
                                           stderr=subprocess.DEVNULL).returncode == 0


def find_python(given, module):
    """A Python that has the module: the one named, one that scripts/test made, or this one."""
    candidates = [given] if given else [str(ROOT / "build/venv/bin/python"), sys.executable]
    for python in candidates:
        if os.path.exists(python) and has_module(python, module):
            return python
    return None


# ---- the table ----


class Table:
    def __init__(self, args):
        self.args, self.rows, self.skipped = args, [], []

    def say(self, text):
        if not self.args.json:
            print(text, flush=True)

    def wanted(self, name):
        return not self.args.only or any(word in name for word in self.args.only)

    def row(self, name, **fields):
        self.rows.append({"what": name, **fields})
        if "ratio" in fields:
            r, target = fields["ratio"], fields["target"]
            verdict = "" if target is None else "yes" if r["median"] >= target else "NO"
            wanted = "-" if target is None else f"{target:.1f}"
            self.say(f"{name:72} {r['median']:7.2f} {r['min']:7.2f} {r['max']:7.2f} {wanted:>7} "
                     f"{verdict:3}  {fields['ours_seconds']:9.4f} {fields['peer_seconds']:9.4f}  "
                     f"{fields['peer']}")
        else:
            self.say(f"{name:72} {fields['says']}")

    def skip(self, name, why):
        self.skipped.append({"what": name, "why": why})
        self.say(f"{name:72} skipped: {why}")

    @contextlib.contextmanager
    def part(self, name):
        """What cannot be measured is said, and the next part goes on."""
        try:
            yield
        except (Skipped, OSError, subprocess.SubprocessError) as why:
            self.skip(name, str(why))

    def compare(self, name, ours, peer_name, peer, target):
        """
        ours() and peer() return the seconds that count. The first round warms caches up
        and does not count; who goes first alternates.
        """
        if not self.wanted(name):
            return
        with self.part(name):
            mine, theirs = [], []
            for turn in range(self.args.runs + 1):
                pair = (ours, peer) if turn % 2 else (peer, ours)
                times = [pair[0](), pair[1]()]
                if turn % 2 == 0:
                    times.reverse()
                if turn:
                    mine.append(times[0])
                    theirs.append(times[1])
            ratios = [b / a for a, b in zip(mine, theirs)]
            self.row(name, peer=peer_name, target=target,
                     ratio={"median": statistics.median(ratios), "min": min(ratios),
                            "max": max(ratios)},
                     ours_seconds=statistics.median(mine),
                     peer_seconds=statistics.median(theirs))


class Bench:
    def __init__(self, args, folder):
        self.args, self.dir, self.table = args, Path(folder), Table(args)
        self.mixckpt = args.mixckpt

    def path(self, name):
        return self.dir / name

    def remove(self, *names):
        for name in names:
            shutil.rmtree(self.path(name), ignore_errors=True)

    def settle(self):
        """Let the file system finish what earlier runs left to be written."""
        subprocess.run(["sync", "-f", str(self.dir)], check=False)

    def make(self, name, *command):
        """A folder that several rows use."""
        if not self.path(name).exists():
            run(command)
        return self.path(name)

    # -- data --

    def config(self, bytes_wanted):
        path = self.path(f"config-{bytes_wanted}.json")
        layers = max(1, round(bytes_wanted / LAYER_BYTES))
        path.write_text(json.dumps(dict(CONFIG, num_hidden_layers=layers)))
        return path

    def hf(self):
        size = self.args.size
        return self.make("hf", self.mixckpt, "init", self.config(size), self.path("hf"), "--to",
                         "hf", "--max-shard-size", size // 5, "--no-fsync")

    def shards(self, container, optimizer):
        """Made with a quarter of the size when it carries seven times its weights along."""
        name = f"shards-{container}" + ("-optimizer" if optimizer else "")
        size = self.args.size // 4 if optimizer else self.args.size
        more = ["--optimizer"] if optimizer else []
        return self.make(name, self.mixckpt, "init", self.config(size), self.path(name), "--ep",
                         1, "--hsd", 4, "--container", container, "--no-fsync", *more)

    # -- both sides --

    def writing(self, *command, clean=("out",)):
        """Seconds of a command that makes the folder out."""
        def timed():
            self.remove(*clean)
            self.settle()
            return seconds_of(lambda: run(command))
        return timed

    def copying(self, src, durable):
        copy = ["cp", "-r", src, self.path("out")]
        if not durable:
            return self.writing(*copy)
        return self.writing("sh", "-c", 'cp -r "$0" "$1" && find "$1" -exec sync {} +', src,
                            self.path("out"))

    # -- rows --

    def convert(self):
        src, out = self.hf(), self.path("out")
        for container in ("hdf5", "safetensors"):
            for durable in (False, True):
                self.table.compare(
                    f"convert HF -> {container} shards, {'with' if durable else 'no'} fsync",
                    self.writing(self.mixckpt, "convert", src, out, "--to", "mixckpt", "--ep", 2,
                                 "--hsd", 4, "--container", container, "--jobs", 2, "--quiet",
                                 *([] if durable else ["--no-fsync"])),
                    "cp -r, sync of each file" if durable else "cp -r",
                    self.copying(src, durable), 1.0)

    def reshard_command(self, src, ep, hsd, durable):
        return [self.mixckpt, "reshard", src, self.path("out"), "--ep", ep, "--hsd", hsd, "--jobs",
                2, "--quiet", *([] if durable else ["--no-fsync"])]

    def reshard(self):
        for optimizer in (False, True):
            what = "weights and optimizer" if optimizer else "weights"
            for container in ("hdf5", "safetensors"):
                src = self.shards(container, optimizer)
                self.table.compare(f"reshard {what}, {container}, hsd 4 -> ep 4 x hsd 2, no fsync",
                                   self.writing(*self.reshard_command(src, 4, 2, False)), "cp -r",
                                   self.copying(src, False), 1.0)
            with self.table.part(f"reshard {what} against torch"):
                self.reshard_against_torch(src, what)
            self.remove(*(f"shards-{c}" + ("-optimizer" if optimizer else "")
                          for c in ("hdf5", "safetensors")))

    def reshard_against_torch(self, src, what):
        """Both with fsync, which is torch's default as well."""
        python = find_python(self.args.torch_python, "torch, safetensors")
        if not python:
            raise Skipped("no Python with torch and safetensors (--torch-python)")
        folders = [src / name for name in ("model", "optimizer") if (src / name).exists()]
        script = [python, HERE / "torch_reshard.py", 2, self.path("out"), *folders]

        def torch():
            self.remove("out")
            self.settle()
            return float(run(script).split()[-1])

        self.table.compare(f"reshard {what}, safetensors, hsd 4 -> hsd 2, fsync",
                           self.writing(*self.reshard_command(src, 1, 2, True)),
                           "torch DCP load + save, 2 ranks", torch, 5.0)

    def hashing(self):
        """openssl gets the files largest first, and as many processes as there are cores."""
        cores = len(os.sched_getaffinity(0))
        for name, folder, command in (("verify of hdf5 shards", self.shards("hdf5", False), "verify"),
                                      ("digest of the HF folder", self.hf(), "digest")):
            files = sorted((p for p in folder.rglob("*") if p.is_file()),
                           key=lambda p: -p.stat().st_size)
            listed = "\0".join(map(str, files)).encode()
            openssl = ["xargs", "-0", "-n", 1, "-P", cores, "openssl", "dgst", "-sha256"]

            def peer(openssl=openssl, listed=listed):
                return seconds_of(lambda: subprocess.run([str(c) for c in openssl], input=listed,
                                                         stdout=subprocess.DEVNULL, check=True))

            self.table.compare(name, lambda c=command, f=folder: seconds_of(
                                   lambda: run([self.mixckpt, c, f, "--jobs", cores, "--quiet"])),
                               f"openssl dgst -sha256, {cores} processes", peer, 1.5)

    def header(self):
        name, count = "open a file of 995 tensors", 300
        helper = Path(self.args.helpers) / "bench_header"
        python = find_python(self.args.python, "safetensors, numpy")
        if not helper.exists():
            raise Skipped(f"{helper} is not built")
        if not python:
            raise Skipped("no Python with safetensors and numpy (--python)")
        path = self.path("995.safetensors")
        run([sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]);"
             "from make_sparse import CONFIG_8X7B, write_sparse; from hf_folder import *;"
             "write_sparse(sys.argv[2], mixtral_entries(CONFIG_8X7B, 'BF16'))", SUPPORT, path])
        loop = ("import sys, time; from safetensors import safe_open; t = []\n"
                f"for i in range({count}):\n"
                " a = time.perf_counter(); f = safe_open(sys.argv[1], 'np')\n"
                " t.append(time.perf_counter() - a)\n"
                "print(sorted(t)[len(t) // 2])")

        def ours():
            times = run([helper, path, count]).split()
            return statistics.median(map(float, times)) * 1e-6

        self.table.compare(name, ours, "safetensors.safe_open, in a loop",
                           lambda: float(run([python, "-c", loop, path])), 1.0)

    def small_files(self):
        for name, more in (("one file", []), ("10,000 files", ["--files"])):
            src = self.path("many" + "".join(more))
            run([sys.executable, SUPPORT / "make_many.py", src, *more])
            for container in ("hdf5", "safetensors"):
                for durable in (False, True):
                    self.table.compare(
                        f"convert 10,000 tensors of 1 KiB in {name} -> {container}, "
                        f"{'with' if durable else 'no'} fsync",
                        self.writing(self.mixckpt, "convert", src, self.path("out"), "--to",
                                     "mixckpt", "--container", container, "--jobs", 2, "--quiet",
                                     *([] if durable else ["--no-fsync"])),
                        "cp -r, sync of each file" if durable else "cp -r",
                        self.copying(src, durable), 1.0)
            self.remove(src.name)

    def absolute(self, name, command, says, target):
        """Median seconds of a command that has no peer."""
        if not self.table.wanted(name):
            return
        times = [seconds_of(lambda: run(command)) for _ in range(self.args.runs)]
        median = statistics.median(times)
        self.table.row(name, seconds={"median": median, "min": min(times), "max": max(times)},
                       target_seconds=target,
                       says=f"{median:.4f} s ({min(times):.4f} to {max(times):.4f}); "
                            f"must be below {target} s{says}")

    def sparse(self, model, *more):
        name = "-".join(["sparse", model, *(m.strip("-") for m in more)])
        return self.make(name, sys.executable, SUPPORT / "make_sparse.py", model, self.path(name),
                         *more)

    def plans(self):
        small, large = self.sparse("8x7b"), self.sparse("8x22b", "--optimizer")
        plan = [self.mixckpt, "plan", large, "--ep", 8, "--json", "--hsd"]
        self.absolute("plan of 8x22B with optimizer on 4,096 ranks", [*plan, 512], "", 1)
        self.growth("plan: 4,096 ranks against 1,024", [*plan, 128], [*plan, 512], 4)
        self.absolute("inspect of the sparse 8x7B folder, 93 GB",
                      [self.mixckpt, "inspect", small, "--json"], "", 0.1)
        many = []
        for count in (20000, 80000):
            many.append(self.make(f"inspect-{count}", sys.executable, SUPPORT / "make_many.py",
                                  self.path(f"inspect-{count}"), "--count", count))
        self.growth("inspect: 80,000 tensors against 20,000",
                    *([self.mixckpt, "inspect", m, "--json"] for m in many), 4)
        self.remove("inspect-20000", "inspect-80000")

    def growth(self, name, less, more, factor):
        if not self.table.wanted(name):
            return
        a, b = (statistics.median(seconds_of(lambda c=c: run(c)) for _ in range(self.args.runs))
                for c in (less, more))
        self.table.row(name, times=b / a, factor=factor, seconds=[a, b],
                       says=f"{factor} times as much takes {b / a:.1f} times as long "
                            f"({a:.4f} s, {b:.4f} s)")

    def peak(self, name, *command, env=None):
        if not self.table.wanted(name):
            return
        with self.table.part(name):
            seconds, peak = peak_of([self.mixckpt, *command],
                                    env=dict(os.environ, **env) if env else None)
            self.table.row(name, peak_bytes=peak, bound_bytes=MEMORY_BOUND, seconds=seconds,
                           says=f"{peak / MIB:6.1f} MiB at its peak, in {seconds:.1f} s"
                                + ("" if peak <= MEMORY_BOUND else "  MORE THAN 256 MiB"))

    def memory(self):
        """
        Sparse files have the real headers and sizes, and their bytes are zeros. With a shim
        that leaves zeros unwritten, whole conversions run without taking room either.
        """
        shim = Path(self.args.helpers) / "libsparse_writes.so"
        env = {"LD_PRELOAD": str(shim)}
        for title, folder in (("8x7B", self.sparse("8x7b")),
                              ("8x22B with optimizer", self.sparse("8x22b", "--optimizer"))):
            for command in (["inspect", folder], ["plan", folder, "--ep", 8, "--hsd", 512],
                            ["verify", folder]):
                self.peak(f"memory of {command[0]}, sparse {title}", *command, "--json")
        if not shim.exists():
            raise Skipped(f"{shim} is not built")
        src = self.sparse("8x7b")
        self.remove("out")
        out, out2, out3 = (self.path(name) for name in ("out", "out2", "out3"))
        for what, *command in (
                ("convert to shards", "convert", src, out, "--to", "mixckpt", "--ep", 8, "--hsd",
                 64, "--no-fsync"),
                ("verify of the shards", "verify", out), ("digest of the shards", "digest", out),
                ("diff with the shards", "diff", src, out),
                ("reshard of the shards", "reshard", out, out2, "--ep", 4, "--hsd", 8, "--tp", 8,
                 "--no-fsync"),
                ("convert back", "convert", out2, out3, "--to", "hf", "--no-fsync")):
            self.peak(f"memory of {what}, sparse 8x7B", *command, "--json", "--quiet", env=env)
        self.remove("out", "out2", "out3")


# ---- what this ran on ----


def machine(folder):
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo")
                  if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], stdout=subprocess.PIPE,
                          check=False).stdout.decode().strip()
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "memory_bytes": memory,
            "kernel": platform.release(), "file_system": kind,
            "load_average": os.getloadavg()[0]}


def version(program):
    document = json.loads(run([program, "version", "--json"]))
    return {key: document[key] for key in ("version", "commit")}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=parse_size, default=GB,
                        help="bytes of the model, for example 1GB (default)")
    parser.add_argument("--runs", type=int, default=5, help="measured rounds (default 5)")
    parser.add_argument("--dir", help="where the data goes (default: /dev/shm if there is room, "
                                      "else the folder for temporary files)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--only", action="append", metavar="WORD",
                        help="only rows whose name holds this; may be repeated")
    parser.add_argument("--parts", default="convert,reshard,hashing,header,small_files,plans,memory",
                        help="which groups of rows (default: all: %(default)s)")
    parser.add_argument("--mixckpt", default=os.environ.get("MIXCKPT", str(ROOT / "build/mixckpt")))
    parser.add_argument("--helpers", default=str(ROOT / "build/tests"),
                        help="folder of bench_header and libsparse_writes.so")
    parser.add_argument("--python", help="one that has safetensors and numpy")
    parser.add_argument("--torch-python", help="one that has torch and safetensors")
    return parser.parse_args()


def choose_folder(args):
    if args.dir:
        return args.dir
    need = 4 * args.size + 2 * GB
    if os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free > need:
        return "/dev/shm"
    return tempfile.gettempdir()


def main():
    args = parse_arguments()
    if not os.access(args.mixckpt, os.X_OK):
        sys.exit(f"bench: {args.mixckpt} is no program; scripts/bench builds it")
    parent = choose_folder(args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the data is removed
    with tempfile.TemporaryDirectory(prefix="mixckpt-bench-", dir=parent) as folder:
        bench = Bench(args, folder)
        about = {"date": datetime.date.today().isoformat(), "machine": machine(folder),
                 "mixckpt": version(args.mixckpt), "size_bytes": args.size, "runs": args.runs}
        bench.table.say("\n".join(f"{k}: {v}" for k, v in about.items()))
        bench.table.say(f"\n{'peer seconds / our seconds':72} {'median':>7} {'min':>7} {'max':>7} "
                        f"{'must':>7} {'':3}  {'ours, s':>9} {'peer, s':>9}  peer")
        for part in args.parts.split(","):
            with bench.table.part(part):
                getattr(bench, part)()
        if args.json:
            print(json.dumps({**about, "rows": bench.table.rows,
                              "skipped": bench.table.skipped}, indent=2))


if __name__ == "__main__":
    main()
