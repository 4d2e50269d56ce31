// Practice wallets, for networks whose money is simulated: made here, kept for this tab, worth nothing anywhere.
import * as evm from "./evm.js";
import * as solana from "./solana.js";

const NAME = "Practice wallet";

function kept(name, make) {
  const known = sessionStorage.getItem(name);
  if (known) return known;
  const made = make();
  sessionStorage.setItem(name, made);
  return made;
}

function evmWallet() {
  const key = kept("farebox-practice-evm", evm.newKey);
  const own = evm.addressOf(key);
  return {
    id: "practice-evm",
    name: NAME,
    family: "evm",
    connect: async () => own,
    ready: async () => null,
    prepare: async (offer, units, validBefore) => evm.authorization(offer, own, units, validBefore),
    pay: async (offer, authorization) => ({ signature: evm.sign(key, evm.digest(evm.typedData(offer, authorization))), authorization }),
    signText: async (text) => evm.sign(key, evm.textDigest(text)),
  };
}

/** The bytes before an ed25519 seed in PKCS #8. */
const PKCS8 = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

async function solanaWallet() {
  const seed = evm.unhex(kept("farebox-practice-solana", () => evm.hex(crypto.getRandomValues(new Uint8Array(32)))));
  const key = await crypto.subtle.importKey("pkcs8", Uint8Array.from([...PKCS8, ...seed]), "Ed25519", true, ["sign"]);
  const { x } = await crypto.subtle.exportKey("jwk", key);
  const own = solana.base58(Uint8Array.from(atob(x.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0)));
  const sign = async (bytes) => new Uint8Array(await crypto.subtle.sign("Ed25519", key, bytes));
  return {
    id: "practice-solana",
    name: NAME,
    family: "solana",
    connect: async () => own,
    ready: async () => null,
    prepare: (offer, units) => solana.message(offer, own, units),
    pay: async (offer, message) => ({ transaction: solana.base64(solana.transaction(message, await sign(message))) }),
    signText: async (text) => solana.base58(await sign(new TextEncoder().encode(text))),
  };
}

/** Those that this browser can make. */
export async function practiceWallets() {
  const wallets = [evmWallet()];
  try {
    wallets.push(await solanaWallet());
  } catch {
    // An older browser has no ed25519; the other family is left.
  }
  return wallets;
}
