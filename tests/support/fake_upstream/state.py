"""What the whole fake shares: the log, the counters, the behaviour that was set, and fixed media bytes."""

import asyncio
import base64
import json
import re
import struct
from collections import deque
from http import HTTPStatus

REASON = {s.value: s.phrase for s in HTTPStatus}
REASON[529] = "Overloaded"
_enc = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_str = json.encoder.encode_basestring
dumps = lambda o: _enc(o).encode()
T0 = 1767225600  # fixed `created` so that outputs are byte-for-byte reproducible

MODELS = [
    "claude-opus-4-7",
    "claude-sonnet-4-6",
    "claude-haiku-4-5",
    "gpt-5.5-pro",
    "gpt-5.5",
    "gpt-4o-mini",
    "gemini-3.1-pro-preview",
    "grok-4.20-beta",
    "kimi-k2-5",
    "text-embedding-3-small",
    "gpt-image-1",
    "nano-banana-pro",
    "gpt-4o-mini-tts",
    "whisper-1",
    "gpt-4o-transcribe",
    "veo-3.1-generate-preview",
    "kling-video-v3",
    "sora-2",
]
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
PNG64 = base64.b64encode(PNG).decode()
WAV = (
    b"RIFF"
    + struct.pack("<I", 36 + 1600)
    + b"WAVEfmt "
    + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    + b"data"
    + struct.pack("<I", 1600)
    + b"\0" * 1600
)
MP4 = b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2" + b"\0" * 488

CFG, SCRIPT, STATS = (
    {},
    deque(),
    {"requests": 0, "conns": 0, "open_conns": 0, "in_flight": 0, "client_gone": 0, "errors_injected": 0, "bytes_out": 0},
)
HURRY = asyncio.Event()  # set while CFG says so
BASE, LOG, LOGGING, CACHE, VIDEOS, SEQ = {}, deque(maxlen=5000), [True], set(), {}, [0]
REQUIRE_KEY = [None]
REPORTED = [None]  # tokens of the answer that is being made, for the log
DIRECTIVE = re.compile(r"<<fake\s+(.*?)>>", re.S)
ECHO = re.compile(r"ECHO:([^\s\"'<>`\\]+)")
CALL = re.compile(r"CALL:([A-Za-z0-9_.-]+)\s*(\{.*?\})?(?:\s|$|\")", re.S)
NUM = {
    "in",
    "out",
    "cached",
    "cw",
    "cw1h",
    "reasoning",
    "status",
    "retry_after",
    "retry_after_ms",
    "ttfb",
    "gap",
    "split",
    "split_gap",
    "cut",
    "hang",
    "errev",
    "words",
    "pad",
    "comment",
    "ntools",
    "video_polls",
    "times",
    "think",
    "gzip",
    "close",
    "nodone",
    "crlf",
    "bom",
    "cl",
    "ping",
    "hdr_first",
    "video_fail",
    "strict",
    "estatus",
    "flush",
}
