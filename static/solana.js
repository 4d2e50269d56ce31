// Solana's part of the pages: addresses, and the transaction that an offer asks for, written byte by byte.

const DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

export function base58(bytes) {
  let number = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  let text = "";
  for (; number > 0n; number /= 58n) text = DIGITS[Number(number % 58n)] + text;
  return "1".repeat(bytes.findIndex((byte) => byte !== 0) === -1 ? bytes.length : bytes.findIndex((byte) => byte !== 0)) + text;
}

/** The 32 bytes of an address; throws for what is none. */
export function address(text) {
  let number = 0n;
  for (const digit of text) {
    const value = DIGITS.indexOf(digit);
    if (value < 0) throw new Error(`${text} is not an address of Solana`);
    number = number * 58n + BigInt(value);
  }
  const bytes = Uint8Array.from(number.toString(16).padStart(64, "0").match(/../g), (pair) => parseInt(pair, 16));
  if (bytes.length !== 32 || base58(bytes) !== text) throw new Error(`${text} is not an address of Solana`);
  return bytes;
}

const TOKEN = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA";
const ASSOCIATED_TOKEN = "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL";
const COMPUTE_BUDGET = "ComputeBudget111111111111111111111111111111";
const MEMO = "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr";
const UNITS = 20000;
const MICRO_LAMPORTS_PER_UNIT = 1n;

const FIELD = 2n ** 255n - 19n;

function power(base, exponent) {
  let result = 1n;
  for (let b = base % FIELD, e = exponent; e > 0n; e >>= 1n) {
    if (e & 1n) result = (result * b) % FIELD;
    b = (b * b) % FIELD;
  }
  return result;
}

const D = (FIELD - ((121665n * power(121666n, FIELD - 2n)) % FIELD)) % FIELD;

/** Whether 32 bytes are a point of the curve, so that a private key can exist for them. */
export function isOnCurve(bytes) {
  const y = [...bytes].reverse().reduce((sum, byte) => sum * 256n + BigInt(byte), 0n) & (2n ** 255n - 1n);
  const square = (y * y) % FIELD;
  const x = ((square - 1n + FIELD) * power((D * square + 1n) % FIELD, FIELD - 2n)) % FIELD;
  // Euler's criterion: a square to the half of the group's order is one.
  return x === 0n || power(x, (FIELD - 1n) / 2n) === 1n;
}

/** Where the tokens of an owner are: the first place off the curve that hashing leads to, counting down. */
export async function tokenAccount(owner, mint) {
  for (let bump = 255; bump >= 0; bump -= 1) {
    const seeds = [...owner, ...address(TOKEN), ...mint, bump, ...address(ASSOCIATED_TOKEN), ...new TextEncoder().encode("ProgramDerivedAddress")];
    const place = new Uint8Array(await crypto.subtle.digest("SHA-256", Uint8Array.from(seeds)));
    if (!isOnCurve(place)) return place;
  }
  throw new Error("this wallet has no place for tokens");
}

const little = (number, size) => Array.from({ length: size }, (_, i) => Number((BigInt(number) >> BigInt(8 * i)) & 0xffn));

/** Seven bits a byte, the highest bit saying that more follow. */
const count = (number) => (number < 128 ? [number] : [(number & 127) | 128, number >> 7]);

/** The message of version 0 that `payer` signs: limit and price of computation, the transfer, and the memo of the offer. */
export async function message(offer, payer, units) {
  const { feePayer, recentBlockhash, memo } = offer.extra ?? {};
  if (!feePayer || !recentBlockhash) throw new Error("The chain could not be asked for a recent block. Try again in some seconds.");
  const [owner, mint] = [address(payer), address(offer.asset)];
  const [source, destination] = [await tokenAccount(owner, mint), await tokenAccount(address(offer.payTo), mint)];
  // Those that sign stand first, then those that are written to, then those that are only read: see the header.
  const accounts = [address(feePayer), owner, source, destination, address(COMPUTE_BUDGET), mint, address(MEMO), address(TOKEN)];
  const text = [...new TextEncoder().encode(memo ?? base58(crypto.getRandomValues(new Uint8Array(16))))];
  const instructions = [
    [4, [], [2, ...little(UNITS, 4)]],
    [4, [], [3, ...little(MICRO_LAMPORTS_PER_UNIT, 8)]],
    [7, [2, 5, 3, 1], [12, ...little(units, 8), 6]],
    [6, [], text],
  ];
  const written = instructions.flatMap(([program, places, data]) => [program, ...count(places.length), ...places, ...count(data.length), ...data]);
  const header = [2, 1, 4];
  return Uint8Array.from([0x80, ...header, accounts.length, ...accounts.flatMap((bytes) => [...bytes]), ...address(recentBlockhash), instructions.length, ...written, 0]);
}

/** A transaction of that message: the fee payer's signature, which the gateway adds, and the payer's. */
export const transaction = (message, signature = new Uint8Array(64)) => Uint8Array.from([2, ...new Uint8Array(64), ...signature, ...message]);

export const base64 = (bytes) => btoa(String.fromCharCode(...bytes));
