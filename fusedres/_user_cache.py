"""The folder in which fusedres may keep files between runs, by the custom of each system."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/fusedres`` where that is set, else the system's own place; it need not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME")
    if home:
        base = Path(home)
    elif sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        base = Path(local) if local else Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    return base / "fusedres"
