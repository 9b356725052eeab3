"""deploy/kubernetes: what it renders to, against Kubernetes' own schemas and against our rules.

No cluster is asked. The overlays are rendered by kubectl or kustomize; where neither is installed, what
needs them is skipped, and each file is still held against the schemas.
"""

from __future__ import annotations

import copy
import http.client
import ipaddress
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
KUBERNETES = REPOSITORY / "deploy/kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())

#: The oldest version that deploy/kubernetes/README.md names, and the newest that the schemas know.
VERSIONS = ["1.31", kubernetes_validate.latest_version()]

VERSION: str = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["package"]["version"]

Document = dict[str, Any]


class UniqueKeys(yaml.SafeLoader):
    """YAML in which a key stands once: of two equal ones, the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def documents(text: str) -> list[Document]:
    return [document for document in yaml.load_all(text, UniqueKeys) if document is not None]


def renderer() -> list[str] | None:
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    return ["kustomize", "build"] if shutil.which("kustomize") else None


@cache
def rendered_text(overlay: str) -> str:
    command = renderer()
    if command is None:
        pytest.skip("not tested: neither kubectl nor kustomize is installed")
    directory = KUBERNETES / "overlays" / overlay
    done = subprocess.run([*command, str(directory)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def rendered(overlay: str) -> list[Document]:
    return documents(rendered_text(overlay))


def schema_problems(document: Document) -> list[str]:
    """What Kubernetes itself would refuse, or drop as a field that it does not know."""
    return list(problems_of_text(json.dumps(document)))


@cache
def problems_of_text(text: str) -> tuple[str, ...]:
    """The same of a document as text: most documents are looked at many times."""
    return tuple(refusals(json.loads(text)))


def refusals(document: Document) -> Iterator[str]:
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = "/".join(str(step) for step in error.absolute_path)
            yield f"{document['kind']} {version}: {where}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield error.message


def pod_of(document: Document) -> Document | None:
    """The pod, or the pod's template, with its metadata."""
    if document["kind"] == "Pod":
        return document
    if document["kind"] in {"Deployment", "StatefulSet", "Job", "DaemonSet"}:
        template: Document = document["spec"]["template"]
        return template
    return None


def selects(selector: Document, labels: Document) -> bool:
    return bool(selector) and selector.items() <= labels.items()


#: The only directory of a host that a pod of ours sees: AESM's socket is in it.
HOST_PATHS = {"/var/run/aesmd"}


def problems(found: list[Document]) -> list[str]:
    """Everything that is wrong with what is applied together."""
    wrong = [problem for document in found for problem in schema_problems(document)]
    if wrong:
        return wrong
    pods = [pod for document in found if (pod := pod_of(document)) is not None]
    for document in found:
        name = f"{document['kind']} {document['metadata']['name']}"
        if document["kind"] == "Secret":
            wrong.append(f"{name}: a secret is never in a file here")
        if document["kind"] != "Namespace" and document["metadata"].get("namespace") != "convelo":
            wrong.append(f"{name}: not in the namespace convelo")
        if document["kind"] in {"Deployment", "StatefulSet"}:
            wrong += [f"{name}: {problem}" for problem in workload_problems(document)]
        if document["kind"] in {"Service", "NetworkPolicy", "PodDisruptionBudget"}:
            wrong += [f"{name}: {problem}" for problem in selection_problems(document, pods)]
        if document["kind"] == "NetworkPolicy":
            wrong += [f"{name}: {problem}" for problem in egress_problems(document)]
        if (pod := pod_of(document)) is not None:
            wrong += [f"{name}: {problem}" for problem in pod_problems(pod)]
            policies = [policy for policy in found if policy["kind"] == "NetworkPolicy"]
            labels = pod["metadata"]["labels"]
            closed = [
                policy
                for policy in policies
                if selects(policy["spec"]["podSelector"].get("matchLabels", {}), labels)
                and set(policy["spec"].get("policyTypes", [])) == {"Ingress", "Egress"}
            ]
            if not closed:
                wrong.append(f"{name}: no network policy closes both directions for it")
    return wrong


