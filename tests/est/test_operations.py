"""The table of operations, and how a URL is resolved to one of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estgw.errors import BadRequest, MethodNotAllowed, NotFound, RequestError, UnsupportedMediaType
from estgw.est import operations
from estgw.est.operations import OPERATIONS, Body, Operation, Profile, Requires, Target

# The text of RFC 7030, by hand: method, request type, response type, and required authentication.
RFC7030 = {
    "cacerts": ("GET", None, "application/pkcs7-mime", Requires.NONE),
    "csrattrs": ("GET", None, "application/csrattrs", Requires.NONE),
    "simpleenroll": (
        "POST",
        "application/pkcs10",
        "application/pkcs7-mime; smime-type=certs-only",
        Requires.ANY,
    ),
    "simplereenroll": (
        "POST",
        "application/pkcs10",
        "application/pkcs7-mime; smime-type=certs-only",
        Requires.TLS,
    ),
    "serverkeygen": ("POST", "application/pkcs10", "multipart/mixed", Requires.ANY),
    "fullcmc": (
        "POST",
        "application/pkcs7-mime",
        "application/pkcs7-mime; smime-type=CMC-response",
        Requires.ANY,
    ),
}
DRAFT_NAMES = {
    "CACerts": "cacerts",
    "CSRAttrs": "csrattrs",
    "simpleEnroll": "simpleenroll",
    "simpleReEnroll": "simplereenroll",
    "serverKeyGen": "serverkeygen",
    "fullCMC": "fullcmc",
}


def test_the_table_has_the_six_operations_of_rfc_7030():
    assert OPERATIONS.keys() == RFC7030.keys()


@pytest.mark.parametrize("name", RFC7030)
def test_an_operation_has_method_types_and_requirement_of_rfc_7030(name):
    method, request_type, response_type, requires = RFC7030[name]
    operation = OPERATIONS[name]
    assert (operation.name, operation.method, operation.response_type) == (name, method, response_type)
    assert operation.requires is requires
    assert operation.takes_body is (method == "POST")
    assert operation.request_types[:1] == ((request_type,) if request_type else ())
    if request_type == "application/pkcs10":
        assert "application/x-est-pkcs10" in operation.request_types


def test_operations_with_a_csr_are_marked():
    with_csr = {name for name, operation in OPERATIONS.items() if operation.has_csr}
    assert with_csr == {"simpleenroll", "simplereenroll", "serverkeygen"}
    assert {name for name, operation in OPERATIONS.items() if operation.proves_key} == with_csr - {"serverkeygen"}
    assert {name for name, operation in OPERATIONS.items() if operation.renews} == {"simplereenroll"}
    assert {name for name, operation in OPERATIONS.items() if operation.may_wait} == {*with_csr, "fullcmc"}


# Paths.


@pytest.mark.parametrize("name", RFC7030)
def test_a_lower_case_path_is_that_of_the_rfc(name):
    assert operations.resolve(f"/.well-known/est/{name}", ()) == Target(name, None, draft_path=False)


@pytest.mark.parametrize(("word", "name"), DRAFT_NAMES.items())
def test_a_mixed_case_path_is_that_of_the_draft(word, name):
    assert operations.resolve(f"/.well-known/est/{word}", ()) == Target(name, None, draft_path=True)


def test_a_path_in_another_case_is_served_as_the_rfc_path():
    assert operations.resolve("/.well-known/est/SIMPLEENROLL", ()) == Target("simpleenroll", None, draft_path=False)


def test_a_label_is_read_from_the_path():
    labels = frozenset({"iot", "Fleet~1"})
    assert operations.resolve("/.well-known/est/iot/cacerts", labels) == Target("cacerts", "iot", draft_path=False)
    assert operations.resolve("/.well-known/est/Fleet~1/CACerts", labels).label == "Fleet~1"


def test_percent_encoding_is_decoded_once():
    assert operations.resolve("/.well-known/est/%63acerts", ()).operation == "cacerts"
    assert operations.resolve("/%2ewell-known/est/i%6ft/cacerts", {"iot"}).label == "iot"
    with pytest.raises(NotFound):
        operations.resolve("/.well-known/est/%2563acerts", ())


def test_operations_of_the_configuration_are_resolved():
    target = operations.resolve("/.well-known/est/crls", (), {"crls"})
    assert target == Target("crls", None, draft_path=False)
    assert operations.resolve("/.well-known/est/iot/crls", {"iot"}, {"crls"}).label == "iot"
    assert operations.resolve("/.well-known/est/CRLs", (), {"crls"}) == target
    assert operations.resolve("/.well-known/est/CRLs", (), {"CRLs"}).operation == "CRLs"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/", "EST lives under"),
        ("", "EST lives under"),
        ("*", "EST lives under"),
        ("/.well-known/", "EST lives under"),
        ("/.well-known/establish/cacerts", "EST lives under"),
        ("/.WELL-KNOWN/est/cacerts", "EST lives under"),
        ("//.well-known/est/cacerts", "EST lives under"),
        ("/.well-known/est", "No operation"),
        ("/.well-known/est/", "No operation"),
        ("/.well-known/est/nonsense", "No such EST operation"),
        ("/.well-known/est/cacerts.", "No such EST operation"),
        ("/.well-known/est/../cacerts", "No such CA label"),
        ("/.well-known/est//cacerts", "No such CA label"),
        ("/.well-known/est/IOT/cacerts", "No such CA label"),
        ("/.well-known/est/cacerts/cacerts", "No such CA label"),
        ("/.well-known/est/iot", "No such EST operation"),
        ("/.well-known/est/iot/", "ends in a slash"),
        ("/.well-known/est/cacerts/", "ends in a slash"),
        ("/.well-known/est/iot/cacerts/x", "Too many path segments"),
        ("/.well-known/est/iot/cacerts/", "Too many path segments"),
    ],
)
def test_an_unknown_path_is_a_404_with_the_reason(path, words):
    with pytest.raises(NotFound, match=words):
        operations.resolve(path, {"iot"}, {"crls"})


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/est/iot%2Fcacerts",
        "/.well-known/est/iot%2fcacerts",
        "/.well-known/est/cacerts%00",
        "/.well-known/est/cacerts%0A",
        "/.well-known/est/cacerts\t",
        "/.well-known/est/%ff",
        "/.well-known/est/\udcff",  # aiohttp's form of a byte that is not UTF-8
    ],
)
def test_a_path_with_encoded_slash_or_control_character_is_a_400(path):
    with pytest.raises(BadRequest):
        operations.resolve(path, ())


@given(st.text(st.characters(), max_size=60), st.sampled_from(["", "/.well-known/est/", "/.well-known/est/iot/"]))
def test_any_path_is_an_operation_or_a_refusal(tail, head):
    try:
        target = operations.resolve(head + tail, {"iot"}, {"crls"})
    except RequestError:
        return
    assert target.operation in {*OPERATIONS, "crls"}
    assert target.label in {None, "iot"}


@pytest.mark.parametrize("word", ["cacerts", "CACerts", "SIMPLEenroll"])
def test_a_name_of_an_operation_in_any_case_is_recognised(word):
    assert operations.is_operation_name(word)


def test_another_word_is_no_name_of_an_operation():
    assert not operations.is_operation_name("iot")


# Methods.


@pytest.mark.parametrize("name", RFC7030)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "get"])
def test_another_method_is_refused_with_allow(name, method):
    operation = OPERATIONS[name]
    if method == RFC7030[name][0]:
        operations.check_method(operation, method)
    else:
        with pytest.raises(MethodNotAllowed) as refusal:
            operations.check_method(operation, method)
        assert refusal.value.headers == {"Allow": RFC7030[name][0]}


# Media types.


@pytest.mark.parametrize(
    "content_type",
    [
        "application/pkcs10",
        "Application/PKCS10",
        " application/pkcs10 ; charset=utf-8",
        "application/pkcs10;x=y",
        "application/x-est-pkcs10",
    ],
)
@pytest.mark.parametrize("profile", Profile)
def test_media_types_of_pkcs10_are_accepted(content_type, profile):
    operations.check_media_type(OPERATIONS["simpleenroll"], content_type, profile)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/pkcs10x",
        "application/pkcs7-mime",
        "text/plain",
        "x; application/pkcs10",
        "application/x-www-form-urlencoded",
        "",
        None,
        "\x1b[31m",
    ],
)
def test_another_media_type_is_refused_with_the_expected_one(content_type):
    with pytest.raises(UnsupportedMediaType, match="simpleenroll takes application/pkcs10") as refusal:
        operations.check_media_type(OPERATIONS["simpleenroll"], content_type, Profile.RFC)
    assert refusal.value.public.isprintable()


@pytest.mark.parametrize("content_type", [None, "", "application/x-www-form-urlencoded"])
def test_draft_clients_may_send_no_type_or_curls_default(content_type):
    operations.check_media_type(OPERATIONS["simpleenroll"], content_type, Profile.DRAFT)


def test_draft_clients_may_not_send_another_type():
    with pytest.raises(UnsupportedMediaType, match="not text/plain"):
        operations.check_media_type(OPERATIONS["simpleenroll"], "text/plain", Profile.DRAFT)


def test_the_type_does_not_matter_without_a_body():
    operations.check_media_type(OPERATIONS["cacerts"], "text/plain", Profile.RFC)


def test_a_new_operation_without_types_accepts_any_type():
    new = Operation("new", "new", "POST", (), "text/plain", Body.RAW, Requires.ANY)
    operations.check_media_type(new, "image/png", Profile.RFC)


def test_a_long_type_is_cut_in_the_refusal():
    with pytest.raises(UnsupportedMediaType) as refusal:
        operations.check_media_type(OPERATIONS["simpleenroll"], "a" * 5000, Profile.RFC)
    assert len(refusal.value.public) < 200


@given(st.text() | st.none())
def test_essence_never_has_parameters(text):
    assert ";" not in operations.essence(text)


# Profiles.


@pytest.mark.parametrize(
    ("draft_path", "content_type", "setting", "profile"),
    [
        (False, "application/pkcs10", "auto", Profile.RFC),
        (True, "application/pkcs10", "auto", Profile.DRAFT),
        (False, "Application/X-EST-PKCS10; a=b", "auto", Profile.DRAFT),
        (False, None, "auto", Profile.RFC),
        (True, "application/x-est-pkcs10", "rfc", Profile.RFC),
        (False, "application/pkcs10", "draft", Profile.DRAFT),
    ],
)
def test_the_profile_follows_setting_path_and_type(draft_path, content_type, setting, profile):
    assert operations.profile_of(Target("simpleenroll", None, draft_path), content_type, setting) is profile


# Values that a Digest `uri` may have.

IOT = f"{operations.PREFIX}/iot/simpleenroll"
BARE = f"{operations.PREFIX}/simpleenroll"


@pytest.mark.parametrize(
    ("target", "label", "wanted"),
    [
        (BARE, None, {BARE}),
        (f"{BARE}?x=/a", None, {f"{BARE}?x=/a"}),
        (IOT, "iot", {IOT, BARE}),
        (f"{IOT}?x=1", "iot", {f"{IOT}?x=1", f"{BARE}?x=1"}),
        (f"{IOT}?x=/a/b", "iot", {f"{IOT}?x=/a/b", f"{BARE}?x=/a/b"}),
        (f"{IOT}?x=/a?y=/b", "iot", {f"{IOT}?x=/a?y=/b", f"{BARE}?x=/a?y=/b"}),
    ],
)
def test_a_slash_in_the_query_does_not_end_the_path(target, label, wanted):
    assert set(operations.twins(target, label)) == wanted


def test_a_query_cannot_name_another_operation():
    """An answer recorded for simpleenroll must not be valid for serverkeygen."""
    hostile = f"{operations.PREFIX}/iot/serverkeygen?x=/simpleenroll"
    assert BARE not in operations.twins(hostile, "iot")
