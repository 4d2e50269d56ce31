// Media with npm openai, as its documentation shows each: pictures, sound and embeddings, from files where the routes take files.
import { toFile } from "openai";

const file = (name, bytes) => toFile(Buffer.alloc(bytes, "s"), name);
const lengths = (data) => data.map((entry) => [Object.keys(entry).sort(), (entry.b64_json ?? entry.url).length]);

/** The kinds of all events of a stream. */
async function types(stream) {
  const events = [];
  for await (const event of stream) events.push(event.type);
  return events;
}

/** One function per word that a step's `do` may say; `openai` makes the client for a step. */
export const media = (openai) => ({
  embed: async (step) => {
    const { data, usage } = await openai(step).embeddings.create(step.params);
    return { vectors: data.map((entry) => entry.embedding), usage };
  },
  draw: async (step) => {
    const answer = await openai(step).images.generate(step.params);
    if (!step.params.stream) return { data: lengths(answer.data), usage: answer.usage ?? null };
    return { events: await types(answer) };
  },
  edit: async (step) => {
    const image = await Promise.all(step.images.map((name) => file(name, 100)));
    const answer = await openai(step).images.edit({ ...step.params, image: image.length === 1 ? image[0] : image });
    if (step.params.stream) return { events: await types(answer) };
    return { data: lengths(answer.data), usage: answer.usage ?? null };
  },
  speak: async (step) => {
    const answer = await openai(step).audio.speech.create(step.params);
    return { type: answer.headers.get("content-type"), bytes: (await answer.arrayBuffer()).byteLength };
  },
  /** Read as it comes, and not kept. */
  speak_on: async (step) => {
    const answer = await openai(step).audio.speech.create(step.params);
    let bytes = 0;
    let end = "";
    for await (const piece of answer.body) {
      bytes += piece.length;
      end = (end + Buffer.from(piece).toString("latin1")).slice(-200);
    }
    return { type: answer.headers.get("content-type"), bytes, end };
  },
  hear: async (step) => {
    const answer = await openai(step).audio.transcriptions.create({ ...step.params, file: await file("memo.mp3", step.bytes) });
    if (step.params.stream) {
      const heard = { text: "" };
      for await (const event of answer) {
        heard.text += event.delta ?? "";
        heard.last = event;
      }
      if (heard.text !== heard.last.text) throw new Error(`heard ${heard.text} of ${heard.last.text}`);
      return heard;
    }
    return typeof answer === "string" ? answer : answer.text;
  },
});
