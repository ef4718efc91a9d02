"""README.md tells the truth: its tour is run, and shows what the page shows.

The environment variable MIXCKPT names the program. Times, and the memory that depends on
how many cores there are, may differ.
"""
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = os.path.abspath(os.environ["MIXCKPT"])
MARK = "=== the next command ==="


def shown(text):
    """[command, output] of every command of the tour: what stands behind `$ ` in a block."""
    steps = []
    for block in re.findall(r"^```\n(.*?)^```$", text, re.M | re.S):
        if not block.startswith("$ ") or block.startswith("$ mixckpt "):
            continue  # what scripts/demo shows takes a large model
        for line in block.splitlines(keepends=True):
            if line.startswith("$ "):
                steps.append([line[2:], ""])
            else:
                steps[-1][1] += line
    return steps


def without_what_may_differ(text):
    text = re.sub(r" in [0-9.]+ s\b", " in a time", text)
    return re.sub(r"peak memory    .*", "peak memory", text)


class Readme(unittest.TestCase):
    maxDiff = None

    def test_the_tour(self):
        steps = shown((ROOT / "README.md").read_text(encoding="utf-8"))
        self.assertGreater(len(steps), 10)
        folder = Path(tempfile.mkdtemp(prefix="mixckpt-test-"))
        self.addCleanup(shutil.rmtree, folder)
        (folder / "build").mkdir()
        (folder / "build" / "mixckpt").symlink_to(PROGRAM)
        for name in ("tests", "docs"):
            (folder / name).symlink_to(ROOT / name)
        # One shell for all, so that `echo $?` speaks of the command before it.
        script = "".join(f"{command}code=$?; echo '{MARK}'; (exit $code)\n"
                         for command, _ in steps)
        done = subprocess.run(["bash", "-c", script], cwd=folder, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C"})
        outputs = done.stdout.split(MARK + "\n")
        self.assertEqual(len(outputs), len(steps) + 1, done.stdout)
        for (command, expected), found in zip(steps, outputs):
            with self.subTest(command.strip()):
                self.assertEqual(without_what_may_differ(found),
                                 without_what_may_differ(expected))

    def test_links_lead_somewhere(self):
        for page in ROOT.rglob("*.md"):
            if page.relative_to(ROOT).parts[0].startswith("build"):
                continue
            for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
                if "://" not in target:
                    self.assertTrue((page.parent / target).exists(), f"{page}: {target}")


if __name__ == "__main__":
    unittest.main()
