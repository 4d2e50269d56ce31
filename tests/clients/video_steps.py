"""Videos with PyPI openai; the same steps and outcomes as videos.mjs."""


def actions(openai):
    """One function per word that a step's `do` may say; `openai` makes the client for a step."""

    def film(step):
        videos = openai(step).videos
        video = ordered = videos.create(**step["params"])
        seen = [video.status]
        while video.status in ("queued", "in_progress"):
            video = videos.retrieve(video.id)
            seen.append(video.status)
        outcome = {"ordered": ordered.model_dump(mode="json"), "seen": seen}
        if video.status != "completed":
            return outcome | {"error": video.error.model_dump(mode="json")}
        content = videos.download_content(video.id)
        kind = content.response.headers["content-type"]
        deleted = videos.delete(video.id).model_dump(mode="json") if step.get("delete") else None
        return outcome | {"type": kind, "bytes": len(content.read()), "deleted": deleted}

    return {"film": film}
