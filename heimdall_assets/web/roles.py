"""Roles: what an auditor and an operator may ask of Dagster's page; an approver may everything.

To *decide* is to say which model users get: ``champion_model`` says it when it is computed, and so does what makes that
happen by itself (sensors, schedules) or judges what may become champion (the gates of ``model_release``, events and
checks reported by hand). An operator may ask for computations, except these. Whatever is not named here is refused, so
that a mutation which a new version of Dagster brings is an approver's until somebody has looked at it.

Belongs here: reading a request as Dagster will read it, by the same schema. Does not belong here: who somebody is
(``login``).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import yaml
from anyio import to_thread
from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    parse,
)
from graphql.execution.values import get_argument_values, get_variable_values
from starlette.types import Scope

from heimdall_assets.domain import Role
from heimdall_assets.kinds import CHAMPION_MODEL, MODEL_RELEASE
from heimdall_assets.web.refusals import Refusal

GRAPHQL = "/graphql"
MAX_TOKENS = 20_000
UNDECIDING_JOBS = ("ingest", "monitor", "fit", "search", "train")
"""Those that end before ``champion_model``; a test compares them with the graph."""

LAUNCHES = frozenset(
    {
        "launchRun", "launchPipelineExecution", "launchMultipleRuns", "launchRunReexecution",
        "launchPipelineReexecution",
    }
)  # fmt: skip
OF_OPERATORS = frozenset(
    {
        "terminateRun", "terminateRuns", "terminatePipelineExecution", "reloadWorkspace", "reloadRepositoryLocation",
        "sensorDryRun", "scheduleDryRun", "freeConcurrencySlots", "freeConcurrencySlotsForRun", "logTelemetry",
        "setNuxSeen",
    }
)  # fmt: skip
"""What changes neither results nor what happens by itself."""


@dataclass(frozen=True)
class RunFacts:
    """What a run that is asked for again computes: its job, and the assets that it was narrowed to, if it was."""

    job: str
    assets: frozenset[str] | None


FindRun = Callable[[str], RunFacts | None]


@dataclass(frozen=True)
class Rules:
    """What each role may.

    Attributes:
        schema: Dagster's own, of GraphQL.
        find_run: (run id) -> what that run computes.
    """

    schema: GraphQLSchema
    find_run: FindRun

    async def check(self, role: Role, scope: Scope, body: bytes) -> None:
        """Let pass what ``role`` may; raises ``Refusal``."""
        if role == Role.APPROVER or scope["method"] in ("GET", "HEAD"):
            return
        if scope["path"] != GRAPHQL:
            raise _refuse(role, f"a POST to {scope['path']:.60}")
        query, variables = read_query(body)
        if "mutation" in query:  # what has no such word has no mutation: GraphQL cannot write it otherwise
            await to_thread.run_sync(self.judge, role, query, variables)

    def judge(self, role: Role, query: str, variables: dict[str, Any]) -> None:
        """Let pass a query each of whose mutations ``role`` may ask for; raises ``Refusal``."""
        try:
            for name, arguments in list_mutations(self.schema, query, variables):
                if role == Role.AUDITOR or name not in LAUNCHES | OF_OPERATORS:
                    raise _refuse(role, name)
                if name in LAUNCHES:
                    self._check_launch(role, name, arguments)
        except (GraphQLError, RecursionError) as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"GraphQL: {' '.join(str(error).split()):.200}") from None

    def _check_launch(self, role: Role, name: str, arguments: Mapping[str, Any]) -> None:
        asked = [*(arguments.get("executionParamsList") or ()), arguments.get("executionParams")]
        for params in filter(None, asked):
            if decides(_read_selector(params["selector"])) or sets_gates(params.get("runConfigData")):
                raise _refuse(role, f"{name} of what decides which model is champion")
        again = arguments.get("reexecutionParams")
        if again is not None:
            run = self.find_run(again["parentRunId"])
            if run is None or decides(run):
                raise _refuse(role, f"{name} of a run that is unknown or decides which model is champion")


def decides(run: RunFacts) -> bool:
    """Return whether a run computes ``champion_model``, as far as its job and its assets tell."""
    if run.assets:
        return CHAMPION_MODEL in run.assets
    return run.job not in UNDECIDING_JOBS


def sets_gates(config: Any) -> bool:
    """Return whether a run's configuration touches what a release must pass, or cannot be read."""
    try:
        read = yaml.safe_load(config) if isinstance(config, str) else config
    except yaml.YAMLError:
        return True
    if read is None:
        return False
    steps = read.get("ops") if isinstance(read, Mapping) else read
    return MODEL_RELEASE in steps if isinstance(steps, Mapping) else steps is not None


def read_query(body: bytes) -> tuple[str, dict[str, Any]]:
    """Return the query and its variables in a request's body, as Dagster reads them; raises ``Refusal``."""
    try:
        asked = json.loads(body)
        variables = asked.get("variables")
        variables = json.loads(variables) if isinstance(variables, str) else variables
        if isinstance(asked["query"], str) and isinstance(variables, dict | None):
            return asked["query"], variables or {}
    except (ValueError, KeyError, AttributeError, RecursionError):
        pass
    raise Refusal(HTTPStatus.BAD_REQUEST, "GraphQL: found something else, expected JSON with a query and its variables")


def list_mutations(
    schema: GraphQLSchema, query: str, variables: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and arguments of every mutation in a document, whichever of its operations is meant.

    Raises:
        GraphQLError: the document or its variables are not of the schema.
    """
    document = parse(query, no_location=True, max_tokens=MAX_TOKENS)
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    known = schema.mutation_type.fields if schema.mutation_type else {}
    for operation in document.definitions:
        if not isinstance(operation, OperationDefinitionNode) or operation.operation != OperationType.MUTATION:
            continue
        given = get_variable_values(schema, operation.variable_definitions, variables)
        if isinstance(given, list):
            raise given[0]
        for node in _list_fields(operation.selection_set, fragments, set()):
            if node.name.value.startswith("__"):
                continue  # asks for a type's name, and does nothing
            if node.name.value not in known:
                raise GraphQLError(f"no mutation {node.name.value}")
            yield node.name.value, get_argument_values(known[node.name.value], node, given)


def _list_fields(
    selected: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode], seen: set[str]
) -> Iterator[FieldNode]:
    for node in selected.selections:
        if isinstance(node, FieldNode):
            yield node
        elif isinstance(node, FragmentSpreadNode):
            name = node.name.value
            if name in fragments and name not in seen:
                seen.add(name)
                yield from _list_fields(fragments[name].selection_set, fragments, seen)
        else:
            yield from _list_fields(node.selection_set, fragments, seen)  # type: ignore[attr-defined]


def _read_selector(selector: Mapping[str, Any]) -> RunFacts:
    assets = frozenset("/".join(key["path"]) for key in selector.get("assetSelection") or ())
    return RunFacts(selector.get("pipelineName") or selector.get("jobName") or "", assets or None)


def _refuse(role: Role, what: str) -> Refusal:
    expected = "reading alone" if role == Role.AUDITOR else f"what an {Role.OPERATOR} may; an {Role.APPROVER} may more"
    return Refusal(HTTPStatus.FORBIDDEN, f"{role}: found {what}, expected {expected}")
