"""The situations of "PSI with SGX", with gRPC's own clients: right, or refused with a reason."""

from __future__ import annotations

import datetime
import hashlib
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Code = grpc.StatusCode

#: The tables that the replaced system comes with.
EXAMPLE = [
    ["car", "bicycle", "train", "cat", "dog"],
    ["train", "car", "e-car", "cat", "computer"],
    ["car", "bicycle", "train", "cat", "dog", "computer"],
]


@pytest.mark.parametrize("clients", [2, 3])
def test_its_example(scene: Any, clients: int) -> None:
    said = scene.serve()
    assert said["psi_attested"] is False
    results = scene.job(*EXAMPLE[:clients])
    assert results[0] == ["car", "train", "cat"]
    assert results[1] == ["train", "car", "cat"]
    assert all(sorted(result) == ["car", "cat", "train"] for result in results)


def test_what_is_said(scene: Any) -> None:
    scene.serve()
    alice, bob = scene.client(), scene.client()
    assert alice.attest("secret-id").startswith("NOT ATTESTED: ")
    first = scene.spawn(alice.connect, 2)
    assert bob.connect(2) == first.result() == "All 2 clients are connected"
    assert alice.upload(["secret-id", "", "secret-id", " "]) == (
        "Data uploaded: 4 ids, 2 blank left out, 1 duplicates left out"
    )
    bob.upload(["secret-id"])
    assert alice.result() == bob.result() == ["secret-id"]
    scene.close()
    text = "".join(scene.stderr)
    assert "ordinary TLS, NOT ATTESTED" in text
    assert "secret-id" not in text and "data_provider" not in text


def test_empty_intersection(scene: Any) -> None:
    scene.serve()
    assert scene.job(["a", "b"], ["c"]) == [[], []]
    assert scene.job(["a"], ["a"], ["b"]) == [[], [], []]


def test_empty_upload(scene: Any) -> None:
    scene.serve()
    assert scene.job([], ["a"]) == [[], []]
    assert scene.job([], []) == [[], []]


def test_blank_lines_are_no_ids(scene: Any) -> None:
    scene.serve()
    assert scene.job(["", "a", " "], ["a", "", ""]) == [["a"], ["a"]]


def test_duplicates_count_once(scene: Any) -> None:
    scene.serve()
    assert scene.job(["a", "a", "b"], ["b", "a", "b"]) == [["a", "b"], ["b", "a"]]
    # An id in two of three sets, twice in one of them, is in no result; a common one is.
    result = scene.job(["x", "x", "a", "a"], ["x", "a"], ["a", "y"])
    assert result == [["a"], ["a"], ["a"]]


def test_line_ends_and_byte_order_marks(scene: Any) -> None:
    scene.serve()
    assert scene.job(["\ufeffa\r", "b\r"], ["b", "a"]) == [["a", "b"], ["b", "a"]]


def test_same_client_started_twice(scene: Any, refused: Any) -> None:
    scene.serve()
    key = scene.key()
    first = scene.spawn(scene.client(key).run, ["a", "b"], 2)
    time.sleep(0.5)
    refused(lambda: scene.client(key).connect(2), Code.ALREADY_EXISTS, "needs a key of its own")
    assert scene.client().run(["b"]) == ["b"]
    assert first.result() == ["b"]


def test_client_killed_while_it_waits(scene: Any) -> None:
    scene.serve()
    key = scene.key()
    killed = scene.client(key)
    scene.spawn(killed.connect, 2)
    time.sleep(0.5)
    killed.close()
    time.sleep(0.5)
    back = scene.spawn(scene.client(key).run, ["a", "b"], 2)
    assert scene.client().run(["b"]) == ["b"]
    assert back.result() == ["b"]


@pytest.mark.parametrize("uploaded", [False, True])
def test_client_leaves_a_job(scene: Any, refused: Any, uploaded: bool) -> None:
    scene.serve("--reconnect-within", "1s")
    alice, bob = scene.client(), scene.client()
    first = scene.spawn(alice.connect, 2)
    bob.connect(2)
    first.result()
    if uploaded:
        bob.upload(["b"])
    bob.close()
    if uploaded:
        time.sleep(2)
    else:
        alice.upload(["a"])
    call = (lambda: alice.upload(["a"])) if uploaded else alice.result
    refused(call, Code.ABORTED, "a client of this job has left; nothing of the job is kept")
    assert scene.job(["a"], ["a"]) == [["a"], ["a"]]


