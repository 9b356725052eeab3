"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

BASIC = """
import asyncio
import pytest

def exchange(pools):
    async def work():
        for i, sender in enumerate(pools):
            for j, receiver in enumerate(pools):
                if i != j:
                    await sender.send(f"local{j}", (i, j))
                    assert await receiver.recv(f"local{i}") == (i, j)
    return work()

@pytest.mark.asyncio
async def test_duo(http_pool_duo):
    assert len(http_pool_duo) == 2
    await exchange(http_pool_duo)

@pytest.mark.asyncio
async def test_trio(http_pool_trio):
    assert len(http_pool_trio) == 3
    await exchange(http_pool_trio)

@pytest.mark.asyncio
@pytest.mark.parametrize("count", [1, 4, 12])
async def test_group(http_pool_group_factory, count):
    pools = http_pool_group_factory(count)
    assert pools is http_pool_group_factory(count)
    await exchange(pools)

def test_without_asyncio(http_pool_duo):
    asyncio.run(exchange(http_pool_duo))

def test_ports_are_free_ones(http_pool_duo):
    assert all(pool.http_server.port > 1024 for pool in http_pool_duo)

def test_no_group_of_nobody(http_pool_group_factory):
    with pytest.raises(ValueError):
        http_pool_group_factory(0)
"""


def run(pytester: pytest.Pytester, text: str, *options: str, ini: str = "") -> pytest.RunResult:
    pytester.makepyfile(text)
    pytester.makeini(f"[pytest]\nasyncio_mode = strict\n{ini}\n")
    plugin = [] if pytester.plugins_are_installed else ["-p", "convelo.testing"]
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *plugin, *options)


@pytest.fixture
def pytester(pytester: pytest.Pytester) -> pytest.Pytester:
    from importlib.metadata import entry_points

    names = [plugin.value for plugin in entry_points(group="pytest11")]
    pytester.plugins_are_installed = "convelo.testing" in names  # type: ignore[attr-defined]
    return pytester


@pytest.mark.parametrize("scope", ["function", "class", "module", "package", "session"])
def test_every_scope_with_loops_of_any_scope(pytester: pytest.Pytester, scope: str) -> None:
    result = run(pytester, BASIC, "--fixture-pool-scope", scope)
    result.assert_outcomes(passed=8)


def test_a_scope_that_is_wider_than_a_test_keeps_the_pools(pytester: pytest.Pytester) -> None:
    text = """
    seen = []
    def test_one(http_pool_duo): seen.append(http_pool_duo)
    def test_two(http_pool_duo): seen.append(http_pool_duo)
    def test_same(): assert (seen[0] is seen[1]) is {same}
    """
    run(pytester, text.format(same=True), "--fixture-pool-scope=module").assert_outcomes(passed=3)
    run(pytester, text.format(same=False)).assert_outcomes(passed=3)


def test_the_scope_for_fixtures_of_ones_own(pytester: pytest.Pytester) -> None:
    text = """
    import pytest
    from convelo.testing import determine_pool_scope

    @pytest.fixture(scope=determine_pool_scope)
    def mine(http_pool_duo): return http_pool_duo

    def test_it(mine, http_pool_duo): assert mine is http_pool_duo
    """
    run(pytester, text, "--fixture-pool-scope=session").assert_outcomes(passed=1)


def test_a_lost_message_fails_the_test(pytester: pytest.Pytester) -> None:
    text = """
    import asyncio, pytest

    @pytest.mark.asyncio
    async def test_it(http_pool_duo):
        http_pool_duo[0].add_http_client("nobody", "127.0.0.1", 1)
        http_pool_duo[0].asend("nobody", 1, "lost", max_retries=0)
        await asyncio.sleep(1)
    """
    result = run(pytester, text)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ShutdownError*lost*"])


FIVE = """
import pytest
from convelo.compat.tno5 import MockCommunicator, Pool

@pytest.mark.asyncio
@pytest.mark.parametrize("run", [0, 1])
async def test_both_kinds(http_pool_duo, mock_pool_duo, run):
    for pools in (http_pool_duo, mock_pool_duo):
        assert all(isinstance(pool, Pool) for pool in pools)
        # Each test begins with the first default id and nothing left over.
        await pools[0].send("local1", run)
        await pools[0].send("local1", "left over")
        assert await pools[1].recv("local0", "0") == run

@pytest.mark.asyncio
async def test_groups(http_pool_group_factory, mock_pool_group_factory, http_pool_trio, mock_pool_trio):
    assert await http_pool_group_factory(3) == http_pool_trio
    assert len(await mock_pool_group_factory(5)) == 5
    assert isinstance(mock_pool_trio[0].communicator, MockCommunicator)
    await mock_pool_trio[0].broadcast("hello", "id")
    assert await mock_pool_trio[1].recv("local0", "id") == "hello"
"""


