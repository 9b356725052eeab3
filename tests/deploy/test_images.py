"""What the images' and compose's files may say, read without an engine."""

from __future__ import annotations

import copy
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGES = REPOSITORY / "deploy/images"
COMPOSE = REPOSITORY / "deploy/compose"
VERSION: str = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["package"]["version"]

DOCKERFILES = sorted(IMAGES.glob("*/Dockerfile"))
SCRIPTS = sorted(
    path
    for directory in (IMAGES, COMPOSE, REPOSITORY / "deploy/kubernetes")
    for path in directory.rglob("*")
    if path.is_file() and path.read_bytes()[:2] == b"#!"
)
PROJECTS = {
    "two": ["compose.yaml"],
    "three": ["compose.yaml", "compose.three.yaml"],
    "sgx": ["compose.yaml", "compose.sgx.yaml"],
}

USER = "10001:10001"

Document = dict[str, Any]


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, each on one line."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    split = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [(name.upper(), rest) for name, rest in split]


def faults_of_dockerfile(text: str) -> list[str]:
    """What is wrong with a Dockerfile."""
    faults = []
    listed = instructions(text)
    first = next(index for index, (name, _) in enumerate(listed) if name == "FROM")
    defaults = dict(rest.split("=", 1) for name, rest in listed[:first] if name == "ARG" and "=" in rest)
    stages: set[str] = set()
    for name, rest in listed:
        if name == "FROM":
            (image, *alias) = re.split(r"\s+AS\s+", rest, flags=re.IGNORECASE)
            stages.update(alias)
            image = re.sub(r"^\$\{(\w+)\}$", lambda match: defaults.get(match[1], match[0]), image)
            if image not in {"scratch", *stages}:
                if not re.fullmatch(r"[a-z0-9.-]+\.[a-z]+(/[a-z0-9._-]+)+(:[\w.-]+)(@sha256:[0-9a-f]{64})?", image):
                    faults.append(f"FROM {image}: a registry, a name and a tag are needed")
                if image.endswith(":latest"):
                    faults.append(f"FROM {image}: latest is another image every day")
        elif name == "ADD":
            faults.append("ADD fetches and unpacks: COPY does neither")
        elif name in ("ENV", "ARG"):
            if re.search(r"\b\w*(SECRET|PASSWORD|TOKEN|_KEY)\w*\b", rest, re.IGNORECASE):
                faults.append(f"{name} {rest}: a secret would be in the image's history")
            if re.search(r"\b(https?|no|all)_proxy\b", rest, re.IGNORECASE):
                faults.append(f"{name} {rest}: a proxy of the build would stay in the image")
        elif name in ("ENTRYPOINT", "CMD") and not rest.startswith("["):
            faults.append(f"{name} {rest}: a shell would be the first process, and get the signals")
        elif name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                if not source.startswith(("$", "--")) and not (REPOSITORY / source).exists():
                    faults.append(f"COPY {source}: the repository has no such file")
        elif name == "RUN" and re.search(r"\bsudo\b|chmod\s+(-R\s+)?777|\|\s*(ba)?sh\b|allow-unauthenticated", rest):
            faults.append(f"RUN {rest}: not in an image")
    last = max(index for index, (name, _) in enumerate(listed) if name == "FROM")
    final = listed[last:]
    for needed in (("USER", USER), ("STOPSIGNAL", "SIGTERM")):
        if [rest for name, rest in final if name == needed[0]] != [needed[1]]:
            faults.append(f"the final stage needs {' '.join(needed)}, once")
    if not any(name == "ENTRYPOINT" for name, _ in final):
        faults.append("the final stage needs an ENTRYPOINT")
    labels = " ".join(rest for name, rest in final if name == "LABEL")
    for label in ("title", "description", "version", "revision", "licenses"):
        if f"org.opencontainers.image.{label}=" not in labels:
            faults.append(f"there is no label org.opencontainers.image.{label}")
    if not any(name == "ARG" and f"VERSION={VERSION}" in rest for name, rest in final):
        faults.append(f"VERSION is not {VERSION}, the workspace's")
    return faults


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_dockerfiles_are_as_they_should_be(path: Path) -> None:
    assert faults_of_dockerfile(path.read_text()) == []


def test_there_is_an_image_for_each_role() -> None:
    assert [path.parent.name for path in DOCKERFILES] == ["provider", "service", "try"]


