"""The figures of the signal tasks as Markdown: model, classical detection and an answer without looking, side by side.

Belongs here: tables and verdicts in words. Does not belong here: the figures (``signal_figures``), the card around them
(``model_card``).
"""

from collections.abc import Callable, Mapping
from typing import Any

_PERCENT = ("%", 100.0, 1)
_SHARE = ("", 1.0, 3)

ROWS: tuple[tuple[str, str, tuple[str, float, int]], ...] = (
    ("accuracy", "type: accuracy", _PERCENT),
    ("mean_recall", "type: mean recall", _PERCENT),
    ("recall_voice", "type: recall of voice", _PERCENT),
    ("recall_tone", "type: recall of tones", _PERCENT),
    ("recall_dtmf", "type: recall of DTMF", _PERCENT),
    ("span_f1", "span: F1 of 32 frames", _SHARE),
    ("span_precision", "span: precision", _SHARE),
    ("span_recall", "span: recall", _SHARE),
    ("edges_error", "onset and end: error, share of the recording", ("", 1.0, 4)),
    ("onset_error", "onset within the recording: error, share", ("", 1.0, 4)),
    ("end_error", "end within the recording: error, share", ("", 1.0, 4)),
    ("countdown_error", "countdown to the onset: error, frames", _SHARE),
    ("snr_error_db", "SNR: error, dB", ("", 1.0, 2)),
)
"""Figure of ``signal_figures``, its title, and unit, factor and decimals that it is written with."""

HEAD = (
    "| signal task | sessions | model | classical | without looking | model over classical | model over not looking "
    "| worth using |"
)

NOTE = (
    "In brackets intervals by bootstrap over sessions; errors are mean absolute ones. Classical: pair test, "
    "single-tone test, change points and quieting of the demodulated channel, nothing learned. Without looking: the "
    "commonest type, the mean span, the median, all of the training labels. Worth using: the intervals of the model's "
    "gain over both lie above zero; elsewhere take the classical answer."
)


def render_signals_table(metrics: Mapping[str, Any]) -> str:
    """Return the figures of the signal tasks as Markdown, over all sessions and over clear ones; "" for none."""
    signals = metrics.get("signals")
    if not signals:
        return ""
    if "clear_snr_db" not in signals:  # of a release that was judged before figures had intervals
        return "Its signal figures are of an earlier version and not shown; `heimdall evaluate` judges it again.\n"
    clear = f"SNR of {signals['clear_snr_db']:g} dB and above"
    parts = [render_figures(signals["all"], "All sessions"), render_figures(signals["clear"], clear)]
    note = NOTE
    if signals["snr_stated_error_db"] is not None:
        note += (
            f" The SNR that receivers state themselves, which the heads do not see, errs by "
            f"{signals['snr_stated_error_db']:.2f} dB."
        )
    return "\n".join([*parts, note]) + "\n"


def list_worthless(metrics: Mapping[str, Any]) -> list[str]:
    """Return the titles of tasks whose heads are not shown to be better than both others over all sessions."""
    figures = (metrics.get("signals") or {}).get("all", {})
    return [title for name, title, _ in ROWS if name in figures and figures[name]["is_worth"] is False]


def render_figures(figures: Mapping[str, Any], title: str) -> str:
    """Return one table of figures under its title, as Markdown."""
    lines = [f"{title}:", "", HEAD, "|---|---|---|---|---|---|---|---|"]
    for name, words, unit in ROWS:
        row = figures[name]
        worth = _say_worth(row)
        write = _make_writer(*unit)
        cells = [words, str(row["num_sessions"]), write(row["model"]), write(row["classical"]),
                 write(row["without_looking"]), write(row["over_classical"]),
                 write(row["over_without_looking"]), worth]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _say_worth(row: Mapping[str, Any]) -> str:
    if row["is_worth"] is None or row["is_worth"]:
        return "-" if row["is_worth"] is None else "yes"
    low, high = row["over_classical"]["low"], row["over_classical"]["high"]
    if low is None or low > 0.0:
        return "no: not better than not looking"
    return "no: classical is better" if high < 0.0 else "no: classical is as good"


def _make_writer(unit: str, factor: float, decimals: int) -> Callable[[Mapping[str, float | None]], str]:
    def write(found: Mapping[str, float | None]) -> str:
        value, low, high = found["value"], found["low"], found["high"]
        if value is None or low is None or high is None:
            return "-"
        said = [f"{factor * number:.{decimals}f}" for number in (value, low, high)]
        return f"{said[0]}{f' {unit}' if unit else ''} [{said[1]}, {said[2]}]"

    return write
