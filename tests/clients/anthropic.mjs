// Does what a test orders with npm @anthropic-ai/sdk 1.11. Environment: BASE_URL, API_KEY, ORDER (see steps.mjs); a step may have
// a key and a number of retries of its own.
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { jsonSchemaOutputFormat } from "@anthropic-ai/sdk/helpers/json-schema";
import { called, perform } from "./steps.mjs";

const { BASE_URL, API_KEY } = process.env;
const anthropic = ({ key = API_KEY, retries }) => new Anthropic({ baseURL: BASE_URL, apiKey: key, maxRetries: retries });

/** What the caller of a whole message has. */
function seen({ content, stop_reason, usage }) {
  const text = content.filter((block) => block.type === "text").map((block) => block.text).join("");
  const calls = content.filter((block) => block.type === "tool_use").map((block) => [block.name, JSON.stringify(block.input)]);
  return { text, calls, finish: stop_reason, usage };
}

/** The same from events, put together by hand. */
async function gathered(stream) {
  const blocks = [];
  const outcome = { finish: null, usage: {}, events: 0 };
  for await (const event of stream) {
    outcome.events += 1;
    if (event.type === "message_start") outcome.usage = event.message.usage;
    if (event.type === "content_block_start") blocks[event.index] = { ...event.content_block, json: "" };
    if (event.type === "content_block_delta") {
      blocks[event.index].text += event.delta.text ?? "";
      blocks[event.index].json += event.delta.partial_json ?? "";
    }
    if (event.type === "message_delta") {
      outcome.finish = event.delta.stop_reason;
      outcome.usage = { ...outcome.usage, ...event.usage };
    }
  }
  const content = blocks.map((block) => (block.type === "tool_use" ? { ...block, input: JSON.parse(block.json || "{}") } : block));
  return { ...seen({ content, stop_reason: outcome.finish, usage: outcome.usage }), events: outcome.events };
}

const actions = {
  models: async (step) => (await anthropic(step).models.list()).data.map((model) => model.id),
  /** Every page of a list of so many entries each, the same one by one, and what one entry holds. */
  pages: async (step) => {
    const [ids, single] = [[], []];
    for await (const model of anthropic(step).models.list({ limit: step.limit })) ids.push(model.id);
    for (const id of ids) single.push((await anthropic(step).models.retrieve(id)).id);
    const first = await anthropic(step).models.retrieve(ids[0]);
    return { ids, single, first: { ...first } };
  },
  create: async (step) => {
    const { data, response } = await anthropic(step).messages.create(step.params).withResponse();
    const outcome = step.params.stream ? await gathered(data) : seen(data);
    const [request_id, balance_remaining] = ["x-request-id", "x-balance-remaining"].map((name) => response.headers.get(name));
    return { ...outcome, request_id, balance_remaining };
  },
  count: async (step) => (await anthropic(step).messages.countTokens(step.params)).input_tokens,
  /** The SDK's own way of putting a stream together. */
  helper: async (step) => seen(await anthropic(step).messages.stream(step.params).finalMessage()),
  /** An answer of a shape that the caller names, read by the SDK. */
  parse: async (step) => {
    const output_config = { format: jsonSchemaOutputFormat(step.schema) };
    return (await anthropic(step).messages.parse({ ...step.params, output_config })).parsed_output;
  },
  /** The SDK calls the tool itself and asks on with what it said. */
  run_tools: async (step) => {
    const [{ name, input_schema: inputSchema }] = step.params.tools;
    const weather = betaTool({ name, inputSchema, description: "How it is outside", run: ({ city }) => `rain in ${city}` });
    const { content } = await anthropic(step).beta.messages.toolRunner({ ...step.params, tools: [weather] });
    return content.map((block) => block.text).join("");
  },
  ...called(anthropic),
};
await perform(actions);
