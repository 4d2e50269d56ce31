// How the gateway does, for its operator: what it earns, whom it asks and pays, what went wrong, and one sale step by step.
import { latest } from "./api.js";
import { chart } from "./chart.js";
import { explorer, nameOf } from "./networks.js";
import { byId, decimal, el, fill, say, snippet, time, usd } from "./page.js";
import { inSession, signOut, welcome } from "./session.js";

/** The session lives here and nowhere else: a reload signs out. */
const state = { token: null, simulated: new Set(), report: null, problem: null };

const asked = inSession(state, () => leave("Your session is over.", "Sign in again."));
const api = (path) => asked("GET", `/api/operator/${path}`);

async function enter({ address, token }) {
  state.token = token;
  byId("in").hidden = true;
  byId("out").hidden = false;
  byId("who").textContent = address;
  try {
    await refresh();
  } catch (error) {
    if (error.code !== "not_an_operator") throw error;
    fill(byId("how"), snippet(`[server]\noperators = ["${address}"]`, "the lines of config.toml"));
    byId("not").hidden = false;
    return;
  }
  byId("operator").hidden = byId("again").hidden = false;
  drawReport();
}

const PLACES = ["figures", "report", "upstreams", "networks", "open", "failures", "sale", "how"];

function leave(title, next) {
  Object.assign(state, { token: null, report: null, problem: null });
  for (const id of PLACES) fill(byId(id));
  byId("id").value = "";
  byId("operator").hidden = byId("again").hidden = byId("out").hidden = byId("not").hidden = true;
  byId("in").hidden = false;
  say(byId("say"), "", title, next);
}

const refresh = () => show(Promise.all([api(`overview?days=${byId("days").value}`), api("upstreams"), api("failures")]));

const show = latest(([now, { upstreams }, { failures }]) => {
  state.simulated = new Set(now.networks.filter(({ settlement }) => settlement === "simulated").map(({ id }) => id));
  Object.assign(state, { report: now.report, problem: now.report_problem });
  byId("as-of").textContent = time(now.now, 19);
  showNow(now);
  drawReport();
  showUpstreams(upstreams);
  showNetworks(now.networks, now.report?.now.treasury_micros);
  showOpen(now.open_payments);
  showFailures(failures);
});

const count = (number) => number.toLocaleString("en");
const money = (micros) => (micros === null || micros === undefined ? "not known" : usd(micros < 0 ? `-${decimal(BigInt(-micros))}` : decimal(BigInt(micros))));
const hint = (text) => el("p", { class: "hint" }, text);
const tag = (kind, text) => el("span", { class: `tag ${kind}` }, text);

/** A table of `[name, is a number]` columns, or a sentence where there are no rows. */
function table(caption, columns, rows, none) {
  if (!rows.length) return hint(none);
  const head = columns.map(([name, number]) => el("th", { scope: "col", class: number ? "number" : "" }, name));
  const cell = (value, i) => el("td", { "data-is": columns[i][0], class: columns[i][1] ? "number" : "" }, value);
  const line = (row) => el("tr", {}, el("th", { scope: "row" }, row[0]), ...row.slice(1).map((value, i) => cell(value, i + 1)));
  return el("div", { class: "table", role: "region", "aria-label": caption, tabindex: 0 }, el("table", { class: "stack" }, el("caption", { class: "skip" }, caption), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows.map(line))));
}

/** A button that looks a sale up. */
const look = (id) => el("button", { type: "button", class: "small", "aria-label": `Look up ${id}`, onclick: () => find(id) }, "Look up");

