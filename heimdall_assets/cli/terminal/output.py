"""Output: every result once as JSON for programs, once as a table for people; errors as one line.

Belongs here: all that a command writes: whatever stored rows, files and arguments say is escaped here, for a name may
hold what moves a terminal's cursor or rewrites its lines; and people have their names here, where what is kept for ever
has a pseudonym. Does not belong here: progress (``progress``).
"""

import json
import logging
import math
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

import click

from heimdall_assets.counts import say_count
from heimdall_assets.errors import HeimdallError
from heimdall_assets.people import name_people
from heimdall_assets.running.signals import Stopped

if TYPE_CHECKING:
    from rich.console import Console

_LONGEST_VALUE = 200

_NAMES = "heimdall_assets.names"
"""In the context of a command: what gives pseudonym -> name."""

_LOGGER = logging.getLogger("heimdall_assets")

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


class _Notices(logging.Handler):
    """Says on stderr, in one line, what stores tell of themselves; stdout is the answer's alone."""

    def emit(self, record: logging.LogRecord) -> None:
        write_notice(record.getMessage())


class HeimdallGroup(click.Group):
    """A group whose commands turn errors, ours and those of their options, into one line and exit status 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they were added, which is that of a first walk through them."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        notices = _Notices(logging.WARNING)
        _LOGGER.addHandler(notices)
        try:
            return super().invoke(ctx)
        except click.exceptions.NoArgsIsHelpError:
            raise  # the help is the answer
        except click.UsageError as error:
            where = f" (see {error.ctx.command_path} --help)" if error.ctx is not None else ""
            _fail(ctx, f"{error.format_message()}{where}")
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Stopped as stop:
            write_notice(str(stop))
            ctx.exit(stop.exit_code)
        except KeyboardInterrupt:
            write_notice("Stopped.")
            ctx.exit(128 + signal.SIGINT)
        except HeimdallError as error:
            _fail(ctx, str(error))
        except BrokenPipeError:
            raise  # whoever read has seen enough, as `head` does: click ends without a word
        except OSError as error:
            _fail(ctx, f"{error.filename or 'system'}: {error.strerror or error}")
        except Exception as error:
            _fail(ctx, f"unexpected {type(error).__name__}: {error} (heimdall --debug ... shows where)")
        finally:
            _LOGGER.removeHandler(notices)


def _fail(ctx: click.Context, message: str) -> NoReturn:
    if ctx.find_root().params.get("debug"):
        write_lines(traceback.format_exc(), err=True)
    write_notice(f"Error: {message}")
    ctx.exit(2)


def escape_text(text: str) -> str:
    r"""Return ``text`` as a terminal may show it: what no printer prints stands there as Python writes it.

    Control characters and what turns the direction of writing; a line break too, which could feign a line of ours.

    Examples:
        >>> print(escape_text("walk \x1b[2J\n\u202etxt"))
        walk \x1b[2J\n\u202etxt
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def show_names(read_names: Callable[[], Mapping[str, str]]) -> None:
    """Have the rest of this command show names in place of pseudonyms; ``read_names`` is asked once, at the first."""
    command = click.get_current_context(silent=True)
    if command is not None:
        command.meta[_NAMES] = cache(read_names)


def _named(value: Any) -> Any:
    command = click.get_current_context(silent=True)
    read_names = None if command is None else command.meta.get(_NAMES)
    return value if read_names is None else name_people(value, read_names)


def _shown(text: str) -> str:
    return escape_text(_named(text))


def write_text(text: str, err: bool = False) -> None:
    """Print one line, however wide the terminal is; on stderr with ``err``."""
    click.echo(_shown(text), err=err)


def write_lines(text: str, err: bool = False) -> None:
    """Print a text in the lines that it has; all else in it is escaped."""
    for line in text.removesuffix("\n").split("\n"):
        write_text(line, err=err)


def write_document(text: str) -> None:
    """Print a document in the lines that it has, with the pseudonyms that its digest is over."""
    for line in text.removesuffix("\n").split("\n"):
        click.echo(escape_text(line))


def write_notice(text: str) -> None:
    """Print one line beside the answer, on stderr: a program that reads the answer is not disturbed."""
    click.echo(_shown(" ".join(text.split())), err=True)


def write_json(value: Any, as_kept: bool = False) -> None:
    """Print ``value`` as JSON; what is NaN or infinite becomes null, since JSON has neither.

    Pseudonyms stay where it is printed ``as_kept``, for a digest is over them.
    """
    plain = to_plain(value)
    text = json.dumps(plain if as_kept else _named(plain), indent=2, ensure_ascii=False, default=str)
    click.echo("\n".join(map(_escape_json, text.split("\n"))))


def _escape_json(line: str) -> str:
    """Return a line of JSON that says the same without what no printer prints; JSON itself asks for less."""
    if line.isprintable():
        return line
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in line)


