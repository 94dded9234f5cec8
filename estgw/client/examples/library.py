from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.client import Credentials, Session, Trust, files, keys, request

anchors = tuple(x509.load_pem_x509_certificates(Path("openssl-ca/cacert.pem").read_bytes()))
login = Credentials("estuser", "estpwd")
wanted = request.Wanted(x509.Name.from_rfc4514_string("CN=device-3"))
key = keys.generate(keys.parse_spec("ec:P-256"))
files.create_key(Path("device-3.key"), keys.to_pem(key))
with Session("https://localhost:8443", Trust(explicit=anchors), credentials=login) as session:
    plan = request.plan(wanted, session.csrattrs())
    certificate = session.enroll(lambda binding: request.build(plan, key, binding))
files.write(Path("device-3.pem"), certificate.public_bytes(Encoding.PEM))
