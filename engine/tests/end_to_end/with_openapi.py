"""Asks each path of a list and holds the answer against what the OpenAPI document says of it.

Called with a door and a list in JSON of method, route, path and body (null without one). Prints how many answers had
something in them, by route.
"""

import json
import sys
import urllib.request

import jsonschema_rs


def ask(door, method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(door + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200, (path, answer.status)
        return json.load(answer), dict(answer.headers)


def is_filled(answer):
    if isinstance(answer, dict) and "data" in answer:
        answer = answer["data"]
    return bool(answer)


def main():
    door, asked = sys.argv[1], json.loads(sys.argv[2])
    document, _ = ask(door, "GET", "/openapi.json")
    filled = {}
    for method, route, path, body in asked:
        answer, headers = ask(door, method, path, body)
        said = document["paths"][route][method.lower()]["responses"]["200"]
        schema = {**said["content"]["application/json"]["schema"], "components": document["components"]}
        for error in jsonschema_rs.validator_for(schema).iter_errors(answer):
            raise AssertionError(f"{method} {path}: {error}")
        unknown = {"etag", "tollgate-cut"} & {name.lower() for name in headers} - {
            name.lower() for name in said.get("headers", {})
        }
        assert not unknown, (path, unknown)
        filled[f"{method} {route}"] = is_filled(answer)
    print(json.dumps(filled))


main()
