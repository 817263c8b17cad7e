"""The server as shipped: it listens on the loopback alone and answers no foreign name."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REFUSED = {400, 403}
START_LIMIT = 90.0  # seconds, on a machine that may be busy


@pytest.fixture(scope="module")
def port(tmp_path_factory) -> Iterator[int]:
    """The port of a server started as `make app` does: hardened by .streamlit/config.toml alone."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        number = listener.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app/server.py"]
    command += ["--server.port", str(number), "--server.headless", "true"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TAUSCOPE_CACHE": str(tmp_path_factory.mktemp("cache"))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until_healthy(process, number)
        yield number
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def wait_until_healthy(process: subprocess.Popen, port: int) -> None:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and process.poll() is None:
        try:
            if ask(port, "/_stcore/health", f"127.0.0.1:{port}").status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server did not become healthy")


def ask(port: int, path: str, host: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": host, **headers})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def open_socket(port: int, host: str, **headers: str) -> int:
    """Ask for the web socket through which everything of the app goes; return the status."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    return ask(port, "/_stcore/stream", host, **upgrade, **headers).status


@pytest.mark.parametrize("name", ["evil.example", "localhost.evil.example", "10.0.0.1", "[::1]"])
def test_a_foreign_host_is_refused(port, name):
    """DNS rebinding: a page elsewhere lets its own name point to this machine."""
    assert open_socket(port, name) in REFUSED
    assert open_socket(port, f"{name}:{port}") in REFUSED
    assert open_socket(port, f"{name}:{port}", Origin=f"http://{name}:{port}") in REFUSED
    for path in ("/", "/_stcore/health", "/component/tauscope_alpha/index.js"):
        assert ask(port, path, f"{name}:{port}").status in REFUSED


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_this_machine_is_answered(port, name):
    assert ask(port, "/", f"{name}:{port}").status == 200
    assert open_socket(port, f"{name}:{port}", Origin=f"http://{name}:{port}") == 101


def test_a_page_of_another_origin_is_refused(port):
    """Open in the same browser, it may not drive the app."""
    assert open_socket(port, f"127.0.0.1:{port}", Origin="http://evil.example") == 403


def test_files_wait_behind_the_socket(port):
    """Without it nobody holds a session, and so no address of a file, and may send none."""
    foreign = "evil.example"
    assert ask(port, "/media/" + "0" * 64 + ".bin", foreign).status in REFUSED
    assert ask(port, "/media/" + "0" * 64 + ".bin", f"127.0.0.1:{port}").status == 404
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("PUT", "/_stcore/upload_file/session/file", b"x", {"Host": foreign})
    assert connection.getresponse().status in {400, 403}
    connection.close()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of sockets")
def test_it_listens_on_the_loopback_alone(port):
    listening = set()
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net") / table
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            local, state = line.split()[1], line.split()[3]
            address, number = local.split(":")
            if int(number, 16) == port and state == "0A":
                listening.add(address)
    assert listening == {"0100007F"}


def test_the_settings_are_those_of_a_hardened_server():
    settings = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    server = settings["server"]
    assert server["address"] == "127.0.0.1"
    assert set(server["allowedHosts"]) == {"localhost", "127.0.0.1"}
    assert server["enableCORS"] is True
    assert server["enableXsrfProtection"] is True
    assert server["maxUploadSize"] <= 50
    assert settings["browser"]["gatherUsageStats"] is False


def test_every_setting_is_one_that_streamlit_knows():
    from streamlit import config

    known = config.get_config_options()
    settings = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())

    def names(table: dict, prefix: str = "") -> Iterator[str]:
        for key, value in table.items():
            if isinstance(value, dict):
                yield from names(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}"

    assert [name for name in names(settings) if name not in known] == []


def test_no_page_asks_another_machine(port):
    """What the first answer loads lies on this server: no font, script or icon of others."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/", headers={"Host": f"127.0.0.1:{port}"})
    page = connection.getresponse().read().decode()
    connection.close()
    loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:)?//', page)
    assert loaded == []
