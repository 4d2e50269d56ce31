//! Who pays for a call: a payment that brings its own money first, then a key; nobody means that the quote is the answer.

use crate::error::{Code, Error};
use crate::x402::{MAX_HEADER_BYTES, Payment};

/// The credentials of one request as they came, not yet believed.
#[derive(Debug, Default)]
pub struct Credentials {
    /// Values of the payment headers that were present and not empty, in order of preference.
    pub payments: Vec<String>,
    /// Whether `Authorization` or `x-api-key` was sent at all.
    pub key: bool,
}

/// How a payer identified itself for this call.
pub(super) enum Via {
    /// It did not.
    Nobody,
    /// It brought its own money.
    Payment(Box<Payment>),
}

/// A payment header that cannot be read.
pub(super) fn malformed(what: &str) -> Error {
    let message = format!("{what}; sign the offer in PAYMENT-REQUIRED and send that as PAYMENT-SIGNATURE");
    Error::new(Code::InvalidPayment, message)
}

impl Credentials {
    /// Reads the credentials. Keys cannot be minted yet, so every key is unknown; it never falls through to a quote,
    /// because a tool with a wrong key must hear about the key.
    pub(super) fn identify(&self) -> Result<Via, Error> {
        if let Some(payment) = self.payment()? {
            return Ok(Via::Payment(Box::new(payment)));
        }
        if self.key {
            let message = "this API key is not known here; send no key, and pay for this call with PAYMENT-SIGNATURE";
            return Err(Error::new(Code::InvalidKey, message));
        }
        Ok(Via::Nobody)
    }

    /// Reads the payment, if one came along. The same one may come under several names.
    ///
    /// # Errors
    /// `invalid_payment`, when it cannot be read or when two different ones came.
    pub(super) fn payment(&self) -> Result<Option<Payment>, Error> {
        if let [first, rest @ ..] = self.payments.as_slice() {
            if rest.iter().any(|other| other != first) {
                let message =
                    "two different payments came with one request, and neither was used; send one, as PAYMENT-SIGNATURE";
                return Err(Error::new(Code::InvalidPayment, message));
            }
            if first.len() > MAX_HEADER_BYTES {
                return Err(malformed(&format!("the payment header has {} bytes, more than {MAX_HEADER_BYTES}", first.len())));
            }
            return Payment::from_header(first).map(Some).map_err(|what| malformed(&what.to_string()));
        }
        Ok(None)
    }
}