function showNow({ admitting, calls_in_flight: calls, blocked_wallets: blocked, open_payments: open, report, version }) {
  const figure = (name, value, more) => el("div", {}, el("dt", {}, name), el("dd", {}, value, more ? el("small", {}, more) : null));
  const now = report?.now;
  const treasury = now && Object.values(now.treasury_micros).reduce((sum, micros) => sum + micros, 0);
  const owed = now && now.liabilities_micros + now.in_transit_micros + now.outgoing_micros;
  fill(
    byId("figures"),
    figure("Selling", admitting ? "yes" : "no", admitting ? `version ${version}` : "the books cannot be written: see the log"),
    figure("Calls running", count(calls)),
    figure("Payments on their way", count(open.length)),
    blocked ? figure("Wallets blocked", count(blocked)) : null,
    ...(now
      ? [
          figure("Owed to wallets", money(owed), now.wallets === 1 ? "1 wallet with a balance" : `${count(now.wallets)} wallets with a balance`),
          figure("Settled to pay_to", money(treasury), treasury >= owed ? "by the books; covers what is owed" : "by the books; less than what is owed"),
          figure("Earned since the beginning", money(now.earned_micros), now.bad_debt_micros ? `${money(now.bad_debt_micros)} lost to transfers that vanished` : null),
          now.adjusted_micros ? figure(now.adjusted_micros < 0 ? "Given by hand" : "Taken by hand", money(Math.abs(now.adjusted_micros))) : null,
        ]
      : []),
  );
}

const SOLD = [["Calls", true], ["Revenue", true], ["Given back", true], ["Allowances", true], ["Upstream cost", true], ["Margin", true]];

/** A cost that is not known is said to be so, and is never nothing. */
function cost({ cost_micros: known, calls_of_unknown_cost: unknown }) {
  if (!unknown) return money(known ?? 0);
  return known === null ? "not known" : `${money(known)} and ${unknown === 1 ? "1 call" : `${count(unknown)} calls`} not known`;
}

function sold(name, sums, reverse) {
  const line = ([key, row]) => [key, count(row.calls), money(row.revenue_micros), money(row.refunded_micros), money(row.allowance_micros), cost(row), money(row.margin_micros)];
  const rows = Object.entries(sums).map(line);
  return [el("h3", {}, `By ${name.toLowerCase()}`), table(`Earnings by ${name.toLowerCase()}`, [[name, false], ...SOLD], reverse ? rows.reverse() : rows, "Nothing was sold in this time.")];
}

/** Again when the page changes its width, so that words keep their size. */
function drawReport() {
  const { report, problem } = state;
  byId("earned").hidden = !report && !problem;
  if (!report) return say(byId("report"), "bad", problem && "It cannot be shown now.", problem);
  const bar = ([date, row]) => {
    const [whole, cost] = [row.revenue_micros / 1e6, (row.cost_micros ?? 0) / 1e6];
    return cost && row.margin_micros >= 0 ? [{ date, model: "Upstream cost", charge_usd: cost }, { date, model: "Margin", charge_usd: row.margin_micros / 1e6 }] : [{ date, model: "Revenue", charge_usd: whole }];
  };
  const rows = Object.entries(report.days).flatMap(bar);
  const { total } = report;
  const gas = Object.values(report.networks).reduce((sum, row) => (sum === null || row.fees_micros === null ? null : sum + row.fees_micros), 0);
  const sum = el("p", {}, `${total.calls === 1 ? "1 call" : `${count(total.calls)} calls`}, ${money(total.revenue_micros)} revenue, margin ${money(total.margin_micros)} before ${gas === null ? "gas" : `${money(gas)} of gas`}.`);
  const span = hint(`From ${report.from} to ${report.until} (UTC), added up at ${time(report.made_at, 19)}. What is given back counts on the day of that.`);
  const networks = Object.entries(report.networks).map(([id, row]) => [nameOf(id), count(row.payments), money(row.received_micros), money(row.credited_micros), money(row.reversed_micros), money(row.paid_out_micros), count(row.transactions), row.fees_micros === null ? `${BigInt(row.fees).toLocaleString("en")} ${id.startsWith("solana:") ? "lamports" : "wei"}` : money(row.fees_micros)]);
  fill(
    byId("report"),
    sum,
    span,
    ...(rows.length ? chart({ from: report.from, to: report.until, rows }, Math.max(byId("report").clientWidth, 280)) : []),
    ...sold("Model", report.models),
    ...sold("Day", report.days, true),
    ...sold("Upstream", report.upstreams),
    el("h3", {}, "By network"),
    table("Money by network", [["Network", false], ["Payments", true], ["Received", true], ["Topped up", true], ["Vanished", true], ["Paid out", true], ["Our transactions", true], ["Gas", true]], networks, "Nothing came in in this time."),
  );
}

