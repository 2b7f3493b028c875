"""The mysql driver's backend."""

from __future__ import annotations

from ..servers import MysqlServer
from ._base import ServerBackend


class MysqlBackend(ServerBackend):
    """One MariaDB."""

    name = "mysql"
    scheme = "mysql"
    server: MysqlServer

    def make_server(self) -> MysqlServer:
        return MysqlServer()

    def footprint(self, namespace: str) -> int:
        import pymysql

        # Of a session's own lock the name begins with "tns"; who waits has no lock yet.
        held = """SELECT COUNT(*) FROM information_schema.METADATA_LOCK_INFO
            WHERE LOCK_TYPE = 'User lock' AND TABLE_SCHEMA NOT LIKE 'tns%'"""
        waiting = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE = 'User lock'"
        tables = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME = %s"
        claims = "SELECT COALESCE(SUM(claims), 0) FROM tenure_document WHERE namespace = %s"
        connection = pymysql.connect(
            host=self.server.host,
            port=self.server.port,
            user=str(self.server.user),
            database="tenure",
            autocommit=True,
        )
        with connection, connection.cursor() as cursor:

            def asked(question: str, *values: str) -> int:
                cursor.execute(question, values or None)
                return int((cursor.fetchone() or (0,))[0])

            count = asked(held) + asked(waiting)
            if asked(tables, "tenure_document"):
                count += asked(claims, namespace)
        return count
