//! How the rows that every call leaves are written down: holds and receipts, in a few dozen bytes instead of hundreds of JSON.

use super::rows::{Fund, Hold, KeyHold, Receipt};
use crate::account::AccountId;
use crate::clock::Period;
use crate::ids::{KeyId, PaymentId};

/// The first byte of each row. A row in another form is damaged, as far as this program can tell.
const FORM: u8 = 1;
/// That of a receipt, which has its upstream and what that one asks at its end. Older ones are of [`FORM`] and have neither.
const RECEIPT_FORM: u8 = 2;

impl Hold {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Row::begun(FORM);
        match &self.fund {
            Fund::Wallet(wallet) => out.flag(false).fixed(&wallet.to_bytes()),
            Fund::Payment(id) => out.flag(true).fixed(&id.0),
        };
        out.number(self.amount).number(self.allowance).number(self.allowance_began);
        out.flag(self.key.is_some());
        if let Some(key) = self.key {
            out.fixed(&key.id.0.to_be_bytes()).number(period_number(key.period)).number(key.began).flag(key.limit.is_some());
            out.number(key.limit.unwrap_or(0));
        }
        out.text(&self.model).text(&self.path);
        out.number(self.boot).flag(self.started).number(self.checkpoint);
        out.0
    }

    /// The inverse of [`Hold::to_bytes`]; `None` for a row that is damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Hold> {
        let mut row = Rest::of(bytes, FORM)?;
        let hold = Hold {
            fund: match row.flag()? {
                false => Fund::Wallet(row.account()?),
                true => Fund::Payment(PaymentId(row.fixed()?)),
            },
            amount: row.number()?,
            allowance: row.number()?,
            allowance_began: row.number()?,
            key: if row.flag()? { Some(row.key()?) } else { None },
            model: row.text()?,
            path: row.text()?,
            boot: row.number()?,
            started: row.flag()?,
            checkpoint: row.number()?,
        };
        row.0.is_empty().then_some(hold)
    }
}

impl Receipt {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Row::begun(RECEIPT_FORM);
        out.fixed(&self.account.to_bytes()).flag(self.key.is_some());
        if let Some(key) = self.key {
            out.fixed(&key.0.to_be_bytes()).number(self.key_began);
        }
        out.flag(self.payment.is_some());
        if let Some(payment) = self.payment {
            out.fixed(&payment.0);
        }
        out.flag(self.tx.is_some()).text(self.tx.as_deref().unwrap_or_default());
        out.text(&self.model).text(&self.path).number(self.at).number(self.ceiling);
        out.number(self.charge).number(self.allowance).number(self.allowance_began).number(self.credited).number(self.refunded);
        out.flag(self.whole)
            .number(self.input)
            .number(self.output)
            .number(self.cache_read)
            .number(self.cache_write)
            .number(self.units);
        out.text(&self.upstream).flag(self.cost.is_some()).number(self.cost.unwrap_or(0));
        out.0
    }

    /// The inverse of [`Receipt::to_bytes`]; `None` for a row that is damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Receipt> {
        let (mut row, is_older) = match Rest::of(bytes, RECEIPT_FORM) {
            Some(row) => (row, false),
            None => (Rest::of(bytes, FORM)?, true),
        };
        let account = row.account()?;
        let key = if row.flag()? { Some((row.fixed()?, row.number()?)) } else { None };
        let payment = if row.flag()? { Some(PaymentId(row.fixed()?)) } else { None };
        let (has_tx, tx) = (row.flag()?, row.text()?);
        let mut receipt = Receipt {
            account,
            key: key.map(|(id, _)| KeyId(u128::from_be_bytes(id))),
            key_began: key.map_or(0, |(_, began)| began),
            payment,
            tx: has_tx.then_some(tx),
            model: row.text()?,
            path: row.text()?,
            at: row.number()?,
            ceiling: row.number()?,
            charge: row.number()?,
            allowance: row.number()?,
            allowance_began: row.number()?,
            credited: row.number()?,
            refunded: row.number()?,
            whole: row.flag()?,
            input: row.number()?,
            output: row.number()?,
            cache_read: row.number()?,
            cache_write: row.number()?,
            units: row.number()?,
            upstream: String::new(),
            cost: None,
        };
        if !is_older {
            receipt.upstream = row.text()?;
            let (known, cost) = (row.flag()?, row.number()?);
            receipt.cost = known.then_some(cost);
        }
        row.0.is_empty().then_some(receipt)
    }
}

const PERIODS: [Period; 4] = [Period::Ever, Period::Day, Period::Week, Period::Month];

/// Its place in [`PERIODS`].
fn period_number(period: Period) -> u64 {
    match period {
        Period::Ever => 0,
        Period::Day => 1,
        Period::Week => 2,
        Period::Month => 3,
    }
}

/// A row that is being written.
struct Row(Vec<u8>);

impl Row {
    fn begun(form: u8) -> Row {
        let mut bytes = Vec::with_capacity(192);
        bytes.push(form);
        Row(bytes)
    }

    fn flag(&mut self, flag: bool) -> &mut Row {
        self.0.push(u8::from(flag));
        self
    }

