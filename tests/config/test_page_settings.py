"""`page` in conf.yaml: where it may be served, and what a demo does about it."""

from __future__ import annotations

import pytest

from estgw.config import model
from estgw.errors import ConfigError
from tests.config.test_model import LEAST, load

KEEP = "record: {keep: 10}\n"


def fault(tmp_path, text: str) -> str:
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path, LEAST + text)
    (found,) = refusal.value.faults
    return found.removeprefix(f"{tmp_path}/conf.yaml:")


def test_there_is_no_page_by_default(tmp_path):
    made = load(tmp_path, LEAST)
    assert (made.page.listen, made.page.hosts, made.page.public) == (None, (), False)


@pytest.mark.parametrize("address", ["127.0.0.1:8444", "127.9.9.9:1", '"[::1]:8444"', "127.0.0.1:0"])
def test_a_page_on_this_machine_needs_records_in_memory_and_nothing_else(tmp_path, address):
    assert load(tmp_path, f"{LEAST}{KEEP}page: {{listen: {address}}}\n").page.listen == address.strip('"')


@pytest.mark.parametrize("address", ["0.0.0.0:8444", "192.0.2.1:8444", '"[::]:8444"'])
def test_an_address_that_others_reach_needs_public(tmp_path, address):
    text = f"{KEEP}page: {{listen: {address}}}\n"
    assert fault(tmp_path, text).endswith(
        f"page: {address.strip(chr(34))} can be reached from other machines: listen on 127.0.0.1 or [::1], "
        "or say public: true, for TLS with the gateway's certificate"
    )
    public = text.replace("listen:", "public: true, listen:")
    assert load(tmp_path, LEAST + public).page.public


def test_tokens_editor_and_hand_are_off_unless_they_are_named(tmp_path):
    page = load(tmp_path, LEAST).page
    assert (page.tokens, page.edit, page.hand) == (None, None, False)
    made = load(tmp_path, f"{LEAST}{KEEP}page: {{tokens: tokens, edit: handlers, hand: true}}\n").page
    assert (made.tokens, made.edit, made.hand) == (tmp_path / "tokens", tmp_path / "handlers", True)


def test_several_workers_have_no_page(tmp_path):
    text = f"{KEEP}server: {{workers: 2}}\npage: {{listen: 127.0.0.1:8444}}\n"
    assert "page: each worker has records of its own, and a page shows those of one: set server.workers to 1" in fault(
        tmp_path, text
    )
    assert load(tmp_path, LEAST + text.replace("workers: 2", "workers: 1"))


def test_a_page_of_nothing_is_refused(tmp_path):
    said = fault(tmp_path, "page: {listen: 127.0.0.1:8444}\n")
    assert said.endswith("page: the page shows the records in memory: set record.keep, such as 200")
    assert said.startswith("3:")  # the line of page


def test_the_gateways_own_address_is_refused(tmp_path):
    said = fault(tmp_path, f"{KEEP}page: {{listen: 127.0.0.1:8443}}\n")
    assert said.endswith("page: 127.0.0.1:8443 is an address of the gateway itself: take another port")


@pytest.mark.parametrize("name", ["lab.example:8444", "http://lab", "a b", "", "-x"])
def test_a_host_is_a_name_without_a_port(tmp_path, name):
    assert "a host name without a port is expected, such as lab.example" in fault(
        tmp_path, f'{KEEP}page: {{listen: 127.0.0.1:8444, hosts: ["{name}"]}}\n'
    )


def test_a_host_is_kept_in_lower_case(tmp_path):
    made = load(tmp_path, f"{LEAST}{KEEP}page: {{listen: 127.0.0.1:8444, hosts: [Lab.Example]}}\n")
    assert made.page.hosts == ("lab.example",)


def test_a_demo_has_a_page_where_conf_yaml_is_silent(tmp_path):
    assert load(tmp_path, LEAST).for_demo(tmp_path).page.listen == model.DEMO_PAGE
    assert load(tmp_path, LEAST + KEEP).for_demo(tmp_path).page.listen == model.DEMO_PAGE


@pytest.mark.parametrize("text", ["page: {listen: null}\n", "record: {keep: 0}\n", "server: {workers: 2}\n"])
def test_a_demo_follows_what_conf_yaml_says(tmp_path, text):
    assert load(tmp_path, LEAST + text).for_demo(tmp_path).page.listen is None
