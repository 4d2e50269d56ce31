//! The pages that people open in a browser: files that are part of the program, under a policy that lets nothing else in.

use std::rc::Rc;

use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpRequest, HttpResponse, web};
use sha2::{Digest as _, Sha256};

use super::public;
use super::respond::{self, Edge};
use crate::catalogue::{Catalogue, Model};
use crate::config::Prepaid;
use crate::dialect::{Dialect, Goods, Task};
use crate::error::{Code, Error};
use crate::gateway::Gateway;
use crate::upstream::Upstreams;

/// What a page may do: show and run what came with it, and ask this gateway. Pictures of wallets come along as data.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// A wallet may open a window of its own; nobody else's window gets a hold on ours.
const OPENER: (HeaderName, &str) = (HeaderName::from_static("cross-origin-opener-policy"), "same-origin-allow-popups");

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// One file of `static/`: where it is asked for, what it is, and its text.
macro_rules! files {
    ($($path:literal $kind:ident $file:literal,)*) => {
        [$(($path, $kind, include_str!(concat!("../../static/", $file)))),*]
    };
}

const FILES: [(&str, &str, &str); 20] = files! {
    "/" HTML "index.html",
    "/topup" HTML "topup.html",
    "/dashboard" HTML "dashboard.html",
    "/models" HTML "models.html",
    "/operator" HTML "operator.html",
    "/static/style.css" STYLE "style.css",
    "/static/icon.svg" PICTURE "icon.svg",
    "/static/page.js" SCRIPT "page.js",
    "/static/api.js" SCRIPT "api.js",
    "/static/networks.js" SCRIPT "networks.js",
    "/static/wallets.js" SCRIPT "wallets.js",
    "/static/practice.js" SCRIPT "practice.js",
    "/static/evm.js" SCRIPT "evm.js",
    "/static/solana.js" SCRIPT "solana.js",
    "/static/topup.js" SCRIPT "topup.js",
    "/static/dashboard.js" SCRIPT "dashboard.js",
    "/static/chart.js" SCRIPT "chart.js",
    "/static/models.js" SCRIPT "models.js",
    "/static/session.js" SCRIPT "session.js",
    "/static/operator.js" SCRIPT "operator.js",
};

/// Every file as this gateway serves it.
pub struct Pages(Vec<Page>);

struct Page {
    path: &'static str,
    kind: &'static str,
    text: web::Bytes,
    /// Changes with the text, so that a browser asks whether it has the same.
    tag: String,
}

/// What differs between the pages of two gateways.
pub struct Facts<'a> {
    pub public_url: &'a str,
    pub catalogue: &'a Catalogue,
    /// What a top-up may be.
    pub prepaid: &'a Prepaid,
    /// Whether any network only plays at paying.
    pub simulated: bool,
}

impl Pages {
    /// The pages of a gateway, as it sells by these upstreams.
    pub fn of(gateway: &Gateway, upstreams: &Upstreams) -> Pages {
        let simulated = gateway.chains.networks().iter().any(|network| network.settlement == "simulated");
        let Gateway { public_url, catalogue, prepaid, .. } = gateway;
        Pages::new(&Facts { public_url, catalogue, prepaid, simulated }, upstreams)
    }

