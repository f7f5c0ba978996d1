"""What `locate` and `predict` print of one position."""

from heimdall_assets.cli.locating import write_position
from heimdall_assets.locating.estimates import describe_estimate
from heimdall_assets.physical import Alternative, AreaWeight, Estimate

NORTH = Estimate(46.1, 8.0, 1e6, 4e6, 0.0, method="tdoa_robust")
SOUTH = Estimate(45.9, 8.0, 1e6, 4e6, 0.0, method="tdoa_robust")


def print_lines(capsys, estimate) -> list[str]:
    write_position(describe_estimate(estimate) | {"refused": []}, as_json=False)
    return capsys.readouterr().out.splitlines()


def test_both_places_and_what_the_area_did_are_printed(capsys):
    area = AreaWeight(46.2, 8.0, 11_119.0, 5.6)
    estimate = Estimate(
        46.1,
        8.0,
        1e6,
        4e6,
        0.0,
        "tdoa_robust",
        alternatives=(Alternative(NORTH, 0.6), Alternative(SOUTH, 0.4)),
        area=area,
    )
    lines = print_lines(capsys, estimate)
    assert lines[2].startswith("2 places explain it")
    assert lines[3].startswith("60 %: 46.100000, 8.000000; 90 % ellipse: 4,292 m x 2,146 m")
    assert lines[4].startswith("40 %: 45.900000, 8.000000")
    assert lines[5].endswith("moved that 11,119 m, 5.6 sigma")


def test_an_open_distance_is_said_and_a_plain_position_needs_two_lines(capsys):
    far = Estimate(46.1, 8.0, 1e6, 4e6, 0.0, "tdoa_robust", area=AreaWeight(None, None, None, None))
    assert print_lines(capsys, far)[2].startswith("arrivals alone leave the distance open")
    assert len(print_lines(capsys, NORTH)) == 2
