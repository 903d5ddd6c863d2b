locals {
  buckets = { photos = var.photos_bucket, data = var.data_bucket }
}

resource "aws_s3_bucket" "of" {
  for_each = local.buckets
  bucket   = each.value
}

resource "aws_s3_bucket_public_access_block" "of" {
  for_each                = aws_s3_bucket.of
  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "of" {
  for_each = aws_s3_bucket.of
  bucket   = each.value.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "of" {
  for_each = aws_s3_bucket.of
  bucket   = each.value.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

data "aws_iam_policy_document" "tls_only" {
  for_each = aws_s3_bucket.of
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"] # of a denial: all that there are
    resources = [each.value.arn, "${each.value.arn}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "of" {
  for_each   = aws_s3_bucket.of
  bucket     = each.value.id
  policy     = data.aws_iam_policy_document.tls_only[each.key].json
  depends_on = [aws_s3_bucket_public_access_block.of]
}

resource "aws_s3_bucket_lifecycle_configuration" "of" {
  for_each   = aws_s3_bucket.of
  bucket     = each.value.id
  depends_on = [aws_s3_bucket_versioning.of]

  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {
      prefix = ""
    }
    noncurrent_version_expiration {
      noncurrent_days = 30
    }
    expiration {
      expired_object_delete_marker = true
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 3
    }
  }

  # A rule's prefix has no wildcards: OUTPUT/runs/*/parts cannot be named apart from OUTPUT/runs. What a finished run
  # deletes itself (parts and journal) is gone after a day here; what a killed run left goes with its record.
  dynamic "rule" {
    for_each = each.key == "data" ? var.outputs : []
    content {
      id     = "runs-of-${replace(rule.value, "/", "-")}"
      status = "Enabled"
      filter {
        prefix = "${rule.value}/runs/"
      }
      expiration {
        days = var.run_days
      }
      noncurrent_version_expiration {
        noncurrent_days = 1
      }
    }
  }
}
