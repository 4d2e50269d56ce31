//! A Solana transaction as it travels: signatures and the message they are over, read strictly and written back to the byte.

use std::fmt;

use sha2::{Digest, Sha256};

use super::address::Pubkey;

/// The most bytes of a transaction that the network carries: one IPv6 packet of 1,280 bytes without its headers.
pub const MAX_BYTES: usize = 1232;

/// The bit of the first byte of a message that says that a version follows; legacy messages begin with a count below it.
const VERSIONED: u8 = 0x80;

/// A transaction: a message and the signatures of those whom it makes sign.
#[derive(Clone, PartialEq, Eq)]
pub struct Transaction {
    /// In the order of the message's keys. The first is the fee payer's, and its bytes are the name of the transaction.
    /// An unsigned slot is 64 zeros.
    pub signatures: Vec<[u8; 64]>,
    pub message: Message,
}

/// How a message is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Legacy,
    V0,
}

/// What is signed: who takes part, until when it holds, and what is to be done.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    raw: Vec<u8>,
    version: Version,
    header: Header,
    keys: Vec<Pubkey>,
    recent_blockhash: [u8; 32],
    instructions: Vec<Instruction>,
    looked_up: usize,
}

/// How the keys of a message are divided: signers first, and of signers and others the writable first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub required_signatures: u8,
    pub read_only_signers: u8,
    pub read_only_others: u8,
}

/// One call of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Position of the program among the keys.
    pub program: u8,
    /// Positions of the accounts it is given, in its own order.
    pub accounts: Vec<u8>,
    pub data: Vec<u8>,
}

/// Why bytes are no transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl Transaction {
    /// Reads a transaction, all of it: signatures, a legacy or version 0 message, and nothing after it.
    ///
    /// What the network would not carry, read or run is refused: more than [`MAX_BYTES`], lengths not written in their
    /// shortest form, positions that do not exist, a key named twice, another number of signatures than the message asks
    /// for. So every transaction has one spelling: [`Transaction::to_bytes`] gives back
    /// the very bytes. Nothing is judged about what it does or who signed.
    pub fn parse(bytes: &[u8]) -> Result<Transaction, Malformed> {
        if bytes.len() > MAX_BYTES {
            return Err(Malformed("it is longer than the 1,232 bytes that the network carries"));
        }
        let mut rest = Bytes(bytes);
        let count = rest.length()?;
        let signatures = (0..count).map(|_| rest.array::<64>()).collect::<Result<Vec<_>, _>>()?;
        let message = Message::parse(rest.0)?;
        match signatures.len() == usize::from(message.header.required_signatures) {
            true => Ok(Transaction { signatures, message }),
            false => Err(Malformed("it has another number of signatures than its message asks for")),
        }
    }

    /// The bytes as they are sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAX_BYTES);
        push_length(&mut out, self.signatures.len());
        self.signatures.iter().for_each(|signature| out.extend(signature));
        out.extend(&self.message.raw);
        out
    }
}

impl Message {
    /// Reads the bytes of a message, all of them, by the rules of [`Transaction::parse`].
    pub fn parse(raw: &[u8]) -> Result<Message, Malformed> {
        let mut rest = Bytes(raw);
        let version = match rest.0.first() {
            Some(first) if first & VERSIONED == 0 => Version::Legacy,
            Some(&VERSIONED) => {
                rest.take(1)?;
                Version::V0
            }
            Some(_) => return Err(Malformed("its message is of a version that is not known here; 0 and legacy are")),
            None => return Err(CUT),
        };
        let [required_signatures, read_only_signers, read_only_others] = rest.array()?;
        let header = Header { required_signatures, read_only_signers, read_only_others };
        let count = rest.length()?;
        let keys = (0..count).map(|_| rest.array().map(Pubkey)).collect::<Result<Vec<_>, _>>()?;
        let recent_blockhash = rest.array()?;
        let count = rest.length()?;
        let instructions = (0..count).map(|_| instruction(&mut rest)).collect::<Result<Vec<_>, _>>()?;
        let looked_up = match version {
            Version::Legacy => 0,
            Version::V0 => looked_up(&mut rest)?,
        };
        if !rest.0.is_empty() {
            return Err(Malformed("bytes follow after its end"));
        }
        let message = Message { raw: raw.to_vec(), version, header, keys, recent_blockhash, instructions, looked_up };
        message.check()?;
        Ok(message)
    }

