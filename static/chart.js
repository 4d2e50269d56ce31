// Usage as bars, one for each day, in the colours of the models; and the same as a table for who cannot see them.
import { el, usd } from "./page.js";

const SVG = "http://www.w3.org/2000/svg";
const [HEIGHT, LEFT, BOTTOM, TOP] = [200, 66, 22, 10];
/** Models with a colour of their own; the rest share the last. */
const TONES = 4;

function shape(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  return node;
}

/** Every date from one to another, as the API writes them. */
function daysBetween(from, to) {
  const days = [];
  for (let day = Date.parse(from); day <= Date.parse(to); day += 86400000) days.push(new Date(day).toISOString().slice(0, 10));
  return days;
}

function sums(rows, by) {
  const found = new Map();
  for (const row of rows) found.set(by(row), (found.get(by(row)) ?? 0) + row.charge_usd);
  return found;
}

/** The bars of `{from, to, rows}`, as `GET /api/usage` has them, for a place that is so wide. */
export function chart({ from, to, rows }, width) {
  const models = [...sums(rows, (row) => row.model)].sort((a, b) => b[1] - a[1]).map(([model]) => model);
  const tone = (model) => Math.min(models.indexOf(model), TONES);
  const perDay = sums(rows, (row) => row.date);
  const [days, top] = [daysBetween(from, to), Math.max(...perDay.values())];
  const svg = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, class: "chart", role: "img", "aria-label": `Charges per day from ${from} to ${to}, at most ${usd(top)} a day` });
  const height = HEIGHT - BOTTOM - TOP;
  for (const part of [0, 0.5, 1]) {
    const y = TOP + height * (1 - part);
    svg.append(shape("line", { x1: LEFT, x2: width, y1: y, y2: y }), shape("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, usd(top * part)));
  }
  const step = (width - LEFT) / days.length;
  const bar = Math.min(Math.max(step * 0.7, 1), 48);
  days.forEach((date, i) => {
    const x = LEFT + step * i + (step - bar) / 2;
    let y = TOP + height;
    for (const [model, charge] of [...sums(rows.filter((row) => row.date === date), (row) => row.model)].sort((a, b) => tone(a[0]) - tone(b[0]))) {
      const size = top ? (height * charge) / top : 0;
      y -= size;
      const part = shape("rect", { x, y, width: bar, height: size, class: `tone${tone(model)}` });
      part.append(shape("title", {}, `${date}, ${model}: ${usd(charge)}`));
      svg.append(part);
    }
    if (i === 0 || i === days.length - 1) svg.append(shape("text", { x: i ? width : LEFT, y: HEIGHT - 5, "text-anchor": i ? "end" : "start" }, date));
  });
  const tones = [...models.slice(0, TONES), ...(models.length > TONES ? ["others"] : [])].map((name, i) => {
    const dot = shape("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" });
    dot.append(shape("rect", { width: 10, height: 10, rx: 2, class: `tone${i}` }));
    return el("li", {}, dot, name);
  });
  return [svg, el("ul", { class: "tones" }, ...tones)];
}

/** The rows as a table. `names` tells keys by their id. */
export function table(rows, names) {
  const head = ["Day", "Model", "Key", "Calls", "In", "Out", "Charged"].map((name, i) => el("th", { scope: "col", class: i > 2 ? "number" : "" }, name));
  const line = (row) => {
    const cells = [["Model", row.model], ["Key", row.key ? (names.get(row.key) ?? "a former key") : "wallet"], ["Calls", row.calls], ["In", row.input_tokens], ["Out", row.output_tokens], ["Charged", usd(row.charge_usd)]];
    return el("tr", {}, el("th", { scope: "row" }, row.date), ...cells.map(([name, value], i) => el("td", { "data-is": name, class: i > 1 ? "number" : "" }, typeof value === "number" ? value.toLocaleString("en") : value)));
  };
  return el("div", { class: "table" }, el("table", { class: "stack" }, el("caption", { class: "skip" }, "Usage by day, model and key"), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...[...rows].reverse().map(line))));
}
