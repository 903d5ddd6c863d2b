"""The dashboards of trainings, and of the cluster with what it costs."""

from __future__ import annotations

from cluster.monitoring.grafana.panel import Dashboard, Panel, Query, of_job

EACH = "{{model}}"
CAPACITY = 'sum by (Name) (ray_resources{{Name=~"CPU|GPU"{state}}})'

TRAINING = Dashboard(
    "Training",
    "does it learn?",
    [
        Panel(
            "Epochs done, and planned",
            "A line that stops rising stands still, or the training ended early, as nothing got better.",
            "none",
            [
                Query(of_job("celebvision_epoch"), f"{EACH} done"),
                Query(of_job("celebvision_epochs_planned"), f"{EACH} planned"),
            ],
            columns=8,
        ),
        Panel(
            "Losses",
            "Means of the epoch so far. A line that ends has become NaN: stop it, and lower the learning rate.",
            "none",
            [Query(of_job("celebvision_loss", "loss"), f"{EACH} {{{{loss}}}}")],
            columns=8,
        ),
        Panel(
            "Figures on the validation split",
            "After each epoch. Losses fall and this one rises: it learns by heart; more augmentation, fewer epochs.",
            "none",
            [Query(of_job("celebvision_validation", "figure"), f"{EACH} {{{{figure}}}}")],
            columns=8,
        ),
        Panel(
            "Images a second",
            "Of all workers together. Twice the workers should give nearly twice as many.",
            "none",
            [Query(of_job("celebvision_images_per_second"), f"{{{{verb}}}} {EACH}")],
            columns=8,
        ),
        Panel(
            "Share of the time that steps wait for data",
            "Above a half AcceleratorIdle fires: more CPUs for reading, or shards nearer by.",
            "percentunit",
            [Query(of_job("celebvision_data_wait_ratio"), EACH)],
            columns=8,
            bad_above=0.5,
            most=1,
        ),
        Panel(
            "Workers, and steps of the epoch",
            "Fewer workers than before: spot nodes went, and it goes on without them until others come.",
            "none",
            [
                Query(of_job("celebvision_workers", verb="train"), f"{EACH} workers"),
                Query(of_job("celebvision_step"), f"{EACH} step"),
            ],
            columns=8,
        ),
        Panel(
            "A GAN's health",
            "Variety of the outputs, and the discriminator's loss: either at zero is a collapse. The log says more.",
            "none",
            [
                Query(of_job("celebvision_validation", figure="variety"), f"{EACH} variety"),
                Query(of_job("celebvision_loss", loss="discriminator"), f"{EACH} discriminator"),
                Query(of_job("celebvision_training_warnings"), f"{EACH} warnings"),
            ],
            columns=8,
        ),
        Panel(
            "Since the last checkpoint, and how long it took",
            "So much would be done again if the workers were lost.",
            "s",
            [
                Query(f"time() - {of_job('celebvision_checkpoint_timestamp_seconds')}", f"{EACH} age"),
                Query(of_job("celebvision_checkpoint_seconds"), f"{EACH} took"),
            ],
            columns=8,
            bad_above=7200,
        ),
        Panel(
            "Retraining: since the last that ended well",
            "It ends well when nothing new has landed, too. From eight days on RetrainStale fires.",
            "s",
            [
                Query(f"time() - {of_job('celebvision_retrain_last_success_timestamp_seconds')}", EACH),
            ],
            columns=8,
            bad_above=8 * 86400,
        ),
        Panel(
            "Retraining: what the last decided",
            "Kept: the champion was better, or as good. Its record in the registry tells the figures.",
            "none",
            [Query(f"{of_job('celebvision_retrain_decision', 'decision')} == 1", "decided")],
            kind="table",
            columns=24,
        ),
    ],
)

CLUSTER = Dashboard(
    "Cluster and cost",
    "what is there, what does it do, what does it cost?",
    [
        Panel(
            "Nodes",
            "At work, idle, and asked for. Those that are asked for and do not come: NodesDoNotCome.",
            "none",
            [
                Query("sum(ray_cluster_active_nodes) or vector(0)", "at work"),
                Query("sum(ray_cluster_idle_nodes) or vector(0)", "idle"),
                Query("sum(autoscaler_pending_nodes) or vector(0)", "asked for"),
                Query("sum(autoscaler_recently_failed_nodes) or vector(0)", "failed"),
            ],
            columns=8,
        ),
        Panel(
            "CPUs and GPUs: there, and given to work",
            "Ray's own count. Much that is there and not given: the job cannot use so many nodes, or waits.",
            "none",
            [
                Query(CAPACITY.format(state=""), "{{Name}} there"),
                Query(CAPACITY.format(state=', State="USED"'), "{{Name}} given"),
            ],
            columns=8,
        ),
        Panel(
            "CPUs and GPUs: how busy",
            "Of each node. Given to work and not busy: look at the dashboard Pipeline.",
            "percent",
            [
                Query("avg by (instance) (ray_node_cpu_utilization)", "{{instance}} CPU"),
                Query("avg by (instance) (ray_node_gpus_utilization) or vector(0)", "{{instance}} GPU"),
            ],
            columns=8,
            most=100,
        ),
        Panel(
            "Memory in use",
            "Share of each node's. At 95 % Ray ends workers: OutOfMemory. A smaller --batch_size helps.",
            "percentunit",
            [Query("max by (instance) (ray_node_mem_used / ray_node_mem_total)", "{{instance}}")],
            columns=8,
            bad_above=0.9,
            most=1,
        ),
        Panel(
            "Object store: in use, and put on disk",
            "What is put on disk was too much for it: DiskSpilling. Smaller --shard_keys or --batch_size.",
            "bytes",
            [
                Query("sum by (instance) (ray_object_store_used_memory)", "{{instance}} in use"),
                Query('sum by (instance) (ray_object_store_memory{Location="SPILLED"})', "{{instance}} on disk"),
            ],
            columns=8,
        ),
        Panel(
            "Disk in use",
            "At 95 % Ray takes no more objects there.",
            "percent",
            [Query("max by (instance) (ray_node_disk_utilization_percentage)", "{{instance}}")],
            columns=8,
            bad_above=90,
            most=100,
        ),
        Panel(
            "Workers that died, or were ended for want of memory",
            "In the last quarter of an hour. Their work is done again.",
            "none",
            [
                Query("sum(increase(ray_node_manager_unexpected_worker_failure_total[15m])) or vector(0)", "died"),
                Query("sum(increase(ray_memory_manager_worker_eviction_total[15m])) or vector(0)", "no memory"),
            ],
            columns=8,
            bad_above=3,
        ),
        Panel(
            "Network",
            "Bytes a second that each node receives and sends.",
            "Bps",
            [
                Query("max by (instance) (ray_node_network_receive_speed)", "{{instance}} in"),
                Query("max by (instance) (ray_node_network_send_speed)", "{{instance}} out"),
            ],
            columns=8,
        ),
        Panel(
            "Cost so far, by job",
            "US dollars of all nodes since each began: jobs at the same time both count them.",
            "currencyUSD",
            [Query(of_job("celebvision_cost_usd"), "{{verb}} {{model}}")],
            columns=8,
        ),
    ],
)
