// The catalogue for people: what is sold, searched and filtered, with what it costs.
import { ask } from "./api.js";
import { byId, copy, el, fill, say, usd } from "./page.js";

const PIECES = { usd_per_image: "image", usd_per_second: "second", usd_per_character: "character" };

/** What a model costs, one line for each thing that has a price. */
function prices(model) {
  const lines = [];
  for (const [field, piece] of Object.entries(PIECES)) {
    for (const [kind, price] of Object.entries(model[field] ?? {})) lines.push(`${usd(price)} per ${piece}${kind === "default" ? "" : ` (${kind})`}`);
  }
  const { input, output, cache_read } = model.usd_per_million_tokens;
  if (Number(input)) lines.push(`${usd(input)} per million in`);
  if (Number(output)) lines.push(`${usd(output)} per million out`);
  if (Number(cache_read) && cache_read !== input) lines.push(`${usd(cache_read)} per million from cache`);
  if (model.long_prompt) {
    const { above_tokens, usd_per_million_tokens: long } = model.long_prompt;
    lines.push(`above ${above_tokens.toLocaleString("en")} tokens ${usd(long.input)} in, ${usd(long.output)} out`);
  }
  if (Number(model.usd_per_call)) lines.push(`${usd(model.usd_per_call)} per call`);
  return lines;
}

function row(model) {
  const { ceiling, id } = model;
  const most = ceiling.kind === "flat" ? ceiling.per_call : ceiling.typical_call;
  const button = el("button", { type: "button", class: "small", "aria-label": `Copy id ${id}`, onclick: () => copy(id, button) }, "Copy id");
  return el(
    "tr",
    {},
    el("th", { scope: "row", class: "mono" }, id),
    el("td", { "data-is": "Kind" }, model.kind),
    el("td", { "data-is": "Price" }, el("span", {}, ...prices(model).map((line) => el("div", {}, line)))),
    el("td", { "data-is": "Typical call", class: "number" }, usd(most), ceiling.kind === "flat" ? el("div", { class: "hint" }, "every call") : null),
    el("td", { "data-is": "Context", class: "number" }, model.context_tokens ? `${model.context_tokens.toLocaleString("en")} tokens` : "–"),
    el("td", { "data-is": "Answer up to", class: "number" }, model.kind === "chat" ? `${model.max_output_tokens.toLocaleString("en")} tokens` : "–"),
    el("td", { "data-is": "Routes" }, el("span", {}, ...(model.routes ?? []).map((route) => el("div", { class: "mono" }, route)))),
    el("td", { class: "actions" }, button),
  );
}

function show(models) {
  const [search, kind] = [byId("search").value.trim().toLowerCase(), byId("kind").value];
  const shown = models.filter((model) => (!kind || model.kind === kind) && model.id.toLowerCase().includes(search));
  fill(byId("list").tBodies[0], ...shown.map(row));
  byId("list").hidden = shown.length === 0;
  byId("count").textContent = shown.length ? `${shown.length} of ${models.length} models` : "No model fits. Change the search or the kind.";
}

async function start() {
  const { data } = await ask("GET", "/v1/pricing");
  const kinds = [...new Set(data.map(({ kind }) => kind))];
  byId("kind").append(...kinds.map((kind) => el("option", { value: kind }, kind)));
  byId("filter").addEventListener("input", () => show(data));
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  show(data);
}

start().catch((error) => {
  byId("count").textContent = "";
  say(byId("trouble"), "bad", "The price list cannot be read.", error.message);
});
