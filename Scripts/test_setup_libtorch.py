"""Tests of setup-libtorch.py with a fake pip and small synthetic wheels: fast and offline."""

import base64
import contextlib
import hashlib
import importlib.util
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile

import _ctypes  # any library that loads will do as libtorch_cpu

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "setup-libtorch.py")
END = "dylib" if sys.platform == "darwin" else "so"
CPU = f"torch/lib/libtorch_cpu.{END}"
ON_X86_LINUX = sys.platform == "linux" and os.uname().machine == "x86_64"

# Stands for `pip download`: copies NAME-VERSION-*.whl from $FAKE_INDEX and writes its arguments to pip.log there.
FAKE_PIP = """
import glob, os, shutil, sys, time
index, arguments = os.environ["FAKE_INDEX"], sys.argv[1:]
if arguments == ["download", "--help"]:
    sys.exit()
with open(index + "/pip.log", "a") as log:
    log.write(" ".join(arguments) + "\\n")
    log.flush()
if os.path.exists(index + "/slow"):
    time.sleep(1)
if os.path.exists(index + "/failure"):
    output = open(index + "/failure").read()
    if "once" in output:
        os.remove(index + "/failure")
    sys.exit(output)
destination = arguments[arguments.index("--dest") + 1]
for requirement in (argument for argument in arguments if "==" in argument):
    found = glob.glob(glob.escape(index + "/" + requirement.replace("==", "-")) + "-*.whl")
    if not found:
        sys.exit("ERROR: No matching distribution found for " + requirement)
    shutil.copy(found[0], destination)
"""


def make_wheel(path, files, damage=None):
    """A wheel with `files` and a RECORD of them; the checksum of `damage` is wrong in it."""
    info = os.path.basename(path).rsplit("-", 3)[0].partition("[")[0] + ".dist-info"
    record = ""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            name = name.replace("INFO", info)
            archive.writestr(name, content)
            seen = content + b"x" if name == damage else content
            digest = base64.urlsafe_b64encode(hashlib.sha256(seen).digest()).decode().rstrip("=")
            record += f"{name},sha256={digest},{len(content)}\n"
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")


def torch_files(cuda=False):
    with open(_ctypes.__file__, "rb") as file:
        library = file.read() + (b"\0libcudart.so.13\0" if cuda else b"")
    header = b'#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION \\\n  "2.99.0"\n'
    return {
        "torch/include/ATen/ATen.h": b"// ATen\n",
        "torch/include/torch/headeronly/version.h": header,
        CPU: library,
        f"torch/lib/libc10.{END}": b"c10",
        "torch/lib/libgomp.so.1": b"gomp",
        f"torch/lib/libtorch_python.{END}": b"not needed",
        f"torch/lib/libtorch_cuda.{END}": b"not needed",
        "torch/__init__.py": b"not needed",
        "INFO/licenses/LICENSE": b"license",
        "INFO/METADATA": (
            b"Requires-Dist: sympy>=1.13\n"
            b'Requires-Dist: cuda-toolkit[cublas,cudart,cupti]==13.2.2; platform_system == "Linux"\n'
            b"Requires-Dist: nvidia-cudnn-cu13==9.2\n"
            if cuda
            else b"Requires-Dist: sympy>=1.13\n"
        ),
    }


