// Buys one call with npm @x402/fetch 2.27, which speaks x402 version 2 and reads the offer in PAYMENT-REQUIRED.
import { getBase58Encoder, createKeyPairSignerFromBytes } from "@solana/kit";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { ExactSvmScheme } from "@x402/svm/exact/client";
import { privateKeyToAccount } from "viem/accounts";
import { order, run, watched } from "./purchase.mjs";

const wanted = order();
const sent = {};
const client = new x402Client();
client.setSpendControls({ maxAmountPerPayment: `$${wanted.maxValueUsd}` });
if (wanted.rpcUrl) {
  const signer = await createKeyPairSignerFromBytes(getBase58Encoder().encode(wanted.key));
  client.register("solana:*", new ExactSvmScheme(signer, { rpcUrl: wanted.rpcUrl }));
} else {
  client.register("eip155:*", new ExactEvmScheme(privateKeyToAccount(wanted.key)));
}
await run(wrapFetchWithPayment(watched(sent), client), wanted, sent);
