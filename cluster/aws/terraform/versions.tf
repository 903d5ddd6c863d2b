terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
}

provider "aws" {
  region = var.region
  default_tags {
    tags = { project = local.name }
  }
}

data "aws_caller_identity" "here" {}
data "aws_partition" "here" {}

locals {
  name      = "celebvision"
  partition = data.aws_partition.here.partition
  account   = data.aws_caller_identity.here.account_id
  # of what has a region and an account, such as arn:aws:ec2:us-east-1:123456789012
  ec2 = "arn:${local.partition}:ec2:${var.region}:${local.account}"
  ssm = "arn:${local.partition}:ssm:${var.region}:${local.account}"
}
