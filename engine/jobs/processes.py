"""Which process is meant: a pid alone is given out again, so its start and the boot count too."""

import contextlib
import functools
import os
import platform
import signal
import subprocess
from pathlib import Path


def identity(pid: int | None = None) -> dict:
    """Describe a process of this machine so that it is never taken for another.

    Args:
        pid: Its number; that of this process by default.

    Returns:
        ``{"pid", "started", "boot", "host"}``; started is in the system's own unit.
    """
    pid = os.getpid() if pid is None else pid
    return {"pid": pid, "started": _started(pid), "boot": _boot(), "host": platform.node()}


def is_here(who: dict) -> bool:
    """Return whether a process described by ``identity`` belongs to this machine."""
    return who.get("host") == platform.node()


def is_alive(who: dict) -> bool:
    """Return whether the very process described still runs on this machine.

    Args:
        who: From ``identity``.

    Returns:
        False for one that ended and was not yet collected, and for another with its number.
    """
    started = _started(int(who["pid"]))
    return started is not None and started == who["started"] and who["boot"] == _boot()


def kill(who: dict) -> None:
    """Kill a process and all of its session, if it is still the very one.

    Args:
        who: From ``identity``.
    """
    if is_here(who) and is_alive(who):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(who["pid"], signal.SIGKILL)


def step_back(nice: int) -> None:
    """Leave the CPU to other processes that want it, in other sessions too.

    Linux groups processes by session (autogroups) before it looks at their niceness, so that of a
    detached process counts against its own session alone; its group has a niceness as well.

    Args:
        nice: Added to this process's niceness; its group takes what it then is.
    """
    now = os.nice(nice)
    group = Path("/proc/self/autogroup")
    if os.getsid(0) == os.getpid() and group.exists():
        with contextlib.suppress(OSError):  # the system may not let it
            group.write_text(str(now))


def _started(pid: int) -> float | None:
    """Return when a process was started; None if it is gone or a zombie."""
    if pid <= 0:
        return None
    if Path("/proc/self/stat").exists():
        return _started_by_proc(pid)
    said = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    if len(said) < 2 or said[0].startswith("Z"):
        return None
    # a date without its zone: a number of it is compared with itself alone
    return float(int.from_bytes(said[1].strip().encode()[-24:]) % 2**52)


def _started_by_proc(pid: int) -> float | None:
    """Return the clock ticks from boot to start, field 22 of /proc/PID/stat."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # the name in brackets may hold spaces and brackets itself: the last one ends it
    fields = text.rpartition(")")[2].split()
    return None if len(fields) < 20 or fields[0] in "ZX" else float(fields[19])


@functools.cache
def _boot() -> str:
    """Name this run of the machine, so that ticks since boot are not compared across boots."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
