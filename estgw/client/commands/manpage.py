"""The man page of `estclient` and its completion for Bash: `python -m estgw.client.commands.manpage man|bash`."""

from __future__ import annotations

import sys

from estgw.client.commands.cli import PROGRAM
from estgw.commandline.documents import print_document
from estgw.commandline.manpage import Manual

MANUAL = Manual(
    name="a client for Enrollment over Secure Transport (RFC 7030)",
    description=(
        "The client checks the server before it sends anything: the server's certificate must lead to an anchor and be "
        "for the name in the URL or, under explicit anchors, carry id-kp-cmcRA.  The client links its requests to "
        "their TLS connection."
    ),
    environment=(
        ("SSLKEYLOGFILE", "A file to which the TLS secrets are appended, for a protocol analyzer."),
        ("SSL_CERT_FILE, SSL_CERT_DIR", "The places where --implicit finds the system's anchors."),
        ("TLS_UNIQUE_SR", "Set for the script of -R: base64 of the connection's channel binding; unset without one."),
        ("EST_TLS_BINDING", "Set for that script too: tls-unique, tls-exporter or tls13-finished."),
        ("EST_SERVER_URL", "Set for that script too: the URL that the request goes to."),
    ),
    examples=(
        ("Get to know a CA, by a fingerprint that its operator told you:",
         "estclient cacerts -u est.example --fingerprint HEX -o ca.pem"),
        ("Get a certificate with a password; key in device.key, certificate in device.pem:",
         "estclient enroll -u est.example -c ca.pem -p estuser --new-key --subject CN=device-1 -o device.pem"),
        ("The same with a script that makes the request:",
         "estclient enroll -u est.example -c ca.pem -p estuser -R handlers/examples/genp10 -o device.pem"),
        ("Renew it in place, with a new key, in its last month:",
         "estclient reenroll -u est.example -c ca.pem --cert d.pem --key d.key --if-expires-within 4w --new-key"),
        ("Get a first certificate by CMC, with a secret that the CA knows under the name dev7:",
         "estclient fullcmc enroll -u est.example -c ca.pem --identification dev7 --new-key --dns d.example -o d.pem"),
        ("Have it revoked:",
         "estclient fullcmc revoke -u est.example -c ca.pem --cert device.pem --key device.key --reason keyCompromise"),
    ),
    see_also="openssl(1), RFC 7030, RFC 8951, RFC 9908",
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(print_document(PROGRAM, MANUAL))
