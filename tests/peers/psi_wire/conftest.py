"""A service that speaks psi.PSI, and clients of it: gRPC's own, over mutual TLS, with the four calls."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_tools import protoc

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY / "python/tests/kit"))

from party_certificates import Authority, common_name

#: No call takes longer; whatever does, hangs.
PATIENCE = 60


@pytest.fixture(scope="session")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The messages and stubs that protoc makes of the contract."""
    directory = tmp_path_factory.mktemp("messages")
    proto = REPOSITORY / "proto/psi/psi.proto"
    arguments = ["protoc", f"-I{proto.parent}", f"--python_out={directory}"]
    assert protoc.main([*arguments, f"--grpc_python_out={directory}", str(proto)]) == 0
    sys.path.insert(0, str(directory))
    import psi_pb2
    import psi_pb2_grpc

    class Messages:
        pb2, stubs = psi_pb2, psi_pb2_grpc

    return Messages


class Client:
    """One data provider: a key, a channel, and the calls of the scripts of "PSI with SGX"."""

    def __init__(
        self,
        messages: Any,
        address: str,
        authority: Authority,
        key: Path,
        options: Sequence[tuple[str, int]] = (),
    ) -> None:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=authority.path.read_bytes(),
            private_key=key.with_suffix(".pem").read_bytes(),
            certificate_chain=key.with_suffix(".crt").read_bytes(),
        )
        unlimited = [("grpc.max_send_message_length", -1), *options]
        self.channel = grpc.secure_channel(address, credentials, options=unlimited)
        self._pb2, self._stub = messages.pb2, messages.stubs.PSIStub(self.channel)

    def attest(self, first: str) -> str:
        reply = self._stub.RemoteAttestation(self._pb2.RARequest(name=first), timeout=PATIENCE)
        return str(reply.message)

    def connect(self, number: int, chief: bool = True, name: str = "data_provider1") -> str:
        request = self._pb2.ConnectRequest(client_name=name, is_chief=chief, client_num=number)
        return str(self._stub.Connect(request, timeout=PATIENCE).message)

    def upload(self, ids: Sequence[str]) -> str:
        request = self._pb2.DataUploadRequest(input_data=ids)
        return str(self._stub.DataUpload(request, timeout=PATIENCE).message)

    def result(self) -> list[str]:
        request = self._pb2.CalPsiRequest(client_name="data_provider1")
        return list(self._stub.CalPsi(request, timeout=PATIENCE).data)

    def run(self, ids: Sequence[str], number: int = 2, **arguments: Any) -> list[str]:
        self.attest(ids[0] if ids else "")
        self.connect(number, **arguments)
        self.upload(ids)
        return self.result()

    def close(self) -> None:
        self.channel.close()


class Scene:
    """A directory with an authority, a service, and as many clients as are asked for."""

    def __init__(self, messages: Any, directory: Path) -> None:
        self.messages, self.directory = messages, directory
        self.authority = Authority(directory, common_name("partners"))
        self.authority.issue("service", 2)
        (directory / "service.pem").chmod(0o600)
        self._keys = 0
        self._threads = ThreadPoolExecutor(80)
        self._clients: list[Client] = []
        self.process: subprocess.Popen[str] | None = None
        self.stderr: list[str] = []

    def serve(self, *options: str) -> dict[str, Any]:
        program = os.environ["CONVELO_TESTS_BINARY"]
        platform = self.directory / "platform"
        if not platform.exists():
            subprocess.run([program, "simulator", "new", platform], check=True, capture_output=True)
        if not any(option.startswith("--insecure-psi") for option in options):
            options = (*options, *self.ordinary())
        return self._start("--simulated", "platform", "--listen", "127.0.0.1:0", *options)

    def serve_alone(self, *options: str) -> dict[str, Any]:
        """Where no evidence can be made, as on an ordinary machine."""
        return self._start(*self.ordinary(), *options)

    def _start(self, *options: str) -> dict[str, Any]:
        program = os.environ["CONVELO_TESTS_BINARY"]
        command = [program, "serve", "--json", "--psi-listen", "127.0.0.1:0", *options]
        self.process = subprocess.Popen(
            command,
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        threading.Thread(target=self._listen, daemon=True).start()
        assert line, "the service does not start: " + "".join(self.stderr)
        said: dict[str, Any] = json.loads(line)
        self.address = said["psi"]
        return said

    def ordinary(self) -> list[str]:
        """The options of ordinary TLS, for clients of the authority."""
        options = ["--insecure-psi-certificate", "service.crt", "--psi-key", "service.pem"]
        return [*options, "--psi-client-ca", "ca.crt"]

    def _listen(self) -> None:
        assert self.process is not None and self.process.stderr is not None
        self.stderr.extend(self.process.stderr)

    def key(self) -> Path:
        self._keys += 1
        name = f"client-{self._keys}"
        self.authority.issue(name, 100 + self._keys)
        return self.directory / name

    def client(self, key: Path | None = None, **named: Any) -> Client:
        client = Client(self.messages, self.address, self.authority, key or self.key(), **named)
        self._clients.append(client)
        return client

    def spawn(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Future[Any]:
        return self._threads.submit(call, *arguments, **named)

    def job(self, *tables: Sequence[str], **named: Any) -> list[list[str]]:
        """A job of new clients, to its end."""
        runs = [self.spawn(self.client().run, ids, len(tables), **named) for ids in tables]
        return [run.result(PATIENCE) for run in runs]

    def close(self) -> None:
        for client in self._clients:
            client.close()
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
        self._threads.shutdown(cancel_futures=True)


@pytest.fixture
def scene(messages: Any, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(messages, tmp_path)
    yield scene
    scene.close()


Refused = Callable[[Callable[[], Any], grpc.StatusCode, str], None]


@pytest.fixture
def refused() -> Refused:
    """Demands that a call is refused with this code and a text that matches."""

    def refused(call: Callable[[], Any], code: grpc.StatusCode, text: str) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        error = caught.value
        assert error.code() == code, error
        assert re.search(text, error.details()), error.details()

    return refused
