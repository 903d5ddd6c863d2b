"""Spot nodes on AWS that are on-demand nodes where EC2 has no spot to give: the provider that cluster.yaml names."""

from __future__ import annotations

import logging
from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

# EC2's words for that there is no spot instance now: none of the type, the account's own limit, or a price too low.
NO_SPOT = {
    "InsufficientCapacity",
    "InsufficientInstanceCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
}

log = logging.getLogger(__name__)


class SpotElseOnDemand(AWSNodeProvider):
    """Ray's own, but a spot node that EC2 refuses in every subnet is asked for on demand, with all else the same.

    Ray 2.60 would ask for spot again for ever: it counts a refusal as no failure of the type. The node has its type's
    tags, so that Ray counts and ends it as any other; the next node is asked for as spot again.
    """

    def _create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        try:
            made: dict[str, Any] = super()._create_node(node_config, tags, count)
        except NodeLaunchException as refused:
            if refused.category not in NO_SPOT or "InstanceMarketOptions" not in node_config:
                raise
            log.warning("no spot (%s): %d on demand instead", refused.category, count)
            on_demand = {name: value for name, value in node_config.items() if name != "InstanceMarketOptions"}
            made = super()._create_node(on_demand, tags, count)
        return made
