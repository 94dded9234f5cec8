"""Handlers of a few lines, one label each, so that the client can try every operation against a gateway."""

from __future__ import annotations

import subprocess

from estgw.est.der import wrap

SHARED, SHARED_ID = bytes(range(16)), b"device-7"

# A handler that encrypts keys, for the shared key above.
SEALED = """
cd "$EST_TMPDIR"
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem
openssl req -new -key key.pem -subj /CN=sealed -out csr.pem
openssl x509 -req -in csr.pem -CA "$EST_CA_DIR/cacert.pem" -CAkey "$EST_CA_DIR/private/cakey.pem" -CAserial serial \\
    -CAcreateserial -days 9 -out cert.pem 2>/dev/null
openssl pkcs8 -topk8 -nocrypt -in key.pem -outform DER |
    openssl cms -sign -binary -nodetach -outform DER -econtent_type 2.16.840.1.101.2.1.2.78.5 \\
        -signer "$EST_CA_DIR/cacert.pem" -inkey "$EST_CA_DIR/private/cakey.pem" |
    openssl cms -encrypt -binary -outform PEM -aes-256-cbc -secretkey KEY -secretkeyid ID
cat cert.pem
"""


# A handler that waits for approval. EST_PENDING_ID stays the same, even if a CSR is signed again.
PENDING = """
[[ -e $EST_CA_DIR/approved-$EST_PENDING_ID ]] && exec ./simpleenroll
echo "$EST_PENDING_ID $EST_CSR_SUBJECT" >>"$EST_CA_DIR/asked"
exit 75
"""

# RFC 9908: a fixed organization, a name and a DNS name without values, and another curve.
WISHES = """
- template:
    subject: [{organizationName: Example}, commonName]
    key: ec:P-384
    attributes:
      - extensions:
          subjectAltName: [DNS]
          keyUsage: [critical, digitalSignature]
"""


def cmc_answer(lab):
    """A PKI Response that says success, signed by the CA."""
    status = wrap(b"\x30", bytes.fromhex("020101 06082b06010505070719 310a 3008 020100 3003 020101".replace(" ", "")))
    content = wrap(b"\x30", wrap(b"\x30", status) + b"\x30\x00\x30\x00")
    command = [
        "openssl",
        "cms",
        "-sign",
        "-binary",
        "-nodetach",
        "-outform",
        "DER",
        "-econtent_type",
        "1.3.6.1.5.5.7.12.3",
    ]
    command += ["-signer", lab.anchor, "-inkey", lab.ca / "private" / "cakey.pem"]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout


def furnish(own):
    """Put the handlers into a workspace; returns the settings that name them."""
    sealed = own.script("bench/sealed", SEALED.replace("KEY", SHARED.hex()).replace("ID", SHARED_ID.hex()))
    (own.path / "answer.der").write_bytes(cmc_answer(own))
    cmc = own.script("bench/cmc", f"cat {own.path}/answer.der")
    nothing = own.script("bench/nothing", "exit 0")
    pending = own.script("handlers/openssl/pending", PENDING)
    wishes = own.path / "wishes.yaml"
    wishes.write_text(WISHES)
    template = own.script("bench/template", f"cat {wishes}")
    return {
        "pop": {"rules": [{"label": "linked", "pop": "required"}]},
        "callouts": {
            "retry_after": 1,
            "operations": {"serverkeygen": {"enabled": True}, "fullcmc": {"handler": str(cmc)}},
        },
        "labels": {
            "linked": {},
            "plain": {"operations": {"csrattrs": {"handler": str(nothing)}}},
            "sealed": {"operations": {"serverkeygen": {"handler": str(sealed)}}},
            "pending": {"operations": {"simpleenroll": {"handler": str(pending)}}},
            "template": {"operations": {"csrattrs": {"handler": str(template)}}, "csr_template": str(wishes)},
            "bare": {"operations": {"serverkeygen": {"enabled": False}, "fullcmc": {"enabled": False}}},
        },
    }
