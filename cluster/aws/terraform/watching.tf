resource "aws_cloudwatch_log_group" "of" {
  for_each          = toset(["/celebvision/jobs", "/celebvision/ray"])
  name              = each.key
  retention_in_days = var.log_days
}

resource "aws_ssm_parameter" "agent" {
  name  = "AmazonCloudWatch-${local.name}"
  type  = "String"
  value = jsonencode(jsondecode(file("${path.module}/../cloudwatch-agent.json")))
}

resource "aws_sns_topic" "alarms" {
  name = "${local.name}-alarms"
}

resource "aws_sns_topic_subscription" "email" {
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

# Who puts words on the topic: CloudWatch of this account, and Budgets.
data "aws_iam_policy_document" "alarms" {
  statement {
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]
    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.alarms.json
}

# A job that stands still ends, and says so in its log in these words.
resource "aws_cloudwatch_log_metric_filter" "stalled" {
  name           = "${local.name}-job-stalled"
  log_group_name = aws_cloudwatch_log_group.of["/celebvision/jobs"].name
  pattern        = "\"nothing has moved for\""
  metric_transformation {
    name      = "JobStalled"
    namespace = "CelebVision"
    value     = "1"
  }
}

resource "aws_cloudwatch_metric_alarm" "stalled" {
  alarm_name          = "${local.name}-job-stalled"
  alarm_description   = "A job ended because nothing moved; its log in /celebvision/jobs says what waited for what"
  namespace           = "CelebVision"
  metric_name         = "JobStalled"
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}

# Ray makes the head, and Terraform finds it: apply again after `ray up`.
data "aws_instances" "head" {
  instance_tags = {
    ray-cluster-name = local.name
    ray-node-type    = "head"
  }
  instance_state_names = ["pending", "running"]
}

resource "aws_cloudwatch_metric_alarm" "head" {
  for_each            = toset(data.aws_instances.head.ids)
  alarm_name          = "${local.name}-head-${each.key}"
  alarm_description   = "The head fails EC2's status checks: jobs stop; ray up starts another, and the same commands continue"
  namespace           = "AWS/EC2"
  metric_name         = "StatusCheckFailed"
  dimensions          = { InstanceId = each.key }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 3
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}
