"""A cluster that speaks TLS inside: a job works on it, and who has no certificate of it gets nowhere."""

import datetime
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from labelling import fill, published, record

from celebvision.celeba.drawn import messy_bucket
from celebvision.registry import promote
from faults.cluster import cluster
from faults.command import BIN, CLEARED, END_S, Marked, wait_until

DAY = datetime.timedelta(days=1)
LOOK = "import ray; ray.init(log_to_driver=False); print(sum(node['Alive'] for node in ray.nodes()))"
REFUSED_S = "5"  # of Ray's own patience with a head that does not answer


class Authority:
    """Signs certificates that both ends of a connection show: for this machine, a day long."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.folder.mkdir()
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        certificate = self._signed(self.name, self.key.public_key(), x509.BasicConstraints(ca=True, path_length=0))
        (folder / "ca.crt").write_bytes(certificate)

    def environment(self) -> dict[str, str]:
        """What Ray needs for a certificate that is made for it now."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
        certificate = self._signed(name, key.public_key(), x509.BasicConstraints(ca=False, path_length=None))
        (self.folder / "node.crt").write_bytes(certificate)
        plain = serialization.NoEncryption()
        words = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        (self.folder / "node.key").write_bytes(key.private_bytes(*words))
        (self.folder / "node.key").chmod(0o600)
        return {
            "RAY_USE_TLS": "1",
            "RAY_TLS_SERVER_CERT": str(self.folder / "node.crt"),
            "RAY_TLS_SERVER_KEY": str(self.folder / "node.key"),
            "RAY_TLS_CA_CERT": str(self.folder / "ca.crt"),
        }

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePublicKey, kind: x509.BasicConstraints) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        # Ray calls a node by the machine's own address, whatever `ray start` is told of loopback.
        hosts = [x509.IPAddress(ip_address(one)) for one in ("127.0.0.1", own_address())]
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(kind, critical=True)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def own_address() -> str:
    """The address that this machine would send from: Ray finds it in the same way. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.connect(("192.0.2.1", 1))
        return str(end.getsockname()[0])


def look(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A driver that joins the cluster and tells how many nodes it sees."""
    inherited = {name: value for name, value in os.environ.items() if name not in CLEARED}
    patience = {"RAY_gcs_rpc_server_connect_timeout_s": REFUSED_S, "RAY_gcs_rpc_server_reconnect_timeout_s": REFUSED_S}
    command = [sys.executable, "-c", LOOK]
    environment = inherited | patience | dict(environment)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=END_S)


def test_a_job_runs_on_a_cluster_that_speaks_tls_and_strangers_are_refused(tmp_path: Path) -> None:
    photos, labels, models = (tmp_path / name for name in ("photos", "labels", "models"))
    promote(str(models), "cnn", published(str(models), 1).version)
    pictures = dict(messy_bucket(20, seed=5))
    fill(str(photos), pictures)
    with cluster(tmp_path) as made:
        plain = dict(made.environment)
        made.environment |= Authority(tmp_path / "ours").environment()
        made.add(0)
        made.add(2)
        assert look(made.environment).stdout.strip() == "2"
        without, other = look(plain), look(plain | Authority(tmp_path / "theirs").environment())
        for refused in (without, other):
            assert refused.returncode, refused.stdout

        words = [str(BIN / "celebvision"), "classify", "--model", "cnn", "--registry", str(models)]
        words += ["--input", str(photos), "--output", str(labels)]
        with Marked(words, tmp_path / "classify", made.environment) as command:
            wait_until(command.ended, "it does not end", END_S)
            assert command.status() == 0, command.stderr
    counts = record(str(labels))["counts"]
    assert counts["results"] + counts["failures"] == len(pictures)
