// Ethereum's part of the pages: hashes and addresses, what a top-up signs (EIP-3009), and signatures of practice wallets.

const MASK = (1n << 64n) - 1n;
const turn = (word, by) => ((word << by) | (word >> (64n - by))) & MASK;

/** The round constants of Keccak-f, by the register that defines them. */
const ROUNDS = (() => {
  let register = 1;
  return Array.from({ length: 24 }, () => {
    let constant = 0n;
    for (let j = 0; j < 7; j += 1) {
      if (register & 1) constant |= 1n << ((1n << BigInt(j)) - 1n);
      register = register & 0x80 ? ((register << 1) ^ 0x171) & 0xff : register << 1;
    }
    return constant;
  });
})();

function permute(state) {
  for (const constant of ROUNDS) {
    const column = [0, 1, 2, 3, 4].map((x) => state[x] ^ state[x + 5] ^ state[x + 10] ^ state[x + 15] ^ state[x + 20]);
    for (let i = 0; i < 25; i += 1) state[i] ^= column[(i + 4) % 5] ^ turn(column[(i + 1) % 5], 1n);
    let [x, y, carried] = [1, 0, state[1]];
    for (let t = 1; t <= 24; t += 1) {
      [x, y] = [y, (2 * x + 3 * y) % 5];
      const next = state[x + 5 * y];
      state[x + 5 * y] = turn(carried, BigInt(((t * (t + 1)) / 2) % 64));
      carried = next;
    }
    for (let row = 0; row < 25; row += 5) {
      const line = state.slice(row, row + 5);
      for (let i = 0; i < 5; i += 1) state[row + i] = line[i] ^ (~line[(i + 1) % 5] & MASK & line[(i + 2) % 5]);
    }
    state[0] ^= constant;
  }
}

export function keccak(bytes) {
  const rate = 136;
  const padded = new Uint8Array((Math.floor(bytes.length / rate) + 1) * rate);
  padded.set(bytes);
  padded[bytes.length] ^= 1;
  padded[padded.length - 1] ^= 0x80;
  const state = Array(25).fill(0n);
  const words = new DataView(padded.buffer);
  for (let at = 0; at < padded.length; at += rate) {
    for (let i = 0; i < rate / 8; i += 1) state[i] ^= words.getBigUint64(at + 8 * i, true);
    permute(state);
  }
  const hash = new DataView(new ArrayBuffer(32));
  for (let i = 0; i < 4; i += 1) hash.setBigUint64(8 * i, state[i], true);
  return new Uint8Array(hash.buffer);
}

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
export const unhex = (text) => Uint8Array.from(text.replace(/^0x/, "").match(/../g) ?? [], (pair) => parseInt(pair, 16));
const bytesOf = (text) => new TextEncoder().encode(text);
const word = (number) => unhex(BigInt(number).toString(16).padStart(64, "0"));
const join = (...parts) => Uint8Array.from(parts.flatMap((part) => [...part]));

/** An address in the spelling that has its checksum in it (EIP-55). */
export function checksummed(address) {
  const digits = address.slice(2).toLowerCase();
  const hash = hex(keccak(bytesOf(digits)));
  return "0x" + [...digits].map((digit, i) => (parseInt(hash[i], 16) > 7 ? digit.toUpperCase() : digit)).join("");
}

const FIELDS = [["from", "address"], ["to", "address"], ["value", "uint256"], ["validAfter", "uint256"], ["validBefore", "uint256"], ["nonce", "bytes32"]];
const DOMAIN = [["name", "string"], ["version", "string"], ["chainId", "uint256"], ["verifyingContract", "address"]];
const named = (fields) => fields.map(([name, type]) => ({ name, type }));

/** The permission for one transfer of `units` that an offer asks for, as wallets are given it to sign. */
export function authorization(offer, from, units, validBefore) {
  const nonce = "0x" + hex(crypto.getRandomValues(new Uint8Array(32)));
  return { from, to: offer.payTo, value: String(units), validAfter: "0", validBefore: String(validBefore), nonce };
}

export function typedData(offer, message) {
  const { name, version } = offer.extra;
  const domain = { name, version, chainId: Number(offer.network.split(":")[1]), verifyingContract: offer.asset };
  const types = { EIP712Domain: named(DOMAIN), TransferWithAuthorization: named(FIELDS) };
  return { types, domain, primaryType: "TransferWithAuthorization", message };
}

function struct(name, fields, values) {
  const type = keccak(bytesOf(`${name}(${fields.map(([field, kind]) => `${kind} ${field}`).join(",")})`));
  const parts = fields.map(([field, kind]) => (kind === "string" ? keccak(bytesOf(values[field])) : word(values[field])));
  return keccak(join(type, ...parts));
}

/** The EIP-712 digest of [`typedData`]. */
export function digest({ domain, message }) {
  return keccak(join([0x19, 1], struct("EIP712Domain", DOMAIN, domain), struct("TransferWithAuthorization", FIELDS, message)));
}

/** The digest of a text, as `personal_sign` has it (EIP-191). */
export function textDigest(text) {
  const bytes = bytesOf(text);
  return keccak(join(bytesOf(`\x19Ethereum Signed Message:\n${bytes.length}`), bytes));
}

// secp256k1, for practice wallets only: it takes no care to hide a key from who watches the machine, and guards no money.
const P = 2n ** 256n - 2n ** 32n - 977n;
const N = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const G = [0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798n, 0x483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8n];
const modulo = (number, by) => ((number % by) + by) % by;

function inverse(number, by) {
  let [a, b, x, y] = [modulo(number, by), by, 1n, 0n];
  while (a > 1n) {
    const times = b / a;
    [a, b, x, y] = [b - times * a, a, y - times * x, x];
  }
  return modulo(x, by);
}

function add(one, other) {
  if (!one || !other) return one ?? other;
  const [x1, y1] = one;
  const [x2, y2] = other;
  if (x1 === x2 && modulo(y1 + y2, P) === 0n) return null;
  const slope = x1 === x2 ? 3n * x1 * x1 * inverse(2n * y1, P) : (y2 - y1) * inverse(x2 - x1, P);
  const x = modulo(slope * slope - x1 - x2, P);
  return [x, modulo(slope * (x1 - x) - y1, P)];
}

function times(scalar) {
  let [sum, power] = [null, G];
  for (let rest = scalar; rest > 0n; rest >>= 1n) {
    if (rest & 1n) sum = add(sum, power);
    power = add(power, power);
  }
  return sum;
}

/** A scalar that nobody can guess; 48 bytes make it as good as even. */
const scalar = () => modulo(BigInt("0x" + hex(crypto.getRandomValues(new Uint8Array(48)))), N - 1n) + 1n;

export const newKey = () => scalar().toString(16).padStart(64, "0");

export function addressOf(key) {
  const [x, y] = times(BigInt("0x" + key));
  return checksummed("0x" + hex(keccak(join(word(x), word(y))).slice(12)));
}

/** The signature of a practice wallet over a digest: r, s and v, with the low one of the two s that would do. */
export function sign(key, hash) {
  const [secret, z] = [BigInt("0x" + key), BigInt("0x" + hex(hash))];
  for (;;) {
    const k = scalar();
    const [x, y] = times(k);
    const r = modulo(x, N);
    let s = modulo(inverse(k, N) * (z + r * secret), N);
    if (r === 0n || s === 0n || x >= N) continue;
    let odd = y & 1n;
    if (s > N / 2n) [s, odd] = [N - s, 1n - odd];
    return "0x" + hex(word(r)) + hex(word(s)) + (odd ? "1c" : "1b");
  }
}
