// The wallets of this browser, each with the same few verbs: EVM ones by EIP-6963, Solana's by the Wallet Standard.
import { authorization, checksummed, hex, typedData } from "./evm.js";
import { chainIdOf, nameOf } from "./networks.js";
import * as solana from "./solana.js";
import { el, isSimulated } from "./page.js";
import { practiceWallets } from "./practice.js";

/** What stops a payment before anything was signed, in a sentence that says what to do. */
export class Stopped extends Error {}

const REFUSED = 4001;
const UNKNOWN_CHAIN = 4902;

/** What a wallet threw, as a sentence. */
function told(error) {
  const code = error?.code ?? error?.data?.originalError?.code;
  if (code === REFUSED || /reject|denied|declined|cancel/i.test(error?.message ?? "")) {
    return new Stopped("You refused in your wallet. Nothing was signed and nothing moved. Press the button again when you want to.");
  }
  if (code === -32002) return new Stopped("Your wallet is waiting for an answer already. Open it and answer there.");
  return new Stopped(`Your wallet could not do it: ${String(error?.message ?? error).slice(0, 200)}. Nothing moved.`);
}

async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    throw error instanceof Stopped ? error : told(error);
  }
}

class EvmWallet {
  constructor({ uuid, name, icon }, provider) {
    Object.assign(this, { id: uuid, name, icon, family: "evm", provider, own: null });
  }

  ask(method, params) {
    return attempt(() => this.provider.request({ method, params }));
  }

  async connect() {
    const accounts = await this.ask("eth_requestAccounts");
    if (!accounts?.length) throw new Stopped("Your wallet named no account. Choose one in it and connect again.");
    this.own = checksummed(accounts[0]);
    return this.own;
  }

  /** Brings the wallet to the network of an offer, and looks whether it has the money. */
  async ready(offer, units) {
    const wanted = chainIdOf(offer.network);
    if (Number(await this.ask("eth_chainId")) !== wanted) await this.change(wanted, offer.network);
    if (Number(await this.ask("eth_chainId")) !== wanted) throw new Stopped(`Your wallet is on another network. Switch it to ${nameOf(offer.network)} and press the button again.`);
    const has = await this.balance(offer.asset).catch(() => null);
    return has !== null && has < units ? has : null;
  }

  async change(chainId, network) {
    try {
      await this.provider.request({ method: "wallet_switchEthereumChain", params: [{ chainId: "0x" + chainId.toString(16) }] });
    } catch (error) {
      const unknown = error?.code === UNKNOWN_CHAIN || error?.data?.originalError?.code === UNKNOWN_CHAIN;
      if (unknown) throw new Stopped(`Your wallet does not know ${nameOf(network)} yet. Add that network in your wallet, then press the button again.`);
      throw new Stopped(`Your wallet is on another network. Switch it to ${nameOf(network)} and press the button again.`);
    }
  }

  async balance(token) {
    const data = "0x70a08231" + this.own.slice(2).toLowerCase().padStart(64, "0");
    return BigInt(await this.provider.request({ method: "eth_call", params: [{ to: token, data }, "latest"] }));
  }

  async prepare(offer, units, validBefore) {
    return authorization(offer, this.own, units, validBefore);
  }

  async pay(offer, message) {
    const signature = await this.ask("eth_signTypedData_v4", [this.own, JSON.stringify(typedData(offer, message))]);
    return { signature, authorization: message };
  }

  signText(text) {
    return this.ask("personal_sign", ["0x" + hex(new TextEncoder().encode(text)), this.own]);
  }
}

class SolanaWallet {
  constructor(wallet) {
    Object.assign(this, { id: `solana ${wallet.name}`, name: wallet.name, icon: wallet.icon, family: "solana", wallet, account: null });
  }

  async connect() {
    const { accounts } = await attempt(() => this.wallet.features["standard:connect"].connect());
    this.account = accounts.find(({ chains }) => chains.some((chain) => chain.startsWith("solana:"))) ?? accounts[0];
    if (!this.account) throw new Stopped("Your wallet named no account. Choose one in it and connect again.");
    return this.account.address;
  }

  async ready() {
    return null;
  }

  prepare(offer, units) {
    return solana.message(offer, this.account.address, units).catch((error) => {
      throw new Stopped(error.message);
    });
  }

  async pay(offer, message) {
    const chain = offer.network.endsWith("1") && offer.network.includes("EtWT") ? "solana:devnet" : "solana:mainnet";
    const input = { account: this.account, transaction: solana.transaction(message), chain };
    const [{ signedTransaction }] = await attempt(() => this.wallet.features["solana:signTransaction"].signTransaction(input));
    return { transaction: solana.base64(signedTransaction) };
  }

  async signText(text) {
    const input = { account: this.account, message: new TextEncoder().encode(text) };
    const [{ signature }] = await attempt(() => this.wallet.features["solana:signMessage"].signMessage(input));
    return solana.base58(signature);
  }
}

/** Calls `changed` with all wallets whenever another one has introduced itself. */
export function discover(changed) {
  const wallets = new Map();
  const note = (wallet) => {
    if (wallets.has(wallet.id)) return;
    wallets.set(wallet.id, wallet);
    changed([...wallets.values()]);
  };
  window.addEventListener("eip6963:announceProvider", ({ detail }) => note(new EvmWallet(detail.info, detail.provider)));
  window.dispatchEvent(new Event("eip6963:requestProvider"));
  const suits = ({ features }) => features["standard:connect"] && features["solana:signTransaction"] && features["solana:signMessage"];
  const register = (...found) => found.filter(suits).forEach((wallet) => note(new SolanaWallet(wallet)));
  window.addEventListener("wallet-standard:register-wallet", ({ detail: introduce }) => introduce({ register }));
  window.dispatchEvent(new CustomEvent("wallet-standard:app-ready", { detail: { register } }));
  if (isSimulated) practiceWallets().then((made) => made.forEach(note));
  // Wallets from before EIP-6963 put themselves into the window.
  setTimeout(() => {
    const known = [...wallets.values()].some((wallet) => wallet.provider);
    if (!known && window.ethereum?.request) note(new EvmWallet({ uuid: "window", name: "Browser wallet" }, window.ethereum));
    if (!wallets.size) changed([]);
  }, 400);
}

const buttons = new Map();

/** One button per wallet, which stays the same one: who is about to press it does not lose it. Only pictures that came with the wallet are shown. */
export function walletButtons(node, wallets, choose, chosen) {
  const picture = ({ icon }) => (icon?.startsWith("data:image/") ? el("img", { src: icon, alt: "" }) : null);
  for (const wallet of wallets) {
    if (!buttons.has(wallet)) buttons.set(wallet, el("button", { type: "button", onclick: () => choose(wallet) }, picture(wallet), wallet.name));
    buttons.get(wallet).setAttribute("aria-pressed", wallet === chosen);
    buttons.get(wallet).className = wallet === chosen ? "main" : "";
  }
  for (const [wallet, button] of buttons) {
    if (!wallets.includes(wallet)) button.remove();
    else if (!button.isConnected) node.append(button);
  }
}
