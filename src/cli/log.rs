//! The log: one line for each event on standard error, in colours for a terminal, else as plain text, or as JSON if asked.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What is logged when `FAREBOX_LOG` does not say.
const USUAL: &str = "info,actix_server=warn,actix_http::h1::dispatcher=off";

/// Starts the log, as `FAREBOX_LOG` (what) and `FAREBOX_LOG_FORMAT` (`json`, or text) say.
pub fn start() {
    let filter = EnvFilter::try_from_env("FAREBOX_LOG").unwrap_or_else(|_| EnvFilter::new(USUAL));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // It would tell of a stderr that nobody reads on stderr, and panic.
    let log = log.log_internal_errors(false);
    match std::env::var("FAREBOX_LOG_FORMAT").as_deref() {
        Ok("json") => log.json().init(),
        _ if std::io::stderr().is_terminal() => log.init(),
        _ => log.with_ansi(false).event_format(Plain).init(),
    }
}

/// Text without colours. Every sale writes a line, so that a line must cost little; and whatever a field says, it stays
/// within its line.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        writer.write_str(match *event.metadata().level() {
            Level::ERROR => " ERROR ",
            Level::WARN => "  WARN ",
            Level::INFO => "  INFO ",
            Level::DEBUG => " DEBUG ",
            Level::TRACE => " TRACE ",
        })?;
        writer.write_str(event.metadata().target())?;
        writer.write_char(':')?;
        let mut fields = Fields { line: OneLine(writer), written: Ok(()) };
        event.record(&mut fields);
        fields.written?;
        fields.line.0.write_char('\n')
    }
}

/// Writes ` name=value` for each field, and the message without its name.
struct Fields<'a> {
    line: OneLine<'a>,
    written: fmt::Result,
}

impl Fields<'_> {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let line = &mut self.line;
        self.written = self.written.and_then(|()| {
            line.0.write_char(' ')?;
            if field.name() != "message" {
                line.0.write_str(field.name())?;
                line.0.write_char('=')?;
            }
            line.write_fmt(value)
        });
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.add(field, format_args!("{value}")),
            _ => self.add(field, format_args!("{value:?}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

/// Text whose control characters are written as escapes: no value begins a line of its own, or moves a terminal's cursor.
struct OneLine<'a>(Writer<'a>);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| (b' '..0x7f).contains(&byte)) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|character| match character.is_control() {
            true => write!(self.0, "{}", character.escape_default()),
            false => self.0.write_char(character),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_stranger_sent_begins_a_line_of_the_log() {
        let mut text = String::new();
        let mut line = OneLine(Writer::new(&mut text));
        write!(line, "caf\u{e9}\n2026-01-01 INFO sold\u{1b}[2J\u{9b}\t\r\u{7f} {}", 7).unwrap();
        assert_eq!(text, "caf\u{e9}\\n2026-01-01 INFO sold\\u{1b}[2J\\u{9b}\\t\\r\\u{7f} 7");
    }
}
