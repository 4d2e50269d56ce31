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

/** Opens a session for a wallet: `{address, token}`. */
async function signIn(wallet) {
  const address = await wallet.connect();
  const invited = await exchange("GET", `/api/v1/x402/balance/${address}`);
  const challenge = invited.body.extensions?.["sign-in-with-x"];
  if (!challenge) throw refusal(invited);
  const { chainId: chain, type } = challenge.supportedChains.filter(({ chainId }) => familyOf(chainId) === wallet.family).at(-1);
  const message = signInText({ info: challenge.info, address, chain, family: wallet.family });
  say(byId("say"), "wait", "Your wallet asks you now.", `Look that it names ${location.host}, then sign or refuse there.`);
  const signature = await wallet.signText(message);
  const chainId = wallet.family === "evm" ? chainIdOf(chain) : chain;
  const header = encode({ address, signature, message, timestamp: Date.parse(challenge.info.issuedAt), chainId, type });
  const { token } = await ask("POST", "/api/session", { "x-sign-in-with-x": header });
  say(byId("say"), "", null);
  return { address, token };
}

/**
 * Asks in the name of the session in `state`; one that the gateway does not know any more is ended by `over`. What arrives after
 * the end of its session is for nobody: who waited for it is left waiting, and shows nothing.
 */
export const inSession = (state, over) => async (method, path, body) => {
  const { token } = state;
  const current = () => token && state.token === token;
  try {
    const answer = current() && (await ask(method, path, { authorization: `Bearer ${token}` }, body));
    if (current()) return answer;
  } catch (error) {
    if (current() && error.status !== 401) throw error;
    if (current()) over();
  }
  return new Promise(() => {});
};

/** Ends the session in `state`, here at once and then at the gateway. */
export async function signOut(state, leave) {
  const { token } = state;
  state.token = null;
  await ask("DELETE", "/api/session", { authorization: `Bearer ${token}` }).catch(() => null);
  leave("You are signed out.");
}

/** Offers this browser's wallets to sign in with, and calls `enter` with the session of the one that does. */
export function welcome(enter) {
  const missing = byId("no-wallet");
  missing.textContent = "No wallet was found in this browser. Install one, such as MetaMask, Rabby, Phantom or Solflare, and reload this page.";
  const choose = async (wallet) => {
    say(byId("say"), "", null);
    let session = null;
    try {
      session = await signIn(wallet);
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