@pytest.mark.parametrize(
    ("what", "by", "fault"),
    [
        ("docker.io/library/debian:bookworm-slim", "docker.io/library/debian:latest", "latest is another image"),
        ("docker.io/library/debian:bookworm-slim", "docker.io/library/debian", "a registry, a name and a tag"),
        ("docker.io/library/debian:bookworm-slim", "debian:bookworm-slim", "a registry, a name and a tag"),
        ("USER 10001:10001", "USER root", "needs USER 10001:10001"),
        ("USER 10001:10001\n", "", "needs USER 10001:10001"),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL", "needs STOPSIGNAL SIGTERM"),
        ('ENTRYPOINT ["/opt/convelo/convelo"]', "ENTRYPOINT /opt/convelo/convelo", "a shell would be the first"),
        ('ENTRYPOINT ["/opt/convelo/convelo"]', "", "needs an ENTRYPOINT"),
        ("ENV PATH=/usr/local/bin", "ENV SIGNING_KEY=x", "a secret would be in"),
        ("ENV PATH=/usr/local/bin", "ENV https_proxy=http://proxy:3128", "a proxy of the build"),
        ("COPY . .", "ADD . .", "ADD fetches"),
        ("deploy/images/gather.sh", "deploy/images/gathering.sh", "no such file"),
        ("RUN sh /gather.sh", "RUN sudo sh /gather.sh", "not in an image"),
        ("image.licenses", "image.license", "no label org.opencontainers.image.licenses"),
        (f"VERSION={VERSION}", "VERSION=0.0.9", "VERSION is not"),
    ],
)
def test_faults_of_a_dockerfile_are_found(what: str, by: str, fault: str) -> None:
    good = (IMAGES / "provider/Dockerfile").read_text()
    assert what in good
    faults = faults_of_dockerfile(good.replace(what, by))
    assert any(fault in found for found in faults), faults


def merged(names: list[str]) -> Document:
    """Compose files, the later ones over the earlier, as far as ours go."""

    def over(below: Any, above: Any, name: str) -> Any:
        if isinstance(below, dict) and isinstance(above, dict):
            together = {key: over(below.get(key), value, key) for key, value in above.items()}
            return {**below, **together}
        if isinstance(below, list) and isinstance(above, list) and name not in ("command", "entrypoint", "test"):
            return below + above
        return above

    document: Document = {}
    for name in names:
        document = over(document, yaml.safe_load((COMPOSE / name).read_text()), "")
    return document


#: What may be mounted from outside, and only read.
BINDS = {
    "./steps",
    "/var/run/aesmd",
    "${CONVELO_POLICY}",
    *(f"./tables/{name}.csv" for name in ("alice", "bob", "carol")),
}

#: Who may write to a volume. What others trust has one writer; a provider's own volume has its key, and
#: what it makes with it.
WRITERS = {
    "platform": {"platform"},
    "platform-public": {"platform"},
    "job": {"job"},
    "collateral": {"collateral"},
    **{name: {name, f"{name}-key"} for name in ("alice", "bob", "carol")},
    **{f"{name}-public": {f"{name}-key"} for name in ("alice", "bob", "carol")},
}

#: Quotes come from the host's AESM, and the provisioning device is for AESM alone.
DEVICES = ["/dev/sgx_enclave"]


