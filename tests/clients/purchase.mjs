// One purchase as a test orders it: what to ask, and how its outcome is printed. The paying is left to the client library.
import { decode } from "./answer.mjs";

/** What the environment asks for. BODY, when set, is sent byte for byte; else a body is made of MODEL, PROMPT and STREAM. */
export function order() {
  const { BASE_URL, PRIVATE_KEY, MODEL, PROMPT, BODY } = process.env;
  const route = process.env.ROUTE ?? "/v1/chat/completions";
  const stream = process.env.STREAM === "1";
  const body = BODY ?? JSON.stringify({ model: MODEL, max_tokens: 256, stream, messages: [{ role: "user", content: PROMPT }] });
  const maxValueUsd = process.env.MAX_VALUE_USD ?? "1";
  // Set for wallets of Solana, whose libraries ask a node for what they sign.
  const rpcUrl = process.env.SOLANA_RPC_URL;
  return { url: BASE_URL + route, key: PRIVATE_KEY, body, maxValueUsd, rpcUrl };
}

/** Remembers the payment header that the library sends, so that a test can try to use it twice. */
export function watched(sent) {
  return (input, init) => {
    const headers = new Headers(input instanceof Request ? input.headers : init?.headers);
    for (const [name, value] of Object.entries(init?.headers ?? {})) headers.set(name, value);
    for (const name of ["payment-signature", "x-payment"]) {
      if (headers.get(name)) sent.payment = { name, value: headers.get(name) };
    }
    return fetch(input, init);
  };
}

/** Buys once with the paying `fetch` and prints one line of JSON. */
export async function run(payingFetch, { url, body }, sent) {
  const headers = { "content-type": "application/json", "anthropic-version": "2023-06-01" };
  const response = await payingFetch(url, { method: "POST", headers, body });
  const chunks = [];
  for await (const chunk of response.body ?? []) chunks.push(Buffer.from(chunk));
  const text = Buffer.concat(chunks).toString("utf8");
  console.log(JSON.stringify(decode(response.status, (name) => response.headers.get(name), text, chunks.length, sent.payment)));
}
