"""CMS, CMC and CSR attributes, from peers or given to `explain`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from estgw.auth.pop import POP
from estgw.cmc import controls, messages, proofs, references, requests
from estgw.cmc.explain import explain as explain_cmc
from estgw.cmc.explain_values import value_lines
from estgw.cmc.messages import PKIData, PKIResponse
from estgw.cmc.outline import MAXIMUM_LINES, Outline
from estgw.cms import enveloped, recipients, signed
from estgw.config import csrattrs_yaml, marked_yaml
from estgw.errors import ConfigError, Malformed
from estgw.est import answers, certs, csrattrs, csrattrs_data, encoding, names
from estgw.est import csr as csrs
from estgw.est.csrattrs import CsrAttrs
from estgw.est.template_check import TemplateCheck
from estgw.gateway import reply
from tests.callout import calls
from tests.fuzz import checks
from tests.fuzz.checks import DIRECTORY, EC_KEY, LONGEST_YAML, RSA_KEY, check_environment, only, placed

TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {}
_target = functools.partial(checks.target, TARGETS)

# CMS and CMC.


@_target(Malformed, seeds="*7030*")
def cms(data: bytes) -> None:
    with only(Malformed):
        data = encoding.decode(data, certs.PKCS7_LABELS)
    with only(Malformed):
        certs.unpack(data)
    for key in (EC_KEY, RSA_KEY):
        with only(Malformed):
            enveloped.decrypt(data, key)
    with only(Malformed):
        message = enveloped.parse(data)
        for recipient in message.recipients:
            with only(Malformed):
                enveloped.decrypt_content(message, recipients.unwrap(recipient, bytes(32)))
        enveloped.decrypt_content(message, bytes(32))
    found = signed.parse(data)
    for signer in found.signers:
        holder = signed.certificate_of(found, signer)
        with only(Malformed):
            _ = signer.signing_time
        with only(Malformed):
            signed.verify(found, signer, holder or EC_KEY.public_key())
        with only(Malformed):
            signed.verify_digest(found, signer)


@_target(Malformed)
def cmc(data: bytes) -> None:
    """A request or a response as its handler reads it. Unsigned content is tried too, so that no signature is in the
    way.
    """
    with only(Malformed):
        tree = list(messages.layers(signed.parse(data)))
        references.check(tree)
    for kind in (PKIData, PKIResponse):
        with only(Malformed):
            message: Any = kind.decode(data)
            der = message.encode()  # in DER's order, which need not be the sender's
            assert kind.decode(der).encode() == der
            for control in message.controls:
                with only(Malformed):
                    _ = control.value
                with only(Malformed):
                    _ = control.all_values
            if isinstance(message, PKIResponse):
                _ = message.statuses
            else:
                references.check([messages.Layer((), signed.SignedData(messages.PKI_DATA, data), message)])
                for each in message.requests:
                    _cmc_request(each)


def _cmc_request(asked: requests.TaggedRequest) -> None:
    with only(Malformed):
        proofs.is_linked(asked, b"random", "secret")
    if isinstance(asked, requests.OtherRequest):
        return
    with only(Malformed):
        requests.possession(asked)
    with only(Malformed):
        requests.key_id(asked)
    with only(Malformed):
        found = asked.csr
        names.require_sound(found.san)
        check_environment(calls.plain(DIRECTORY, "simpleenroll", csr=found, pop=POP.ABSENT))


@_target(Malformed, seeds="*cmc*")
def explain(data: bytes) -> None:
    text = explain_cmc(data)
    lines = text.splitlines()
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(lines) <= MAXIMUM_LINES + 1


@_target()
def control(data: bytes) -> None:
    """One value as each control of the table would read it."""
    for row in controls.TABLE:
        with only(Malformed):
            value = row.kind.decode(data, "its value")
            out = Outline()
            with out.deeper():
                value_lines(out, value)
            try:
                again = row.kind.encode(value)
            except Malformed as fault:
                raise AssertionError(f"{row.name} reads what it can't write") from fault
            assert row.kind.decode(again, "its value") == value, row.name


# CSR attributes.


@_target(Malformed, seeds="*csrattrs*")
def attributes(data: bytes) -> None:
    der = answers.csrattrs(data)
    found = csrattrs.decode_csrattrs(der)
    with only(Malformed):
        csrattrs.extensions(found.attributes)
    _attributes(found)
    for oid in reply.LINKING_OIDS.values():
        with only(Malformed):
            answers.announce(data, oid)


def _attributes(found: CsrAttrs) -> None:
    """Written in words and read again, and used as a template check."""
    text = csrattrs_yaml.write(found)
    if len(text) <= LONGEST_YAML:
        again = csrattrs_yaml.read(text.encode(), Path("again")) or CsrAttrs()
        assert again.encode() == found.encode(), text
    with only(Malformed):
        wanted = TemplateCheck.of(found)
        wanted.missing(csrs.parse(calls.CSR))


@_target(ConfigError)
def csrattrs_words(data: bytes) -> None:
    data = data[:LONGEST_YAML]
    with placed("stdout"):
        found = csrattrs_yaml.read(data, Path("stdout"))
    with only(ConfigError), placed("stdout"):
        csrattrs_yaml.read(data, Path("stdout"), alternatives=True)
    if found is not None:
        with only(Malformed):
            csrattrs_data.read(marked_yaml.parse(Path("stdout"), data.decode(), plain=True).data)
        _attributes(csrattrs.decode_csrattrs(found.encode()))
