"""Renewal: the names stay, and a working pair is there at every instant (RFC 7030 4.2.2)."""

from __future__ import annotations

import os
import stat
from functools import partial

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.client import files
from estgw.client.faults import Exit
from estgw.est import certs, csr, encoding
from tests.client import rogue
from tests.client.common import V12, V13, pair_fits
from tests.kit.ca import common_name, root


@pytest.fixture
def device(ca, tmp_path):
    """A device with a pair in two files."""
    made = ca.issue("device", names=["a.example"])
    (tmp_path / "device.pem").write_bytes(made.pem)
    (tmp_path / "device.key").write_bytes(made.key_pem)
    (tmp_path / "device.key").chmod(0o640)
    return ("--cert", "device.pem", "--key", "device.key")


@pytest.mark.parametrize("version", [V12, V13])
def test_a_renewal_keeps_the_names_and_replaces_the_pair(
    ca, holder, anchor, estclient, enroller, device, version, tmp_path
):
    old = (tmp_path / "device.pem").read_bytes()
    with rogue.Server(holder, enroller(), version=version) as server:
        command = ("reenroll", "-u", server.url, "-c", anchor, *device)
        assert estclient(*command).status == Exit.DONE
        assert (tmp_path / "device.pem").read_bytes() != old
        assert not (tmp_path / "device.pem").is_symlink()
        for _ in range(3):
            assert estclient(*command, "--new-key").status == Exit.DONE
            assert pair_fits(tmp_path / "device.pem", tmp_path / "device.key")
        assert estclient(*command).status == Exit.DONE  # with the same key, through the links
        assert pair_fits(tmp_path / "device.pem", tmp_path / "device.key")
    request = server.requests[-1]
    assert request.operation == "simplereenroll"
    assert request.peer.subject == common_name(
        "device"
    )  # RFC 7030 3.3.2: authenticated by the certificate being renewed
    parsed = csr.parse(request.body)
    assert csr.difference(parsed, x509.load_pem_x509_certificate(old)) is None
    assert parsed.text_attribute(csr.CHALLENGE_PASSWORD) == request.binding
    assert stat.S_IMODE((tmp_path / "device.key").stat().st_mode) == 0o640
    assert len([path for path in tmp_path.iterdir() if path.name.startswith(".device.pem.pair-")]) == 2
    assert not (tmp_path / "device.key.next").exists()


def test_a_renewal_into_other_files_keeps_the_old_ones(holder, anchor, estclient, enroller, device, tmp_path):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with rogue.Server(holder, enroller()) as server:
        command = ("reenroll", "-u", server.url, "-c", anchor, *device, "--new-key", "ed25519", "-o", "new.pem")
        assert estclient(*command).status == Exit.DONE
    assert pair_fits(tmp_path / "new.pem", tmp_path / "new.key")
    assert all((tmp_path / name).read_bytes() == data for name, data in before.items())


def test_a_certificate_that_is_not_due_is_not_renewed(holder, anchor, estclient, enroller, device):
    with rogue.Server(holder, enroller()) as server:
        command = ("reenroll", "-u", server.url, "-c", anchor, *device, "--json", "--if-expires-within")
        ended = estclient(*command, "10d")
        assert (ended.status, ended.json["renewed"]) == (Exit.DONE, False)
        assert server.handshakes == 0
        assert estclient(*command, "40d").json["renewed"] is True
        assert estclient(*command, "forever").status == Exit.USAGE


def test_an_interrupted_rekey_uses_the_same_key_again(holder, anchor, estclient, enroller, device, tmp_path):
    """The CA identifies a pending request by its public key: another key would begin another request."""
    pending = [True]

    def later(_):
        return rogue.reply(202, content_type=None, Retry_After="3600") if pending[0] else ...

    with rogue.Server(holder, enroller(simplereenroll=later)) as server:
        command = ("reenroll", "-u", server.url, "-c", anchor, *device, "--new-key", "ec:P-384")
        assert estclient(*command).status == Exit.TRY_LATER
        assert pair_fits(tmp_path / "device.pem", tmp_path / "device.key")
        assert stat.S_IMODE((tmp_path / "device.key.next").stat().st_mode) == 0o600
        pending[0] = False
        assert estclient(*command).status == Exit.DONE
    first, second = [csr.parse(request.body) for request in server.requests if request.method == "POST"]
    assert first.spki == second.spki
    assert first.sha256 != second.sha256
    assert pair_fits(tmp_path / "device.pem", tmp_path / "device.key")


