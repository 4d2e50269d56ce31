//! Solana's public keys and addresses in base58, the token account that belongs to a wallet, and the private key that signs.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The longest base58 text of 32 bytes.
const LONGEST: usize = 44;
/// The longest base58 text of 64 bytes.
const LONGEST_KEY: usize = 88;

/// Thirty-two bytes that name an account on Solana: a wallet, a program, or a place derived from others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pubkey(pub [u8; 32]);

/// Why a text is no address. Says nothing about the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a Solana address is base58 of 32 bytes")]
pub struct BadAddress;

impl Pubkey {
    /// The program that keeps tokens, USDC among them.
    pub const TOKEN: Pubkey = built_in(b"TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA");
    /// Its successor, whose tokens may keep a part of a transfer or call other programs. Nothing sold here is paid with one.
    pub const TOKEN_2022: Pubkey = built_in(b"TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb");
    /// The program that opens token accounts at places derived from their owner.
    pub const ASSOCIATED_TOKEN: Pubkey = built_in(b"ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL");
    /// The program that takes limits and prices of computation.
    pub const COMPUTE_BUDGET: Pubkey = built_in(b"ComputeBudget111111111111111111111111111111");
    /// The program that writes a text into a transaction.
    pub const MEMO: Pubkey = built_in(b"MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr");
    /// The program with which wallets such as Phantom and Solflare guard what they sign.
    pub const LIGHTHOUSE: Pubkey = built_in(b"L2TExMFKdjpN9kozasaurPirfHy9P8sbXoAN1qA3S95");
    /// The program that owns plain wallets and moves SOL.
    pub const SYSTEM: Pubkey = Pubkey([0; 32]);

    /// Whether a private key can exist for it: 32 bytes that are a point of the curve. Derived places never are.
    pub fn is_on_curve(&self) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok()
    }

    /// Whether this key, and nobody else, made this signature over these bytes. Strict (RFC 8032 with canonical `s`, no
    /// points of small order), because the lax rule lets anybody sign for some keys.
    pub fn signed(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        let key = VerifyingKey::from_bytes(&self.0);
        key.is_ok_and(|key| key.verify_strict(bytes, &Signature::from_bytes(signature)).is_ok())
    }
}

const fn built_in(text: &[u8]) -> Pubkey {
    Pubkey(bs58::decode(text).into_array_const_unwrap())
}

/// The place of the token account that belongs to a wallet for one mint: the first address off the curve that hashing the
/// wallet, the token program and the mint leads to, counting down from 255 (a "program derived address" of the associated
/// token program). `None` for the roughly one in 2^256 that has none.
pub fn associated_token_account(owner: &Pubkey, mint: &Pubkey, program: &Pubkey) -> Option<Pubkey> {
    let place = |bump: u8| {
        let hash = Sha256::new()
            .chain_update(owner.0)
            .chain_update(program.0)
            .chain_update(mint.0)
            .chain_update([bump])
            .chain_update(Pubkey::ASSOCIATED_TOKEN.0)
            .chain_update(b"ProgramDerivedAddress");
        Pubkey(hash.finalize().into())
    };
    (0..=u8::MAX).rev().map(place).find(|place| !place.is_on_curve())
}

impl FromStr for Pubkey {
    type Err = BadAddress;

    /// Every address has one text: base58 has no second spelling of the same bytes.
    fn from_str(text: &str) -> Result<Pubkey, BadAddress> {
        let mut bytes = [0; 32];
        // Decoding takes time that grows with the square of the length.
        match text.len() <= LONGEST && bs58::decode(text).onto(&mut bytes) == Ok(32) {
            true => Ok(Pubkey(bytes)),
            false => Err(BadAddress),
        }
    }
}

impl fmt::Display for Pubkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.0).into_string())
    }
}

impl fmt::Debug for Pubkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// An ed25519 private key, kept in memory only and wiped when it is dropped: the settler's, which pays fees, or the
/// reference buyer's. `Debug` shows whose it is, never what it is.
pub struct SettlerKey(SigningKey);

/// Why a text is no private key. Says nothing about the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a Solana private key is base58 of 64 bytes: 32 secret ones and the 32 of the address that belongs to them")]
pub struct BadKey;

impl SettlerKey {
    /// Reads base58 of 64 bytes, as wallets export it. The second half must be the address of the first.
    pub fn parse(text: &str) -> Result<SettlerKey, BadKey> {
        let mut bytes = Zeroizing::new([0; 64]);
        let text = text.trim();
        if text.len() > LONGEST_KEY || bs58::decode(text).onto(&mut bytes[..]) != Ok(64) {
            return Err(BadKey);
        }
        SigningKey::from_keypair_bytes(&bytes).map(SettlerKey).map_err(|_| BadKey)
    }

