"""Tests of setup-openblas.py, without a network: python3 -m unittest discover -s Scripts"""

import base64
import hashlib
import importlib.util
import os
import tempfile
import unittest
import zipfile

FOLDER = os.path.dirname(os.path.abspath(__file__))
SPEC = importlib.util.spec_from_file_location("setup_openblas", os.path.join(FOLDER, "setup-openblas.py"))
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)


def wheel(path, data, checksum=None):
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scipy_openblas32/lib/" + script.LIBRARY, data)
        archive.writestr("scipy_openblas32-1.dist-info/RECORD",
                         f"scipy_openblas32/lib/{script.LIBRARY},sha256={checksum or digest},{len(data)}\n")


class LibraryTests(unittest.TestCase):
    def setUp(self):
        self.work = tempfile.TemporaryDirectory()
        self.addCleanup(self.work.cleanup)

    def test_takes_the_library_out_of_a_wheel(self):
        path = os.path.join(self.work.name, "a.whl")
        wheel(path, b"library")
        self.assertEqual(script.library_of(path), b"library")

    def test_refuses_a_library_that_differs_from_its_checksum(self):
        path = os.path.join(self.work.name, "a.whl")
        wheel(path, b"library", checksum="other")
        with self.assertRaises(zipfile.BadZipFile):
            script.library_of(path)

    def test_the_file_appears_whole_and_alone(self):
        script.install(b"library", self.work.name)
        self.assertEqual(os.listdir(self.work.name), [script.LIBRARY])
        with open(os.path.join(self.work.name, script.LIBRARY), "rb") as file:
            self.assertEqual(file.read(), b"library")


if __name__ == "__main__":
    unittest.main()
