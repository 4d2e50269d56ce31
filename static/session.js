// Signing in with a wallet: it signs a short text, and the gateway answers with a token that lives in this page alone.
import { ask, encode, exchange, refusal } from "./api.js";
import { chainIdOf, familyOf } from "./networks.js";
import { byId, isSimulated, say } from "./page.js";
import { discover, walletButtons } from "./wallets.js";

/** The text that a wallet signs to say who it is (EIP-4361, and its twin for Solana). */
function signInText({ info, address, chain, family }) {
  const kind = family === "solana" ? "Solana" : "Ethereum";
  const lines = [`URI: ${location.origin}${location.pathname}`, "Version: 1", `Chain ID: ${chain.split(":")[1]}`, `Nonce: ${info.nonce}`, `Issued At: ${info.issuedAt}`, `Expiration Time: ${info.expirationTime}`];
  return `${location.host} wants you to sign in with your ${kind} account:\n${address}\n\n${info.statement}\n\n${lines.join("\n")}`;
}

/** What comes of some work while `current` holds. Afterwards it is for nobody: who waits for it is left waiting, and shows nothing. */
async function during(current, work) {
  try {
    const answer = await work;
    if (current()) return answer;
  } catch (error) {
    if (current()) throw error;
  }
  return new Promise(() => {});
}

/** Opens a session for a wallet, as long as it is the one that is `chosen`: `{address, token}`. */
async function signIn(wallet, chosen) {
  const address = await during(chosen, wallet.connect());
  const invited = await during(chosen, exchange("GET", `/api/v1/x402/balance/${address}`));
  const challenge = invited.body.extensions?.["sign-in-with-x"];
  if (!challenge) throw refusal(invited);
  const { chainId: chain, type } = challenge.supportedChains.filter(({ chainId }) => familyOf(chainId) === wallet.family).at(-1);
  const message = signInText({ info: challenge.info, address, chain, family: wallet.family });
  say(byId("say"), "wait", "Your wallet asks you now.", `Look that it names ${location.host}, then sign or refuse there.`);
  const signature = await during(chosen, wallet.signText(message));
  const chainId = wallet.family === "evm" ? chainIdOf(chain) : chain;
  const header = encode({ address, signature, message, timestamp: Date.parse(challenge.info.issuedAt), chainId, type });
  const { token } = await during(chosen, ask("POST", "/api/session", { "x-sign-in-with-x": header }));
  say(byId("say"), "", null);
  return { address, token };
}

/** Asks in the name of the session in `state`, and as long as it lasts; one that the gateway does not know any more is ended by `over`. */
export const inSession = (state, over) => (method, path, body) => {
  const { token } = state;
  const current = () => token && state.token === token;
  const asked = async () => {
    try {
      return token && (await ask(method, path, { authorization: `Bearer ${token}` }, body));
    } catch (error) {
      if (error.status === 401 && current()) over();
      throw error;
    }
  };
  return during(current, asked());
};

/** Ends the session in `state`, here at once and then at the gateway. */
export function signOut(state, leave) {
  const { token } = state;
  leave("You are signed out.");
  ask("DELETE", "/api/session", { authorization: `Bearer ${token}` }).catch(() => null);
}

/** Offers this browser's wallets to sign in with, and calls `enter` with the session of the one that does. */
export function welcome(enter) {
  const missing = byId("no-wallet");
  missing.textContent = "No wallet was found in this browser. Install one, such as MetaMask, Rabby, Phantom or Solflare, and reload this page.";
  let chosen = null;
  const choose = async (wallet) => {
    chosen = wallet;
    say(byId("say"), "", null);
    let session = null;
    try {
      session = await signIn(wallet, () => chosen === wallet);
      chosen = null;
      await enter(session);
    } catch (error) {
      say(byId("say"), "bad", session ? "Something went wrong." : "You are not signed in.", error.message);
    }
  };
  const named = (wallet) => (isSimulated && wallet.id.startsWith("practice") ? Object.assign(wallet, { name: wallet.family === "evm" ? "Practice wallet" : "Practice wallet (Solana)" }) : wallet);
  discover((wallets) => {
    walletButtons(byId("wallets"), wallets.map(named), choose, null);
    missing.hidden = wallets.length > 0;
  });
}