def workload_problems(document: Document) -> Iterator[str]:
    spec = document["spec"]
    if not selects(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]):
        yield "its selector does not match its pods"
    if document["kind"] == "Deployment":
        if spec.get("replicas") != 1 or spec.get("strategy", {}).get("type") != "Recreate":
            yield "the parties of a job would reach different processes: one replica, Recreate"
    elif spec["replicas"] not in {2, 4, 8, 16}:
        yield "a job has 2, 4, 8 or 16 services"
    for container in spec["template"]["spec"]["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe not in container:
                yield f"{container['name']} has no {probe}"
            elif len({"httpGet", "tcpSocket", "exec"} & container[probe].keys()) != 1:
                yield f"{container['name']}: {probe} asks in no way, or in several"


def selection_problems(document: Document, pods: list[Document]) -> Iterator[str]:
    spec = document["spec"]
    selector = spec.get("selector", spec.get("podSelector", {}))
    selector = selector.get("matchLabels", selector)
    # The label that a StatefulSet gives each of its pods is in no template.
    pod_name = selector.get("statefulset.kubernetes.io/pod-name")
    chosen = [
        pod
        for pod in pods
        if selects(selector, pod["metadata"]["labels"])
        or (pod_name and pod_name.rpartition("-")[0] == pod["metadata"]["labels"]["app.kubernetes.io/name"])
    ]
    if not chosen:
        yield "it selects no pod"
        return
    names = {
        port["name"]
        for pod in chosen
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
    }
    ports = [port["targetPort"] for port in spec.get("ports", [])]
    ports += [port["port"] for rule in spec.get("ingress", []) for port in rule.get("ports", [])]
    for port in ports:
        if port not in names:
            yield f"its pods have no port {port}"


def pod_problems(pod: Document) -> Iterator[str]:
    spec = pod["spec"]
    if spec.get("automountServiceAccountToken") is not False:
        yield "it gets a token for the cluster's API"
    if spec.get("enableServiceLinks") is not False:
        yield "the host's other services are in its environment"
    if "terminationGracePeriodSeconds" not in spec:
        yield "nobody has thought about how long it takes to end"
    for shared in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        if spec.get(shared):
            yield f"{shared} is not needed"
    context = spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "it may run as root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for name, volume in volumes.items():
        if "hostPath" in volume and volume["hostPath"]["path"] not in HOST_PATHS:
            yield f"{name} is a directory of the host"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"{name} has no limit"
    mounted: set[str] = set()
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        yield from (f"{container['name']}: {problem}" for problem in container_problems(container))
        names = {mount["name"] for mount in container.get("volumeMounts", [])}
        mounted |= names
        for name in names - volumes.keys():
            yield f"{container['name']} mounts {name}, which is no volume"
    for name in volumes.keys() - mounted:
        yield f"nothing mounts {name}"


#: The images that we build. Somebody else's would see keys and tables, and a tag of theirs moves.
OURS = re.compile(
    r"([a-z0-9.-]+(:\d+)?/([a-z0-9._-]+/)*)?convelo/(service|provider|try)"
    r"(:(?P<tag>[\w.-]+))?(@sha256:(?P<digest>[0-9a-f]{64}))?"
)


def image_problems(image: str) -> Iterator[str]:
    named = OURS.fullmatch(image)
    if named is None:
        yield f"image {image}: it is not ours"
    elif not named["digest"] and named["tag"] != VERSION:
        yield f"image {image}: which version?"


def egress_problems(policy: Document) -> Iterator[str]:
    """Ways out of a pod that lead to more than somebody in particular."""
    for rule in policy["spec"].get("egress", []):
        if not rule.get("to") or not rule.get("ports"):
            yield "a way out leads to any host, or to any port"
        for peer in rule.get("to", []):
            block = peer.get("ipBlock")
            if block is not None and ipaddress.ip_network(block["cidr"]).num_addresses > 256:
                yield f"a way out leads to all of {block['cidr']}"
            selectors = [peer.get(name) for name in ("namespaceSelector", "podSelector")]
            if block is None and not any(selectors):
                yield "a way out leads to every pod"


def container_problems(container: Document) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("privileged"):
        yield "it is privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "it may gain privileges"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "it can write to its image"
    capabilities = context.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield "it has capabilities"
    yield from image_problems(container["image"])
    resources = container.get("resources", {})
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    if not {"cpu", "memory"} <= requests.keys():
        yield "no processors or no memory requested"
    if limits.get("memory") != requests.get("memory"):
        yield "its memory is not all its own: limit and request differ"
    if "sgx.intel.com/provision" in limits:
        yield "the provisioning device is AESM's"
    extended = {name for name in requests | limits if name.startswith("sgx.intel.com/")}
    for name in extended:
        if requests.get(name) != limits.get(name):
            yield f"{name}: limit and request of a device are equal"
    if extended and not {"sgx.intel.com/epc", "sgx.intel.com/enclave"} <= extended:
        yield "an enclave takes sgx.intel.com/enclave and sgx.intel.com/epc"
    ports = {port["name"] for port in container.get("ports", [])}
    for name, probe in container.items():
        if name.endswith("Probe"):
            asked = probe.get("httpGet", probe.get("tcpSocket", {})).get("port")
            if asked not in ports:
                yield f"{name} asks at port {asked}, which it does not have"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_are_what_kubernetes_accepts_and_keep_our_rules(overlay: str) -> None:
    found = rendered(overlay)
    assert len(found) >= 4
    assert problems(found) == []


@pytest.mark.parametrize(
    "file",
    [
        path.relative_to(KUBERNETES).as_posix()
        for path in sorted(KUBERNETES.rglob("*.yaml"))
        if path.name != "kustomization.yaml" and "components" not in path.parts
    ],
)
def test_files_are_what_kubernetes_accepts(file: str) -> None:
    found = documents((KUBERNETES / file).read_text())
    assert found
    assert [problem for document in found for problem in schema_problems(document)] == []


def test_the_pod_for_files_keeps_our_rules() -> None:
    (pod,) = documents((KUBERNETES / "provider/files.yaml").read_text())
    assert list(pod_problems(pod)) == []


def test_nothing_but_the_sgx_overlays_needs_more_than_the_strictest_standard() -> None:
    for overlay in OVERLAYS:
        (namespace,) = (document for document in rendered(overlay) if document["kind"] == "Namespace")
        labels = namespace["metadata"]["labels"]
        expected = "privileged" if overlay.startswith("sgx") else "restricted"
        assert labels["pod-security.kubernetes.io/enforce"] == expected, overlay
        assert labels["pod-security.kubernetes.io/warn"] == "restricted", overlay


def in_namespace(directory: Path, name: str, overlay: str) -> list[Document]:
    """An overlay as the README puts it into a namespace of its own."""
    command = renderer()
    if command is None:
        pytest.skip("not tested: neither kubectl nor kustomize is installed")
    # The renderer takes no absolute paths.
    base = os.path.relpath(KUBERNETES / "overlays" / overlay, directory)
    (directory / "kustomization.yaml").write_text(f"namespace: {name}\nresources: [{base}]\n")
    done = subprocess.run([*command, str(directory)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def applied(*groups: list[Document]) -> dict[tuple[str, str, str], Document]:
    """What a cluster has after all of it; two that are one object and differ are an error."""
    cluster: dict[tuple[str, str, str], Document] = {}
    for document in (document for group in groups for document in group):
        metadata = document["metadata"]
        name = (document["kind"], metadata.get("namespace", ""), metadata["name"])
        assert cluster.setdefault(name, document) == document, f"{name} is applied twice, and differs"
    return cluster


def several_workloads(cluster: list[Document]) -> list[str]:
    """Services and budgets that choose the pods of more than one workload of their namespace."""
    wrong = []
    for document in cluster:
        if document["kind"] not in {"Service", "PodDisruptionBudget"}:
            continue
        selector = document["spec"]["selector"]
        selector = selector.get("matchLabels", selector)
        chosen = [
            other["metadata"]["name"]
            for other in cluster
            if (pod := pod_of(other)) is not None
            and other["metadata"]["namespace"] == document["metadata"]["namespace"]
            and selects(selector, pod["metadata"]["labels"])
        ]
        if len(chosen) > 1:
            wrong.append(f"{document['kind']} {document['metadata']['name']} chooses {', '.join(chosen)}")
    return wrong


@pytest.mark.parametrize("overlay", ["sgx", "simulated", "provider"])
def test_an_overlay_in_two_namespaces_is_two_of_it(overlay: str, tmp_path: Path) -> None:
    both = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        both.append(in_namespace(tmp_path / name, name, overlay))
    cluster = applied(*both)
    assert len(cluster) == sum(map(len, both))
    assert several_workloads(list(cluster.values())) == []


def test_one_service_for_two_workloads_is_found() -> None:
    twice = []
    for prefix in ("one-", "two-"):
        for document in copy.deepcopy(rendered("simulated")):
            document["metadata"]["name"] = prefix + document["metadata"]["name"]
            twice.append(document)
    assert any("chooses one-convelo-service, two-convelo-service" in wrong for wrong in several_workloads(twice))


def test_a_provider_beside_a_service_on_sgx_keeps_the_strictest_standard(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="is applied twice, and differs"):
        applied(rendered("sgx"), rendered("provider"))
    cluster = applied(rendered("sgx"), in_namespace(tmp_path, "alice", "provider"))
    labels = cluster["Namespace", "", "alice"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert ("Job", "alice", "convelo-provider") in cluster


def test_a_second_run_of_a_provider_may_replace_the_rows_of_the_first() -> None:
    for overlay in ("provider", "provider-simulated"):
        arguments = container([first(rendered(overlay), "Job")])["args"]
        assert "--force" in arguments and any(word.startswith("--output=") for word in arguments), overlay


def test_the_table_is_there_before_the_job_runs() -> None:
    """The README's commands: the policy, the volume, the copy, then the Job."""
    text = (KUBERNETES / "README.md").read_text()
    order = ["provider/networkpolicy.yaml", "provider/data.yaml", "cp customers.csv", "delete pod convelo-files"]
    order += ["kubectl kustomize ../alice | deploy/kubernetes/check.sh | kubectl apply -f -"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_images_are_those_of_this_version() -> None:
    version = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    for overlay in OVERLAYS:
        images = re.findall(r"image: (convelo/\S+)", rendered_text(overlay))
        assert images and all(image.endswith(f":{version}") for image in images), (overlay, images)


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="replicas stands twice"):
        documents("spec:\n  replicas: 1\n  replicas: 2\n")


Change = Callable[[list[Document]], object]


def first(found: list[Document], kind: str) -> Document:
    return next(document for document in found if document["kind"] == kind)


def container(found: list[Document]) -> Document:
    pod = next(pod for document in found if (pod := pod_of(document)) is not None)
    chosen: Document = pod["spec"]["containers"][0]
    return chosen


def spec(found: list[Document]) -> Document:
    pod = next(pod for document in found if (pod := pod_of(document)) is not None)
    chosen: Document = pod["spec"]
    return chosen


def way_out(found: list[Document]) -> Document:
    rule: Document = first(found, "NetworkPolicy")["spec"]["egress"][0]
    return rule


#: Each breaks what is good in one way: the overlay, the change, and words of the complaint.
BROKEN: dict[str, tuple[str, Change, str]] = {
    "a field of another name": (
        "simulated",
        lambda found: spec(found).update(terminationGracePeriod=5),
        "terminationGracePeriod",
    ),
    "a number as text": (
        "simulated",
        lambda found: first(found, "Deployment")["spec"].update(replicas="1"),
        "is not of type",
    ),
    "a field in the wrong place": (
        "simulated",
        lambda found: container(found).update(automountServiceAccountToken=False),
        "automountServiceAccountToken",
    ),
    "a kind that does not exist": (
        "simulated",
        lambda found: first(found, "Deployment").update(apiVersion="apps/v1beta9"),
        "Couldn't find schema",
    ),
    "privileged": (
        "simulated",
        lambda found: container(found)["securityContext"].update(privileged=True),
        "it is privileged",
    ),
    "root": (
        "simulated",
        lambda found: spec(found)["securityContext"].update(runAsNonRoot=False),
        "it may run as root",
    ),
    "user 0": (
        "simulated",
        lambda found: spec(found)["securityContext"].update(runAsUser=0),
        "it may run as root",
    ),
    "no seccomp": (
        "simulated",
        lambda found: spec(found)["securityContext"].pop("seccompProfile"),
        "no seccomp profile",
    ),
    "unconfined": (
        "sgx",
        lambda found: spec(found)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        "no seccomp profile",
    ),
    "a writable image": (
        "provider",
        lambda found: container(found)["securityContext"].pop("readOnlyRootFilesystem"),
        "it can write to its image",
    ),
    "a capability": (
        "sgx",
        lambda found: container(found)["securityContext"]["capabilities"].update(add=["SYS_PTRACE"]),
        "it has capabilities",
    ),
    "privileges gained": (
        "sgx",
        lambda found: container(found)["securityContext"].pop("allowPrivilegeEscalation"),
        "it may gain privileges",
    ),
    "the host's network": (
        "sgx",
        lambda found: spec(found).update(hostNetwork=True),
        "hostNetwork is not needed",
    ),
    "another directory of the host": (
        "sgx",
        lambda found: spec(found)["volumes"][0].update(hostPath={"path": "/home"}),
        "is a directory of the host",
    ),
    "a token": (
        "provider",
        lambda found: spec(found).pop("automountServiceAccountToken"),
        "token for the cluster's API",
    ),
    "the newest image, whichever that is": (
        "simulated",
        lambda found: container(found).update(image="convelo/provider:latest"),
        "which version?",
    ),
    "a version that we did not release": (
        "simulated",
        lambda found: container(found).update(image="convelo/provider:0.0.9"),
        "which version?",
    ),
    "somebody else's image": (
        "provider",
        lambda found: spec(found)["initContainers"][0].update(image="docker.io/library/debian:bookworm-slim"),
        "it is not ours",
    ),
    "somebody else's image, pinned": (
        "provider",
        lambda found: spec(found)["initContainers"][0].update(image=f"docker.io/library/debian@sha256:{'0' * 64}"),
        "it is not ours",
    ),
    "a name like ours": (
        "provider",
        lambda found: container(found).update(image=f"notconvelo/provider:{VERSION}"),
        "it is not ours",
    ),
    "a way to any host": (
        "provider",
        lambda found: way_out(found).pop("to"),
        "leads to any host",
    ),
    "a way to every address": (
        "provider",
        lambda found: way_out(found).update(to=[{"ipBlock": {"cidr": "0.0.0.0/0"}}]),
        "leads to all of 0.0.0.0/0",
    ),
    "a way to half of all addresses": (
        "provider-simulated",
        lambda found: way_out(found)["to"].append({"ipBlock": {"cidr": "8000::/1"}}),
        "leads to all of 8000::/1",
    ),
    "a way to every pod": (
        "provider",
        lambda found: way_out(found).update(to=[{"namespaceSelector": {}}]),
        "leads to every pod",
    ),
    "a way to any port": (
        "provider",
        lambda found: way_out(found).pop("ports"),
        "to any port",
    ),
    "no memory requested": (
        "provider",
        lambda found: container(found)["resources"].pop("requests"),
        "no processors or no memory requested",
    ),
    "memory that others may take": (
        "simulated",
        lambda found: container(found)["resources"]["requests"].update(memory="1Gi"),
        "limit and request differ",
    ),
    "the provisioning device": (
        "sgx",
        lambda found: container(found)["resources"]["limits"].update({"sgx.intel.com/provision": 1}),
        "AESM's",
    ),
    "an enclave without its memory": (
        "sgx",
        lambda found: [
            container(found)["resources"][which].pop("sgx.intel.com/epc") for which in ("requests", "limits")
        ],
        "an enclave takes",
    ),
    "two replicas": (
        "simulated",
        lambda found: first(found, "Deployment")["spec"].update(replicas=2),
        "different processes",
    ),
    "a rolling update": (
        "simulated",
        lambda found: first(found, "Deployment")["spec"].pop("strategy"),
        "different processes",
    ),
    "three shards": (
        "simulated-shards",
        lambda found: first(found, "StatefulSet")["spec"].update(replicas=3),
        "2, 4, 8 or 16",
    ),
    "no readiness": (
        "simulated",
        lambda found: container(found).pop("readinessProbe"),
        "has no readinessProbe",
    ),
    "a probe of another port": (
        "simulated",
        lambda found: container(found)["livenessProbe"]["httpGet"].update(port="metrics"),
        "which it does not have",
    ),
    "a selector that misses": (
        "simulated",
        lambda found: first(found, "Service")["spec"].update(selector={"app": "convelo"}),
        "it selects no pod",
    ),
    "a port that no pod has": (
        "simulated",
        lambda found: first(found, "Service")["spec"]["ports"][0].update(targetPort="https"),
        "have no port https",
    ),
    "no network policy": (
        "provider",
        lambda found: found.remove(first(found, "NetworkPolicy")),
        "no network policy",
    ),
    "a network policy for one direction": (
        "simulated",
        lambda found: first(found, "NetworkPolicy")["spec"].update(policyTypes=["Ingress"]),
        "no network policy",
    ),
    "a mount of nothing": (
        "simulated",
        lambda found: spec(found).pop("volumes"),
        "which is no volume",
    ),
    "a secret in the tree": (
        "provider",
        lambda found: found.append(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "key", "namespace": "convelo"},
                "stringData": {"party.key": "x"},
            }
        ),
        "a secret is never in a file",
    ),
    "another namespace": (
        "provider",
        lambda found: first(found, "Job")["metadata"].pop("namespace"),
        "not in the namespace",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_manifests_are_refused(name: str) -> None:
    overlay, change, words = BROKEN[name]
    found = copy.deepcopy(rendered(overlay))
    change(found)
    complaints = problems(found)
    assert any(words in complaint for complaint in complaints), complaints


def test_no_file_names_an_image_of_somebody_else() -> None:
    """Nor one of ours by another version; one without any gets it from the overlay."""
    named = []
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        named += re.findall(r"^[\s-]*image:\s*(\S+)", path.read_text(), re.MULTILINE)
    assert len(named) >= 5
    of_overlay = {"convelo/service", "convelo/provider", "convelo/try"}
    assert [problem for image in named if image not in of_overlay for problem in image_problems(image)] == []


def checked(text: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(KUBERNETES / "check.sh")]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=20)


def test_an_address_that_nobody_has_filled_in_is_not_applied() -> None:
    done = checked(rendered_text("provider"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "name your service's" in done.stderr


@pytest.mark.parametrize("overlay", [overlay for overlay in OVERLAYS if overlay != "provider"])
def test_what_is_filled_in_is_passed_on(overlay: str) -> None:
    done = checked(rendered_text(overlay))
    assert (done.returncode, done.stdout, done.stderr) == (0, rendered_text(overlay), "")


@pytest.mark.parametrize(
    ("address", "words"),
    [("10.1.2.3/32", ""), ("fd00::7/128", ""), ("10.0.0.0/8", ""), ("198.51.100.7/32", "an example's"),
     ("203.0.113.9/32", "an example's"), ("2001:db8::1/128", "an example's"), ('"192.0.2.77/32"', "an example's"),
     ("0.0.0.0/0", "all addresses"), ("::/0", "all addresses"), ("'::/0'", "all addresses")],
)  # fmt: skip
def test_the_check_knows_an_address_from_an_example(address: str, words: str) -> None:
    done = checked(rendered_text("provider").replace("192.0.2.1/32", address))
    assert (done.returncode, done.stdout == "") == ((2, True) if words else (0, False)), done.stderr
    assert words in done.stderr


@pytest.mark.parametrize("image", ["convelo/try", "convelo/try:latest", "r.example.org:5000/convelo/try"])
def test_the_check_refuses_an_image_without_a_version(image: str) -> None:
    text = rendered_text("provider-simulated").replace(f"convelo/try:{VERSION}", image)
    done = checked(text)
    assert (done.returncode, done.stdout) == (2, ""), image
    assert "an image has no version" in done.stderr
    assert checked(text.replace(image, f"r.example.org:5000/convelo/try@sha256:{'0' * 64}")).returncode == 0
    assert checked("").returncode == 2


def convelo(home: Path, *arguments: str) -> str:
    program = os.environ["CONVELO_TESTS_BINARY"]
    done = subprocess.run([program, *arguments], cwd=home, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def moved(arguments: list[str], places: dict[str, str]) -> list[str]:
    """The arguments of a container, with its paths and addresses on this machine."""
    for place, here in places.items():
        assert any(place in argument for argument in arguments), place
        arguments = [argument.replace(place, here) for argument in arguments]
    return arguments


@pytest.mark.skipif("CONVELO_TESTS_BINARY" not in os.environ, reason="CONVELO_TESTS_BINARY names no program")
def test_the_arguments_of_the_pods_run_a_job_and_the_probes_are_answered(tmp_path: Path) -> None:
    """What the pods of the simulated overlays are told to do, done here by the same program."""
    convelo(tmp_path, "simulator", "new", "platform")
    pod = container(rendered("simulated"))
    places = {"0.0.0.0:7443": "127.0.0.1:0", "0.0.0.0:7480": "127.0.0.1:0", "/platform": "platform"}
    program = os.environ["CONVELO_TESTS_BINARY"]
    command = [program, *moved(pod["args"], places), "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as service:
        try:
            assert service.stdout is not None
            # Ends by itself if the service ends; pytest's time limit covers one that says nothing.
            line = json.loads(service.stdout.readline())
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                connection = http.client.HTTPConnection(line["status"], timeout=10)
                connection.request("GET", pod[probe]["httpGet"]["path"])
                assert connection.getresponse().status == 200, probe
                connection.close()
            run_job(tmp_path, line["listening"])
            service.terminate()
            assert service.wait(timeout=30) == 0
        finally:
            service.kill()


def run_job(home: Path, address: str) -> None:
    shutil.copy(home / "platform/collateral.json", home / "collateral.json")
    parties = []
    for name in ("alice", "bob"):
        key = re.search(r"sha256:[0-9a-f]{64}", convelo(home, "keygen", name))
        assert key is not None
        parties += ["--party", f"{name}={key[0]}"]
    arguments = ["init", "job.toml", "--policy", "platform/policy.toml", "--service", address, *parties]
    convelo(home, *arguments)
    job = (home / "job.toml").read_text()
    (home / "job.toml").write_text(re.sub(r"(?m)^minimum = \d+", "minimum = 1", job))
    rows = [f"{number}@example.org" for number in range(30)]
    (home / "customers.csv").write_text("\n".join(["email", *rows]) + "\n")
    (home / "spill").mkdir()

    job_of = first(rendered("provider-simulated"), "Job")["spec"]["template"]["spec"]
    (init,) = job_of["initContainers"]
    (home / "keys").mkdir()
    secret, key_file = "/run/secrets/convelo/party.key", "/run/convelo/party.key"
    (home / "alice.key").rename(home / "party.key")
    (home / "party.key").chmod(0o440)
    copied = moved(init["command"], {secret: "party.key", key_file: "keys/party.key"})
    subprocess.run(copied, cwd=home, check=True, timeout=10)

    places = {key_file: "keys/party.key", "/job/": "", "/data/": "", "/spill": "spill"}
    program = os.environ["CONVELO_TESTS_BINARY"]
    alice = [program, *moved(job_of["containers"][0]["args"], places)]
    common = ["--input=customers.csv", "--key=email", "--insecure-simulated", "--seen-lists=bob.json"]
    bob = [program, "run", "job.toml", "--as=bob", "--output=bob.csv", *common]
    with (home / "alice.log").open("w") as log:
        running = subprocess.Popen(alice, cwd=home, stdout=log, stderr=log)
        try:
            subprocess.run(bob, cwd=home, check=True, timeout=60, capture_output=True)
            assert running.wait(timeout=60) == 0, (home / "alice.log").read_text()
        finally:
            running.kill()
            running.wait()
    assert (home / "matched.csv").read_text().splitlines()[1:] == rows
    assert (home / "matched.csv.receipt.json").exists()
