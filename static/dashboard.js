// The dashboard: sign in with a wallet, see what it has and spends, and look after its keys.
import { latest } from "./api.js";
import { chart, table } from "./chart.js";
import { explorer } from "./networks.js";
import { byId, copy, el, fill, home, micros, decimal, say, short, snippet, time, usd } from "./page.js";
import { inSession, signOut, welcome } from "./session.js";

const LINES = 25;
/** Lines in one question of the export, which is the most. */
const LINES_AT_ONCE = 100;

/** The session lives here and nowhere else: a reload signs out. */
const state = { token: null, keys: [], models: [], simulated: new Set(), used: null, editing: null, filled: null };

const api = inSession(state, () => leave("Your session is over.", "Sign in again."));

async function enter({ address, token }) {
  state.token = token;
  byId("in").hidden = true;
  byId("out").hidden = byId("account").hidden = false;
  if (byId("who").textContent !== address) fill(byId("fresh"));
  byId("who").textContent = address;
  const [{ data }, { networks }] = await Promise.all([api("GET", "/v1/pricing"), api("GET", "/healthz")]);
  state.models = data;
  state.simulated = new Set(networks.filter(({ settlement }) => settlement === "simulated").map(({ id }) => id));
  await refresh();
}

/** Empties the page, but for a new key, which is never shown again: who has not saved it yet still can. */
function leave(title, next) {
  Object.assign(state, { token: null, keys: [], used: null, editing: null, filled: null });
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  for (const id of ["figures", "usage"]) fill(byId(id));
  for (const id of ["keys", "lines"]) fill(byId(id).tBodies[0]);
  byId("account").hidden = byId("out").hidden = true;
  byId("in").hidden = false;
  say(byId("say"), "", title, next);
}

async function refresh() {
  await Promise.all([showBalance(), showKeys().then(showUsage), showLines(true)]);
}

async function showBalance() {
  const account = await api("GET", "/api/account");
  const figure = (name, value, more) => el("div", {}, el("dt", {}, name), el("dd", {}, value, more ? el("small", {}, more) : null));
  const { allowance, open_calls: calls } = account;
  fill(
    byId("figures"),
    figure("Available", usd(account.available_usd)),
    figure("Held by running calls", usd(account.held_usd), calls ? `${calls} running` : null),
    figure("Balance", usd(account.balance_usd)),
    allowance ? figure("Allowance today", usd(allowance.left_usd), `of ${usd(allowance.usd_per_day)}, anew at ${time(allowance.renews_at)} UTC`) : null,
  );
}

const RESETS = { none: "", day: " per day", week: " per week", month: " per month" };

function keyRow(key) {
  const act = (name, what, more = "") => el("button", { type: "button", class: `small ${more}`, "aria-label": `${name} ${key.name}`, onclick: what }, name);
  const live = key.state === "active";
  const limit = key.spend_limit_usd === null ? "none" : `${usd(key.spend_limit_usd)}${RESETS[key.reset] ?? ""}`;
  const ends = key.revoked_at ?? key.expires_at;
  const previous = key.previous && el("div", { class: "hint" }, `…${key.previous.last4} until ${time(key.previous.valid_until)}`);
  const buttons = key.revoked_at ? [] : [act("Change", shown(() => edit(key.id))), act("Rotate", () => rotate(key)), act("Revoke", () => revoke(key), "danger")];
  return el(
    "tr",
    { class: live ? "" : "over" },
    el("th", { scope: "row" }, key.name),
    el("td", { "data-is": "Key", class: "mono" }, el("span", {}, `…${key.last4}`, previous)),
    el("td", { "data-is": "State" }, el("span", { class: `tag ${live ? "good" : "off"}` }, key.state)),
    el("td", { "data-is": "Spent", class: "number" }, usd(key.spent_usd)),
    el("td", { "data-is": "Limit" }, limit),
    el("td", { "data-is": "Models" }, key.models.length ? key.models.join(", ") : "all"),
    el("td", { "data-is": "Ends" }, ends ? time(ends) : "never"),
    el("td", { class: "actions" }, ...buttons),
  );
}

const drawKeys = latest(({ keys }) => {
  state.keys = keys;
  byId("no-keys").hidden = keys.length > 0;
  byId("keys").hidden = keys.length === 0;
  fill(byId("keys").tBodies[0], ...keys.map(keyRow));
});

const showKeys = () => drawKeys(api("GET", "/api/keys"));

