"""Kubernetes: every manifest after the schema of its kind, least rights, closed doors, and values that the chart knows.

The chart itself is not at hand where tests run: the names of its values are compared with a list taken from its source,
and what its templates make of the run launcher is handed to dagster-k8s, whose pod is then checked as all others are.
"""

import re
from pathlib import Path
from typing import Any

import dagster_k8s.client
import kubernetes_validate
import pytest
import yaml
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import DagsterK8sJobConfig, UserDefinedDagsterK8sConfig, construct_dagster_k8s_job
from kubernetes.client import ApiClient

from heimdall_assets_tests.package_names import ROOT

FOLDER = ROOT / "deploy" / "k8s"
VERSION = "1.33"
OF_OTHERS = {"NodePool": "Karpenter's own kind, whose schema no package carries"}
VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "helm-values.yaml").read_text())
MANIFESTS: list[tuple[str, dict[str, Any]]] = [
    (f"{path.stem}-{manifest['kind']}-{manifest['metadata']['name']}", manifest)
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.name != "helm-values.yaml"
    for manifest in yaml.safe_load_all(path.read_text())
]
OURS = [pytest.param(manifest, id=name) for name, manifest in MANIFESTS if manifest["kind"] not in OF_OTHERS]

# Source: dagster-io/dagster, helm/dagster/schema/schema/charts: dagster/values.py and its subschema (webserver, daemon,
# run_launcher, compute_log_manager, postgresql, global_, retention), dagster_user_deployments/subschema.
DEPLOYED = {"annotations", "affinity", "env", "envConfigMaps", "envSecrets", "image", "labels", "livenessProbe",
            "nodeSelector", "podSecurityContext", "readinessProbe", "resources", "schedulerName", "securityContext",
            "startupProbe", "tolerations", "volumeMounts", "volumes"}  # fmt: skip
KNOWN = {
    "": {"additionalInstanceConfig", "computeLogManager", "dagster-user-deployments", "dagsterDaemon",
         "dagsterWebserver", "generatePostgresqlPasswordSecret", "global", "imagePullSecrets", "ingress", "postgresql",
         "rbacEnabled", "retention", "runLauncher", "serviceAccount", "telemetry"},
    "global": {"postgresqlSecretName", "dagsterHome", "serviceAccountName", "celeryConfigSecretName"},
    "postgresql": {"enabled", "image", "postgresqlDatabase", "postgresqlHost", "postgresqlParams", "postgresqlPassword",
                   "postgresqlScheme", "postgresqlUsername", "service"},
    "dagsterWebserver": DEPLOYED | {"replicaCount", "service", "workspace", "enableReadOnly", "pathPrefix"},
    "dagsterDaemon": DEPLOYED | {"enabled", "heartbeatTolerance", "runCoordinator", "runMonitoring", "runRetries",
                                 "sensors", "schedules"},
    "dagster-user-deployments": {"enabled", "enableSubchart", "imagePullSecrets", "deployments"},
    "dagster-user-deployments.deployments": DEPLOYED | {"name", "port", "dagsterApiGrpcArgs", "codeServerArgs",
                                                        "includeConfigInLaunchedRuns"},
    "runLauncher.config.k8sRunLauncher": {
        "envConfigMaps", "envSecrets", "envVars", "failPodOnRunFailure", "image", "imagePullPolicy", "jobNamespace",
        "kubeconfigFile", "labels", "loadInclusterConfig", "resources", "runK8sConfig", "schedulerName",
        "securityContext", "volumeMounts", "volumes"},
    "runLauncher.config.k8sRunLauncher.runK8sConfig": {"containerConfig", "podSpecConfig", "podTemplateSpecMetadata",
                                                       "jobSpecConfig", "jobMetadata"},
    "computeLogManager.config.s3ComputeLogManager": {"bucket", "endpointUrl", "localDir", "prefix", "region",
                                                     "showUrlOnly", "skipEmptyFiles", "uploadExtraArgs",
                                                     "uploadInterval", "useSsl", "verify", "verifyCertPath"},
}  # fmt: skip


def find(kind: str, name: str) -> dict[str, Any]:
    return next(found for _, found in MANIFESTS if (found["kind"], found["metadata"]["name"]) == (kind, name))


@pytest.mark.parametrize("manifest", OURS)
def test_a_manifest_keeps_the_schema_of_its_kind(manifest: dict[str, Any]):
    assert kubernetes_validate.validate(manifest, VERSION, strict=True) == VERSION
    if manifest["kind"] != "Namespace":
        assert manifest["metadata"]["namespace"] == "heimdall"


