"""OpenLineage: the runs behind a released model as events, a line of JSON each, as its own library writes them.

Each computation and the release itself are a START and a COMPLETE; data sets are named by their digests. Nothing is
sent anywhere; what is said while a run goes on is in ``openlineage_steps``.

Source: OpenLineage 2-0-2 (https://openlineage.io/spec/2-0-2/OpenLineage.json) and its facets.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import MissingDependency, Refused
from heimdall_assets.kinds import MODEL_RELEASE
from heimdall_assets.lineage.exports.released import URN, Released, compute_end, make_uuid, show_number
from heimdall_assets.lineage.walk import OUTSIDE

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run

NAMESPACE = "heimdall-assets"
DAGSTER = "dagster"
"""What the parent of a run is called: facts keep the id of Dagster's run, not the name of its job."""

_CODE = ("git_sha", "git_dirty", "code_sha256")
"""Of an environment: which code it was."""


def encode_openlineage(released: Released) -> bytes:
    """Return OpenLineage run events, a line each, in the order of computation.

    Raises:
        MissingDependency: openlineage-python is not installed.
        Refused: nobody kept when something was computed, and an event needs a time.
    """
    try:
        from openlineage.client.serde import Serde
    except ImportError as error:
        raise MissingDependency(
            "export openlineage: found no package openlineage-python; install heimdall-assets[exports]"
        ) from error
    told = (json.dumps(Serde.to_dict(event), sort_keys=True) for event in _list_events(released))
    return "".join(f"{line}\n" for line in told).encode()


def _list_events(released: Released) -> Iterator[Any]:
    from openlineage.client.event_v2 import InputDataset, OutputDataset

    for node in released.provenance["nodes"]:
        if node["facts"] is None:
            found = "found no facts of its computation, expected when it was"
            raise Refused(f"export openlineage: {node['kind']} {node['digest']}: {found}")
        facts = {**node["facts"], "environment": released.find_environment(node["facts"])}
        told = describe_facts(facts) | {"environment": node["facts"]["environment"]}
        run = describe_run(make_uuid("run", node["digest"]), told, node["specs"], facts["run_id"])
        job = describe_job(node["kind"], node["parents"], node["code_version"])
        inputs, outputs = list_inputs(node["parents"]), list_outputs(node, node["digest"], released.tables)
        yield from _tell_run(run, job, node["facts"], inputs, outputs)
    facts, roots = released.provenance["released"], released.provenance["model"]["manifests"]
    told = describe_facts({**facts, "environment": released.find_environment(facts)})
    told |= {"environment": facts["environment"]}
    run = describe_run(make_uuid("run", released.files["provenance.json"]), told, {}, facts["run_id"])
    inputs = [InputDataset(NAMESPACE, digest) for digest in roots.values()]
    outputs = [
        OutputDataset(NAMESPACE, digest, facets=describe_data(f"{released.version} {name}"))
        for name, digest in sorted(released.files.items())
    ]
    yield from _tell_run(run, describe_job(MODEL_RELEASE, roots), facts, inputs, outputs)


def _tell_run(
    run: "Run", job: "Job", facts: Mapping[str, Any], inputs: "list[InputDataset]", outputs: "list[OutputDataset]"
) -> Iterator[Any]:
    """Yield both events of a run; what it made is known when it is complete."""
    from openlineage.client.event_v2 import RunEvent, RunState

    times = {RunState.START: datetime.fromisoformat(facts["started_at"]), RunState.COMPLETE: compute_end(facts)}
    for state, time in times.items():
        yield RunEvent(
            eventType=state,
            eventTime=time.isoformat(timespec="milliseconds"),
            run=run,
            job=job,
            producer=URN,
            inputs=inputs,
            outputs=outputs if state is RunState.COMPLETE else [],
        )


