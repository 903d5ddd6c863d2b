locals {
  registry = split("/", aws_ecr_repository.image.repository_url)[0]
  # ../cluster.yaml with what is here in place of what stands for it there. The registry first: its name has a region too.
  image   = replace(file("${path.module}/../cluster.yaml"), "123456789012.dkr.ecr.us-east-1.amazonaws.com", local.registry)
  tag     = replace(local.image, "celebvision:0.1.0", "${local.name}:${var.image_tag}")
  place   = replace(local.tag, "us-east-1", var.region)
  subnets = replace(local.place, "subnet-00000000000000000", join(", ", var.subnet_ids))
  group   = replace(local.subnets, "sg-00000000000000000", aws_security_group.nodes.id)
}

output "cluster_yaml" {
  description = "The launcher's YAML, filled in: terraform output -raw cluster_yaml > my-cluster.yaml"
  value       = replace(local.group, "ami-00000000000000000", var.ami)
}

output "repository" {
  description = "Where the image is pushed to"
  value       = aws_ecr_repository.image.repository_url
}

output "photos" {
  description = "--input of jobs"
  value       = "s3://${aws_s3_bucket.of["photos"].bucket}"
}

output "sns_topic" {
  description = "--sns_topic of jobs: who gets the alarms' mails is told how a job ended, too"
  value       = aws_sns_topic.alarms.arn
}

output "data" {
  description = "What --output and --registry begin with"
  value       = "s3://${aws_s3_bucket.of["data"].bucket}"
}