def test_a_rekey_never_reuses_the_key_in_use(holder, anchor, estclient, enroller, device, tmp_path):
    """The state after a power cut between the switch of the pair and the removal of the staged key."""
    (tmp_path / "device.key.next").write_bytes((tmp_path / "device.key").read_bytes())
    before = (tmp_path / "device.key").read_bytes()
    with rogue.Server(holder, enroller()) as server:
        assert estclient("reenroll", "-u", server.url, "-c", anchor, *device, "--new-key").status == Exit.DONE
    assert (tmp_path / "device.key").read_bytes() != before
    assert pair_fits(tmp_path / "device.pem", tmp_path / "device.key")


def test_an_empty_staged_key_is_replaced(holder, anchor, estclient, enroller, device, tmp_path):
    """The state after a power cut at the beginning: the next run of a timer must succeed."""
    for rest in (b"", b"-----BEGIN PRIVATE KEY-----\nMIG", b"\0" * 200):
        (tmp_path / "device.key.next").write_bytes(rest)
        with rogue.Server(holder, enroller()) as server:
            assert estclient("reenroll", "-u", server.url, "-c", anchor, *device, "--new-key").status == Exit.DONE
        assert pair_fits(tmp_path / "device.pem", tmp_path / "device.key")


def test_out_may_name_the_old_certificate_but_overwrites_no_other_key(
    holder, anchor, estclient, enroller, device, tmp_path
):
    with rogue.Server(holder, enroller()) as server:
        command = ("reenroll", "-u", server.url, "-c", anchor, *device, "--new-key", "-o")
        assert estclient(*command, tmp_path / "device.pem").status == Exit.DONE
        assert pair_fits(tmp_path / "device.pem", tmp_path / "device.key")
        (tmp_path / "new.key").write_text("precious")
        asked = len(server.requests)
        assert estclient(*command, "new.pem").status == Exit.FAILED
        assert len(server.requests) == asked
    assert (tmp_path / "new.key").read_text() == "precious"


def test_a_crash_at_any_instant_leaves_a_working_pair(ca, tmp_path, monkeypatch):
    """Cut after each call that changes the file system: the files behind both names must always fit."""
    changing = [
        ("os", name)
        for name in (
            "open",
            "write",
            "fsync",
            "mkdir",
            "fchmod",
            "fchown",
            "unlink",
            "rmdir",
            "rename",
            "replace",
            "symlink",
            "chmod",
        )
    ]

    monkeypatch.setattr("os.fsync", lambda _: None)  # counted like the others, without waiting for the disk

    class PowerCut(BaseException):
        pass

    def lay_out(room):
        old = ca.issue("device")
        (room / "d.pem").write_bytes(old.pem)
        (room / "d.key").write_bytes(old.key_pem)
        return old

    def cut_after(count, action):
        """Run with a power cut at call number `count`; False when the run was over before."""
        left = [count]
        with monkeypatch.context() as patch:
            for _, name in changing:
                real = getattr(os, name)

                def counted(*arguments, real=real, **options):
                    if left[0] == 0:
                        raise PowerCut
                    left[0] -= 1
                    return real(*arguments, **options)

                patch.setattr(os, name, counted)
            try:
                action()
            except PowerCut:
                return True
        return False

    def renew(room, holder):
        files.replace_pair(room / "d.pem", room / "d.key", holder.pem, holder.key_pem)

    seen_old = seen_new = 0
    for round_trip in range(2):  # from plain files, and from links
        for count in range(200):
            room = tmp_path / f"{round_trip}-{count}"
            room.mkdir()
            old = lay_out(room)
            if round_trip:
                old = ca.issue("device")
                renew(room, old)
            new = ca.issue("device")
            was_cut = cut_after(count, partial(renew, room, new))
            assert pair_fits(room / "d.pem", room / "d.key"), (round_trip, count)
            is_new = (room / "d.pem").read_bytes() == new.pem
            assert is_new or (room / "d.pem").read_bytes() == old.pem
            seen_new, seen_old = seen_new + is_new, seen_old + (not is_new)
            # The next run must succeed.
            last = ca.issue("device")
            renew(room, last)
            assert (room / "d.pem").read_bytes() == last.pem
            assert pair_fits(room / "d.pem", room / "d.key")
            if not was_cut:
                assert is_new
                break
        else:
            pytest.fail("it never came to an end")
    assert seen_old > 20
    assert seen_new > 2


