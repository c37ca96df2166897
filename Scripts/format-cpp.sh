#!/usr/bin/env bash
# Formats the C++ sources in place, or with --check reports those that aren't formatted. Versions of clang-format format
# differently, so only one is used: from PATH, or from a Python package (pip install clang-format==21.1.8).
set -euo pipefail
cd "$(dirname "$0")/.."

version=21.1.8
for tool in "${CLANG_FORMAT:-}" clang-format clang-format-${version%%.*}; do
    if [[ -n $tool ]] && command -v "$tool" >/dev/null && [[ $("$tool" --version) == *"version $version"* ]]; then
        files=$(find Sources/CKernels Sources/CTorch -name '*.[ch]pp' -o -name '*.h')
        if [[ ${1:-} == --check ]]; then
            # shellcheck disable=SC2086
            exec "$tool" --dry-run --Werror $files
        fi
        # shellcheck disable=SC2086
        exec "$tool" -i $files
    fi
done
echo "skipped: the C++ sources need clang-format $version (pip install clang-format==$version)"
