#!/usr/bin/env bash
# Checks that take too long for every change: the release build without warnings, the demo, the benchmarks' programs, the
# instruction counts, the kernels under sanitizers, the HTTP server, a program of another package, random configurations of all
# families, every method on every family, fault injection.
set -euo pipefail
cd "$(dirname "$0")/.."

make build SWIFT_FLAGS='-Xswiftc -warnings-as-errors -Xcxx -Wall -Xcxx -Wextra -Xcxx -Werror'
make demo
make test-server SWIFT_FLAGS='-Xswiftc -warnings-as-errors'
python3 Scripts/check_records.py
# The documentation's commands, formulas and tutorials; the reference; the Debian package.
python3 Scripts/check_docs.py --program .build/release/peft
python3 Scripts/docc.py
if command -v dpkg-deb > /dev/null; then python3 Scripts/make_deb.py --program .build/release/peft; fi
if command -v debootstrap > /dev/null && [[ $(id -u) == 0 ]]; then
    Scripts/check_deb.sh .build/swift-peft_*.deb
else
    echo "debootstrap is not installed, or this is not root: the package was not tried"
fi
PEFT_BENCHMARKS=1 swift build -c release
if command -v valgrind > /dev/null; then make bench-check; else echo "valgrind is not installed: instruction counts not compared"; fi
Scripts/check_dependency.py
Scripts/sanitizers.py kernels
# Where the reference programs are installed.
if python3 -c 'import peft, transformers, torch' 2> /dev/null; then
    swift build --build-tests
    Scripts/random_configs.py
else
    echo "transformers or peft is not installed: random configurations not compared"
fi
PEFT_ALL_LAWS=1 make test
for script in kill_at_random full_disk changing_files closed_descriptors two_writers; do
    Scripts/faults/$script.py
done
