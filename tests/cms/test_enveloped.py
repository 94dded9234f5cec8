"""EnvelopedData: with openssl as the peer, and with the wrong key."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import keywrap
from hypothesis import given
from hypothesis import strategies as st
from pyasn1_alt_modules import rfc5652

from estgw.cms import enveloped, recipients, signed
from estgw.cms.faults import BadAlgorithm, NotForThisKey
from estgw.cms.fields import octets, sequence
from estgw.cms.identifiers import IssuerAndSerial, subject_key_id
from estgw.cms.signed import DATA
from estgw.errors import Malformed
from tests.kit.ca import holder
from tests.kit.reference import OPENSSL_DECRYPTS, openssl, reads

CONTENT = b"a challenge" * 7


def names(kind):
    certificate = holder(kind).certificate
    return IssuerAndSerial.of(certificate), subject_key_id(certificate)


def encrypt(kind="p256", by=1, content=CONTENT):
    return enveloped.encrypt(content, holder(kind).key.public_key(), names(kind)[by])


@pytest.mark.parametrize("by", [0, 1])
@pytest.mark.parametrize("kind", OPENSSL_DECRYPTS)
def test_openssl_decrypts_our_message(kind, by, tmp_path):
    certificate, key = holder(kind).write(tmp_path, kind)
    der = encrypt(kind, by)
    assert openssl(["-decrypt", "-inform", "DER", "-recip", certificate, "-inkey", key], der) == CONTENT
    private = holder(kind).key
    assert enveloped.decrypt(der, private) == enveloped.decrypt(der, private, names(kind)[by]) == (DATA, CONTENT)


@pytest.mark.parametrize("by", [0, 1])
@pytest.mark.parametrize("kind", OPENSSL_DECRYPTS)
def test_pyasn1_reads_our_message(kind, by):
    outer = reads(encrypt(kind, by), rfc5652.ContentInfo())
    inner = reads(bytes(outer["content"]), rfc5652.EnvelopedData())
    assert int(inner["version"]) == (0 if (kind, by) == ("rsa", 0) else 2)


@pytest.mark.parametrize("kind", OPENSSL_DECRYPTS)
@pytest.mark.parametrize("options", [["-aes128"], ["-aes192", "-keyid"], ["-aes256", "-stream"], ["-aes-256-gcm"]])
def test_a_message_of_openssl_is_decrypted(kind, options, tmp_path):
    certificate, _ = holder(kind).write(tmp_path, kind)
    content = CONTENT * 2000  # more than one piece of a stream
    data = openssl(["-encrypt", "-outform", "DER", "-recip", certificate, *options], content)
    assert enveloped.decrypt(data, holder(kind).key) == (DATA, content)
    (recipient,) = enveloped.parse(data).recipients
    assert recipient.whom == names(kind)["-keyid" in options]


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("rsa", "rsa_padding_mode:oaep"),
        ("rsa", "rsa_oaep_md:sha512"),
        ("p256", "ecdh_kdf_md:sha256"),
        ("p384", "ecdh_kdf_md:sha512"),
    ],
)
def test_other_hashes_of_openssl_are_accepted(kind, option, tmp_path):
    certificate, _ = holder(kind).write(tmp_path, kind)
    more = ["-keyopt", "rsa_padding_mode:oaep"] if option.startswith("rsa") else []
    options = ["-aes256", "-recip", certificate, *more, "-keyopt", option]
    data = openssl(["-encrypt", "-outform", "DER", *options], CONTENT)
    assert enveloped.decrypt(data, holder(kind).key) == (DATA, CONTENT)


def test_each_of_several_recipients_can_decrypt(tmp_path):
    every = ["rsa", "p256", "p384"]
    certificates = [holder(kind).write(tmp_path, kind)[0] for kind in every]
    data = openssl(["-encrypt", "-aes256", "-outform", "DER", *certificates], CONTENT)
    for kind in every:
        assert enveloped.decrypt(data, holder(kind).key)[1] == CONTENT
        assert enveloped.decrypt(data, holder(kind).key, names(kind)[0])[1] == CONTENT


def test_a_shared_key_decrypts_and_other_keys_are_refused(tmp_path):
    key, name = bytes(range(32)), b"the name"
    arguments = ["-encrypt", "-aes256", "-outform", "DER", "-secretkey", key.hex(), "-secretkeyid", name.hex()]
    message = enveloped.parse(openssl(arguments, CONTENT))
    (recipient,) = message.recipients
    assert (recipient.kind, recipient.whom) == ("shared key", name)
    assert enveloped.decrypt_content(message, recipients.unwrap(recipient, key)) == CONTENT
    with pytest.raises(NotForThisKey):
        recipients.unwrap(recipient, bytes(32))
    with pytest.raises(BadAlgorithm, match="does not fit a key of 16 bytes"):
        recipients.unwrap(recipient, bytes(16))


def test_a_message_for_a_password_is_not_for_our_key(tmp_path):
    data = openssl(["-encrypt", "-aes256", "-outform", "DER", "-pwri_password", "secret"], CONTENT)
    assert [each.kind for each in enveloped.parse(data).recipients] == ["password"]
    with pytest.raises(NotForThisKey):
        enveloped.decrypt(data, holder("rsa").key)


# Messages that must not decrypt.


@pytest.mark.parametrize("kind", OPENSSL_DECRYPTS)
def test_another_key_or_another_name_does_not_decrypt(kind):
    with pytest.raises(NotForThisKey):
        enveloped.decrypt(encrypt(kind), holder(kind, "another").key)
    with pytest.raises(NotForThisKey):
        enveloped.decrypt(encrypt(kind), holder("rsa" if kind != "rsa" else "p256").key)
    with pytest.raises(NotForThisKey):
        enveloped.decrypt(encrypt(kind), holder(kind).key, b"another name")


def test_a_key_of_another_curve_does_not_decrypt():
    with pytest.raises(NotForThisKey):
        enveloped.decrypt(encrypt("p256"), holder("p384").key)


def test_encrypt_refuses_a_key_that_only_signs():
    with pytest.raises(BadAlgorithm, match="key of kind Ed25519"):
        enveloped.encrypt(CONTENT, holder("ed25519").key.public_key(), b"x")


def test_triple_des_is_refused(tmp_path):
    certificate, _ = holder("rsa").write(tmp_path, "rsa")
    data = openssl(["-encrypt", "-des3", "-outform", "DER", "-recip", certificate], CONTENT)
    with pytest.raises(BadAlgorithm, match="des-ede3-CBC is not taken"):
        enveloped.decrypt(data, holder("rsa").key)


def test_bad_pkcs1_padding_is_refused_like_a_wrong_key(tmp_path):
    """Against Bleichenbacher's attack: bad padding and a bad content key must end alike."""
    certificate, _ = holder("rsa").write(tmp_path, "rsa")
    data = openssl(["-encrypt", "-aes256", "-outform", "DER", "-recip", certificate], CONTENT)
    sound = enveloped.parse(data)
    encrypted_key = sound.recipients[0].encrypted_key
    place = data.index(encrypted_key)
    for change in (bytes(len(encrypted_key)), encrypted_key[:-1] + bytes([encrypted_key[-1] ^ 1])):
        broken = data[:place] + change + data[place + len(change) :]
        with pytest.raises(NotForThisKey) as caught:
            enveloped.decrypt(broken, holder("rsa").key)
        assert str(caught.value) == recipients.NOT_OURS


