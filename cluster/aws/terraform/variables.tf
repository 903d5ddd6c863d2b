variable "region" {
  description = "Where all of it is; the buckets too, since traffic between regions is paid for by the byte"
  type        = string
  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region: ${var.region} is none: name one such as us-east-1."
  }
}

variable "photos_bucket" {
  description = "The bucket of photos to make; the cluster may only read it"
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.photos_bucket))
    error_message = "photos_bucket: ${var.photos_bucket} is no bucket's name: 3 to 63 of a-z, 0-9, '-' and '.'."
  }
}

variable "data_bucket" {
  description = "The bucket of shards, models, labels and pictures to make"
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.data_bucket)) && var.data_bucket != var.photos_bucket
    error_message = "data_bucket: ${var.data_bucket} is no bucket's name, or that of the photos, which jobs may not write."
  }
}

variable "inputs" {
  description = "Prefixes of the data bucket that jobs may only read"
  type        = list(string)
  default     = ["celeba", "styles"]
  validation {
    condition     = alltrue([for prefix in var.inputs : can(regex("^[^/*?]+(/[^/*?]+)*$", prefix))])
    error_message = "inputs: write folders without a slash around them and without wildcards, such as celeba."
  }
}

variable "outputs" {
  description = "Prefixes of the data bucket that jobs may read and write: of --output and --registry"
  type        = list(string)
  default     = ["shards", "models", "labels", "pictures", "evaluation", "training"]
  validation {
    condition     = length(var.outputs) > 0 && alltrue([for prefix in var.outputs : can(regex("^[^/*?]+(/[^/*?]+)*$", prefix))])
    error_message = "outputs: write folders without a slash around them and without wildcards, such as labels."
  }
}

variable "run_days" {
  description = "After so many days a run's record, with its inventory and what a killed run left in parts, is deleted"
  type        = number
  default     = 400
  validation {
    condition     = var.run_days >= 30
    error_message = "run_days: ${var.run_days} is too few: drift is told from the record of the last run; say 30 or more."
  }
}

variable "vpc_id" {
  description = "The network that nodes are started in"
  type        = string
}

variable "subnet_ids" {
  description = "Its private subnets, with a way out by a NAT; in several zones, since a spot market is one zone's"
  type        = list(string)
  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "subnet_ids: name a subnet at least."
  }
}

variable "route_table_ids" {
  description = "Of those subnets: gets a gateway to S3, by which photos pass no NAT, which is paid by the byte; []: has one"
  type        = list(string)
}

variable "ami" {
  description = "Image of the nodes: Ubuntu with Docker, NVIDIA's driver 580 or newer and container runtime, AWS CLI, CloudWatch agent"
  type        = string
  validation {
    condition     = can(regex("^ami-[0-9a-f]+$", var.ami))
    error_message = "ami: ${var.ami} is no image: README.md says how to find one."
  }
}

variable "image_tag" {
  description = "Tag of our image in the repository, as make image has made it"
  type        = string
  validation {
    condition     = can(regex("^[A-Za-z0-9_][A-Za-z0-9._-]*$", var.image_tag)) && var.image_tag != "latest"
    error_message = "image_tag: ${var.image_tag} is none, or latest, which tomorrow is another: name a version."
  }
}

variable "alarm_email" {
  description = "Who is told of alarms and of money; confirms the subscription once"
  type        = string
  validation {
    condition     = can(regex("^[^@ ]+@[^@ ]+$", var.alarm_email))
    error_message = "alarm_email: ${var.alarm_email} is no address."
  }
}

variable "budget_usd" {
  description = "A month's costs of the whole account, of which alarms are told at 80 % spent and 100 % foreseen"
  type        = number
  validation {
    condition     = var.budget_usd > 0
    error_message = "budget_usd: ${var.budget_usd} is no budget."
  }
}

variable "log_days" {
  description = "Logs are kept for so long"
  type        = number
  default     = 30
  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365], var.log_days)
    error_message = "log_days: CloudWatch knows 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180 and 365, and not ${var.log_days}."
  }
}
