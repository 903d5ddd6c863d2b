"""What Ray's autoscaler is told of nodes that are processes on this machine."""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE

from celebvision.config import MIB, ClusterSettings

HOST = "127.0.0.1"
OBJECT_STORE_BYTES = 512 * MIB  # of a node, taken as it fills
PROVIDER = "celebvision.local_cluster.provider.LocalNodes"
ENVIRONMENT = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}


def autoscaling(settings: ClusterSettings) -> dict[str, Any]:
    """What `ray up` would make of a cluster's YAML, for nodes that are processes on this machine."""
    resources = {"CPU": settings.node_cpus, "object_store_memory": OBJECT_STORE_BYTES}
    if settings.node_gpus:
        resources["GPU"] = settings.node_gpus
    steps = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "local",
        "max_workers": settings.max_nodes,
        "upscaling_speed": settings.max_nodes,
        "idle_timeout_minutes": settings.idle_s / 60,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "gcs_address": f"{HOST}:{settings.port}",
        },
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "available_node_types": {
            FAKE_HEAD_NODE_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": resources,
                "node_config": {},
                "min_workers": 0,
                "max_workers": settings.max_nodes,
            },
        },
        **{f"{step}_commands": [] for step in steps},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }
