"""Measuring over ssh: a server of its own on loopback, with keys of its own, ended by the test."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bneck.devices.places import DeviceError, Place, describe, place
from commands import Call

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(
    not (SSHD and shutil.which("ssh") and shutil.which("ssh-keygen")),
    reason="no ssh server here (Debian: openssh-server)",
)


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a device on an ssh server of this machine."""
    folder, port = tmp_path_factory.mktemp("ssh"), free_port()
    for key in ("host", "user"):
        made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run(made, check=True)
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    (folder / "config").write_text(
        f"Host bneck-test\n HostName 127.0.0.1\n User {getpass.getuser()}\n"
        f"Host *\n IdentityFile {folder}/user\n IdentitiesOnly yes\n StrictHostKeyChecking accept-new\n"
        f" UserKnownHostsFile {folder}/known\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # the server wants it
    log = (folder / "log").open("wb")
    process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        wait_for_port(port, process, folder / "log")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BNECK_SSH", f"ssh -F {folder}/config")
            patch.setenv("BNECK_REMOTE_PYTHON", sys.executable)
            yield f"ssh:bneck-test:{port}"
    finally:
        process.terminate()
        process.wait()
        log.close()


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            pytest.skip(f"the ssh server does not start: {log.read_text()[-200:]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("the ssh server does not listen")


@pytest.fixture(scope="module")
def device(server: str) -> Iterator[Place]:
    with place(server) as made:
        yield made


def test_it_is_this_machine_under_another_name(server: str, device: Place) -> None:
    there, here = device.describe(), describe("local")
    assert there.place == server
    assert (there.processor, there.cores) == (here.processor, here.cores)


def test_measure_prints_where_it_measured(server: str, tiny_file: Path, call: Call) -> None:
    answer = call("measure", tiny_file, "--device", server, "--rounds", 3, "--json")
    assert answer.code in (0, 2), answer.err
    if answer.code == 2:
        pytest.skip(answer.err)  # too busy a machine
    (found,) = json.loads(answer.out)
    assert found["device"]["place"] == server
    assert found["runtime"] == "onnxruntime"
    assert found["latency_ms"]["median"] > 0
    assert found["cpu_ms"] > 0


def test_a_wrong_host_is_named(server: str) -> None:
    with pytest.raises(
        DeviceError, match=r"^ssh:nowhere\.invalid cannot be used: it disconnected: ssh"
    ):
        describe("ssh:nowhere.invalid")


def test_a_port_where_nobody_listens(server: str) -> None:
    with pytest.raises(
        DeviceError, match=r"cannot be used: it disconnected: .*[Cc]onnection refused$"
    ):
        describe(f"ssh:bneck-test:{free_port()}")


def test_an_unknown_user_is_refused_without_a_question(server: str) -> None:
    address = server.removeprefix("ssh:")
    with pytest.raises(DeviceError, match=r"cannot be used: it disconnected: .*Permission denied"):
        describe(f"ssh:nobody-here@{address}")


def test_a_remote_without_that_python(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNECK_REMOTE_PYTHON", "python9")
    with pytest.raises(DeviceError, match=r"cannot be used: it disconnected: .*python9"):
        describe(server)


def test_no_ssh_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNECK_SSH", "no-such-ssh")
    with pytest.raises(
        DeviceError, match=r"^the program no-such-ssh cannot be started: .*; install"
    ):
        describe("ssh:somewhere")