def to_plain(value: Any) -> Any:
    """Return ``value`` as the JSON values that ``write_json`` prints."""
    if isinstance(value, Mapping):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows as a table, numbers on the right; only the title where there are none."""
    if not rows:
        write_line(title)
        return
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(_shown(title)),
        title_justify="left",
        title_style="bold",
        box=SIMPLE,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        table.add_column(Text(_shown(column)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(_format(value))) for value in row))  # a name in brackets is no markup
    _console().print(table)


def write_fields(fields: Mapping[str, Any]) -> None:
    """Print what is known of one thing, a line each, names on the left; what is unknown is left out."""
    known = {_shown(name): _shown(_show(value)) for name, value in fields.items() if value not in (None, "", [], {})}
    width = max(map(len, known), default=0)
    if not sys.stdout.isatty():
        for name, text in known.items():
            click.echo(f"{name:<{width}}  {text}")
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", min_width=width)
    grid.add_column(overflow="fold")
    for name, text in known.items():
        grid.add_row(Text(name), Text(text))
    _console().print(grid)


def _show(value: Any) -> str:
    """Return one value as text; what would fill a screen is counted."""
    if not isinstance(value, list | dict):
        return str(value)
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{say_count(len(value), 'entry')}, see --json"


def write_comparison(title: str, rows: Sequence[Mapping[str, Any]], worse_than: Sequence[str]) -> None:
    """Print each method's errors in metres, and say so where the model is worse than one of them."""
    columns = ["method", "median", "90 %", "90 % ellipse covers", "model's median over it (interval)"]
    cells = [
        [row["method"], row["median_m"], row["p90_m"], format_share(row["coverage_90"]), _format_ratio(row)]
        for row in rows
    ]
    write_table(f"{title}: error in metres", columns, cells)
    if worse_than:
        write_line(f"The model is worse than: {', '.join(worse_than)}.")


def write_line(text: str) -> None:
    """Print ``text``; a terminal breaks it between words, a pipe gets one line."""
    from rich.text import Text

    _console().print(Text(_shown(text)), soft_wrap=not sys.stdout.isatty())


def format_share(share: float | None) -> str:
    """Return a share of 0 to 1 as per cent; what is unknown as a dash."""
    return "-" if share is None or math.isnan(share) else f"{share:.0%}"


def _format_ratio(row: Mapping[str, Any]) -> str:
    if row.get("ratio") is None:
        return "-"
    ends = ["?" if row[name] is None else f"{row[name]:.3g}" for name in ("ratio_low", "ratio_high")]
    return f"{row['ratio']:.3g} ({ends[0]} to {ends[1]})"


def _console() -> "Console":
    from rich.console import Console  # slow to load: whoever asks for help, or for JSON, needs no table

    return Console(width=None if sys.stdout.isatty() else 140)


def _format(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 100
        else (f"{value:,.0f}" if isinstance(value, float) else str(value))
    )