    /// Lays out a message that looks nothing up, as [`Message::parse`] reads it.
    ///
    /// # Errors
    /// For parts that make no message, such as a position that does not exist.
    pub fn new(
        version: Version,
        header: Header,
        keys: &[Pubkey],
        recent_blockhash: &[u8; 32],
        instructions: &[Instruction],
    ) -> Result<Message, Malformed> {
        let mut raw = Vec::with_capacity(MAX_BYTES);
        if version == Version::V0 {
            raw.push(VERSIONED);
        }
        raw.extend([header.required_signatures, header.read_only_signers, header.read_only_others]);
        push_length(&mut raw, keys.len());
        keys.iter().for_each(|key| raw.extend(key.0));
        raw.extend(recent_blockhash);
        push_length(&mut raw, instructions.len());
        for instruction in instructions {
            raw.push(instruction.program);
            push_length(&mut raw, instruction.accounts.len());
            raw.extend(&instruction.accounts);
            push_length(&mut raw, instruction.data.len());
            raw.extend(&instruction.data);
        }
        if version == Version::V0 {
            push_length(&mut raw, 0);
        }
        Message::parse(&raw)
    }

    /// The bytes that are signed.
    pub fn bytes(&self) -> &[u8] {
        &self.raw
    }

    /// What the message is known by, whoever signed it: the SHA-256 of its bytes.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.raw).into()
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn header(&self) -> Header {
        self.header
    }

    /// Everybody whom it names: signers first, the fee payer as the very first. Those it looks up are not here.
    pub fn keys(&self) -> &[Pubkey] {
        &self.keys
    }

    /// Those who must sign, in the order of the signatures.
    pub fn signers(&self) -> &[Pubkey] {
        &self.keys[..usize::from(self.header.required_signatures)]
    }

    /// Who pays the fee.
    pub fn fee_payer(&self) -> Pubkey {
        // A message without signers is not read.
        self.keys[0]
    }

    /// The hash of a recent block: when that is too old, the message holds no more. A durable nonce stands in the same place.
    pub fn recent_blockhash(&self) -> [u8; 32] {
        self.recent_blockhash
    }

    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// How many accounts it names only by their position in tables on the chain, which nobody can tell from its bytes.
    pub fn looked_up(&self) -> usize {
        self.looked_up
    }

    /// The key at a position that an instruction names; `None` for one that is looked up.
    pub fn key(&self, position: u8) -> Option<Pubkey> {
        self.keys.get(usize::from(position)).copied()
    }