/** After a change, which is done whether or not the list comes. */
const showChanged = () => showKeys().catch((error) => say(byId("say"), "bad", "The keys cannot be shown.", error.message));

/** The cheapest of the models that a key may use on a route; nothing if there is none. */
function cheapest(allowed, route) {
  const price = ({ ceiling }) => Number(ceiling.per_call ?? ceiling.typical_call);
  const fitting = state.models.filter(({ id, routes }) => routes?.includes(route) && (!allowed.length || allowed.includes(id)));
  return fitting.sort((a, b) => price(a) - price(b))[0]?.id;
}

/** The only time that a key is seen. */
function showFresh(name, secret, models) {
  const button = el("button", { type: "button", class: "main", onclick: () => copy(secret, button) }, "Copy key");
  const [talks, chats] = [cheapest(models, "/v1/messages"), cheapest(models, "/v1/chat/completions")];
  const claude = `export ANTHROPIC_BASE_URL="${home}"\nexport ANTHROPIC_AUTH_TOKEN="${secret}"\nexport ANTHROPIC_MODEL="${talks}"\nexport ANTHROPIC_DEFAULT_HAIKU_MODEL="${talks}"\nclaude`;
  const curl = `curl ${home}/v1/chat/completions \\\n  -H "Authorization: Bearer ${secret}" \\\n  -H "Content-Type: application/json" \\\n  -d '{"model":"${chats}","max_tokens":256,"messages":[{"role":"user","content":"hi"}]}'`;
  const setUp = (title, model, code) => (model ? [el("h3", {}, title), snippet(code, title)] : []);
  const done = el("button", { type: "button", onclick: () => fill(byId("fresh")) }, "I have saved it");
  fill(
    byId("fresh"),
    el("section", { class: "say", role: "status" }, el("strong", {}, `Your key “${name}”`), el("p", {}, "Copy it now. It is not shown again: only a fingerprint of it is kept."),
      el("p", { class: "secret mono", id: "secret" }, secret), el("div", { class: "row" }, button, done), ...setUp("Claude Code", talks, claude), ...setUp("curl", chats, curl), el("p", {}, "Other tools want the same address and key: ", el("a", { href: "/#tools" }, "set up your tool"), ".")),
  );
  byId("fresh").scrollIntoView({ block: "nearest" });
}

/** Opens the form on what is on sale and on what the key is now, which may be other than when this page was opened. */
async function edit(id) {
  const listed = id && api("GET", "/api/keys");
  const [{ data }, now] = await Promise.all([api("GET", "/v1/pricing"), listed, listed && drawKeys(listed)]);
  if (byId("edit").open) return;
  state.models = data;
  const key = id && now.keys.find((one) => one.id === id);
  if (id && !key) throw new Error("This key is not among yours any more.");
  fillForm(key);
  Object.assign(state, { editing: key ?? null, filled: filled() });
  say(byId("edit-say"), "", null);
  byId("k-save").disabled = false;
  byId("edit").showModal();
}

function fillForm(key) {
  byId("h-edit").textContent = key ? `Change “${key.name}”` : "New key";
  byId("k-save").textContent = key ? "Save" : "Make key";
  byId("k-name").value = key?.name ?? "";
  byId("k-limit").value = key?.spend_limit_usd ?? "";
  byId("k-reset").value = key?.reset ?? "none";
  byId("k-end").value = key?.expires_at ? key.expires_at.slice(0, 16) : "";
  const [sold, own] = [state.models.map(({ id }) => id), key?.models ?? []];
  const gone = own.filter((id) => !sold.includes(id));
  const words = (id) => [el("span", { class: "mono" }, id), gone.includes(id) ? el("span", { class: "hint" }, "not sold now") : null];
  const box = (id) => el("label", { class: "choice" }, el("input", { type: "checkbox", value: id, checked: own.includes(id) }), ...words(id));
  fill(byId("k-models"), ...gone.map(box), ...sold.map(box));
}

/** What stands in the form, field by field, as it was typed. */
const filled = () => ({
  name: byId("k-name").value.trim(),
  spend_limit_usd: byId("k-limit").value.trim(),
  reset: byId("k-reset").value,
  models: [...byId("k-models").querySelectorAll(":checked")].map(({ value }) => value),
  expires_at: byId("k-end").value,
});

