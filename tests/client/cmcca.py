"""A CA that speaks CMC, correct unless a test changes it: the library's own messages behind `rogue.Server`."""

from __future__ import annotations

import base64
import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.cmc import proofs, requests
from estgw.cmc.controls import Control
from estgw.cmc.messages import PKI_RESPONSE, PKIResponse, pki_data
from estgw.cmc.requests import Possession, possession
from estgw.cmc.status import CMCStatus, PendInfo, StatusInfo
from estgw.cms import enveloped, signed
from estgw.cms.identifiers import is_named, key_id_of
from estgw.cms.signed import Signer
from tests.client import rogue

TYPE = "application/pkcs7-mime; smime-type=CMC-response"
SECRET = "correct horse"
PROOF = bytes(range(64))


def status(code=CMCStatus.SUCCESS, parts=(1,), text=None, failure=None, pending=None):
    return "statusInfoV2", StatusInfo(code, tuple(parts), text, failure, pending)


class Desk:
    """An `answer` for `rogue.Server`. `seen` has the PKIData of all requests, after a check of their signatures."""

    def __init__(self, ca, signer=None):
        self.ca = ca
        self.signer = signer or ca
        self.seen = []
        self.bodies = []
        self.signed_by = []
        self.revoked = []

    def __call__(self, request):
        if request.operation == "csrattrs":
            return rogue.reply(204, content_type=None)
        assert request.operation == "fullcmc"
        assert request.headers["Content-Type"] == "application/pkcs7-mime; smime-type=CMC-request"
        message = signed.parse(request.der)
        data = pki_data(message)
        self.bodies.append(request.der)
        self.signed_by.append(self.author(message, data))
        self.seen.append(data)
        return self.http(*self.decide(data))

    def author(self, message, data):
        """The certificate of the signer, or the new key's identifier; None without a signature."""
        for signer in message.signers:
            certificate = signed.certificate_of(message, signer)
            if certificate is not None:
                signed.verify(message, signer, certificate.public_key())
                return certificate
            if not signer.is_signed:
                return None
            (asked,) = data.requests
            public = asked.csr.request.public_key()
            assert requests.key_id(asked) == signer.whom == key_id_of(public)
            signed.verify(message, signer, public)
            return signer.whom
        return None

    def decide(self, data):
        """Controls, certificates and CRLs of the answer."""
        if data.find("getCRL"):
            assert data.value("getCRL").issuer == self.ca.certificate.subject.public_bytes()
            return [status(parts=[4])], [], [self.crl()]
        if data.find("revokeRequest"):
            self.revoked.append(data.value("revokeRequest"))
            return [status(parts=[4])], [], []
        return [status()], [self.issue(asked) for asked in data.requests], []

    def issue(self, asked):
        assert possession(asked) is Possession.PROVED
        return self.certify(asked)

    def certify(self, asked):
        return self.ca.certify(asked.csr.der)

    def echo(self, data):
        return {
            "transactionId": data.value("transactionId"),
            "recipientNonce": data.value("senderNonce"),
            "senderNonce": b"the server's own",
        }

    def http(self, controls, certificates=(), crls=()):
        return rogue.reply(body=self.body(controls, certificates, crls), content_type=TYPE)

    def body(self, controls, certificates=(), crls=()):
        return base64.encodebytes(self.sign(self.content(controls), certificates, crls))

    def content(self, controls):
        pairs = [*controls, *self.echo(self.seen[-1]).items()]
        return PKIResponse(tuple(Control.make(at, *pair) for at, pair in enumerate(pairs, 1))).encode()

    def sign(self, content, certificates=(), crls=()):
        signers = [Signer.of(self.signer.key, self.signer.certificate)]
        bag = [self.signer.certificate, *certificates]
        return signed.sign(PKI_RESPONSE, content, signers, certificates=bag, crls=crls)

    def crl(self, *, days=7, key=None):
        now = dt.datetime.now(dt.UTC)
        end = now + dt.timedelta(days=days)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.ca.certificate.subject)
        builder = builder.last_update(min(now, end) - dt.timedelta(days=1)).next_update(end)
        return builder.sign(key or self.ca.key, hashes.SHA256()).public_bytes(Encoding.DER)


class Doubting(Desk):
    """A CA whose first answer is pending, and whose second one must be confirmed."""

    issued: x509.Certificate

    def decide(self, data):
        assert bool(data.find("recipientNonce")) == (len(self.seen) > 1)
        if data.find("confirmCertAcceptance"):
            assert data.value("recipientNonce") == b"the server's own"
            assert is_named(self.issued, data.value("confirmCertAcceptance"))
            return [status(parts=[4])], [], []
        if data.find("queryPending"):
            assert not data.requests
            assert data.value("queryPending") == b"ticket"
            return [status(CMCStatus.CONFIRM_REQUIRED)], [self.issued], []
        (asked,) = data.requests
        self.issued = self.issue(asked)
        when = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=1)
        return [status(CMCStatus.PENDING, pending=PendInfo(b"ticket", when))], [], []


class Challenging(Desk):
    """A CA that encrypts a challenge to the key and expects the decrypted value."""

    def decide(self, data):
        (asked,) = data.requests
        assert possession(asked) is Possession.CHALLENGE
        if not data.find("decryptedPOP"):
            public = asked.csr.request.public_key()
            sealed = enveloped.encrypt(PROOF, public, key_id_of(public))
            return [status(CMCStatus.POP_REQUIRED), ("encryptedPOP", proofs.challenge(asked, sealed, PROOF))], [], []
        assert asked == self.seen[0].requests[0]
        assert proofs.is_decrypted_pop(data.value("decryptedPOP"), asked, PROOF)
        return [status()], [self.certify(asked)], []


class Knowing(Desk):
    """A CA that issues to a client that knows the secret, and checks the link to the request."""

    def decide(self, data):
        name = data.value("identification")
        assert proofs.is_identity_proof_v2(data.value("identityProofV2"), data.request_sequence, SECRET, name)
        assert not proofs.is_identity_proof_v2(data.value("identityProofV2"), data.request_sequence, "wrong", name)
        (asked,) = data.requests
        if data.find("popLinkRandom"):
            assert proofs.is_linked(asked, data.value("popLinkRandom"), SECRET)
        return super().decide(data)
