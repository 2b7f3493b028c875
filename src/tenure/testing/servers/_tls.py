"""Certificates for a run: an authority of its own, one for servers and one for clients."""

from __future__ import annotations

import shutil
import subprocess
import threading
from dataclasses import dataclass, replace
from pathlib import Path

_LIMIT = 30.0
_lock = threading.Lock()

# Python 3.13 and later verify strictly: the key identifiers and usages must all be there.
_CONFIG = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
# etcd's gateway presents the server's certificate as a client's when it calls itself.
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = IP:127.0.0.1, DNS:localhost
[client]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:tenure
"""


@dataclass(frozen=True)
class Certificates:
    """Where the certificates are: `cert` and `key` are the client's."""

    ca: Path
    cert: Path
    key: Path
    server_cert: Path
    server_key: Path

    @classmethod
    def of_run(cls, run: Path, openssl: str) -> Certificates:
        """The certificates of this run; the first call makes them."""
        folder = run / "tls"
        with _lock:
            if not folder.exists():
                _make(openssl, folder)
        names = ("ca.crt", "client.crt", "client.key", "server.crt", "server.key")
        return cls(*(folder / name for name in names))

    def install(self, folder: Path, account: str | None) -> Certificates:
        """Give a server its own copy of what it must read, and the clients' to nobody."""
        copies = {}
        for field, source in (("server_cert", self.server_cert), ("server_key", self.server_key)):
            copies[field] = folder / source.name
            shutil.copy(source, copies[field])
            copies[field].chmod(0o600)
            if account is not None:
                shutil.chown(copies[field], account)
        return replace(self, **copies)


def _make(openssl: str, folder: Path) -> None:
    work = folder.with_name("tls.new")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    work.chmod(0o755)  # whatever the umask: servers run as other users
    (work / "openssl.cnf").write_text(_CONFIG)

    def run(*arguments: str) -> None:
        subprocess.run(
            [openssl, *arguments], cwd=work, check=True, capture_output=True, timeout=_LIMIT
        )

    request = ("req", "-config", "openssl.cnf", "-new", "-nodes", "-newkey", "ec")
    curve = ("-pkeyopt", "ec_paramgen_curve:prime256v1")
    run(*request, *curve, "-x509", "-days", "3", "-subj", "/CN=Tenure test authority",
        "-extensions", "authority", "-keyout", "ca.key", "-out", "ca.crt")  # fmt: skip
    for serial, (name, subject) in enumerate((("server", "localhost"), ("client", "tenure")), 2):
        run(*request, *curve, "-subj", f"/CN={subject}", "-keyout", f"{name}.key",
            "-out", f"{name}.csr")  # fmt: skip
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-set_serial", str(serial), "-days", "3", "-extfile", "openssl.cnf",
            "-extensions", name, "-out", f"{name}.crt")  # fmt: skip
    (work / "ca.crt").chmod(0o644)
    work.rename(folder)
