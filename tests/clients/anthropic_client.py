"""Does what a test orders with PyPI anthropic 2.11; reads the same environment and prints the same line as anthropic.mjs."""

import json
import os

from anthropic import Anthropic, beta_tool
from pydantic import BaseModel
from steps import caller, client, headers, perform


class City(BaseModel):
    """A shape that answers are asked for in."""

    city: str


@beta_tool
def weather(city: str) -> str:
    """How it is outside."""
    return f"rain in {city}"


def anthropic(step):
    return client(Anthropic, os.environ["BASE_URL"], step)


def seen(content, finish, usage):
    """What the caller of a whole message has."""
    text = "".join(block.text for block in content if block.type == "text")
    calls = [[block.name, json.dumps(block.input, separators=(",", ":"))] for block in content if block.type == "tool_use"]
    return {"text": text, "calls": calls, "finish": finish, "usage": usage}


def gathered(stream):
    """The same from events, put together by hand."""
    blocks, pieces, finish, usage, events = [], [], None, {}, 0
    for event in stream:
        events += 1
        if event.type == "message_start":
            usage = event.message.usage.model_dump()
        elif event.type == "content_block_start":
            blocks.append(event.content_block)
            pieces.append("")
        elif event.type == "content_block_delta" and event.delta.type == "text_delta":
            blocks[event.index].text += event.delta.text
        elif event.type == "content_block_delta" and event.delta.type == "input_json_delta":
            pieces[event.index] += event.delta.partial_json
        elif event.type == "message_delta":
            finish = event.delta.stop_reason
            usage |= {name: count for name, count in event.usage.model_dump().items() if count is not None}
    for block, json_text in zip(blocks, pieces):
        if block.type == "tool_use":
            block.input = json.loads(json_text or "{}")
    return seen(blocks, finish, usage) | {"events": events}


def create(step):
    response = anthropic(step).messages.with_raw_response.create(**step["params"])
    message = response.parse()
    if step["params"].get("stream"):
        return gathered(message) | headers(response)
    return seen(message.content, message.stop_reason, message.usage.model_dump()) | headers(response)


def helper(step):
    """The SDK's own way of putting a stream together."""
    with anthropic(step).messages.stream(**step["params"]) as stream:
        message = stream.get_final_message()
    return seen(message.content, message.stop_reason, message.usage.model_dump())


def models(step):
    return [model.id for model in anthropic(step).models.list().data]


def pages(step):
    """Every page of a list of so many entries each, the same one by one, and what one entry holds."""
    ids = [model.id for model in anthropic(step).models.list(limit=step["limit"])]
    first = anthropic(step).models.retrieve(ids[0])
    single = [anthropic(step).models.retrieve(model).id for model in ids]
    return {"ids": ids, "single": single, "first": first.model_dump(mode="json", exclude_none=True)}


def count(step):
    return anthropic(step).messages.count_tokens(**step["params"]).input_tokens


def parse(step):
    """An answer of a shape that the caller names, read by the SDK."""
    return anthropic(step).messages.parse(**step["params"], output_format=City).parsed_output.model_dump()


def run_tools(step):
    """The SDK calls the tool itself and asks on with what it said."""
    message = anthropic(step).beta.messages.tool_runner(**step["params"] | {"tools": [weather]}).until_done()
    return "".join(block.text for block in message.content)


actions = {"models": models, "pages": pages, "create": create, "helper": helper, "count": count, "parse": parse}
perform(actions | {"run_tools": run_tools} | caller(anthropic))
