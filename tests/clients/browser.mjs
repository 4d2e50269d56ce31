// Drives Debian's Chromium as a person does, one step of ORDER after the other (JSON, [{do, ...}]), with wallets in the page that
// sign for real. Prints one line of JSON: the outcome of each step. What the page may never do (break its policy, throw, load
// something from elsewhere) ends the run, and so does a step that cannot be done.
// Environment: ORDER, URL, CHROMIUM, PROFILE (a fresh folder), SHOTS (a folder for pictures), WALLETS (JSON, [{family, ...}]).
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { chromium } from "playwright-core";
import { install } from "./browser_wallets.mjs";
import { perform } from "./steps.mjs";

const { URL: HOME, CHROMIUM, PROFILE, SHOTS } = process.env;
const PATIENCE = 30_000;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

mkdirSync(SHOTS, { recursive: true });
const context = await chromium.launchPersistentContext(PROFILE, { executablePath: CHROMIUM, headless: true, args: FLAGS, viewport: { width: 1100, height: 800 }, acceptDownloads: true });
context.setDefaultTimeout(PATIENCE);
const page = context.pages()[0] ?? (await context.newPage());

/** As a proxy answers in the place of the gateway. */
const fulfil = (route, status, body = "<html>no</html>") => route.fulfill({ status, body, contentType: "text/html" });

/** What lets go each of the requests that are held. */
const held = [];

/** What no page of ours may do. */
const offences = [];
page.on("pageerror", (error) => offences.push(`thrown: ${error.message}`));
page.on("console", (message) => {
  // A refusal of the gateway is an answer, which the browser notes as an error.
  const refused = message.type() === "error" && /the server responded with a status of|net::ERR_/.test(message.text());
  if ((message.type() === "error" && !refused) || /Content Security Policy/i.test(message.text())) offences.push(`said: ${message.text()}`);
});
page.on("request", (request) => {
  if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(HOME)) offences.push(`asked: ${request.url()}`);
});
await context.addInitScript(() => {
  document.addEventListener("securitypolicyviolation", (event) => console.error(`Content Security Policy: ${event.violatedDirective} ${event.blockedURI}`));
});
const wallets = await install(context, JSON.parse(process.env.WALLETS ?? "[]"));

const serious = ({ impact }) => impact === "serious" || impact === "critical";
const find = ({ role, name, label, css }) => {
  if (css) return page.locator(css);
  if (label) return page.getByLabel(label, { exact: true });
  return page.getByRole(role, { name, exact: true });
};

/** Waits for what nothing announces, and not for ever. */
async function wait(what, ready) {
  const end = Date.now() + PATIENCE;
  while (!(await ready())) {
    if (Date.now() > end) throw new Error(`never happened: ${what}`);
    await page.waitForTimeout(10);
  }
}

async function picture(name, full = true) {
  await page.screenshot({ path: `${SHOTS}/${name}.png`, fullPage: full });
}

