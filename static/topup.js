// Topping up: choose, compare, sign once, and wait for the chain. A reload in between goes on where it was.
import { ask, decode, encode, exchange, now, offers, refusal, TOP_UP } from "./api.js";
import { explorer, familyOf, nameOf } from "./networks.js";
import { byId, decimal, el, fill, micros, say, short, time, usd } from "./page.js";
import { discover, Stopped, walletButtons } from "./wallets.js";

/** Where a signed payment is kept until it is known what became of it. It can pay this gateway once, and nobody else. */
const KEPT = "farebox-payment";
const AGAIN_SECONDS = 7;
const range = document.querySelector("main").dataset;
const [least, suggested, most] = [range.least, range.suggested, range.most].map(micros);

/** `signing` is what a wallet is about to sign: `{units, validBefore}`. */
const state = { accepts: [], resource: null, simulated: new Set(), network: null, wallets: [], wallet: null, from: null, signing: null };

const offer = () => state.accepts.find(({ network }) => network === state.network);
const amount = () => (state.signing ? state.signing.units : micros(byId("amount").value));

/** What is wrong with the amount, or nothing. */
function complaint(units) {
  if (units === null) return "Write an amount in dollars, such as 10 or 2.50.";
  if (units < least) return `The least is ${usd(decimal(least))}.`;
  if (units > most) return `The most at once is ${usd(decimal(most))}.`;
  return null;
}

function facts() {
  const chosen = offer();
  const units = amount();
  const validBefore = state.signing?.validBefore;
  const solana = chosen && familyOf(chosen.network) === "solana";
  const until = validBefore ? `${time(validBefore * 1000, 19)} UTC (${validBefore})` : solana ? "about a minute after you press the button" : `${(chosen?.maxTimeoutSeconds ?? 300) / 60} minutes after you press the button`;
  const row = (name, value, attributes = {}) => [el("dt", {}, name), el("dd", attributes, value)];
  const rows = chosen && [
    row("Amount", units === null ? "–" : `${decimal(units).replace(/0{1,4}$/, "")} USDC`, { class: "amount" }),
    row("Network", nameOf(chosen.network) + (state.simulated.has(chosen.network) ? ", simulated" : "")),
    row("From", state.from ?? "connect a wallet", { class: "mono" }),
    row("To", chosen.payTo, { class: "mono" }),
    row("Token", `${chosen.extra?.name ?? "USDC"}, ${chosen.asset}`, { class: "mono" }),
    row("Valid until", until),
    solana && chosen.extra?.memo && row("Memo", chosen.extra.memo, { class: "mono" }),
    row("Network fee", "paid by the operator"),
  ];
  fill(byId("facts"), ...(rows || []).filter(Boolean).flat());
}

function show() {
  const family = state.network && familyOf(state.network);
  const fitting = state.wallets.filter((wallet) => wallet.family === family && (!wallet.id.startsWith("practice") || state.simulated.has(state.network)));
  walletButtons(byId("wallets"), fitting, choose, state.from && state.wallet);
  byId("no-wallet").hidden = fitting.length > 0 || !state.network;
  byId("no-wallet").textContent = family === "solana" ? "No Solana wallet was found in this browser. Install one, such as Phantom or Solflare, and reload this page." : "No Ethereum wallet was found in this browser. Install one, such as MetaMask or Rabby, and reload this page.";
  byId("connected").textContent = state.from ? `Connected: ${state.from}` : "";
  const units = amount();
  const wrong = byId("amount").value ? complaint(units) : null;
  byId("range").textContent = wrong ?? `From ${usd(decimal(least))} to ${usd(decimal(most))}.`;
  byId("amount").setAttribute("aria-invalid", String(Boolean(wrong)));
  // While a wallet signs nothing of it can be chosen anew.
  for (const id of ["networks", "wallets", "presets"]) byId(id).inert = Boolean(state.signing);
  byId("amount").readOnly = Boolean(state.signing);
  byId("sign").disabled = state.signing || !offer() || !state.from || complaint(units) !== null;
  byId("sign").textContent = units === null || wrong ? "Sign and top up" : `Sign and top up ${usd(decimal(units))}`;
  facts();
}

/** Connects a wallet, unless another one was chosen before it answered. */
async function choose(wallet) {
  Object.assign(state, { wallet, from: null });
  say(byId("say"), "", null);
  show();
  try {
    const from = await wallet.connect();
    if (state.wallet !== wallet || state.signing) return;
    state.from = from;
    say(byId("say"), "", null);
  } catch (error) {
    if (state.wallet !== wallet || state.from) return;
    say(byId("say"), "bad", "The wallet is not connected.", error.message);
  }
  show();
}

