"""A first certificate in a program: keys and requests are made here, and linked to the TLS connection."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.client import Credentials, Session, Trust, keys, request

anchors = tuple(x509.load_pem_x509_certificates(Path("openssl-ca/cacert.pem").read_bytes()))
login = Credentials("estuser", "estpwd")
key = keys.generate(keys.parse_spec("ec:P-256"))
wanted = request.Wanted(x509.Name.from_rfc4514_string("CN=device-3"))
with Session("https://localhost:8443", Trust(explicit=anchors), credentials=login) as session:
    plan = request.plan(wanted, session.csrattrs())
    certificate = session.enroll(lambda binding: request.build(plan, key, binding))
Path("device-3.key").write_bytes(keys.to_pem(key))
Path("device-3.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