const actions = {
  open: async ({ path }) => {
    const answer = await page.goto(HOME + path);
    return answer.status();
  },
  reload: async () => void (await page.reload()),
  click: async (what) => void (await find(what).click()),
  /** Presses where something is, whether that lets itself be pressed or not. */
  poke: async (what) => void (await find(what).click({ force: true })),
  press: async ({ key }) => void (await page.keyboard.press(key)),
  fill: async (what) => void (await find(what).fill(what.text)),
  select: async (what) => void (await find(what).selectOption(what.value)),
  check: async (what) => void (await find(what).check()),
  see: async ({ text }) => void (await page.getByText(text).filter({ visible: true }).first().waitFor()),
  missing: async ({ text }) => {
    if (await page.getByText(text).filter({ visible: true }).count()) throw new Error(`${text} is shown`);
  },
  read: async (what) => {
    await find(what).first().waitFor();
    return (await find(what).allInnerTexts()).join("\n");
  },
  disabled: async (what) => find(what).isDisabled(),
  count: async ({ css }) => page.locator(css).count(),
  links: async ({ css }) => page.locator(css).evaluateAll((nodes) => nodes.map((node) => node.href)),
  evaluate: async ({ script }) => page.evaluate(script),
  becomes: async ({ script }) => wait(script, () => page.evaluate(script)),
  download: async (what) => {
    const [download] = await Promise.all([page.waitForEvent("download"), find(what).click()]);
    return readFileSync(await download.path(), "utf8");
  },
  wallet: async ({ set, name }) => void wallets.set(set, name),
  /** Has every wallet answer what it was asked, and waits until the page has heard it. */
  answer: async () => {
    wallets.set({ silent: null });
    await wait("every wallet has answered", () => page.evaluate(() => !window.walletsAsked));
  },
  asked: async () => wallets.asked(),
  chain: async ({ url, method, params }) => {
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params: params ?? [] });
    const answer = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body });
    return (await answer.json()).result;
  },
  /** Waits until a transaction waits on an EVM node. */
  until: async ({ url }) => {
    const pending = async () => Number((await actions.chain({ url, method: "txpool_status" }))?.pending);
    await wait("a transaction waits", async () => (await pending()) > 0);
  },
  /** As if the gateway were gone, or a proxy answered in its place with `status`, for requests that carry `header`. */
  failing: async ({ path, header, status, body }) => {
    const fail = (route) => (status ? fulfil(route, status, body) : route.abort());
    await page.route(`${HOME}${path}`, (route) => (route.request().headers()[header] ? fail(route) : route.continue()));
  },
  block: async ({ path }) => void (await page.route(`${HOME}${path}`, (route) => route.abort())),
  unblock: async ({ path }) => void (await page.unroute(`${HOME}${path}`)),
  /** Keeps each request for a path, or the answer to it, until it is let go; with `status` it comes to nothing then. */
  hold: async ({ path, answer, status }) => {
    await page.route(`${HOME}${path}`, async (route) => {
      const response = answer ? await route.fetch() : null;
      held.push(async () => {
        await (status ? fulfil(route, status) : route.fulfill({ response: response ?? (await route.fetch()) }));
        await (await route.request().response()).finished();
      });
    });
  },
  held: async ({ count }) => wait(`${count} requests are held`, () => held.length >= count),
  /** Lets go what was held, at least `count` of them, and waits until the page has had it; returns how many there were. */
  release: async ({ count }) => {
    await actions.held({ count });
    const all = held.splice(0);
    await Promise.all(all.map((go) => go()));
    await page.evaluate(() => new Promise((done) => setTimeout(done)));
    return all.length;
  },
  /** Has the offer of the gateway say something else. */
  forge: async ({ path, set }) => {
    await page.route(`${HOME}${path}`, async (route) => {
      const response = await route.fetch();
      const offer = await response.json();
      for (const entry of offer.accepts) {
        entry.payTo = set.payTo;
        entry.extra.memo = set.memo;
      }
      await route.fulfill({ response, json: offer });
    });
  },
  theme: async ({ scheme }) => void (await page.emulateMedia({ colorScheme: scheme })),
  type: async ({ text }) => void (await page.keyboard.type(text)),
  /** Goes to an element as the keyboard does, which must be possible within a hundred stops. */
  tab: async ({ css }) => {
    await page.locator(css).first().waitFor();
    for (let stop = 0; stop < 100; stop += 1) {
      if (await page.evaluate((wanted) => document.activeElement?.matches(wanted), css)) return stop;
      await page.keyboard.press("Tab");
    }
    throw new Error(`the keyboard does not reach ${css}`);
  },
  axe: async () => {
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    return violations.filter(serious).map(({ id, nodes }) => `${id}: ${nodes.map(({ target, failureSummary }) => `${target} ${failureSummary}`).join("; ")}`);
  },
  /** The page as it is, in both themes and at the width of a phone; nothing may be wider than that. */
  shots: async ({ name }) => {
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await picture(`${name}-${colorScheme}`);
    }
    await page.setViewportSize({ width: 375, height: 740 });
    await picture(`${name}-phone-dark`);
    await page.emulateMedia({ colorScheme: "light" });
    await picture(`${name}-phone-light`);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    await page.setViewportSize({ width: 1100, height: 800 });
    return wide;
  },
};

/** What is on the page when a step fails, for whoever reads the failure. */
const seen = () => page.evaluate(() => document.querySelector("main")?.innerText.slice(0, 3000)).catch(() => "");
for (const [name, action] of Object.entries(actions)) {
  actions[name] = async (step) => {
    try {
      return await action(step);
    } catch (error) {
      await picture("failure").catch(() => {});
      throw new Error(`${JSON.stringify(step)}: ${error.message}\n${await seen()}`);
    }
  };
}

try {
  await perform(actions, () => ({ offences: offences.splice(0) }), true);
} finally {
  await context.close();
}