def test_a_name_that_is_none_is_found():
    wrong = {**find("Role", "heimdall-runner"), "rulez": []}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)
    assert [found["kind"] for _, found in MANIFESTS if found["kind"] in OF_OTHERS] == ["NodePool"]


@pytest.mark.parametrize("place", KNOWN)
def test_values_are_names_that_the_chart_knows(place: str):
    found: Any = VALUES
    for part in filter(None, place.split(".")):
        found = found[part]
    for values in found if isinstance(found, list) else [found]:
        assert values.keys() <= KNOWN[place]


# --- rights

VERBS = {"create": "create", "read": "get", "list": "list", "delete": "delete"}
CALL = re.compile(r"\b_?(?:batch|core)(?:_api)?\.(create|read|list|delete)_namespaced_(job|pod|event)(_status|_log)?\b")


def list_calls(path: Path) -> set[tuple[str, str]]:
    """Return (resource, verb) of every question that a module asks the API server."""
    parts = {"": "", "_status": "/status", "_log": "/log"}
    return {(f"{kind}s{parts[part]}", VERBS[verb]) for verb, kind, part in CALL.findall(path.read_text())}


def list_rights(role: str) -> set[tuple[str, str]]:
    rules = find("Role", role)["rules"]
    return {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}


def test_runs_and_daemon_may_do_what_dagster_and_our_executor_ask_for_and_nothing_else():
    asked = list_calls(Path(dagster_k8s.client.__file__))
    for path in (ROOT / "heimdall_assets" / "defs" / "executor").glob("*.py"):
        asked |= list_calls(path)
    assert ("jobs", "create") in asked
    assert list_rights("heimdall-runner") == asked


def test_the_page_may_end_a_run_and_start_none():
    assert list_rights("heimdall-page") < list_rights("heimdall-runner")
    assert {right for right in list_rights("heimdall-page") if right[1] == "create"} == set()


def test_no_role_reaches_beyond_the_namespace_and_steps_hold_no_token():
    assert not [name for name, found in MANIFESTS if found["kind"].startswith("Cluster")]
    assert find("ServiceAccount", "heimdall-step")["automountServiceAccountToken"] is False
    bound = [found for _, found in MANIFESTS if found["kind"] == "RoleBinding"]
    assert {found["subjects"][0]["name"] for found in bound} == {"heimdall-runner", "heimdall-page"}


# --- doors


def test_nothing_may_speak_to_anything_but_for_what_is_said():
    deny = find("NetworkPolicy", "deny-all")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for _, found in MANIFESTS:
        for rule in found["spec"].get("ingress", []) if found["kind"] == "NetworkPolicy" else []:
            assert rule["from"]
            assert rule["ports"]


def test_who_may_speak_to_the_code_server_may_also_be_heard_by_it():
    """Both ends of a connection need a policy."""
    (rule,) = find("NetworkPolicy", "code-server")["spec"]["ingress"]
    heard = [end["podSelector"]["matchLabels"] for end in rule["from"]]
    speaks = []
    for _, found in MANIFESTS:
        if found["kind"] != "NetworkPolicy":
            continue
        for allowed in found["spec"].get("egress", []):
            if {"podSelector": {"matchLabels": {"component": "user-deployments"}}} in allowed["to"]:
                selector = found["spec"]["podSelector"]
                several = selector.get("matchExpressions", [])
                speaks += [{several[0]["key"]: several[0]["values"][0]}] if several else [selector["matchLabels"]]
    assert sorted(map(str, speaks)) == sorted(map(str, heard))
    assert rule["ports"][0]["port"] == VALUES["dagster-user-deployments"]["deployments"][0]["port"]


def test_the_template_of_secrets_is_empty_and_holds_all_that_is_asked_for():
    secrets = {found["metadata"]["name"]: found["stringData"] for _, found in MANIFESTS if found["kind"] == "Secret"}
    assert {value for data in secrets.values() for value in data.values()} == {""}
    text = "".join(path.read_text() for path in FOLDER.glob("*.yaml") if path.name != "secrets.yaml")
    named = set(
        re.findall(r"(?:secretRef: \{name: |secretName: |postgresqlSecretName: |envSecrets: \[\{name: )([\w-]+)", text)
    )
    assert named - {"heimdall-tls"} == secrets.keys()
    assert "postgresql-password" in secrets[VALUES["global"]["postgresqlSecretName"]]


# --- pods


