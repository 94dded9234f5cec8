"""Loading a configuration: what the gateway gets from it, and which faults it reports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.callout.call import CSRFacts
from estgw.errors import BadRequest, ConfigError, Unavailable
from estgw.est import encoding
from estgw.est.csr import parse
from estgw.gateway import request, state
from estgw.gateway.labels import Snapshot
from tests.kit.ca import root
from tests.kit.csr import csr
from tests.kit.workspace import Workspace


def change(lab: Workspace, **groups: dict[str, Any]) -> Path:
    """Change some keys of the workspace's conf.yaml."""
    path = lab.path / "conf.yaml"
    data = yaml.safe_load(path.read_text())
    for group, changes in groups.items():
        data[group] = {**(data.get(group) or {}), **changes}
    path.write_text(yaml.safe_dump(data))
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        state.load(path)
    return [fault.removeprefix(f"{path.parent}/") for fault in refusal.value.faults]


def label_faults(path: Path) -> list[str]:
    """The faults that take labels out of service, while the others are served."""
    assert state.load(path).label_faults
    return [fault.removeprefix(f"{path.parent}/") for fault in Snapshot.take(path).sentences()]


def test_the_shipped_configuration_loads_with_its_label_and_anchor(lab):
    made = state.load(lab.path / "conf.yaml")
    assert made.labels == {"python"}
    assert made.extra_operations == frozenset()
    assert [each.subject for each in made.anchors.explicit] == [
        x509.load_pem_x509_certificate(lab.anchor.read_bytes()).subject
    ]
    assert made.anchors.implicit == ()
    assert made.passwords.challenges() == ['Basic realm="estrealm"']


def test_load_finds_labels_and_configured_operations(own_lab):
    own_lab.script("handlers/openssl/crls", "exit 0")
    crls = {"method": "GET", "response_type": "application/pkix-crl", "body": "der", "requires": "none"}
    made = state.load(change(own_lab, labels={"iot": {"operations": {"crls": crls}}, "other": {}}))
    assert made.labels == {"python", "iot", "other"}
    assert made.extra_operations == {"crls"}
    assert made.services.keys() == {None, "python", "iot", "other"}


def test_anchors_of_both_classes_are_kept_apart(own_lab, tmp_path):
    third = root("Third party")
    file = tmp_path / "third.pem"
    file.write_bytes(third.certificate.public_bytes(Encoding.PEM) * 2)
    made = state.load(change(own_lab, client_auth={"implicit": [str(file)]}))
    assert made.anchors.implicit == (third.certificate, third.certificate)
    assert third.certificate not in made.anchors.explicit


def test_load_accepts_a_crl_in_pem(own_lab, tmp_path):
    ca = root("Third party")
    file = tmp_path / "crl.pem"
    file.write_bytes(ca.crl().public_bytes(Encoding.PEM))
    state.load(change(own_lab, client_auth={"crls": [str(file)]}))


def test_a_crl_whose_issuer_cannot_be_read_is_a_fault_of_its_file(own_lab, tmp_path):
    der = root("Third").crl().public_bytes(Encoding.DER).replace(b"Third", b"Th\xffrd")
    (own_lab.path / "odd.pem").write_bytes(encoding.encode_pem(der, "X509 CRL"))
    (found,) = faults(change(own_lab, client_auth={"crls": ["odd.pem"]}))
    assert found.startswith("odd.pem: not a CRL in PEM: ")


def test_without_users_no_password_is_taken(own_lab):
    assert state.load(change(own_lab, client_auth={"users": None})).passwords.challenges() == []


# Faults.


