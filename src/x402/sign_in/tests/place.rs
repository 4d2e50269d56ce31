//! Where a message may be signed for: at our own addresses, and nowhere else.

use super::*;

/// Whether a message for this domain and URI is one for the gateway; else the code.
fn place(rules: &SignInRules, domain: &str, uri: &str) -> Result<(), SignInFault> {
    let text = minimal().replacen("https://your.name", uri, 1).replacen("your.name wants", &format!("{domain} wants"), 1);
    rules.check_place(&Message::parse(&text, Family::Evm).unwrap())
}

#[test]
fn only_our_own_addresses_are_signed_for() {
    let rules = SignInRules::new("https://Your.Name:443/gw", Some(4020), ["eip155:8453"]).unwrap();
    assert_eq!(rules.domain(), "your.name", "as the challenge names it");
    for (domain, uri) in [
        ("your.name", "https://your.name/v1/messages?x=1"),
        ("YOUR.name", "HTTPS://YOUR.NAME"),
        ("your.name:443", "https://your.name:443"),
        ("https://your.name", "https://your.name#f"),
        ("127.0.0.1:4020", "http://127.0.0.1:4020/"),
        ("localhost:4020", "http://[::1]:4020/"),
    ] {
        assert_eq!(place(&rules, domain, uri), Ok(()), "{domain} {uri}");
    }
    let ours = "https://your.name";
    for domain in [
        "evil.example",
        "your.name.evil.example",
        "evilyour.name",
        "your.name:1337",
        "your.name:443:1337",
        "your.name.",
        "user@your.name",
        "your.name@evil.example",
        "http://your.name",
        "127.0.0.1",
        "127.0.0.1:4021",
        "[::1]:80",
        ":443",
    ] {
        assert_eq!(place(&rules, domain, ours).unwrap_err().code, DOMAIN_MISMATCH, "{domain}");
    }
    for uri in [
        "http://your.name/",
        "https://your.name.evil.example/",
        "https://your.name:8443/",
        "https://user@your.name/",
        "https://your.name@evil.example/",
        "https://evil.example/your.name",
        "https://evil.example?https://your.name",
        "https:your.name",
        "https:///your.name",
        "ftp://your.name/",
        "https://127.0.0.1:4020/",
        "https://",
    ] {
        assert_eq!(place(&rules, "your.name", uri).unwrap_err().code, URI_MISMATCH, "{uri}");
    }
    let public = SignInRules::new("https://your.name", None, []).unwrap();
    assert_eq!(place(&public, "127.0.0.1:4020", ours).unwrap_err().code, DOMAIN_MISMATCH, "not listening on loopback");
}

#[test]
fn the_refusal_of_a_domain_says_what_to_do() {
    let rules = SignInRules::new("http://your.name:8080/gw", None, []).unwrap();
    let said = |domain: &str| place(&rules, domain, "http://your.name:8080").unwrap_err().message;
    assert_eq!(
        said("api.venice.ai"),
        "signed for 'api.venice.ai'; this gateway is 'your.name:8080' — pass { apiUrl: 'http://your.name:8080/gw' }"
    );
    assert!(said("Your.Name").contains("port"), "{}", said("Your.Name"));
    assert!(said("evil.example").contains("this gateway is 'your.name:8080'"));
    assert!(said(&"a".repeat(5000)).len() < 300, "a caller's text is cut");
    assert!(place(&rules, "your.name:8080", &format!("https://{}", "a".repeat(5000))).unwrap_err().message.len() < 300);
}

#[test]
fn a_single_domain_can_be_judged_for_with_and_without_a_scheme() {
    let rules = |domain| SignInRules::for_domain(domain, Vec::new());
    let bare = rules("your.name:8443").unwrap();
    assert_eq!(place(&bare, "your.name:8443", "https://your.name:8443/"), Ok(()));
    assert_eq!(place(&bare, "your.name:8443", "http://your.name:8443/"), Ok(()), "no scheme was given");
    assert_eq!(place(&bare, "your.name", "https://your.name:8443/").unwrap_err().code, DOMAIN_MISMATCH);
    assert_eq!(place(&bare, "your.name:8443", "https://your.name/").unwrap_err().code, URI_MISMATCH);
    assert_eq!(place(&bare, "your.name:8443", "ftp://your.name:8443/").unwrap_err().code, URI_MISMATCH);
    let url = rules("https://your.name/v1").unwrap();
    assert_eq!(place(&url, "your.name", "https://your.name/"), Ok(()));
    assert_eq!(place(&url, "your.name", "http://your.name/").unwrap_err().code, URI_MISMATCH);
    for none in ["", "a b", "user@your.name", "https://", "https://a@b", "://x", "your.name/path"] {
        assert_eq!(rules(none), None, "{none:?}");
    }
}

#[test]
fn several_addresses_are_one_gateway() {
    let origin = |text| Origin::of_domain(text).unwrap();
    let rules = SignInRules::new("https://your.name", None, []).unwrap();
    let rules = rules.and_at([origin("other.name"), origin("http://127.0.0.1:8402")]);
    assert_eq!(rules.domain(), "your.name", "the published one is named in challenges");
    for (domain, uri) in [
        ("your.name", "https://your.name/"),
        ("other.name", "https://other.name/"),
        ("other.name", "https://your.name/v1"),
        ("your.name", "http://other.name/v1"),
        ("127.0.0.1:8402", "http://127.0.0.1:8402/"),
    ] {
        assert_eq!(place(&rules, domain, uri), Ok(()), "{domain} {uri}");
    }
    assert_eq!(place(&rules, "evil.example", "https://other.name/").unwrap_err().code, DOMAIN_MISMATCH);
    assert_eq!(place(&rules, "other.name", "https://evil.example/").unwrap_err().code, URI_MISMATCH);
    assert_eq!(place(&rules, "127.0.0.1:8402", "https://127.0.0.1:8402/").unwrap_err().code, URI_MISMATCH);
}

#[test]
fn a_domain_that_nobody_could_sign_in_for_is_refused_with_what_to_write() {
    for good in ["your.name", "Your.Name:8443", "https://your.name", "https://your.name:80/x", "http://[::1]:8402", "[::1]"] {
        let origin = Origin::of_domain(good).unwrap();
        let rules = SignInRules::new("https://x.name", None, []).unwrap().and_at([origin]);
        let url = if good.contains("://") { good.to_owned() } else { format!("https://{good}") };
        let domain = url.split('/').nth(2).unwrap();
        assert_eq!(place(&rules, domain, &url), Ok(()), "{good}");
    }
    for (bad, words) in [
        ("api.venice.ai", "apiUrl"),
        ("https://API.venice.ai/", "apiUrl"),
        ("api.venice.ai:8443", "apiUrl"),
        ("your.name:443", "write your.name"),
        ("your.name:80", "https://your.name:80"),
        ("your.name:", "host:port"),
        ("your.name:http", "host:port"),
        ("*.your.name", "no wallet signs in for"),
        (":8443", "host:port"),
        ("ftp://your.name", "a URL"),
        ("your.name/path", "a URL"),
        ("bücher.example", "ASCII"),
        ("user@your.name", "host:port"),
        ("", "host:port"),
    ] {
        let said = Origin::of_domain(bad).unwrap_err();
        assert!(said.contains(words), "{bad}: {said}");
    }
}
