// Wallets for a browser under test, as an extension brings them: EIP-6963 with EIP-1193 for EVM chains, the Wallet Standard for
// Solana. Their keys stay out of the page: what it asks is signed here, by viem and by @solana/kit.
import { createPrivateKey, sign as signBytes } from "node:crypto";
import { getBase58Decoder, getBase58Encoder } from "@solana/kit";
import { privateKeyToAccount } from "viem/accounts";

const ICON = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'><circle cx='4' cy='4' r='4' fill='%23f6851b'/></svg>";
const hex = (number) => `0x${number.toString(16)}`;

class ProviderError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** `{family: "evm", name, key, chainId, rpc, knows: [chain ids], refuse, silent, icon}`; `silent` is the method that gets no answer. */
function evmWallet(settings) {
  const account = () => privateKeyToAccount(settings.key);
  const refused = () => {
    if (settings.refuse) throw new ProviderError(4001, "User rejected the request.");
  };
  const methods = {
    eth_requestAccounts: () => (refused(), [account().address.toLowerCase()]),
    eth_chainId: () => hex(settings.chainId),
    wallet_switchEthereumChain: ([{ chainId }]) => {
      if (!(settings.knows ?? []).includes(Number(chainId))) throw new ProviderError(4902, "Unrecognized chain ID.");
      refused();
      settings.chainId = Number(chainId);
      return null;
    },
    eth_signTypedData_v4: ([from, text]) => {
      const { EIP712Domain, ...types } = JSON.parse(text).types;
      const { domain, primaryType, message } = JSON.parse(text);
      // As wallets do: not for another account, and not for a chain that they are not on.
      if (from.toLowerCase() !== account().address.toLowerCase()) throw new ProviderError(4100, "Unauthorized account.");
      if (domain.chainId !== settings.chainId) throw new ProviderError(-32603, "Provided chainId must match the active chainId.");
      refused();
      return account().signTypedData({ domain, types, primaryType, message });
    },
    personal_sign: ([raw]) => (refused(), account().signMessage({ message: { raw } })),
    eth_call: async (params) => {
      const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "eth_call", params });
      const answer = await fetch(settings.rpc, { method: "POST", headers: { "content-type": "application/json" }, body });
      return (await answer.json()).result;
    },
  };
  return async ({ method, params }) => {
    if (!methods[method]) throw new ProviderError(4200, `${method} is not supported.`);
    return methods[method](params);
  };
}

/** `{family: "solana", name, key, refuse, silent}`, the key as base58 of 64 bytes. */
function solanaWallet(settings) {
  const methods = {
    connect: (own) => own,
    signMessage: (own, key, message) => signBytes(null, Buffer.from(message), key),
    // The wire: how many signatures, those, and the message, whose second signer is the payer.
    signTransaction: (own, key, transaction) => {
      const wire = Buffer.from(transaction);
      const message = wire.subarray(1 + 64 * wire[0]);
      const signer = message.subarray(5 + 32, 5 + 64);
      if (!signer.equals(own)) throw new Error(`the second signer is ${getBase58Decoder().decode(signer)}`);
      signBytes(null, message, key).copy(wire, 1 + 64);
      return wire;
    },
  };
  return async ({ method, bytes }) => {
    if (settings.refuse) throw new ProviderError(4001, "User rejected the request.");
    const own = Buffer.from(getBase58Encoder().encode(settings.key));
    const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), own.subarray(0, 32)]);
    const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    return [...methods[method](own.subarray(32), key, bytes)];
  };
}

/** Runs in the page. */
function introduce(wallets) {
  window.walletsAsked = 0;
  const ask = async (index, request) => {
    window.walletsAsked += 1;
    const { value, error } = await window.askWallet(index, request);
    window.walletsAsked -= 1;
    if (error) throw Object.assign(new Error(error.message), { code: error.code });
    return value;
  };
  wallets.forEach((wallet, index) => {
    if (wallet.family === "evm") {
      const detail = Object.freeze({ info: { uuid: `wallet-${index}`, name: wallet.name, icon: wallet.icon, rdns: "test.wallet" }, provider: { request: (request) => ask(index, request), on() {} } });
      const announce = () => window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail }));
      window.addEventListener("eip6963:requestProvider", announce);
      return;
    }
    const chains = ["solana:mainnet", "solana:devnet"];
    const connect = async () => {
      const publicKey = new Uint8Array(await ask(index, { method: "connect" }));
      return { accounts: [{ address: await window.addressOf([...publicKey]), publicKey, chains, features: ["solana:signTransaction", "solana:signMessage"] }] };
    };
    const signed = async (method, bytes) => new Uint8Array(await ask(index, { method, bytes: [...bytes] }));
    const standard = {
      version: "1.0.0", name: wallet.name, icon: wallet.icon, chains, accounts: [],
      features: {
        "standard:connect": { version: "1.0.0", connect },
        "solana:signTransaction": { version: "1.0.0", supportedTransactionVersions: ["legacy", 0], signTransaction: async (...inputs) => Promise.all(inputs.map(async ({ transaction }) => ({ signedTransaction: await signed("signTransaction", transaction) }))) },
        "solana:signMessage": { version: "1.0.0", signMessage: async (...inputs) => Promise.all(inputs.map(async ({ message }) => ({ signedMessage: message, signature: await signed("signMessage", message) }))) },
      },
    };
    const register = ({ register }) => register(standard);
    window.dispatchEvent(new CustomEvent("wallet-standard:register-wallet", { detail: register }));
    window.addEventListener("wallet-standard:app-ready", ({ detail }) => register(detail));
  });
}

/** Puts `wallets` into every page of a browser. `set` changes those of a name, or all; `asked` tells what they were asked since the last time. */
export async function install(context, wallets) {
  const [asked, waiting] = [[], []];
  const signers = wallets.map((wallet) => (wallet.family === "evm" ? evmWallet(wallet) : solanaWallet(wallet)));
  await context.exposeFunction("askWallet", async (index, request) => {
    asked.push({ wallet: wallets[index].name, method: request.method, params: request.params });
    while (wallets[index].silent === request.method) await new Promise((go) => waiting.push(go));
    try {
      return { value: await signers[index](request) };
    } catch ({ code, message }) {
      return { error: { code, message } };
    }
  });
  await context.exposeFunction("addressOf", (bytes) => getBase58Decoder().decode(Uint8Array.from(bytes)));
  const told = wallets.map(({ family, name, icon }) => ({ family, name, icon: icon ?? ICON }));
  await context.addInitScript(introduce, told);
  return {
    set: (change, named) => {
      for (const wallet of wallets.filter(({ name }) => !named || name === named)) Object.assign(wallet, change);
      for (const go of waiting.splice(0)) go();
    },
    asked: () => asked.splice(0),
  };
}
