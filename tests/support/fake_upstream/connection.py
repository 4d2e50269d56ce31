"""HTTP/1.1 on a socket: reading requests, playing answers with the wanted delays and faults, the log and its control routes."""

import asyncio
import base64
import contextlib
import json
import os
import socket
import struct
import sys
import time
import zlib
from urllib.parse import parse_qs

try:
    import uvloop
except ImportError:
    uvloop = None


from answer import err_obj, error, sse
from control import norm
from routes import handle
from state import CACHE, CFG, HURRY, LOG, LOGGING, REASON, REPORTED, SCRIPT, SEQ, STATS, VIDEOS, dumps


class Rec:
    __slots__ = (
        "id",
        "t",
        "method",
        "path",
        "query",
        "headers",
        "raw",
        "conn",
        "status",
        "sent",
        "events",
        "outcome",
        "ms",
        "stream",
        "usage",
    )


def rec_json(r, full=True):
    d = {
        "id": r.id,
        "t": round(r.t, 4),
        "method": r.method,
        "path": r.path,
        "query": r.query,
        "headers": [[a.decode("latin1"), v.decode("latin1")] for a, v in r.headers],
        "conn": r.conn,
        "status": r.status,
        "stream": r.stream,
        "events": r.events,
        "bytes": r.sent,
        "outcome": r.outcome,
        "ms": r.ms,
        "usage": r.usage,
    }
    if full:
        try:
            d["body"] = json.loads(r.raw) if r.raw else None
        except Exception:
            if not any(a.lower() == b"content-encoding" for a, _ in r.headers):
                d["body"] = {"_text": r.raw.decode("utf-8", "replace")[:20000]}
            else:
                d["body"] = {"_b64": base64.b64encode(r.raw).decode()[:200000]}
    return d


