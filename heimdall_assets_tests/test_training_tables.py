"""Tables of a training: the guide says of each column what the code says."""

import re

from heimdall_assets.training_tables import TABLES, name_file
from heimdall_assets_tests.documents import read_text
from heimdall_assets_tests.package_names import ROOT

GUIDE = ROOT / "docs" / "guide" / "train.md"


def write_tables() -> str:
    """The list of tables and columns as it stands in the guide."""
    parts = []
    for table, told in TABLES.items():
        lines = [f"`{name_file(table)}`: {told.about}\n", "| column | what it holds |", "|---|---|"]
        lines += [f"| `{name}` | {about} |" for name, about in told.columns.items()]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def test_the_guide_lists_every_column_as_the_code_has_it():
    found = re.search(r"<!-- tables of a training -->\n\n(.*)\n<!-- end -->", read_text(GUIDE), re.DOTALL)
    assert found is not None
    assert found[1] == write_tables(), f"expected between the two comments of {GUIDE.name}:\n{write_tables()}"


def test_columns_that_are_asked_for_are_there_in_their_order():
    asked = {
        "epoch_metrics": "epoch train_loss val_loss span_f1 span_precision span_recall epoch_time",
        "loss_components": "epoch phase loss_position loss_type loss_ptr loss_span loss_countdown total_loss",
        "uncertainty_params": "epoch sigma_position weight_position",
        "probability_stats": "phase in_span_mean in_span_std out_span_mean out_span_std separation",
        "feature_stats": "phase channel mean std min max median",
        "gradient_stats": "layer grad_norm total_grad_norm",
    }
    for table, names in asked.items():
        columns = list(TABLES[table].columns)
        places = [columns.index(name) for name in names.split()]
        assert places == sorted(places), table
