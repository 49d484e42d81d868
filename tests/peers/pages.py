"""Reads metrics pages with the official parsers, which refuse what the formats do not allow.

Standard input is a JSON list of [format, page], where the format is "text" or "openmetrics"; standard output is a JSON list
of what was read: families as [name, type, help, unit, samples], samples as [name, labels, value, timestamp, exemplar] and
exemplars as [labels, value, timestamp]. Numbers are texts, because JSON has no infinity."""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text


def number(value):
    return None if value is None else repr(float(value))


def exemplar(found):
    return found and [found.labels, number(found.value), number(found.timestamp)]


def sample(found):
    return [found.name, found.labels, number(found.value), number(found.timestamp), exemplar(found.exemplar)]


def family(found):
    return [found.name, found.type, found.documentation, found.unit, [sample(one) for one in found.samples]]


parsers = {"text": text, "openmetrics": openmetrics}
pages = json.load(sys.stdin)
json.dump([[family(found) for found in parsers[name](page)] for name, page in pages], sys.stdout)
