// Signs payments without buying: stdin is a JSON list of {key, requirements, validAfter?, validBefore, nonce?, signWith?},
// stdout one JSON line per payment: {v2, v1, authorization, signature, cancellation}, the last being the signature that takes
// the authorization back. With it a test can send what no honest client sends.
import { randomBytes } from "node:crypto";
import { privateKeyToAccount } from "viem/accounts";

const TransferWithAuthorization = [
  { name: "from", type: "address" },
  { name: "to", type: "address" },
  { name: "value", type: "uint256" },
  { name: "validAfter", type: "uint256" },
  { name: "validBefore", type: "uint256" },
  { name: "nonce", type: "bytes32" },
];
const CancelAuthorization = [
  { name: "authorizer", type: "address" },
  { name: "nonce", type: "bytes32" },
];
const SHORT_NAMES = { "eip155:84532": "base-sepolia", "eip155:8453": "base" };
const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64");

let input = "";
for await (const chunk of process.stdin) input += chunk;
for (const { key, requirements, validAfter = "0", validBefore, nonce, signWith } of JSON.parse(input)) {
  const { scheme, network, amount, asset, payTo, extra } = requirements;
  const authorization = {
    from: privateKeyToAccount(key).address,
    to: payTo,
    value: amount,
    validAfter: String(validAfter),
    validBefore: String(validBefore),
    nonce: nonce ?? "0x" + randomBytes(32).toString("hex"),
  };
  const domain = { name: extra.name, version: extra.version, chainId: Number(network.split(":")[1]), verifyingContract: asset };
  const signature = await privateKeyToAccount(signWith ?? key).signTypedData({
    domain,
    types: { TransferWithAuthorization },
    primaryType: "TransferWithAuthorization",
    message: authorization,
  });
  const cancellation = await privateKeyToAccount(key).signTypedData({
    domain,
    types: { CancelAuthorization },
    primaryType: "CancelAuthorization",
    message: { authorizer: authorization.from, nonce: authorization.nonce },
  });
  const payload = { signature, authorization };
  const v2 = { x402Version: 2, payload, accepted: requirements };
  const v1 = { x402Version: 1, scheme, network: SHORT_NAMES[network] ?? network, payload };
  console.log(JSON.stringify({ v2: encode(v2), v1: encode(v1), authorization, signature, cancellation }));
}
