// Does what a test orders with npm openai 6.49. Environment: BASE_URL, API_KEY, ORDER (see steps.mjs); a step may have a key and
// a number of retries of its own.
import OpenAI from "openai";
import { media } from "./media.mjs";
import { called, perform } from "./steps.mjs";
import { videos } from "./videos.mjs";

const { BASE_URL, API_KEY } = process.env;
const openai = ({ key = API_KEY, retries }) => new OpenAI({ baseURL: `${BASE_URL}/v1`, apiKey: key, maxRetries: retries });

/** What the caller of a whole completion has. */
function seen({ choices: [choice], usage }) {
  const calls = (choice.message.tool_calls ?? []).map((call) => [call.function.name, call.function.arguments]);
  return { text: choice.message.content, calls, finish: choice.finish_reason, usage: usage ?? null };
}

/** The same from chunks, put together as the documentation of the SDK shows it. */
async function gathered(stream) {
  const outcome = { text: "", calls: [], finish: null, usage: null, chunks: 0, without_choice: 0 };
  for await (const { choices, usage } of stream) {
    outcome.chunks += 1;
    outcome.usage = usage ?? outcome.usage;
    if (choices.length === 0) outcome.without_choice += 1;
    for (const { delta, finish_reason } of choices) {
      outcome.text += delta.content ?? "";
      outcome.finish = finish_reason ?? outcome.finish;
      for (const call of delta.tool_calls ?? []) {
        outcome.calls[call.index] ??= ["", ""];
        outcome.calls[call.index][0] += call.function.name ?? "";
        outcome.calls[call.index][1] += call.function.arguments ?? "";
      }
    }
  }
  return outcome;
}

/** What the caller of a response has. */
function responded({ id, status, output, output_text, usage, error, incomplete_details }) {
  const kinds = { function_call: "arguments", custom_tool_call: "input" };
  const calls = output.filter((item) => kinds[item.type]).map((item) => [item.name, item[kinds[item.type]]]);
  const reasons = output.filter((item) => item.type === "reasoning").flatMap((item) => item.summary.map((part) => part.text));
  return { id, text: output_text, calls, reasons, status, usage: usage ?? null, error, reason: incomplete_details?.reason };
}

/** The same from events, by the text that they bring one after the other; the last one is the response. */
async function listened(stream) {
  const outcome = { heard: "", events: 0 };
  for await (const event of stream) {
    outcome.events += 1;
    if (event.type === "response.output_text.delta") outcome.heard += event.delta;
    if (event.response) Object.assign(outcome, responded({ output_text: "", ...event.response }), { last: event.type });
  }
  return outcome;
}

const actions = {
  respond: async (step) => {
    const { data, response } = await openai(step).responses.create(step.params).withResponse();
    const outcome = step.params.stream ? await listened(data) : responded(data);
    const [request_id, balance_remaining] = ["x-request-id", "x-balance-remaining"].map((name) => response.headers.get(name));
    return { ...outcome, request_id, balance_remaining };
  },
  /** The SDK's own way of putting a streamed response together. */
  respond_helper: async (step) => responded(await openai(step).responses.stream(step.params).finalResponse()),
  models: async (step) => (await openai(step).models.list()).data.map((model) => model.id),
  model: async (step) => openai(step).models.retrieve(step.id),
  create: async (step) => {
    const { data, response } = await openai(step).chat.completions.create(step.params).withResponse();
    const outcome = step.params.stream ? await gathered(data) : seen(data);
    const [request_id, balance_remaining] = ["x-request-id", "x-balance-remaining"].map((name) => response.headers.get(name));
    return { ...outcome, request_id, balance_remaining };
  },
  /** The SDK's own way of putting a stream together. */
  helper: async (step) => seen(await openai(step).chat.completions.stream(step.params).finalChatCompletion()),
  /** An answer of a shape that the caller names, read by the SDK. */
  parse: async (step) => {
    const response_format = { type: "json_schema", json_schema: { name: "City", strict: true, schema: step.schema } };
    const completion = await openai(step).chat.completions.parse({ ...step.params, response_format });
    return completion.choices[0].message.parsed;
  },
  respond_parse: async (step) => {
    const text = { format: { type: "json_schema", name: "City", strict: true, schema: step.schema } };
    return (await openai(step).responses.parse({ ...step.params, text })).output_parsed;
  },
  /** The SDK calls the tool itself and asks on with what it said. */
  run_tools: async (step) => {
    const [{ function: weather }] = step.params.tools;
    const tools = [{ type: "function", function: { ...weather, parse: JSON.parse, function: ({ city }) => `rain in ${city}` } }];
    return openai(step).chat.completions.runTools({ ...step.params, tools }).finalContent();
  },
  ...called(openai),
};
await perform({ ...actions, ...media(openai), ...videos(openai) });
