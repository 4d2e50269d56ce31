// Signs payments of Solana wallets without buying, with npm @x402/svm 2.27: stdin is a JSON list of {key, requirements}, stdout
// one JSON line per payment: {v2, v1, transaction}; v2 and v1 are header values, the transaction is base64.
import { createKeyPairSignerFromBytes, getBase58Encoder } from "@solana/kit";
import { ExactSvmScheme } from "@x402/svm/exact/client";

const SHORT_NAMES = { "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1": "solana-devnet", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp": "solana" };
const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64");

let input = "";
for await (const chunk of process.stdin) input += chunk;
for (const { key, requirements } of JSON.parse(input)) {
  const signer = await createKeyPairSignerFromBytes(getBase58Encoder().encode(key));
  const scheme = new ExactSvmScheme(signer, { rpcUrl: process.env.SOLANA_RPC_URL });
  const { payload } = await scheme.createPaymentPayload(2, requirements);
  const { scheme: name, network } = requirements;
  const v2 = { x402Version: 2, payload, accepted: requirements };
  const v1 = { x402Version: 1, scheme: name, network: SHORT_NAMES[network] ?? network, payload };
  console.log(JSON.stringify({ v2: encode(v2), v1: encode(v1), transaction: payload.transaction }));
}
