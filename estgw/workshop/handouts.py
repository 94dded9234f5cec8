"""Handouts: a page to print for each participant, with what to paste."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import segno
from cryptography.hazmat.primitives.hashes import SHA256

from estgw.errors import Malformed
from estgw.est import certs
from estgw.workshop import identity, layout, plan
from estgw.workshop.fault import WorkshopError
from estgw.workshop.plan import Seat, Workshop


class Step(NamedTuple):
    """What to paste at once, with a sentence about it."""

    what: str
    commands: str


FOLDER = "handouts"
ALL = "all.html"
_STYLE = """
@page { size: A4; margin: 10mm; }
body { font: 9.5pt/1.35 system-ui, "Liberation Sans", sans-serif; color: #111; margin: 0; }
section { break-after: page; break-inside: avoid; padding: .5rem; max-width: 190mm; margin: auto; }
section:last-child { break-after: auto; }
h1 { font-size: 20pt; margin: 0 0 .4rem; }
h2 { font-size: 11.5pt; margin: .7rem 0 .15rem; }
p { margin: .3rem 0; }
pre, code { font-family: "DejaVu Sans Mono", "Liberation Mono", monospace; font-size: 7.4pt; }
pre { background: #f4f4f2; padding: .4rem; margin: .15rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem .8rem; margin: 0; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
.head { display: flex; gap: 1.5rem; justify-content: space-between; }
.code svg { width: 32mm; height: 32mm; }
.step { margin: .25rem 0 0; }
.quiet { color: #555; font-size: 9pt; }
"""


def write(workshop: Workshop) -> list[Path]:
    """Write a page for each participant, and one file with all of them.  Raises `WorkshopError` or OSError."""
    folder = workshop.folder / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    seats = plan.seats(workshop)
    sections = [section(workshop, seat) for seat in seats]
    made = []
    for name, parts in (
        (ALL, sections),
        *((f"{seat.id}.html", [part]) for seat, part in zip(seats, sections, strict=True)),
    ):
        plan.write(folder / name, document(parts))
        made.append(folder / name)
    return made


def document(sections: Sequence[str]) -> str:
    """A whole HTML file."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>estgw workshop</title>\n'
        f"<style>{_STYLE}</style></head><body>\n{''.join(sections)}</body></html>\n"
    )


def section(workshop: Workshop, seat: Seat) -> str:
    """The page of one participant."""
    link = page_link(workshop, seat)
    facts = {
        "EST server": base_url(workshop, seat),
        "User": seat.id,
        "Password": seat.password,
        "Fingerprint of the CA (SHA-256)": fingerprint(layout.anchor_of(workshop, seat).encode()),
        "Your page": link,
    }
    served = server_fingerprint(workshop, seat)
    rows = "".join(f"<dt>{escape(key)}</dt><dd><code>{escape(value)}</code></dd>" for key, value in facts.items())
    return f"""<section>
<div class="head"><div><h1>{escape(seat.id)}</h1>
<p>Your own EST server (RFC 7030), its scripts and its CA. Nobody else's depend on it: try everything.</p></div>
<div class="code">{qr(link)}</div></div>
<dl>{rows}</dl>
<p class="quiet">Your browser does not know your CA, and warns. Go on if the certificate has the SHA-256 fingerprint
<code>{escape(served)}</code>. The page shows each of your requests, and why one was refused. <b>Labs</b> there
has ten lessons, with commands to copy.</p>
<h2>Linux, macOS, WSL: a shell, with openssl and curl</h2>
{_steps("bash", bash(workshop, seat))}
<h2>Windows: PowerShell, with its curl.exe <span class="quiet">(not run by our tests)</span></h2>
{_steps("powershell", powershell(workshop, seat))}
</section>
"""


def _steps(shell: str, steps: Sequence[Step]) -> str:
    """Only commands stand in the boxes: an interactive zsh, as macOS has, takes a comment for a command."""
    return "\n".join(
        f'<p class="step">{escape(step.what)}</p>\n<pre class="{shell}">{escape(step.commands)}</pre>' for step in steps
    )


def base_url(workshop: Workshop, seat: Seat) -> str:
    """The URL of the EST server, with the participant's label if there are labels."""
    host = layout.endpoint(layout.url_name(workshop), seat.port)
    return f"https://{host}/.well-known/est" + ("" if workshop.isolated else f"/{seat.id}")


def page_link(workshop: Workshop, seat: Seat) -> str:
    """The link to the participant's page, with the token."""
    return f"https://{layout.endpoint(layout.url_name(workshop), seat.page_port)}/#{seat.token}"


def qr(text: str) -> str:
    """A QR code as SVG, for a phone or a tablet."""
    out = io.BytesIO()
    segno.make(text, error="m", micro=False).save(
        out, kind="svg", xmldecl=False, svgns=True, border=2, scale=4, omitsize=True
    )
    return out.getvalue().decode("ascii").strip()


def fingerprint(pem: bytes) -> str:
    """SHA-256 of the first certificate of a PEM file, as `openssl x509 -fingerprint -sha256` prints it."""
    return str(certs.load_pem(pem)[0].fingerprint(SHA256()).hex(":").upper())


def server_fingerprint(workshop: Workshop, seat: Seat) -> str:
    """The same of the server's certificate, which the participant's own process reads."""
    try:
        return fingerprint(identity.run_as(seat, ["timeout", "5", "head", "-c", "65536", "openssl-ca/server.pem"]))
    except (Malformed, IndexError):
        raise WorkshopError(
            f"{seat.id}: openssl-ca/server.pem holds no certificate; estgw workshop reset {seat.id}"
        ) from None


def bash(workshop: Workshop, seat: Seat) -> list[Step]:
    """For Bash and zsh: the CA by its fingerprint, a key with a request, the certificate."""
    url, digest = base_url(workshop, seat), fingerprint(layout.anchor_of(workshop, seat).encode())
    login = shlex.quote(f"{seat.id}:{seat.password}")
    return [
        Step(
            "1. The CA's certificate. It is kept only if its fingerprint is the one above.",
            f"""curl -sSk {shlex.quote(f"{url}/cacerts")} -o cacerts.b64 && openssl base64 -d -in cacerts.b64 | openssl pkcs7 -inform DER -print_certs -out ca.pem
openssl x509 -in ca.pem -noout -fingerprint -sha256 | grep -q {digest} || {{ echo "This is another CA: do not go on."; rm ca.pem; }}""",
        ),
        Step(
            "2. A key, and a request for a certificate.",
            f"openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -subj /CN={seat.id}-device -out req.pem",
        ),
        Step(
            "3. The certificate.",
            f"""curl -sS --fail-with-body {shlex.quote(f"{url}/simpleenroll")} -u {login} --cacert ca.pem --data-binary @req.pem \\
  -H "Content-Type: application/pkcs10" -o answer.b64 \\
  && openssl base64 -d -in answer.b64 | openssl pkcs7 -inform DER -print_certs -out cert.pem || cat answer.b64
openssl verify -CAfile ca.pem cert.pem""",
        ),
    ]


def powershell(workshop: Workshop, seat: Seat) -> list[Step]:
    """The same for Windows PowerShell 5.1 with .NET 4.7.2 and for PowerShell 7, without openssl."""
    url, digest = base_url(workshop, seat), fingerprint(layout.anchor_of(workshop, seat).encode()).replace(":", "")
    host, reach = layout.url_name(workshop), ""
    if re.fullmatch(r"[0-9.]+|.*:.*", host):
        # Windows' curl looks for no IP addresses in a certificate (curl's issue 15149, closed late in 2024), but each
        # certificate of ours is for localhost as well.
        reach = f'--connect-to "localhost:{seat.port}:{layout.endpoint(host, seat.port)}" '
        url = url.replace(layout.bracketed(host), "localhost", 1)
    types = "Security.Cryptography.X509Certificates"
    return [
        Step(
            "1. The CA's certificate. Go on only if True is printed.",
            f"""curl.exe -sSk {base_url(workshop, seat)}/cacerts -o cacerts.b64
$bag = [{types}.X509Certificate2Collection]::new(); $bag.Import([Convert]::FromBase64String((Get-Content -Raw cacerts.b64))); $sha = [Security.Cryptography.SHA256]::Create()
$ca = $bag | Where-Object {{ ([BitConverter]::ToString($sha.ComputeHash($_.RawData)) -replace '-') -eq '{digest}' }}; [bool]$ca
"-----BEGIN CERTIFICATE-----`n" + [Convert]::ToBase64String($ca.RawData, 'InsertLineBreaks') + "`n-----END CERTIFICATE-----" | Set-Content -Encoding ascii ca.pem""",
        ),
        Step(
            "2. A key, and a request for a certificate.",
            f"""$key = [Security.Cryptography.RSA]::Create(2048)
$request = [{types}.CertificateRequest]::new('CN={seat.id}-device', $key, [Security.Cryptography.HashAlgorithmName]::SHA256, [Security.Cryptography.RSASignaturePadding]::Pkcs1)
[Convert]::ToBase64String($request.CreateSigningRequest()) | Set-Content -Encoding ascii -NoNewline req.b64""",
        ),
        Step(
            "3. The certificate, or what the server says.",
            f"""$answer = @(curl.exe -sS --ssl-no-revoke --cacert ca.pem -u "{seat.id}:{seat.password}" -H "Content-Type: application/pkcs10" --data-binary "@req.b64" -w '\\n%{{http_code}}' {reach}{url}/simpleenroll)
$bag.Clear(); if ($answer[-1] -ne '200') {{ $answer }} else {{ $bag.Import([Convert]::FromBase64String(-join $answer[0..($answer.Count - 2)])); $bag | Format-List Subject, Issuer, NotAfter }}""",
        ),
    ]
