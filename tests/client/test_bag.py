"""/cacerts: bootstrap by fingerprint, path validation, and a CA that changes its key (RFC 7030 4.1, RFC 4210 4.4)."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest

from estgw.client import bag
from estgw.client.faults import Exit
from estgw.client.transport import trust
from estgw.est import certs
from tests.client import rogue
from tests.client.conftest import Terminal
from tests.kit.ca import DAY, NOW, common_name, root


@pytest.fixture(scope="module")
def rollover():
    """The four certificates of RFC 4210 4.4.1, all of one name."""
    old, new = root("Rolling CA", ends=NOW + 100 * DAY), root("Rolling CA", ends=NOW + 3000 * DAY)
    return {
        "OldWithOld": old.certificate,
        "NewWithNew": new.certificate,
        "OldWithNew": new.vouch(old, ends=NOW + 100 * DAY),
        "NewWithOld": old.vouch(new, ends=NOW + 100 * DAY),
    }


def roles(entries):
    return {entry.certificate: entry.role for entry in entries}


@pytest.mark.parametrize("anchor", ["OldWithOld", "NewWithNew"])
def test_either_root_validates_all_four_certificates(rollover, anchor):
    entries = bag.examine(list(rollover.values()), [rollover[anchor]])
    assert roles(entries) == {certificate: role for role, certificate in rollover.items()}
    assert all(entry.is_good for entry in entries)
    assert [entry.role for entry in entries if entry.is_newest] == ["NewWithNew"]
    assert entries[0].is_newest


def test_without_the_cross_certificates_an_old_anchor_ends_at_the_old_root(rollover):
    two = [rollover["NewWithNew"], rollover["OldWithOld"]]
    entries = {entry.certificate: entry for entry in bag.examine(two, [rollover["OldWithOld"]])}
    assert entries[rollover["OldWithOld"]].is_good
    assert entries[rollover["OldWithOld"]].is_newest
    assert "neither the name and key of an anchor" in (entries[rollover["NewWithNew"]].fault or "")
    vouched = bag.examine(two, [rollover["OldWithOld"]], [trust.fingerprint(rollover["NewWithNew"])])
    assert all(entry.is_good for entry in vouched)


def test_an_expired_old_root_is_left_out_and_no_fault(rollover):
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=200)
    entries = bag.examine(list(rollover.values()), [rollover["NewWithNew"]], now=later)
    assert [entry.role for entry in entries if entry.is_good] == ["NewWithNew"]
    assert {entry.role for entry in entries if entry.is_expired} == {"OldWithOld", "OldWithNew", "NewWithOld"}


def test_a_forged_root_of_the_same_name_is_not_trusted(rollover):
    forged = root("Rolling CA", ends=NOW + 9000 * DAY).certificate
    entries = bag.examine([*rollover.values(), forged], [rollover["OldWithOld"]])
    by_certificate = {entry.certificate: entry for entry in entries}
    assert not by_certificate[forged].is_good
    assert not by_certificate[forged].is_newest
    assert by_certificate[rollover["NewWithNew"]].is_newest


def test_a_rollover_certificate_must_be_a_ca_certificate():
    """The rollover example of RFC 7030 A.1 has certificates without basicConstraints."""
    old, new = root("CA", ends=NOW + 10 * DAY), root("CA", ends=NOW + 99 * DAY)
    link = old.sign(common_name("CA"), new.key.public_key())
    entries = bag.examine([new.certificate, link], [old.certificate])
    assert not any(entry.is_good for entry in entries)


def test_subordinate_cas_are_validated_in_any_order():
    top = root("Root")
    first, second = root("Sub 1"), root("Sub 2")
    chain = [top.certificate, top.vouch(first), first.vouch(second)]
    for one in (chain, chain[::-1]):
        entries = bag.examine(one, [top.certificate])
        assert all(entry.is_good for entry in entries)
        assert sorted(entry.role for entry in entries) == ["intermediate", "intermediate", "root"]
    alone = bag.examine(chain[2:], [top.certificate])
    assert alone[0].fault


def test_roles_are_printed_and_all_four_stored(rollover, ca, holder, anchor, estclient, tmp_path):
    server_ca = tmp_path / "both.pem"
    server_ca.write_bytes(anchor.read_bytes() + pem(rollover["OldWithOld"]))
    body = rogue.bag(*rollover.values())
    with rogue.Server(holder, lambda _: rogue.reply(body=body)) as server:
        ended = estclient("cacerts", "-u", server.url, "-c", server_ca, "-o", "ca.pem")
    assert ended.status == Exit.DONE
    assert "NewWithNew, the newest root: CN=Rolling CA" in ended.err
    stored = certs.load_pem((tmp_path / "ca.pem").read_bytes())
    assert stored[0] == rollover["NewWithNew"]
    assert set(stored) == set(rollover.values())


def test_one_untrusted_certificate_prevents_storing_any(ca, holder, anchor, estclient, tmp_path):
    stranger = root("Stranger").certificate
    body = rogue.bag(ca.certificate, stranger)
    with rogue.Server(holder, lambda _: rogue.reply(body=body)) as server:
        ended = estclient("cacerts", "-u", server.url, "-c", anchor, "-o", "ca.pem")
        assert ended.status == Exit.UNTRUSTED
        assert "NOT TRUSTED" in ended.err
        assert not (tmp_path / "ca.pem").exists()
        command = (
            "cacerts",
            "-u",
            server.url,
            "-c",
            anchor,
            "-o",
            "ca.pem",
            "--fingerprint",
            trust.fingerprint(stranger),
        )
        assert estclient(*command).status == Exit.DONE


# Bootstrap (RFC 7030 4.1.1).


def test_bootstrap_shows_fingerprints_and_stores_nothing(ca, holder, estclient, enroller, tmp_path):
    with rogue.Server(holder, enroller()) as server:
        ended = estclient("cacerts", "-u", server.url, "-o", "ca.pem")
    assert ended.status == Exit.UNTRUSTED
    digits = trust.fingerprint(ca.certificate).upper()
    assert ":".join(digits[at : at + 2] for at in range(0, 64, 2)) in ended.err
    assert not ended.out
    assert not (tmp_path / "ca.pem").exists()


@pytest.mark.parametrize(
    "spell",
    [str, str.upper, lambda text: "sha256:" + text, lambda text: ":".join(text[at : at + 2] for at in range(0, 64, 2))],
)
def test_bootstrap_with_the_right_fingerprint_stores_the_root(ca, holder, estclient, enroller, tmp_path, spell):
    with rogue.Server(holder, enroller()) as server:
        command = (
            "cacerts",
            "-u",
            server.url,
            "-o",
            "ca.pem",
            "--fingerprint",
            spell(trust.fingerprint(ca.certificate)),
        )
        assert estclient(*command).status == Exit.DONE
    assert certs.load_pem((tmp_path / "ca.pem").read_bytes()) == [ca.certificate]


def test_bootstrap_with_another_fingerprint_stores_nothing(ca, holder, estclient, enroller, tmp_path):
    with rogue.Server(holder, enroller()) as server:
        command = ("cacerts", "-u", server.url, "-o", "ca.pem", "--fingerprint")
        assert estclient(*command, "00" * 32).status == Exit.UNTRUSTED
        assert estclient(*command, "0" * 63).status == Exit.USAGE
        # The server's own certificate is not a root, even with the right fingerprint.
        assert estclient(*command, trust.fingerprint(holder.certificate)).status == Exit.UNTRUSTED
    assert not (tmp_path / "ca.pem").exists()


def test_a_fingerprint_counts_for_one_root_only(ca, holder, estclient, tmp_path):
    body = rogue.bag(ca.certificate, root("Stranger").certificate)
    with rogue.Server(holder, lambda _: rogue.reply(body=body)) as server:
        ended = estclient(
            "cacerts", "-u", server.url, "-o", "ca.pem", "--fingerprint", trust.fingerprint(ca.certificate)
        )
    assert ended.status == Exit.UNTRUSTED
    assert not (tmp_path / "ca.pem").exists()


@pytest.mark.parametrize(("typed", "status"), [("yes\n", 0), ("y\n", 5), ("\n", 5), ("", 5)])
def test_bootstrap_at_a_terminal_needs_the_answer_yes(
    holder, estclient, enroller, monkeypatch, tmp_path, typed, status
):
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with rogue.Server(holder, enroller()) as server:
        assert estclient("cacerts", "-u", server.url, "-o", "ca.pem").status == status
    assert (tmp_path / "ca.pem").exists() == (status == 0)


def test_der_output_refuses_two_certificates(ca, holder, anchor, estclient, tmp_path):
    both = rogue.bag(ca.certificate, ca.vouch(root("Sub")))
    with rogue.Server(holder, lambda _: rogue.reply(body=both)) as server:
        command = ("cacerts", "-u", server.url, "-c", anchor, "-o", "out", "--outform")
        assert estclient(*command, "der").status == Exit.USAGE
        assert estclient(*command, "p7").status == Exit.DONE
    assert (tmp_path / "out").read_bytes().startswith(b"-----BEGIN PKCS7-----\n")


def pem(certificate):
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def test_a_hostile_bag_is_judged_in_bounded_time():
    """A hundred certificates of one name, each signed by the next; CPU time, since the machine may be busy."""
    import time

    chain = [root("Busy") for _ in range(50)]
    links = [signer.vouch(other) for signer, other in itertools.pairwise(chain)]
    began = time.process_time()
    entries = bag.examine([one.certificate for one in chain] + links, [chain[0].certificate])
    assert time.process_time() - began < 10
    assert entries


def test_unreadable_names_are_an_invalid_answer(ask, ca):
    der = certs.pack([ca.certificate])
    for new in (b"\x14\x07T\xf6st CA", b"\x03\x07\x00est CA"):
        ended = ask(rogue.reply(body=der.replace(b"\x0c\x07Test CA", new)))
        assert ended.status == Exit.INVALID_ANSWER
        assert "the server's certificates can't be read: not a certificate" in ended.err


def test_a_certificate_with_a_duplicate_extension_is_no_ca(ask, ca):
    der = certs.pack([ca.certificate, ca.issue("twice").certificate])
    twice = der.replace(bytes.fromhex("0603551d25"), bytes.fromhex("0603551d13"))
    assert twice != der
    ended = ask(rogue.reply(body=twice))
    assert ended.status == Exit.UNTRUSTED
    assert "NOT TRUSTED: it is no CA's certificate" in ended.err