const MOODS = { up: "good", resting: "off", trying: "" };

function showUpstreams(upstreams) {
  const row = (it) => {
    const wait = it.asked_again_in_seconds ? `asked again in ${it.asked_again_in_seconds} s` : null;
    const resting = it.resting_models.map(({ model, account, seconds }) => el("div", { class: "hint" }, `${model} rests for ${seconds} s${account ? ` for ${account} alone` : ""}`));
    const [last] = it.latest_failures;
    const told = last ? el("span", {}, el("div", {}, `${time(last.at, 19)}, ${last.code}`), el("div", { class: "hint" }, [last.model, last.cause].filter(Boolean).join(": ")), look(last.request_id)) : "–";
    return [it.name, el("span", {}, tag(MOODS[it.state] ?? "", it.state), wait && el("div", { class: "hint" }, wait), ...resting), count(it.answered), count(it.failed), told];
  };
  fill(byId("upstreams"), table("Upstreams", [["Name", false], ["State", false], ["Answered", true], ["Failed", true], ["Last failure (UTC)", false]], upstreams.map(row), "No upstream is configured."));
}

function showNetworks(networks, settled) {
  const row = (it) => [nameOf(it.id), el("span", {}, tag(it.sellable ? "good" : "off", it.sellable ? "sold on" : "not sold on"), el("div", { class: "hint" }, it.problem ? `${it.settlement}: ${it.problem}` : it.settlement)), it.gas_usd === null ? "not known" : usd(it.gas_usd), settled ? money(settled[it.id] ?? 0) : "not known", el("span", { class: "mono" }, it.pay_to)];
  fill(byId("networks"), table("Networks", [["Network", false], ["State", false], ["Gas per payment", true], ["Settled", true], ["Paid to", false]], networks.map(row), "No network is configured."));
}

function showOpen(open) {
  const row = (it) => [time(it.since, 19), nameOf(it.network), it.state.toLowerCase(), usd(it.amount_usd), it.payout ? "payout" : it.top_up ? "top-up" : "call", el("span", { class: "mono" }, it.account), look(it.payment_id)];
  fill(byId("open"), table("Payments on their way", [["Since (UTC)", false], ["Network", false], ["State", false], ["Amount", true], ["For", false], ["Wallet", false], ["", false]], open.map(row), "None: every payment has arrived or is closed."));
}

function showFailures(failures) {
  const what = (it) => el("span", {}, el("div", {}, it.reason ? `${it.code}: ${it.reason}` : it.code), el("div", { class: "hint" }, it.broke_off ? "the answer broke off" : null, it.broke_off && it.cause ? ": " : null, it.cause));
  const row = (it) => [time(it.at, 19), String(it.status), what(it), it.model ?? "–", it.upstream ?? "–", look(it.request_id)];
  fill(byId("failures"), table("Recent failures", [["When (UTC)", false], ["Status", false], ["What", false], ["Model", false], ["Upstream", false], ["", false]], failures.map(row), "None."));
}

