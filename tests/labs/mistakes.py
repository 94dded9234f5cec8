"""The two most likely mistakes of each lab: made on the way through its sheet, and found by its check."""

from __future__ import annotations

from typing import NamedTuple

_SEND = '--cacert $ca --data-binary @{} -H "Content-Type: application/pkcs10" -sS -o mistake.out'
_REQUEST = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout mistake.key"


class Mistake(NamedTuple):
    """Commands that a learner types by mistake, before the first block of the sheet that contains a text."""

    before: str
    commands: str
    step: str
    """The step that is wrong then."""
    words: str
    """What the check says of it, among other words."""
    undo: str = ""


MISTAKES: dict[int, list[Mistake]] = {
    1: [
        Mistake(
            "digits=",
            f"""ca=lab1-ca.pem
digits=$(openssl x509 -in lab1-ca.pem -noout -fingerprint -sha1 | cut -d = -f 2 | tr -d : | cut -c 1-8)
{_REQUEST} -subj "/CN=lab1-$digits" -out mistake.csr
curl $est/simpleenroll -u $login {_SEND.format("mistake.csr")}""",
            "fingerprint",
            "say -sha256",
        ),
        Mistake(
            "openssl verify",
            f"ca=lab1-ca.pem; curl $est/simpleenroll -u estuser:wrong {_SEND.format('lab1.csr')}",
            "certificate",
            "the gate password refused it (401)",
        ),
    ],
    2: [
        Mistake(
            "lab2-changed.b64",
            """openssl req -in lab2.csr -outform DER | sed s/lab2-device/lab2-devils/ | openssl base64 >mistake.b64
bash lab2-send mistake.b64 $est/simpleenroll""",
            "CSR",
            "not refused by the gate CSR: the gate requires refused it (401)",
        ),
        Mistake(
            "lab2-nameless.csr",
            """openssl req -new -key lab2.key -subj /O=lab2 -out mistake.csr
bash lab2-send mistake.csr -u estuser:wrong $est/simpleenroll""",
            "handler",
            "not refused by the gate handler: the gate password refused it (401)",
        ),
    ],
    3: [
        Mistake(
            "sed -i 's/^# allowed",
            """sed -i '/^names=/a [[ $EST_CSR_SUBJECT == *.example.org ]] || refuse "hosts of ours only"' \\
  handlers/openssl/simpleenroll""",
            "alternative name",
            "the policy looks at the subject alone",
            "sed -i '/hosts of ours only/d' handlers/openssl/simpleenroll",
        ),
        Mistake(
            "sed -i 's/^# allowed",
            "sed -i '/^names=/a refuse \"nothing today\"' handlers/openssl/simpleenroll",
            "inside",
            "lab3.example.org is refused as well: nothing today",
            "sed -i '/nothing today/d' handlers/openssl/simpleenroll",
        ),
    ],
    4: [
        Mistake(
            "-keyout lab4.key",
            f"""{_REQUEST} -subj /CN=lab4-device -out mistake.csr
for twice in 1 2; do curl $est/simpleenroll -u estuser:estpwd {_SEND.format("mistake.csr")}; done""",
            "second use",
            "The password of estuser worked twice",
        ),
        Mistake(
            "lab4-new.key",
            f"curl $est/lab4/simplereenroll --cert lab4.pem --key lab4.key {_SEND.format('lab4.csr')}",
            "rekey",
            "The request has the old key again",
        ),
    ],
    5: [
        Mistake(
            "lab5-stolen.csr",
            f"""{_REQUEST} -subj /CN=lab5-victim -out mistake.csr
curl $est/simpleenroll -u $login {_SEND.format("mistake.csr")}""",
            "theft",
            "made a request of his own",
        ),
        Mistake(
            "@lab5-linked.csr",
            f"curl $est/simpleenroll {_SEND.format('lab5-linked.csr')}",
            "theft refused",
            "It did not come to linking: the gate requires refused it (401)",
        ),
    ],
    6: [
        Mistake(
            "for each in a b; do\n  openssl req",
            f"""{_REQUEST} -subj /CN=lab6-a -out mistake.csr
openssl-ca/issue mistake.csr --profile client >mistake.pem
curl $est/lab6/simpleenroll --cert mistake.pem --key mistake.key {_SEND.format("mistake.csr")}""",
            "RA",
            "CN=lab6-a is no RA here",
        ),
        Mistake(
            "estgw pending list",
            f"""{_REQUEST} -subj /CN=lab6-a -out mistake.csr
curl $est/lab6/simpleenroll --cert lab6-ra.pem --key lab6-ra.key {_SEND.format("mistake.csr")}""",
            "issued",
            "lab6-a came back with another key",
        ),
    ],
    7: [
        Mistake(
            "openssl-ca/rollover",
            f"""ca=lab7-old.pem; {_REQUEST} -subj /CN=lab7-device -out mistake.csr
curl $est/simpleenroll -u $login {_SEND.format("mistake.csr")}""",
            "certificate",
            "The certificate was signed by the old key",
        ),
        Mistake(
            "pkill",
            f"""curl $est/cacerts --cacert lab7-old.pem -sS -o mistake.bag
{_REQUEST} -subj /CN=lab7-device -out mistake.csr
curl $est/simpleenroll -u $login {_SEND.format("mistake.csr")}
openssl base64 -d -in mistake.out | openssl pkcs7 -inform DER -print_certs -out mistake.pem
curl $est/csrattrs --cacert lab7-old.pem --cert mistake.pem --key mistake.key -sS -o mistake.out""",
            "login",
            "The gateway reads anchors.pem at a start and on SIGHUP",
        ),
    ],
    8: [
        Mistake(
            "estclient fullcmc enroll",
            "estclient fullcmc enroll -u $est/lab8 -p estuser:wrong -c openssl-ca/cacert.pem --new-key ec:P-256 "
            "--subject CN=lab8-device -o mistake.pem",
            "CMC",
            "the gate password refused it (401)",
        ),
        Mistake(
            "estclient serverkeygen",
            "estclient serverkeygen -u $est/lab8 -p $login -c $ca --subject CN=lab8-sealed -o mistake-sealed.pem",
            "sealed",
            "The key came in the clear",
        ),
    ],
    9: [
        Mistake(
            "--new-key ec:P-256",
            "estclient enroll -u $est/python -p estuser:estpwd -c openssl-ca/cacert.pem --new-key --subject CN=lab9-pq "
            "-o mistake.pem",
            "certificate",
            "The key is not ML-DSA",
        ),
        Mistake(
            "--new-key ml-dsa-65",
            "estclient enroll -u $est/python -p estuser:wrong -c $ca --new-key ml-dsa-65 --no-csrattrs "
            "--subject CN=lab9-pq -o mistake-pq.pem",
            "certificate",
            "the gate password refused it (401)",
        ),
    ],
    10: [
        Mistake(
            "quirks run",
            "estgw quirks run --client estclient --only wrong-key --json lab10-client.json",
            "client",
            "lab10-client.json has no FAIL",
        ),
        Mistake(
            "estgw conform",
            "estgw conform https://localhost:8443 -c openssl-ca/cacert.pem -p estuser:estpwd --label lab10 "
            "--only cacerts.form >lab10-server.json",
            "server",
            "lab10-server.json is no report of estgw conform",
        ),
    ],
}
