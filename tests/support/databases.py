"""Real database servers from Debian's packages, each started once for a test session in a folder of its own."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

_POSTGRES = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]


class Server:
    """A running server that makes databases.

    Args:
        url: Of its administrator, without a database.
        process: Ended when the session ends.
    """

    def __init__(self, url: sa.URL, process: "subprocess.Popen[bytes]") -> None:
        self.url = url
        self.process = process

    def make_database(self) -> str:
        """Makes an empty database; gives its URL."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.url.set(database=name).render_as_string(hide_password=False)


def _user() -> str | None:
    """Gives whom to run a server as: neither of them will run as root."""
    if os.getuid():
        return None
    for name in ("postgres", "mysql", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise RuntimeError("there is no user to run a database server as")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _wait(server: Server, log: Path) -> Server:
    deadline = time.monotonic() + 60
    while True:
        engine = sa.create_engine(server.url)
        try:
            with engine.connect():
                return server
        except sa.exc.DBAPIError:
            assert server.process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)
        finally:
            engine.dispose()


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="database-"))  # not pytest's: its folders are closed to other users
    user = _user()
    if user:
        shutil.chown(folder, user)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgresql() -> Iterator[Server]:
    """Runs PostgreSQL on a free port of loopback."""
    with _folder() as folder:
        user, log, port = _user(), folder / "log", _free_port()
        data = str(folder / "data")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "user": user, "cwd": folder}
        subprocess.run([_POSTGRES[0] / "initdb", "-D", data, "-A", "trust", "-U", "test", "-N"], check=True, **quiet)  # type: ignore[call-overload]
        command = [str(_POSTGRES[0] / "postgres"), "-D", data, "-p", str(port), "-k", str(folder), "-h", "127.0.0.1"]
        with log.open("wb") as output:
            process = subprocess.Popen([*command, "-F"], stdout=output, stderr=output, user=user, cwd=folder)
        url = sa.URL.create("postgresql+psycopg", "test", host="127.0.0.1", port=port, database="postgres")
        try:
            yield _wait(Server(url, process), log)
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown: SIGTERM would wait for every client to leave
            process.wait()


@contextmanager
def mariadb() -> Iterator[Server]:
    """Runs MariaDB on a free port of loopback."""
    with _folder() as folder:
        user, log, port = _user(), folder / "log", _free_port()
        data = str(folder / "data")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "user": user, "cwd": folder}
        made = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"]
        subprocess.run([*made, "--skip-test-db"], check=True, **quiet)  # type: ignore[call-overload]
        command = [str(_mariadbd()), "--no-defaults", f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1"]
        command += [f"--socket={folder}/socket", f"--pid-file={folder}/pid", "--innodb-flush-log-at-trx-commit=2"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, user=user, cwd=folder)
        query = {"unix_socket": f"{folder}/socket", "charset": "utf8mb4"}
        url = sa.URL.create("mysql+pymysql", "root", host="127.0.0.1", port=port, query=query)
        try:
            yield _wait(Server(url, process), log)
        finally:
            process.terminate()
            process.wait()


def has_postgresql() -> bool:
    """Tells whether Debian's package of PostgreSQL is installed."""
    return bool(_POSTGRES)


def _mariadbd() -> Path | None:
    found = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
    return Path(found) if found else None


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    if not has_postgresql():
        pytest.skip("PostgreSQL's server is not installed (package postgresql)")
    with postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Server]:
    if _mariadbd() is None:
        pytest.skip("MariaDB's server is not installed (package mariadb-server)")
    with mariadb() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    server: Server = request.getfixturevalue(f"{request.param}_server")
    return server.make_database()


__all__ = ["Server", "database_url", "mariadb_server", "postgresql_server"]