function pick(network) {
  if (state.wallet?.family !== familyOf(network)) Object.assign(state, { wallet: null, from: null });
  state.network = network;
  show();
}

/** Everything up to the signature, which is kept. Nothing has moved when this throws. */
async function signed() {
  const { wallet, network, signing } = state;
  const { units } = signing;
  const from = await wallet.connect();
  if (from !== state.from) {
    state.from = from;
    throw new Stopped("Another account is chosen in your wallet now. Compare the facts once more, then sign.");
  }
  const fresh = await offers();
  const chosen = fresh.accepts.find((one) => one.network === network);
  if (!chosen) throw new Stopped(`${nameOf(network)} is not taken at the moment. Choose another network or try again later.`);
  const compared = offer();
  state.accepts = fresh.accepts;
  if (["payTo", "asset"].some((name) => chosen[name] !== compared[name])) throw new Stopped("The gateway asks for something else now than a moment ago. Compare the facts once more before you sign.");
  const lacks = await wallet.ready(chosen, units);
  if (lacks !== null) throw new Stopped(`Your wallet has ${decimal(lacks)} USDC on ${nameOf(chosen.network)}, and this needs ${decimal(units)}. Bring USDC there, choose less, or choose another network.`);
  signing.validBefore = familyOf(network) === "evm" ? Math.floor(now() / 1000) + chosen.maxTimeoutSeconds : null;
  const accepted = { ...chosen, amount: String(units) };
  const message = await wallet.prepare(accepted, units, signing.validBefore);
  facts();
  say(byId("say"), "wait", "Your wallet asks you now.", "Compare what it shows with the facts above, then sign or refuse there.");
  const payload = await wallet.pay(accepted, message);
  const header = encode({ x402Version: 2, resource: fresh.resource, accepted, payload });
  const payment = { header, network, units: String(units), from, until: signing.validBefore ?? Math.floor(now() / 1000) + 90 };
  localStorage.setItem(KEPT, JSON.stringify(payment));
  return payment;
}

async function press(event) {
  event.preventDefault();
  if (byId("sign").disabled) return;
  state.signing = { units: amount(), validBefore: null };
  say(byId("say"), "wait", "Your wallet is asked for its account.", "If it is locked, open it and answer there. To begin again, reload this page.");
  show();
  let payment = null;
  try {
    payment = await signed();
    say(byId("say"), "", null);
  } catch (error) {
    say(byId("say"), "bad", "Nothing was paid.", error.message);
  }
  state.signing = null;
  show();
  if (payment) return follow(payment);
  // What is disabled loses the focus.
  if (document.activeElement === document.body) byId("sign").focus();
}

/** Another page may keep a payment of its own, which stays. */
function forget(payment) {
  if (localStorage.getItem(KEPT) === JSON.stringify(payment)) localStorage.removeItem(KEPT);
}

function progress(payment, step, words) {
  const names = ["Signed", `Verifying, then settling on ${nameOf(payment.network)}`, "Credited"];
  const mark = (index) => (index < step ? "done" : index === step ? "now" : "");
  const list = el("ol", { class: "progress" }, ...names.map((name, i) => el("li", { class: mark(i), "aria-current": i === step ? "step" : null }, name)));
  const title = el("h2", {}, `Topping up ${usd(decimal(BigInt(payment.units)))}`);
  fill(byId("pending"), el("section", { class: "card", "aria-live": "polite" }, title, list, ...words));
}

const text = (...parts) => el("p", {}, ...parts);
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

/** Statuses with which the gateway itself says that a payment was not taken. */
const VERDICTS = [400, 402, 409];

/** Whether it is not known yet what became of a payment: what stands between us and the gateway may answer anything. The same
 *  payment may be sent again, since it is credited once. */
const isOpen = ({ status, code }) => !/^[A-Z][A-Z0-9_]+$/.test(code) || !(VERDICTS.includes(status) || code === "ACCOUNT_BLOCKED") || code === "PAYMENT_IN_PROGRESS";

/** Sends a payment until it is known what became of it. */
async function follow(payment) {
  byId("form").hidden = true;
  let words = [text("This takes some seconds. You may reload or close this page: the payment is remembered here, and the money cannot go anywhere else.")];
  for (;;) {
    progress(payment, 1, words);
    let trouble;
    try {
      const answer = await exchange("POST", TOP_UP, { "payment-signature": payment.header });
      // Whatever else answers with 200, such as the sign-in page of a network, has not credited anything.
      const receipt = answer.status === 200 && answer.body.success && answer.headers.get("payment-response");
      if (receipt) return credited(payment, answer.body.data, decode(receipt));
      trouble = refusal(answer);
    } catch (error) {
      trouble = error;
    }
    if (!isOpen(trouble)) return failed(payment, trouble);
    words = waiting(payment, trouble);
    progress(payment, 1, words);
    await pause(trouble.retryAfter || AGAIN_SECONDS);
  }
}

