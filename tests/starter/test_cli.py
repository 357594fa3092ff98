"""The command line: what it refuses, what it does, and by which exit code a script learns of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from activities.turns import Quotas, new_turn
from lifecycle import findings, names
from lifecycle.domain import Observation, OnboardingRequest, Rehearsal, RoutingStatus
from lifecycle.rate_limits import CaLimits, Limit, LimitKind, LimitsTable
from lifecycle.steps import (
    ChangeKind,
    IssuerStatus,
    MendReport,
    ObjectChange,
    PlatformInspection,
    PlatformVerdict,
    PreflightReport,
    Proof,
    RestoreReport,
)
from starter import cli, tokens
from tests.starter.bad_certificates import ALL_CERTIFICATES, DIRECTORY, OPERATORS_CERTIFICATES, asked
from tests.starter.bad_input import BAD_HOSTNAMES
from tests.workflows.pretended import World

Run = Callable[..., Awaitable[tuple[int, str, str]]]
ROUTE = ("--route", "/=frontend-service:80", "--issuer", "letsencrypt")


@pytest.fixture
def run(server: WorkflowEnvironment) -> Run:
    """The program as a process of its own, without a terminal."""

    async def command(*arguments: str, **environment: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "starter.cli",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": "", "TEMPORAL_ADDRESS": server.client.service_client.config.target_host, **environment},
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, out.decode(), err.decode()

    return command


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bad", "reason"), list(BAD_HOSTNAMES.items()), ids=list(BAD_HOSTNAMES.values()))
async def test_a_bad_hostname_ends_with_2(bad: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    # In this process and with an address where nothing is: it must be told before anything is connected.
    code = await asyncio.to_thread(cli.main, ["onboard", bad, *ROUTE, "--address", "127.0.0.1:9"])
    assert code == 2
    told = capsys.readouterr().err
    assert "hostnames[0]" in told
    assert reason in " ".join(told.split())


async def test_all_problems_come_at_once_field_by_field(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--json", "onboard", *BAD_HOSTNAMES, "--route", "nonsense", "--tenant", "Not Good", "--issuer", "A B"]
    code = await asyncio.to_thread(cli.main, arguments)
    assert code == 2
    errors = json.loads(capsys.readouterr().out)["error"]["errors"]
    fields = {error["field"] for error in errors}
    assert {f"hostnames[{index}]" for index in range(len(BAD_HOSTNAMES))} <= fields
    assert {"--route", "--tenant", "issuer.name"} <= fields
    assert all(error["fix"] for error in errors)


async def test_a_file_and_arguments_make_one_request_whose_problems_come_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "domain.yaml"
    file.write_text(
        "hostname: shop.example.com\nissuer: letsencrypt\ntls: {mode: MUTUAL, min_protocol: TLSV1_1}\n"
        "hsts: {preload: true}\nroutes: [{service: web, port: 80, weight: 0}]\n"
    )
    arguments = ["--json", "onboard", "-f", str(file), "--cipher", "RC4", "--hsts", "300", "--target", "nginx"]
    code = await asyncio.to_thread(cli.main, arguments)
    assert code == 2
    errors = json.loads(capsys.readouterr().out)["error"]["errors"]
    assert {error["field"] for error in errors} == {
        "tls.min_protocol",
        "tls.ciphers[0]",
        "hsts.preload",
        "routes[0].weight",
        "target",
    }


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["onboard", "--tls-mode", "SIMPLE"], "hostnames"),
        (["issuer", "apply", "--name", "x", "--server", "http://ca.example.com"], "server"),
        (["issuer", "apply", "-f", "no-such-file"], "-f"),
        (["platform", "install", "--version", "latest"], "version"),
        (["platform", "install", "--network-policies", "--issuer-port", "70000"], "issuer_ports[0]"),
        (["platform", "install", "--monitoring", "--monitoring-label", "not good=x"], "monitoring_labels.not good"),
        (["restore", "../../etc/passwd", "--into", "Not_Good"], "BACKUP"),
        (["restore", "20270101T000000Z.age"], "--into"),
        (["schedules", "apply", "--review-every", "1ms"], "--review-every"),
        (["status", "no_name"], "hostname"),
        (["token", "new", "Not Good"], "TENANT"),
    ],
)
async def test_other_bad_input_ends_with_2(
    arguments: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = await asyncio.to_thread(cli.main, ["--json", *arguments])
    assert code == 2
    errors = json.loads(capsys.readouterr().out)["error"]["errors"]
    assert field in {error["field"] for error in errors}


async def test_bad_settings_end_with_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CERTWRIGHT_DEFAULT_ROUTES", "nonsense")
    monkeypatch.setenv("CERTWRIGHT_DEFAULT_ISUER", "x")
    assert await asyncio.to_thread(cli.main, ["portal"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "CERTWRIGHT_DEFAULT_ROUTES (nonsense) is no route" in told
    assert "did you mean CERTWRIGHT_DEFAULT_ISSUER?" in told
    assert "CERTWRIGHT_PORTAL_TOKENS_FILE is missing" in told


async def test_temporal_away_ends_with_3(run: Run) -> None:
    code, out, err = await run("status", "--address", "127.0.0.1:9")
    assert (code, out) == (3, "")
    assert "127.0.0.1:9 cannot be reached" in err
    assert "TEMPORAL_ADDRESS" in err
    code, out, err = await run("status", "--namespace", "nowhere")
    assert code == 3
    assert "has no namespace nowhere" in err


# --- domains ----------------------------------------------------------------------------------------------------------


async def test_a_domain_from_request_to_retirement(run: Run, world: World, hostname: str) -> None:
    code, out, err = await run("onboard", hostname, *ROUTE, "--wait", "--json")
    assert code == 0, err
    assert json.loads(out)["phase"] == "active"
    assert "\x1b" not in out + err
    code, out, err = await run("onboard", hostname, *ROUTE)
    assert code == 0
    assert "joined" in out
    code, out, err = await run("onboard", hostname, *ROUTE, "--tenant", "globex")
    assert code == 1
    assert "not available" in err
    code, out, err = await run("status", hostname)
    assert (code, err) == (0, "")
    assert world.fingerprint() in out
    code, out, err = await run("status", "--json")
    assert hostname in {one["hostname"] for one in json.loads(out)["domains"]}
    code, out, err = await run("check", hostname, "--json")
    assert (code, json.loads(out)["serving"]) == (0, "served")
    code, out, err = await run("renew", hostname, "--wait", "--json")
    assert (code, json.loads(out)["renewals"]) == (0, 1)
    code, out, err = await run("cancel", hostname, "--json")
    assert (code, json.loads(out)["phase"]) == (0, "retired")
    code, out, err = await run("onboard", hostname, *ROUTE)
    assert code == 1
    assert "--again" in err
    code, out, err = await run("onboard", hostname, *ROUTE, "--again")
    assert code == 0


async def test_remedies_are_the_domains_own_to_do_without_a_cluster_of_the_callers(
    run: Run, world: World, hostname: str
) -> None:
    assert (await run("onboard", hostname, *ROUTE, "--wait"))[0] == 0
    line = Observation(at=datetime(2027, 1, 1, tzinfo=UTC), step="fix", detail="fixed: apply the route")
    world.script["mend_certificate"] = [MendReport(evidence=(line,))]
    code, out, err = await run("diagnose", hostname, "--fix", HOME="/nowhere")
    assert code == 0, err
    assert out.startswith("fixed: apply the route\n")
    code, out, _ = await run("diagnose", hostname, "--fix", "--json", HOME="/nowhere")
    told = json.loads(out)
    assert (code, told["diagnosis"], told["domain"]["phase"]) == (0, None, "active")
    assert [one["detail"] for one in told["recorded"]] == ["nothing to do: nothing is wrong"]
    calls = world.calls.count("mend_certificate")
    for arguments in ((hostname, "--fix", "--direct"), (f"no-{hostname}", "--fix"), (hostname,)):
        code, _, err = await run("diagnose", *arguments, HOME="/nowhere")
        assert code == 1
        assert "name a kubeconfig" in err
    assert world.calls.count("mend_certificate") == calls == 2
    assert (await run("cancel", hostname, "--yes"))[0] == 0


async def test_a_watched_domain_is_shown_as_it_becomes(
    run: Run, world: World, server: WorkflowEnvironment, hostname: str
) -> None:
    """On a terminal, where each state takes the place of the one before."""
    assert (await run("onboard", hostname, *ROUTE, "--wait"))[0] == 0
    master, slave = os.openpty()
    address = server.client.service_client.config.target_host
    terminal = {"PATH": "", "TERM": "xterm", "COLUMNS": "160", "LINES": "60", "TEMPORAL_ADDRESS": address}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "starter.cli", "status", hostname, "--watch"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        env=terminal,
    )
    os.close(slave)
    shown, ended = b"", False
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    shown += await asyncio.to_thread(os.read, master, 65536)
                except OSError:  # its end of the terminal is closed
                    break
                if b"active" in shown and not ended:
                    ended = (await run("cancel", hostname, "--yes"))[0] == 0
            assert await process.wait() == 0
    finally:
        os.close(master)
        if process.returncode is None:
            process.kill()
    assert ended
    assert b"retired" in shown
    assert b"\x1b[2K" in shown  # lines of the former state were cleared


async def test_an_unknown_domain_ends_with_1(run: Run, world: World, hostname: str) -> None:
    for verb in ("status", "check", "renew", "cancel"):
        code, _, err = await run(verb, hostname)
        assert code == 1, verb
        assert f"no domain {hostname}" in err


# --- platform, issuer, backup, restore --------------------------------------------------------------------------------


async def test_the_platform_is_installed_and_its_state_shown(run: Run, world: World) -> None:
    code, out, err = await run("platform", "install", "--cluster", "prod-1")
    assert code == 0, err
    assert "prod-1: ready" in out
    code, out, _ = await run("platform", "status", "--cluster", "prod-1", "--json")
    assert (code, json.loads(out)["ready"]) == (0, True)
    code, _, err = await run("platform", "status", "--cluster", "other")
    assert code == 1
    assert "--dry-run" in err
    found = findings.CANARY_NOT_ISSUED.found(subject="prod-1", problem="It did not come.", fix="Look at the logs.")
    world.script["prove_issuance"] = [Proof(detail="", findings=(found,))]
    code, out, _ = await run("platform", "install", "--cluster", "prod-1")
    assert code == 1
    assert "CW1014" in out
    assert "taken back" in out


async def test_what_is_wished_beside_cert_manager_is_asked_for_and_shown(run: Run, world: World) -> None:
    flags = ["--ha", "--network-policies", "--issuer-port", "8200", "--no-dashboard", "--monitoring-label", "release=x"]
    flags += ["--concurrent-workers", "40"]
    code, out, err = await run("platform", "install", "--cluster", "prod-1", *flags)
    assert code == 0, err
    assert "+ create ConfigMap cert-manager/certwright-dashboard" in out
    (asked,) = world.arguments["inspect_platform"]
    wishes = (asked.high_availability, asked.network_policies, asked.monitoring, asked.dashboard)
    assert wishes == (True, True, None, False)
    assert (asked.issuer_ports, asked.api_server_ports) == ((8200,), ())
    assert asked.monitoring_labels == (("release", "x"),)
    assert asked.concurrent_workers == 40


async def test_a_dry_run_shows_each_object_with_its_fields_also_as_json(run: Run, world: World) -> None:
    def one(name: str, change: ChangeKind, *fields: str) -> ObjectChange:
        return ObjectChange(kind="Deployment", namespace="cert-manager", name=name, change=change, fields=fields)

    told = (
        one("webhook", ChangeKind.CHANGE, "spec.replicas"),
        one("gone", ChangeKind.REMOVE),
        one("a", ChangeKind.UNCHANGED),
        one("b", ChangeKind.UNCHANGED),
    )
    seen = PlatformInspection(
        verdict=PlatformVerdict.UPGRADE, kubernetes="v1.36.3", istio="1.31.0", installed="v1.20.0", changes=told
    )
    world.script["inspect_platform"] = [seen, seen]
    code, out, _ = await run("platform", "install", "--cluster", "prod-1", "--dry-run")
    assert code == 0
    assert "~ change Deployment cert-manager/webhook\n      spec.replicas\n" in out
    assert "- remove Deployment cert-manager/gone\n" in out
    assert "unchanged: 2 objects" in out
    code, out, _ = await run("platform", "install", "--cluster", "prod-1", "--dry-run", "--json")
    (first, *_) = json.loads(out)["inspection"]["changes"]
    expected = {
        "kind": "Deployment",
        "namespace": "cert-manager",
        "name": "webhook",
        "change": "change",
        "fields": ["spec.replicas"],
    }
    assert expected == first
    assert "install_release" not in world.calls


async def test_an_issuer_is_applied_from_a_file_or_flags(run: Run, world: World, tmp_path: Path) -> None:
    file = tmp_path / "issuer.yaml"
    file.write_text("name: pebble\nserver: https://ca.example.com/dir\nemail: tls@example.com\n")
    code, out, err = await run("issuer", "apply", "-f", str(file))
    assert code == 0, err
    assert "ClusterIssuer pebble: ready, account acct/1" in out
    applied = world.arguments["apply_issuer"][0]
    assert (applied.server, applied.email) == ("https://ca.example.com/dir", "tls@example.com")
    found = findings.ISSUER_NOT_READY.found(subject="pebble", problem="It says no.", fix="Correct it.")
    world.script["await_issuer"] = [IssuerStatus(ref=applied.ref, step="ready", ready=False, findings=(found,))]
    code, out, _ = await run("issuer", "apply", "--name", "pebble", "--server", "https://ca.example.com/dir")
    assert code == 1
    assert "CW1202" in out


async def test_issuers_of_a_file_are_applied_one_after_another_and_shown(
    run: Run, world: World, tmp_path: Path
) -> None:
    file = tmp_path / "issuers.toml"
    file.write_text(
        '[[issuers]]\nname = "le"\nserver = "letsencrypt-staging"\n'
        '[[issuers.solvers]]\ncname_strategy = "follow"\n'
        'dns01.rfc2136 = { nameserver = "ns1:53", tsig_key_name = "k", tsig_secret = "tsig" }\n'
        '[[issuers]]\nname = "shop-ca"\nca = { secret = "shop-root" }\n'
    )
    code, out, err = await run("issuer", "apply", "-f", str(file), "--json")
    assert code == 0, err
    assert [one["ref"]["name"] for one in json.loads(out)] == ["le", "shop-ca"]
    first, second = world.arguments["apply_issuer"]
    assert json.loads(first.spec)["acme"]["solvers"][0]["dns01"]["cnameStrategy"] == "Follow"
    assert json.loads(second.spec) == {"ca": {"secretName": "shop-root"}}
    file.write_text("name = \n")
    code, _, err = await run("issuer", "apply", "-f", str(file))
    assert (code, "is no TOML at line 1" in err) == (2, True)
    file.write_text('[[issuers]]\nname = "le"\n[[issuers]]\nname = "x"\nca = {}\n')
    code, out, _ = await run("issuer", "apply", "-f", str(file), "--json")
    fields = {error["field"] for error in json.loads(out)["error"]["errors"]}
    assert (code, fields) == (2, {"issuers[0].server", "issuers[1].ca.secret"})


async def test_issuers_are_shown_and_a_solver_is_explained(run: Run, world: World) -> None:
    world.dns01 = True
    code, out, err = await run("issuer", "status", "letsencrypt")
    assert code == 0, err
    assert "ClusterIssuer letsencrypt: ready, account acct/1" in out
    assert "solver 0: DNS-01 by rfc2136 ns1:53" in out
    code, out, _ = await run("issuer", "status", "--json")
    assert (code, json.loads(out)["issuers"][0]["wildcard"]) == (0, True)
    code, out, _ = await run("issuer", "explain", "*.example.com", "--issuer", "letsencrypt", "--label", "a=b")
    assert code == 0
    assert "*.example.com: takes solver 0, DNS-01 by rfc2136 ns1:53" in out
    world.dns01 = False
    code, out, _ = await run("issuer", "explain", "*.example.com", "--issuer", "letsencrypt")
    assert (code, "has no solver" in out) == (1, True)
    code, out, _ = await run("issuer", "explain", "no_name", "--label", "x", "--json")
    fields = {error["field"] for error in json.loads(out)["error"]["errors"]}
    assert (code, fields) == (2, {"NAME", "--label"})
    refused = findings.PERMISSION_MISSING.found(subject="issuers", problem="It may not.", fix="Add the rule.")
    world.script["inspect_issuers"] = [ApplicationError("may not", refused, non_retryable=True)]
    code, _, err = await run("issuer", "status")
    assert (code, "Add the rule." in err) == (1, True)


async def test_a_wildcard_is_taken_where_its_issuer_proves_it(run: Run, world: World, hostname: str) -> None:
    code, _, err = await run("onboard", f"*.{hostname}", *ROUTE)
    assert (code, "wildcard" in err) == (2, True)
    world.dns01 = True
    code, out, err = await run("onboard", f"*.{hostname}", *ROUTE, "--wait", "--json")
    assert code == 0, err
    assert json.loads(out)["hostname"] == f"*.{hostname}"


async def test_a_rehearsal_is_asked_for_where_the_issuer_says_where(run: Run, world: World, hostname: str) -> None:
    code, _, err = await run("onboard", hostname, *ROUTE, "--rehearse")
    assert (code, "[CW1260]" in err) == (2, True)
    code, _, err = await run("onboard", hostname, *ROUTE, "--no-rehearse", "--wait")
    assert code == 0, err
    world.rehearsal = "ClusterIssuer/stage"
    code, _, err = await run("onboard", f"www.{hostname}", *ROUTE, "--rehearse", "--wait")
    assert code == 0, err
    asked = [one.rehearsal for one in world.arguments["check_preflight"]]
    assert asked == [Rehearsal.NEVER, Rehearsal.ALWAYS]
    code, out, _ = await run("issuer", "status", "letsencrypt")
    assert (code, "rehearsed at ClusterIssuer/stage" in out) == (0, True)


async def test_a_backup_is_written_and_put_back(run: Run, world: World) -> None:
    code, out, err = await run("backup", "--wait", "--json")
    assert code == 0, err
    name = json.loads(out)["name"]
    code, out, err = await run("restore", name, "--into", "drill")
    assert code == 0, err
    assert "equal to the manifest" in out
    world.script["restore_backup"] = [RestoreReport(backup=name, equal=False)]
    code, out, err = await run("restore", name, "--into", "drill")
    assert code == 1
    world.script["restore_backup"] = [ApplicationError("there is no such backup", non_retryable=True)]
    code, out, err = await run("restore", "nothing", "--into", "drill")
    assert code == 1
    assert "there is no such backup" in err


async def test_search_attributes_that_are_there_are_left(run: Run) -> None:
    code, out, _ = await run("search-attributes", "apply")
    assert (code, out) == (0, "0 created, 10 were there\n")


async def test_a_token_is_shown_once_with_the_line_for_the_file(run: Run) -> None:
    code, out, _ = await run("token", "new", "acme", "--json")
    made: dict[str, Any] = json.loads(out)
    assert code == 0
    assert made["line"] == f"acme {tokens.digest(made['token'])}"
    assert made["token"] not in made["line"]


# --- certificates that an issuer would refuse -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", ["names over the profile's limit", "clientAuth at Let's Encrypt", *OPERATORS_CERTIFICATES]
)
async def test_what_the_issuer_would_refuse_ends_with_2(
    run: Run, world: World, hostname: str, tmp_path: Path, row: str
) -> None:
    _, world.profile, code, words = ALL_CERTIFICATES[row]
    world.directory = DIRECTORY
    path = tmp_path / "request.json"
    path.write_text(json.dumps(asked(row, hostname)))
    ended, _, err = await run("onboard", "-f", str(path), *ROUTE)
    assert ended == 2
    assert words in " ".join(err.split())
    assert f"[{code}]" in err


async def test_the_operator_may_set_all_of_a_certificate_by_a_file(
    run: Run, world: World, hostname: str, tmp_path: Path
) -> None:
    path = tmp_path / "request.toml"
    path.write_text('[certificate]\nkey_size = 384\n[certificate.keystores.jks]\nsecret = "keystore-password"\n')
    code, _, err = await run("onboard", hostname, "-f", str(path), *ROUTE, "--wait")
    assert code == 0, err
    (argument, *_) = world.arguments["issue_certificate"]
    assert argument.request.certificate.key_size == 384
    assert argument.request.certificate.jks.secret == "keystore-password"


async def test_a_bad_authority_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ca.yaml"
    path.write_text("name: shop-root\nissuer: bootstrap\npermitted: {dns_domains: ['*.example.com']}\n")
    code = await asyncio.to_thread(cli.main, ["issuer", "authority", "-f", str(path)])
    assert code == 2
    told = capsys.readouterr().err
    assert "certificate.common_name" in told
    assert "permitted.dns_domains[0]" in told


# --- whose turn it is -------------------------------------------------------------------------------------------------


async def test_who_waits_for_the_ca_is_shown_to_the_tenant_and_to_the_operator(world: World, run: Run) -> None:
    account = "https://acme.example/acct/of-the-command-line"
    limit = Limit(kind=LimitKind.ORDERS, burst=1, refill_seconds=3600)
    quotas = Quotas(world.environment.client, LimitsTable(entries=(CaLimits(host="acme.example", limits=(limit,)),)))

    async def look(asked: OnboardingRequest) -> PreflightReport:
        turn = new_turn(asked, account=account, server=world.directory)
        turn = await quotas.ask(asked, turn, owner=names.domain_id(asked.hostname))
        return PreflightReport(routing=RoutingStatus.POINTED, may_proceed=True, turn=turn)

    world.script["check_preflight"] = [look]
    code, out, err = await run("onboard", "first.queue.example.com", *ROUTE, "--wait", "--json")
    assert code == 0, err
    code, out, err = await run("onboard", "second.queue.example.com", *ROUTE)
    assert code == 0, err
    for _ in range(20):
        code, out, err = await run("status", "second.queue.example.com")
        if "turn at the CA" in out:
            break
    assert "place 1, expected 20" in out
    code, out, err = await run("quota")
    assert code == 0, err
    assert f"{account}: 1 under way, 1 wait (1 new)" in out
    assert "domain/second.queue.example.com" in out
    code, out, err = await run("quota", "--json", "--most", "0")
    (told,) = [one for one in json.loads(out)["accounts"] if one["account"] == account]
    assert (told["waiting"], told["under_way"], told["next"]) == (1, 1, [])
    code, out, err = await run("cancel", "second.queue.example.com", "--json")
    assert code == 0, err