    fn check(&self) -> Result<(), Malformed> {
        let Header { required_signatures, read_only_signers, read_only_others } = self.header;
        let keys = self.keys.len();
        if usize::from(required_signatures) + usize::from(read_only_others) > keys {
            return Err(Malformed("its header counts more keys than it has"));
        }
        // The fee payer is the first signer, and writable.
        if read_only_signers >= required_signatures {
            return Err(Malformed("nobody pays its fee: it has no signer who may be written to"));
        }
        if keys + self.looked_up > 256 {
            return Err(Malformed("it names more than 256 accounts"));
        }
        if (1..keys).any(|at| self.keys[..at].contains(&self.keys[at])) {
            return Err(Malformed("it names a key twice"));
        }
        for instruction in &self.instructions {
            // The fee payer is no program, and no program is looked up.
            if instruction.program == 0 || usize::from(instruction.program) >= keys {
                return Err(Malformed("an instruction calls a program that it does not name"));
            }
            if instruction.accounts.iter().any(|account| usize::from(*account) >= keys + self.looked_up) {
                return Err(Malformed("an instruction is given an account that it does not name"));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The signatures are the payer's.
        f.debug_struct("Transaction").field("message", &self.message).finish_non_exhaustive()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = (self.keys.len(), self.instructions.len());
        f.debug_struct("Message").field("fee_payer", &self.fee_payer()).field("keys_and_instructions", &counts).finish()
    }
}

fn instruction(rest: &mut Bytes<'_>) -> Result<Instruction, Malformed> {
    let [program] = rest.array()?;
    let accounts = rest.list()?;
    let data = rest.list()?;
    Ok(Instruction { program, accounts, data })
}

/// How many accounts all look-up tables together name: per table its address, and positions of writable and of read-only
/// accounts.
fn looked_up(rest: &mut Bytes<'_>) -> Result<usize, Malformed> {
    let tables = rest.length()?;
    let mut named = 0;
    for _ in 0..tables {
        rest.take(32)?;
        let here = rest.list()?.len() + rest.list()?.len();
        if here == 0 {
            return Err(Malformed("it names a look-up table and nothing in it"));
        }
        named += here;
    }
    Ok(named)
}

const CUT: Malformed = Malformed("it is cut off");

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(CUT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(CUT)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A length of up to 16 bits, seven of them in each byte and the lowest first ("compact-u16", "shortvec").
    fn length(&mut self) -> Result<usize, Malformed> {
        let mut length = 0;
        for place in 0..3 {
            let [byte] = self.array()?;
            length |= usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 != 0 {
                continue;
            }
            // A last byte of zero adds nothing: the same length has a shorter form.
            if byte == 0 && place > 0 {
                return Err(Malformed("a length in it is not in its shortest form"));
            }
            return match length <= usize::from(u16::MAX) {
                true => Ok(length),
                false => Err(TOO_LONG),
            };
        }
        Err(TOO_LONG)
    }

    fn list(&mut self) -> Result<Vec<u8>, Malformed> {
        let length = self.length()?;
        Ok(self.take(length)?.to_vec())
    }
}

const TOO_LONG: Malformed = Malformed("a length in it has more than 16 bits");

/// The shortest form of a length, the inverse of [`Bytes::length`].
fn push_length(out: &mut Vec<u8>, length: usize) {
    let mut left = length;
    while left >= 0x80 {
        out.push(0x80 | low_bits(left));
        left >>= 7;
    }
    out.push(low_bits(left));
}

fn low_bits(number: usize) -> u8 {
    number.to_le_bytes()[0] & 0x7f
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    use super::*;

    const VECTORS: &str = include_str!("../../../tests/vectors/svm.json");

    /// Transactions that other libraries made, with what they read in them.
    fn published() -> Vec<(String, Vec<u8>, Value)> {
        let file: Value = serde_json::from_str(VECTORS).unwrap();
        let vectors = file["vectors"].as_array().unwrap().iter().filter_map(|vector| {
            let wire = vector.pointer("/payload/payload/transaction")?.as_str()?;
            let decoded = vector.get("decoded").filter(|decoded| decoded.is_object())?;
            Some((vector["id"].as_str()?.to_owned(), STANDARD.decode(wire).ok()?, decoded.clone()))
        });
        vectors.collect()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_published_transaction_is_read_as_its_makers_read_it() {
        let published = published();
        assert!(published.len() >= 20, "only {}", published.len());
        for (id, bytes, decoded) in published {
            if id == "svm-v2-trailing-bytes" {
                assert_eq!(Transaction::parse(&bytes), Err(Malformed("bytes follow after its end")));
                continue;
            }
            let transaction = Transaction::parse(&bytes).unwrap_or_else(|error| panic!("{id}: {error}"));
            assert_eq!(transaction.to_bytes(), bytes, "{id}");
            let message = &transaction.message;
            assert_eq!(STANDARD.encode(message.hash()), decoded["messageSha256Base64"], "{id}");
            let version = if decoded["version"] == 0 { Version::V0 } else { Version::Legacy };
            assert_eq!(message.version(), version, "{id}");
            assert_eq!(instructions(message, decoded["messageHex"].is_string()), decoded["instructions"], "{id}");
            if decoded["messageHex"].is_string() {
                assert_eq!(hex(message.bytes()), decoded["messageHex"], "{id}");
                assert_eq!(
                    in_full(&transaction),
                    ["header", "staticAccounts", "signatures"].map(|key| decoded[key].clone()),
                    "{id}"
                );
                assert_eq!(Pubkey(message.recent_blockhash()).to_string(), decoded["blockhash"], "{id}");
            }
            let shown = format!("{transaction:?}");
            assert!(!shown.contains(&format!("{}, {}", transaction.signatures[1][0], transaction.signatures[1][1])), "{shown}");
        }
    }

    fn instructions(message: &Message, with_accounts: bool) -> Value {
        let name = |position: &u8| message.key(*position).unwrap().to_string();
        let shown = message.instructions().iter().map(|instruction| {
            let mut shown = json!({ "program": name(&instruction.program), "dataHex": hex(&instruction.data) });
            if with_accounts {
                shown["accounts"] = instruction.accounts.iter().map(name).collect();
            }
            shown
        });
        shown.collect()
    }

    fn in_full(transaction: &Transaction) -> [Value; 3] {
        let message = &transaction.message;
        let header = message.header();
        let signatures = message.signers().iter().zip(&transaction.signatures).map(|(signer, signature)| {
            let signature = if *signature == [0; 64] { Value::Null } else { hex(signature).into() };
            (signer.to_string(), signature)
        });
        [
            json!({
                "numSignerAccounts": header.required_signatures,
                "numReadonlySignerAccounts": header.read_only_signers,
                "numReadonlyNonSignerAccounts": header.read_only_others,
            }),
            json!(message.keys().iter().map(Pubkey::to_string).collect::<Vec<_>>()),
            signatures.collect::<serde_json::Map<_, _>>().into(),
        ]
    }

    fn key(byte: u8) -> Pubkey {
        Pubkey([byte; 32])
    }

    fn message(version: Version, header: [u8; 3], keys: &[Pubkey], instructions: &[Instruction]) -> Result<Message, Malformed> {
        let [required_signatures, read_only_signers, read_only_others] = header;
        let header = Header { required_signatures, read_only_signers, read_only_others };
        Message::new(version, header, keys, &[9; 32], instructions)
    }

    #[test]
    fn what_cannot_be_a_message_is_refused_with_what_is_wrong() {
        let keys = [key(1), key(2), key(3)];
        let call = |program, accounts: &[u8]| Instruction { program, accounts: accounts.to_vec(), data: vec![] };
        let good = [call(2, &[0, 1])];
        for version in [Version::Legacy, Version::V0] {
            let refused = |header, keys: &[_], instructions: &[_]| message(version, header, keys, instructions).unwrap_err().0;
            assert!(message(version, [2, 1, 1], &keys, &good).is_ok());
            assert!(refused([3, 0, 1], &keys, &good).contains("more keys than it has"));
            assert!(refused([0, 0, 0], &keys, &good).contains("nobody pays"));
            assert!(refused([2, 2, 1], &keys, &good).contains("nobody pays"));
            assert!(refused([2, 1, 1], &[key(1), key(2), key(1)], &good).contains("twice"));
            assert!(refused([2, 1, 1], &keys, &[call(0, &[])]).contains("a program"));
            assert!(refused([2, 1, 1], &keys, &[call(3, &[])]).contains("a program"));
            assert!(refused([2, 1, 1], &keys, &[call(2, &[3])]).contains("an account"));
        }
    }

    /// Two signatures and a message that calls the third key with some data, in the smallest of each.
    fn small() -> Transaction {
        let call = Instruction { program: 2, accounts: vec![0, 1], data: vec![7; 3] };
        let message = message(Version::V0, [2, 1, 1], &[key(1), key(2), key(3)], &[call]).unwrap();
        Transaction { signatures: vec![[0; 64], [5; 64]], message }
    }

    #[test]
    fn one_transaction_has_one_spelling() {
        let bytes = small().to_bytes();
        assert_eq!(Transaction::parse(&bytes), Ok(small()));
        for end in 0..bytes.len() {
            assert!(Transaction::parse(&bytes[..end]).is_err(), "the first {end} bytes");
        }
        let more = [&bytes[..], &[0]].concat();
        assert_eq!(Transaction::parse(&more).unwrap_err().0, "bytes follow after its end");
        // Every length in it, written longer than it need be.
        let keys = 1 + 2 * 64 + 1 + 3;
        let instructions = keys + 1 + 3 * 32 + 32;
        for at in [0, keys, instructions, instructions + 2, instructions + 5, bytes.len() - 1] {
            let mut longer = bytes.clone();
            longer[at] |= 0x80;
            longer.insert(at + 1, 0);
            assert_eq!(Transaction::parse(&longer).unwrap_err().0, "a length in it is not in its shortest form", "{at}");
        }
        for (length, error) in [(&[0xff, 0xff, 0x04][..], TOO_LONG), (&[0xff, 0xff, 0x83], TOO_LONG), (&[0xff, 0xff, 0x03], CUT)]
        {
            assert_eq!(Transaction::parse(&[length, &bytes[1..]].concat()), Err(error));
        }
        for signatures in [vec![], vec![[0; 64]], vec![[0; 64]; 3]] {
            let other = Transaction { signatures, message: small().message };
            assert!(Transaction::parse(&other.to_bytes()).unwrap_err().0.contains("number of signatures"));
        }
        for version in 0x81..=0xff {
            let mut other = bytes.clone();
            other[1 + 2 * 64] = version;
            assert!(Transaction::parse(&other).unwrap_err().0.contains("version"), "{version}");
        }
    }

    #[test]
    fn a_look_up_table_is_counted_and_not_believed() {
        let bytes = small().message.bytes().to_vec();
        let table = |writable: &[u8], others: &[u8]| {
            let (lengths, ends) = ([writable.len(), others.len()].map(low_bits), [writable, others]);
            let tables = [&[1][..], &[8; 32], &lengths[..1], ends[0], &lengths[1..], ends[1]].concat();
            [&bytes[..bytes.len() - 1], &tables].concat()
        };
        assert_eq!(Message::parse(&bytes).unwrap().looked_up(), 0);
        let message = Message::parse(&table(&[0], &[3, 4])).unwrap();
        assert_eq!((message.looked_up(), message.key(3)), (3, None));
        assert!(Message::parse(&table(&[], &[])).unwrap_err().0.contains("nothing in it"));
        assert!(Message::parse(&table(&[0; 100], &[0; 127])).is_ok());
        let far = Instruction { program: 2, accounts: vec![3], data: vec![] };
        assert!(super::tests::message(Version::V0, [2, 1, 1], &[key(1), key(2), key(3)], &[far]).is_err());
    }

    #[test]
    fn what_the_network_does_not_carry_is_not_read() {
        let with = |data: usize| {
            let call = Instruction { program: 2, accounts: vec![], data: vec![0; data] };
            let message = message(Version::Legacy, [1, 0, 1], &[key(1), key(2), key(3)], &[call]).unwrap();
            Transaction { signatures: vec![[0; 64]], message }
        };
        let room = MAX_BYTES - with(200).to_bytes().len() + 200;
        assert_eq!(Transaction::parse(&with(room).to_bytes()), Ok(with(room)));
        assert!(Transaction::parse(&with(room + 1).to_bytes()).unwrap_err().0.contains("1,232"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_read_is_written_back_the_same(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            if let Ok(transaction) = Transaction::parse(&bytes) {
                proptest::prop_assert_eq!(transaction.to_bytes(), bytes);
            }
        }

        /// Random bytes are hardly ever a transaction; one changed byte of a transaction often is another.
        #[test]
        fn a_changed_transaction_is_another_or_none(at in 0usize..300, to in 1u8..) {
            let mut bytes = small().to_bytes();
            let at = at % bytes.len();
            bytes[at] ^= to;
            if let Ok(changed) = Transaction::parse(&bytes) {
                proptest::prop_assert_eq!(changed.to_bytes(), bytes);
                proptest::prop_assert_ne!(changed, small());
            }
        }
    }
}
