"""The frame of the commands, run for real: help, wrong usage, exit codes, broken stdout.

The environment variable MIXCKPT names the program.
"""
import json
import os
import subprocess
import unittest

PROGRAM = os.environ["MIXCKPT"]
USAGE, FAILED = 2, 3


def run(*words, **more):
    return subprocess.run([PROGRAM, *words], stdin=subprocess.DEVNULL, text=True,
                          **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more})


def commands():
    return json.loads(run("help", "--json").stdout)["commands"]


class Help(unittest.TestCase):
    def test_no_command_is_wrong_usage(self):
        done = run()
        self.assertEqual((done.returncode, done.stdout), (USAGE, ""))
        self.assertIn("usage: mixckpt <command>", done.stderr)

    def test_help_lists_every_command(self):
        done = run("help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout, run("--help").stdout)
        self.assertEqual(done.stdout, run("-h").stdout)
        for command in commands():
            self.assertIn(f"\n  {command['name']} ", done.stdout)
            self.assertIn(command["summary"], " ".join(done.stdout.split()))

    def test_every_command_explains_itself(self):
        self.assertGreaterEqual(len(commands()), 2)
        for command in commands():
            name = command["name"]
            with self.subTest(name):
                done = run(name, "--help")
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertEqual(done.stdout, run("help", name).stdout)
                self.assertTrue(done.stdout.startswith(f"usage: mixckpt {name} "))
                for option in ("--json", "--quiet", "--help"):
                    self.assertIn(f" {option} ", done.stdout)
                examples = done.stdout.split("\nexamples:\n")[1].splitlines()
                self.assertGreaterEqual(len(examples), 2)
                for example in examples:
                    self.assertRegex(example, f"^  (mpirun .*|srun .*)?mixckpt {name}")
                text = done.stdout.split("\nexamples:\n")[0]
                self.assertLessEqual(max(map(len, text.splitlines())), 80, text)

    def test_help_of_one_command_as_json(self):
        listed = json.loads(run("help", "version", "--json").stdout)["commands"]
        self.assertEqual([command["name"] for command in listed], ["version"])


class Version(unittest.TestCase):
    def test_text(self):
        done = run("version")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"^mixckpt \d+\.\d+\.\d+ \(commit ([0-9a-f]{12}|unknown)\)\n")
        self.assertEqual(done.stdout, run("--version").stdout)

    def test_json(self):
        version = json.loads(run("version", "--json").stdout)
        self.assertEqual(list(version), ["version", "commit", "schemes", "containers", "devices",
                                         "communicators"])
        self.assertIn("file", version["schemes"])
        self.assertEqual(version["containers"], ["hdf5", "safetensors"])
        self.assertEqual(json.loads(run("--version", "--json").stdout), version)


class WrongUsage(unittest.TestCase):
    CASES = [
        (["verison"], "there is no command 'verison', did you mean 'version'?"),
        (["hlep"], "did you mean 'help'?"),
        (["zzzzzz"], "there is no command 'zzzzzz'; 'mixckpt help' lists them"),
        ([""], "there is no command ''"),
        (["help", "verison"], "did you mean 'version'?"),
        (["--quiet", "version"], "found '--quiet' where a command was expected"),
        (["version", "--qiet"], "version: unknown option '--qiet', did you mean '--quiet'?"),
        (["version", "--quiet=1"], "version: --quiet takes no value, found '1'"),
        (["version", "x"], "version: one argument too many: 'x'"),
        (["version", "--", "--json"], "version: one argument too many: '--json'"),
        (["version", "x\ny"], "one argument too many: 'x?y'"),
    ]

    def test_is_one_line_and_exit_2(self):
        for words, says in self.CASES:
            with self.subTest(words):
                done = run(*words)
                self.assertEqual((done.returncode, done.stdout), (USAGE, ""))
                self.assertTrue(done.stderr.startswith("mixckpt: "), done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1)
                self.assertIn(says, done.stderr)

    def test_with_json_is_a_document_too(self):
        for words in (["verison", "--json"], ["--json", "version"], ["version", "--x", "--json"],
                      ["help", "verison", "--json"], ["version", "--json", "a"]):
            with self.subTest(words):
                done = run(*words)
                self.assertEqual(done.returncode, USAGE)
                error = json.loads(done.stdout)["error"]
                self.assertEqual(error.pop("kind"), "usage")
                self.assertEqual(done.stderr, f"mixckpt: {error.pop('message')}\n")
                self.assertEqual(error, {"file": None, "tensor": None, "begin": None, "end": None})

    def test_a_word_that_is_no_text_still_gives_valid_json(self):
        done = subprocess.run([PROGRAM, b"version", b"\xff\xfe\"", b"--json"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.assertIn("\ufffd\ufffd\"", json.loads(done.stdout)["error"]["message"])


class Stdout(unittest.TestCase):
    def test_full(self):
        for words in (["version"], ["version", "--json"], ["help"], ["help", "version"]):
            with self.subTest(words), open("/dev/full", "w") as full:
                done = run(*words, stdout=full)
                self.assertEqual(done.returncode, FAILED)
                self.assertIn("standard output: No space left on device", done.stderr)

    def test_wrong_usage_stays_wrong_usage(self):
        with open("/dev/full", "w") as full:
            self.assertEqual(run("version", "x", "--json", stdout=full).returncode, USAGE)

    def test_closed(self):
        done = subprocess.run(["sh", "-c", '"$0" version >&-', PROGRAM], text=True,
                              stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, FAILED)
        self.assertIn("standard output", done.stderr)

    def test_nobody_reads(self):
        reader, writer = os.pipe()
        os.close(reader)
        done = run("version", stdout=writer)
        os.close(writer)
        self.assertEqual(done.returncode, FAILED)
        self.assertIn("Broken pipe", done.stderr)

    def test_all_closed(self):
        done = subprocess.run(["sh", "-c", '"$0" version <&- >&- 2>&-', PROGRAM])
        self.assertEqual(done.returncode, FAILED)


if __name__ == "__main__":
    unittest.main()
