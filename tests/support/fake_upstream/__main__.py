#!/usr/bin/env python3
"""A deterministic inference provider for tests, shaped like OpenAI, Anthropic and Venice.

Python >= 3.9, standard library only (uses uvloop when importable: about twice the throughput).

    python3 tests/support/fake_upstream --port 9901 [--host 127.0.0.1] [--workers N] [--no-log]
                             [--tls-cert c.pem --tls-key k.pem] [--require-key KEY] [--set k=v ...]

Every path also answers under any prefix (/v1/x, /api/v1/x, /openai/v1/x, /x).

ROUTES
  HEAD|GET /                        200
  GET  /v1/models[/{id}]            OpenAI listing; Anthropic listing when `anthropic-version` is sent
  POST /v1/chat/completions         JSON + SSE, tools, stream_options.include_usage, n, response_format
  POST /v1/completions              legacy
  POST /v1/responses                JSON + SSE, function/custom tools, reasoning ; /v1/responses/compact, GET/DELETE /v1/responses/{id}
  POST /v1/messages                 JSON + SSE, tools, thinking, cache_control accounting, ping
  POST /v1/messages/count_tokens
  POST /v1/embeddings               float + base64
  POST /v1/images/generations|edits|variations   (gpt-image-*: b64_json + usage, optional SSE; others: no usage, url|b64_json)
  POST /v1/audio/speech             audio bytes (WAV), or SSE when stream_format=sse
  POST /v1/audio/transcriptions|translations     json|verbose_json|text|srt|vtt, SSE when stream=true
  POST /v1/videos  POST /v1/videos/generations  GET /v1/videos/{id}[/content]  DELETE /v1/videos/{id}
  POST /v1/moderations
  Venice: POST /image/generate|upscale|edit|multi-edit|background-remove, /audio/queue|retrieve|complete,
          /video/queue|quote|retrieve|complete|transcriptions

CONTROL  (later wins): built-in < --set < POST /__config < POST /__script (queue) < ?fake= < x-fake: header < prompt directive
  prompt directive : any text in the LAST user message (or image/audio/video prompt / embedding input) containing
                     <<fake k=v k=v ...>>      e.g.  "hi <<fake status=429 retry_after=2>>"
  ECHO:word        : in the last user message -> the reply text is exactly `word`
  CALL:name {json} : in the last user message -> the reply is a tool call (once; after a tool result it answers
                     "TOOLRESULT:<tool output>")
  keys (all optional)
    text=...        reply text (use + for a space, %xx escapes)         words=N   reply is N words "w0 w1 ..."
    in=N out=N      prompt/output tokens reported (default in=ceil(prompt_chars/4), out=number of deltas)
    cached=N        OpenAI cached_tokens / Anthropic cache_read_input_tokens
    cw=N cw1h=N     Anthropic cache_creation_input_tokens split 5m / 1h (cw also = OpenAI cache_write_tokens)       reasoning=N   reasoning tokens
    usage=auto|omit|always|zero|null|every      auto = what the real API does; omit = never send usage;
                    always = send even without include_usage; every = cumulative usage on every chunk (vLLM continuous)
    usage_pos=own|finish      own = separate choices:[] chunk (OpenAI); finish = on the finish_reason chunk (many clones)
    status=N        error status instead of an answer     shape=auto|openai|anthropic|hybrid|html|empty|text|google
    etype= emsg=    error type/code and message           retry_after=S  (also sends retry-after-ms with retry_after_ms=)
    ttfb=MS         delay before the response head        gap=MS   delay between SSE events    hdr_first=1  send head at once,
                    then wait ttfb before the first event
    flush=1         (no gap) every SSE event in its own HTTP chunk, still one write; default is the whole stream in one chunk
    split=N         re-chunk the body into N-byte TCP writes (splits SSE lines and UTF-8)      split_gap=MS
    cut=N           after N SSE events (or N body bytes for JSON) drop the connection: cut_mode=fin|rst|eof
                    (eof = well-formed end of chunked body but no terminal event)
    hang=N          after N events stop sending, keep the connection open
    errev=N         after N events send an in-stream error event of the proper shape and end
    nodone=1        omit [DONE] / message_stop            crlf=1  CRLF SSE line ends        bom=1  UTF-8 BOM first
    comment=N       ': keep-alive' comment every N events (OpenRouter)      ping=0  no Anthropic ping
    gzip=1          gzip the response if the client accepts it (non-stream and stream)     cl=1 Content-Length instead of chunked
    close=1         Connection: close, no keep-alive      pad=BYTES  add filler bytes to the reply text
    tool=name       reply is a tool call   args={json, %xx escaped}   ntools=N  parallel tool calls   think=1  thinking block
    finish=stop|length|content_filter|refusal             video_polls=N  polls until completed (default 2)   video_fail=1
    strict=0        do not check Anthropic rules (anthropic-version + max_tokens required; >=2026-10-21 rejects temperature/top_p/top_k)
    hurry=1         (only in __config) no ttfb and no gaps from now on, also in calls that run
    times=N         (only in __script / __config) apply to N requests then drop      path=substr method=GET  (same) only matching requests

INTROSPECTION
  GET  /__log?limit=&path=&since=ID&raw=1  recorded requests (newest last): method, path, query, ordered raw headers, body,
                                     conn id, what was sent, `outcome` = done|client_gone|cut|hang|errev|error:NNN, events, ms
  POST /__reset     clear log, script, config, cache, videos     POST /__config {..}   PUT-like merge; {} clears
  POST /__script [{..},{..}]   queue of behaviours, one per request      GET /__stats   counters    GET /__health
"""

