// Networks as people call them, and where their transactions can be looked at.

const KNOWN = {
  "eip155:8453": ["Base", "https://basescan.org/tx/"],
  "eip155:84532": ["Base Sepolia (test)", "https://sepolia.basescan.org/tx/"],
  "eip155:1": ["Ethereum", "https://etherscan.io/tx/"],
  "eip155:137": ["Polygon", "https://polygonscan.com/tx/"],
  "eip155:80002": ["Polygon Amoy (test)", "https://amoy.polygonscan.com/tx/"],
  "eip155:42161": ["Arbitrum One", "https://arbiscan.io/tx/"],
  "eip155:421614": ["Arbitrum Sepolia (test)", "https://sepolia.arbiscan.io/tx/"],
  "eip155:43114": ["Avalanche", "https://snowtrace.io/tx/"],
  "eip155:43113": ["Avalanche Fuji (test)", "https://testnet.snowtrace.io/tx/"],
  "eip155:42220": ["Celo", "https://celoscan.io/tx/"],
  "eip155:11142220": ["Celo Sepolia (test)", "https://celo-sepolia.blockscout.com/tx/"],
  "eip155:1329": ["Sei", "https://seitrace.com/tx/"],
  "eip155:1328": ["Sei testnet", "https://testnet.seitrace.com/tx/"],
  "eip155:143": ["Monad", "https://monadscan.com/tx/"],
  "eip155:50": ["XDC", "https://xdcscan.com/tx/"],
  "eip155:51": ["XDC Apothem (test)", "https://testnet.xdcscan.com/tx/"],
  "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp": ["Solana", "https://explorer.solana.com/tx/"],
  "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1": ["Solana Devnet (test)", "https://explorer.solana.com/tx/", "?cluster=devnet"],
};

export const nameOf = (network) => KNOWN[network]?.[0] ?? network;
export const familyOf = (network) => (network.startsWith("solana:") ? "solana" : "evm");
export const chainIdOf = (network) => Number(network.split(":")[1]);

/** Where a transaction can be looked at; `null` where nobody shows it, as on a network that is simulated. */
export function explorer(network, transaction, simulated) {
  const [, before, after = ""] = KNOWN[network] ?? [];
  return before && !simulated ? before + encodeURIComponent(transaction) + after : null;
}