def test_a_content_key_of_another_length_is_refused():
    """A wrapped key of 24 bytes does not fit the content's cipher."""
    message = enveloped.parse(encrypt("p256"))
    wrapped = keywrap.aes_key_wrap(bytes(32), bytes(24))
    key = keywrap.aes_key_unwrap(bytes(32), wrapped)
    with pytest.raises(NotForThisKey):
        enveloped.decrypt_content(message, key)


@pytest.mark.parametrize("data", [b"", b"\x30\x00", octets(b"x"), sequence(sequence())])
def test_bytes_that_are_no_enveloped_data_are_malformed(data):
    with pytest.raises(Malformed):
        enveloped.parse(data)


def test_a_signed_message_is_not_enveloped_data():
    with pytest.raises(Malformed, match="not EnvelopedData"):
        enveloped.parse(signed.certs_only([]))


SAMPLES = [encrypt("rsa"), encrypt("p256", 0)]


@given(st.sampled_from(SAMPLES), st.integers(0, 1000), st.integers(0, 255))
def test_a_message_with_one_changed_byte_decrypts_or_is_malformed(sample, place, byte):
    place %= len(sample)
    data = sample[:place] + bytes([byte]) + sample[place + 1 :]
    kind = "rsa" if sample is SAMPLES[0] else "p256"
    try:
        enveloped.decrypt(data, holder(kind).key)
    except Malformed:
        return


@given(st.binary(max_size=300))
def test_any_bytes_are_malformed(data):
    with pytest.raises(Malformed):
        enveloped.decrypt(data, holder("p256").key)
