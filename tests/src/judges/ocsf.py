"""Validates lines of OCSF by its schema. Attributes that the schema does not know are errors.

Prints how many events are valid, or the errors of the first that is not."""

import json
import sys

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

CLASSES = {0: "base_event", 2004: "detection_finding", 4001: "network_activity"}

schema = OcsfJsonSchemaEmbedded(get_ocsf_schema("1.8.0"))
validators = {
    uid: Draft202012Validator(schema.get_class_schema(name, profiles=["host", "container"]))
    for uid, name in CLASSES.items()
}


def errors(event):
    # 1.9 is not released: it differs in this attribute.
    if event["metadata"]["version"].startswith("1.9") and "initiator_id" in event:
        if event.pop("initiator_id") not in (0, 1, 2):
            yield "initiator_id"
    for error in validators[event["class_uid"]].iter_errors(event):
        yield f"{error.json_path}: {error.message[:300]}"


count = 0
for line in sys.stdin:
    event = json.loads(line)
    found = list(errors(event))
    if found:
        sys.exit("\n".join([*found, line]))
    count += 1
print(count)
