"""The per-user cache shared by all checkouts."""

import os
import sys


def cache_folder():
    """`$XDG_CACHE_HOME/swift-peft`, by default ~/.cache/swift-peft (on macOS ~/Library/Caches/swift-peft)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
    return os.path.join(base, "swift-peft")