const STEPS = { quote: "Quote", signature: "Signature verified", claim: "Claimed in the books", hold: "Held of the balance", signed: "Our transaction signed", sent: "Sent to the chain", confirmed: "Confirmed on the chain", upstream: "Upstream", charge: "Charge", remainder: "Remainder" };
const STATES = { done: "", waiting: ", waiting", failed: ", failed", skipped: ", not reached" };
const FACTS = {
  at_most_usd: "At most", route: "Route", payer: "Payer", network: "Network", asset: "Token", amount_usd: "Amount", payment_id: "Payment", note: "Note", transactions: "Transactions", transaction: "Transaction", block: "Block", final: "Final", vanished_once: "Vanished once", reason: "Reason",
  account: "Wallet", key: "Key", paid_by: "Paid by", model: "Model", upstream: "Upstream", answer: "Answer", tokens_in: "Tokens in", tokens_out: "Tokens out", cache_read: "Read from cache", cache_write: "Written to cache", units: "Units", code: "Code", cause: "Cause", charge_usd: "Charged", cost_usd: "Upstream cost", of_the_allowance_usd: "Of the allowance", became_balance_usd: "Became balance", released_usd: "Released", refunded_usd: "Given back later",
};

/** One fact of a step as nodes. */
function fact(name, value, network) {
  const shown = (text) => {
    const url = /^transaction/.test(name) && network && explorer(network, text, state.simulated.has(network));
    return url ? el("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, text) : text;
  };
  const text = name.endsWith("_usd") ? usd(value) : value === true ? "yes" : value === false ? "not yet" : typeof value === "number" ? count(value) : null;
  const nodes = Array.isArray(value) ? value.map((one) => el("div", {}, shown(one))) : [text ?? shown(String(value))];
  return [el("dt", {}, FACTS[name] ?? name), el("dd", { class: /_id$|^transaction|^payer$|^account$|^key$|^asset$/.test(name) ? "mono" : "" }, ...nodes)];
}

function stepOf({ name, state: how, at, facts }, network) {
  const known = Object.entries(facts).filter(([, value]) => value !== null && value !== 0 && !(Array.isArray(value) && !value.length));
  const reached = how === "done" || how === "failed" ? known : known.filter(([key]) => key === "note" || key === "payment_id" || key === "model");
  return el("li", { class: how }, el("h3", {}, STEPS[name] ?? name, STATES[how]), at && how !== "skipped" ? el("p", { class: "hint" }, `${time(at, 19)} UTC`) : null, reached.length ? el("dl", { class: "facts" }, ...reached.flatMap(([key, value]) => fact(key, value, network))) : null);
}

const showSale = latest((sale) => {
  const names = [["Request", sale.request_id], ["Payment", sale.payment_id], ["Wallet", sale.account], ["State", sale.state?.toLowerCase()]].filter(([, value]) => value);
  const failures = sale.failures.map((it) => el("li", {}, `${time(it.at, 19)} UTC: ${it.status} ${it.code}`, it.reason ? `, ${it.reason}` : "", it.cause ? `, ${it.cause}` : ""));
  fill(
    byId("sale"),
    el("dl", { class: "facts" }, ...names.flatMap(([name, value]) => [el("dt", {}, name), el("dd", { class: "mono" }, value)])),
    el("ol", { class: "trail" }, ...sale.steps.map((step) => stepOf(step, sale.network))),
    failures.length ? el("h3", {}, "What its caller was told") : null,
    failures.length ? el("ul", {}, ...failures) : null,
  );
});

/** Shows one sale. */
async function find(id) {
  byId("id").value = id;
  try {
    await showSale(api(`sales/${encodeURIComponent(id)}`));
  } catch (error) {
    say(byId("sale"), "bad", "It cannot be shown.", error.message);
  }
  byId("sale").scrollIntoView({ block: "nearest" });
}

const shown = (work) => () => work().catch((error) => say(byId("say"), "bad", "That did not work.", error.message));

function start() {
  byId("out").onclick = () => signOut(state, leave);
  byId("again").onclick = shown(refresh);
  byId("days").onchange = shown(refresh);
  byId("find").addEventListener("submit", (event) => {
    event.preventDefault();
    find(byId("id").value.trim());
  });
  window.addEventListener("resize", drawReport);
  welcome(enter);
}

start();
