"""A graph of two assets with the names that roles know, for tests of the page: nothing in it costs a second."""

import dagster as dg


@dg.asset
def iq_files() -> None:
    """Made by the job that decides nothing."""


@dg.asset(deps=[iq_files])
def champion_model() -> None:
    """Made by the job that decides."""


ingest = dg.define_asset_job("ingest", selection=[iq_files])
release = dg.define_asset_job("release", selection=[iq_files, champion_model])


@dg.sensor(job=release, default_status=dg.DefaultSensorStatus.RUNNING)
def approvals() -> dg.SkipReason:
    """Asks for nothing; what matters is whether it runs."""
    return dg.SkipReason("nothing changed")


defs = dg.Definitions([iq_files, champion_model], jobs=[ingest, release], sensors=[approvals])
