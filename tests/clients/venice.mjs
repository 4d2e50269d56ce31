// Does what a test orders with npm venice-x402-client 0.2. Environment: BASE_URL, PRIVATE_KEY, ORDER (see steps.mjs), and
// AUTO_TOP_UP_USD when the client shall pay by itself. Each outcome says the balance that the client believes in afterwards.
import OpenAI from "openai";
import { VeniceClient, createAuthFetch } from "venice-x402-client";
import { perform } from "./steps.mjs";

const { BASE_URL, PRIVATE_KEY, AUTO_TOP_UP_USD } = process.env;
const autoTopUp = AUTO_TOP_UP_USD && { enabled: true, amount: Number(AUTO_TOP_UP_USD) };
const client = new VeniceClient(PRIVATE_KEY, { apiUrl: BASE_URL, autoTopUp });

/** Without `told` the library believes that it speaks to the service it was written for. */
const authFetch = (told) => createAuthFetch(PRIVATE_KEY, told ? { apiUrl: BASE_URL } : {});

async function whole(response) {
  const body = await response.json();
  return { status: response.status, body, request_id: response.headers.get("x-request-id") };
}

const blob = () => new Blob(["s".repeat(32000)], { type: "audio/mpeg" });

/** The fields as a form, with a picture in the field `file`. */
function form(params, file) {
  const data = new FormData();
  for (const [name, value] of Object.entries(params)) data.append(name, String(value));
  data.append(file, blob(), "cat.png");
  return data;
}

/** Files as their type and length, all else as it is. */
const seen = (answer) => (answer instanceof Blob ? { type: answer.type, bytes: answer.size } : answer);

/** Bytes are told by their type and number, anything else as it is. */
async function told(answer) {
  return answer instanceof Blob ? { type: answer.type, bytes: (await answer.arrayBuffer()).byteLength } : answer;
}

const actions = {
  models: () => client.models(),
  topUp: ({ usd }) => client.topUp(usd),
  getBalance: () => client.getBalance(),
  getTransactions: ({ options }) => client.getTransactions(options),
  chat: ({ params }) => client.chat(params),
  /** Many calls of one client at the same moment. */
  chatsAtOnce: ({ params, count }) => Promise.all(Array.from({ length: count }, () => client.chat(params))),
  embeddings: ({ params }) => client.embeddings(params),
  /** The library's own names of what draws: generate, generations, upscale, edit, multiEdit, backgroundRemove. */
  images: async ({ method, params, file }) => seen(await client.images[method](file ? form(params, file) : params)),
  speech: async ({ params }) => seen(await client.audio.speech(params)),
  transcribe: async ({ params }) => seen(await client.audio.transcribe({ ...params, file: blob() })),
  videoTranscribe: async ({ params }) => seen(await client.video.transcribe(params)),
  chatStream: async ({ params }) => {
    const pieces = [];
    for await (const piece of client.chatStream(params)) pieces.push(piece);
    return pieces;
  },
  respond: ({ params }) => client.responses.create(params),
  respondStream: async ({ params }) => {
    const pieces = [];
    for await (const piece of client.responses.stream(params)) pieces.push(piece);
    return pieces;
  },
  /** Queues a video and polls until it is there, or the library gives up. */
  videoGenerate: async ({ params, every = 20, within = 20000 }) => told(await client.video.generate(params, every, within)),
  /** One call of the library that is about a job, such as `audio.retrieve`. */
  job: async ({ about, params }) => {
    const [family, verb] = about.split(".");
    return told(await client[family][verb](params));
  },
  /** Queues, polls until there are bytes, and completes, as the library's users write it; the family is audio or video. */
  wholeJob: async ({ family, params }) => {
    const { queue_id, model } = await client[family].queue(params);
    let made;
    do made = await client[family].retrieve({ queue_id, model });
    while (made.status === "PROCESSING");
    return { made: await told(made), completed: await client[family].complete({ queue_id, model }) };
  },
  /** What the library has for routes that it has no helper for. */
  request: ({ path, body }) => client.request(path, body && { method: "POST", body: JSON.stringify(body) }),
  /** A plain fetch, with its body as JSON by a header of its own, as people write it. */
  authFetch: async ({ params, told = true }) => {
    const headers = { "content-type": "application/json" };
    const init = { method: "POST", headers, body: JSON.stringify(params) };
    return whole(await authFetch(told)(`${BASE_URL}/api/v1/chat/completions`, init));
  },
  /** Given a Request, the library loses that Request's own headers. */
  authFetchOfRequest: async ({ params }) => {
    const headers = { "content-type": "application/json" };
    const request = new Request(`${BASE_URL}/api/v1/chat/completions`, { method: "POST", headers, body: JSON.stringify(params) });
    return whole(await authFetch(true)(request));
  },
  /** The OpenAI SDK over the library's fetch: it sends a key that nobody knows beside the signed header. */
  openai: async ({ params }) => {
    const openai = new OpenAI({ baseURL: `${BASE_URL}/api/v1`, apiKey: "not-a-key", fetch: authFetch(true) });
    if (!params.stream) return (await openai.chat.completions.create(params)).choices[0].message.content;
    let text = "";
    for await (const chunk of await openai.chat.completions.create(params)) text += chunk.choices[0].delta.content ?? "";
    return text;
  },
};
await perform(actions, () => ({ balance: client.balance }));
