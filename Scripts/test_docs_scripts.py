"""Tests of the documentation's scripts and of the pages, without a built program: python3 -m unittest discover -s Scripts"""

import gzip
import json
import os
import pathlib
import stat
import tempfile
import unittest
import unittest.mock

import check_docs
import docc
import install
import manual
import update_docs

HELP = {"command": {
    "commandName": "peft", "abstract": "Fine-tuning.", "discussion": "Compare:\n  peft compare --methods a\nDone.",
    "subcommands": [{
        "commandName": "train", "abstract": "Fine-tune a model.",
        "arguments": [{
            "kind": "option", "names": [{"kind": "short", "name": "o"}, {"kind": "long", "name": "output"}],
            "valueName": "folder", "abstract": "Output folder.", "defaultValue": "out"}]}]}}
METHODS = [{"name": "lora", "summary": "low rank", "options": [{"name": "rank", "help": "LoRA rank r (default: 8)"}]}]


class Pages(unittest.TestCase):
    def test_facts_replace_what_follows_the_mark(self):
        page = update_docs.with_facts("# A\n\nProse.\n", "| new |")
        self.assertEqual(page, "# A\n\nProse.\n\n<!-- facts -->\n\n| new |\n")
        self.assertEqual(update_docs.with_facts(page, "| newer |\n"), "# A\n\nProse.\n\n<!-- facts -->\n\n| newer |\n")

    def test_a_table_replaces_that_with_the_same_header(self):
        page = "a\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\nb\n"
        self.assertEqual(update_docs.with_table(page, "| x | y |\n|---|---|\n| 3 | 4 |\n"),
                         "a\n\n| x | y |\n|---|---|\n| 3 | 4 |\n\nb\n")
        with self.assertRaises(ValueError):
            update_docs.with_table("no table\n", "| x | y |")

    def test_links_of_all_pages_lead_to_files(self):
        faults = [fault for path in check_docs.prose_pages()
                  for fault in check_docs.broken_links(path, path.read_text(encoding="utf-8"))]
        self.assertEqual(faults, [])
        page = check_docs.ROOT / "docs/page.md"
        self.assertEqual(len(list(check_docs.broken_links(page, "[a](training.md#x) [b](nowhere.md) `[c](x.md)`"))), 1)

    def test_readme_stays_short(self):
        self.assertLess(len((check_docs.ROOT / "README.md").read_text(encoding="utf-8").splitlines()), 250)


class Checks(unittest.TestCase):
    def test_cost_formulas_become_expressions(self):
        page = "- **Cost**: `⌈in / r₀⌉ · (in + out)` per projection; r₀ is `--rank`, and g is\n  `--group`.\n- **Use it**: x\n"
        self.assertEqual(check_docs.cost_formula(page),
                         ("ceil(inputs / r0) * (inputs + out)", {"r0": "rank", "g": "group"}))
        self.assertIsNone(check_docs.cost_formula("- **Cost**: all parameters.\n- **Use it**: x\n"))

    def test_commands_are_found_in_code(self):
        page = "Text peft no.\n\n    peft train --data a \\\n      --steps 2\n\n```sh\npeft plan x   # c\n```\n\n```swift\npeft no\n```\n"
        self.assertEqual([line.split("#")[0].split() for line in check_docs.commands(page)],
                         [["peft", "plan", "x"], ["peft", "train", "--data", "a", "--steps", "2"]])

    def test_links_of_doc_comments(self):
        paths = {"A": {"X", "X/run()", "Y"}, "B": {"Z"}}
        cases = [("run()", "``run()``"), ("Y", "``Y``"), ("Z", "``/B/Z``"), ("hidden", "`hidden`"), ("B", "``/B``")]
        for link, expected in cases:
            self.assertEqual(docc.resolved(link, "A", ["X", "run()"], paths), expected)


class Manual(unittest.TestCase):
    def test_the_page_has_commands_methods_and_environment(self):
        page = manual.manual(HELP, METHODS, "1.2.3")
        self.assertIn('.TH PEFT 1 "" "swift\\-peft 1.2.3"', page)
        self.assertIn("\\fB\\-o\\fR, \\fB\\-\\-output\\fR \\fIfolder\\fR\nOutput folder. (default: out)", page)
        self.assertIn("\\fB\\-\\-rank\\fR\nLoRA rank r (default: 8)", page)
        self.assertIn(".nf\n.RS 4\npeft compare \\-\\-methods a\n.RE\n.fi\nDone.", page)
        self.assertIn("PEFT_MODELS", page)

    def test_text_is_no_request(self):
        self.assertEqual(manual.escaped(".x\\y\n'a-b"), "\\&.x\\ey\n\\&'a\\-b")


class Install(unittest.TestCase):
    def test_install_and_uninstall(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            program = folder / "build/peft"
            program.parent.mkdir()
            (folder / "help").write_text(json.dumps(HELP))
            (folder / "methods").write_text(json.dumps(METHODS))
            program.write_text(
                f"#!/bin/sh\ncase $1 in --experimental-dump-help) cat {folder}/help;; methods) cat {folder}/methods;;\n"
                "--version) echo 1.2.3;; *) echo $2;; esac\n")
            program.chmod(0o755)
            library = folder / "libx.so"
            library.write_text("library")
            root = folder / "root/usr"
            (root / "bin").mkdir(parents=True)
            (root / "bin/other").write_text("")
            with unittest.mock.patch.object(install, "needed_libraries", lambda program: [library]):
                installed = install.install(program, root)
                install.install(program, root)
            self.assertEqual((root / "bin/peft").resolve(), (root / "lib/swift-peft/peft").resolve())
            self.assertTrue((root / "lib/swift-peft/peft").stat().st_mode & stat.S_IXUSR)
            self.assertFalse((root / "share/bash-completion/completions/peft").stat().st_mode & stat.S_IXUSR)
            self.assertEqual((root / "share/fish/vendor_completions.d/peft.fish").read_text(), "fish\n")
            self.assertIn(b"low rank", gzip.decompress((root / "share/man/man1/peft.1.gz").read_bytes()))
            self.assertTrue((root / "lib/swift-peft/Models/tiny-t5/config.json").exists())
            if os.uname().sysname == "Linux":
                self.assertEqual((root / "lib/swift-peft/libx.so").read_text(), "library")
            self.assertGreater(len(installed), 8)
            install.uninstall(root)
            self.assertEqual([str(path.relative_to(root)) for path in root.rglob("*")], ["bin", "bin/other"])


if __name__ == "__main__":
    unittest.main()
