"""How a test steers one answer: directives in the prompt, headers, queries, scripts and configuration."""

import json
import re
from urllib.parse import parse_qs, unquote, unquote_plus

from state import BASE, CALL, CFG, DIRECTIVE, ECHO, NUM, SCRIPT


def parse_kv(s):
    d = {}
    for part in re.split(r"[\s;&]+", s.strip()):
        if "=" in part:
            k, v = part.split("=", 1)
            d[k] = v
    return norm(d)


def norm(d):
    o = {}
    for k, v in d.items():
        if k in NUM and not isinstance(v, (int, float)):
            try:
                v = float(v) if "." in str(v) else int(v)
            except ValueError:
                continue
        elif isinstance(v, str) and k in ("text", "args", "emsg"):
            v = unquote_plus(v)
        o[k] = v
    return o


def text_of(c):
    if isinstance(c, str):
        return c
    if isinstance(c, list):
        return "\n".join(text_of(x) for x in c)
    if isinstance(c, dict):
        if c.get("type") in ("tool_result", "function_call_output", "custom_tool_call_output"):
            return text_of(c.get("content", c.get("output", "")))
        return text_of(c.get("text") or c.get("content") or c.get("input") or "")
    return ""


def images_in(o):
    if isinstance(o, dict):
        if o.get("type") in ("image", "image_url", "input_image"):
            return 1
        return sum(images_in(v) for v in o.values())
    return sum(images_in(v) for v in o) if isinstance(o, list) else 0


def last_turn(body, kind):
    """-> (last user text, trailing tool output text or None, all text length)"""
    msgs = body.get("messages") if kind != "responses" else body.get("input")
    if isinstance(msgs, str):
        return msgs, None, len(msgs)
    if not isinstance(msgs, list):
        msgs = []
    total = len(text_of(body.get("system"))) + len(body.get("instructions") or "")
    if body.get("tools"):
        total += len(json.dumps(body["tools"]))
    user, tool, prev = [], None, None  # user = texts of the last run of consecutive user messages
    for m in msgs:
        if not isinstance(m, dict):
            continue
        total += len(text_of(m))
        role, ty = m.get("role"), m.get("type")
        if role == "tool" or ty in ("function_call_output", "custom_tool_call_output", "local_shell_call_output"):
            tool, prev = text_of(m.get("content", m.get("output"))), "tool"
        elif role == "user":
            c = m.get("content")
            tr = [b for b in c if isinstance(b, dict) and b.get("type") == "tool_result"] if isinstance(c, list) else []
            if tr:
                tool, prev = text_of(tr), "tool"
                continue
            if prev != "user" and prev != "tool":
                user, tool = [], None
            elif prev == "tool":  # text after a tool result: a reminder, or a new question
                t = text_of(c)
                if not (ECHO.search(t) or CALL.search(t) or DIRECTIVE.search(t)):
                    continue
                user, tool = [], None
            user.append(text_of(c))
            prev = "user"
        elif role == "assistant" or ty in ("function_call", "custom_tool_call", "reasoning"):
            prev = "assistant"
    user = "\n".join(user)
    return user, tool, total


def applies(d, path, method):
    return d.get("path", "") in path and d.get("method", method) == method


def behaviour(path, query, headers, prompt, method="POST"):
    b = dict(BASE)
    if CFG and applies(CFG, path, method):
        b.update(CFG)
        if "times" in CFG:
            CFG["times"] -= 1
            if CFG["times"] <= 0:
                CFG.clear()
    if SCRIPT:
        s = SCRIPT[0]
        if applies(s, path, method):
            b.update(s)
            if s.get("times", 1) > 1:
                s["times"] -= 1
            else:
                SCRIPT.popleft()
    if query and "fake=" in query:
        b.update(parse_kv(unquote(parse_qs(query).get("fake", [""])[0])))
    if "x-fake" in headers:
        b.update(parse_kv(headers["x-fake"]))
    if prompt and "<<fake" in prompt:
        for m in DIRECTIVE.finditer(prompt):
            b.update(parse_kv(m.group(1)))
    return b
