// Compiles contracts/*.sol with the pinned compiler into artifacts/NAME.json (abi, bytecode, runtime, storage layout).
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const solc = createRequire(import.meta.url)("solc");
const contracts = new URL("./contracts/", import.meta.url);
const artifacts = new URL("./artifacts/", import.meta.url);

const sources = {};
for (const file of readdirSync(contracts).filter((name) => name.endsWith(".sol"))) {
  sources[file] = { content: readFileSync(new URL(file, contracts), "utf8") };
}
const input = {
  language: "Solidity",
  sources,
  settings: {
    optimizer: { enabled: true, runs: 200 },
    evmVersion: "paris",
    viaIR: false,
    // Without metadata the same source gives the same bytes on every machine.
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "storageLayout"] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
for (const problem of output.errors ?? []) console.error(problem.formattedMessage);
if ((output.errors ?? []).some((problem) => problem.severity === "error")) process.exit(1);

mkdirSync(artifacts, { recursive: true });
for (const [name, contract] of Object.values(output.contracts).flatMap(Object.entries)) {
  const artifact = {
    name,
    compiler: solc.version(),
    abi: contract.abi,
    bytecode: "0x" + contract.evm.bytecode.object,
    runtime: "0x" + contract.evm.deployedBytecode.object,
    storageLayout: contract.storageLayout?.storage?.map((entry) => [entry.slot, entry.offset, entry.label]),
  };
  writeFileSync(new URL(`${name}.json`, artifacts), JSON.stringify(artifact, null, 1) + "\n");
  console.error(`${name}: ${(artifact.runtime.length - 2) / 2} bytes at run time`);
}
