"""``champion_model``: which release users get, decided anew after each release."""

from typing import Any

import dagster as dg

from heimdall_assets.defs.results import link_parents
from heimdall_assets.defs.settings import PromotionConfig
from heimdall_assets.defs.tracking.resource import ExperimentTracking
from heimdall_assets.defs.witnessing import Witness
from heimdall_assets.kinds import CHAMPION_MODEL, MODEL_RELEASE
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.stores.home import Stores


@dg.asset(
    group_name="heimdall", kinds={"onnx"}, owners=["team:heimdall"], code_version=STAGES[CHAMPION_MODEL].code_version
)
def champion_model(
    context: dg.AssetExecutionContext,
    config: PromotionConfig,
    model_release: Manifest,
    stores: dg.ResourceParam[Stores],
    tracking: dg.ResourceParam[ExperimentTracking],
    witness: dg.ResourceParam[Witness],
) -> dg.MaterializeResult[Any]:
    """The release that ``champion`` means: the newest that is whole and not worse than the one before.

    Decided at this moment, on the same frozen test sessions; who decided and why stands in the ledger.
    """
    from heimdall_assets.pipeline.releases.promotion import CHAMPION, apply_promotion, read_aliases

    decision = apply_promotion(stores, model_release.summary["version"], config.pure())
    witness.tell(context, stores, is_news=decision.promoted)
    aliases = read_aliases(stores)
    champion = aliases[CHAMPION]
    tracking.tell(context, "mirror aliases", lambda store: store.mirror_aliases(stores.objects, aliases))
    manifest = Manifest(
        kind=CHAMPION_MODEL,
        code_version=STAGES[CHAMPION_MODEL].code_version,
        parents={MODEL_RELEASE: model_release.digest},
        specs={"PromotionSpec": config.dump()},
        summary={"champion": champion, "decision": decision.dump()},
    )
    return dg.MaterializeResult(
        value=manifest,
        data_version=dg.DataVersion(manifest.digest),
        metadata={
            "champion": champion or "none",
            "challenger": decision.version,
            "promoted": decision.promoted,
            "reason": decision.reason,
            "comparison": decision.comparison,
            "made_from": link_parents(manifest),
        },
    )