/** What the form says, as the API wants it; throws a sentence for what makes no sense. */
function wish({ name, spend_limit_usd: limit, reset, models, expires_at: end }) {
  if (!name) throw new Error("Give the key a name.");
  const units = limit ? micros(limit) : null;
  if (limit && units === null) throw new Error("Write the limit in dollars, such as 5 or 2.50, or leave it empty.");
  return { name, spend_limit_usd: units === null ? null : decimal(units), reset, models, expires_at: end ? `${end}:00Z` : null };
}

async function save(event) {
  event.preventDefault();
  byId("k-save").disabled = true;
  const [typed, key, before] = [filled(), state.editing, state.filled];
  // Who closed the form meanwhile, and maybe opened it for something else, is told on the page.
  const open = () => byId("edit").open && state.filled === before;
  try {
    const wanted = wish(typed);
    // Of a key that exists only what was changed here is sent: the rest stays, also where the form shows less than the key has.
    const asked = ([name, value]) => (key ? JSON.stringify(typed[name]) !== JSON.stringify(before[name]) : value !== null);
    const given = Object.fromEntries(Object.entries(wanted).filter(asked));
    const saved = key ? await api("PATCH", `/api/keys/${key.id}`, given) : await api("POST", "/api/keys", given);
    if (open()) byId("edit").close();
    if (!key) showFresh(wanted.name, saved.key, wanted.models);
    await showChanged();
  } catch (error) {
    say(byId(open() ? "edit-say" : "say"), "bad", "Not saved.", error.message);
    if (!open()) return;
    byId("k-save").disabled = false;
    byId("k-save").focus();
  }
}

/** Asks before something that cannot be taken back; `act` is done on yes, once. */
function confirm(title, yes, act, ...body) {
  const button = byId("ask-yes");
  byId("h-ask").textContent = title;
  button.textContent = yes;
  button.disabled = false;
  fill(byId("ask-body"), ...body);
  say(byId("ask-say"), "", null);
  const press = async () => {
    const open = () => byId("ask").open && button.onclick === press;
    button.disabled = true;
    try {
      await act();
      if (open()) byId("ask").close();
    } catch (error) {
      say(byId(open() ? "ask-say" : "say"), "bad", "Not done.", error.message);
      if (!open()) return;
      button.disabled = false;
      button.focus();
    }
  };
  button.onclick = press;
  byId("ask").showModal();
}

function revoke(key) {
  const act = () => api("POST", `/api/keys/${key.id}/revoke`).then(showChanged);
  confirm(`Revoke “${key.name}”?`, "Revoke", act, el("p", {}, "It stops at once, also for calls that are running, and cannot be brought back."));
}

function rotate(key) {
  const hours = [[0, "at once"], [3600, "in an hour"], [86400, "in a day"], [604800, "in a week"]].map(([seconds, name]) => el("option", { value: seconds }, name));
  const grace = el("select", { id: "grace" }, ...hours);
  const act = async () => {
    const rotated = await api("POST", `/api/keys/${key.id}/rotate`, { grace_seconds: Number(grace.value) });
    showFresh(key.name, rotated.key, key.models);
    await showChanged();
  };
  confirm(`Rotate “${key.name}”?`, "Rotate", act, el("p", {}, "You get a new key with the same limits."), el("div", { class: "field" }, el("label", { for: "grace" }, "The old one ends"), grace));
}

const keepUsage = latest((used) => {
  state.used = used;
  drawUsage();
});

const showUsage = () => keepUsage(api("GET", `/api/usage?days=${byId("days").value}`));

/** Again when the page changes its width, so that words keep their size. */
function drawUsage() {
  const { used } = state;
  if (!used) return;
  if (!used.rows.length) return fill(byId("usage"), el("p", { class: "hint" }, "No calls in this time."));
  const names = new Map(state.keys.map(({ id, name }) => [id, name]));
  const { total } = used;
  const sum = el("p", {}, `${total.calls.toLocaleString("en")} calls, ${usd(total.charge_usd)}`, total.allowance_usd ? `, of which the allowance paid ${usd(total.allowance_usd)}` : "");
  fill(byId("usage"), sum, ...chart(used, Math.max(byId("usage").clientWidth, 280)), el("details", {}, el("summary", {}, "The same as a table"), table(used.rows, names)));
}

const MOVEMENTS = { TOP_UP: "Top-up", CHARGE: "Call", REFUND: "Given back", ADJUSTMENT: "Adjustment by the operator", PAYOUT: "Paid out" };

