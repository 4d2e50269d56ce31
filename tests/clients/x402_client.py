"""Buys one call with the Python x402 client 2.25 over httpx; reads the same environment and prints the same line as the others."""

import asyncio
import base64
import json
import os

import httpx
from eth_account import Account
from x402 import x402Client
from x402.http.clients.httpx import x402AsyncTransport
from x402.mechanisms.evm.exact.register import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.mechanisms.svm.exact.register import register_exact_svm_client
from x402.mechanisms.svm.signers import KeypairSigner


def order():
    env = os.environ
    body = env.get("BODY") or json.dumps(
        {
            "model": env["MODEL"],
            "max_tokens": 256,
            "stream": env.get("STREAM") == "1",
            "messages": [{"role": "user", "content": env["PROMPT"]}],
        }
    )
    return env["BASE_URL"] + env.get("ROUTE", "/v1/chat/completions"), body


def text_of(part):
    """The text in an answer, a chunk or an event of any dialect."""
    if part.get("type") == "response.output_text.delta":
        return part["delta"]
    for choice in part.get("choices") or []:
        return (choice.get("message") or choice.get("delta") or {}).get("content") or ""
    if isinstance(part.get("delta"), dict):
        return part["delta"].get("text", "")
    contents = [item.get("content") for item in [part, *(part.get("output") or [])]]
    return "".join(block.get("text", "") for content in contents if isinstance(content, list) for block in content)


def answer_text(content_type, body):
    if not content_type.startswith("text/event-stream"):
        return text_of(json.loads(body))
    data = [line[6:] for line in body.split("\n") if line.startswith("data: ")]
    return "".join(text_of(json.loads(line)) for line in data if line != "[DONE]")


class Watched(httpx.AsyncHTTPTransport):
    """Remembers the payment header that the library sends, so that a test can try to use it twice."""

    payment = None

    async def handle_async_request(self, request):
        for name in ("payment-signature", "x-payment"):
            if name in request.headers:
                Watched.payment = {"name": name, "value": request.headers[name]}
        return await super().handle_async_request(request)


async def main():
    url, body = order()
    client = x402Client()
    client.set_spend_controls({"max_amount_per_payment": "$" + os.environ.get("MAX_VALUE_USD", "1")})
    # Set for wallets of Solana, whose library asks a node for what it signs.
    if "SOLANA_RPC_URL" in os.environ:
        signer = KeypairSigner.from_base58(os.environ["PRIVATE_KEY"])
        register_exact_svm_client(client, signer, rpc_url=os.environ["SOLANA_RPC_URL"])
    else:
        register_exact_evm_client(client, EthAccountSigner(Account.from_key(os.environ["PRIVATE_KEY"])))
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient(transport=x402AsyncTransport(client, Watched()), timeout=60) as http:
        async with http.stream("POST", url, content=body, headers=headers) as response:
            chunks = [chunk async for chunk in response.aiter_bytes()]
    text = b"".join(chunks).decode()
    names = ("payment-response", "x-payment-response")
    receipts = {name: json.loads(base64.b64decode(response.headers[name])) for name in names if name in response.headers}
    outcome = {
        "status": response.status_code,
        "text": answer_text(response.headers.get("content-type", ""), text) if response.status_code == 200 else None,
        "receipt": next(iter(receipts.values()), None),
        "receipt_headers": receipts,
        "request_id": response.headers.get("x-request-id"),
        "balance_remaining": response.headers.get("x-balance-remaining"),
        "chunks": len(chunks),
        "payment": Watched.payment,
        "body": text,
    }
    print(json.dumps(outcome))


asyncio.run(main())