import asyncio
import os
import signal
import ssl

try:
    import uvloop
except ImportError:
    uvloop = None

from connection import Conn
from control import parse_kv
from state import BASE, LOGGING, REQUIRE_KEY


async def serve(a):
    loop = asyncio.get_running_loop()
    ctx = None
    if a.tls_cert:
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(a.tls_cert, a.tls_key)
    srv = await loop.create_server(lambda: Conn(loop), a.host, a.port, ssl=ctx, reuse_port=a.workers > 1 or None, backlog=4096)
    port = srv.sockets[0].getsockname()[1]
    print(
        f"fake_upstream listening on {'https' if ctx else 'http'}://{a.host}:{port} pid={os.getpid()} uvloop={uvloop is not None}",
        flush=True,
    )
    stop = loop.create_future()
    for s in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(s, lambda: stop.done() or stop.set_result(None))
    await stop
    srv.close()


def main():
    import argparse

    ap = argparse.ArgumentParser(description="deterministic fake inference upstream (see the module docstring)")
    ap.add_argument("--host", default="127.0.0.1")
    ap.add_argument("--port", type=int, default=9901)
    ap.add_argument("--workers", type=int, default=1)
    ap.add_argument("--no-log", action="store_true")
    ap.add_argument("--tls-cert")
    ap.add_argument("--tls-key")
    ap.add_argument("--require-key", help="answer 401 unless this key arrives as Bearer or x-api-key")
    ap.add_argument("--set", action="append", default=[], help="default behaviour, k=v")
    a = ap.parse_args()
    LOGGING[0] = not a.no_log
    REQUIRE_KEY[0] = a.require_key
    for s in a.set:
        BASE.update(parse_kv(s))
    kids = []
    for _ in range(a.workers - 1):
        pid = os.fork()
        if pid == 0:
            kids = []
            break
        kids.append(pid)
    import gc

    gc.freeze()
    gc.set_threshold(50000, 20, 20)
    try:
        if uvloop is not None:
            if hasattr(uvloop, "run"):
                uvloop.run(serve(a))
            else:
                uvloop.install()
                asyncio.run(serve(a))
        else:
            asyncio.run(serve(a))
    except KeyboardInterrupt:
        pass
    for k in kids:
        try:
            os.kill(k, signal.SIGTERM)
        except OSError:
            pass


if __name__ == "__main__":
    main()
