// What every page needs: elements made of text and never of markup, money as people read it, and buttons that copy.

/** Makes an element. Children are nodes or text; attributes are set as they are, `onclick` and its like as listeners. */
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "value") node.value = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== null));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Puts `children` in the place of whatever `node` has. */
export const fill = (node, ...children) => node.replaceChildren(...children.filter((child) => child != null));

/** USD, at least with cents and at most with all six digits that the books have. Takes exact text or a number of the API. */
export function usd(amount) {
  const text = typeof amount === "number" ? amount.toFixed(6) : String(amount);
  const sign = text.startsWith("-") ? "−" : "";
  const [whole, fraction = ""] = text.replace("-", "").split(".");
  const digits = fraction.replace(/0+$/, "").padEnd(2, "0");
  return `${sign}$${whole.replace(/\B(?=(\d{3})+$)/g, ",")}.${digits}`;
}

/** Millionths of a dollar from what a person typed; `null` if that is no amount. */
export function micros(text) {
  const match = /^\s*\$?(\d{1,9})(?:[.,](\d{1,6}))?\s*$/.exec(text);
  return match && BigInt(match[1]) * 1000000n + BigInt((match[2] ?? "").padEnd(6, "0"));
}

/** The exact decimal text of millionths of a dollar. */
export const decimal = (units) => `${units / 1000000n}.${String(units % 1000000n).padStart(6, "0")}`;

/** A time of the API (RFC 3339) or a Date, to the minute or second, in UTC. */
export const time = (at, digits = 16) => new Date(at).toISOString().slice(0, digits).replace("T", " ");

export const short = (address) => `${address.slice(0, 6)}…${address.slice(-4)}`;

/** A message: what happened, and what to do next. */
export function say(node, kind, title, ...more) {
  fill(node, title && el("div", { class: `say ${kind}` }, el("strong", {}, title), ...more.map((text) => (text instanceof Node ? text : el("p", {}, text)))));
}

export async function copy(text, button) {
  const before = button.dataset.before ?? button.textContent;
  button.dataset.before = before;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy it";
  }
  setTimeout(() => (button.textContent = before), 1800);
}

/** Text to be copied, with the button that does it. */
export function snippet(text, label) {
  const code = el("code", {}, text);
  const button = el("button", { type: "button", class: "small", "aria-label": `Copy ${label}`, onclick: () => copy(text, button) }, "Copy");
  return el("div", { class: "snippet" }, button, el("pre", { tabindex: 0, role: "region", "aria-label": label }, code));
}

/** Where callers reach this gateway, as its operator wrote it. */
export const home = document.documentElement.dataset.url;
export const isSimulated = document.documentElement.dataset.money === "simulated";

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copy(button.parentElement.querySelector("code").textContent, button));
}
if (URL.canParse(home) && new URL(home).origin !== location.origin) {
  const notice = byId("elsewhere");
  notice.hidden = false;
  notice.querySelector("p").append("This gateway's own address is ", el("a", { href: home + location.pathname }, home), ". Use it there: wallets sign for an address.");
}
