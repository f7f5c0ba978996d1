"""Output: every result once as JSON for programs, once as a table for people; errors as one line."""

import json
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from heimdall_assets.errors import HeimdallError

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


class HeimdallGroup(click.Group):
    """A group whose commands turn errors of ours into one line and exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HeimdallError as error:
            if ctx.find_root().params.get("debug"):
                traceback.print_exc()
            click.echo(f"Error: {' '.join(str(error).split())}", err=True)
            ctx.exit(2)


def write_json(value: Any) -> None:
    """Print ``value`` as JSON; what is NaN or infinite becomes null, since JSON has neither."""
    click.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False, default=str))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows as a table; numbers stand right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and isinstance(rows[0][index], int | float)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_format(value) for value in row))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _format(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 100
        else (f"{value:,.0f}" if isinstance(value, float) else str(value))
    )


@contextmanager
def show_progress(title: str) -> Iterator[Callable[[str, str, int, int], None]]:
    """Yield a listener (asset, what, done, total) that draws one bar per piece of work, with time left, on stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    tasks: dict[str, Any] = {}

    def listen(asset: str, what: str, done: int, total: int) -> None:
        name = f"{asset}: {what}" if asset else what
        if not tasks:  # a command that fails before its work begins prints its error and nothing else
            bar.console.print(title)
            bar.start()
        if name not in tasks:
            tasks[name] = bar.add_task(name, total=total)
        bar.update(tasks[name], completed=done, total=total)

    try:
        yield listen
    finally:
        if tasks:
            bar.stop()
