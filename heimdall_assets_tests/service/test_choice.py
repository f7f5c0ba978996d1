"""Who answers: the version that the ledger's rules say at that moment, each caller always by the same, none lost."""

import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event

import pytest

from heimdall_assets.pipeline.releases.rules import Decider, end_rule, set_canary, set_flag, set_shadow
from heimdall_assets.serving_rules import Canary, ServingRules, choose_model
from heimdall_assets_tests.pipeline.test_rules import withdraw
from heimdall_assets_tests.service.cases import Client, make_session
from heimdall_assets_tests.service.running import run_service, wait_until

ADA = Decider("ada", "try it")
FIRST, SECOND = "v1.0.0", "v1.1.0"


def change_champion_under_load(stores, num_clients, num_changes):
    """Have clients ask while the champion changes, and compare each answer with who was champion meanwhile."""
    with run_service(stores) as found:
        ended = Event()

        def ask(_):
            heard = []
            with closing(Client(found.port)) as client:
                while not ended.is_set():
                    asked = time.monotonic()
                    status, said = client.locate(make_session())
                    heard.append((asked, time.monotonic(), status, said.get("version")))
            return heard

        began = {FIRST: [(0.0, 0.0)], SECOND: []}  # version -> (before, after) of each promotion to it
        with ThreadPoolExecutor(num_clients) as pool:
            clients = [pool.submit(ask, number) for number in range(num_clients)]
            for number in range(num_changes):
                version = (SECOND, FIRST)[number % 2]
                before = time.monotonic()
                stores.releases.set_alias("champion", version, "ada", f"change {number}")
                began[version].append((before, time.monotonic()))
                time.sleep(0.15)
            ended.set()
            heard = [one for client in clients for one in client.result()]
        assert Counter(status for _, _, status, _ in heard) == {200: len(heard)}
        reigns = list_reigns(began)
        for asked, answered, _, version in heard:
            assert any(start <= answered and end >= asked for start, end in reigns[version]), (
                f"{version} answered a request of {asked} to {answered}"
            )
        return heard


def list_reigns(began):
    """Return version -> when it may have been champion: from before its promotion to after the next one's end."""
    changes = sorted((before, after, version) for version, times in began.items() for before, after in times)
    ends = [after for _, after, _ in changes[1:]] + [float("inf")]
    reigns = {version: [] for version in began}
    for (before, _, version), end in zip(changes, ends, strict=True):
        reigns[version].append((before, end))
    return reigns


def test_while_the_champion_changes_no_wrong_version_answers_and_no_request_is_lost(stores):
    heard = change_champion_under_load(stores, 16, 10)
    assert {version for *_, version in heard} == {FIRST, SECOND}


@pytest.mark.long
def test_the_same_with_64_clients_and_100_changes(stores):
    assert len(change_champion_under_load(stores, 64, 100)) > 100


def test_a_canary_takes_its_share_of_callers_each_always_the_same(stores):
    callers = {f"caller {number}": "" for number in range(150)}
    with stores.releases._ledger.writing() as connection:  # one transaction for all, for speed
        from heimdall_assets.stores.database.serving.service_keys import make_service_key

        for caller in callers:
            callers[caller] = make_service_key(connection, caller, 30, "ada", "a test")[1]
    set_canary(stores, SECOND, 0.3, ADA)
    rules = ServingRules(canary=Canary(SECOND, 0.3, SECOND))
    with run_service(stores, wants_key=True) as found:
        assert found.client.locate(make_session())[0] == 401
        answered = {}
        for turn in range(2):
            for caller, key in list(callers.items())[: None if turn == 0 else 30]:
                with closing(found.open(key)) as client:
                    status, said = client.locate(make_session())
                assert status == 200
                assert said["version"] == choose_model(rules, caller, [], FIRST)
                assert answered.setdefault(caller, said["version"]) == said["version"]
                assert said["chosen_by"] == ("canary" if said["version"] == SECOND else "champion")
        assert 0.2 < list(answered.values()).count(SECOND) / len(answered) < 0.4


def test_a_revoked_key_lets_nobody_in_from_the_next_request_on(stores):
    key, shown = stores.releases.make_service_key("bob", 30, "ada", "a test")
    with run_service(stores, wants_key=True) as found, closing(found.open(shown)) as client:
        assert client.locate(make_session())[0] == 200
        assert client.ask("/v1/models")[0] == 200
        stores.releases.revoke_service_key(key.id, "ada", "over")
        assert client.locate(make_session())[0] == 401
        assert client.ask("/metrics")[0] == 401
        assert client.ask("/healthz")[0] == 200  # probes have no key


