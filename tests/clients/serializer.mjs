// Holds the hand-written serializers of the pages (static/solana.js, static/evm.js) to the libraries that others use, @solana/kit
// and viem, and to a transaction that npm @x402/svm once made. Environment: STATIC (the folder), VECTORS (svm.json). Prints one
// line of JSON: how many comparisons were made of each kind; a difference ends it with an error.
import assert from "node:assert/strict";
import { randomBytes, randomInt } from "node:crypto";
import { readFileSync } from "node:fs";
import { decompileTransactionMessage, getAddressDecoder, getAddressEncoder, getBase58Decoder, getCompiledTransactionMessageDecoder, getProgramDerivedAddress, getTransactionDecoder } from "@solana/kit";
import { getAddress, hashMessage, hashTypedData, keccak256, recoverAddress, toHex } from "viem";
import { privateKeyToAddress } from "viem/accounts";

const { STATIC, VECTORS } = process.env;
// As a module whatever Node is told about the folder; neither file imports anything.
const page = (name) => import(`data:text/javascript;base64,${readFileSync(`${STATIC}/${name}`).toString("base64")}`);
const [solana, evm] = await Promise.all([page("solana.js"), page("evm.js")]);
const done = {};
const held = (name) => (done[name] = (done[name] ?? 0) + 1);
const address = () => getAddressDecoder().decode(randomBytes(32));
const bytes = (text) => getAddressEncoder().encode(text);
const plain = (array) => [...array];

const TOKEN = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA";
const ASSOCIATED = "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL";

/** The same bytes as a real client, signature and all. */
async function vector() {
  const { vectors, keys, blockhash } = JSON.parse(readFileSync(VECTORS, "utf8"));
  const { requirements, payload } = vectors.find(({ id }) => id === "svm-v2-valid-mainnet-memo");
  const wire = Buffer.from(payload.payload.transaction, "base64");
  const offer = { ...requirements, extra: { ...requirements.extra, recentBlockhash: blockhash } };
  const message = await solana.message(offer, keys.payer, BigInt(requirements.amount));
  assert.equal(solana.base64(solana.transaction(message, wire.subarray(65, 129))), payload.payload.transaction);
  held("vector");
}

const tokenAccountOf = async (owner, mint) => (await getProgramDerivedAddress({ programAddress: ASSOCIATED, seeds: [bytes(owner), bytes(TOKEN), bytes(mint)] }))[0];

/** What kit reads in a transaction of ours is what the offer asks for, and nothing else. */
async function transaction(memo, amount) {
  const [payer, feePayer, payTo, asset, recentBlockhash] = Array.from({ length: 5 }, address);
  const offer = { payTo, asset, extra: { feePayer, recentBlockhash, memo, lastValidBlockHeight: 9 } };
  const wire = solana.transaction(await solana.message(offer, payer, amount));
  const { messageBytes, signatures } = getTransactionDecoder().decode(wire);
  assert.deepEqual(Object.keys(signatures), [feePayer, payer], "the gateway signs first, then the payer, and nobody else");
  const compiled = getCompiledTransactionMessageDecoder().decode(messageBytes);
  assert.deepEqual([compiled.version, compiled.lifetimeToken], [0, recentBlockhash]);
  const read = decompileTransactionMessage(compiled, { lastValidBlockHeight: 9n });
  assert.equal(read.feePayer.address, feePayer);
  const [limit, price, transfer, note, ...others] = read.instructions;
  assert.deepEqual([limit.programAddress, plain(limit.data)[0], price.programAddress, plain(price.data)[0]], ["ComputeBudget111111111111111111111111111111", 2, "ComputeBudget111111111111111111111111111111", 3]);
  const data = Buffer.from(transfer.data);
  assert.deepEqual([transfer.programAddress, data[0], data.readBigUInt64LE(1), data[9], data.length], [TOKEN, 12, amount, 6, 10], "TransferChecked of that amount with six decimals");
  const [from, to] = [await tokenAccountOf(payer, asset), await tokenAccountOf(payTo, asset)];
  assert.deepEqual(transfer.accounts.map(({ address, role }) => [address, role]), [[from, 1], [asset, 0], [to, 1], [payer, 2]]);
  assert.deepEqual([note.programAddress, Buffer.from(note.data).toString()], ["MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr", memo]);
  assert.deepEqual(others, []);
  held("transaction");
}

async function notations() {
  for (const made of [new Uint8Array(32), randomBytes(32), Buffer.concat([Buffer.alloc(5), randomBytes(27)]), randomBytes(64)]) {
    assert.equal(solana.base58(made), getBase58Decoder().decode(made));
    if (made.length === 32) assert.deepEqual(plain(solana.address(solana.base58(made))), plain(made));
    held("base58");
  }
  for (const none of ["", "1", "0".repeat(44), `${address()}1`, address().slice(0, -4), "l".repeat(43), `1${"z".repeat(43)}`]) {
    assert.throws(() => solana.address(none), undefined, none);
    held("no address");
  }
  await assert.rejects(solana.message({ payTo: address(), asset: address(), extra: { feePayer: address() } }, address(), 1n), /recent block/);
}

async function ethereum() {
  const key = evm.newKey();
  const own = evm.addressOf(key);
  assert.equal(own, privateKeyToAddress(`0x${key}`));
  const stranger = toHex(randomBytes(20));
  assert.equal(evm.checksummed(stranger), getAddress(stranger));
  const some = randomBytes(randomInt(400));
  assert.equal(`0x${evm.hex(evm.keccak(some))}`, keccak256(some));
  const offer = { network: `eip155:${randomInt(1, 1e9)}`, payTo: getAddress(toHex(randomBytes(20))), asset: getAddress(toHex(randomBytes(20))), extra: { name: "USD Coin", version: "2" } };
  const message = evm.authorization(offer, own, BigInt(`0x${randomBytes(8).toString("hex")}`), 1_900_000_000);
  const { types: { EIP712Domain, ...types }, ...typed } = evm.typedData(offer, message);
  const wanted = hashTypedData({ ...typed, types });
  assert.equal(`0x${evm.hex(evm.digest(typed))}`, wanted);
  assert.equal(await recoverAddress({ hash: wanted, signature: evm.sign(key, evm.digest(typed)) }), own);
  const text = "Sign in é\n".repeat(randomInt(9));
  assert.equal(`0x${evm.hex(evm.textDigest(text))}`, hashMessage(text));
  assert.equal(await recoverAddress({ hash: hashMessage(text), signature: evm.sign(key, evm.textDigest(text)) }), own);
  held("ethereum");
}

await vector();
for (const memo of ["order-1", "é".repeat(40), "x".repeat(127), "x".repeat(128), "x".repeat(400)]) {
  for (const amount of [1n, 255n, 1_000_000n, 2n ** 32n, 2n ** 63n + 1n]) await transaction(memo, amount);
}
await notations();
for (let round = 0; round < 8; round += 1) await ethereum();
console.log(JSON.stringify(done));
