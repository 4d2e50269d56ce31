"""OpenAI's chat completions, completions and responses."""

from answer import Reply, counts, make_text, pieces, sse, tool_calls
from control import images_in, text_of
from state import REPORTED, T0, _str, dumps


def chat_usage(b, i, o):
    if b.get("usage") == "zero":
        i = o = 0
    cached, written = int(b.get("cached", 0)), int(b.get("cw", 0))
    REPORTED[0] = {"input": i - cached - written, "cached": cached, "cache_write_5m": written, "output": o}
    return {
        "prompt_tokens": i,
        "completion_tokens": o,
        "total_tokens": i + o,
        "prompt_tokens_details": {
            "cached_tokens": int(b.get("cached", 0)),
            "cache_write_tokens": int(b.get("cw", 0)),
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": int(b.get("reasoning", 0)),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def chat(body, b, prompt, tool_out, total, n):
    model, rid = body.get("model", "fake"), f"chatcmpl-fake{n}"
    calls = tool_calls(b, body, prompt, tool_out, "chat")
    default = (
        '{"ok":true}'
        if isinstance(body.get("response_format"), dict) and body["response_format"].get("type", "text") != "text"
        else f"pong from {model}"
    )
    text = "" if calls else make_text(b, body, prompt, tool_out, default)
    ps = pieces(text)
    i, o = counts(b, total, sum(max(1, len(a) // 4) for _, a in calls) if calls else len(ps), images_in(body.get("messages")))
    um, choices = b.get("usage", "auto"), max(1, int(body.get("n") or 1))
    fin = b.get("finish") or ("tool_calls" if calls else "stop")
    if "finish" not in b and not calls:
        mt = body.get("max_completion_tokens") or body.get("max_tokens")
        if isinstance(mt, int) and "words" in b and mt < len(ps):
            ps, fin = ps[:mt], "length"
            text, o = "".join(ps), int(b.get("out", mt))
    usage = chat_usage(b, i, o * choices)
    if not body.get("stream"):
        msg = {"role": "assistant", "content": text or None if calls else text, "refusal": None, "annotations": []}
        if b.get("think"):
            msg["reasoning_content"] = "thinking about it"
        if calls:
            msg["tool_calls"] = [
                {"id": f"call_fake{n}_{k}", "type": "function", "function": {"name": nm, "arguments": a}}
                for k, (nm, a) in enumerate(calls)
            ]
        r = {
            "id": rid,
            "object": "chat.completion",
            "created": T0,
            "model": model,
            "choices": [{"index": c, "message": msg, "logprobs": None, "finish_reason": fin} for c in range(choices)],
            "usage": usage,
            "service_tier": "default",
            "system_fingerprint": "fp_fake",
        }
        if um == "omit":
            del r["usage"]
        elif um == "null":
            r["usage"] = None
        return Reply(200, dumps(r))
    inc = (
        bool((body.get("stream_options") or {}).get("include_usage"))
        if um == "auto"
        else um in ("always", "every", "zero", "null")
    )
    if um == "omit":
        inc = False
    # fast path: chunk prefix/suffix are rendered once per request
    head = (
        b'data: {"id":"%s","object":"chat.completion.chunk","created":%d,"model":%s,"service_tier":"default","system_fingerprint":"fp_fake","choices":['
        % (rid.encode(), T0, dumps(model))
    )
    tail = b',"usage":null,"obfuscation":"aZ"}\n\n' if inc else b"}\n\n"
    ev, seen = [], 0

    def chunk(delta, finish=None, idx=0, usage_obj=None):
        t = tail if usage_obj is None else b',"usage":' + dumps(usage_obj) + b"}\n\n"
        return head + b'{"index":%d,"delta":%s,"logprobs":null,"finish_reason":%s}]' % (idx, dumps(delta), dumps(finish)) + t

    for c in range(choices):
        ev.append(chunk({"role": "assistant", "content": None if calls else "", "refusal": None}, idx=c))
        if b.get("think"):
            ev.append(chunk({"reasoning_content": "thinking about it"}, idx=c))
        for k, (nm, a) in enumerate(calls):
            ev.append(
                chunk(
                    {
                        "tool_calls": [
                            {"index": k, "id": f"call_fake{n}_{k}", "type": "function", "function": {"name": nm, "arguments": ""}}
                        ]
                    },
                    idx=c,
                )
            )
            for s in range(0, len(a), 12):
                ev.append(chunk({"tool_calls": [{"index": k, "function": {"arguments": a[s : s + 12]}}]}, idx=c))
        if um == "every":
            for p in ps:
                seen += 1
                ev.append(chunk({"content": p}, idx=c, usage_obj=chat_usage(b, i, seen)))
        else:
            pre, post = head + b'{"index":%d,"delta":{"content":' % c, b'},"logprobs":null,"finish_reason":null}]' + tail
            ev += [pre + _str(p).encode() + post for p in ps]
        ev.append(chunk({}, fin, c, usage if inc and b.get("usage_pos") == "finish" and c == choices - 1 else None))
    if inc and b.get("usage_pos", "own") == "own":
        ev.append(head + b'],"usage":%s}\n\n' % dumps(None if um == "null" else usage))
    if not b.get("nodone"):
        ev.append(b"data: [DONE]\n\n")
    return Reply(200, events=ev, ctype="text/event-stream; charset=utf-8")


def completions(body, b, prompt, tool_out, total, n):
    model = body.get("model", "fake")
    prompt = text_of(body.get("prompt"))
    text = make_text(b, body, prompt, None, f"pong from {model}")
    ps = pieces(text)
    i, o = counts(b, len(prompt), len(ps), 0)
    u = {"prompt_tokens": i, "completion_tokens": o, "total_tokens": i + o}
    base = {"id": f"cmpl-fake{n}", "object": "text_completion", "created": T0, "model": model}
    if not body.get("stream"):
        r = dict(base, choices=[{"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}])
        if b.get("usage") != "omit":
            r["usage"] = u
        return Reply(200, dumps(r))
    ev = [sse(dict(base, choices=[{"index": 0, "text": p, "logprobs": None, "finish_reason": None}])) for p in ps]
    ev.append(sse(dict(base, choices=[{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}])))
    if (body.get("stream_options") or {}).get("include_usage") and b.get("usage") != "omit":
        ev.append(sse(dict(base, choices=[], usage=u)))
    return Reply(200, events=ev + [b"data: [DONE]\n\n"], ctype="text/event-stream")


def responses(body, b, prompt, tool_out, total, n):
    model, rid = body.get("model", "fake"), f"resp_fake{n:08d}"
    calls = tool_calls(b, body, prompt, tool_out, "responses")
    text = "" if calls else make_text(b, body, prompt, tool_out, f"pong from {model}")
    ps = pieces(text)
    i, o = counts(b, total, sum(max(1, len(a) // 4) for _, a in calls) if calls else len(ps), images_in(body.get("input")))
    um = b.get("usage", "auto")
    if um == "zero":
        i = o = 0
    cached, written = int(b.get("cached", 0)), int(b.get("cw", 0))
    usage = None
    if um not in ("omit", "null"):
        REPORTED[0] = {"input": i - cached - written, "cached": cached, "cache_write_5m": written, "output": o}
        usage = {
            "input_tokens": i,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
            "output_tokens": o,
            "output_tokens_details": {"reasoning_tokens": int(b.get("reasoning", 0))},
            "total_tokens": i + o,
        }
    custom = {t.get("name") for t in body.get("tools") or [] if isinstance(t, dict) and t.get("type") == "custom"}
    items = []
    if b.get("think"):
        items.append(
            {
                "id": f"rs_fake{n}",
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "thinking about it"}],
                "encrypted_content": "ZmFrZQ==",
            }
        )
    for k, (nm, a) in enumerate(calls):
        if nm in custom:
            items.append(
                {
                    "id": f"ctc_fake{n}_{k}",
                    "type": "custom_tool_call",
                    "status": "completed",
                    "call_id": f"call_fake{n}_{k}",
                    "name": nm,
                    "input": a,
                }
            )
        else:
            items.append(
                {
                    "id": f"fc_fake{n}_{k}",
                    "type": "function_call",
                    "status": "completed",
                    "arguments": a,
                    "call_id": f"call_fake{n}_{k}",
                    "name": nm,
                }
            )
    if not calls:
        items.append(
            {
                "id": f"msg_fake{n}",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": text}],
            }
        )
    status = "incomplete" if b.get("finish") == "length" else "completed"

    def obj(st, out, u):
        return {
            "id": rid,
            "object": "response",
            "created_at": T0,
            "status": st,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if st == "incomplete" else None,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "model": model,
            "output": out,
            "parallel_tool_calls": True,
            "previous_response_id": body.get("previous_response_id"),
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": body.get("store", True),
            "temperature": 1.0,
            "text": {"format": {"type": "text"}, "verbosity": "medium"},
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": u,
            "user": None,
            "metadata": body.get("metadata") or {},
        }

    if not body.get("stream"):
        r = obj(status, items, usage)
        if um == "omit":
            del r["usage"]
        return Reply(200, dumps(r))
    ev, q = [], [0]

    def e(ty, **kw):
        ev.append(sse(dict({"type": ty, "sequence_number": q[0]}, **kw), ty))
        q[0] += 1

    e("response.created", response=obj("in_progress", [], None))
    e("response.in_progress", response=obj("in_progress", [], None))
    for k, it in enumerate(items):
        if it["type"] == "message":
            e("response.output_item.added", output_index=k, item=dict(it, status="in_progress", content=[]))
            e(
                "response.content_part.added",
                item_id=it["id"],
                output_index=k,
                content_index=0,
                part={"type": "output_text", "annotations": [], "logprobs": [], "text": ""},
            )
            post = b',"item_id":%s,"output_index":%d,"content_index":0,"logprobs":[],"obfuscation":"aZ"}\n\n' % (
                dumps(it["id"]),
                k,
            )
            for p in ps:
                ev.append(
                    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":%d,"delta":%s%s'
                    % (q[0], _str(p).encode(), post)
                )
                q[0] += 1
            e("response.output_text.done", item_id=it["id"], output_index=k, content_index=0, text=text, logprobs=[])
            e("response.content_part.done", item_id=it["id"], output_index=k, content_index=0, part=it["content"][0])
        elif it["type"] == "function_call":
            e("response.output_item.added", output_index=k, item=dict(it, status="in_progress", arguments=""))
            for s in range(0, len(it["arguments"]), 12):
                e("response.function_call_arguments.delta", item_id=it["id"], output_index=k, delta=it["arguments"][s : s + 12])
            e("response.function_call_arguments.done", item_id=it["id"], output_index=k, arguments=it["arguments"])
        elif it["type"] == "custom_tool_call":
            e("response.output_item.added", output_index=k, item=dict(it, status="in_progress", input=""))
            e("response.custom_tool_call_input.delta", item_id=it["id"], output_index=k, delta=it["input"])
            e("response.custom_tool_call_input.done", item_id=it["id"], output_index=k, input=it["input"])
        else:
            e("response.output_item.added", output_index=k, item=dict(it, summary=[]))
        e("response.output_item.done", output_index=k, item=it)
    if not b.get("nodone"):
        r = obj(status, items, usage)
        if um == "omit":
            del r["usage"]
        e("response." + status, response=r)
    return Reply(200, events=ev, ctype="text/event-stream; charset=utf-8")
