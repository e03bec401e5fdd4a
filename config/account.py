"""A home and a name for who has none: a container's user without an entry in /etc/passwd."""

from __future__ import annotations

import contextlib
import getpass
import os
import tempfile
from pathlib import Path


def stand_in_for_home() -> None:
    """Set HOME and USER where there are none; torch, matplotlib, WandB and our caches ask for them.

    A home that cannot be written is none, unless it holds keys.
    """
    own = f"streamrvt_{os.getuid()}"
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = own
    if not _has_home():
        os.environ["HOME"] = str(_folder_of_ours(Path(tempfile.gettempdir()) / own))


def _has_home() -> bool:
    try:
        home = Path.home()
    except RuntimeError:
        return False
    return os.access(home, os.W_OK | os.X_OK) or (home / ".netrc").exists()


def _folder_of_ours(path: Path) -> Path:
    """The folder, made where it is missing; another one where somebody else holds its name."""
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o700, exist_ok=True)
        if not path.is_symlink() and path.stat().st_uid == os.getuid():
            return path
    return Path(tempfile.mkdtemp(prefix=f"{path.name}_"))