    /// Writes into the pages what is to be read before any script has run.
    pub fn new(facts: &Facts, upstreams: &Upstreams) -> Pages {
        let url = facts.public_url.trim_end_matches('/');
        let [least, suggested, most] = {
            let Prepaid { top_up_minimum, top_up_suggested, top_up_maximum, .. } = facts.prepaid;
            [top_up_minimum, top_up_suggested, top_up_maximum].map(ToString::to_string)
        };
        let cheapest = |goods| cheapest(facts.catalogue, upstreams, goods).map_or("MODEL", |model| &model.id);
        let of_words = |dialect| cheapest(Goods::Words(dialect));
        let blanks = [
            ("{{url}}", url),
            ("{{money}}", if facts.simulated { "simulated" } else { "real" }),
            ("{{least}}", &least),
            ("{{suggested}}", &suggested),
            ("{{most}}", &most),
            ("{{chat}}", of_words(Dialect::Chat)),
            ("{{messages}}", of_words(Dialect::Messages)),
            ("{{responses}}", of_words(Dialect::Responses)),
            ("{{image}}", cheapest(Goods::Media(Task::ImageGenerations))),
            ("{{speech}}", cheapest(Goods::Media(Task::Speech))),
            ("{{video}}", cheapest(Goods::Media(Task::VideoQueue))),
        ];
        let page = |(path, kind, text): (&'static str, &'static str, &str)| {
            let text = if kind == HTML { filled(text, &blanks) } else { text.to_owned() };
            let digest = Sha256::digest(text.as_bytes());
            let tag = format!("\"{}\"", digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect::<String>());
            Page { path, kind, text: text.into(), tag }
        };
        Pages(FILES.into_iter().map(page).collect())
    }

    fn find(&self, path: &str) -> Option<&Page> {
        self.0.iter().find(|page| page.path == path)
    }
}

/// The model that costs least for an ordinary call among those that are sold on a route.
fn cheapest<'a>(catalogue: &'a Catalogue, upstreams: &Upstreams, goods: Goods) -> Option<&'a Model> {
    let sold = catalogue.models().iter().filter(|model| goods.sells(model.kind));
    let sold = sold.filter(|model| upstreams.forms(&model.upstreams, goods).is_ok());
    sold.min_by_key(|model| model.typical_quote())
}

/// A page with its blanks filled. What is filled in stays text, whatever the operator calls a model.
fn filled(text: &str, blanks: &[(&str, &str)]) -> String {
    let is_blank = |rest: &str| blanks.iter().find(|(name, _)| rest.starts_with(name)).copied();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match is_blank(rest) {
            Some((name, value)) => {
                out.push_str(&escaped(value));
                rest = &rest[name.len()..];
            }
            None => {
                out.push_str("{{");
                rest = &rest[2..];
            }
        }
    }
    out + rest
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// Where files are asked for.
pub fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, ..)| *path)
}

/// One of the files. A browser that has it already is told so.
pub async fn page(request: HttpRequest) -> HttpResponse {
    let Some(edge) = request.app_data::<Rc<Edge>>() else {
        return respond::refuse(&request, Error::new(Code::Internal, "the server is not set up").into());
    };
    let Some(page) = edge.pages.find(request.path()) else { return public::not_found(request).await };
    let asked = request.headers().get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let known = asked.is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == page.tag));
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header(OPENER)
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::ETAG, page.tag.as_str()));
    match known {
        true => response.finish(),
        false => response.content_type(page.kind).body(page.text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_into_a_page_stays_text() {
        let blanks = [("{{url}}", "https://a.example"), ("{{chat}}", "<script>\"{{url}}\" & 'x'</script>")];
        let page = filled("<a href=\"{{url}}/v1\">{{chat}}</a> {{other}} {{", &blanks);
        let model = "&lt;script&gt;&quot;{{url}}&quot; &amp; &#39;x&#39;&lt;/script&gt;";
        assert_eq!(page, format!("<a href=\"https://a.example/v1\">{model}</a> {{{{other}}}} {{{{"));
    }

    #[test]
    fn every_blank_of_every_page_has_a_name_and_every_path_one_file() {
        for (path, kind, text) in FILES.into_iter().filter(|(_, kind, _)| *kind == HTML) {
            let names =
                ["url", "money", "least", "suggested", "most", "chat", "messages", "responses", "image", "speech", "video"];
            for rest in text.split("{{").skip(1) {
                assert!(names.iter().any(|name| rest.starts_with(&format!("{name}}}}}"))), "{path} ({kind}): {rest:.20}");
            }
        }
        let unique: std::collections::HashSet<_> = paths().collect();
        assert_eq!(unique.len(), FILES.len());
    }
}
