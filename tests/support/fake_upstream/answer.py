"""What an answer is made of: errors of each provider, event framing, texts, tool calls and token counts."""

import math
import re

from state import CALL, ECHO, STATS, dumps


class Reply:
    """Plan of an answer: JSON/binary `body`, or `events` (list of bytes, each one SSE event)."""

    __slots__ = ("status", "headers", "body", "events", "ctype")

    def __init__(self, status=200, body=None, events=None, ctype="application/json", headers=()):
        self.status, self.body, self.events, self.ctype, self.headers = status, body, events, ctype, list(headers)


ANT_TYPE = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
OAI_TYPE = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    402: "insufficient_quota",
    403: "invalid_request_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "server_error",
    503: "server_error",
}


def err_obj(kind, status, b, rid):
    msg = b.get("emsg", f"fake upstream error {status}")
    shape = b.get("shape", "auto")
    if shape == "anthropic" or (shape == "auto" and kind == "messages"):
        return {
            "type": "error",
            "error": {"type": b.get("etype", ANT_TYPE.get(status, "api_error")), "message": msg},
            "request_id": rid,
        }
    if shape == "hybrid":  # parses as both
        return {
            "type": "error",
            "error": {
                "type": ANT_TYPE.get(status, "api_error") if kind == "messages" else OAI_TYPE.get(status, "server_error"),
                "code": b.get("etype"),
                "message": msg,
                "param": None,
            },
            "request_id": rid,
        }
    if shape == "google":
        return [{"error": {"code": status, "message": msg, "status": b.get("etype", "RESOURCE_EXHAUSTED")}}]
    return {
        "error": {
            "message": msg,
            "type": b.get("etype", OAI_TYPE.get(status, "server_error" if status >= 500 else "invalid_request_error")),
            "param": None,
            "code": b.get("etype", {401: "invalid_api_key", 402: "insufficient_quota", 429: "rate_limit_exceeded"}.get(status)),
        }
    }


def error(kind, status, b, rid):
    STATS["errors_injected"] += 1
    h = []
    if "retry_after" in b:
        h.append(("retry-after", str(b["retry_after"])))
    if "retry_after_ms" in b:
        h.append(("retry-after-ms", str(b["retry_after_ms"])))
    if "x_should_retry" in b:
        h.append(("x-should-retry", str(b["x_should_retry"])))
    sh = b.get("shape", "auto")
    if sh == "html":
        return Reply(
            status,
            b"<html><head><title>%d</title></head><body><center><h1>%d fake gateway error</h1></center><hr>nginx</body></html>"
            % (status, status),
            ctype="text/html",
            headers=h,
        )
    if sh == "empty":
        return Reply(status, b"", headers=h)
    if sh == "text":
        return Reply(status, b.get("emsg", f"fake error {status}").encode(), ctype="text/plain", headers=h)
    return Reply(status, dumps(err_obj(kind, status, b, rid)), headers=h)


def sse(obj, event=None):
    return (
        (b"event: " + event.encode() + b"\n" if event else b"")
        + b"data: "
        + (obj if isinstance(obj, bytes) else dumps(obj))
        + b"\n\n"
    )


def pieces(text):
    return re.findall(r"\s*\S+\s*$|\s*\S+", text) or ([text] if text else [])


def make_text(b, body, prompt, tool_out, default):
    if "text" in b:
        t = b["text"]
    elif "words" in b:
        t = " ".join(f"w{i}" for i in range(int(b["words"])))
    else:
        m = ECHO.search(prompt or "")
        if tool_out is not None:
            t = "TOOLRESULT:" + tool_out[:2000]
            if m:
                t = m.group(1) + " " + t
        else:
            t = m.group(1) if m else default
    if "pad" in b:
        t += " " + "x" * int(b["pad"])
    return t


def tool_calls(b, body, prompt, tool_out, kind):
    """-> list of (name, args-json-string); empty when the answer is text"""
    if tool_out is not None:
        return []
    names, raw = [], body.get("tools") or []
    for t in raw:
        if isinstance(t, dict):
            f = t.get("function") if isinstance(t.get("function"), dict) else t
            if f.get("name"):
                names.append(f["name"])
    if "tool" in b:
        return [(b["tool"], b.get("args", "{}"))] * int(b.get("ntools", 1))
    m = CALL.search(prompt or "")
    if m:
        return [(m.group(1), m.group(2) or "{}")] * int(b.get("ntools", 1))
    tc = body.get("tool_choice")
    if isinstance(tc, dict) and tc.get("type") in ("tool", "function") and kind in ("chat", "messages", "responses"):
        n = tc.get("name") or (tc.get("function") or {}).get("name")
        if n:
            return [(n, b.get("args", "{}"))]
    if (tc == "required" or (isinstance(tc, dict) and tc.get("type") == "any")) and names:
        return [(names[0], b.get("args", "{}"))]
    return []


def counts(b, total, ndelta, imgs):
    return int(b.get("in", max(1, math.ceil(total / 4)) + 85 * imgs)), int(b.get("out", max(1, ndelta)))
