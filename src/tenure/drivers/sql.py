"""The "DB lock": coordination over the database that is there, through SQLAlchemy's dialects.

`sql+postgresql+psycopg://user@host/database`, `sql+mariadb+pymysql://…`: what follows `sql+` is
SQLAlchemy's own URL. A lock is a row that is compared and set, its holder's session another
row that expires by the database's clock. Nothing depends on a connection: one that breaks is
made anew, behind any pooler, and a lease lives on as long as it can be renewed in time.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._model import Finding, Server, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import InvalidURL
from ..wires.alchemy import AlchemyMaker
from ._sql_documents import SqlDocuments
from ._sql_text import MARIADB, POSTGRESQL

POOL_SIZE = 1
POOL_SIZE_MAX = 50

_DIALECTS = {"postgresql": POSTGRESQL, "mysql": MARIADB, "mariadb": MARIADB}
_MODULES = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
"""Which module is used where the URL names none."""

_FORM = "the URL is sql+dialect+module://user@host/database, as in sql+postgresql+psycopg://"


class SqlDriver(SqlDocuments):
    """The document rung over two tables on a server."""

    traits = Traits(
        scope="hosts",
        shared=True,
        durable_claims=True,
        push=False,
        poll=0.05,
        min_ttl=1.0,
    )

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        _, _, rest = url.scheme.partition("+")
        name, _, module = rest.partition("+")
        if name == "sqlite":
            raise InvalidURL("sql: for SQLite the URL is sqlite:///path/of/the/file.db")
        if name not in _DIALECTS:
            known = ", ".join(sorted(_DIALECTS))
            raise InvalidURL(f"sql: {_FORM}; dialects: {known}")
        if len(url.hosts) > 1:
            raise InvalidURL("sql: the URL names one host")
        size = int(url.number("pool_size", POOL_SIZE, least=1))
        if size > POOL_SIZE_MAX:
            raise InvalidURL(f"sql: option 'pool_size' must be from 1 to {POOL_SIZE_MAX}")
        options = {key: value for key, value in url.options.items() if key != "pool_size"}
        plain = Url(url.scheme, url.hosts, url.path, options, url.username, url.password)
        dialect = f"{name}+{module or _MODULES[name]}"
        maker = self._maker = AlchemyMaker(name, plain, dialect, self.patience)
        self.connected(maker, _DIALECTS[name], maker.placeholder, size)

    def shown_url(self) -> str:
        return str(self.url)

    async def server(self) -> Server:
        """What the server answers when it is asked; modules do not agree on how to keep it."""
        ((version,),) = await self.rows(self._maker.question)
        return self._maker.server(str(version))

    async def examine(self) -> Sequence[Finding]:
        # Imported by whoever asks: few do.
        from ._sql_examine import examine_server

        return await examine_server(self)