def faults_of_compose(document: Document) -> list[str]:
    """What is wrong with a project."""
    faults = []
    seen: dict[str, set[str]] = {}
    for volume in document["volumes"]:
        if volume not in WRITERS:
            faults.append(f"nobody has said who may write to the volume {volume}")
    for name, service in document["services"].items():
        at = f"{name}: "
        image = re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", service.get("image", ""))
        if not re.fullmatch(rf"convelo/(service|provider|try):{re.escape(VERSION)}", image):
            faults.append(f"{at}the image is '{image}', not one of ours with the tag {VERSION}")
        for key, wanted in (
            ("user", USER),
            ("read_only", True),
            ("cap_drop", ["ALL"]),
            ("security_opt", ["no-new-privileges:true"]),
        ):
            if service.get(key) != wanted:
                faults.append(f"{at}{key} is {service.get(key)}, not {wanted}")
        for key in (
            "privileged",
            "cap_add",
            "ports",
            "env_file",
            "ipc",
            "userns_mode",
            "container_name",
            "extra_hosts",
        ):
            if key in service:
                faults.append(f"{at}{key} is set")
        if "pids_limit" not in service:
            faults.append(f"{at}pids_limit is missing")
        if ("network_mode" in service) == ("networks" in service):
            faults.append(f"{at}either networks or network_mode")
        if service.get("network_mode", "none") != "none":
            faults.append(f"{at}network_mode is {service['network_mode']}")
        if service.get("pid", "service:service") != "service:service":
            faults.append(f"{at}pid is {service['pid']}")
        if service.get("devices", DEVICES) != DEVICES:
            faults.append(f"{at}devices are {service['devices']}")
        for mount in service.get("volumes", []):
            if not isinstance(mount, str):
                faults.append(f"{at}{mount} is not of the short form, SOURCE:TARGET[:ro]")
                continue
            (source, *_) = re.sub(r"(\$\{\w+):\?[^}]*\}", r"\1}", mount).split(":")
            if source in document["volumes"]:
                seen.setdefault(source, set()).add(name)
                if not mount.endswith(":ro") and name not in WRITERS.get(source, set()):
                    faults.append(f"{at}it may write to {source}, which others trust")
            elif source not in BINDS or not mount.endswith(":ro"):
                faults.append(f"{at}{mount} is mounted, or may be written to")
        for network in service.get("networks", []):
            if network not in document["networks"]:
                faults.append(f"{at}there is no network {network}")
            if name in ("alice", "bob", "carol") and network != name:
                faults.append(f"{at}it shares the network {network} with another provider")
        for other in service.get("depends_on", {}):
            if other not in document["services"]:
                faults.append(f"{at}it waits for {other}, which there is not")
    for provider in {"alice", "bob", "carol"} & set(document["services"]):
        if seen.get(provider) != {provider, f"{provider}-key"}:
            faults.append(f"{provider}'s volume is mounted by {sorted(seen.get(provider, set()))}")
        if not (document["networks"].get(provider) or {}).get("internal"):
            faults.append(f"the network {provider} leads elsewhere")
    return faults


@pytest.mark.parametrize("project", PROJECTS)
def test_compose_files_are_as_they_should_be(project: str) -> None:
    assert faults_of_compose(merged(PROJECTS[project])) == []


def test_with_sgx_whoever_fetches_collateral_cannot_rewrite_the_job() -> None:
    document = merged(PROJECTS["sgx"])
    document["services"]["collateral"]["volumes"].append("job:/job")
    assert "collateral: it may write to job, which others trust" in faults_of_compose(document)
    document["volumes"]["more"] = None
    assert "nobody has said who may write to the volume more" in faults_of_compose(document)


def test_with_sgx_no_provider_consents_to_a_simulated_platform() -> None:
    services = merged(PROJECTS["sgx"])["services"]
    for name in ("alice", "bob"):
        assert "--insecure-simulated" not in services[name]["command"]
        simulated = merged(PROJECTS["two"])["services"][name]["command"]
        expected = [word for word in simulated if word != "--insecure-simulated"]
        expected[expected.index("/platform/collateral.json")] = "/collateral/collateral.json"
        assert services[name]["command"] == expected
    assert services["service"]["command"] == []


FAULTS: list[tuple[Callable[[Document], Any], str]] = [
    (lambda services: services["alice"].update(image="convelo/try:latest"), "not one of ours with the tag"),
    (lambda services: services["alice"].pop("user"), "user is None"),
    (lambda services: services["alice"].update(user="0:0"), "user is 0:0"),
    (lambda services: services["service"].update(read_only=False), "read_only is False"),
    (lambda services: services["service"].update(cap_drop=[]), "cap_drop is []"),
    (lambda services: services["service"].update(security_opt=["seccomp:unconfined"]), "security_opt is"),
    (lambda services: services["service"].update(privileged=True), "privileged is set"),
    (lambda services: services["service"].update(cap_add=["SYS_PTRACE"]), "cap_add is set"),
    (lambda services: services["service"].update(devices=["/dev/mem"]), "devices are"),
    (lambda services: services["bob"].update(network_mode="host"), "network_mode is host"),
    (lambda services: services["bob"]["networks"].append("alice"), "shares the network alice"),
    (lambda services: services["bob"]["volumes"].append("alice:/alice"), "alice's volume is mounted by"),
    (lambda services: services["bob"]["volumes"].append("/home:/home"), "/home:/home is mounted"),
    (lambda services: services["bob"]["volumes"].append("./steps:/steps"), "./steps:/steps is mounted"),
    (lambda services: services["alice-key"]["volumes"].append("job:/job"), "alice-key: it may write to job"),
    (lambda services: services["platform"]["volumes"].append("job:/job:rw"), "platform: it may write to job"),
    (lambda services: services["bob"]["volumes"].append("platform-public:/p:z"), "bob: it may write to platform-"),
    (lambda services: services["service"].update(volumes=["platform:/data"]), "service: it may write to platform"),
    (lambda services: services["job"]["volumes"].append("bob-public:/b"), "job: it may write to bob-public"),
    (
        lambda services: services["bob"]["volumes"].append({"type": "volume", "source": "job", "target": "/job"}),
        "is not of the short form",
    ),
    (lambda services: services["bob"]["depends_on"].update(jobs={}), "waits for jobs"),
    (lambda services: services["finish"].update(pid="host"), "pid is host"),
]


