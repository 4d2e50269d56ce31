// Buys one call with npm @x402/fetch 2.27, which speaks x402 version 2 and reads the offer in PAYMENT-REQUIRED.
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";
import { order, run, watched } from "./purchase.mjs";

const wanted = order();
const sent = {};
const client = new x402Client();
client.setSpendControls({ maxAmountPerPayment: `$${wanted.maxValueUsd}` });
client.register("eip155:*", new ExactEvmScheme(privateKeyToAccount(wanted.key)));
await run(wrapFetchWithPayment(watched(sent), client), wanted, sent);
