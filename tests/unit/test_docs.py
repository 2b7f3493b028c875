"""Every block of the documentation is run; what it states of the code is compared with it."""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenure.cli import COMMANDS, ExitCode, drivers
from tenure.drivers import registry
from tenure.testing.backends import SqlPostgresqlBackend
from tenure.testing.servers import (
    ConsulServer,
    EtcdGatewayServer,
    EtcdServer,
    MemcachedServer,
    MysqlServer,
    PostgresServer,
    RedisServer,
    Server,
    ZookeeperServer,
)
from tenure.testing.verify.pages import Block, blocks, live

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LIMIT = 120.0
SERVERS: dict[str, Callable[[], Server]] = {
    "redis": RedisServer,
    # Leases are short there, and so is what is waited for after a start.
    "memcached": functools.partial(MemcachedServer, options={"ttl": "2", "ttl_max": "2"}),
    "postgresql": PostgresServer,
    "postgres": PostgresServer,
    "mysql": MysqlServer,
    "sql+postgresql+psycopg": SqlPostgresqlBackend().make_server,
    "etcd": EtcdServer,
    "etcd3+http": EtcdGatewayServer,
    "consul": ConsulServer,
    "zookeeper": ZookeeperServer,
}
_PIP = re.compile(r"(?:python3? -m )?pip install '?tenure\[([a-z,]+)\]'?")
_CRON = re.compile(r"(?:@\w+|(?:[\d*/,-]+\s+){5})\s*(\S.*)")


class Servers:
    """The real servers behind the examples; each is started when it is first named."""

    def __init__(self) -> None:
        self._running: dict[Callable[[], Server], Server] = {}

    def of(self, scheme: str) -> Server:
        """The server for a URL's scheme."""
        kind = SERVERS[scheme]
        if kind not in self._running:
            server = self._running[kind] = kind().start()
            if isinstance(server, PostgresServer):
                server.psql("CREATE ROLE app;")
        return self._running[kind]

    def sql(self, text: str) -> None:
        """Run SQL where the clients of the page will find its tables."""
        server = self.of("postgresql")
        assert isinstance(server, PostgresServer)
        # As the clients' user, who must own the tables. What the driver has made for itself at
        # the first connect is made anew, since the page may tell how to do so beforehand.
        server.psql(f"SET ROLE {server.user};\nDROP SEQUENCE IF EXISTS tenure_token;\n{text}")

    def new_page(self) -> None:
        """Forget what the page before has left in the database."""
        server = self._running.get(PostgresServer)
        if isinstance(server, PostgresServer):
            server.psql("DROP OWNED BY tenure; GRANT ALL ON SCHEMA public TO tenure;")

    def close(self) -> None:
        """Stop them all."""
        for server in self._running.values():
            server.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Have servers on demand."""
    running = Servers()
    yield running
    running.close()


class Page:
    """Runs the blocks of one page in one folder."""

    def __init__(self, folder: Path, servers: Servers) -> None:
        self.folder = folder / "home"
        self.folder.mkdir()
        self.servers = servers
        programs = folder / "venv" / "bin"
        programs.mkdir(parents=True)
        for name, arguments in (("python", ""), ("tenure", "-m tenure ")):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
            program.chmod(0o755)
        source = str(ROOT / "src")
        self.environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")])),
            "PYTHONWARNINGS": "error",
            "HOME": str(self.folder),
            "TENURE_URL": f"file://{self.folder}/locks",
            "TENURE_VENV": str(programs.parent),
        }

    def run(self, block: Block) -> None:
        """Run one block; fail if it fails, or if nobody knows how to run it."""
        text = live(block.text, self._url)
        language = block.language
        if language == "text":
            return
        if language in ("", "sh") and all(_PIP.fullmatch(line) for line in text.splitlines()):
            self._check_extras(text)
        elif language == "sh":
            where = ROOT if text.startswith("scripts/") else self.folder
            self._process(block, ["bash", "-euo", "pipefail", "-c", text], where)
        elif language == "python":
            self._process(block, [sys.executable, "-c", f"import tenure\n{text}"], self.folder)
        elif language == "crontab":
            self._crontab(block, text)
        elif language == "sql":
            self.servers.sql(text)
        elif language == "json":
            json.loads(text)
        elif language == "toml":
            tomllib.loads(text)
        else:
            pytest.fail(f"{block.page}:{block.line}: no way to run {language!r}, see CONTRIBUTING")

    def _url(self, scheme: str) -> str:
        assert scheme in SERVERS, f"no test server stands for {scheme}://….example"
        return self.servers.of(scheme).url

    def _crontab(self, block: Block, text: str) -> None:
        environment: dict[str, str] = {}
        for line in filter(None, map(str.strip, text.splitlines())):
            if entry := _CRON.fullmatch(line):
                self._process(block, ["sh", "-c", entry[1]], self.folder, environment)
            else:
                name, equals, value = line.partition("=")
                assert equals or line.startswith("#"), f"cron does not understand {line!r}"
                environment[name] = value

    def _process(
        self,
        block: Block,
        command: list[str],
        where: Path,
        environment: dict[str, str] | None = None,
    ) -> None:
        done = subprocess.run(
            command,
            cwd=where,
            env=self.environment | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, f"{block.page}:{block.line}:\n{done.stdout}"

    def _check_extras(self, text: str) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for match in _PIP.finditer(text):
            assert set(match[1].split(",")) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page: Path, tmp_path: Path, servers: Servers) -> None:
    """Every block of the page does what a reader would have it do."""
    servers.new_page()
    runner = Page(tmp_path, servers)
    for block in blocks(page):
        runner.run(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file that exists, and a heading in it."""
    for target in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", page.read_text()):
        name, _, heading = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{page}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            assert heading in {
                re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles
            }