@pytest.mark.parametrize(("change", "fault"), FAULTS, ids=[fault for _, fault in FAULTS])
def test_faults_of_a_project_are_found(change: Callable[[Document], Any], fault: str) -> None:
    document = copy.deepcopy(merged(PROJECTS["two"]))
    change(document["services"])
    faults = faults_of_compose(document)
    assert any(fault in found for found in faults), faults


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_scripts_are_in_order(path: Path) -> None:
    assert os.access(path, os.X_OK)
    shell = "bash" if b"bash" in path.read_bytes().splitlines()[0] else "sh"
    checks = [[shell, "-n", str(path)]]
    if shutil.which("shellcheck"):
        checks.append(["shellcheck", str(path)])
    for check in checks:
        done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def start(*arguments: str, code: int = 0, **environment: str) -> str:
    """What start_container.sh says; it starts nothing."""
    done = subprocess.run(
        [str(IMAGES / "start_container.sh"), *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def group_of(device: str) -> str:
    """The group that the script prints for a device."""
    return str(os.stat(device).st_gid) if os.path.exists(device) else f"GROUP-OF-{device}"


def owned_code(directory: Path) -> int:
    """How the script ends for a directory: one of root's is refused."""
    return 2 if directory.stat().st_uid == 0 else 0


def test_a_service_is_started_with_its_devices_and_without_privileges() -> None:
    command = start("--dry-run", "server", "192.0.2.7", "0.1.0").split()
    assert command[:4] == ["docker", "run", "--name", "server"]
    assert command[-1] == "convelo/service:0.1.0"
    for wanted in (
        "--read-only",
        "--cap-drop ALL",
        "--security-opt no-new-privileges:true",
        "--add-host pccs.service.com:192.0.2.7",
        "--publish 0.0.0.0:7443:7443",
        f"--device /dev/sgx_enclave --group-add {group_of('/dev/sgx_enclave')}",
        "--volume /var/run/aesmd:/var/run/aesmd:ro",
        "--restart unless-stopped",
    ):
        assert wanted in " ".join(command)
    for unwanted in ("seccomp", "--net", "--privileged", "SYS_PTRACE", "/home", "latest", "sgx_provision", "tmpfs"):
        assert unwanted not in " ".join(command)
    assert start("--dry-run").split()[-1] == f"convelo/service:{VERSION}"


@pytest.mark.parametrize("provider", ["intel", "azure"])
def test_an_image_with_aesm_inside_gets_both_devices_with_their_groups(provider: str) -> None:
    command = start("--dry-run", f"--quote-provider={provider}")
    for wanted in (
        f"--device /dev/sgx_enclave --group-add {group_of('/dev/sgx_enclave')}",
        f"--device /dev/sgx_provision --group-add {group_of('/dev/sgx_provision')}",
        "--tmpfs /var/run/aesmd:uid=10001",
        "--tmpfs /var/opt/aesmd:uid=10001",
    ):
        assert wanted in command
    assert "/var/run/aesmd:/var/run/aesmd" not in command
    assert ("/etc/sgx_default_qcnl.conf" in command) == (provider == "intel")


@pytest.mark.parametrize("name", ["server", "service", "server2", "service-2", "server_1"])
def test_names_of_the_service(name: str) -> None:
    assert "convelo/service:" in start("--dry-run", name)


@pytest.mark.parametrize(
    "name",
    ["servers-of-alice", "serverless-provider", "service-provider", "service-eu", "server.alice", "server-",
     "serviceable", "Server", "server2b", "my-server", "alice"],
)  # fmt: skip
def test_other_names_are_providers(name: str, tmp_path: Path) -> None:
    assert "convelo/service:" not in start("--dry-run", name, "--data", str(tmp_path), code=owned_code(tmp_path))


@pytest.mark.parametrize("publish", ["[::]:7443", "192.0.2.7:443", "0.0.0.0:65535"])
def test_addresses_are_published(publish: str) -> None:
    assert f"--publish {publish}:7443" in start("--dry-run", f"--publish={publish}").replace("\\", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
def test_a_provider_runs_as_the_owner_of_its_directory_and_gets_its_arguments(tmp_path: Path) -> None:
    dry = ["--dry-run", "--data", str(tmp_path), "data_provider1", "192.0.2.7", "0.1.0", "--", "run", "a job.toml"]
    assert "belongs to root" in start(*dry, code=2)
    os.chown(tmp_path, 4321, 8765)
    said = start(*dry, https_proxy="http://proxy.example.org:3128")
    assert said.endswith("convelo/provider:0.1.0 run a\\ job.toml \n")
    mount = f"--mount type=bind\\,source={tmp_path}\\,target=/data"
    for wanted in ("--user 4321:8765", mount, "--env https_proxy ", "--rm", "--read-only"):
        assert wanted in said
    for unwanted in ("sgx", "aesm", "--publish", "proxy.example.org"):
        assert unwanted not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "b", "c", "d"], "more than three arguments"),
        (["alice", "run", "job.toml"], "comes after"),
        (["alice", "192.0.2.7", "run/it"], "is not a tag"),
        (["server", "https://192.0.2.7:8081"], "is not a PCCS-ADDRESS"),
        (["server", "pccs.example.org"], "is not a PCCS-ADDRESS"),
        (["server", "192.0.2.256"], "is not a PCCS-ADDRESS"),
        (["server", ""], "is not a PCCS-ADDRESS"),
        (["alice:bob"], "is not a name"),
        (["--publish", "nonsense"], "not ADDRESS:PORT"),
        (["--publish", "7443"], "not ADDRESS:PORT"),
        (["--publish", "0.0.0.0:70000"], "not ADDRESS:PORT"),
        (["--publish="], "--publish is empty"),
        (["--quote-provider", "amd"], "not host, intel or azure"),
        (["server", "--data", "."], "for which --data has no meaning"),
        (["alice", "--publish", "0.0.0.0:7443"], "for which --publish has no meaning"),
        (["alice", "--quote-provider", "intel"], "for which --quote-provider has no meaning"),
        (["alice", "--data", ""], "--data is empty"),
        (["alice", "--data=/etc/passwd"], "is not a directory"),
        (["--net"], "there is no option --net"),
        (["--publish"], "--publish needs a value"),
        (["server", "--", "0.0.0.0:1"], "the service takes no arguments"),
        (["data_provider1", "--data", "/nowhere"], "does not exist"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], words: str) -> None:
    assert words in start("--dry-run", *arguments, code=2)