def test_client_started_anew_in_a_job(scene: Any, refused: Any) -> None:
    scene.serve()
    key = scene.key()
    alice, bob = scene.client(), scene.client(key)
    first = scene.spawn(alice.connect, 2)
    bob.connect(2)
    first.result()
    bob.close()
    time.sleep(0.5)
    again = scene.spawn(scene.client(key).run, ["a"], 2)
    time.sleep(0.5)
    refused(lambda: alice.upload(["a"]), Code.ABORTED, "was restarted")
    assert alice.run(["a"]) == ["a"]
    assert again.result() == ["a"]


def test_client_never_uploads(scene: Any, refused: Any) -> None:
    scene.serve("--psi-deadline", "2s")
    alice, bob = scene.client(), scene.client()
    first = scene.spawn(alice.connect, 2)
    bob.connect(2)
    first.result()
    alice.upload(["a"])
    text = "1 of 2 clients did not upload their ids before the deadline"
    refused(alice.result, Code.DEADLINE_EXCEEDED, text)
    refused(lambda: bob.upload(["a"]), Code.DEADLINE_EXCEEDED, text)


def test_client_never_comes(scene: Any, refused: Any) -> None:
    scene.serve("--psi-deadline", "1s")
    text = "the deadline passed when 1 of 2 clients were here"
    refused(lambda: scene.client().connect(2), Code.DEADLINE_EXCEEDED, text)


def test_third_client_of_two(scene: Any, refused: Any) -> None:
    scene.serve("--psi-deadline", "4s")
    alice, bob, carol = scene.client(), scene.client(), scene.client()
    first = scene.spawn(alice.connect, 2)
    bob.connect(2)
    third = scene.spawn(carol.connect, 2)
    first.result()
    alice.upload(["a", "b"])
    bob.upload(["b"])
    assert alice.result() == bob.result() == ["b"]
    refused(third.result, Code.DEADLINE_EXCEEDED, "1 of 2 clients were here")


def test_clients_that_expect_different_numbers(scene: Any, refused: Any) -> None:
    scene.serve()
    first = scene.spawn(scene.client().run, ["a"], 2)
    time.sleep(0.5)
    text = "expect 2 clients, and this one expects 3"
    refused(lambda: scene.client().connect(3), Code.FAILED_PRECONDITION, text)
    for number in (1, 0, -3, 65):
        text = f"client_num is {number}; a job has 2 to 64 clients"
        refused(lambda: scene.client().connect(number), Code.INVALID_ARGUMENT, text)  # noqa: B023
    assert scene.client().run(["a"]) == ["a"]
    assert first.result() == ["a"]


@pytest.mark.parametrize("chief", [False, True])
def test_no_chief_is_needed(scene: Any, chief: bool) -> None:
    scene.serve()
    assert scene.job(["a"], ["a"], chief=chief, name="") == [["a"], ["a"]]


def test_one_job_after_the_other(scene: Any) -> None:
    scene.serve()
    runs = []
    for job in range(5):
        ids = [f"common-{job}", f"{job}-a"]
        runs += [scene.spawn(scene.client().run, ids, 2), scene.spawn(scene.client().run, ids, 2)]
        # Who comes first is joined with who comes next: a job is complete before the next begins.
        time.sleep(0.3)
    assert [run.result() for run in runs[::2]] == [run.result() for run in runs[1::2]]
    same = scene.client(), scene.client()
    for number in range(3):
        runs = [scene.spawn(client.run, [f"again-{number}"], 2) for client in same]
        assert [run.result() for run in runs] == [[f"again-{number}"]] * 2


def test_outsider_asks_for_the_result(scene: Any, refused: Any) -> None:
    scene.serve()
    alice, bob, eve = scene.client(), scene.client(), scene.client()
    first = scene.spawn(alice.run, ["a"], 2)
    bob.connect(2)
    text = "this client takes part in no job"
    refused(eve.result, Code.FAILED_PRECONDITION, text)
    bob.upload(["a"])
    refused(eve.result, Code.FAILED_PRECONDITION, text)
    assert bob.result() == first.result() == ["a"]
    for client in (alice, bob, eve):
        refused(client.result, Code.FAILED_PRECONDITION, text)