class Conn(asyncio.Protocol):
    __slots__ = ("tr", "buf", "task", "rec", "cid", "closed", "paused", "loop", "_drain")

    def __init__(self, loop):
        self.loop, self.buf, self.task, self.rec, self.closed, self.paused, self._drain = (
            loop,
            b"",
            None,
            None,
            False,
            False,
            None,
        )

    def connection_made(self, tr):
        self.tr = tr
        STATS["conns"] += 1
        STATS["open_conns"] += 1
        self.cid = STATS["conns"]
        s = tr.get_extra_info("socket")
        if s is not None:
            try:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                pass

    def connection_lost(self, exc):
        self.closed = True
        STATS["open_conns"] -= 1
        if self._drain and not self._drain.done():
            self._drain.set_result(None)
        if self.rec is not None and self.rec.outcome is None:
            self.rec.outcome = "client_gone"
            self.rec.ms = round((time.time() - self.rec.t) * 1000, 2)
            STATS["client_gone"] += 1
        if self.task:
            self.task.cancel()

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False
        if self._drain and not self._drain.done():
            self._drain.set_result(None)

    def data_received(self, data):
        self.buf = self.buf + data if self.buf else data
        if self.task is None:
            self.pump()

    def pump(self):
        while self.task is None and not self.closed:
            buf = self.buf
            e = buf.find(b"\r\n\r\n")
            if e < 0:
                return
            lines = buf[:e].split(b"\r\n")
            try:
                method, target, ver = lines[0].decode("latin1").split(" ", 2)
            except ValueError:
                self.tr.close()
                return
            H, hl = {}, []
            for ln in lines[1:]:
                a, _, v = ln.partition(b":")
                v = v.strip()
                hl.append((a, v))
                H[a.decode("latin1").lower()] = v.decode("latin1")
            pos = e + 4
            if "transfer-encoding" in H and "chunked" in H["transfer-encoding"].lower():
                out, q = [], pos
                while True:
                    le = buf.find(b"\r\n", q)
                    if le < 0:
                        return self.cont(H)
                    try:
                        sz = int(buf[q:le].split(b";")[0], 16)
                    except ValueError:
                        self.tr.close()
                        return
                    if len(buf) < le + 2 + sz + 2:
                        return self.cont(H)
                    if sz == 0:
                        q = buf.find(b"\r\n", le + 2)
                        while q >= 0 and q != le + 2:  # skip trailers
                            le, q = q - 0, buf.find(b"\r\n", q + 2)
                            if q == le + 2:
                                break
                        if q < 0:
                            return self.cont(H)
                        q += 2
                        break
                    out.append(buf[le + 2 : le + 2 + sz])
                    q = le + 2 + sz + 2
                raw, self.buf = b"".join(out), buf[q:]
            else:
                try:
                    cl = int(H.get("content-length", 0))
                except ValueError:
                    self.tr.close()
                    return
                if len(buf) < pos + cl:
                    return self.cont(H)
                raw, self.buf = buf[pos : pos + cl], buf[pos + cl :]
            self.request(method, target, ver, H, hl, raw)

    def cont(self, H):
        if (
            H.get("expect", "").lower() == "100-continue"
            and not getattr(self, "tr").is_closing()
            and H.get("_c") is None
            and len(self.buf)
            and self.buf.endswith(b"\r\n\r\n")
        ):
            self.tr.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def request(self, method, target, ver, H, hl, raw):
        path, _, query = target.partition("?")
        if path.startswith("http://"):
            path = "/" + path.split("/", 3)[3] if path.count("/") > 2 else "/"
        keep = ver != "HTTP/1.0" and H.get("connection", "").lower() != "close"
        if path.startswith("/__") and not path.startswith("/__files"):
            self.admin(method, path, query, raw, keep)
            return
        STATS["requests"] += 1
        SEQ[0] += 1
        n = SEQ[0]
        r = Rec()
        r.id, r.t, r.method, r.path, r.query, r.headers, r.raw, r.conn = n, time.time(), method, path, query, hl, raw, self.cid
        r.status, r.sent, r.events, r.outcome, r.ms, r.stream, r.usage = 0, 0, 0, None, None, False, None
        self.rec = r
        if LOGGING[0]:
            LOG.append(r)
        REPORTED[0] = None
        try:
            rep, b, kind = handle(method, path, query, H, raw, n)
        except Exception as ex:
            import traceback

            traceback.print_exc()
            rep, b, kind = error("chat", 500, {"emsg": f"fake_upstream bug: {ex!r}", "etype": "fake_bug"}, "req_bug"), {}, "chat"
        r.status, r.stream, r.usage = rep.status, rep.events is not None, REPORTED[0]
        if b.get("close"):
            keep = False
        gz = None
        if b.get("gzip") and "gzip" in H.get("accept-encoding", ""):
            gz = zlib.compressobj(6, zlib.DEFLATED, 31)
        slow = (
            rep.events is not None
            and (b.get("gap") or "cut" in b or "hang" in b or "errev" in b)
            or b.get("ttfb")
            or b.get("split")
            or "cut" in b
        )
        hd = [
            b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\nrequest-id: req_fake%08d\r\nx-request-id: req_fake%08d\r\n"
            % (rep.status, REASON.get(rep.status, "X").encode(), rep.ctype.encode(), n, n)
        ]
        for a, v in rep.headers:
            hd.append(f"{a}: {v}\r\n".encode())
        if kind == "messages":
            hd.append(b"anthropic-ratelimit-requests-remaining: 999\r\nanthropic-organization-id: org_fake\r\n")
        else:
            hd.append(
                b"openai-organization: fake\r\nopenai-processing-ms: 1\r\nopenai-version: 2020-10-01\r\nx-ratelimit-remaining-requests: 999\r\n"
            )
        if rep.events is not None:
            hd.append(b"cache-control: no-cache\r\n")
        if not keep:
            hd.append(b"connection: close\r\n")
        if gz:
            hd.append(b"content-encoding: gzip\r\nvary: accept-encoding\r\n")
        if slow:
            STATS["in_flight"] += 1
            self.task = self.loop.create_task(self.play(rep, b, kind, hd, gz, keep, method, n))
            self.task.add_done_callback(self.after)
            return
        data = b"".join(self.decorate(rep.events, b)) if rep.events is not None else rep.body or b""
        r.events = len(rep.events) if rep.events is not None else 0
        if gz:
            data = gz.compress(data) + gz.flush()
        if method == "HEAD":
            hd.append(b"content-length: %d\r\n\r\n" % len(data))
            data = b""
        elif rep.events is not None and not b.get("cl"):
            hd.append(b"transfer-encoding: chunked\r\n\r\n")
            if b.get("flush") and not gz:
                data = b"".join([b"%x\r\n%s\r\n" % (len(x), x) for x in self.decorate(rep.events, b)]) + b"0\r\n\r\n"
            else:
                data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        else:
            hd.append(b"content-length: %d\r\n\r\n" % len(data))
        hd.append(data)
        out = b"".join(hd)
        self.tr.write(out)
        r.sent, r.outcome, r.ms = (
            len(out),
            "done" if rep.status < 400 else f"error:{rep.status}",
            round((time.time() - r.t) * 1000, 2),
        )
        STATS["bytes_out"] += len(out)
        self.rec = None
        if not keep:
            self.tr.close()

    @staticmethod
    def decorate(events, b):
        ev = events
        if b.get("comment"):
            k, o = int(b["comment"]), []
            for j, x in enumerate(ev):
                if j % k == 0:
                    o.append(b": keep-alive\n\n")
                o.append(x)
            ev = o
        if b.get("crlf"):
            ev = [x.replace(b"\n", b"\r\n") for x in ev]
        if b.get("bom") and ev:
            ev = [b"\xef\xbb\xbf" + ev[0]] + list(ev[1:])
        return ev

    def after(self, t):
        STATS["in_flight"] -= 1
        self.task = None
        if not t.cancelled() and t.exception():
            print("play failed:", repr(t.exception()), file=sys.stderr)
            self.tr.close()
        if not self.closed:
            self.pump()

    async def flow(self):
        if self.paused and not self.closed:
            self._drain = self.loop.create_future()
            await self._drain

    async def play(self, rep, b, kind, hd, gz, keep, method, n):
        r, tr = self.rec, self.tr
        ttfb, gap = b.get("ttfb", 0) / 1000, b.get("gap", 0) / 1000
        split, sgap = int(b.get("split", 0)), b.get("split_gap", 0) / 1000
        events = self.decorate(rep.events, b) if rep.events is not None else None
        chunked = events is not None and not b.get("cl")

        def w(x):
            r.sent += len(x)
            STATS["bytes_out"] += len(x)
            tr.write(x)

        ended = "done"

        async def put(x):
            if gz:
                x = gz.compress(x) + gz.flush(zlib.Z_SYNC_FLUSH)
            for s in (x[j : j + split] for j in range(0, len(x), split)) if split else (x,):
                if s:
                    w(b"%x\r\n%s\r\n" % (len(s), s) if chunked else s)
                if sgap:
                    await asyncio.sleep(sgap)
                elif split:
                    await asyncio.sleep(0)
            await self.flow()

        async def think():
            # Until then, or until the test has seen what it kept us thinking for.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(HURRY.wait(), ttfb)

        if ttfb and not b.get("hdr_first"):
            await think()
        if events is None or method == "HEAD":
            body = rep.body or b""
            if gz:
                body, gz = gz.compress(body) + gz.flush(), None
            w(b"".join(hd) + b"content-length: %d\r\n\r\n" % len(body))
            if ttfb and b.get("hdr_first"):
                await think()
            if "cut" in b:
                w(body[: int(b["cut"])])
                return self.cut(b)
            chunked = False
            if method != "HEAD":
                await put(body)
        else:
            w(
                b"".join(hd)
                + (b"transfer-encoding: chunked\r\n\r\n" if chunked else b"content-length: %d\r\n\r\n" % sum(map(len, events)))
            )
            if ttfb and b.get("hdr_first"):
                await think()
            for j, x in enumerate(events):
                if "cut" in b and j >= b["cut"]:
                    return self.cut(b, chunked)
                if "hang" in b and j >= b["hang"]:
                    await asyncio.sleep(86400)
                if "errev" in b and j >= b["errev"]:
                    st = int(b.get("estatus", 529 if kind == "messages" else 500))
                    eo = err_obj(kind, st, dict(b, emsg=b.get("emsg", "fake mid-stream error")), f"req_fake{n:08d}")
                    if kind == "messages":
                        x = sse(eo, "error")
                    elif kind == "responses":
                        x = sse(
                            {
                                "type": "response.failed",
                                "sequence_number": j,
                                "response": {
                                    "id": f"resp_fake{n:08d}",
                                    "object": "response",
                                    "status": "failed",
                                    "error": {"code": "server_error", "message": eo["error"]["message"]},
                                    "output": [],
                                },
                            },
                            "response.failed",
                        )
                    else:
                        x = sse(eo)
                    await put(x)
                    r.events, ended = j + 1, "errev"
                    break
                await put(x)
                r.events = j + 1
                if gap and j + 1 < len(events) and not CFG.get("hurry"):
                    await asyncio.sleep(gap)
            if gz:
                x = gz.flush()
                w(b"%x\r\n%s\r\n" % (len(x), x) if chunked else x)
            if chunked:
                w(b"0\r\n\r\n")
        r.outcome, r.ms = ended if rep.status < 400 else f"error:{rep.status}", round((time.time() - r.t) * 1000, 2)
        self.rec = None
        if not keep:
            tr.close()

    def cut(self, b, chunked=False):
        r = self.rec
        r.outcome, r.ms = "cut", round((time.time() - r.t) * 1000, 2)
        self.rec = None
        mode = b.get("cut_mode", "fin")
        if mode == "eof" and chunked:
            self.tr.write(b"0\r\n\r\n")
            return
        if mode == "rst":
            s = self.tr.get_extra_info("socket")
            if s is not None:
                try:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                except OSError:
                    pass
            self.tr.abort()
            return
        self.tr.close()

    def admin(self, method, path, query, raw, keep):
        q = {a: v[-1] for a, v in parse_qs(query).items()}
        status, out = 200, {"ok": True}
        try:
            if path == "/__log":
                if method in ("DELETE", "POST"):
                    LOG.clear()
                else:
                    rs = [r for r in LOG if q.get("path", "") in r.path and r.id > int(q.get("since", 0))]
                    rs = rs[-int(q.get("limit", 200)) :]
                    out = [rec_json(r, q.get("body", "1") != "0") for r in rs]
            elif path == "/__reset":
                for kept in (LOG, CFG, SCRIPT, CACHE, VIDEOS):
                    kept.clear()
                SEQ[0] = 0
                for kx in ("requests", "client_gone", "errors_injected", "bytes_out"):
                    STATS[kx] = 0
            elif path == "/__config":
                if method != "GET":
                    d = json.loads(raw or b"{}")
                    if not d:
                        CFG.clear()
                    CFG.update(norm(d))
                out = CFG
            elif path == "/__script":
                if method != "GET":
                    d = json.loads(raw or b"[]")
                    SCRIPT.extend(norm(x) for x in (d if isinstance(d, list) else [d]))
                out = list(SCRIPT)
            elif path == "/__stats":
                out = dict(STATS, uvloop=uvloop is not None, pid=os.getpid())
            elif path != "/__health":
                status, out = 404, {"error": "unknown control path"}
            (HURRY.set if CFG.get("hurry") else HURRY.clear)()
        except Exception as ex:
            status, out = 400, {"error": repr(ex)}
        d = dumps(out)
        self.tr.write(b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(d)) + d)
        if not keep:
            self.tr.close()