/** The transaction by which money arrived, as a link where somebody shows it. */
function evidence({ transaction, network }) {
  const url = transaction && network && explorer(network, transaction, state.simulated.has(network));
  if (url) return el("a", { href: url, target: "_blank", rel: "noopener noreferrer", class: "mono" }, short(transaction));
  return transaction ? el("span", { class: "mono" }, short(transaction)) : null;
}

function lineRow(line) {
  const proof = evidence(line);
  const receipt = line.request_id && el("button", { type: "button", class: "small", "aria-label": `Receipt of ${line.request_id}`, onclick: () => showReceipt(line.request_id) }, "Receipt");
  return el(
    "tr",
    {},
    el("td", { "data-is": "When" }, time(line.at)),
    el("td", { "data-is": "What" }, el("span", {}, MOVEMENTS[line.type] ?? line.type, line.model ? el("div", { class: "hint mono" }, line.model) : null)),
    el("td", { "data-is": "Amount", class: "number" }, usd(line.amount_usd)),
    el("td", { "data-is": "Balance after", class: "number" }, usd(line.balance_after_usd)),
    el("td", { "data-is": "Details" }, proof ?? receipt ?? "–"),
  );
}

async function showLines(anew) {
  const lines = byId("lines").tBodies[0];
  const offset = anew ? 0 : lines.rows.length;
  const { transactions, pagination } = await api("GET", `/api/transactions?limit=${LINES}&offset=${offset}`);
  if (anew) fill(lines);
  // Others came meanwhile, such as the same ones by a second press.
  if (lines.rows.length !== offset) return;
  lines.append(...transactions.map(lineRow));
  byId("more").hidden = !pagination.has_more;
}

const openReceipt = latest((receipt) => {
  const facts = [["Request", receipt.request_id], ["Model", receipt.model], ["Route", receipt.path], ["Ended", `${time(receipt.ended_at, 19)} UTC`], ["Answer", receipt.complete ? "complete" : "broken off"], ["Quote", usd(receipt.quote_usd)], ["Charged", usd(receipt.charge_usd)], ["Paid by allowance", usd(receipt.allowance_usd)], ["Given back", usd(receipt.refunded_usd)], ["Tokens in, out", `${receipt.input_tokens.toLocaleString("en")}, ${receipt.output_tokens.toLocaleString("en")}`], ["Transaction", evidence(receipt)]];
  fill(byId("receipt-facts"), ...facts.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  byId("receipt").showModal();
});

const showReceipt = (id) => openReceipt(api("GET", `/api/receipts/${id}`)).catch((error) => say(byId("say"), "bad", "The receipt cannot be shown.", error.message));

/** A cell of CSV. A text that a spreadsheet would take for a formula is marked as a text. */
const cell = (value) => {
  const text = String(value ?? "");
  const plain = typeof value === "string" && /^[=+\-@\t\r]/.test(text) && !/^-?[\d.]+$/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(plain) ? `"${plain.replace(/"/g, '""')}"` : plain;
};

async function exportCsv() {
  const columns = ["id", "at", "type", "amount_usd", "balance_after_usd", "request_id", "model", "network", "transaction"];
  const rows = [columns.join(",")];
  try {
    for (let offset = 0, more = true; more; offset += LINES_AT_ONCE) {
      const { transactions, pagination } = await api("GET", `/api/transactions?limit=${LINES_AT_ONCE}&offset=${offset}`);
      rows.push(...transactions.map((line) => columns.map((name) => cell(line[name])).join(",")));
      more = pagination.has_more;
    }
    const link = el("a", { href: URL.createObjectURL(new Blob([rows.join("\r\n") + "\r\n"], { type: "text/csv" })), download: `farebox-${time(Date.now(), 10)}.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) {
    say(byId("say"), "bad", "The export did not work.", error.message);
  }
}

const shown = (work) => () => work().catch((error) => say(byId("say"), "bad", "That did not work.", error.message));

function start() {
  byId("out").onclick = () => {
    signOut(state, leave);
    fill(byId("fresh"));
  };
  byId("new-key").onclick = shown(() => edit(null));
  byId("key-form").addEventListener("submit", save);
  byId("k-cancel").onclick = () => byId("edit").close();
  byId("ask-no").onclick = () => byId("ask").close();
  byId("receipt-close").onclick = () => byId("receipt").close();
  byId("days").onchange = shown(showUsage);
  byId("more").onclick = shown(() => showLines(false));
  byId("csv").onclick = exportCsv;
  window.addEventListener("resize", drawUsage);
  welcome(enter);
}

start();