def test_all_faults_are_reported_at_once_with_their_files(own_lab):
    lab = own_lab
    (lab.path / "empty.pem").write_text("nothing")
    (lab.path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
    (lab.path / "bad.htpasswd").write_text("ann\nbob:plaintext\n")
    (lab.path / "handlers/openssl/cacerts").chmod(0o644)
    (lab.path / "handlers/openssl/simpleenroll").unlink()
    (lab.path / "handlers/openssl/csrattrs").write_text("#!/no/such/bash\n")
    path = change(
        lab,
        client_auth={
            "explicit": ["missing.pem", "empty.pem"],
            "implicit": ["broken.pem"],
            "crls": ["empty.pem", "missing.crl"],
            "users": "bad.htpasswd",
        },
        tls={"certificate": "missing-server.pem"},
        callouts={"ca_dir": "no-ca"},
    )
    found = faults(path)
    assert found[:7] == [
        "missing.pem: No such file or directory",
        "empty.pem: no certificate in it",
        found[2],
        found[3],
        "missing.crl: No such file or directory",
        "bad.htpasswd:1:1: not of the form user:hash",
        "bad.htpasswd:2:5: not a hash that is accepted (bcrypt is best)",
    ]
    assert found[2].startswith("broken.pem: not a certificate")
    assert found[3].startswith("empty.pem: not a CRL in PEM")
    assert "missing-server.pem" in found[7]
    handlers = f"{lab.path}/handlers/openssl"
    assert [fault.removeprefix("handlers/openssl/") for fault in found[8:]] == [
        f"cacerts: not executable; chmod +x {handlers}/cacerts (the default label)",
        "csrattrs: its interpreter /no/such/bash does not exist (the default label)",
        "simpleenroll: No such file or directory (the default label)",
        "no-ca: not a directory (the default label, label python)",
    ]


def test_a_fault_of_a_shared_handler_is_reported_once(own_lab):
    (own_lab.path / "handlers/openssl/cacerts").unlink()
    path = change(own_lab, labels={"iot": {}, "other": {}})
    assert label_faults(path) == [
        "handlers/openssl/cacerts: No such file or directory (the default label, label iot, label other)"
    ]


def test_a_missing_decision_script_is_a_fault(own_lab):
    assert label_faults(change(own_lab, callouts={"authorize": "no-script"})) == [
        "no-script: No such file or directory (the default label)"
    ]


def test_an_operation_that_is_off_needs_no_handler(own_lab):
    (own_lab.path / "handlers/openssl/serverkeygen").unlink()
    assert state.load(own_lab.path / "conf.yaml")
    path = change(own_lab, callouts={"operations": {"serverkeygen": {"enabled": True}}})
    assert label_faults(path) == ["handlers/openssl/serverkeygen: No such file or directory (the default label)"]


def test_a_key_of_another_certificate_is_a_fault(own_lab):
    found = faults(change(own_lab, tls={"key": "openssl-ca/private/cakey.pem"}))
    assert len(found) == 1
    assert "cakey.pem" in found[0]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"digest": ["MD5"], "digest_users": "none"}, "none: No such file or directory"),
        ({"digest": ["MD5"], "digest_users": "bad"}, "bad:1:1: not of the form user:realm:hash"),
    ],
)
def test_a_missing_or_malformed_digest_file_is_a_fault(own_lab, changes, fault):
    (own_lab.path / "bad").write_text("ann:estrealm\n")
    (found,) = faults(change(own_lab, client_auth=changes))
    assert found.startswith(fault)


def test_digest_is_offered_beside_basic(own_lab):
    (own_lab.path / "good").write_text("estuser:estrealm:36807fa200741bb0e8fb04fcf08e2de6\n")
    changes = {"digest": ["MD5", "SHA-256"], "digest_users": "good"}
    offered = state.load(change(own_lab, client_auth=changes)).passwords.challenges()
    assert [challenge.split()[0] for challenge in offered] == ["Digest", "Digest", "Basic"]
    assert ["algorithm" in challenge for challenge in offered] == [False, True, False]


def test_a_process_keeps_its_nonces_over_a_reload(own_lab):
    (own_lab.path / "good").write_text("estuser:estrealm:36807fa200741bb0e8fb04fcf08e2de6\n")
    digest = {"digest": ["MD5"], "digest_users": "good"}
    path = change(own_lab, client_auth=digest, callouts={"runner": "exec"}, labels={"python": {"runner": "exec"}})
    resources = state.ProcessResources()
    first, second = state.load(path, resources), state.load(path, resources)
    assert first.passwords._digest is not None
    assert second.passwords._digest is not None
    assert first.passwords._digest._nonces is second.passwords._digest._nonces is resources.nonces
    assert state.ProcessResources().nonces is not resources.nonces


# CSR templates.


def test_load_makes_one_template_check_per_file(own_lab):
    (own_lab.path / "iot.yaml").write_text("- key: rsa:3072\n")
    shipped = "handlers/openssl/csrattrs.yaml"
    made = state.load(
        change(own_lab, callouts={"csr_template": shipped}, labels={"iot": {"csr_template": "iot.yaml"}, "x": {}})
    )
    assert made.template_checks.keys() == {own_lab.path / shipped, own_lab.path / "iot.yaml"}