    /// Seven bits in a byte, the lowest first; the high bit says that more follow.
    fn number(&mut self, mut number: u64) -> &mut Row {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
        self
    }

    fn fixed(&mut self, bytes: &[u8]) -> &mut Row {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Row {
        self.number(text.len() as u64).fixed(text.as_bytes())
    }
}

/// What is left of a row that is being read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn of(bytes: &'a [u8], form: u8) -> Option<Rest<'a>> {
        let (first, rest) = bytes.split_first()?;
        (*first == form).then_some(Rest(rest))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.fixed()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for place in 0..10 {
            let [byte] = self.fixed()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            number |= bits.checked_shl(7 * place).filter(|shifted| shifted >> (7 * place) == bits)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    fn account(&mut self) -> Option<AccountId> {
        AccountId::from_bytes(&self.fixed()?)
    }

    fn key(&mut self) -> Option<KeyHold> {
        let id = KeyId(u128::from_be_bytes(self.fixed()?));
        let period = *PERIODS.get(usize::try_from(self.number()?).ok()?)?;
        let began = self.number()?;
        let (limited, limit) = (self.flag()?, self.number()?);
        Some(KeyHold { id, period, began, limit: limited.then_some(limit) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds() -> Vec<Hold> {
        let plain = Hold {
            fund: Fund::Payment(PaymentId([7; 32])),
            amount: u64::MAX,
            allowance: 0,
            allowance_began: 127,
            key: None,
            model: String::new(),
            path: "/v1/messages".into(),
            boot: 128,
            started: false,
            checkpoint: 1 << 63,
        };
        let key = |period, limit| Some(KeyHold { id: KeyId(u128::MAX - 1), period, began: 16_384, limit });
        let wallet = Fund::Wallet(AccountId::Solana([9; 32]));
        let keyed = PERIODS.map(|period| Hold { fund: wallet, key: key(period, Some(0)), started: true, ..plain.clone() });
        [vec![plain.clone(), Hold { key: key(Period::Day, None), model: "model-\u{e9}".into(), ..plain }], keyed.to_vec()]
            .concat()
    }

    fn receipts() -> Vec<Receipt> {
        let plain = Receipt {
            account: AccountId::Evm([3; 20]),
            key: None,
            key_began: 0,
            payment: None,
            tx: None,
            model: "m".into(),
            path: "/v1/responses".into(),
            at: 1_763_640_000_123,
            ceiling: 1,
            charge: 2,
            allowance: 3,
            allowance_began: 4,
            credited: 5,
            refunded: 6,
            whole: true,
            input: 7,
            output: 8,
            cache_read: 9,
            cache_write: 10,
            units: 11,
            upstream: "openrouter".into(),
            cost: Some(2),
        };
        let keyed = Receipt { key: Some(KeyId(5)), key_began: u64::MAX, ..plain.clone() };
        let paid = Receipt { payment: Some(PaymentId([1; 32])), tx: Some("0xab".into()), whole: false, ..plain.clone() };
        let unknown = Receipt { upstream: String::new(), cost: None, ..plain.clone() };
        vec![plain, keyed, paid, unknown]
    }

    #[test]
    fn holds_and_receipts_survive_their_bytes() {
        for hold in holds() {
            assert_eq!(Hold::from_bytes(&hold.to_bytes()), Some(hold));
        }
        for receipt in receipts() {
            assert_eq!(Receipt::from_bytes(&receipt.to_bytes()), Some(receipt));
        }
    }

    #[test]
    fn a_row_that_is_cut_or_longer_or_of_another_form_is_damaged() {
        fn damaged<T>(bytes: Vec<u8>, read: fn(&[u8]) -> Option<T>) {
            assert!((0..bytes.len()).all(|end| read(&bytes[..end]).is_none()), "cut");
            assert!(read(&[&bytes[..], &[0]].concat()).is_none(), "longer");
            assert!(read(&[&[RECEIPT_FORM + 1], &bytes[1..]].concat()).is_none(), "of another form");
        }
        holds().into_iter().for_each(|hold| damaged(hold.to_bytes(), Hold::from_bytes));
        receipts().into_iter().for_each(|receipt| damaged(receipt.to_bytes(), Receipt::from_bytes));
    }

    #[test]
    fn a_receipt_of_before_costs_were_written_down_has_none() {
        for receipt in receipts() {
            let bytes = receipt.to_bytes();
            let more = receipt.upstream.len() + 1 + 1 + 1;
            let older = [&[FORM], &bytes[1..bytes.len() - more]].concat();
            let read = Receipt::from_bytes(&older);
            assert_eq!(read, Some(Receipt { upstream: String::new(), cost: None, ..receipt }));
        }
    }

    #[test]
    fn a_number_that_fits_no_u64_is_damaged() {
        let read = |bytes: &[u8]| Rest(bytes).number();
        assert_eq!(read(&[&[0xff; 9][..], &[1]].concat()), Some(u64::MAX));
        assert_eq!(read(&[&[0xff; 9][..], &[2]].concat()), None);
        assert_eq!(read(&[0x80; 11]), None);
    }
}
