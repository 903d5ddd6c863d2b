data "aws_subnet" "of_nodes" {
  for_each = toset(var.subnet_ids)
  id       = each.value
  lifecycle {
    postcondition {
      condition     = self.vpc_id == var.vpc_id && !self.map_public_ip_on_launch
      error_message = "subnet_ids: ${self.id} is not in ${var.vpc_id}, or gives out public addresses: name a private subnet."
    }
  }
}

resource "aws_security_group" "nodes" {
  name        = "${local.name}-nodes"
  description = "Nodes of a cluster: among themselves, and out by HTTPS"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "among_nodes" {
  security_group_id            = aws_security_group.nodes.id
  description                  = "Ray, SSH from the head, metrics"
  referenced_security_group_id = aws_security_group.nodes.id
  ip_protocol                  = "-1"
}

resource "aws_vpc_security_group_egress_rule" "among_nodes" {
  security_group_id            = aws_security_group.nodes.id
  description                  = "Ray, SSH from the head, metrics"
  referenced_security_group_id = aws_security_group.nodes.id
  ip_protocol                  = "-1"
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.nodes.id
  description       = "S3, ECR, SSM, CloudWatch, EC2"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_endpoint" "s3" {
  count           = length(var.route_table_ids) > 0 ? 1 : 0
  vpc_id          = var.vpc_id
  service_name    = "com.amazonaws.${var.region}.s3"
  route_table_ids = var.route_table_ids
}
