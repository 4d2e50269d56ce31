// Media with npm openai, as its documentation shows each: pictures, sound and embeddings, from files where the routes take files.
import { toFile } from "openai";

const file = (name, bytes) => toFile(Buffer.alloc(bytes, "s"), name);
const lengths = (data) => data.map((entry) => [Object.keys(entry).sort(), (entry.b64_json ?? entry.url).length]);

/** One function per word that a step's `do` may say; `openai` makes the client for a step. */
export const media = (openai) => ({
  embed: async (step) => {
    const { data, usage } = await openai(step).embeddings.create(step.params);
    return { vectors: data.map((entry) => entry.embedding), usage };
  },
  draw: async (step) => {
    const answer = await openai(step).images.generate(step.params);
    if (!step.params.stream) return { data: lengths(answer.data), usage: answer.usage ?? null };
    const events = [];
    for await (const event of answer) events.push(event.type);
    return { events };
  },
  edit: async (step) => {
    const image = await Promise.all(step.images.map((name) => file(name, 100)));
    const answer = await openai(step).images.edit({ ...step.params, image: image.length === 1 ? image[0] : image });
    return { data: lengths(answer.data), usage: answer.usage ?? null };
  },
  speak: async (step) => {
    const answer = await openai(step).audio.speech.create(step.params);
    return { type: answer.headers.get("content-type"), bytes: (await answer.arrayBuffer()).byteLength };
  },
  hear: async (step) => {
    const answer = await openai(step).audio.transcriptions.create({ ...step.params, file: await file("memo.mp3", step.bytes) });
    if (!step.params.stream) return typeof answer === "string" ? answer : answer.text;
    let [heard, whole] = ["", null];
    for await (const event of answer) {
      if (event.type === "transcript.text.delta") heard += event.delta;
      if (event.type === "transcript.text.done") whole = event.text;
    }
    if (heard !== whole) throw new Error(`heard ${heard} of ${whole}`);
    return heard;
  },
});