@pytest.mark.parametrize("option", ["--data", "--publish", "--quote-provider"])
@pytest.mark.parametrize(
    ("value", "words"),
    [("", "is empty"), ("-d", "looks like an option"), ("--dry-run", "looks like an option"), ("a\nb", "line break"),
     ("a\n", "line break"), ("a\tb", "control character")],
)  # fmt: skip
def test_no_option_takes_a_value_that_is_no_value(option: str, value: str, words: str) -> None:
    name = "alice" if option == "--data" else "server"
    assert words in start("--dry-run", name, option, value, code=2)
    assert words in start("--dry-run", name, f"{option}={value}", code=2)
    assert "needs a value" in start("--dry-run", name, option, code=2)


@pytest.mark.parametrize("place", [0, 1, 2], ids=["NAME", "PCCS-ADDRESS", "TAG"])
@pytest.mark.parametrize("value", ["", " ", "a b", " a", "server ", "a\nb", "0.1.0\n", "-d", "--", "$(id)", "a,b"])
def test_no_argument_takes_what_is_none(place: int, value: str) -> None:
    arguments = ["server", "192.0.2.7", "0.1.0"]
    arguments[place] = value
    if value == "--":
        # What follows belongs to a provider, and the service has no arguments.
        arguments.append("more")
    assert "start_container.sh: " in start("--dry-run", *arguments, code=2)