class SetUpTests(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = os.path.realpath(temporary.name)
        self.index = self.folder("index")
        self.cache = os.path.join(self.root, "cache/swift-peft")
        self.link = os.path.join(self.root, "checkout/.libtorch")
        for script in (SCRIPT, os.path.join(os.path.dirname(SCRIPT), "caches.py")):
            shutil.copy(script, self.folder("checkout/Scripts"))
        self.write("modules/pip/__init__.py", "")
        self.write("modules/pip/__main__.py", FAKE_PIP)
        for tool in ("swift", "clang++"):
            os.chmod(self.write(f"bin/{tool}", "#!/bin/sh\n"), 0o755)
        self.environment = {
            "PATH": os.path.join(self.root, "bin"),
            "PYTHONPATH": os.path.join(self.root, "modules"),
            "XDG_CACHE_HOME": os.path.join(self.root, "cache"),
            "FAKE_INDEX": self.index,
            "PEFT_TORCH_VERSION": "2.99.0",
        }

    def folder(self, name):
        path = os.path.join(self.root, name)
        os.makedirs(path, exist_ok=True)
        return path

    def write(self, name, text):
        path = os.path.join(self.folder(os.path.dirname(name)), os.path.basename(name))
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def offer(self, version="2.99.0", cuda=False, damage=None):
        path = os.path.join(self.index, f"torch-{version}-cp311-cp311-any.whl")
        make_wheel(path, torch_files(cuda), damage)
        return path

    def start(self, *arguments, **environment):
        return subprocess.Popen(
            [sys.executable, os.path.join(self.root, "checkout/Scripts/setup-libtorch.py"), *arguments],
            env={**self.environment, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )

    def run_script(self, *arguments, **environment):
        process = self.start(*arguments, **environment)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors

    def succeed(self, *arguments, **environment):
        status, output, errors = self.run_script(*arguments, **environment)
        self.assertEqual((status, errors), (0, ""), output)
        return output

    def fail_with(self, text, *arguments, **environment):
        status, _, errors = self.run_script(*arguments, **environment)
        self.assertEqual(status, 1)
        self.assertEqual(len(errors.splitlines()), 1, errors)
        self.assertIn(text, errors)

    def downloads(self):
        try:
            with open(os.path.join(self.index, "pip.log"), encoding="utf-8") as log:
                return log.read().splitlines()
        except FileNotFoundError:
            return []

    def linked(self, name=""):
        return os.path.join(os.path.realpath(self.link), name)

    # Getting and unpacking

    def test_unpacks_what_is_needed_and_links_it(self):
        self.offer()
        self.assertIn("linked .libtorch", self.succeed())
        self.assertEqual(sorted(os.listdir(self.linked())), ["include", "lib"])
        self.assertEqual(
            sorted(os.listdir(self.linked("lib"))), ["libc10." + END, "libgomp.so.1", "libtorch_cpu." + END]
        )
        self.assertTrue(os.path.exists(self.linked("../torch-2.99.0.dist-info/licenses/LICENSE")))
        self.assertEqual(sorted(os.listdir(self.cache))[0], "lock")
        self.assertEqual(len(os.listdir(self.cache)), 2, "no wheel and no temporary folder stays")

    def test_a_later_run_is_silent_and_needs_no_pip(self):
        self.offer()
        self.succeed()
        before = self.downloads()
        self.assertEqual(self.succeed(), "")
        self.assertEqual(self.downloads(), before)

    def test_check_tells_the_linked_version(self):
        self.fail_with("make setup", "--check")
        self.offer()
        self.succeed()
        self.assertIn("2.99.0 in ", self.succeed("--check"))

    @unittest.skipUnless(ON_X86_LINUX, "there is only one choice on this machine")
    def test_prefers_the_cpu_build(self):
        self.offer("2.13.0+cpu")
        self.offer("2.15.0")
        self.succeed(PEFT_TORCH_VERSION="")
        self.assertIn("torch-2.13.0-cpu-", self.linked())

    @unittest.skipUnless(sys.platform == "linux", "only Linux has CUDA")
    def test_falls_back_to_the_full_build_with_two_cuda_libraries(self):
        self.offer("2.15.0", cuda=True)
        make_wheel(
            os.path.join(self.index, "cuda-toolkit[cudart,cupti]-13.2.2-py3-none-any.whl"),
            {"nvidia/cu13/lib/libcudart.so.13": b"cudart", "nvidia/cu13/lib/libcupti.so.13": b"cupti",
             "nvidia/cu13/lib/libnvperf_host.so": b"not needed"},
        )
        self.succeed(PEFT_TORCH_VERSION="")
        self.assertIn("torch-2.15.0-", self.linked())
        self.assertEqual(
            sorted(os.listdir(self.linked("../nvidia/cu13/lib"))), ["libcudart.so.13", "libcupti.so.13"]
        )
        self.assertEqual(self.succeed(PEFT_TORCH_VERSION=""), "")

    def test_asks_for_a_wheel_of_another_python(self):
        with contextlib.suppress(AssertionError):
            self.succeed()
        asked = [line.partition("--python-version ")[2] for line in self.downloads()]
        versions = [line.split()[0] for line in asked if line]
        self.assertIn("3.12", versions + ["{}.{}".format(*sys.version_info)])
        self.assertEqual(len(set(versions)), len(versions))

    def test_refuses_a_wheel_that_differs_from_its_checksums(self):
        self.offer(damage="torch/include/ATen/ATen.h")
        self.fail_with("torch/include/ATen/ATen.h differs from its checksum")
        self.assertFalse(os.path.lexists(self.link))
        self.assertEqual(os.listdir(os.path.join(self.cache, "wheels")), [])
        self.offer()
        self.succeed()

    def test_refuses_a_library_that_does_not_load(self):
        make_wheel(self.offer(), {**torch_files(), CPU: b"no library"})
        self.fail_with("does not load")

    def wait_for_download(self, process):
        deadline = time.monotonic() + 60
        while not self.downloads():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                self.fail(f"no download began: {process.communicate()}")
            time.sleep(0.02)

    # Interruptions

    def test_goes_on_with_a_finished_download(self):
        wheels = self.folder("cache/swift-peft/wheels")
        shutil.move(self.offer(), wheels)
        self.assertIn("resuming with the finished download", self.succeed())
        self.assertEqual(self.downloads(), [])
        self.assertFalse(os.path.exists(wheels))

    def test_replaces_a_damaged_earlier_download(self):
        name = os.path.basename(self.offer())
        make_wheel(os.path.join(self.folder("cache/swift-peft/wheels"), name), torch_files(), damage=CPU)
        self.assertIn("earlier download", self.succeed())
        os.truncate(self.linked(f"lib/libc10.{END}"), 1)
        self.write(f"cache/swift-peft/wheels/{name}", "cut off")
        self.succeed()

    def test_a_killed_run_leaves_nothing_in_the_way(self):
        self.offer()
        self.write("index/slow", "")
        process = self.start()
        self.wait_for_download(process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        os.remove(os.path.join(self.index, "slow"))
        self.succeed()
        self.assertEqual([name for name in os.listdir(self.cache) if name.startswith("work")], [])

    def test_a_terminated_run_says_so(self):
        self.offer()
        self.write("index/slow", "")
        process = self.start()
        self.wait_for_download(process)
        process.terminate()
        self.assertIn("interrupted", process.communicate()[1])
        self.assertEqual(process.returncode, 130)

    def test_two_at_once_download_once(self):
        self.offer()
        self.write("index/slow", "")
        first, second = self.start(), self.start()
        outputs = first.communicate(timeout=60), second.communicate(timeout=60)
        self.assertEqual((first.returncode, second.returncode), (0, 0), outputs)
        self.assertEqual(len(self.downloads()), 1)
        self.assertEqual(sum("waiting" in output for output, _ in outputs), 1)

    def test_tries_again_when_a_download_breaks_off(self):
        self.offer()
        self.write("index/failure", "ERROR: once: Connection broken: IncompleteRead")
        self.assertIn("was interrupted, retrying", self.succeed())

    # A damaged cache

    def test_repairs_damaged_and_missing_libraries(self):
        self.offer()
        self.succeed()
        library = self.linked(f"lib/libc10.{END}")
        for damage in (lambda: os.truncate(library, 1), lambda: os.remove(library), lambda: self.overwrite(library)):
            damage()
            self.assertIn("is damaged", self.succeed())
            with open(library, "rb") as file:
                self.assertEqual(file.read(), b"c10")

    def overwrite(self, path):
        with open(path, "r+b") as file:
            file.write(b"C")

    def test_keeps_a_library_whose_time_alone_changed(self):
        self.offer()
        self.succeed()
        before = self.downloads()
        os.utime(self.linked(f"lib/libc10.{END}"), (1, 1))
        self.assertEqual(self.succeed(), "")
        self.assertEqual(self.downloads(), before)

    def test_verify_repairs_a_header(self):
        self.offer()
        self.succeed()
        self.assertIn("all checksums match", self.succeed("--verify"))
        self.overwrite(self.linked("include/ATen/ATen.h"))
        self.assertIn("ATen.h is damaged", self.succeed("--verify"))
        self.assertIn("all checksums match", self.succeed("--verify"))

    # PEFT_LIBTORCH

    def test_links_a_named_pytorch_and_keeps_it(self):
        for name in ("include/ATen/ATen.h", "lib/libtorch_cpu.so"):
            self.write(f"venv/lib/python3.12/site-packages/torch/{name}", "")
        torch = os.path.join(self.root, "venv/lib/python3.12/site-packages/torch")
        for named in (torch, os.path.dirname(torch), os.path.join(self.root, "venv"), self.link):
            self.succeed(PEFT_LIBTORCH=named, PEFT_TORCH_VERSION="")
            self.assertEqual(os.readlink(self.link), torch)
        self.assertIn("keeping", self.succeed(PEFT_TORCH_VERSION=""))
        self.assertEqual(self.downloads(), [])

    def test_refuses_a_named_folder_without_pytorch(self):
        self.fail_with("is not a PyTorch", PEFT_LIBTORCH=self.root)

    # What is missing

    def test_says_what_is_missing(self):
        self.offer()
        os.chmod(self.write("swift-alone/swift", "#!/bin/sh\n"), 0o755)
        self.fail_with("no C++ compiler", PATH=os.path.join(self.root, "swift-alone"))
        self.fail_with("swift is not on the PATH", PATH=self.root)
        self.write("bin/clang++", "#!/bin/sh\nexit 1\n")
        self.fail_with("the C++ standard library headers are missing")

    def test_refuses_to_replace_a_real_folder(self):
        self.folder("checkout/.libtorch")
        self.fail_with("exists and is not a symbolic link")

    def test_an_unreachable_index_is_one_line(self):
        self.write("index/failure", "WARNING: Retrying (Retry(total=0))\nERROR: No matching distribution found")
        self.fail_with("cannot reach its package index")

    def test_a_version_nobody_offers_is_one_line(self):
        self.fail_with("pip found no torch 2.99.0")

    def test_a_full_disk_is_one_line(self):
        self.write("index/failure", "ERROR: Could not install: [Errno 28] No space left on device")
        self.fail_with("choose another folder with XDG_CACHE_HOME")

    def test_unknown_arguments_are_refused(self):
        self.fail_with("unknown arguments", "--bogus")


class FunctionTests(unittest.TestCase):
    def setUp(self):
        spec = importlib.util.spec_from_file_location("setup_libtorch", SCRIPT)
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)

    def test_too_little_room(self):
        with tempfile.TemporaryDirectory() as folder:
            self.module.cache_folder = lambda: folder
            self.module.check_room(1)
            with self.assertRaisesRegex(self.module.Failure, "needs 1000000000 MB of free disk space"):
                self.module.check_room(1_000_000_000)

    def test_cuda_requirements_of_older_wheels(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "torch-2.8.0-cp312-cp312-any.whl")
            lines = b"Requires-Dist: nvidia-cuda-nvrtc-cu12==12.8.93 ; x\n"
            lines += b"Requires-Dist: nvidia-cuda-runtime-cu12==12.8.90 ; platform_system == 'Linux'\n"
            lines += b"Requires-Dist: nvidia-cuda-cupti-cu12 (==12.8.90)\n"
            make_wheel(path, {"INFO/METADATA": lines})
            self.assertEqual(
                self.module.cuda_requirements(path),
                ["nvidia-cuda-runtime-cu12==12.8.90", "nvidia-cuda-cupti-cu12==12.8.90"],
            )

    def test_other_machines_are_told_the_way_out(self):
        class Uname:
            sysname, machine = "FreeBSD", "riscv64"

        original, self.module.os.uname = self.module.os.uname, Uname
        try:
            with self.assertRaisesRegex(self.module.Failure, "PEFT_LIBTORCH"):
                self.module.wanted_versions()
        finally:
            self.module.os.uname = original

    def test_help(self):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            self.module.main(["--help"])
        self.assertIn("PEFT_LIBTORCH", output.getvalue())


if __name__ == "__main__":
    unittest.main()
