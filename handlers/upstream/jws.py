"""An account at an ACME server (RFC 8555): signed requests over rest.Server.  Not a program."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from typing import Any

import rest
import upstream
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

TRIES = 5  # of one request, as a server may call any nonce bad (6.5)


def encoded(value: bytes | str | dict[str, Any]) -> str:
    """Base64url without padding, of JSON if it is no text."""
    text = json.dumps(value) if isinstance(value, dict) else value
    return base64.urlsafe_b64encode(text.encode() if isinstance(text, str) else text).rstrip(b"=").decode()


class Account:
    """The account of an EC key on P-256.  It is made if the server does not know it."""

    def __init__(self, server: rest.Server, key: Any, contact: list[str]) -> None:
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            upstream.fail("the account's key must be an EC key on P-256")
        self.server, self._key, self._nonce, self._id = server, key, "", ""
        self.directory = server.get("").json
        numbers = key.public_key().public_numbers()
        x, y = (encoded(number.to_bytes(32)) for number in (numbers.x, numbers.y))
        self._jwk = {"crv": "P-256", "kty": "EC", "x": x, "y": y}  # in the order of RFC 7638 3
        made = self.post(self.directory["newAccount"], {"termsOfServiceAgreed": True, "contact": contact})
        self._id = made.headers["Location"]

    def proof(self, token: str) -> str:
        """What shows the server that a name is this account's (8.1)."""
        thumbprint = hashlib.sha256(json.dumps(self._jwk, separators=(",", ":")).encode()).digest()
        return f"{token}.{encoded(thumbprint)}"

    def post(self, url: str, payload: dict[str, Any] | None = None) -> rest.Answer:
        """A signed request; None only reads (6.3).  A no ends the handler."""
        for _ in range(TRIES):
            answer = self.server.exchange("POST", url, self._signed(url, payload), Content_Type="application/jose+json")
            self._nonce = answer.headers["Replay-Nonce"] or ""
            if answer.status != 400 or not str(answer.json.get("type")).endswith(":badNonce"):
                break
        upstream.answered(answer.status, answer.words, url, "account")
        return answer

    def prove(self, order: dict[str, Any], solver: str) -> None:
        """Let the solver lay out a proof for each name that waits for one, and tell the server to look (7.5.1)."""
        for url in order["authorizations"]:
            authorization = self.post(url).json
            offered = [each for each in authorization["challenges"] if each["type"] == "http-01"]
            if not offered:
                upstream.unavailable(f"{url}: the server offers no http-01")
            token = str(offered[0].get("token"))
            if authorization["status"] != "pending" or offered[0]["status"] != "pending":
                continue
            if not re.fullmatch("[A-Za-z0-9_-]{1,200}", token):  # it becomes the name of a file
                upstream.unavailable(f"{url}: a token that is not base64url")
            told = {"ACME_NAME": str(authorization["identifier"]["value"]), "ACME_TOKEN": token}
            environment = os.environ | told | {"ACME_PROOF": self.proof(token)}
            done = subprocess.run([solver], env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
            if done.returncode:
                upstream.unavailable(f"{solver} ended with {done.returncode}")
            self.post(offered[0]["url"], {})

    def reason(self, order: dict[str, Any]) -> str:
        """Why an order has failed, in the server's words."""
        found = [order.get("error")]
        for url in order["authorizations"]:
            found += [each.get("error") for each in self.post(url).json["challenges"]]
        return "; ".join(str(each["detail"]) for each in found if each and "detail" in each) or "without a reason"

    def _signed(self, url: str, payload: dict[str, Any] | None) -> bytes:
        nonce = self._nonce or self.server.exchange("GET", self.directory["newNonce"]).headers["Replay-Nonce"]
        who = {"kid": self._id} if self._id else {"jwk": self._jwk}
        protected = encoded({"alg": "ES256", "nonce": nonce, "url": url, **who})
        body = "" if payload is None else encoded(payload)
        signature = self._key.sign(f"{protected}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
        raw = b"".join(number.to_bytes(32) for number in decode_dss_signature(signature))
        return json.dumps({"protected": protected, "payload": body, "signature": encoded(raw)}).encode()
