"""Embeddings, images, speech, transcription and video."""

import base64
import hashlib
import math
import re
import struct

from answer import Reply, pieces, sse
from state import PNG64, T0, VIDEOS, WAV, dumps


def embeddings(body, b, prompt, tool_out, total, n):
    inp = body.get("input", "")
    if isinstance(inp, str):
        inp = [inp]
    elif isinstance(inp, list) and inp and isinstance(inp[0], int):
        inp = [inp]
    dim = int(body.get("dimensions") or 8)
    data, tok = [], 0
    for k, x in enumerate(inp):
        tok += len(x) if isinstance(x, list) else max(1, math.ceil(len(str(x)) / 4))
        h = hashlib.sha256(str(x).encode()).digest()
        vec = [((h[j % 32] / 255.0) - 0.5) for j in range(dim)]
        data.append(
            {
                "object": "embedding",
                "index": k,
                "embedding": base64.b64encode(struct.pack(f"<{dim}f", *vec)).decode()
                if body.get("encoding_format") == "base64"
                else vec,
            }
        )
    tok = int(b.get("in", tok))
    r = {"object": "list", "data": data, "model": body.get("model", "fake"), "usage": {"prompt_tokens": tok, "total_tokens": tok}}
    if b.get("usage") == "omit":
        del r["usage"]
    return Reply(200, dumps(r))


def images(body, b, prompt, n, op, host):
    model, k = body.get("model") or "gpt-image-1", max(1, int(body.get("n") or 1))
    gpt = str(model).startswith("gpt-image") or str(model).startswith("chatgpt-image")
    i, o = int(b.get("in", max(1, math.ceil(len(prompt) / 4)))), int(b.get("out", 272 * k))
    usage = {
        "input_tokens": i,
        "output_tokens": o,
        "total_tokens": i + o,
        "input_tokens_details": {"text_tokens": i, "image_tokens": 0, "cached_tokens": 0},
        "output_tokens_details": {"text_tokens": 0, "image_tokens": o},
    }
    if body.get("stream") in (True, "true") and gpt:
        about = "image_edit" if op == "/images/edits" else "image_generation"
        ev = [
            sse(
                {
                    "type": f"{about}.partial_image",
                    "b64_json": PNG64,
                    "partial_image_index": j,
                    "created_at": T0,
                    "size": "1024x1024",
                    "quality": "low",
                    "background": "opaque",
                    "output_format": "png",
                },
                f"{about}.partial_image",
            )
            for j in range(int(body.get("partial_images") or 0))
        ]
        fin = {
            "type": f"{about}.completed",
            "b64_json": PNG64,
            "created_at": T0,
            "size": "1024x1024",
            "quality": "low",
            "background": "opaque",
            "output_format": "png",
            "usage": usage,
        }
        if b.get("usage") == "omit":
            del fin["usage"]
        return Reply(200, events=ev + [sse(fin, f"{about}.completed")], ctype="text/event-stream")
    url = not gpt and body.get("response_format", "url") == "url"
    r = {
        "created": T0,
        "data": [{"url": f"http://{host}/__files/img{n}-{j}.png"} if url else {"b64_json": PNG64} for j in range(k)],
    }
    if "pad" in b:
        r["data"][0]["pad"] = "x" * int(b["pad"])
    if gpt:
        r.update(background="opaque", output_format="png", quality="low", size="1024x1024")
        if b.get("usage") != "omit":
            r["usage"] = usage
    return Reply(200, dumps(r))


def speech(body, b, n):
    if body.get("stream_format") == "sse":
        i = int(b.get("in", max(1, math.ceil(len(body.get("input", "")) / 4))))
        ev = [
            sse({"type": "speech.audio.delta", "audio": base64.b64encode(WAV[s : s + 400]).decode()})
            for s in range(0, len(WAV), 400)
        ]
        ev.append(
            sse(
                {
                    "type": "speech.audio.done",
                    "usage": {
                        "input_tokens": i,
                        "output_tokens": int(b.get("out", 50)),
                        "total_tokens": i + int(b.get("out", 50)),
                    },
                }
            )
        )
        return Reply(200, events=ev, ctype="text/event-stream")
    ct = {
        "mp3": "audio/mpeg",
        "opus": "audio/opus",
        "aac": "audio/aac",
        "flac": "audio/flac",
        "wav": "audio/wav",
        "pcm": "audio/pcm",
    }.get(body.get("response_format", "mp3"), "audio/mpeg")
    return Reply(200, events=[WAV[s : s + 400] for s in range(0, len(WAV), 400)], ctype=ct)


