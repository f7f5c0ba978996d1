import pytest

from heimdall_assets.formats.written_times import parse_time

SECOND_NS = 1_795_168_800 * 10**9  # 2026-11-20T10:00:00Z


@pytest.mark.parametrize(
    ("text", "offset_ns", "step_ns"),
    [
        ("2026-11-20T10:00:00Z", 0, 10**9),
        ("2026-11-20 10:00:00.5Z", 5 * 10**8, 10**8),
        ("2026-11-20T11:00:00.123+01:00", 123 * 10**6, 10**6),
        ("20261120T100000.123456Z", 123_456_000, 1000),
        ("2026-11-20T04:30:00.123456789-0530", 123_456_789, 1),
        ("2026-11-20T10:00:00,123456789123Z", 123_456_789, 1),
        ("2026-11-20T10:00Z", 0, 60 * 10**9),
    ],
)
def test_a_time_is_what_it_says_and_as_good_as_its_digits(text, offset_ns, step_ns):
    written = parse_time(text)
    assert (written.unix_ns, written.step_ns) == (SECOND_NS + offset_ns, step_ns)
    assert written.middle_unix_ns - written.unix_ns == step_ns // 2
    assert written.sigma_s == pytest.approx(step_ns * 1e-9 / 12**0.5)


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-11-20", "2026-02-30T00:00:00Z", "2026-11-20T25:00:00Z", "1969-01-01T00:00:00Z",
     "2226-01-01T00:00:00Z", "2026-11-20T10:00.5Z", "2026-11-20T10:00:00+99:00", "1\u0662026-11-20T10:00:00Z"],
)  # fmt: skip
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_time(text)


def test_a_time_without_a_zone_is_no_time():
    with pytest.raises(ValueError, match="no time zone"):
        parse_time("2026-11-20T10:00:00")
