#!/usr/bin/env bash
# Install the package of Scripts/make_deb.py in a fresh Debian and use it there: version, methods, an evaluation of the embedded model, a
# training run, the manual page, removal. Needs root and debootstrap.
#
# Usage: Scripts/check_deb.sh PACKAGE.deb [RELEASE [MIRROR]]
set -euo pipefail
package=${1:?usage: Scripts/check_deb.sh PACKAGE.deb [RELEASE [MIRROR]]}
release=${2:-bookworm}
mirror=${3:-}  # debootstrap has a default
root=$(mktemp -d)
trap 'umount "$root/proc" 2>/dev/null || true; rm -rf "$root"' EXIT

debootstrap --variant=minbase --include=man-db,bash-completion "$release" "$root" ${mirror:+"$mirror"} > "$root.log" 2>&1 ||
    { tail -5 "$root.log" >&2; echo "debootstrap failed: is a mirror of Debian reachable?" >&2; exit 1; }
rm -f "$root.log"
mount -t proc proc "$root/proc"
cp "$package" "$root/peft.deb"
head -n 16 "$(dirname "$0")/../Examples/dialogues/train.jsonl" > "$root/train.jsonl"

inside() { chroot "$root" env LC_ALL=C.UTF-8 OMP_NUM_THREADS=2 "$@"; }
inside apt-get install --yes --no-install-recommends /peft.deb
inside peft --version
inside peft methods lora
inside peft train --data /train.jsonl --prompt 'Key facts: {dialogue}' --target '{facts}' --steps 2 --batch-size 2 --output /adapter
inside peft generate --adapter /adapter --max-new-tokens 8 'Key facts: Lunch on Monday?'
inside man --warnings -P cat peft | head -n 20
inside bash -c '. /usr/share/bash-completion/bash_completion && . /usr/share/bash-completion/completions/peft && complete -p peft'
inside apt-get remove --yes swift-peft
if inside test -e /usr/lib/swift-peft; then echo "error: removal left files" >&2; exit 1; fi
echo "ok: $(basename "$package") works in $release"
