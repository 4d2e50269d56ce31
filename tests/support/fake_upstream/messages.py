"""Anthropic's messages, with thinking, tools and cache accounting."""

import hashlib
import json

from answer import Reply, counts, make_text, pieces, sse, tool_calls
from control import images_in
from state import CACHE, REPORTED, _str, dumps


def cache_blocks(o, acc):
    if isinstance(o, dict):
        if isinstance(o.get("cache_control"), dict):
            acc.append((o["cache_control"].get("ttl", "5m"), {k: v for k, v in o.items() if k != "cache_control"}))
        for v in o.values():
            cache_blocks(v, acc)
    elif isinstance(o, list):
        for v in o:
            cache_blocks(v, acc)
    return acc


def messages(body, b, prompt, tool_out, total, n, raw=b""):
    model, rid = body.get("model", "fake"), f"msg_fake{n:08d}"
    calls = tool_calls(b, body, prompt, tool_out, "messages")
    default = f"pong from {model}"
    oc = body.get("output_config") or {}
    if isinstance(oc, dict) and oc.get("format") or body.get("output_format"):
        default = '{"title":"fake","ok":true}'
    text = "" if calls else make_text(b, body, prompt, tool_out, default)
    ps = pieces(text)
    i, o = counts(b, total, sum(max(1, len(a) // 4) for _, a in calls) if calls else len(ps), images_in(body.get("messages")))
    stop = {"length": "max_tokens", "refusal": "refusal", "stop": "end_turn", None: None}.get(
        b.get("finish"), b.get("finish")
    ) or ("tool_use" if calls else "end_turn")
    cr, c5, c1 = int(b.get("cached", 0)), int(b.get("cw", 0)), int(b.get("cw1h", 0))
    if b"cache_control" in raw and not {"cached", "cw", "cw1h"} & b.keys():
        for ttl, blk in cache_blocks({k: body.get(k) for k in ("tools", "system", "messages")}, []):
            sz = max(1, len(json.dumps(blk)) // 4)
            key = hashlib.sha1((model + json.dumps(blk, sort_keys=True)).encode()).digest()
            if key in CACHE:
                cr += sz
            else:
                CACHE.add(key)
                if ttl == "1h":
                    c1 += sz
                else:
                    c5 += sz
    um = b.get("usage", "auto")
    if um == "zero":
        i = o = cr = c5 = c1 = 0
    usage = {
        "input_tokens": i,
        "cache_creation_input_tokens": c5 + c1,
        "cache_read_input_tokens": cr,
        "cache_creation": {"ephemeral_5m_input_tokens": c5, "ephemeral_1h_input_tokens": c1},
        "output_tokens": o,
        "service_tier": "standard",
    }
    REPORTED[0] = {"input": i, "cached": cr, "cache_write_5m": c5, "cache_write_1h": c1, "output": o}
    tid = lambda k: f"toolu_fake{n}_{k}"
    if not body.get("stream"):
        content = [{"type": "thinking", "thinking": "thinking about it", "signature": "ZmFrZXNpZw=="}] if b.get("think") else []
        if calls:
            content += [
                {"type": "tool_use", "id": tid(k), "name": nm, "input": json.loads(a or "{}")} for k, (nm, a) in enumerate(calls)
            ]
        else:
            content.append({"type": "text", "text": text})
        r = {
            "model": model,
            "id": rid,
            "type": "message",
            "role": "assistant",
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": usage,
        }
        if um == "omit":
            del r["usage"]
        return Reply(200, dumps(r))
    start_usage = dict(usage, output_tokens=1 if um != "zero" else 0)
    msg = {
        "model": model,
        "id": rid,
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": start_usage,
    }
    if um == "omit":
        msg.pop("usage")
    ev = [sse({"type": "message_start", "message": msg}, "message_start")]
    blk = 0

    def block(start, deltas):
        nonlocal blk
        ev.append(
            b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%s}\n\n'
            % (blk, dumps(start))
        )
        if blk == 0 and b.get("ping", 1):
            ev.append(b'event: ping\ndata: {"type": "ping"}\n\n')
        for d in deltas:
            ev.append(
                b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":%s}\n\n' % (blk, dumps(d))
            )
        ev.append(b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n' % blk)
        blk += 1

    if b.get("think"):
        block(
            {"type": "thinking", "thinking": "", "signature": ""},
            [
                {"type": "thinking_delta", "thinking": "thinking "},
                {"type": "thinking_delta", "thinking": "about it"},
                {"type": "signature_delta", "signature": "ZmFrZXNpZw=="},
            ],
        )
    if calls:
        for k, (nm, a) in enumerate(calls):
            block(
                {"type": "tool_use", "id": tid(k), "name": nm, "input": {}},
                [{"type": "input_json_delta", "partial_json": ""}]
                + [{"type": "input_json_delta", "partial_json": a[s : s + 12]} for s in range(0, len(a), 12)],
            )
    else:
        block({"type": "text", "text": ""}, [])
        pre = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":'
            % (blk - 1)
        )
        ev[-1:-1] = [pre + _str(p).encode() + b"}}\n\n" for p in ps]
    md = {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}}
    if um != "omit":
        md["usage"] = (
            {"input_tokens": i, "cache_creation_input_tokens": c5 + c1, "cache_read_input_tokens": cr, "output_tokens": o}
            if b.get("usage_pos") != "start"
            else {"output_tokens": o}
        )
    ev.append(sse(md, "message_delta"))
    if not b.get("nodone"):
        ev.append(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    return Reply(200, events=ev, ctype="text/event-stream; charset=utf-8")
