# What nodes may do. Drivers of jobs run on the head and actors on workers, so both have the same buckets; only the head
# starts and ends machines, and only it may give them a role: the workers'.

data "aws_iam_policy_document" "ec2_takes_it" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "node" {
  for_each           = toset(["head", "worker"])
  name               = "${local.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.ec2_takes_it.json
}

resource "aws_iam_instance_profile" "node" {
  for_each = aws_iam_role.node
  name     = each.value.name
  role     = each.value.name
}

locals {
  photos   = aws_s3_bucket.of["photos"].arn
  data     = aws_s3_bucket.of["data"].arn
  token    = "${local.ssm}:parameter/celebvision/ray-token"
  readable = concat(var.inputs, var.outputs)
}

data "aws_iam_policy_document" "node" {
  statement {
    sid       = "ListPhotos"
    actions   = ["s3:ListBucket"]
    resources = [local.photos]
  }
  statement {
    sid       = "ListData"
    actions   = ["s3:ListBucket"]
    resources = [local.data]
    # Ray Train's file system asks whether the bucket is there, which names no prefix.
    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = flatten([for prefix in local.readable : [prefix, "${prefix}/*"]])
    }
  }
  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = concat(["${local.photos}/*"], [for prefix in local.readable : "${local.data}/${prefix}/*"])
  }
  statement {
    sid       = "Write"
    actions   = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = [for prefix in var.outputs : "${local.data}/${prefix}/*"]
  }
  statement {
    sid       = "PullImage"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = [aws_ecr_repository.image.arn]
  }
  statement {
    sid       = "LogInToEcr"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"] # is asked for of the registry, and knows no resource
  }
  statement {
    sid       = "TokenAndAgent"
    actions   = ["ssm:GetParameter"]
    resources = [local.token, aws_ssm_parameter.agent.arn]
  }
  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = [for group in aws_cloudwatch_log_group.of : "${group.arn}:*"]
  }
  statement {
    sid       = "Metrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"] # metrics have no ARN; the namespace is what bounds it
    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = ["CelebVision"]
    }
  }
}

resource "aws_iam_role_policy" "node" {
  for_each = aws_iam_role.node
  name     = "node"
  role     = each.value.name
  policy   = data.aws_iam_policy_document.node.json
}

data "aws_iam_policy_document" "head" {
  statement {
    sid       = "See"
    actions   = ["ec2:DescribeInstances"]
    resources = ["*"] # EC2 knows no narrower one for what describes
  }
  statement {
    sid       = "TellHowAJobEnded"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]
  }
  statement {
    sid       = "StartWorkers"
    actions   = ["ec2:RunInstances"]
    resources = ["${local.ec2}:instance/*"]
    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/ray-cluster-name"
      values   = [local.name]
    }
    condition {
      test     = "StringEquals"
      variable = "ec2:MetadataHttpTokens"
      values   = ["required"]
    }
    condition {
      test     = "ArnEquals"
      variable = "ec2:InstanceProfile"
      values   = [aws_iam_instance_profile.node["worker"].arn]
    }
  }
  statement {
    sid     = "FromTheseParts"
    actions = ["ec2:RunInstances"]
    resources = concat(
      [for subnet in var.subnet_ids : "${local.ec2}:subnet/${subnet}"],
      [
        aws_security_group.nodes.arn,
        "arn:${local.partition}:ec2:${var.region}::image/${var.ami}",
        "${local.ec2}:key-pair/ray-autoscaler*",
        "${local.ec2}:network-interface/*",
      ],
    )
  }
  statement {
    sid       = "OnEncryptedDisks"
    actions   = ["ec2:RunInstances"]
    resources = ["${local.ec2}:volume/*"]
    condition {
      test     = "Bool"
      variable = "ec2:Encrypted"
      values   = ["true"]
    }
  }
  statement {
    sid       = "TagWhatIsStarted"
    actions   = ["ec2:CreateTags"]
    resources = ["${local.ec2}:instance/*"]
    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["RunInstances"]
    }
  }
  statement {
    sid       = "TagAndEndOwnMachines"
    actions   = ["ec2:CreateTags", "ec2:TerminateInstances"]
    resources = ["${local.ec2}:instance/*"]
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/ray-cluster-name"
      values   = [local.name]
    }
  }
  statement {
    sid       = "GiveWorkersTheirRole"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.node["worker"].arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ec2.amazonaws.com"]
    }
  }
  statement {
    sid       = "MakeToken"
    actions   = ["ssm:PutParameter"]
    resources = [local.token]
  }
  statement {
    sid = "BeReached"
    actions = [
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"] # Session Manager's channels have no ARN that is known before
  }
}

resource "aws_iam_role_policy" "head" {
  name   = "head"
  role   = aws_iam_role.node["head"].name
  policy = data.aws_iam_policy_document.head.json
}