    /// The key that these 32 secret bytes are.
    pub fn from_seed(seed: &[u8; 32]) -> SettlerKey {
        SettlerKey(SigningKey::from_bytes(seed))
    }

    /// The text that [`SettlerKey::parse`] reads.
    pub fn export(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(self.0.to_keypair_bytes());
        Zeroizing::new(bs58::encode(&bytes[..]).into_string())
    }

    /// The account this key speaks for.
    pub fn address(&self) -> Pubkey {
        Pubkey(self.0.verifying_key().to_bytes())
    }

    /// Signs the bytes of a message, or of a text. The same bytes always get the same signature (RFC 8032).
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).to_bytes()
    }
}

impl fmt::Debug for SettlerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SettlerKey({})", self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYER: &str = "AKnL4NNf3DGWZJS6cPknBuEGnVsV4A4m5tgebLHaRSZ9";
    const PAY_TO: &str = "GyGKxMyg1p9SsHfm15MkNUu1u9TN2JtTspcdmrtGUdse";
    const USDC: &str = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v";
    const USDC_DEVNET: &str = "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU";
    const PYUSD: &str = "2b1kV6DkPAnxd5ixfnxCpjxmKwqjjaYmCZfHsFu24GXo";

    fn key(text: &str) -> Pubkey {
        text.parse().unwrap()
    }

    #[test]
    fn a_wallet_has_the_token_accounts_that_the_official_libraries_find() {
        for (owner, mint, program, account) in [
            (PAYER, USDC_DEVNET, Pubkey::TOKEN, "H1AviagU5Y17z77v1F9qZPJ9kCbCsL4ewiZABNfGYoRs"),
            (PAY_TO, USDC_DEVNET, Pubkey::TOKEN, "6ndWAgFxMAVLobD8WrdBj5w41GrDeJYiQX91nNSrwkZp"),
            (PAY_TO, USDC, Pubkey::TOKEN, "DNDTCnZkNk358qDFZd9unHtnrc73SsXcpVWtwJJMrR4B"),
            (PAY_TO, PYUSD, Pubkey::TOKEN_2022, "5AJ5PmLBPTY9JkKPSkSdNrghd1iqoWh1U55g3ByVG41y"),
        ] {
            let found = associated_token_account(&key(owner), &key(mint), &program).unwrap();
            assert_eq!(found, key(account));
            assert!(!found.is_on_curve() && key(owner).is_on_curve());
        }
    }

    #[test]
    fn an_address_has_one_text() {
        for text in [PAYER, USDC, "11111111111111111111111111111111"] {
            assert_eq!(key(text).to_string(), text);
            for other in [format!("1{text}"), format!(" {text}"), format!("{text}0"), format!("{text}\n")] {
                assert_eq!(other.parse::<Pubkey>(), Err(BadAddress), "{other}");
            }
        }
        for bad in ["", "1", "0x1234", "l0OI", &"z".repeat(44), &"1".repeat(9000)] {
            assert_eq!(bad.parse::<Pubkey>(), Err(BadAddress), "{bad}");
        }
    }

    #[test]
    fn a_key_is_read_whole_and_shown_only_by_its_address() {
        let seed = [1; 32];
        let signer = SettlerKey::from_seed(&seed);
        assert_eq!(format!("{signer:?}"), format!("SettlerKey({PAYER})"));
        let whole = [seed, signer.address().0].concat();
        let text = bs58::encode(&whole).into_string();
        assert_eq!(SettlerKey::parse(&format!("{text}\n")).unwrap().address(), key(PAYER));
        let halves = [[2; 32], signer.address().0].concat();
        for bad in ["", PAYER, &text[1..], &bs58::encode(halves).into_string(), &"1".repeat(64), &"z".repeat(9000)] {
            assert!(SettlerKey::parse(bad).is_err(), "{bad}");
        }
    }

    /// RFC 8032 asks for `s` below the group order; adding the order gives a second signature that laxer rules take.
    #[test]
    fn a_signature_is_judged_strictly() {
        let signer = SettlerKey::from_seed(&[1; 32]);
        let signature = signer.sign(b"text");
        assert!(signer.address().signed(b"text", &signature));
        assert!(!signer.address().signed(b"test", &signature) && !key(PAY_TO).signed(b"text", &signature));
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut twin = signature;
        let mut carry = 0;
        for (byte, more) in twin[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(more) + carry;
            (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
        }
        assert!(carry == 0 && twin != signature && !signer.address().signed(b"text", &twin));
        // The neutral point as a key: the lax rule takes (R = neutral, s = 0) for every message.
        let neutral = Pubkey([&[1][..], &[0; 31]].concat().try_into().unwrap());
        let mut forged = [0; 64];
        forged[0] = 1;
        assert!(neutral.is_on_curve() && !neutral.signed(b"text", &forged));
        assert!(!Pubkey::SYSTEM.signed(b"text", &[0; 64]));
    }
}
