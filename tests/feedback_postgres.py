"""A PostgreSQL server for tests: the one of TEST_POSTGRES_URL, or a throw-away one from programs of this
machine."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MISSING = "needs TEST_POSTGRES_URL or the programs initdb and postgres"
OPTIONS = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off"]


def _program(name: str) -> str | None:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(installed[-1]) if installed else None)


@contextmanager
def postgres_server() -> Iterator[str]:
    """Give the URL of a server, empty if there is none; one that was started here is stopped in the end."""
    initdb, postgres = _program("initdb"), _program("postgres")
    if given := os.environ.get("TEST_POSTGRES_URL", ""):
        yield given
    elif initdb is None or postgres is None:
        yield ""
    else:
        folder = Path(tempfile.mkdtemp(prefix="pg"))
        user = _other_user() if os.geteuid() == 0 else None
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        who = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        data = str(folder / "data")
        create = [initdb, "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(create, check=True, capture_output=True, cwd=folder, **who)
        server = subprocess.Popen(
            [postgres, "-D", data, "-k", str(folder), *OPTIONS], stderr=subprocess.DEVNULL, cwd=folder, **who
        )
        try:
            url = f"postgresql://tester@/postgres?host={folder}"
            _wait(url, server)
            yield url
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
            shutil.rmtree(folder)


def _other_user() -> pwd.struct_passwd:
    """Return a user that a server may run as, which root may not."""
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    psycopg = __import__("psycopg")
    until_s = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > until_s:
                raise
            time.sleep(0.05)
        else:
            return


@contextmanager
def fresh_schema(url: str) -> Iterator[str]:
    """Give the URL of an empty schema, which is dropped in the end."""
    psycopg = __import__("psycopg")
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    try:
        yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {name} CASCADE")
