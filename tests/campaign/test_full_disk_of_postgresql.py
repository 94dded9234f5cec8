"""A full disk under PostgreSQL: clients get a 503, nothing is half done, and service resumes when there is room."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509

from estgw.register.postgresql import PostgreSQL
from tests.campaign.disks import Disk, needs_disk, small_disk
from tests.kit.connection import Response
from tests.kit.csr import csr
from tests.kit.gateway import Gateway, running_gateway
from tests.kit.postgres import Cluster, program, running_cluster
from tests.kit.processes import until
from tests.kit.workspace import Workspace

pytestmark = [
    needs_disk,
    pytest.mark.slow,
    pytest.mark.skipif(program("initdb") is None, reason="PostgreSQL's initdb is not installed"),
]
SIZE = 100 << 20
"""Bytes: an empty cluster takes 40 MiB."""


@pytest.fixture
def disk() -> Iterator[Disk]:
    with tempfile.TemporaryDirectory(prefix="pg") as folder, small_disk(Path(folder), size=SIZE, inodes=9000) as made:
        yield made


def enrol(gateway: Gateway, name: str) -> Response:
    return gateway.post("python/simpleenroll", csr(name))


def in_register(cluster: Cluster, role: str) -> set[x509.Certificate]:
    rows = cluster.sql(f"SELECT encode(der, 'hex') FROM {role}.certificates", role).split()
    return {x509.load_der_x509_certificate(bytes.fromhex(row)) for row in rows}


def test_a_full_disk_under_postgresql_is_a_503_and_nothing_is_half_done(own_lab: Workspace, disk: Disk) -> None:
    with running_cluster(disk.path) as cluster:
        url = cluster.register()
        role = url.rpartition("/")[2]
        with closing(PostgreSQL(url)) as made:
            made.create()
        with running_gateway(own_lab, {"labels": {"python": {"register": url}}}) as gateway:
            held = {enrol(gateway, "before").certificate}
            with disk.with_free_pages(0):
                refused = 0
                for number in range(50):  # the last pages of the tables have room for a few
                    answer = enrol(gateway, f"device-{number}")
                    if answer.status == 200:
                        held.add(answer.certificate)
                        continue
                    assert answer.status == 503, answer
                    assert int(answer.header("Retry-After") or 0) >= 60
                    refused += 1
                    if refused == 3:
                        break
                assert refused == 3
                assert gateway.get("python/cacerts").status == 200
            if not is_up(cluster):  # without room for its write-ahead log PostgreSQL ends
                cluster.start("fsync=off", "shared_buffers=16MB")
            held.add(until(lambda: again(gateway)))
            assert held <= (found := in_register(cluster, role)), "what a client holds is in the register"
            assert len(found) == len({each.serial_number for each in found})


def is_up(cluster: Cluster) -> bool:
    try:
        return cluster.sql("SELECT 1") == "1"
    except AssertionError:
        return False


def again(gateway: Gateway) -> x509.Certificate | None:
    answer = enrol(gateway, "after")
    return answer.certificate if answer.status == 200 else None
