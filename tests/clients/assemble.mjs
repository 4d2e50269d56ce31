// Has npm openai 6.49 and @anthropic-ai/sdk 1.11 put together what a stub serves, each by its own helper for streams or as one
// object. Environment: BASE_URL, ORDER (see steps.mjs); a step is {do, at, params}, `at` the folder under which the stub has it.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { perform } from "./steps.mjs";

const openai = ({ at }) => new OpenAI({ baseURL: `${process.env.BASE_URL}/${at}/v1`, apiKey: "none", maxRetries: 0 });
const anthropic = ({ at }) => new Anthropic({ baseURL: `${process.env.BASE_URL}/${at}`, apiKey: "none", maxRetries: 0 });

await perform({
  chat: (step) => openai(step).chat.completions.create(step.params),
  chat_stream: (step) => openai(step).chat.completions.stream(step.params).finalChatCompletion(),
  messages: (step) => anthropic(step).messages.create(step.params),
  messages_stream: (step) => anthropic(step).messages.stream(step.params).finalMessage(),
  responses: (step) => openai(step).responses.create(step.params),
  responses_stream: (step) => openai(step).responses.stream(step.params).finalResponse(),
});
