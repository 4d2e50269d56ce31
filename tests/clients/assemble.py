"""Has PyPI openai 3.52 and anthropic 2.11 put together what a stub serves; reads the same environment as assemble.mjs."""

import os

from anthropic import Anthropic
from openai import LengthFinishReasonError, OpenAI
from steps import perform


def openai(step):
    return OpenAI(base_url=f"{os.environ['BASE_URL']}/{step['at']}/v1", api_key="none", max_retries=0)


def anthropic(step):
    return Anthropic(base_url=f"{os.environ['BASE_URL']}/{step['at']}", api_key="none", max_retries=0)


def chat_stream(step):
    with openai(step).chat.completions.stream(**step["params"]) as stream:
        try:
            return stream.get_final_completion()
        except LengthFinishReasonError as cut_off:  # this helper's way to say so
            return cut_off.completion


def messages_stream(step):
    with anthropic(step).messages.stream(**step["params"]) as stream:
        return stream.get_final_message()


def responses_stream(step):
    with openai(step).responses.stream(**step["params"]) as stream:
        *_, last = stream
        # The helper knows of answers that were cut off, but has no final one then.
        return last.response if last.type == "response.incomplete" else stream.get_final_response()


def plainly(action):
    return lambda step: action(step).model_dump(mode="json", warnings="error")


perform(
    {
        "chat": plainly(lambda step: openai(step).chat.completions.create(**step["params"])),
        "chat_stream": plainly(chat_stream),
        "messages": plainly(lambda step: anthropic(step).messages.create(**step["params"])),
        "messages_stream": plainly(messages_stream),
        "responses": plainly(lambda step: openai(step).responses.create(**step["params"])),
        "responses_stream": plainly(responses_stream),
    }
)
