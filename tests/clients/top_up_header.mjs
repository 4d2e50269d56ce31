// Prints the X-402-Payment header of a top-up, made by npm x402 1.2 as the documents of wallet APIs tell people to make it.
// Environment: PRIVATE_KEY, OFFER (the JSON of a 402), AMOUNT_USD.
import { createPaymentHeader } from "x402/client";
import { privateKeyToAccount } from "viem/accounts";

const { PRIVATE_KEY, OFFER, AMOUNT_USD } = process.env;
const { accepts, resource } = JSON.parse(OFFER);
const base = accepts.find(({ network }) => network === "eip155:8453");
const header = await createPaymentHeader(privateKeyToAccount(PRIVATE_KEY), 2, {
  scheme: base.scheme,
  network: "base",
  maxAmountRequired: String(Math.round(Number(AMOUNT_USD) * 1e6)),
  resource: resource.url,
  description: "top-up",
  mimeType: "application/json",
  payTo: base.payTo,
  maxTimeoutSeconds: base.maxTimeoutSeconds,
  asset: base.asset,
  extra: base.extra,
});
console.log(header);
