"""A real OpenSSH server of the test's own: loopback, a free port, its own host key, as root for another user."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
USER = "edgekit-test"


class Server:
    """A running server: ``home`` is the login user's, ``ssh`` the command that reaches it with the right keys."""

    def __init__(self, folder: Path, home: Path, user: str, port: int) -> None:
        self.folder, self.home, self.user, self.port = folder, home, user, port
        self.ssh = f"ssh -F {folder / 'ssh_config'}"

    def target(self, path: str = "", port: int | None = None) -> str:
        """Address of a folder on it."""
        return f"ssh://{self.user}@127.0.0.1:{port or self.port}{path}"

    def run(self, command: str) -> str:
        """Run a command there."""
        words = [*self.ssh.split(), "-p", str(self.port), "-l", self.user, "127.0.0.1", command]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@contextmanager
def running_sshd() -> Iterator[Server]:
    """Start a server; it and the user that it was made for are gone afterwards."""
    assert SSHD is not None
    folder = Path(tempfile.mkdtemp(prefix="edgekit-sshd-"))
    folder.chmod(0o755)
    port = free_port()
    with _login(folder) as (user, home):
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        (folder / "authorized_keys").chmod(0o644)
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\n"
            f"SetEnv PATH={home}/bin:/usr/local/bin:/usr/bin:/bin\n"
            "PidFile none\nUsePAM no\nPasswordAuthentication no\nStrictModes no\nMaxStartups 100\nMaxSessions 50\n"
        )
        known = (folder / "host_key.pub").read_text().split()[:2]
        (folder / "known_hosts").write_text(f"[127.0.0.1]:* {' '.join(known)}\n")
        (folder / "ssh_config").write_text(
            f"Host *\nIdentityFile {folder}/user_key\nIdentitiesOnly yes\nStrictHostKeyChecking yes\n"
            f"UserKnownHostsFile {folder}/known_hosts\nGlobalKnownHostsFile /dev/null\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        log = (folder / "log").open("w")
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
        try:
            _await(port)
            yield Server(folder, home, user, port)
        finally:
            process.terminate()
            process.wait(10)
            log.close()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _login(folder: Path) -> Iterator[tuple[str, Path]]:
    """As root another user, made for the test; else this one, with a home of the test's own."""
    home = folder / "home"
    if os.geteuid() != 0:
        home.mkdir()
        yield pwd.getpwuid(os.geteuid()).pw_name, home
        return
    subprocess.run(["userdel", "--force", USER], check=False, capture_output=True)  # of a killed run
    subprocess.run(["useradd", "--create-home", "--home-dir", str(home), "--shell", "/bin/sh", USER], check=True)
    subprocess.run(["usermod", "--password", "*", USER], check=True)  # sshd refuses a locked account
    home.chmod(0o755)
    try:
        yield USER, home
    finally:
        subprocess.run(["userdel", USER], check=False, capture_output=True)


class LossyLink:
    """A TCP relay in front of the server that breaks every connection once, after ``limit`` bytes from the client.

    With ``answers``, bytes from the server count in their place.
    """

    def __init__(self, port: int, limit: int, *, answers: bool = False) -> None:
        self._to, self._limit, self._answers, self.passed, self.broken = port, limit, answers, 0, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._to))
            threading.Thread(target=self._pump, args=(client, server, not self._answers), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, self._answers), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        try:
            while data := source.recv(65536):
                self.passed += len(data) if counts else 0
                if self.passed > self._limit and not self.broken:
                    self.broken = True
                    break
                sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _await(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
