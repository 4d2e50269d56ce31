// Signs sign-in headers with viem: stdin is a JSON list of {key, url, chainId?, statement?, nonce?, issuedAt?, expirationTime?}, times in
// milliseconds; stdout one header value per line. What is left out is as the wallets' own libraries choose it.
import { randomBytes } from "node:crypto";
import { privateKeyToAccount } from "viem/accounts";
import { createSiweMessage } from "viem/siwe";

let input = "";
for await (const chunk of process.stdin) input += chunk;
for (const { key, url, ...said } of JSON.parse(input)) {
  const account = privateKeyToAccount(key);
  const { chainId = 8453, nonce = randomBytes(8).toString("hex"), statement = "Sign in", issuedAt = Date.now() } = said;
  const { expirationTime = issuedAt + 5 * 60 * 1000 } = said;
  const message = createSiweMessage({
    domain: new URL(url).host,
    address: account.address,
    statement,
    uri: url,
    version: "1",
    chainId,
    nonce,
    issuedAt: new Date(issuedAt),
    expirationTime: new Date(expirationTime),
  });
  const signature = await account.signMessage({ message });
  const header = { address: account.address, message, signature, timestamp: issuedAt, chainId };
  console.log(Buffer.from(JSON.stringify(header)).toString("base64"));
}