def test_a_pair_in_two_directories_is_renewed(ca, tmp_path):
    for name in ("certs", "private"):
        (tmp_path / name).mkdir()
    old, new = ca.issue("x"), ca.issue("x")
    certificate, key = tmp_path / "certs" / "x.pem", tmp_path / "private" / "x.key"
    certificate.write_bytes(old.pem)
    key.write_bytes(old.key_pem)
    files.replace_pair(certificate, key, new.pem, new.key_pem)
    assert certificate.read_bytes() == new.pem
    assert pair_fits(certificate, key)


def test_the_chain_stays_in_the_file_if_it_fits_the_new_certificate(
    ca, holder, anchor, estclient, enroller, device, tmp_path
):
    """RFC 7030 4.2.3: the answer is one certificate, but a web server that reads the file needs the chain, too."""
    sub = root("Subordinate")
    above = ca.vouch(sub)

    def answer(request):
        return rogue.reply(body=rogue.bag(sub.certify(request.der)), content_type=rogue.CERTS_ONLY)

    shown = rogue.reply(body=rogue.bag(ca.certificate, above))
    path = tmp_path / "device.pem"
    path.write_bytes(path.read_bytes() + above.public_bytes(Encoding.PEM))
    with rogue.Server(holder, enroller(simplereenroll=answer, cacerts=shown)) as server:
        for more in ((), ("--new-key",)):
            assert estclient("reenroll", "-u", server.url, "-c", anchor, *device, *more).status == Exit.DONE
            renewed, *chain = certs.load_pem(path.read_bytes())
            assert chain == [above]
            renewed.verify_directly_issued_by(above)
            assert pair_fits(path, tmp_path / "device.key")
    with rogue.Server(holder, enroller()) as server:
        ended = estclient("reenroll", "-u", server.url, "-c", anchor, *device)
    assert ended.status == Exit.DONE
    assert "is left out" in ended.err
    assert len(certs.load_pem(path.read_bytes())) == 1


def test_owner_and_mode_of_the_files_stay(ca, holder, anchor, estclient, enroller, tmp_path, monkeypatch):
    """A service that reads its pair as another user must be able to after a renewal by root."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr("os.fchown", lambda _, user, group: given.append((user, group)))
    made = ca.issue("device")
    both, certificate, key = tmp_path / "both.pem", tmp_path / "c.pem", tmp_path / "c.key"
    both.write_bytes(made.both)
    certificate.write_bytes(made.pem)
    key.write_bytes(made.key_pem)
    for path, mode in ((both, 0o646), (certificate, 0o604), (key, 0o440)):
        path.chmod(mode)
    with rogue.Server(holder, enroller()) as server:
        for pair in (("--cert", both), ("--cert", both, "--new-key"), ("--cert", certificate, "--key", key)):
            assert estclient("reenroll", "-u", server.url, "-c", anchor, *pair).status == Exit.DONE
    assert stat.S_IMODE(both.stat().st_mode) == 0o640  # never readable by others with a key in it
    assert stat.S_IMODE(certificate.stat().st_mode) == 0o604
    assert set(given) == {(os.getuid(), os.getgid())}
    assert len(given) == 3


def test_a_certificate_with_unreadable_extensions_is_not_renewed(ca, holder, anchor, estclient, enroller, tmp_path):
    me = ca.issue("me")
    der = me.certificate.public_bytes(Encoding.DER)
    twice = der.replace(bytes.fromhex("0603551d25"), bytes.fromhex("0603551d13"))
    assert twice != der
    (tmp_path / "me.pem").write_bytes(me.key_pem + encoding.encode_pem(twice, "CERTIFICATE"))
    with rogue.Server(holder, enroller()) as server:
        ended = estclient("reenroll", "-u", server.url, "-c", anchor, "--cert", "me.pem")
    assert ended.status == Exit.USAGE
    assert "the certificate's extensions can't be read: Duplicate 2.5.29.19 extension found" in ended.err
    assert not server.requests