def test_a_csr_is_refused_with_the_list_of_what_it_lacks(own_lab):
    (own_lab.path / "t.yaml").write_text("- key: ec:P-384\n- serialNumber\n")
    made = state.load(change(own_lab, callouts={"csr_template": "t.yaml"}))
    parsed, route = parse(csr("device-1")), made.services[None].routes["simpleenroll"]
    assert route.csr_template == own_lab.path / "t.yaml"
    with pytest.raises(BadRequest) as refusal:
        request.require_template(CSRFacts(parsed), route, made.template_checks[own_lab.path / "t.yaml"])
    assert refusal.value.public == (
        "The CSR lacks what is insisted on here: a key ec:P-384 (it has ec:P-256); serialNumber."
    )


def test_any_csr_is_accepted_without_a_template(lab):
    made = state.load(lab.path / "conf.yaml")
    request.require_template(CSRFacts(parse(csr("device-1"))), made.services[None].routes["simpleenroll"], None)
    assert made.template_checks == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "t.yaml: No such file or directory"),
        ("# nothing", "t.yaml:1:1: there is nothing in it to insist on"),
        ("- key: P-256\n- serialNumber: 5\n", "t.yaml:1:3: 0.key: 'P-256' is no kind of key"),
        ("- template: {subject: [commonname, nonsense]}\n", "t.yaml:1:36: 0.template.subject.1: 'nonsense' is no name"),
        ("- hex: 3018061 6\n", "t.yaml:1:3: 0.hex: no hex digits"),
    ],
)
def test_a_broken_csr_template_is_a_fault_with_its_place(own_lab, text, fault):
    if text is not None:
        (own_lab.path / "t.yaml").write_text(text)
    found = label_faults(change(own_lab, labels={"iot": {"csr_template": "t.yaml"}}))
    assert found[0].startswith(fault), found


# A fault of one label.


def test_a_faulty_label_is_refused_with_503_and_the_others_are_served(own_lab):
    (own_lab.path / "handlers/python/authorize").chmod(0o644)
    made = state.load(own_lab.path / "conf.yaml")
    assert made.label_faults.keys() == {"python"}
    made.require_in_service(None)
    with pytest.raises(Unavailable) as refusal:
        made.require_in_service("python")
    assert refusal.value.public == (
        "Label python is out of service, because its configuration has a fault. The server's log says which."
    )
    assert str(refusal.value).startswith(
        f"label python is out of service: {own_lab.path}/handlers/python/authorize: not "
    )
    assert 60 <= int(refusal.value.headers["Retry-After"]) <= 120


def test_the_pool_runner_is_a_fault_for_a_shell_script(own_lab):
    found = label_faults(change(own_lab, labels={"iot": {"runner": "pool"}}))
    assert (
        "handlers/openssl/cacerts: the runner pool is for Python scripts; auto and exec are for all (label iot)"
        in found
    )


def test_if_every_label_has_a_fault_the_configuration_is_refused(own_lab):
    path = change(own_lab, callouts={"ca_dir": "no-ca"})
    assert faults(path) == ["no-ca: not a directory (the default label, label python)"]
    data = yaml.safe_load(path.read_text())
    del data["labels"]
    path.write_text(yaml.safe_dump(data))
    assert faults(path) == ["no-ca: not a directory"]


def test_a_snapshot_is_the_same_in_another_process(own_lab):
    (own_lab.path / "handlers/python/authorize").chmod(0o644)
    (own_lab.path / "t.yaml").write_text("- serialNumber\n")
    path = change(own_lab, labels={"iot": {"csr_template": "t.yaml"}})
    taken = Snapshot.take(path)
    again = Snapshot.decode(path, taken.encode().decode())
    assert again == taken
    assert again.faults.keys() == {"python"}
    # The files may change meanwhile; each worker still has the same labels in service.
    (own_lab.path / "t.yaml").unlink()
    (own_lab.path / "handlers/python/authorize").chmod(0o755)
    made = state.load(path, snapshot=again)
    assert made.label_faults == taken.faults
    assert made.template_checks.keys() == {own_lab.path / "t.yaml"}


def test_loading_leaves_no_file_open(own_lab):
    before = set(os.listdir("/proc/self/fd"))
    state.load(own_lab.path / "conf.yaml")
    (own_lab.path / "users.htpasswd").unlink()
    faults(own_lab.path / "conf.yaml")
    assert set(os.listdir("/proc/self/fd")) == before
