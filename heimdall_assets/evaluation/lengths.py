"""Lengths as people read them.

Belongs here: one way to write metres, for every table and text.
"""


def format_metres(value: float | None) -> str:
    """Return a length fit to read: three figures, m or km, "-" for none.

    Examples:
        >>> [format_metres(value) for value in (12.345, 421.0, 12_345.0, None)]
        ['12.3 m', '421 m', '12.3 km', '-']
    """
    if value is None:
        return "-"
    if abs(value) >= 9_995.0:
        return f"{value / 1000.0:,.0f} km" if abs(value) >= 99_950.0 else f"{value / 1000.0:.1f} km"
    return f"{value:,.0f} m" if abs(value) >= 99.5 else f"{value:.3g} m"
