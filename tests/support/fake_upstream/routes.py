"""Which path is answered by what."""

import gzip as _gz
import json
import math
from urllib.parse import unquote

from answer import Reply, error
from chat import chat, completions, responses
from control import behaviour, last_turn, text_of
from media import embeddings, images, parse_multipart, speech, transcription, video_new, video_obj
from messages import messages
from state import MODELS, MP4, PNG, PNG64, REQUIRE_KEY, T0, VIDEOS, WAV, dumps


def model_list(anthropic, query):
    if anthropic:
        d = [
            {"type": "model", "id": m, "display_name": m, "created_at": "2026-01-01T00:00:00Z"}
            for m in MODELS
            if m.startswith("claude")
        ]
        return {"data": d, "has_more": False, "first_id": d[0]["id"], "last_id": d[-1]["id"]}
    return {"object": "list", "data": [{"id": m, "object": "model", "created": T0, "owned_by": "fake"} for m in MODELS]}


def handle(method, path, query, H, raw, n):
    """-> (Reply, behaviour dict, kind)"""
    p = path
    k = p.find("/v1/")
    if k >= 0:
        p = p[k + 3 :]
    elif p.startswith("/api/"):
        p = p[4:]
    if len(p) > 1:
        p = p.rstrip("/")
    rid = f"req_fake{n:08d}"
    ct = H.get("content-type", "")
    body, form = {}, {}
    if raw:
        if "multipart/form-data" in ct:
            form = parse_multipart(ct, raw)
        else:
            try:
                d = raw
                ce = H.get("content-encoding")
                if ce == "gzip":
                    d = _gz.decompress(raw)
                elif ce == "zstd":
                    try:
                        from compression import zstd as _z  # py3.14+

                        d = _z.decompress(raw)
                    except ImportError:
                        import zstandard as _z

                        d = _z.ZstdDecompressor().decompressobj().decompress(raw)
                body = json.loads(d)
                if not isinstance(body, dict):
                    body = {"_": body}
            except Exception as e:
                return error("chat", 400, {"emsg": f"body is not JSON: {e}"}, rid), {}, "chat"
    kind = "chat"
    if p.startswith("/responses"):
        kind = "responses"
    elif p.startswith("/messages") or ("anthropic-version" in H):
        kind = "messages"
    prompt, tool_out, total = "", None, 0
    if p in ("/chat/completions", "/messages", "/messages/count_tokens") or p.startswith("/responses"):
        prompt, tool_out, total = last_turn(body, kind if kind == "responses" else "chat")
    elif body:
        prompt = text_of(body.get("prompt") or body.get("input") or "")
    elif form:
        prompt = form.get("prompt", "")
    b = behaviour(path, query, H, prompt, method)
    key = REQUIRE_KEY[0]
    if key and p != "/" and H.get("x-api-key") != key and H.get("authorization") != "Bearer " + key:
        return error(kind, 401, dict(b, emsg="fake upstream: invalid api key"), rid), b, kind
    if "status" in b and int(b["status"]) >= 300:
        return error(kind, int(b["status"]), b, rid), b, kind
    host = H.get("host", "127.0.0.1")
    if method in ("GET", "HEAD"):
        if p == "/" or p == "" or path == "/":
            return Reply(200, b'{"status":"ok","service":"fake-upstream"}'), b, kind
        if p == "/models":
            return Reply(200, dumps(model_list("anthropic-version" in H, query))), b, kind
        if p.startswith("/models/"):
            m = unquote(p[8:])
            return (
                Reply(
                    200,
                    dumps(
                        {"type": "model", "id": m, "display_name": m, "created_at": "2026-01-01T00:00:00Z"}
                        if "anthropic-version" in H
                        else {"id": m, "object": "model", "created": T0, "owned_by": "fake"}
                    ),
                ),
                b,
                kind,
            )
        if p.startswith("/videos/"):
            parts = p.split("/")
            if parts[2] not in VIDEOS:
                return error(kind, 404, {"emsg": "no such video"}, rid), b, kind
            if len(parts) > 3 and parts[3] == "content":
                return Reply(200, MP4, ctype="video/mp4"), b, kind
            return Reply(200, dumps(dict(video_obj(parts[2]), task_id=parts[2]))), b, kind
        if path.startswith("/__files/"):
            return (
                Reply(200, MP4 if path.endswith("mp4") else PNG, ctype="video/mp4" if path.endswith("mp4") else "image/png"),
                b,
                kind,
            )
        if p.startswith("/responses/"):
            return (
                Reply(
                    200,
                    dumps({"id": p.split("/")[2], "object": "response", "status": "completed", "output": [], "model": "fake"}),
                ),
                b,
                kind,
            )
        return error(kind, 404, dict(b, emsg=f"fake upstream: no route GET {path}"), rid), b, kind
    if method == "DELETE":
        VIDEOS.pop(p.split("/")[-1], None)
        return Reply(200, dumps({"id": p.split("/")[-1], "deleted": True})), b, kind
    if method != "POST":
        return error(kind, 405, b, rid), b, kind
    if p == "/chat/completions":
        return chat(body, b, prompt, tool_out, total, n), b, kind
    if p.startswith("/messages") and H.get("anthropic-version", "") >= "2026-10-21" and b.get("strict", 1):
        for f in ("temperature", "top_p", "top_k"):  # removed in API version 2026-10-21
            if f in body:
                return error(kind, 400, dict(b, emsg=f"{f}: Extra inputs are not permitted"), rid), b, kind
    if p.startswith("/messages") and "anthropic-version" not in H and b.get("strict", 1):
        return error("messages", 400, dict(b, emsg="anthropic-version: header is required"), rid), b, kind
    if p == "/messages" and "max_tokens" not in body and b.get("strict", 1):
        return error(kind, 400, dict(b, emsg="max_tokens: Field required"), rid), b, kind
    if p == "/messages":
        return messages(body, b, prompt, tool_out, total, n, raw), b, kind
    if p == "/messages/count_tokens":
        return Reply(200, dumps({"input_tokens": int(b.get("in", max(1, math.ceil(total / 4))))})), b, kind
    if p in ("/responses", "/responses/compact"):
        return responses(body, b, prompt, tool_out, total, n), b, kind
    if p == "/responses/input_tokens":
        return (
            Reply(
                200, dumps({"object": "response.input_tokens", "input_tokens": int(b.get("in", max(1, math.ceil(total / 4))))})
            ),
            b,
            kind,
        )
    if p == "/completions":
        return completions(body, b, prompt, tool_out, total, n), b, kind
    if p == "/embeddings":
        return embeddings(body, b, prompt, tool_out, total, n), b, kind
    if p in ("/images/generations", "/images/edits", "/images/variations"):
        return images(body or form, b, prompt, n, p, host), b, kind
    if p.startswith("/image/"):
        if p == "/image/generate" and not body.get("return_binary"):
            return Reply(200, dumps({"id": f"generate-image-fake{n}", "images": [PNG64], "timing": {"total": 1}})), b, kind
        return Reply(200, PNG, ctype="image/png"), b, kind
    if p == "/audio/speech":
        return speech(body, b, n), b, kind
    if p in ("/audio/transcriptions", "/audio/translations"):
        return transcription(form or body, b, n), b, kind
    if p == "/audio/queue" or p == "/video/queue":
        return video_new(body, b, n, True), b, kind
    if p == "/video/quote":
        return Reply(200, dumps({"quote": 0.1})), b, kind
    if p in ("/video/retrieve", "/audio/retrieve"):
        q = body.get("queue_id")
        if q not in VIDEOS:
            return error(kind, 404, {"emsg": "no such queue_id"}, rid), b, kind
        st = video_obj(q)["status"]
        if st == "in_progress":
            return Reply(200, dumps({"status": "PROCESSING", "average_execution_time": 1000, "execution_duration": 1})), b, kind
        if st == "failed":
            said = {"status": "FAILED", "error": "fake video failure", "code": "CONTENT_POLICY"}
            return Reply(200, dumps(said)), b, kind
        return Reply(200, MP4 if p[1] == "v" else WAV, ctype="video/mp4" if p[1] == "v" else "audio/wav"), b, kind
    if p in ("/video/complete", "/audio/complete"):
        return Reply(200, b'{"success":true}'), b, kind
    if p == "/video/transcriptions":
        return Reply(200, dumps({"text": "hello from the fake transcriber"})), b, kind
    if p in ("/videos", "/videos/generations"):
        return video_new(body or form, b, n), b, kind
    if p == "/moderations":
        return (
            Reply(
                200,
                dumps(
                    {
                        "id": f"modr-{n}",
                        "model": "omni-moderation-latest",
                        "results": [{"flagged": False, "categories": {}, "category_scores": {}}],
                    }
                ),
            ),
            b,
            kind,
        )
    if path.startswith("/api/event_logging"):
        return Reply(200, b"{}"), b, kind
    return error(kind, 404, dict(b, emsg=f"fake upstream: no route {method} {path}"), rid), b, kind
