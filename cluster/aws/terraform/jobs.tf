# What jobs tell of themselves by `--cloudwatch CelebVision`: alarms, named as Prometheus' are in ../../monitoring, and a
# dashboard. An alarm watches the worst of all jobs; the dashboard, and the logs, tell which it is.
locals {
  jobs = {
    NoProgress = {
      metric  = "celebvision_job_idle_seconds", above = 600, minutes = 1,
      meaning = "A job that has not ended got nothing done for ten minutes"
    }
    JobFailed = {
      metric  = "celebvision_job_failed", above = 0, minutes = 1,
      meaning = "A job ended with an error"
    }
    WillNotBeDoneInTime = {
      metric  = "celebvision_job_late_seconds", above = 0, minutes = 10,
      meaning = "A job will miss its deadline"
    }
    TooManyFailures = {
      metric  = "celebvision_failure_ratio", above = 0.05, minutes = 5,
      meaning = "More than 5 % of a job's images failed"
    }
    StorageThrottled = {
      metric  = "celebvision_throttled_ratio", above = 0.1, minutes = 10,
      meaning = "S3 turns more than every tenth request away"
    }
    AcceleratorIdle = {
      metric  = "celebvision_accelerator_idle_ratio", above = 0.8, minutes = 15,
      meaning = "Networks wait while there is work for them"
    }
    TrainingDiverged = {
      metric  = "celebvision_losses_not_finite", above = 0, minutes = 1,
      meaning = "A training's loss is no number any more"
    }
    GANCollapsing = {
      metric  = "celebvision_training_warnings", above = 0, minutes = 15,
      meaning = "A GAN looks as if it collapses"
    }
  }
  # A graph each: the metric, by which of its labels besides the job's, and what is shown of it in a minute.
  graphs = {
    "Images a second"                     = ["celebvision_images_per_second", "", "Average"]
    "Seconds left"                        = ["celebvision_eta_seconds", "", "Average"]
    "Images that are left"                = ["celebvision_images_remaining", "", "Average"]
    "Images by stage and outcome"         = ["celebvision_images_total", ",stage,outcome", "Sum"]
    "Seconds since anything was done"     = ["celebvision_job_idle_seconds", "", "Maximum"]
    "Cost so far, USD"                    = ["celebvision_cost_usd", "", "Maximum"]
    "Share in which the network computes" = ["celebvision_accelerator_busy_ratio", "", "Average"]
    "Workers"                             = ["celebvision_workers", "", "Average"]
    "Losses"                              = ["celebvision_loss", ",loss", "Average"]
    "Figures on the validation split"     = ["celebvision_validation", ",figure", "Average"]
  }
}

resource "aws_cloudwatch_metric_alarm" "job" {
  for_each            = local.jobs
  alarm_name          = "${local.name}-${each.key}"
  alarm_description   = "${each.value.meaning}. What to do: cluster/monitoring/RUNBOOK.md#${lower(each.key)}"
  namespace           = "CelebVision"
  metric_name         = each.value.metric
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = each.value.minutes
  datapoints_to_alarm = ceil(each.value.minutes / 2) # a minute in which no shard ended tells of nothing
  threshold           = each.value.above
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching" # no job runs
  alarm_actions       = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_dashboard" "jobs" {
  dashboard_name = local.name
  dashboard_body = jsonencode({
    widgets = concat(
      [for number, title in keys(local.graphs) : {
        type = "metric", x = 12 * (number % 2), y = 6 * floor(number / 2), width = 12, height = 6,
        properties = {
          title = title, region = var.region, view = "timeSeries", period = 60,
          metrics = [[{ expression = format(
            "SEARCH('{CelebVision,verb,model,output%s} MetricName=\"%s\"', '%s', 60)",
            local.graphs[title][1], local.graphs[title][0], local.graphs[title][2]
          ) }]]
        }
      }],
      [{
        type = "metric", x = 0, y = 30, width = 24, height = 6,
        properties = {
          title = "Failures by stage and reason, out of the logs", region = var.region, view = "timeSeries", period = 60,
          metrics = [[{
            expression = "SEARCH('{CelebVision,verb,model,stage,reason} MetricName=\"celebvision_failures_total\"', 'Sum', 60)"
          }]]
        }
      }],
      [{
        type = "alarm", x = 0, y = 36, width = 24, height = 3,
        properties = {
          title  = "Alarms"
          alarms = concat([aws_cloudwatch_metric_alarm.stalled.arn], [for alarm in aws_cloudwatch_metric_alarm.job : alarm.arn])
        }
      }]
    )
  })
}
