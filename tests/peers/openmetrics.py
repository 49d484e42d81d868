"""Reads an OpenMetrics page on standard input with the official parser, which refuses what the format does not allow,
and prints each family's name and type."""

import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

for family in text_string_to_metric_families(sys.stdin.read()):
    print(family.name, family.type)
