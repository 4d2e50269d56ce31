//! Translated requests: what is written is sold in the upstream's dialect, and costs what the caller was quoted at most.

use farebox::catalogue::Model;
use farebox::dialect::translate::{self, Terms};
use farebox::dialect::{Dialect, LimitField, Request};
use farebox::error::Code;

/// So many that the pictures of a bound can be told from its text.
const IMAGE_TOKENS: u32 = 4_000_000_000;
/// A part as one dialect writes it against the same part in another, at most.
const GROWTH: u64 = 8;

/// Translates the bytes between all dialects.
pub fn check(data: &[u8]) {
    for from in Dialect::ALL {
        let caller = Request::read(from, data).ok();
        let model = model();
        let output_limit = caller.as_ref().map_or(4096, |request| request.output_limit(&model));
        for to in Dialect::ALL {
            let terms = Terms { model: "up/\"m", output_limit, limit_field: LimitField::MaxTokens, stream: true };
            let sent = translate::request(from, to, data, &terms);
            match (&sent, translate::request(from, to, data, &terms)) {
                (Ok(once), Ok(again)) => assert_eq!(*once, again, "{from:?} to {to:?} differs from time to time"),
                (Err(once), Err(again)) => assert_eq!(once.message, again.message),
                _ => panic!("{from:?} to {to:?} is refused from time to time"),
            }
            match sent {
                Ok(sent) => sold(&sent, to, caller.as_ref(), output_limit),
                Err(error) => assert!(matches!(error.code, Code::InvalidJson | Code::InvalidRequest), "{error}"),
            }
        }
    }
}

fn sold(sent: &[u8], to: Dialect, caller: Option<&Request>, output_limit: u32) {
    let model = model();
    let request = Request::read(to, sent).expect("what is written could be bought by a caller of that dialect");
    assert_eq!((request.model(), request.stream(), request.output_limit(&model)), ("up/\"m", true, output_limit));
    assert_eq!((request.choices(), request.wants_usage()), (1, to == Dialect::Chat));
    let Some(caller) = caller else { return };
    let (quoted, written) = (caller.bound(&model), request.bound(&model));
    assert!(written.cache <= quoted.cache, "{:?} is dearer than {:?}", written.cache, quoted.cache);
    assert!(written.output <= quoted.output, "{} answers more than {}", written.output, quoted.output);
    assert!(request.hidden_output(&model) <= caller.hidden_output(&model), "hides output that the caller did not ask for");
    let pictures = |input: u64| input / u64::from(IMAGE_TOKENS);
    let text = |input: u64| input % u64::from(IMAGE_TOKENS);
    assert!(pictures(written.input) <= pictures(quoted.input), "shows more pictures than came");
    let most = GROWTH * text(quoted.input) + 2048;
    assert!(text(written.input) <= most, "{} of {} tokens", text(written.input), text(quoted.input));
}

fn model() -> Model {
    Model { image_tokens: IMAGE_TOKENS, ..Model::plain("m") }
}
