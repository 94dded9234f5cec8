"""Where the page is served: a free port, TLS, a new certificate."""

from __future__ import annotations

import http.client
import socket
import ssl

import pytest

from estgw.page.serving import Address, bind
from tests.kit.ca import root
from tests.page.shown import shown


def test_a_taken_port_is_replaced_by_the_next_free_one():
    with bind(Address("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with bind(Address("127.0.0.1", port, next_free=True)) as found:
            assert found.getsockname()[1] > port


def test_a_taken_port_that_was_asked_for_is_an_error_with_its_address():
    with bind(Address("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"can't listen on 127.0.0.1:{port}: Address already in use"):
            bind(Address("127.0.0.1", port))


def test_an_address_that_is_not_ours_is_an_error_wherever_a_free_port_would_do():
    with pytest.raises(OSError, match=r"can.t listen on 192\.0\.2\.1:8444"):
        bind(Address("192.0.2.1", 8444, next_free=True))


def test_the_link_has_the_token_behind_the_number_sign():
    with shown() as page:
        assert page.url == f"{page.base}/#{page.token}"
        assert page.base.startswith("http://127.0.0.1:")


def served_certificate(port: int) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as raw, context.wrap_socket(raw) as secure:
        found = secure.getpeercert(binary_form=True)
    assert found is not None
    return found


def test_https_has_our_certificate_and_after_a_reload_the_new_one(tmp_path):
    ca = root()
    first, second = ca.server().write(tmp_path, "first"), ca.server().write(tmp_path, "second")
    with shown(tls=first) as page:
        assert page.base.startswith("https://127.0.0.1:")
        port = int(page.base.rpartition(":")[2])
        context = ssl.create_default_context(cadata=ca.pem.decode())
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
        connection.request("GET", "/api/facts", headers={"Authorization": f"Bearer {page.token}"})
        assert connection.getresponse().read()
        before = served_certificate(port)
        page.served.reload(*second)
        assert served_certificate(port) != before
        connection.request("GET", "/api/facts", headers={"Authorization": f"Bearer {page.token}"})
        assert connection.getresponse().status == 200  # the open connection and the token stay
        connection.close()


def test_https_refuses_tls_11(tmp_path):
    with shown(tls=root().server().write(tmp_path, "own")) as page:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        place = ("127.0.0.1", int(page.base.rpartition(":")[2]))
        with socket.create_connection(place) as raw, pytest.raises(ssl.SSLError):
            context.wrap_socket(raw)