def test_flags_decide_before_all_else_and_end_with_the_next_request(stores):
    with run_service(stores) as found:
        assert found.client.locate(make_session())[1]["version"] == FIRST
        set_flag(stores, SECOND, (None, "torino"), ADA)
        said = found.client.locate(make_session())[1]
        assert (said["version"], said["chosen_by"]) == (SECOND, "flag")
        end_rule(stores, "flag", ADA, (None, "torino"))
        assert found.client.locate(make_session())[1]["version"] == FIRST


def test_a_shadow_computes_beside_and_never_answers(stores):
    set_shadow(stores, SECOND, ADA)
    with run_service(stores) as found:
        for _ in range(20):
            assert found.client.locate(make_session())[1]["version"] == FIRST
        wait_until(lambda: sum(pair["num_compared"] for pair in found.client.ask("/v1/shadow")[1]["pairs"]) == 20)
        (pair,) = found.client.ask("/v1/shadow")[1]["pairs"]
        assert (pair["answered_by"], pair["shadow"]) == (FIRST, SECOND)
        first, second = (found.service.predictors.take(version).locate(asked()).estimate for version in (FIRST, SECOND))
        from heimdall_assets.locating.estimates import measure_offset

        expected = measure_offset(first, (second.latitude, second.longitude))
        assert pair["distance_m"]["p50"] == pytest.approx(expected[0])
        assert pair["distance_sigmas"]["largest"] == pytest.approx(expected[1])
        text = found.client.ask("/metrics")[1]
        assert f'heimdall_shadow_total{{outcome="compared",shadow="{SECOND}",version="{FIRST}"}} 20.0' in text
        assert f'heimdall_shadow_distance_m_count{{shadow="{SECOND}",version="{FIRST}"}} 20.0' in text


def asked():
    from heimdall_assets.inference import Receiver

    return [Receiver(**one) for one in make_session()["receivers"]]


def test_shadow_jobs_beyond_the_queue_are_dropped_and_counted(stores):
    from heimdall_assets.serving.metrics import Metrics
    from heimdall_assets.serving.predictors import Predictors
    from heimdall_assets.serving.shadowing import Shadow, ShadowJob

    shadow = Shadow(Predictors(stores), Metrics(), 3, lambda: False)  # somebody always waits for an answer
    shadow.start()
    for _ in range(10):
        shadow.offer(ShadowJob(asked(), FIRST, None, SECOND))
    described = shadow.describe()
    assert described["num_dropped"] in (6, 7)  # the thread may hold one
    assert described["pairs"] == []
    shadow.stop()


def test_a_model_that_vanishes_goes_on_where_it_is_open_and_is_a_clear_503_where_not(stores, home):
    models = home / "heimdall-models"
    with run_service(stores) as found:
        shutil.rmtree(models / FIRST)
        assert found.client.locate(make_session())[1]["version"] == FIRST
        shutil.rmtree(models / SECOND)
        set_alias = stores.releases.set_alias
        set_alias("champion", SECOND, "ada", "whose files are gone")
        status, said = found.client.locate(make_session())
        assert status == 503
        assert said["error"].startswith(f"release {SECOND}: found no model that can be opened")
        assert str(home) not in said["error"]
        assert found.client.ask("/readyz")[0] == 503
        assert found.client.ask("/healthz")[0] == 200
        set_alias("champion", FIRST, "ada", "back")
        assert found.client.locate(make_session())[1]["version"] == FIRST


def test_a_rule_whose_model_cannot_be_opened_leaves_the_answer_to_the_champion(stores, home):
    set_flag(stores, SECOND, (None, "torino"), ADA)
    shutil.rmtree(home / "heimdall-models" / SECOND)
    with run_service(stores) as found:
        said = found.client.locate(make_session())[1]
        assert (said["version"], said["chosen_by"]) == (FIRST, "champion")
        assert "without effect" in found.client.ask("/v1/models")[1]["without_effect"][0]


def test_without_a_champion_nobody_is_answered(tmp_path):
    from heimdall_assets_tests.homes import make_places

    with run_service(make_places(tmp_path / "home").open_stores()) as found:
        for path in ("/readyz", "/v1/locate"):
            if path == "/readyz":
                status, said, _ = found.client.ask(path)
            else:
                status, said = found.client.locate(make_session())
            assert status == 503
            assert said["error"].startswith("champion: found none")
        assert found.client.ask("/healthz")[0] == 200


def test_a_rule_whose_model_learned_from_what_is_withdrawn_is_without_effect_within_moments(stores):
    set_flag(stores, SECOND, (None, "torino"), ADA)
    with run_service(stores) as found:
        assert found.client.locate(make_session())[1]["version"] == SECOND
        withdraw(stores, SECOND)
        wait_until(lambda: found.client.locate(make_session())[1]["version"] == FIRST)
