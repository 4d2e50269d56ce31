"""Does what a test orders with PyPI openai 3.52; reads the same environment and prints the same line as openai.mjs."""

import os

import media_steps
import video_steps
from openai import OpenAI
from pydantic import BaseModel
from steps import caller, client, headers, perform


class City(BaseModel):
    """A shape that answers are asked for in."""

    city: str


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


def responded(response):
    """What the caller of a response has."""
    kinds = {"function_call": "arguments", "custom_tool_call": "input"}
    calls = [[item.name, getattr(item, kinds[item.type])] for item in response.output if item.type in kinds]
    reasons = [part.text for item in response.output if item.type == "reasoning" for part in item.summary]
    details = response.incomplete_details
    return {
        "id": response.id,
        "text": response.output_text,
        "calls": calls,
        "reasons": reasons,
        "status": response.status,
        "usage": response.usage and response.usage.model_dump(),
        "error": response.error and response.error.model_dump(),
        "reason": details and details.reason,
    }


def listened(stream):
    """The same from events, by the text that they bring one after the other; the last one is the response."""
    outcome = {"heard": "", "events": 0}
    for event in stream:
        outcome["events"] += 1
        if event.type == "response.output_text.delta":
            outcome["heard"] += event.delta
        if hasattr(event, "response"):
            outcome |= responded(event.response) | {"last": event.type}
    return outcome


def respond(step):
    response = openai(step).responses.with_raw_response.create(**step["params"])
    outcome = listened(response.parse()) if step["params"].get("stream") else responded(response.parse())
    return outcome | headers(response)


def respond_helper(step):
    """The SDK's own way of putting a streamed response together."""
    with openai(step).responses.stream(**step["params"]) as stream:
        return responded(stream.get_final_response())


def models(step):
    return [model.id for model in openai(step).models.list().data]


def model(step):
    return openai(step).models.retrieve(step["id"]).model_dump(mode="json")


def parse(step):
    """An answer of a shape that the caller names, read by the SDK."""
    completion = openai(step).chat.completions.parse(**step["params"], response_format=City)
    return completion.choices[0].message.parsed.model_dump()


def respond_parse(step):
    return openai(step).responses.parse(**step["params"], text_format=City).output_parsed.model_dump()


actions = {
    "models": models,
    "model": model,
    "create": create,
    "helper": helper,
    "parse": parse,
    "respond": respond,
    "respond_helper": respond_helper,
    "respond_parse": respond_parse,
}
perform(actions | caller(openai) | media_steps.actions(openai) | video_steps.actions(openai))
