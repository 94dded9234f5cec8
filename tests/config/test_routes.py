"""Building routes from a configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from estgw.config import loading, routes
from estgw.config.route import Route
from estgw.config.routes import Service
from estgw.est.operations import OPERATIONS, Body, Requires
from tests.kit.processes import ROOT


def build(directory: Path, callouts: dict[str, Any] | None = None, **groups: Any) -> dict[str | None, Service]:
    data = {
        "tls": {"certificate": "c", "key": "k"},
        "callouts": {"handlers": "handlers", "ca_dir": "ca", **(callouts or {})},
        **groups,
    }
    path = directory / "conf.yaml"
    path.write_text(yaml.safe_dump(data))
    return dict(routes.build(loading.load(path)))


def route(directory: Path, name: str, settings: dict[str, Any] | None = None, **callouts: Any) -> Route:
    """The unlabelled route of one operation."""
    operations = {name: settings} if settings is not None else {}
    return build(directory, {"operations": operations, **callouts})[None].routes[name]


ON = OPERATIONS.keys() - {"serverkeygen", "fullcmc"}


def test_the_operations_of_rfc_7030_but_two_are_served_by_default(tmp_path):
    (service,) = build(tmp_path).values()
    assert service.routes.keys() == ON
    assert (service.label, service.profile, service.base64_lines) == (None, "auto", "auto")


@pytest.mark.parametrize("name", sorted(ON))
def test_a_default_route_has_the_shared_settings(tmp_path, name):
    made = route(tmp_path, name)
    assert (made.operation, made.label, made.is_new) == (OPERATIONS[name], None, False)
    assert (made.handler, made.ca_dir) == (tmp_path / "handlers" / name, tmp_path / "ca")
    assert (made.requires, made.timeout) == (OPERATIONS[name].requires, 30)
    assert (made.raw_output, made.pass_credentials, made.serialize, dict(made.handler_env)) == (False, False, None, {})
    assert (made.authenticate, made.authorize) == (None, None)


@pytest.mark.parametrize("name", ["serverkeygen", "fullcmc"])
@pytest.mark.parametrize(
    ("settings", "served"),
    [({"enabled": True}, True), ({"enabled": False}, False), ({"timeout": 5}, False), ({}, False), (None, False)],
)
def test_serverkeygen_and_fullcmc_are_off_until_enabled(tmp_path, name, settings, served):
    operations = {name: settings} if settings is not None else {}
    assert (name in build(tmp_path, {"operations": operations})[None].routes) is served


def test_another_operation_is_on_unless_disabled(tmp_path):
    assert route(tmp_path, "csrattrs", {"timeout": 5}).timeout == 5
    assert "cacerts" not in build(tmp_path, {"operations": {"cacerts": {"enabled": False}}})[None].routes


def test_an_operation_may_override_every_setting(tmp_path):
    made = route(
        tmp_path,
        "simpleenroll",
        {
            "handler": "own",
            "requires": "both",
            "timeout": 5,
            "raw_output": True,
            "pass_credentials": True,
            "serialize": "ca",
            "handler_env": {"A": "b"},
            "authenticate": "who",
            "authorize": "may",
        },
    )
    assert (made.handler, made.requires, made.timeout) == (tmp_path / "own", Requires.BOTH, 5)
    assert (made.raw_output, made.pass_credentials, made.serialize) == (True, True, "ca")
    assert (dict(made.handler_env), made.authenticate, made.authorize) == (
        {"A": "b"},
        tmp_path / "who",
        tmp_path / "may",
    )


# Labels.


def test_a_label_is_served_like_the_unlabelled_paths(tmp_path):
    plain, iot = build(tmp_path, {"operations": {"cacerts": {"timeout": 5}}}, labels={"iot": {}}).values()
    assert iot.routes.keys() == plain.routes.keys()
    for name, made in iot.routes.items():
        assert made.label == "iot"
        assert (made.handler, made.timeout) == (plain.routes[name].handler, plain.routes[name].timeout)


def test_a_setting_of_a_label_overrides_the_shared_one(tmp_path):
    callouts = {
        "profile": "rfc",
        "operations": {"simpleenroll": {"timeout": 5, "requires": "tls", "handler": "shared"}},
    }
    iot = {
        "handlers": "iot-handlers",
        "ca_dir": "iot-ca",
        "profile": "draft",
        "base64_lines": "none",
        "operations": {"simpleenroll": {"timeout": 7}, "csrattrs": {"enabled": False}},
    }
    made = build(tmp_path, callouts, labels={"iot": iot})
    service = made["iot"]
    assert (service.label, service.profile, service.base64_lines) == ("iot", "draft", "none")
    assert "csrattrs" not in service.routes
    assert "csrattrs" in made[None].routes
    assert service.routes["cacerts"].handler == tmp_path / "iot-handlers/cacerts"
    assert service.routes["cacerts"].ca_dir == tmp_path / "iot-ca"
    enroll = service.routes["simpleenroll"]
    assert (enroll.timeout, enroll.requires, enroll.handler) == (7, Requires.TLS, tmp_path / "shared")


def test_a_label_may_enable_an_operation_that_is_off_for_all(tmp_path):
    shared = {"operations": {"cacerts": {"enabled": False}}}
    own = {"operations": {"cacerts": {"enabled": True}, "serverkeygen": {"enabled": True}}}
    made = build(tmp_path, shared, labels={"iot": own})
    assert not made[None].routes.keys() & {"cacerts", "serverkeygen"}
    assert made["iot"].routes.keys() >= {"cacerts", "serverkeygen"}


# Decisions.


def test_authorize_and_authenticate_are_shared_by_routes(tmp_path):
    made = build(tmp_path, {"authorize": "may", "authenticate": "who"})[None].routes
    assert made["simpleenroll"].authorize == tmp_path / "may"
    assert made["simpleenroll"].authenticate == tmp_path / "who"


@pytest.mark.parametrize("name", ["cacerts", "csrattrs"])
def test_shared_authorize_does_not_apply_where_nothing_is_required(tmp_path, name):
    assert route(tmp_path, name, authorize="may").authorize is None
    assert route(tmp_path, name, {"authorize": "own"}, authorize="may").authorize == tmp_path / "own"
    assert route(tmp_path, name, {"requires": "any"}, authorize="may").authorize == tmp_path / "may"


def test_authorize_null_switches_authorize_off(tmp_path):
    assert route(tmp_path, "simpleenroll", {"authorize": None}, authorize="may").authorize is None
    made = build(tmp_path, {"authorize": "may"}, labels={"iot": {"authorize": None}, "other": {}})
    assert made["iot"].routes["simpleenroll"].authorize is None
    assert made["other"].routes["simpleenroll"].authorize == tmp_path / "may"


@pytest.mark.parametrize("key", ["change_subject_name", "renew_without_certificate"])
def test_a_permission_for_all_can_be_taken_back_for_a_label(tmp_path, key):
    made = build(tmp_path, {key: True}, labels={"strict": {key: False}, "iot": {}})
    found = {label: getattr(service.routes["simplereenroll"], key) for label, service in made.items()}
    assert found == {None: True, "strict": False, "iot": True}


def test_csr_template_applies_to_every_operation_with_a_csr(tmp_path):
    everything = {name: {"enabled": True} for name in OPERATIONS.keys() - ON}
    made = build(tmp_path, {"csr_template": "t.yaml", "operations": everything},
                 labels={"iot": {"csr_template": "iot.yaml"}, "free": {"csr_template": None}, "other": {}})  # fmt: skip
    found = {label: service.routes["simpleenroll"].csr_template for label, service in made.items()}
    assert found == {
        None: tmp_path / "t.yaml",
        "iot": tmp_path / "iot.yaml",
        "free": None,
        "other": tmp_path / "t.yaml",
    }
    bound = {name for name, each in made[None].routes.items() if each.csr_template is not None}
    assert bound == {"simpleenroll", "simplereenroll", "serverkeygen", "fullcmc"}


# Operations that RFC 7030 does not define.


def test_a_new_get_operation_gets_a_route(tmp_path):
    made = route(tmp_path, "crls", {"method": "GET", "response_type": "a/b", "body": "der", "requires": "none"})
    operation = made.operation
    assert (made.is_new, made.handler, made.requires) == (True, tmp_path / "handlers/crls", Requires.NONE)
    assert (operation.method, operation.response_type, operation.body) == ("GET", "a/b", Body.DER)
    assert (operation.takes_body, operation.has_csr, operation.may_wait) == (False, False, False)


def test_a_new_operation_with_a_csr_gets_a_route(tmp_path):
    settings = {"method": "POST", "response_type": "a/b", "body": "issued", "request_types": ["application/pkcs10"]}
    operation = route(tmp_path, "otherenroll", settings).operation
    assert (operation.has_csr, operation.proves_key, operation.may_wait, operation.renews) == (True, True, True, False)
    assert (operation.request_types, operation.requires) == (("application/pkcs10",), Requires.ANY)


def test_a_new_operation_of_one_label_is_served_there_alone(tmp_path):
    own = {"operations": {"crls": {"method": "GET", "response_type": "a/b", "body": "raw"}}}
    made = build(tmp_path, labels={"iot": own, "other": {}})
    assert [label for label, service in made.items() if "crls" in service.routes] == ["iot"]
    assert [each.label for each in routes.routes(made) if each.is_new] == ["iot"]


def test_routes_yields_the_routes_of_all_labels(tmp_path):
    made = build(tmp_path, labels={"iot": {}})
    assert len(list(routes.routes(made))) == 8


def test_every_program_of_the_shipped_configuration_exists():
    made = routes.build(loading.load(ROOT / "conf.yaml"))
    assert made.keys() == {None, "python"}
    for each in routes.routes(made):
        assert all(program.is_file() for program in each.programs), each


# PATH.


def test_the_path_of_callouts_begins_with_a_virtual_environment(tmp_path, monkeypatch):
    def path() -> str:
        return route(tmp_path, "cacerts", path="/bin:/usr/bin").search_path

    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert path() == "/bin:/usr/bin"
    monkeypatch.setattr(sys, "prefix", "/venv")
    monkeypatch.setattr(sys, "executable", "/venv/bin/python")
    assert path() == "/venv/bin:/bin:/usr/bin"
