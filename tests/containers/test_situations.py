"""Jobs between containers on private networks, and what goes wrong with hosts and networks."""

from __future__ import annotations

import ipaddress
import time

import pytest

from conftest import Site

TWO = {"alice": ["car", "cat", "dog", "train"], "bob": ["bus", "car", "cat", "tram"]}
THREE = {**TWO, "carol": ["boat", "car", "dog"]}

#: An upload that takes long enough to be interrupted: 16 bytes for each.
LONG = {**THREE, "bob": [f"id-{number:07}" for number in range(400_000)] + TWO["bob"]}
SENT_OF_IT = (1 << 20, 6_000_000)


@pytest.mark.tables(TWO)
def test_two_providers_meet_at_the_service_alone(site: Site) -> None:
    service = site.service()
    providers = {name: site.provider(name) for name in site.tables}
    addresses = [service.address(network) for network in site.networks.values()]
    assert len({ipaddress.ip_network(f"{address}/24", strict=False) for address in addresses}) == 2
    site.finish(providers)
    service.stop()
    service.ends(0)


@pytest.mark.tables(THREE)
def test_three_providers(site: Site) -> None:
    site.service()
    site.finish({name: site.provider(name) for name in site.tables})


@pytest.mark.tables(LONG)
def test_a_provider_is_killed_in_mid_upload(site: Site) -> None:
    site.service("--reconnect-within", "3s")
    alice, bob, carol = (site.provider(name) for name in site.tables)
    bob.freeze_once_sent(*SENT_OF_IT)
    bob.kill()
    for other in (alice, carol):
        said = other.ends(1)
        assert "'bob' left the job" in said, said
    site.finish({name: site.provider(name) for name in site.tables})


@pytest.mark.tables(LONG)
def test_a_network_is_away_for_a_moment_in_mid_upload(site: Site) -> None:
    service = site.service()
    providers = {name: site.provider(name) for name in site.tables}
    bob, network = providers["bob"], site.networks["bob"]
    go_on = bob.freeze_once_sent(*SENT_OF_IT)
    bob.disconnect(network)
    go_on()
    time.sleep(3)
    assert "sent" not in bob.said()
    bob.connect(network)
    site.finish(providers)
    assert 'outcome="result"' in service.said()


@pytest.mark.tables(LONG)
def test_a_provider_is_cut_off_in_mid_upload_and_comes_back_at_another_address(site: Site) -> None:
    site.service("--reconnect-within", "1m")
    providers = {name: site.provider(name) for name in site.tables}
    bob, network = providers["bob"], site.networks["bob"]
    before = bob.address(network)
    go_on = bob.freeze_once_sent(*SENT_OF_IT)
    bob.disconnect(network)
    go_on()
    # Takes the address, so that the old connection is of no use to anybody.
    other = site.bystander("bob")
    assert other.address(network) == before
    bob.connect(network)
    assert bob.address(network) != before
    site.finish(providers)
    assert "the connection to the service broke" in bob.said() and "reconnected" in bob.said(), bob.said()


@pytest.mark.tables(LONG)
def test_the_service_is_stopped_in_mid_upload_and_started_again(site: Site) -> None:
    service = site.service()
    providers = {name: site.provider(name) for name in site.tables}
    go_on = providers["bob"].freeze_once_sent(*SENT_OF_IT)
    service.stop()
    go_on()
    service.ends(0)
    for provider in providers.values():
        said = provider.ends(1)
        assert "the service is shutting down; nothing of the job is kept, run it again" in said, said
    service.start()
    site.finish({name: site.provider(name) for name in site.tables})


@pytest.mark.tables(THREE)
def test_the_service_dies_while_providers_wait_and_is_started_again(site: Site) -> None:
    service = site.service()
    providers = {name: site.provider(name) for name in ("alice", "bob")}
    for provider in providers.values():
        provider.wait_for("waiting for")
    service.kill()
    service.start()
    providers["carol"] = site.provider("carol")
    site.finish(providers)


@pytest.mark.tables(TWO)
def test_a_service_that_the_policy_does_not_accept_is_told_nothing(site: Site) -> None:
    service = site.service()
    accepted = (site.home / "platform/policy.toml").read_text()
    measurement = accepted.split('mr_enclave = "')[1][:64]
    (site.home / "alice/own.toml").write_text(accepted.replace(measurement, "11" * 32))
    said = site.provider("alice", "--policy", "own.toml").ends(3)
    assert measurement in said and "11" * 32 in said, said
    assert "the service was refused and nothing was sent to it" in said, said
    assert "a job is opened" not in service.said()
