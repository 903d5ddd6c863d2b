"""The dashboards of jobs: will it be done by morning, and where is the bottleneck?"""

from __future__ import annotations

from cluster.monitoring.grafana.panel import Dashboard, Panel, Query, of_job, rate

EACH = "{{verb}} {{model}}"
LIVE = f"({of_job('celebvision_job_end_timestamp_seconds')} == 0)"
TOTAL = f"({of_job('celebvision_inventory_images')} > 0)"
PLANNED = f"({of_job('celebvision_epochs_planned')} > 0)"
DONE = f"(1 - {of_job('celebvision_images_remaining')} / {TOTAL}) or ({of_job('celebvision_epoch')} / {PLANNED})"
FIRING = 'ALERTS{alertstate="firing"}'


def _quantile(share: str) -> str:
    buckets = rate("celebvision_stage_seconds_bucket", "stage", "le")
    return f"histogram_quantile({share}, sum by (le, stage) ({buckets}))"


JOBS = Dashboard(
    "Jobs",
    "will it be done by morning?",
    [
        Panel(
            "Jobs",
            "Each job that ran lately, those that have ended too. One that failed goes on by the same command.",
            "none",
            [
                Query(f"{of_job('celebvision_job_state', 'state')} == 1", "in this state"),
                Query(DONE, "done (share)"),
                Query(of_job("celebvision_images_remaining"), "images remaining"),
                Query(of_job("celebvision_eta_seconds"), "seconds left"),
                Query(of_job("celebvision_cost_usd"), "USD"),
            ],
            kind="table",
            columns=24,
        ),
        Panel(
            "Alerts that fire",
            "Each has a section in cluster/monitoring/RUNBOOK.md. None is good.",
            "none",
            [Query(f"count by (alertname) ({FIRING}) or vector(0)", "{{alertname}}")],
            columns=8,
            bad_above=1,
        ),
        Panel(
            "Done",
            "A line that stops rising stands still: look at *Since anything was done*.",
            "percentunit",
            [Query(DONE, EACH)],
            columns=8,
            most=1,
        ),
        Panel(
            "Time left, and time until the deadline",
            "Where the first is above the second, the job will be late: give the cluster more nodes. Only jobs with "
            "--deadline have one.",
            "s",
            [
                Query(of_job("celebvision_eta_seconds"), f"{EACH} needs"),
                Query(f"({of_job('celebvision_job_deadline_timestamp_seconds')} > 0) - time() > 0", f"{EACH} has"),
            ],
            columns=8,
        ),
        Panel(
            "Images a second",
            "Of the last minute. It grows with the workers; where it does not, look at the dashboard Pipeline.",
            "none",
            [Query(of_job("celebvision_images_per_second"), EACH)],
            columns=8,
        ),
        Panel(
            "Since anything was done",
            "Of jobs that have not ended. From ten minutes on NoProgress fires.",
            "s",
            [
                Query(
                    f"(time() - {of_job('celebvision_job_last_progress_timestamp_seconds')}) "
                    f"and on (verb, model, output) {LIVE} or vector(0)",
                    EACH,
                )
            ],
            columns=8,
            bad_above=600,
        ),
        Panel(
            "Failures by reason",
            "No image is lost: when the cause is gone, `--retry failures` does them again.",
            "none",
            [Query(of_job("celebvision_failures_total", "stage", "reason"), "{{model}} {{stage}} {{reason}}")],
            columns=8,
        ),
        Panel(
            "Cost so far",
            "Of the cluster's nodes since the job began, by the price table. Only of jobs with --node_type.",
            "currencyUSD",
            [Query(of_job("celebvision_cost_usd"), EACH)],
            columns=8,
        ),
        Panel(
            "Model version",
            "That works, or has worked.",
            "none",
            [Query(of_job("celebvision_model_version_info", "model_version"), "in use")],
            kind="table",
            columns=8,
        ),
        Panel(
            "Drift since the run before",
            "Population stability index: above 0.25 the pictures, or the answers, are others than they were. Look at "
            "some; retrain if they are what is to come.",
            "none",
            [Query(of_job("celebvision_drift_psi", "distribution"), "{{model}} {{distribution}}")],
            columns=8,
            bad_above=0.25,
        ),
    ],
)

PIPELINE = Dashboard(
    "Pipeline",
    "where is the bottleneck?",
    [
        Panel(
            "Images a second by stage",
            "The stages follow each other: none is faster than the slowest for long.",
            "none",
            [Query(rate("celebvision_images_total", "stage", "outcome"), "{{model}} {{stage}} {{outcome}}")],
            columns=8,
        ),
        Panel(
            "Share of the workers' time by stage",
            "The largest is the bottleneck. Fetch: the network or S3. Decode: CPUs. Infer: the network's own size, or "
            "the lack of GPUs.",
            "percentunit",
            [
                Query(
                    f"sum by (stage) ({rate('celebvision_stage_seconds_sum', 'stage')}) / on () group_left () "
                    f"(sum({rate('celebvision_stage_seconds_sum', 'stage')}) > 0)",
                    "{{stage}}",
                )
            ],
            columns=8,
            most=1,
        ),
        Panel(
            "Seconds of a batch by stage",
            "Median and 95th percentile. Where they are far apart, some pictures are much larger than others.",
            "s",
            [Query(_quantile("0.5"), "{{stage}} median"), Query(_quantile("0.95"), "{{stage}} 95 %")],
            columns=8,
        ),
        Panel(
            "Accelerator busy, batches filled",
            "Share of the workers' time in which the network computes, and of a batch's places that hold an image. "
            "Low: what is paid for waits.",
            "percentunit",
            [
                Query(of_job("celebvision_accelerator_busy_ratio"), f"{EACH} busy"),
                Query(of_job("celebvision_batch_fill_ratio"), f"{EACH} filled"),
            ],
            columns=8,
            most=1,
        ),
        Panel(
            "Workers that wait for pictures",
            "Seconds of waiting a second: how many workers wait at a time. More CPU nodes for decoding end it.",
            "none",
            [Query(rate("celebvision_prefetch_wait_seconds_total"), EACH)],
            columns=8,
        ),
        Panel(
            "Shards that are left, and workers",
            "Fewer shards than workers: the end is near, and not all have work.",
            "none",
            [
                Query(of_job("celebvision_queue_shards"), f"{EACH} shards"),
                Query(of_job("celebvision_workers"), f"{EACH} workers"),
            ],
            columns=8,
        ),
        Panel(
            "Bytes a second",
            "Of pictures. Where nodes stay at their network's limit, more nodes help and faster ones do not.",
            "Bps",
            [Query(rate("celebvision_bytes_total", "direction"), "{{model}} {{direction}}")],
            columns=8,
        ),
        Panel(
            "Requests to storage that were sent again",
            "A second. Throttled: S3 wants fewer, and gives more after some minutes.",
            "none",
            [
                Query(
                    f"{rate('celebvision_storage_retries_total', 'reason')} or vector(0)",
                    "{{model}} {{reason}}",
                )
            ],
            columns=8,
        ),
        Panel(
            "Failed share",
            "Of all images so far. From 5 % on TooManyFailures fires; the reasons are on the dashboard Jobs.",
            "percentunit",
            [
                Query(
                    f"sum by (verb, model) ({of_job('celebvision_images_total', 'stage', outcome='failed')}) "
                    f"/ (sum by (verb, model) ({of_job('celebvision_images_total', 'outcome', stage='fetch')}) > 0)",
                    EACH,
                )
            ],
            columns=8,
            bad_above=0.05,
        ),
    ],
)
