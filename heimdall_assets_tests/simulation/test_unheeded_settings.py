"""A setting that a simulation with IQ does not heed is refused, not passed over."""

import pytest

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.simulation.network import simulate_session
from heimdall_assets.specs import SimulationSpec


def test_a_loss_of_blocked_paths_is_refused():
    with pytest.raises(InvalidSetting, match="blocked_loss_db"):
        simulate_session(SimulationSpec(blocked_loss_db=15.0), 0)
