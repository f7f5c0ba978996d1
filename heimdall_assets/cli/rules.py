"""``heimdall models canary``, ``flag``, ``shadow``, ``rules``, ``which``: which released model answers whom."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.posting import post_checkpoint
from heimdall_assets.cli.terminal.homes import find_model, open_home
from heimdall_assets.cli.terminal.output import (
    json_option,
    write_fields,
    write_json,
    write_notice,
    write_table,
    write_text,
)
from heimdall_assets.cli.terminal.progress import show_progress
from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import read_places
from heimdall_assets.stores.home import Stores

if TYPE_CHECKING:
    from heimdall_assets.pipeline.releases.rules import Decider
    from heimdall_assets.pipeline.releases.standing_rules import JudgedRule
    from heimdall_assets.stores.database.rules import RuleChange

_Command = Callable[..., Any]


def _deciding(command: _Command) -> _Command:
    """Give a command who decides, why, and on which state."""
    options = (
        click.option("--by", required=True, help="Who decides."),
        click.option("--reason", required=True, help="Why."),
        click.option(
            "--expect",
            type=click.IntRange(min=0),
            help="Number of the last change that you saw (heimdall models rules); refused where there was one since.",
        ),
        click.option("--off", is_flag=True, help="End the rule."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(short_help="Have a share of callers answered by a model.")
@click.argument("model", required=False)
@click.option("--share", type=float, help="Of callers, 0 to 1.")
@click.option("--salt", help="Draw callers with this word; else they are those of before, or of this version.")
@_deciding
@json_option
def canary(model: str | None, share: float | None, salt: str | None, as_json: bool, **decided: Any) -> None:
    """Have a share of all callers answered by MODEL (version, latest or alias); the same callers each time.

    A share that grows takes callers in and lets none out.
    """
    stores, decider = _begin(model, decided)
    if decided["off"] != (share is None) or (decided["off"] and salt is not None):
        found = "none" if share is None else f"{share:g}"
        raise InvalidSetting(f"canary: found --share {found}, expected one, or --off without MODEL, --share and --salt")
    from heimdall_assets.pipeline.releases.rules import end_rule, set_canary

    with show_progress("Checking the model"):
        if model is None or share is None:
            change = end_rule(stores, "canary", decider)
        else:
            change = set_canary(stores, find_model(stores, model), share, decider, salt)
    _say(stores, change, as_json)


@click.command(short_help="Have one user or one receiver answered by a model.")
@click.argument("model", required=False)
@click.option("--user", help="Who asks, by name: the owner of the key that they show.")
@click.option("--receiver", help="Whose data it is: the name of a receiver.")
@_deciding
@json_option
def flag(model: str | None, user: str | None, receiver: str | None, as_json: bool, **decided: Any) -> None:
    """Have one user, or all data of one receiver, answered by MODEL (version, latest or alias), the canary or not."""
    stores, decider = _begin(model, decided)
    if (user is None) == (receiver is None):
        raise InvalidSetting(f"flag: found {'none' if user is None else 'both'}, expected --user or --receiver")
    from heimdall_assets.pipeline.releases.rules import end_rule, set_flag

    with show_progress("Checking the model"):
        if model is None:
            change = end_rule(stores, "flag", decider, (user, receiver))
        else:
            change = set_flag(stores, find_model(stores, model), (user, receiver), decider)
    _say(stores, change, as_json)
    if model is not None and receiver is not None:
        known = sorted(str(row["name"]) for row in stores.measurements.list_stations())
        if receiver not in known:
            write_notice(f"receiver {receiver}: no station of this home is called so; the flag waits for its data")


@click.command(short_help="Have a model compute beside the one that answers.")
@click.argument("model", required=False)
@_deciding
@json_option
def shadow(model: str | None, as_json: bool, **decided: Any) -> None:
    """Have MODEL (version, latest or alias) compute beside whatever answers; nobody is given what it says."""
    stores, decider = _begin(model, decided)
    from heimdall_assets.pipeline.releases.rules import end_rule, set_shadow

    with show_progress("Checking the model"):
        if model is None:
            change = end_rule(stores, "shadow", decider)
        else:
            change = set_shadow(stores, find_model(stores, model), decider)
    _say(stores, change, as_json)


@click.command(short_help="List the rules that stand, and every change of them.")
@json_option
def rules(as_json: bool) -> None:
    """List the rules of serving that stand, whether each is in force, and every change, oldest first."""
    stores = open_home()
    from heimdall_assets.pipeline.releases.rules import read_rules_in_force

    with show_progress("Checking the models that rules name"):
        found = read_rules_in_force(stores)
    changes = [_describe(change) for change in stores.releases.list_rule_changes()]
    if as_json:
        standing = [_describe_judged(one) for one in found.judged]
        write_json({"number": found.number, "champion": found.champion, "rules": standing, "changes": changes})
        return
    write_text(f"champion: {found.champion or 'none yet'}")
    write_table(
        f"{say_count(len(found.judged), 'rule')}, after change {found.number}",
        ["rule", "model", "what", "in force"],
        [_tell(one) for one in found.judged],
    )
    write_table(
        say_count(len(changes), "change"),
        ["change", "rule", "model", "what", "by", "when (UTC)", "why"],
        [
            [
                row["id"],
                row["place"],
                row["version"] or "off",
                _tell_share(row["share"], row["salt"]),
                row["decided_by"],
                row["decided_at"][:16].replace("T", " "),
                row["reason"],
            ]
            for row in changes
        ],
    )


@click.command(short_help="Say which model would answer, and why.")
@click.option("--user", help="Who asks, by name; without: nobody knows.")
@click.option("--receiver", "receivers", multiple=True, help="Whose data it is; may be given several times.")
@json_option
def which(user: str | None, receivers: tuple[str, ...], as_json: bool) -> None:
    """Say which model would answer a caller now, and by which rule."""
    stores = open_home()
    from heimdall_assets.pipeline.releases.rules import explain_model

    with show_progress("Checking the models that rules name"):
        choice, found = explain_model(stores, user, receivers)
    idle = [f"{one.change.said.place}: {one.problem}" for one in found.judged if one.problem is not None]
    if as_json:
        write_json({**asdict(choice), "champion": found.champion, "number": found.number, "without_effect": idle})
        return
    write_fields({"answers": choice.version, "because": choice.reason, "beside it": choice.shadow or "nothing"})
    for line in idle:
        write_text(f"Without effect: {line}")


def _begin(model: str | None, decided: dict[str, Any]) -> "tuple[Stores, Decider]":
    """Return the stores and who decides, on the state that is there now or that they say they saw."""
    if decided["off"] != (model is None):
        raise InvalidSetting(f"model: found {model or 'none'}, expected a MODEL, or --off without one")
    stores = open_home()
    from heimdall_assets.pipeline.releases.rules import Decider

    expected = decided["expect"] if decided["expect"] is not None else len(stores.releases.list_rule_changes())
    return stores, Decider(decided["by"], decided["reason"], expected)


def _say(stores: Stores, change: "RuleChange", as_json: bool) -> None:
    if as_json:
        write_json(_describe(change))
    else:
        said = change.said
        what = f" {_tell_share(said.share, said.salt)}" if said.share is not None else ""
        write_text(f"{said.place}: {said.version or 'off'}{what} (change {change.id})")
    post_checkpoint(read_places(), stores)


def _describe(change: "RuleChange") -> dict[str, Any]:
    told = {"id": change.id, "place": change.said.place, **asdict(change.said)}
    return {**told, **{name: getattr(change, name) for name in ("decided_by", "decided_at", "reason")}}


def _describe_judged(one: "JudgedRule") -> dict[str, Any]:
    return {**_describe(one.change), "in_force": one.problem is None, "problem": one.problem}


def _tell(one: "JudgedRule") -> list[Any]:
    said = one.change.said
    return [said.place, said.version, _tell_share(said.share, said.salt), one.problem or "yes"]


def _tell_share(share: float | None, salt: str | None) -> str | None:
    return None if share is None else f"{share:.4g} of callers, salt {salt}"
