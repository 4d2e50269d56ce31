"""Media with PyPI openai; the same steps and outcomes as media.mjs."""


def lengths(data):
    dumped = [{k: v for k, v in entry.model_dump().items() if v is not None} for entry in data]
    return [[sorted(entry), len(entry.get("b64_json") or entry["url"])] for entry in dumped]


def usage(answer):
    return answer.usage and answer.usage.model_dump()


def actions(openai):
    """One function per word that a step's `do` may say; `openai` makes the client for a step."""

    def embed(step):
        answer = openai(step).embeddings.create(**step["params"])
        return {"vectors": [entry.embedding for entry in answer.data], "usage": usage(answer)}

    def draw(step):
        answer = openai(step).images.generate(**step["params"])
        if step["params"].get("stream"):
            return {"events": [event.type for event in answer]}
        return {"data": lengths(answer.data), "usage": usage(answer)}

    def edit(step):
        images = [(name, b"s" * 100) for name in step["images"]]
        answer = openai(step).images.edit(**step["params"], image=images[0] if len(images) == 1 else images)
        if step["params"].get("stream"):
            return {"events": [event.type for event in answer]}
        return {"data": lengths(answer.data), "usage": usage(answer)}

    def speak(step):
        answer = openai(step).audio.speech.create(**step["params"])
        return {"type": answer.response.headers["content-type"], "bytes": len(answer.content)}

    def speak_on(step):
        """Read as it comes, and not kept."""
        with openai(step).audio.speech.with_streaming_response.create(**step["params"]) as answer:
            size, end = 0, b""
            for piece in answer.iter_bytes():
                size += len(piece)
                end = (end + piece)[-200:]
            return {"type": answer.headers["content-type"], "bytes": size, "end": end.decode("latin-1")}

    def hear(step):
        file = ("memo.mp3", b"s" * step["bytes"])
        answer = openai(step).audio.transcriptions.create(**step["params"], file=file)
        if step["params"].get("stream"):
            events = list(answer)
            text = "".join(getattr(event, "delta", "") for event in events)
            if text != events[-1].text:
                raise ValueError(f"heard {text} of {events[-1].text}")
            return {"text": text, "last": events[-1].model_dump(mode="json")}
        return answer if isinstance(answer, str) else answer.text

    return {"embed": embed, "draw": draw, "edit": edit, "speak": speak, "speak_on": speak_on, "hear": hear}
