"""A PostgreSQL and a Redis of the suite's own, which may be killed, frozen and left without a disk."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import psycopg

POSTGRES = Path("/usr/lib/postgresql")
START_S = 30.0
POLL_S = 0.02


class Service:
    """One that listens on a port that stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        raise NotImplementedError

    def pids(self) -> list[int]:
        raise NotImplementedError

    def signal(self, signum: signal.Signals) -> None:
        """Tell every process of it."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)


class OwnRedis(Service):
    def start(self) -> None:
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL, cwd=self.folder,
        )  # fmt: skip
        until_it_listens(self.port)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pids(self) -> list[int]:
        return [self.process.pid]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


class OwnPostgres(Service):
    """Runs as the user `postgres` where we are root, whom PostgreSQL refuses."""

    def __init__(self, folder: Path, name: str = "postgres") -> None:
        super().__init__(folder)
        self.data = folder / name
        self.data.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            for place in (*reversed(folder.parents), folder):
                if place.stat().st_mode & 0o005 != 0o005:
                    place.chmod(place.stat().st_mode | 0o055)
            for place in (self.data, *self.data.rglob("*")):
                shutil.chown(place, "postgres")
        self.data.chmod(0o700)

    def make(self, *options: str) -> None:
        """Make an empty cluster."""
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "--no-sync", *options)

    def start(self) -> None:
        log = str(self.data / "log")
        self._run("pg_ctl", "-D", str(self.data), "-w", "-o", " ".join(self.options), "-l", log, "start")

    def stop(self) -> None:
        """Have it stop at once, without a shutdown checkpoint."""
        self._run("pg_ctl", "-D", str(self.data), "-m", "immediate", "stop")

    def kill(self) -> None:
        """Kill every process of it; what is in memory only is gone."""
        children = self.pids()
        self.signal(signal.SIGKILL)
        while any(psutil.pid_exists(pid) for pid in children):
            time.sleep(POLL_S)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def restart(self) -> None:
        """Have it stop at once, and start again."""
        self.stop()
        self.start()

    def revive(self) -> None:
        """Wait until it answers; start it where it gave up, as it does when its journal cannot be written."""
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=1) as asked:
                asked.execute("CREATE TABLE IF NOT EXISTS revived (at timestamptz)")  # it can write, too
                return
            if not self.pids():
                (self.data / "postmaster.pid").unlink(missing_ok=True)
                self.start()
            time.sleep(POLL_S)
        raise AssertionError("PostgreSQL does not come back")

    def pids(self) -> list[int]:
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            postmaster = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
            return [postmaster.pid, *(child.pid for child in postmaster.children(recursive=True))]
        return []

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def options(self) -> tuple[str, ...]:
        return ("-p", str(self.port), "-k", str(self.data), "-c", "listen_addresses=127.0.0.1")

    def command(self, program: str, *arguments: str) -> list[str]:
        """Return one of PostgreSQL's programs, as the user it runs as."""
        (place, *_) = sorted(POSTGRES.glob(f"*/bin/{program}"), reverse=True)
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        return [*as_user, str(place), *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        command = self.command(program, *arguments)
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=self.data)


def until_it_listens(port: int) -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(POLL_S)
    raise AssertionError(f"nothing listens on port {port}")
