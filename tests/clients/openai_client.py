"""Does what a test orders with PyPI openai 3.52; reads the same environment and prints the same line as openai.mjs."""

import os

import media_steps
from openai import OpenAI
from steps import client, headers, perform


def openai(step):
    return client(OpenAI, os.environ["BASE_URL"] + "/v1", step)


def seen(completion):
    """What the caller of a whole completion has."""
    choice = completion.choices[0]
    calls = [[call.function.name, call.function.arguments] for call in choice.message.tool_calls or []]
    usage = completion.usage and completion.usage.model_dump()
    return {"text": choice.message.content, "calls": calls, "finish": choice.finish_reason, "usage": usage}


def gathered(stream):
    """The same from chunks, put together as the documentation of the SDK shows it."""
    outcome = {"text": "", "calls": [], "finish": None, "usage": None, "chunks": 0, "without_choice": 0}
    for chunk in stream:
        outcome["chunks"] += 1
        if chunk.usage is not None:
            outcome["usage"] = chunk.usage.model_dump()
        if not chunk.choices:
            outcome["without_choice"] += 1
        for choice in chunk.choices:
            outcome["text"] += choice.delta.content or ""
            outcome["finish"] = choice.finish_reason or outcome["finish"]
            for call in choice.delta.tool_calls or []:
                while len(outcome["calls"]) <= call.index:
                    outcome["calls"].append(["", ""])
                outcome["calls"][call.index][0] += call.function.name or ""
                outcome["calls"][call.index][1] += call.function.arguments or ""
    return outcome


def create(step):
    response = openai(step).chat.completions.with_raw_response.create(**step["params"])
    outcome = gathered(response.parse()) if step["params"].get("stream") else seen(response.parse())
    return outcome | headers(response)


def helper(step):
    """The SDK's own way of putting a stream together."""
    with openai(step).chat.completions.stream(**step["params"]) as stream:
        return seen(stream.get_final_completion())


def models(step):
    return [model.id for model in openai(step).models.list().data]


perform({"models": models, "create": create, "helper": helper} | media_steps.actions(openai))