def owned_directory(parent: Path, name: str) -> Path:
    """A directory of an unprivileged user, whoever runs the tests."""
    made = parent / name
    made.mkdir()
    if os.geteuid() == 0:
        os.chown(made, 4321, 8765)
    return made


@pytest.mark.parametrize("name", ["a:b", "a:b:ro", "a b", "-d", "a'b", "$(id)", "ünï"])
def test_a_directory_of_any_name_is_mounted_whole(name: str, tmp_path: Path) -> None:
    made = owned_directory(tmp_path, name)
    said = start("--dry-run", "alice", "--data", str(made))
    print_words = ["bash", "-c", f"printf '%s\\n' {said}"]
    words = subprocess.run(print_words, capture_output=True, text=True, check=True, timeout=20)
    given = words.stdout.splitlines()
    assert given[given.index("--mount") + 1] == f"type=bind,source={made},target=/data"
    assert "--volume" not in given


@pytest.mark.parametrize("name", ["a,b", "a,readonly", 'a"b'])
def test_a_directory_that_cannot_be_named_to_docker_is_refused(name: str, tmp_path: Path) -> None:
    made = owned_directory(tmp_path, name)
    assert "a comma, a double quote" in start("--dry-run", "alice", "--data", str(made), code=2)
    (tmp_path / "link").symlink_to(made)
    assert "a comma, a double quote" in start("--dry-run", "alice", "--data", str(tmp_path / "link"), code=2)


def test_no_command_of_ours_splits_a_path_at_its_colons() -> None:
    """Docker's --volume does; --mount does not. Paths that hold no colon are fixed ones."""
    files = [*SCRIPTS, *REPOSITORY.glob("deploy/**/*.md"), *REPOSITORY.glob("deploy/release/*.sh")]
    files += [*REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob(".github/workflows/*.yml")]
    found = [
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for path in files
        for line in path.read_text().splitlines()
        if re.search(r"(--volume|-v)[ =]\S*(\$PWD|\$\(pwd\)|\$\{?data)", line)
    ]
    assert found == []


def test_the_help_names_every_option() -> None:
    script = (IMAGES / "start_container.sh").read_text()
    said = start("--help")
    options = set(re.findall(r"^ {8}(--[a-z-]+)", script, re.MULTILINE)) | set(re.findall(r"(--[a-z-]+)=\*", script))
    assert {"--data", "--publish", "--quote-provider", "--dry-run"} <= options
    for option in options:
        assert option in said, option
    assert VERSION in said


