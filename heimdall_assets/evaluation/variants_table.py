"""The files that a model was exported as, side by side, and the student beside its teacher, as Markdown.

Belongs here: wording. Every number comes from the manifest of the export, from the facts of its computation, or from
the evaluation; none is made here.
"""

from collections.abc import Mapping
from typing import Any

from heimdall_assets.evaluation.lengths import format_metres

BATCHES = ("1", "32")


def render_variants_table(export: Mapping[str, Any], latency: Mapping[str, Any] | None = None) -> str:
    """Return one row a file: size, figures of the test split, how far its answers moved, how long it takes.

    Args:
        export: summary of the exported model.
        latency: file -> batch size -> times, where they were measured.
    """
    latency = latency or {}
    head = ["file", "MB", "median", "p90", "90 % ellipse covers", "answers moved by (median, largest)"]
    head += [f"batch of {size}: p50 / p95 ms" for size in BATCHES]
    lines = [_join(head), _join(["---"] * len(head))]
    times = [_tell_times(latency.get("pytorch", {}), size) for size in BATCHES]
    figures = export["model"]["test"]
    lines.append(_join(["PyTorch", "-", *_tell_figures(figures), "-", *times]))
    for name, row in export["variants"].items():
        moved = f"{format_metres(row['test']['moved_median_m'])}, {format_metres(row['test']['moved_max_m'])}"
        shown = f"**{name}** (released)" if name == export["variant"] and not export["rejected"] else name
        times = [_tell_times(latency.get(name, {}), size) for size in BATCHES]
        lines.append(_join([shown, f"{row['size_bytes'] / 1e6:.1f}", *_tell_figures(row["test"]), moved, *times]))
    return "\n".join(lines) + "\n"


def describe_variants(export: Mapping[str, Any], latency: Mapping[str, Any] | None = None) -> list[str]:
    """Return what is to be said of the files: why this one, what each changes, what could not be made."""
    said = [f"`model.onnx` is {export['variant']}: {export['because']}."]
    said += [f"{name} changes: {row['changed']}." for name, row in export["variants"].items() if name != "fp32"]
    said += [f"{name} was not made: {reason}." for name, reason in export["not_made"].items()]
    if len(export["variants"]) > 1:
        said.append("The files were chosen from on the validation split; the figures above are of the test split.")
    if latency:
        said.append(f"Times are {latency['unit']}, on one thread of the machine that exported it, other work beside.")
    return said


def describe_teacher(taught: Mapping[str, Any] | None) -> str:
    """Return how a student compares with its teacher on the test split; empty: it had none."""
    if not taught:
        return ""
    return (
        f"It learned from a teacher, checkpoint `{taught['teacher'][:12]}`: median error "
        f"{format_metres(taught['median_m'])} against the teacher's {format_metres(taught['teacher_median_m'])}, a "
        f"difference of {format_metres(taught['difference_m'])}; 90 % below {format_metres(taught['p90_m'])} against "
        f"{format_metres(taught['teacher_p90_m'])}. Its answers lie {format_metres(taught['moved_median_m'])} from the "
        f"teacher's in the median, {format_metres(taught['moved_p90_m'])} at 90 %."
    )


def _tell_figures(figures: Mapping[str, Any]) -> list[str]:
    coverage = figures["coverage_90"]
    covered = "-" if coverage is None else f"{100 * coverage:.1f} %"
    return [format_metres(figures["median_m"]), format_metres(figures["p90_m"]), covered]


def _tell_times(times: Mapping[str, Any], size: str) -> str:
    found = times.get(size)
    return "-" if found is None else f"{found['p50']:.3g} / {found['p95']:.3g}"


def _join(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