def test_outsider_uploads(scene: Any, refused: Any) -> None:
    scene.serve()
    eve = scene.client()
    refused(lambda: eve.upload(["a"]), Code.FAILED_PRECONDITION, "takes part in no job")
    runs = scene.spawn(scene.job, ["a"], ["a"])
    refused(lambda: eve.upload(["b"]), Code.FAILED_PRECONDITION, "takes part in no job")
    assert runs.result() == [["a"], ["a"]]


def test_upload_twice(scene: Any, refused: Any) -> None:
    scene.serve()
    alice, bob = scene.client(), scene.client()
    first = scene.spawn(alice.connect, 2)
    bob.connect(2)
    first.result()
    alice.upload(["a"])
    refused(lambda: alice.upload(["b"]), Code.ALREADY_EXISTS, "already uploaded its ids")
    bob.upload(["a", "b"])
    assert alice.result() == bob.result() == ["a"]


@pytest.mark.parametrize("clients", [11, 64])
def test_many_clients(scene: Any, clients: int) -> None:
    scene.serve()
    tables = [["common", f"own-{client}"] for client in range(clients)]
    assert scene.job(*tables) == [["common"]] * clients


def test_message_over_four_mebibytes(scene: Any) -> None:
    scene.serve()
    ids = [f"{number:016}" for number in range(600_000)]
    alice, bob = ids[:400_000], ids[200_000:]
    random.Random(7).shuffle(alice)
    results = scene.job(alice, bob)
    assert results[1] == ids[200_000:400_000]
    wanted = set(results[1])
    assert results[0] == [number for number in alice if number in wanted]


def test_result_over_four_mebibytes(scene: Any, refused: Any) -> None:
    scene.serve()
    ids = [f"{number:016}" for number in range(240_000)]
    runs = [scene.spawn(scene.client().run, ids, 2) for _ in range(2)]
    text = "240000 ids in 4320000 bytes.*at most 4194304; .*'convelo run' or 'convelo join'"
    for run in runs:
        refused(run.result, Code.RESOURCE_EXHAUSTED, text)
    assert scene.job(ids[:1000], ids[500:]) == [ids[500:1000]] * 2


def test_message_over_the_limit(scene: Any, refused: Any) -> None:
    scene.serve("--psi-message", "1M", "--reconnect-within", "0s")
    alice, bob = scene.client(), scene.client()
    first = scene.spawn(alice.connect, 2)
    bob.connect(2)
    first.result()
    ids = [f"{number:016}" for number in range(100_000)]
    refused(lambda: bob.upload(ids), Code.OUT_OF_RANGE, "1048576")
    # Before bob leaves: who uploads afterwards may be told there already.
    alice.upload(["a"])
    bob.close()
    refused(alice.result, Code.ABORTED, "has left")


def test_message_limit_that_does_not_fit_the_memory(scene: Any) -> None:
    with pytest.raises(AssertionError, match="the service does not start"):
        scene.serve("--memory", "64M")
    scene.process.wait(20)
    time.sleep(0.2)
    assert "takes 1536 MiB to read, but the service may use only 64 MiB" in "".join(scene.stderr)


def test_service_stops(scene: Any, refused: Any) -> None:
    scene.serve()
    waiting = scene.spawn(scene.client().connect, 2)
    time.sleep(0.5)
    scene.process.terminate()
    refused(waiting.result, Code.UNAVAILABLE, "the service is shutting down")
    assert scene.process.wait(20) == 0


def test_stranger_without_a_certificate_of_the_authority(scene: Any, refused: Any) -> None:
    scene.serve()
    other = type(scene.authority)(scene.directory / "other", scene.authority.name)
    other.issue("eve", 3)
    eve = scene.client(scene.directory / "other" / "eve")
    text = "this client's certificate was refused: .*expected"
    refused(lambda: eve.attest("a"), Code.UNAUTHENTICATED, text)
    refused(lambda: eve.upload(["a"]), Code.UNAUTHENTICATED, text)
    nobody = grpc.ssl_channel_credentials(scene.authority.path.read_bytes())
    channel = grpc.secure_channel(scene.address, nobody)
    stub = scene.messages.stubs.PSIStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Connect(scene.messages.pb2.ConnectRequest(client_num=2), timeout=10)
    assert caught.value.code() == Code.UNAVAILABLE
    channel.close()


