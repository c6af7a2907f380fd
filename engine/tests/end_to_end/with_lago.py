"""Publishes with Lago's client, and prints what it was told. The door is the first argument."""

import json
import sys

from lago_python_client.client import Client
from lago_python_client.exceptions import LagoApiError
from lago_python_client.models import BatchEvent, Event

client = Client(api_key=sys.argv[2] if len(sys.argv) > 2 else "none", api_url=sys.argv[1] + "/lago/")


def event(id, subject, tokens, **more):
    return Event(
        transaction_id=id, external_subscription_id=subject, code="llm.completion", timestamp="1790848800.123",
        properties={"model": "m", "input_tokens": tokens, "output_tokens": 1}, **more,
    )


told = client.events.create(event("l1", "a", 1))
client.events.batch_create(BatchEvent(events=[event("l2", "a", 20), event("l3", "b", 300)]))
client.events.batch_create(BatchEvent(events=[event("l3", "b", 300)]))
try:
    client.events.create(event("", "a", 1))
    refused = None
except LagoApiError as error:
    refused = error.status_code
print(json.dumps({"transaction_id": told.transaction_id, "timestamp": told.timestamp, "refused": refused}))