@pytest.mark.parametrize(("kind", "name"), [("Job", "heimdall-prepare"), ("Deployment", "heimdall-page")])
def test_a_pod_of_ours_is_nobody_and_writes_only_where_it_is_given_a_place(kind: str, name: str):
    pod = find(kind, name)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["enableServiceLinks"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert container["resources"]["limits"]["memory"]


def test_the_page_and_compose_run_the_same_command_but_for_where_the_workspace_is():
    (container,) = find("Deployment", "heimdall-page")["spec"]["template"]["spec"]["containers"]
    compose = yaml.safe_load((ROOT / "deploy" / "docker-compose.yaml").read_text())["services"]
    ours = [word.replace("/dagster-workspace/", "/opt/heimdall/") for word in container["command"]]
    assert ours == compose["webserver"]["command"]
    (prepare,) = find("Job", "heimdall-prepare")["spec"]["template"]["spec"]["containers"]
    assert prepare["command"] == compose["prepare"]["command"]


def test_the_code_server_gets_the_arguments_that_compose_gives_it():
    """The chart puts `dagster code-server start -h 0.0.0.0 -p PORT` before them."""
    compose = yaml.safe_load((ROOT / "deploy" / "docker-compose.yaml").read_text())["services"]["code-server"][
        "command"
    ]
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    words = [word for option in compose[3:] for word in option.split("=")]
    assert ["--host", "0.0.0.0", "--port", str(deployment["port"]), *deployment["codeServerArgs"]] == words


def test_a_run_is_a_pod_that_keeps_the_schema_and_what_nodes_do_to_it():
    """The launcher as the chart's template configures it, and the job that dagster-k8s makes of it."""
    told = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    extra = told["runK8sConfig"]
    context = K8sContainerContext(
        image_pull_policy=told["imagePullPolicy"],
        service_account_name=VALUES["serviceAccount"]["name"],
        env_config_maps=[found["name"] for found in told["envConfigMaps"]],
        env_secrets=[found["name"] for found in told["envSecrets"]],
        volumes=told["volumes"],
        volume_mounts=told["volumeMounts"],
        resources=told["resources"],
        security_context=told["securityContext"],
        namespace=told["jobNamespace"],
        run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(
            {
                "pod_spec_config": extra["podSpecConfig"],
                "pod_template_spec_metadata": extra["podTemplateSpecMetadata"],
                "job_spec_config": extra["jobSpecConfig"],
            }
        ),
    )
    config = DagsterK8sJobConfig(
        job_image="registry.example.org/heimdall-assets:0.1.0",
        dagster_home=VALUES["global"]["dagsterHome"],
        instance_config_map="dagster-instance",
        postgres_password_secret=VALUES["global"]["postgresqlSecretName"],
    )
    job = construct_dagster_k8s_job(
        config, ["dagster", "api", "execute_run"], "dagster-run-x", context.run_k8s_config, component="run_worker"
    )
    job = ApiClient().sanitize_for_serialization(job)
    assert kubernetes_validate.validate(job, VERSION, strict=True) == VERSION
    assert K8sRunLauncher.__name__ == VALUES["runLauncher"]["type"]
    pod = job["spec"]["template"]
    assert pod["metadata"]["annotations"] == extra["podTemplateSpecMetadata"]["annotations"]
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "run_worker"
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["serviceAccountName"] == "heimdall-runner"
    assert pod["spec"]["volumes"][-1]["persistentVolumeClaim"]["claimName"] == "heimdall-scratch"


def test_gpu_machines_bear_the_mark_that_steps_bear_and_go_when_nobody_trains():
    import json

    pool = find("NodePool", "heimdall-gpu")["spec"]
    settings = find("ConfigMap", "heimdall-settings")["data"]
    label, _, value = json.loads(settings["HEIMDALL_KUBERNETES"])["spot_label"].partition("=")
    assert {"key": label, "value": value, "effect": "NoSchedule"} in pool["template"]["spec"]["taints"]
    assert pool["template"]["metadata"]["labels"][label] == value
    assert json.loads(settings["HEIMDALL_ACCELERATOR"])["spot"] is True
    assert pool["disruption"] == {"consolidationPolicy": "WhenEmpty", "consolidateAfter": "10m"}


def test_settings_are_variables_that_the_code_reads():
    from heimdall_assets.places import read_places
    from heimdall_assets.variables import list_variables

    settings = find("ConfigMap", "heimdall-settings")["data"]
    others = {"PYTHONHASHSEED", "AWS_DEFAULT_REGION"}
    assert settings.keys() - list_variables().keys() <= others
    read_places(settings)
