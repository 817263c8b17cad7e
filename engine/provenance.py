"""What made a number: the versions of the packages and the commit of the code."""

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# what changes numbers: the names of the distributions, by the names the records use
PACKAGES = {"torch": "torch", "open_clip": "open_clip_torch", "numpy": "numpy"}


@cache
def versions() -> dict[str, str]:
    """Read the versions of Python and of the packages that compute, without importing them.

    Returns:
        Version by name: python, torch, open_clip, numpy; "absent" for one not installed.
    """
    found = {"python": platform.python_version()}
    for name, distribution in PACKAGES.items():
        try:
            found[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


@cache
def commit(root: Path = ROOT) -> str:
    """Name the commit of the code that runs.

    Args:
        root: The repository.

    Returns:
        The full commit hash, with "-dirty" behind it when tracked files differ from it;
        "unknown" where there is no git or no repository.
    """
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


def provenance() -> dict:
    """Collect what a record says of the code that made it.

    Returns:
        ``{"versions": {...}, "commit": "..."}``, plain JSON values.
    """
    return {"versions": dict(versions()), "commit": commit()}
