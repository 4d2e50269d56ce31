// Questions to this gateway. A refusal carries the gateway's own sentence, which says what to do next.

export class Refusal extends Error {
  constructor({ status, code, message, details, retryAfter }) {
    super(message);
    Object.assign(this, { status, code, details, retryAfter });
  }
}

let ahead = 0;

/** The gateway's time in milliseconds: what is signed must suit its clock, and not the one of this machine. */
export const now = () => Date.now() + ahead;

/** The answer as `{status, headers, body}`, whatever it says; throws a Refusal with status 0 when none came. */
export async function exchange(method, path, headers = {}, body) {
  let response, text;
  try {
    const json = body === undefined ? {} : { "content-type": "application/json" };
    response = await fetch(path, { method, headers: { ...json, ...headers }, body: body && JSON.stringify(body), cache: "no-store", credentials: "omit" });
    text = await response.text();
  } catch {
    throw new Refusal({ status: 0, code: "unreachable", message: "The gateway cannot be reached. Check your connection; nothing is lost." });
  }
  const date = Date.parse(response.headers.get("date"));
  // A difference of a few seconds is the road, not the clock.
  if (date) ahead = Math.abs(date - Date.now()) > 5000 ? date - Date.now() : 0;
  let parsed = {};
  try {
    parsed = JSON.parse(text) ?? {};
  } catch {
    // Something between us and the gateway answered; its status says enough.
  }
  return { status: response.status, headers: response.headers, body: parsed };
}

export function refusal({ status, headers, body }) {
  const error = body.error;
  const flat = typeof error === "string";
  const code = flat ? (body.code ?? error) : error?.code;
  const message = (flat ? (body.message ?? error) : error?.message) ?? `The gateway answered with status ${status}.`;
  return new Refusal({ status, code, message, details: body.details, retryAfter: Number(headers.get("retry-after")) || 0 });
}

/** What the gateway says; throws a Refusal when it refuses. */
export async function ask(method, path, headers, body) {
  const answer = await exchange(method, path, headers, body);
  if (answer.status >= 400) throw refusal(answer);
  return answer.body;
}

/** Shows with `draw` what comes of some work, unless more of that work has begun meanwhile: an answer to an earlier question says nothing any more. */
export function latest(draw) {
  let last = null;
  return async (work) => {
    last = work;
    try {
      const answer = await work;
      if (last === work) draw(answer);
    } catch (error) {
      if (last === work) throw error;
    }
  };
}

export const encode = (value) => btoa(String.fromCharCode(...new TextEncoder().encode(JSON.stringify(value))));
export const decode = (text) => JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(text), (c) => c.charCodeAt(0))));

export const TOP_UP = "/api/v1/x402/top-up";

/** What may be signed to top up: the offer of every network. */
export async function offers() {
  const answer = await exchange("POST", TOP_UP);
  if (answer.status !== 402 || !Array.isArray(answer.body.accepts)) throw refusal(answer);
  return answer.body;
}