function waiting(payment, trouble) {
  if (trouble.status === 0) return [text(trouble.message), text("It is tried again by itself.")];
  if (trouble.status === 429) return [text("The gateway asks to wait a little. It is tried again by itself.")];
  const settling = trouble.code === "PAYMENT_IN_PROGRESS" || trouble.code === "SETTLEMENT_TIMEOUT";
  if (settling) return [text("Your payment is verified and on its way; the chain is slow at the moment. It is credited when it arrives, also if you close this page. Do not sign another one.")];
  const over = now() / 1000 > payment.until + 60;
  const button = el("button", { type: "button", onclick: () => (forget(payment), location.reload()) }, "Forget this payment");
  return [text(trouble.message), text("It is tried again by itself."), over && el("p", {}, "What you signed is no longer valid, so it cannot be used any more if it has not been. ", button)].filter(Boolean);
}

function failed(payment, trouble) {
  forget(payment);
  fill(byId("pending"));
  byId("form").hidden = false;
  const expired = /valid_before|block_?hash|expired/.test(trouble.details?.reason ?? "");
  // Solana's reasons have no word for it, and the sentence has.
  const poor = /insufficient/.test(trouble.details?.reason ?? "") || /token account holds/.test(trouble.message);
  const title = expired ? "What you signed is no longer valid." : poor ? "Your wallet has too little USDC on this network." : "This payment was not taken.";
  const next = expired ? "Nothing was paid. Press the button and sign again, within the time that is shown." : poor ? "Nothing was paid. Bring USDC to this network, choose less, or choose another network." : trouble.status === 409 ? "" : "Nothing was paid.";
  say(byId("say"), "bad", title, trouble.message.replace(/^[a-z]/, (letter) => letter.toUpperCase()).replace(/[^.!?]$/, "$&."), next);
}

function credited(payment, { amountCredited, newBalance }, { transaction, network }) {
  const url = explorer(network, transaction, state.simulated.has(network));
  const link = url ? el("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, short(transaction)) : `${short(transaction)}${state.simulated.has(network) ? " (simulated)" : ""}`;
  progress(payment, 3, [
    el("dl", { class: "facts" }, el("dt", {}, "Credited"), el("dd", { class: "amount" }, usd(amountCredited)), el("dt", {}, "Transaction"), el("dd", { class: "mono", id: "transaction" }, link),
      ...(newBalance === undefined ? [] : [el("dt", {}, "New balance"), el("dd", { class: "amount", id: "balance" }, usd(newBalance))])),
    el("div", { class: "row" }, el("a", { class: "button main", href: "/dashboard" }, "Make a key"), el("a", { class: "button", href: "/topup" }, "Top up again")),
  ]);
  byId("pending").querySelector("h2").textContent = "Topped up";
  forget(payment);
}

function choices() {
  const one = ({ network }, i) => {
    const radio = el("input", { type: "radio", name: "network", value: network, checked: i === 0, onchange: () => pick(network) });
    return el("label", { class: "choice" }, radio, nameOf(network));
  };
  fill(byId("networks"), ...state.accepts.map(one));
  pick(state.accepts[0].network);
}

async function start() {
  byId("form").addEventListener("submit", press);
  byId("amount").addEventListener("input", show);
  byId("amount").value = decimal(suggested).replace(/0{1,4}$/, "");
  const presets = [...new Set([least, suggested, 25000000n, 50000000n])].filter((units) => complaint(units) === null);
  const preset = (units) => el("button", { type: "button", class: "small", onclick: () => ((byId("amount").value = decimal(units).replace(/0{1,4}$/, "")), show()) }, usd(decimal(units)).replace(".00", ""));
  fill(byId("presets"), ...presets.map(preset));
  const { networks } = await ask("GET", "/healthz");
  state.simulated = new Set(networks.filter(({ settlement }) => settlement === "simulated").map(({ id }) => id));
  const kept = localStorage.getItem(KEPT);
  const resumed = kept ? follow(JSON.parse(kept)) : null;
  Object.assign(state, await offers());
  choices();
  discover((wallets) => ((state.wallets = wallets), show()));
  await resumed;
}

start().catch((error) => say(byId("say"), "bad", "This gateway takes no payments at the moment.", error.message));
