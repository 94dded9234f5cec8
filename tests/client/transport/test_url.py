"""All forms of an EST server's URL (RFC 7030 3.1)."""

from __future__ import annotations

import pytest

from estgw.client.faults import UsageError
from estgw.client.transport import url

BASE = "/.well-known/est"


@pytest.mark.parametrize(
    ("text", "label", "enroll"),
    [
        ("est.example", None, f"https://est.example{BASE}/simpleenroll"),
        ("est.example:8443", None, f"https://est.example:8443{BASE}/simpleenroll"),
        ("https://est.example", None, f"https://est.example{BASE}/simpleenroll"),
        ("https://est.example/", "iot", f"https://est.example{BASE}/iot/simpleenroll"),
        (f"https://est.example{BASE}", None, f"https://est.example{BASE}/simpleenroll"),
        (f"https://est.example{BASE}/", "iot", f"https://est.example{BASE}/iot/simpleenroll"),
        (f"https://est.example{BASE}/iot", None, f"https://est.example{BASE}/iot/simpleenroll"),
        (f"https://est.example{BASE}/iot", "iot", f"https://est.example{BASE}/iot/simpleenroll"),
        (f"https://est.example{BASE}/cacerts", None, f"https://est.example{BASE}/simpleenroll"),
        (f"https://est.example{BASE}/simpleenroll", None, f"https://est.example{BASE}/simpleenroll"),
        (f"https://est.example{BASE}/iot/simplereenroll", None, f"https://est.example{BASE}/iot/simpleenroll"),
        (f"https://est.example{BASE}/cacerts", "iot", f"https://est.example{BASE}/iot/simpleenroll"),
        (f"https://est.example{BASE}/simpleEnroll", None, f"https://est.example{BASE}/simpleEnroll"),
        (f"https://est.example{BASE}/iot/CACerts", None, f"https://est.example{BASE}/iot/simpleEnroll"),
        (f"https://est.example/{BASE}/simpleEnroll", None, f"https://est.example{BASE}/simpleEnroll"),
        ("https://est.example/est/api", None, "https://est.example/est/api/simpleenroll"),
        ("https://est.example/CACerts", None, f"https://est.example{BASE}/simpleEnroll"),
        ("https://[::1]:8443", None, f"https://[::1]:8443{BASE}/simpleenroll"),
        ("[::1]", None, f"https://[::1]{BASE}/simpleenroll"),
        ("192.0.2.1:443", None, f"https://192.0.2.1{BASE}/simpleenroll"),
        ("https://bücher.example", None, f"https://xn--bcher-kva.example{BASE}/simpleenroll"),
        ("EST.Example", "a b", f"https://est.example{BASE}/a%20b/simpleenroll"),
    ],
)
def test_every_form_of_a_url_gives_the_enrolment_url(text, label, enroll):
    assert url.parse(text, label).url("simpleenroll") == enroll


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("ftp://est.example", None),
        ("", None),
        ("https://", None),
        ("https://user:pw@est.example", None),
        ("https://est.example/?a", None),
        ("https://est.example/#a", None),
        ("https://est.example:0x1", None),
        ("https://[::1", None),
        ("https://est.example/a b", None),
        ("https://est.example/\n", None),
        ("est.example", "simpleEnroll"),
        ("est.example", "a/b"),
        ("est.example", ""),
        ("https://est.example/.well-known/est/iot", "lab"),
        ("https://" + "a" * 80 + ".example", None),
    ],
)
def test_a_url_that_names_no_server_is_refused(text, label):
    with pytest.raises(UsageError):
        url.parse(text, label)


@pytest.mark.parametrize("path", ["", ":8080/.well-known/est", "/est"])
def test_an_http_url_is_refused_with_the_https_url(path):
    with pytest.raises(UsageError) as refused:
        url.parse(f"http://est.example{path}")
    assert str(refused.value) == (
        f"EST runs over https only (RFC 7030 3.3): write https://est.example{path} in place of http://est.example{path}"
    )


def test_only_a_path_outside_well_known_est_gets_a_hint():
    assert url.parse("est.example", "iot").hint == ""
    assert url.parse("https://est.example:8443/est/api").hint == (
        "-u names the path /est/api, and EST is usually under /.well-known/est: try -u https://est.example:8443."
    )
