// An x402 version 2 facilitator made of the official classes: /supported, /verify and /settle for one network.
// Environment: RPC_URL, NETWORK (CAIP-2), PRIVATE_KEY (pays gas or fees). Prints where it listens.
import { createServer } from "node:http";
import { createKeyPairSignerFromBytes, getBase58Encoder } from "@solana/kit";
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { ExactEvmScheme } from "@x402/evm/exact/facilitator";
import { toFacilitatorSvmSigner } from "@x402/svm";
import { ExactSvmScheme } from "@x402/svm/exact/facilitator";
import { createWalletClient, defineChain, http, publicActions } from "viem";
import { privateKeyToAccount } from "viem/accounts";

const { RPC_URL, NETWORK, PRIVATE_KEY } = process.env;

function evmScheme() {
  const nativeCurrency = { name: "Ether", symbol: "ETH", decimals: 18 };
  const id = Number(NETWORK.split(":")[1]);
  const chain = defineChain({ id, name: "local", nativeCurrency, rpcUrls: { default: { http: [RPC_URL] } } });
  const account = privateKeyToAccount(PRIVATE_KEY);
  const wallet = createWalletClient({ chain, account, transport: http(RPC_URL), pollingInterval: 50 }).extend(publicActions);
  return new ExactEvmScheme(toFacilitatorEvmSigner({ ...wallet, address: account.address }));
}

async function svmScheme() {
  const signer = await createKeyPairSignerFromBytes(getBase58Encoder().encode(PRIVATE_KEY));
  return new ExactSvmScheme(toFacilitatorSvmSigner(signer, { defaultRpcUrl: RPC_URL }));
}

const scheme = NETWORK.startsWith("solana:") ? await svmScheme() : evmScheme();
const facilitator = new x402Facilitator().register(NETWORK, scheme);

const answers = {
  "GET /supported": () => facilitator.getSupported(),
  "POST /verify": ({ paymentPayload, paymentRequirements }) => facilitator.verify(paymentPayload, paymentRequirements),
  "POST /settle": ({ paymentPayload, paymentRequirements }) => facilitator.settle(paymentPayload, paymentRequirements),
};

const server = createServer(async (request, response) => {
  let body = "";
  for await (const chunk of request) body += chunk;
  const answer = answers[`${request.method} ${request.url}`];
  const reply = (status, json) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(json));
  if (!answer) return reply(404, { error: "not found" });
  try {
    reply(200, await answer(body && JSON.parse(body)));
  } catch (error) {
    console.error(error);
    reply(500, { error: String(error) });
  }
});
server.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