@pytest.mark.parametrize("scope", ["function", "session"])
def test_the_api_of_5(pytester: pytest.Pytester, scope: str) -> None:
    result = run(pytester, FIVE, "--fixture-pool-scope", scope, ini="convelo_pool_api = 5")
    result.assert_outcomes(passed=3)


def test_an_api_that_is_not_known(pytester: pytest.Pytester) -> None:
    result = run(pytester, BASIC, ini="convelo_pool_api = 3")
    assert result.ret != 0
    result.stderr.fnmatch_lines(["*expected convelo_pool_api to be 4 or 5, not 3*"])


def test_fixtures_that_are_imported_from_the_test_package(pytester: pytest.Pytester) -> None:
    text = """
    import asyncio
    from convelo.compat.tno.test import *
    from convelo.compat.tno.test import fixture_pool_http_2p, fixture_pool_https_3p_certs_as_id

    def greet(pools):
        async def work():
            await pools[0].send("local1", "hello")
            assert await pools[1].recv("local0") == "hello"
        asyncio.run(work())

    def test_plain(pool_http_2p): greet(pool_http_2p)
    def test_with_tls(pool_https_3p_certs_as_id):
        assert len(pool_https_3p_certs_as_id) == 3
        greet(pool_https_3p_certs_as_id)
    """
    run(pytester, text).assert_outcomes(passed=2)


GENUINE_LIKE = """
import pytest

def pytest_addoption(parser):
    parser.addoption("--fixture-pool-scope", default="function")

@pytest.fixture
def http_pool_duo():
    return "the genuine ones"
"""

USES_IT = """
def test_duo(http_pool_duo, pytestconfig):
    assert http_pool_duo == "the genuine ones"
    assert pytestconfig.getoption("--fixture-pool-scope") == "module"

def test_none_of_ours_is_defined(request):
    import pytest
    for name in ("http_pool_trio", "http_pool_group_factory", "mock_pool_duo"):
        with pytest.raises(pytest.FixtureLookupError):
            request.getfixturevalue(name)
"""


def genuine_like(pytester: pytest.Pytester, *, entry_point: bool) -> None:
    """A plugin with the option and a fixture of the genuine package's, which pytest would not take
    twice. It is where the tests run, which is on the path of the processes."""
    pytester.makepyfile(genuine_like_plugin=GENUINE_LIKE)
    if entry_point:
        metadata = pytester.mkdir("genuine_like-1.dist-info")
        (metadata / "METADATA").write_text("Name: genuine-like\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(
            "[pytest11]\nanother_name = genuine_like_plugin\n"
        )


def test_beside_the_genuine_plugin_by_its_entry_point(pytester: pytest.Pytester) -> None:
    genuine_like(pytester, entry_point=True)
    run(pytester, USES_IT, "--fixture-pool-scope=module").assert_outcomes(passed=2)


@pytest.mark.parametrize("ours_first", [True, False])
def test_beside_the_genuine_plugin_given_by_p(
    pytester: pytest.Pytester, ours_first: bool
) -> None:
    genuine_like(pytester, entry_point=False)
    plugins = ["-p", "convelo.testing", "-p", "genuine_like_plugin"]
    if not ours_first:
        plugins = plugins[2:] + plugins[:2]
    result = run(pytester, USES_IT, *plugins, "--fixture-pool-scope=module")
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("ours", ["", "'convelo.testing', ", "last"])
def test_beside_the_genuine_plugin_in_pytest_plugins(
    pytester: pytest.Pytester, ours: str
) -> None:
    genuine_like(pytester, entry_point=False)
    named = "'genuine_like_plugin', 'convelo.testing'" if ours == "last" else (
        f"{ours}'genuine_like_plugin'"
    )
    pytester.makeconftest(f"pytest_plugins = [{named}]")
    run(pytester, USES_IT, "--fixture-pool-scope=module").assert_outcomes(passed=2)


def test_the_option_in_the_help_of_pytest(pytester: pytest.Pytester) -> None:
    result = run(pytester, BASIC, "--help")
    assert result.stdout.str().count("--fixture-pool-scope=") == 1


def test_fixtures_by_name_from_the_plugin(pytester: pytest.Pytester) -> None:
    text = """
    from convelo.testing import http_pool_duo, http_pool_group_factory
    def test_duo(http_pool_duo): assert len(http_pool_duo) == 2
    """
    run(pytester, text).assert_outcomes(passed=1)