def test_fences_are_all_found() -> None:
    """No fence escapes the pattern that finds the blocks."""
    for page in PAGES:
        fences = re.findall(r"^ *```", page.read_text(), re.MULTILINE)
        assert len(fences) == 2 * len(blocks(page)), page


def reference(heading: str) -> str:
    """A section of the command line's reference."""
    text = (ROOT / "docs/reference/cli.md").read_text()
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command is not drivers])
def test_reference_has_every_option(command: Any) -> None:
    """The table of options is complete, and has none that does not exist."""
    commands = argparse.ArgumentParser().add_subparsers()
    command.add_to(commands)
    ((name, parser),) = commands.choices.items()
    real = {name for action in parser._actions for name in action.option_strings}
    real -= {"-h", "--help"}
    rows = [line.split("|")[1] for line in reference(f"tenure {name}").splitlines() if "|" in line]
    assert {name for row in rows for name in re.findall(r"`(--?[a-z][a-z-]*)", row)} == real


def test_reference_has_every_exit_code() -> None:
    """The table of exit codes is complete."""
    rows = [
        line.split("|")[1].strip() for line in reference("Exit codes").splitlines() if "|" in line
    ]
    own = {str(int(code)) for code in ExitCode} - {"0", "128"}
    assert own <= set(rows)
    assert {"128+N", *own} == set(rows) - {"code", "---", "0\u2013255"}


def test_readme_table_of_drivers() -> None:
    """The front page says of each driver what its traits say."""

    def yes(value: bool) -> str:
        return "yes" if value else "no"

    table = (ROOT / "README.md").read_text().partition("## Drivers\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    shown = {row[0]: row for row in rows[2:] if len(row) == 7 and row[1].startswith("`")}
    assert len(shown) == len({entry.target for entry in registry.BUILT_IN.values()})
    for name, row in shown.items():
        entry = registry.BUILT_IN[name]
        traits = registry.load(entry).traits
        assert row[1].startswith((f"`{name}://", f"`{name}+"))
        assert row[2:] == [
            traits.scope,
            yes(traits.shared),
            yes(traits.fair),
            "free at once" if traits.frees_on_death else "after the TTL",
            f"`tenure[{entry.extra}]`" if entry.extra else "built in",
        ]
