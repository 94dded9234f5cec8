"""Options and checks that several of the client's tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from tests.client import rogue
from tests.kit.processes import ROOT

NEW = ("--new-key", "ec:P-256", "--subject", "CN=device", "-o", "device.pem")
ENROLL = (*NEW, "--no-csrattrs")
LOGIN = ("-p", "estuser:estpwd")
V12, V13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION


def challenge(_):
    return rogue.reply(401, content_type=None, WWW_Authenticate='Basic realm="estrealm"')


def pair_fits(certificate, key):
    loaded = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
    return loaded.public_key() == load_pem_private_key(Path(key).read_bytes(), None).public_key()


def python(*arguments, **options):
    """Run the interpreter on its own, with our package in its path."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    options = {"capture_output": True, "text": True, "timeout": 60, **options}
    return subprocess.run([sys.executable, *arguments], env=environment, **options)
