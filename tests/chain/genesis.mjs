// Writes genesis-CHAIN.json: a chain on which the development token stands at USDC's real address and two buyers hold
// 1,000 USDC each. With that file the anvil binary alone is the whole chain.
//   node genesis.mjs 84532
import { readFileSync, writeFileSync } from "node:fs";
import { encodeAbiParameters, keccak256, pad, stringToHex, toHex } from "viem";
import { mnemonicToAccount } from "viem/accounts";

const USDC = {
  84532: { address: "0x036CbD53842c5426634e7929541eC2318f3dCF7e", name: "USDC" },
  8453: { address: "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", name: "USD Coin" },
};
// Everybody knows these keys: never send real funds to them.
const MNEMONIC = "test test test test test test test test test test test junk";
const BUYER_USDC = 1_000_000_000n;
const GAS_MONEY = "0x3635c9adc5dea00000";

const chainId = Number(process.argv[2] ?? 84532);
const usdc = USDC[chainId];
if (!usdc) throw new Error(`no USDC address known for chain ${chainId}`);
const token = JSON.parse(readFileSync(new URL("./artifacts/DevUSDC.json", import.meta.url), "utf8"));
const layout = Object.fromEntries(token.storageLayout.map(([slot, offset, label]) => [label, { slot: BigInt(slot), offset }]));
const address = (index) => mnemonicToAccount(MNEMONIC, { addressIndex: index }).address;
const [minter, settler, , buyer, otherBuyer] = [0, 1, 2, 3, 4].map(address);

const word = (number) => pad(toHex(number), { size: 32 });
const balanceSlot = (owner) =>
  keccak256(encodeAbiParameters([{ type: "address" }, { type: "uint256" }], [owner, layout.balanceOf.slot]));
// Solidity keeps a string below 32 bytes in one slot: its bytes, then twice its length in the last byte.
const shortString = (text) => "0x" + stringToHex(text).slice(2).padEnd(62, "0") + (text.length * 2).toString(16).padStart(2, "0");

const packed = {};
for (const [label, value] of [["decimals", 6], ["minter", minter], ["totalSupply", 2n * BUYER_USDC]]) {
  const { slot, offset } = layout[label];
  packed[slot] = (packed[slot] ?? 0n) | (BigInt(value) << BigInt(8 * offset));
}
const storage = { [word(layout.name.slot)]: shortString(usdc.name), [word(layout.symbol.slot)]: shortString("USDC") };
for (const [slot, value] of Object.entries(packed)) storage[word(BigInt(slot))] = word(value);
for (const owner of [buyer, otherBuyer]) storage[balanceSlot(owner)] = word(BUYER_USDC);

const forks = ["homestead", "eip150", "eip155", "eip158", "byzantium", "constantinople", "petersburg", "istanbul", "berlin", "london"];
const config = { chainId };
for (const fork of forks) config[`${fork}Block`] = 0;
for (const fork of ["shanghai", "cancun"]) config[`${fork}Time`] = 0;
const genesis = {
  config,
  nonce: "0x0",
  timestamp: "0x0",
  extraData: "0x",
  gasLimit: "0x3938700",
  difficulty: "0x0",
  mixHash: word(0n),
  coinbase: "0x" + "0".repeat(40),
  alloc: {
    [usdc.address]: { balance: "0x0", nonce: "0x1", code: token.runtime, storage },
    [minter]: { balance: GAS_MONEY },
    [settler]: { balance: GAS_MONEY },
  },
};
writeFileSync(new URL(`./genesis-${chainId}.json`, import.meta.url), JSON.stringify(genesis, null, 1) + "\n");
