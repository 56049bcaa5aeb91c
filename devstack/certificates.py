"""Certificates and keys for one API server on 127.0.0.1, made afresh for each stack."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_YEAR = datetime.timedelta(days=365)


@dataclass(frozen=True)
class Certificates:
    """The files in one folder."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    @property
    def exist(self) -> bool:
        return self.key("service-account").exists()

    def make(self, now: datetime.datetime) -> None:
        """A CA, the server's and the administrator's certificate, the service accounts' RSA key."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = ec.generate_private_key(ec.SECP256R1())
        issuer = _name("devstack")
        root = _builder(issuer, issuer, authority.public_key(), now)
        root = root.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._write("ca", root.sign(authority, hashes.SHA256()), authority)
        server = _san(ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv4Address("10.0.0.1"))
        self._issue("server", _name("kube-apiserver"), server, authority, now)
        self._issue("admin", _name("devstack-admin", organization="system:masters"), None, authority, now)
        self._write_key("service-account", rsa.generate_private_key(public_exponent=65537, key_size=2048))

    def _issue(
        self,
        name: str,
        subject: x509.Name,
        names: x509.SubjectAlternativeName | None,
        authority: ec.EllipticCurvePrivateKey,
        now: datetime.datetime,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, _name("devstack"), key.public_key(), now)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if names is None else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        self._write(name, builder.sign(authority, hashes.SHA256()), key)

    def _write(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate(name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._write_key(name, key)

    def _write_key(self, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.key(name).touch(mode=0o600)
        self.key(name).write_bytes(pem)


def _name(common: str, organization: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organization is not None:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(parts)


def _san(*addresses: ipaddress.IPv4Address) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    return x509.SubjectAlternativeName(names + [x509.IPAddress(each) for each in addresses])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + 10 * _YEAR)
    )
