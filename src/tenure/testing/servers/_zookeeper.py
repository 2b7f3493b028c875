"""A private ZooKeeper, alone or one of an ensemble."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import urlencode

from ._base import PROBE_LIMIT, Server
from ._network import Place
from ._run import HOST, free_port
from ._tools import ServerMissing, find_program

_PACKAGE = "zookeeper"
_JARS = ("/usr/share/java/zookeeper.jar", "/usr/share/zookeeper/zookeeper.jar")
_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
_LOG = """log4j.rootLogger=ERROR, C
log4j.appender.C=org.apache.log4j.ConsoleAppender
log4j.appender.C.layout=org.apache.log4j.SimpleLayout
"""


class ZookeeperServer(Server):
    """ZooKeeper. With a short tick, so that sessions of less than a second can be had.

    Settings that begin with `-D` are for Java. With a password, `user` (tenure by default) can
    authenticate by `auth=sasl` as well. `id` and `members` (what the configuration calls
    `server.N`) make it one of an ensemble.
    """

    kind: ClassVar[str] = "zookeeper"

    def __init__(
        self,
        *,
        user: str | None = None,
        password: str | None = None,
        sasl: bool = False,
        tls: bool = False,
        mutual_tls: bool = False,
        settings: Mapping[str, str] | None = None,
        id: int = 0,
        members: Mapping[int, str] | None = None,
    ) -> None:
        user = user or (None if password is None else "tenure")
        super().__init__(
            user=user, password=password, tls=tls, mutual_tls=mutual_tls, settings=settings
        )
        self.sasl = sasl
        self.id = id
        self.members = dict(members or {})

    def url_at(self, port: int) -> str:
        """The backend URL with another port: that of a proxy, for instance."""
        options = {"auth": "sasl"} if self.sasl else {}
        if self.tls:
            options |= {"tls": "true"} | self._tls_options()
        query = urlencode(options)
        return f"zookeeper://{self._authority(port)}{'?' if query else ''}{query}"

    def word(self, word: str, limit: float = PROBE_LIMIT) -> str:
        """What the server answers to one of the four-letter words; empty if it does not."""
        try:
            with socket.create_connection((self.host, self.port), limit) as link:
                context = self._ssl_context()
                wrapped = link
                if context is not None:
                    wrapped = context.wrap_socket(link, server_hostname=self.host)
                with wrapped:
                    wrapped.sendall(word.encode())
                    answer = b""
                    while chunk := wrapped.recv(4096):
                        answer += chunk
        except OSError:
            return ""
        return answer.decode(errors="replace")

    def _prepare(self) -> None:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        settings = {
            "tickTime": "200",
            "initLimit": "50",
            "syncLimit": "10",
            "dataDir": str(data),
            "clientPortAddress": self.host,
            "admin.enableServer": "false",
            "maxSessionTimeout": "60000",
            "maxClientCnxns": "0",
            "4lw.commands.whitelist": "*",
        }
        settings["secureClientPort" if self.tls else "clientPort"] = str(self.port)
        if self.tls:
            settings["secureClientPortAddress"] = settings.pop("clientPortAddress")
            settings |= self._tls_settings()
        if self.sasl:
            settings["authProvider.sasl"] = (
                "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"
            )
            (self.folder / "jaas.conf").write_text(
                "Server {\n  org.apache.zookeeper.server.auth.DigestLoginModule required\n"
                f'  user_{self.user}="{self.password}";\n}};\n'
            )
        for id, address in self.members.items():
            settings[f"server.{id}"] = address
        if self.members:
            (data / "myid").write_text(str(self.id))
        settings |= {key: each for key, each in self.settings.items() if key[0] != "-"}
        lines = [f"{key}={value}" for key, value in settings.items()]
        (self.folder / "zoo.cfg").write_text("\n".join(lines) + "\n")
        (self.folder / "log4j.properties").write_text(_LOG)

    def _tls_settings(self) -> dict[str, str]:
        certificates = self.certificates
        both = self.folder / "server.pem"
        both.write_bytes(
            certificates.server_key.read_bytes() + certificates.server_cert.read_bytes()
        )
        both.chmod(0o600)
        return {
            "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
            "ssl.keyStore.location": str(both),
            "ssl.keyStore.type": "PEM",
            "ssl.trustStore.location": str(self.ca),
            "ssl.trustStore.type": "PEM",
            "ssl.clientAuth": "need" if self.mutual_tls else "none",
            "ssl.hostnameVerification": "false",
        }

    def _command(self) -> Sequence[str]:
        java = find_program("java", _PACKAGE)
        jar = next((each for each in _JARS if Path(each).exists()), None)
        if jar is None:
            raise ServerMissing(
                f"zookeeper.jar is not in {' or '.join(_JARS)}; "
                f"install it with: apt-get install --no-install-recommends {_PACKAGE}"
            )
        options = ["-Xmx128m", "-Xshare:auto", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        options += ["-Djava.net.preferIPv4Stack=true", "-Dzookeeper.forceSync=no"]
        options += [f"{key}={each}" for key, each in self.settings.items() if key[0] == "-"]
        if self.sasl:
            options.append(f"-Djava.security.auth.login.config={self.folder / 'jaas.conf'}")
        # Debian's jar names not all that TLS needs.
        extras = sorted(map(str, Path(jar).parent.glob("netty*.jar"))) if self.tls else []
        path = os.pathsep.join([str(self.folder), jar, *extras])
        return [java, *options, "-cp", path, _MAIN, str(self.folder / "zoo.cfg")]

    def _ready(self) -> bool:
        return "Mode:" in self.word("srvr")


class ZookeeperEnsemble:
    """Three ZooKeepers that elect a leader. Each can be stopped, killed, paused and restarted."""

    def __init__(
        self,
        size: int = 3,
        settings: Mapping[str, str] | None = None,
        places: Sequence[Place] = (),
    ) -> None:
        self._size = size
        self._places = places
        self._settings = dict(settings or {})
        self.servers: list[ZookeeperServer] = []

    @property
    def url(self) -> str:
        """The URL that names all of them."""
        hosts = ",".join(f"{server.host}:{server.port}" for server in self.servers)
        return f"zookeeper://{hosts}"

    @property
    def leader(self) -> ZookeeperServer:
        """Who leads now."""
        return next(each for each in self.servers if "Mode: leader" in each.word("srvr"))

    @property
    def followers(self) -> list[ZookeeperServer]:
        """Who follows now."""
        return [each for each in self.servers if "Mode: follower" in each.word("srvr")]

    def start(self) -> Self:
        """Start them all and return once all of them serve."""
        ports = [free_port() for _ in range(2 * self._size)]
        hosts = [place.host for place in self._places] or [HOST] * self._size
        members = {
            id: f"{host}:{ports[2 * id - 2]}:{ports[2 * id - 1]}"
            for id, host in enumerate(hosts, 1)
        }
        self.servers = [
            ZookeeperServer(id=id, members=members, settings=self._settings) for id in members
        ]
        for server, place in zip(self.servers, self._places, strict=False):
            server.settle(place)
        try:
            # None of them serves before most of them run.
            with ThreadPoolExecutor(self._size) as pool:
                list(pool.map(ZookeeperServer.start, self.servers))
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Kill them all and remove their folders."""
        for server in self.servers:
            server.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()
