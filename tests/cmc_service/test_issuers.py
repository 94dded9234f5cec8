"""A CA certificate vouches for what its key has signed only while it is valid and may sign certificates."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.cmc_service import issuers
from tests.cmc_service import office as cmc
from tests.kit.ca import DAY, NOW, key_usage

CA_KEY, KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "A CA")])


def issuer(*, key=CA_KEY, starts=-DAY, ends=DAY, is_ca=True, usage=True):
    builder = x509.CertificateBuilder(NAME, NAME, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(NOW + starts).not_valid_after(NOW + ends)
    builder = builder.add_extension(x509.BasicConstraints(is_ca, None), critical=True)
    if usage is not None:
        builder = builder.add_extension(key_usage(usage), critical=True)
    return builder.sign(key, hashes.SHA256())


def leaf():
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device-7")])
    builder = x509.CertificateBuilder(NAME, subject, KEY.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    return builder.sign(CA_KEY, hashes.SHA256())


def vouches(tmp_path, current, *former):
    """Whether a CA with these certificates vouches for a certificate that CA_KEY has signed."""
    (tmp_path / "cacert.pem").write_bytes(current.public_bytes(Encoding.PEM))
    for number, each in enumerate(former):
        folder = tmp_path / "generations" / str(number)
        folder.mkdir(parents=True)
        (folder / "issuer.pem").write_bytes(each.public_bytes(Encoding.PEM))
    return issuers.vouch_for(cmc.module("cmc_ca").DirectoryCA(tmp_path).issuers, leaf())


@pytest.mark.parametrize("good", [{}, {"usage": None}])
def test_a_valid_ca_certificate_vouches(tmp_path, good):
    assert vouches(tmp_path, issuer(**good))


@pytest.mark.parametrize(
    "bad",
    [
        {"starts": -3 * DAY, "ends": -DAY},
        {"ends": timedelta(0)},
        {"starts": DAY, "ends": 2 * DAY},
        {"is_ca": False},
        {"usage": False},
        {"key": OTHER},
    ],
    ids=["expired", "expires now", "not yet valid", "not a CA", "without keyCertSign", "another key"],
)
def test_a_ca_certificate_that_is_invalid_or_of_another_key_does_not_vouch(tmp_path, bad):
    assert not vouches(tmp_path, issuer(**bad))
    former = tmp_path / "former"
    former.mkdir()
    assert not vouches(former, issuer(key=OTHER), issuer(**bad))


def test_a_former_generation_vouches_while_it_is_valid(tmp_path):
    assert vouches(tmp_path, issuer(key=OTHER), issuer())


def test_a_newer_certificate_of_the_same_key_vouches_for_an_expired_one(tmp_path):
    assert vouches(tmp_path, issuer(starts=-3 * DAY, ends=-DAY), issuer())
