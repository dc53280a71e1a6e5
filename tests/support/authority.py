"""A certificate authority of a test's own, and what it signs, as PEM files."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._ca = trustme.CA(organization_name=name)
        self.ca = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.ca)

    def sign(self, name: str, *hosts: str, expired: bool = False) -> "Signed":
        """A certificate for these host names or addresses, for servers and for clients."""
        until = datetime.now(UTC) - timedelta(days=1) if expired else None
        signed = self._ca.issue_cert(*hosts, not_before=until and until - timedelta(days=1), not_after=until)
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        signed.cert_chain_pems[0].write_to_path(cert)
        signed.private_key_pem.write_to_path(key)
        return Signed(cert, key)


class Signed:
    def __init__(self, cert: Path, key: Path) -> None:
        self.cert = cert
        self.key = key