def enter(root: Path, *, aesm: bool = False, provision: bool = False, socket_of_host: bool = True) -> str:
    """What the service's image does at its start, in a tree of its own."""
    script = (IMAGES / "service/start").read_text()
    for place in ("/opt/", "/dev/sgx", "/var/run/"):
        assert place in script
        script = script.replace(place, f"{root}{place}")
    for directory in ("opt/convelo", "dev", "var/run/aesmd", "bin", "opt/intel/sgx-aesm-service/aesm"):
        (root / directory).mkdir(parents=True)
    (root / "opt/convelo/convelo-service.manifest.sgx").touch()
    (root / "dev/sgx_enclave").touch()
    if provision:
        (root / "dev/sgx_provision").touch()
    programs = ["bin/gramine-sgx", *(["opt/intel/sgx-aesm-service/aesm/aesm_service"] if aesm else [])]
    for program in programs:
        (root / program).write_text("#!/bin/sh\necho started\n")
        (root / program).chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        if socket_of_host:
            listening.bind(str(root / "var/run/aesmd/aesm.socket"))
        done = subprocess.run(
            ["sh", "-c", script],
            env={"PATH": f"{root}/bin:{os.environ['PATH']}"},
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    return done.stdout + done.stderr


def test_the_enclave_device_is_enough_where_the_host_makes_the_quotes() -> None:
    with tempfile.TemporaryDirectory() as root:
        assert enter(Path(root)) == "started\n"


def test_an_image_with_aesm_inside_asks_for_the_provisioning_device() -> None:
    with tempfile.TemporaryDirectory() as root:
        assert "sgx_provision is missing: start the container with --device" in enter(Path(root), aesm=True)
    with tempfile.TemporaryDirectory() as root:
        assert enter(Path(root), aesm=True, provision=True) == "started\n"


def test_without_aesm_anywhere_the_start_says_what_to_do() -> None:
    with tempfile.TemporaryDirectory() as root:
        assert "mount the host's" in enter(Path(root), socket_of_host=False)


#: What an enclave's directory has when deploy/gramine/build.sh is done: beginnings of them.
ENCLAVE = {
    "convelo-service": b"\x7fELF\x02\x01\x01 -----BEGIN PRIVATE KEY-----",
    "convelo-service.cdx.json": b'{"bomFormat": "CycloneDX"}',
    "convelo-service.manifest": b"[loader]\n",
    "convelo-service.manifest.sgx": b"[loader]\n",
    "convelo-service.sig": bytes.fromhex("06000000e10000000000010000000000") + b"\x55" * 1792,
}


def taken_over(home: Path, more: dict[str, bytes]) -> tuple[str, set[str]]:
    """What the check of the service's image says of an enclave with more in it, and what it lets through."""
    shutil.rmtree(home / "enclave", ignore_errors=True)
    shutil.rmtree(home / "image", ignore_errors=True)
    (home / "enclave").mkdir()
    for name, content in (ENCLAVE | more).items():
        (home / "enclave" / name).write_bytes(content)
    check = ["sh", str(IMAGES / "service/check.sh"), "1.9", str(home / "enclave"), str(home / "image")]
    done = subprocess.run(check, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode == 0) == (done.stderr == ""), done.stderr
    return done.stderr, {path.name for path in (home / "image").glob("*")}


def made_keys(home: Path) -> dict[str, bytes]:
    """A key in each form that a tool of this machine writes."""
    home.mkdir()
    commands = {
        "rsa.pem": "openssl genrsa -traditional -3 -out rsa.pem 3072 || openssl genrsa -3 -out rsa.pem 3072",
        "rsa-pkcs8.pem": "openssl pkcs8 -topk8 -nocrypt -in rsa.pem -out rsa-pkcs8.pem",
        "rsa.der": "openssl rsa -traditional -in rsa.pem -outform DER -out rsa.der",
        "rsa-pkcs8.der": "openssl pkcs8 -topk8 -nocrypt -in rsa.pem -outform DER -out rsa-pkcs8.der",
        "rsa-encrypted.der": "openssl pkcs8 -topk8 -passout pass:x -in rsa.pem -outform DER -out rsa-encrypted.der",
        "rsa-encrypted.pem": "openssl pkcs8 -topk8 -passout pass:x -in rsa.pem -out rsa-encrypted.pem",
        "ec.pem": "openssl ecparam -name prime256v1 -genkey -noout -out ec.pem",
        "ec.der": "openssl ec -in ec.pem -outform DER -out ec.der",
        "ec-pkcs8.der": "openssl pkcs8 -topk8 -nocrypt -in ec.pem -outform DER -out ec-pkcs8.der",
        "ec384.der": "openssl ecparam -name secp384r1 -genkey -noout -outform DER -out ec384.der",
        "ed25519.der": "openssl genpkey -algorithm ed25519 -outform DER -out ed25519.der",
        "rsa.b64": "base64 rsa.der > rsa.b64",
        "rsa-pkcs8.b64": "base64 rsa-pkcs8.der > rsa-pkcs8.b64",
        "ec.b64": "base64 ec.der > ec.b64",
        "ec-pkcs8.b64": "base64 ec-pkcs8.der > ec-pkcs8.b64",
        "ec384.b64": "base64 ec384.der > ec384.b64",
        "ed25519.b64": "base64 ed25519.der > ed25519.b64",
        "cert.pem": "openssl req -x509 -new -key ec.pem -subj /CN=a -days 9 -out cert.pem",
        "key.p12": "openssl pkcs12 -export -inkey ec.pem -in cert.pem -passout pass:x -out key.p12",
    }
    if shutil.which("ssh-keygen"):
        commands["id_ed25519"] = "ssh-keygen -q -t ed25519 -N '' -f id_ed25519"
    if shutil.which("keytool"):
        entry = "keytool -importkeystore -srckeystore key.p12 -srcstoretype PKCS12 -srcstorepass x -noprompt"
        commands["key.jks"] = f"{entry} -destkeystore key.jks -deststoretype JKS -deststorepass changeit"
    if "CONVELO_TESTS_BINARY" in os.environ:
        commands["alice.key"] = "$CONVELO_TESTS_BINARY keygen alice"
    for command in commands.values():
        subprocess.run(["sh", "-c", command], cwd=home, capture_output=True, timeout=60, check=True)
    made = {name: (home / name).read_bytes() for name in commands if name != "cert.pem"}
    return made | {
        "of-a-java-program.jks": bytes.fromhex("feedfeed00000002") + bytes(64),
        "of-a-java-program.jceks": bytes.fromhex("cececece00000002") + bytes(64),
        "of-putty.ppk": b"PuTTY-User-Key-File-3: ssh-ed25519\r\n",
        "of-openpgp.asc": b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n",
        "of-ssh2": b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n",
        "of-age": b"# created\nAGE-SECRET-KEY-1QQQ\n",
        "key.jwk": b'{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "d": "AA"}',
    }


@pytest.mark.skipif(shutil.which("openssl") is None, reason="not tested: openssl is not installed")
def test_no_form_of_a_key_gets_into_the_image_of_the_service(tmp_path: Path) -> None:
    for name, key in made_keys(tmp_path / "keys").items():
        # By its own name, by one that says nothing, hidden, and in place of what belongs there.
        for place in (name, "notes", f".{name}", *ENCLAVE):
            said, through = taken_over(tmp_path, {place: key})
            assert (place in said, "a private key is among" in said) == (True, True), (name, place, said)
            assert through == set()


@pytest.mark.parametrize("name", ["secret", ".secret", "..secret", "a b", "-n", "convelo-service.key"])
def test_what_is_no_file_of_an_enclave_may_be_a_key_without_a_form(name: str, tmp_path: Path) -> None:
    said, through = taken_over(tmp_path, {name: bytes(range(100, 132))})
    assert f"{name} is not a file of an enclave" in said
    assert through == set()


def test_a_link_out_of_the_enclave_is_refused(tmp_path: Path) -> None:
    taken_over(tmp_path, {})
    (tmp_path / "outside").write_bytes(bytes(32))
    (tmp_path / "enclave/convelo-service.sig").unlink()
    (tmp_path / "enclave/convelo-service.sig").symlink_to(tmp_path / "outside")
    check = ["sh", str(IMAGES / "service/check.sh"), "1.9", str(tmp_path / "enclave"), str(tmp_path / "other")]
    done = subprocess.run(check, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, "convelo-service.sig is not a file" in done.stderr) == (1, True), done.stderr


def test_an_enclave_without_keys_is_taken_over(tmp_path: Path) -> None:
    said, through = taken_over(tmp_path, {})
    assert (said, through) == ("", ENCLAVE.keys() - {"convelo-service.manifest"})


def devices_and_groups(text: str) -> tuple[list[str], list[str]]:
    """The devices that commands hand over, and those whose groups they add."""
    groups = re.findall(r'--group-add "\$\(stat -c %g (\S+)\)"', text)
    return re.findall(r"--device (/dev/\w+)", text), groups


@pytest.mark.parametrize(
    "page", ["docs/deploy-sgx.md", "docs/deploy-sgx.zh.md", "deploy/images/README.md"], ids=lambda page: Path(page).name
)
def test_commands_add_the_group_of_each_device(page: str) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (REPOSITORY / page).read_text(), re.MULTILINE | re.DOTALL)
    found = [devices_and_groups(block) for block in blocks if "--device" in block and "docker run" in block]
    assert found and all(devices == groups == DEVICES for devices, groups in found), found


def test_compose_adds_the_group_of_its_device() -> None:
    for name in ("compose.sgx.yaml", "README.md"):
        text = (COMPOSE / name).read_text()
        assert re.findall(r"CONVELO_SGX_GROUP=\$\(stat -c %g (\S+)\)", text) == DEVICES, name


def test_where_no_engine_answers_one_line_says_what_is_not_tested() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/containers", "--config-file=python/pyproject.toml"],
        env={**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock", "CONVELO_TESTS_BINARY": "/nowhere/convelo"},
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    said = [line for line in done.stdout.splitlines() if "NOT TESTED" in line]
    assert len(said) == 1 and "containers: no container engine answers" in said[0], done.stdout
    assert " passed" not in done.stdout