def transcription(form, b, n):
    model, fmt = form.get("model", "whisper-1"), form.get("response_format", "json")
    text = b.get("text", "hello from the fake transcriber")
    i, o = int(b.get("in", 14)), int(b.get("out", 7))
    u = (
        {
            "type": "tokens",
            "input_tokens": i,
            "input_token_details": {"text_tokens": 0, "audio_tokens": i},
            "output_tokens": o,
            "total_tokens": i + o,
        }
        if model != "whisper-1"
        else {"type": "duration", "seconds": int(b.get("in", 3))}
    )
    if b.get("usage") == "omit":
        u = None
    if form.get("stream") == "true":
        ev = [sse({"type": "transcript.text.delta", "delta": p}, None) for p in pieces(text)]
        d = {"type": "transcript.text.done", "text": text}
        if u:
            d["usage"] = u
        return Reply(200, events=ev + [sse(d, None)], ctype="text/event-stream")
    if fmt == "text":
        return Reply(200, text.encode() + b"\n", ctype="text/plain; charset=utf-8")
    if fmt in ("srt", "vtt"):
        return Reply(
            200,
            (("WEBVTT\n\n" if fmt == "vtt" else "1\n") + "00:00:00.000 --> 00:00:03.000\n" + text + "\n").encode(),
            ctype="text/plain",
        )
    r = {"text": text}
    if fmt == "verbose_json":
        r = {"task": "transcribe", "language": "english", "duration": 3.0, "text": text, "segments": []}
    if u:
        r["usage"] = u
    return Reply(200, dumps(r))


def video_new(body, b, n, venice=False):
    vid = f"video_fake{n}"
    VIDEOS[vid] = {
        "polls": int(b.get("video_polls", 2)),
        "fail": bool(b.get("video_fail")),
        "model": body.get("model", "sora-2"),
        "prompt": body.get("prompt", ""),
        "seconds": str(body.get("seconds") or body.get("duration") or "4"),
    }
    if venice:
        return Reply(200, dumps({"model": body.get("model"), "queue_id": vid, "status": "QUEUED"}))
    return Reply(200, dumps(dict(video_obj(vid, poll=False), task_id=vid)))


def video_obj(vid, poll=True):
    v = VIDEOS[vid]
    if poll and v["polls"] > 0:
        v["polls"] -= 1
        st = "in_progress"
    else:
        st = "queued" if not poll and v["polls"] else ("failed" if v["fail"] else "completed")
    return {
        "id": vid,
        "object": "video",
        "model": v["model"],
        "status": st,
        "progress": 100 if st == "completed" else 0,
        "created_at": T0,
        "completed_at": T0 + 60 if st == "completed" else None,
        "expires_at": T0 + 3600,
        "prompt": v["prompt"],
        "seconds": v["seconds"],
        "size": "720x1280",
        "error": {"code": "generation_failed", "message": "fake failure"} if st == "failed" else None,
        "url": f"/__files/{vid}.mp4" if st == "completed" else None,
    }


def parse_multipart(ct, raw):
    m = re.search(r'boundary="?([^";]+)', ct)
    out = {}
    if not m:
        return out
    for part in raw.split(b"--" + m.group(1).encode()):
        h, sep, v = part.partition(b"\r\n\r\n")
        nm = re.search(rb'name="([^"]*)"', h)
        if sep and nm:
            v = v[:-2] if v.endswith(b"\r\n") else v
            key = nm.group(1).decode("utf-8", "replace")
            out[key] = f"<file {len(v)} bytes>" if b"filename=" in h else v.decode("utf-8", "replace")
    return out