def describe_job(kind: str, parents: Iterable[str], code_version: str | None = None) -> "Job":
    """Return the job that makes results of a kind: what it is computed from, by which version of its code."""
    from openlineage.client.event_v2 import Job
    from openlineage.client.facet_v2 import documentation_job, tags_job

    text = f"{kind}, computed from {' and '.join(parents)}" if parents else kind
    facets: dict[str, Any] = {"documentation": documentation_job.DocumentationJobFacet(text, producer=URN)}
    if code_version is not None:
        tag = tags_job.TagsJobFacetFields("code_version", code_version, NAMESPACE)
        facets["tags"] = tags_job.TagsJobFacet([tag], producer=URN)
    return Job(NAMESPACE, kind, facets)


def describe_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return who had something computed, why, and by which code: tags of its run.

    Args:
        facts: of the computation, with its environment in full.
    """
    told = {"started_by": facts["started_by"], "reason": facts["reason"], "profile": facts.get("profile")}
    return told | {name: facts["environment"].get(name) for name in _CODE}


def describe_run(name: str, told: Mapping[str, Any], specs: Mapping[str, Any], parent: str | None) -> "Run":
    """Return a run: what is told of it, settings, and Dagster's run that it was part of.

    Args:
        name: its UUID.
        told: tags; None: unknown, and left out.
        specs: spec -> its fields.
        parent: id of Dagster's run; None: there was none.
    """
    from openlineage.client.event_v2 import Run
    from openlineage.client.facet_v2 import execution_parameters_run, parent_run, tags_run

    tags = [
        tags_run.TagsRunFacetFields(key, show_number(value), NAMESPACE)
        for key, value in told.items()
        if value is not None
    ]
    settings = [
        execution_parameters_run.ExecutionParameter(f"{spec}.{key}", value=show_number(value))
        for spec, fields in specs.items()
        for key, value in fields.items()
    ]
    facets: dict[str, Any] = {"tags": tags_run.TagsRunFacet(tags, producer=URN)}
    if settings:
        facets["executionParameters"] = execution_parameters_run.ExecutionParametersRunFacet(settings, producer=URN)
    if parent is not None:
        of = parent_run.Run(runId=_name_run(parent)), parent_run.Job(namespace=NAMESPACE, name=DAGSTER)
        facets["parent"] = parent_run.ParentRunFacet(*of, producer=URN)
    return Run(name, facets)


def list_inputs(parents: Mapping[str, str]) -> "list[InputDataset]":
    """Return the data sets that a result was computed from: kind -> digest of its manifest."""
    from openlineage.client.event_v2 import InputDataset

    return [InputDataset(NAMESPACE, _name_parent(*parent)) for parent in parents.items()]


def list_outputs(
    node: Mapping[str, Any], digest: str, tables: Mapping[str, Mapping[str, str]]
) -> "list[OutputDataset]":
    """Return the data sets that a computation gave: its manifest, then each artifact.

    Args:
        node: the manifest as JSON values.
        digest: of it.
        tables: digest of a table -> its columns -> their types.
    """
    from openlineage.client.event_v2 import OutputDataset

    whole = OutputDataset(NAMESPACE, digest, facets=describe_data(node["kind"]))
    return [whole] + [
        OutputDataset(
            NAMESPACE,
            artifact["digest"],
            facets=describe_data(f"{node['kind']} {name}", tables.get(artifact["digest"])),
        )
        for name, artifact in node["artifacts"].items()
    ]


def describe_data(text: str, columns: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the facets of a data set: what it is, in words, and the columns of a table."""
    from openlineage.client.facet_v2 import documentation_dataset, schema_dataset

    facets: dict[str, Any] = {"documentation": documentation_dataset.DocumentationDatasetFacet(text, producer=URN)}
    if columns is not None:
        fields = [schema_dataset.SchemaDatasetFacetFields(name, type=told) for name, told in columns.items()]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields, producer=URN)
    return facets


def _name_parent(name: str, digest: str) -> str:
    return f"{name} {digest}" if name in OUTSIDE else digest


def _name_run(run_id: str) -> str:
    """Return the id of Dagster's run, which is a UUID; of one that is none the UUID that it always has."""
    try:
        return str(uuid.UUID(run_id))
    except ValueError:
        return make_uuid("dagster", run_id)
