"""Publishes with OpenMeter's client, asks for usage, and prints what it was told. The door is the first argument."""

import datetime
import json
import sys
import time

from corehttp.exceptions import HttpResponseError
from openmeter import Client

client = Client(endpoint=sys.argv[1], token=sys.argv[2] if len(sys.argv) > 2 else None)


def event(id, subject, model, minute, tokens):
    return {
        "id": id, "source": "sdk", "specversion": "1.0", "type": "llm.completion", "subject": subject,
        "time": datetime.datetime(2026, 10, 1, 10, minute, tzinfo=datetime.timezone.utc),
        "data": {"model": model, "region": "eu", "input_tokens": tokens, "output_tokens": 1},
    }


client.events.ingest_event(event("o1", "a", "m", 0, 1))
client.events.ingest_events([event("o2", "a", "n", 1, 20), event("o3", "b", "m", 59, 300)])
client.events.ingest_events_json([event("o3", "b", "m", 59, 300), event("o4", "b", "m", 59, 4000)])

start = datetime.datetime(2026, 10, 1, tzinfo=datetime.timezone.utc)
end = start + datetime.timedelta(days=1)


def rows(**asked):
    result = client.meters.query_json("tokens_input", from_parameter=start, to=end, **asked)
    return [[int(row.value), row.window_start.isoformat(), row.subject, dict(row.group_by)] for row in result.data]


for _ in range(600):
    if [row[0] for row in rows()] == [4321]:
        break
    time.sleep(0.05)

slugs = [meter.slug for meter in client.meters.list()]
aggregation = client.meters.get("tokens_calls").aggregation
try:
    rows(group_by=["color"])
    refused = None
except HttpResponseError as error:
    refused = error.status_code
print(json.dumps({
    "slugs": slugs,
    "aggregation": aggregation,
    "all": rows(),
    "by_subject": rows(group_by=["subject"]),
    "day": rows(window_size="DAY", subject=["b"]),
    "filtered": rows(filter_group_by={"model": "n"}, group_by=["model"]),
    "refused": refused,
}))
