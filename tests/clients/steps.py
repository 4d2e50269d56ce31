"""Performs a list of steps as a test orders them, as steps.mjs does, and prints the same line of JSON."""

import json
import os


def perform(actions):
    outcomes = []
    for step in json.loads(os.environ["ORDER"]):
        action = actions[step["do"]]
        try:
            outcomes.append({"value": action(step)})
        except Exception as error:
            outcomes.append({"error": told(error)})
    print(json.dumps(outcomes))


def caller(client):
    """Any method of an SDK by its name, such as `files.list`; `client` makes the client for a step."""

    def call(step):
        method = client(step)
        for name in step["method"].split("."):
            method = getattr(method, name)
        return method(*step.get("arguments", []), **step.get("named", {}))

    return {"call": call}


def told(error):
    """What a program sees that catches the error; `class` is what it would write after `except`."""
    seen = {name: getattr(error, name, None) for name in ("code", "type", "request_id", "body")}
    return seen | {"class": type(error).__name__, "message": str(error), "status": getattr(error, "status_code", None)}


def client(library, base_url, step):
    """The library's client, with the key and the number of retries that the step has, or the ordinary ones."""
    options = {"max_retries": step["retries"]} if "retries" in step else {}
    return library(base_url=base_url, api_key=step.get("key", os.environ["API_KEY"]), **options)


def headers(response):
    return {name.removeprefix("x-").replace("-", "_"): response.headers.get(name) for name in ("x-request-id", "x-balance-remaining")}
