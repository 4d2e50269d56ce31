// Buys one call with npm x402-fetch 1.2, which speaks x402 version 1 and reads the offer in the body of a 402.
import { createSigner, wrapFetchWithPayment } from "x402-fetch";
import { order, run, watched } from "./purchase.mjs";

const wanted = order();
const sent = {};
// The chain named here is only where the signer would look things up; what is signed comes from the offer.
const signer = await createSigner(wanted.rpcUrl ? "solana-devnet" : "base-sepolia", wanted.key);
const limit = BigInt(Math.round(Number(wanted.maxValueUsd) * 1e6));
const config = wanted.rpcUrl && { svmConfig: { rpcUrl: wanted.rpcUrl } };
await run(wrapFetchWithPayment(watched(sent), signer, limit, undefined, config), wanted, sent);