def pseudonym(certificate: Path) -> str:
    """What ``--psi-client`` takes, by the means of openssl's users."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "sha256:" + hashlib.sha256(spki).hexdigest()


def test_pinned_keys(scene: Any, refused: Any) -> None:
    keys = [scene.key(), scene.key()]
    ordinary = ["--insecure-psi-certificate", "service.crt", "--psi-key", "service.pem"]
    for key in keys:
        ordinary += ["--psi-client", pseudonym(key.with_suffix(".crt"))]
    scene.serve(*ordinary)
    runs = [scene.spawn(scene.client(key).run, ["a"], 2) for key in keys]
    assert [run.result() for run in runs] == [["a"], ["a"]]
    text = "this client's certificate was refused: .*sha256:"
    refused(lambda: scene.client().attest("a"), Code.UNAUTHENTICATED, text)


def test_self_signed_certificate(scene: Any, refused: Any) -> None:
    scene.serve()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "self")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = scene.directory / "self"
    path.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    text = "this client's certificate was refused: "
    refused(lambda: scene.client(path).attest("a"), Code.UNAUTHENTICATED, text)


def test_outside_an_enclave(scene: Any) -> None:
    said = scene.serve_alone()
    assert (said["listening"], said["psi_attested"]) == (None, False)
    assert scene.job(["a", "b"], ["b"]) == [["b"], ["b"]]
    scene.close()
    text = "".join(scene.stderr)
    assert "NOT ATTESTED" in text and "nothing else is served" in text


def test_clients_that_raised_their_limit(scene: Any, refused: Any) -> None:
    ids = [f"{number:064}" for number in range(80_000)]
    scene.serve("--psi-result", "16M")
    runs = [scene.spawn(scene.client().run, ids, 2) for _ in range(2)]
    text = "larger than max"
    # The service sends it; these clients still have gRPC's own limit.
    for run in runs:
        refused(lambda: run.result(60), Code.RESOURCE_EXHAUSTED, text)  # noqa: B023
    limit = [("grpc.max_receive_message_length", 16 << 20)]
    runs = [scene.spawn(scene.client(options=limit).run, ids, 2) for _ in range(2)]
    assert [run.result(60) for run in runs] == [ids, ids]


def test_key_that_the_operator_has_not_admitted(scene: Any, refused: Any) -> None:
    keys = [scene.key(), scene.key()]
    lines = [f"{pseudonym(key.with_suffix('.crt'))} {key.name}\n" for key in keys]
    (scene.directory / "admitted.txt").write_text("".join(lines))
    scene.serve("--admit", "admitted.txt")
    runs = [scene.spawn(scene.client(key).run, ["a"], 2) for key in keys]
    assert [run.result() for run in runs] == [["a"], ["a"]]
    text = "operator has not admitted the key sha256:"
    refused(lambda: scene.client().attest("a"), Code.PERMISSION_DENIED, text)


def test_options_that_do_not_go_together(scene: Any) -> None:
    scene.serve()
    program = scene.process.args[0]

    def says(*options: str) -> str:
        command = [program, "serve", "--simulated", "platform", *options]
        ended = subprocess.run(command, cwd=scene.directory, capture_output=True, text=True)
        assert ended.returncode == 2
        return ended.stderr

    certificate = ["--insecure-psi-certificate", "service.crt"]
    listen = ["--psi-listen", "127.0.0.1:0"]
    assert "--psi-key" in says(*listen, *certificate)
    assert "--psi-listen" in says(*certificate, "--psi-key", "service.pem")
    text = says(*listen, *certificate, "--psi-key", "service.pem")
    assert "say which clients to accept" in text
    key = scene.key().with_suffix(".pem").name
    assert "does not match the first certificate" in says(*listen, *certificate, "--psi-key", key)
