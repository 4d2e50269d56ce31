//! Where a sign-in may be signed for: the gateway's own addresses, which come from its configuration and never from a request.

use super::fault::{DOMAIN_MISMATCH, SignInFault, URI_MISMATCH, cut, shown};
use super::message::Message;
use super::text;

/// The domain of the service whose client our buyers use: signing for it is their most common mistake.
const CLIENTS_HOME: &str = "api.venice.ai";

/// Wallets sign in for these chains wherever they pay, so they are always taken: `venice-x402-client` signs for no others.
const ALWAYS: [&str; 2] = ["eip155:8453", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"];

/// Scheme and authority of one address of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `None` where no scheme was given: any is fine then.
    scheme: Option<String>,
    /// Lower case, without the scheme's usual port.
    authority: String,
}

impl Origin {
    /// Reads a URL down to its authority; `None` when it has none, or one with a user in it.
    fn of_url(url: &str) -> Option<Origin> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let scheme = scheme.to_ascii_lowercase();
        text::is_scheme(&scheme)
            .then(|| Some(Origin { authority: authority_of(authority, Some(&scheme))?, scheme: Some(scheme) }))?
    }

    /// Reads one domain, given as a URL (then the schemes are compared, too), or as `host` or `host:port`. Only what a wallet
    /// could sign in for is taken: the names that software makes of URLs, in which the usual port is left out.
    ///
    /// # Errors
    /// In words: what to write instead.
    pub fn of_domain(text: &str) -> Result<Origin, String> {
        let bare = || Some(Origin { scheme: None, authority: authority_of(text, None)? });
        let origin = if text.contains("://") { Origin::of_url(text) } else { bare() };
        let plain = "write a domain as host, host:port or a URL, in ASCII, such as shop.example or shop.example:8443";
        let origin = origin.filter(|origin| origin.scheme.as_deref().is_none_or(is_web)).ok_or(plain)?;
        let (host, port) = host_and_port(&origin.authority);
        if host == CLIENTS_HOME {
            let why = "is the home of venice-x402-client: what its users sign for it would be good here, and the other way round";
            return Err(format!("{host} {why}; leave it out, buyers pass your address as apiUrl"));
        }
        if host.is_empty() || host.contains('*') || port.is_some_and(|port| !text::is_digits(port)) {
            return Err(format!("no wallet signs in for {:?}; {plain}", origin.authority));
        }
        if origin.scheme.is_none() && matches!(port, Some("443" | "80")) {
            let say = "no wallet signs in for the usual port, which is left out; write";
            return Err(format!("{say} {host}, or a URL such as https://{} if it is really another one", origin.authority));
        }
        Ok(origin)
    }

    fn url(&self) -> String {
        format!("{}://{}", self.scheme.as_deref().unwrap_or("https"), self.authority)
    }
}

fn is_web(scheme: &str) -> bool {
    matches!(scheme, "http" | "https")
}

/// The port is what follows the last colon that is not within the brackets of an IPv6 address.
fn host_and_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// An authority in the one form in which two are compared.
fn authority_of(text: &str, scheme: Option<&str>) -> Option<String> {
    // A user before the host makes a person read another host than the machine does.
    if !text::is_authority(text) || text.contains('@') {
        return None;
    }
    let usual = match scheme {
        Some("https") => ":443",
        Some("http") => ":80",
        _ => "",
    };
    let lower = text.to_ascii_lowercase();
    let host = lower.strip_suffix(usual).filter(|host| !host.is_empty());
    Some(host.map_or_else(|| lower.clone(), str::to_owned))
}

/// What this gateway wants of every sign-in. The first origin is the published one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInRules {
    public_url: String,
    origins: Vec<Origin>,
    /// CAIP-2.
    chains: Vec<String>,
}

impl SignInRules {
    /// The rules of a gateway that callers see at `public_url`. `loopback_port` is the port it listens on, if `public_url`
    /// itself leads to this machine alone: whoever sits at the machine may use any of its names. Behind a proxy there is none,
    /// because what is signed for another program on somebody's own machine would be good here. `networks` are those that are
    /// sold on, in CAIP-2. `None` when the URL has no host.
    ///
    /// The port is a part of the domain: another port of the same host may be somebody else's.
    pub fn new<'a>(
        public_url: &str,
        loopback_port: Option<u16>,
        networks: impl IntoIterator<Item = &'a str>,
    ) -> Option<SignInRules> {
        let mut chains = ALWAYS.map(str::to_owned).to_vec();
        for network in networks {
            if !ALWAYS.contains(&network) {
                chains.push(network.to_owned());
            }
        }
        SignInRules::with_chains(public_url, loopback_port, chains)
    }

    fn with_chains(public_url: &str, loopback_port: Option<u16>, chains: Vec<String>) -> Option<SignInRules> {
        let mut origins = vec![Origin::of_url(public_url)?];
        if let Some(port) = loopback_port {
            let local = ["127.0.0.1", "localhost", "[::1]"].map(|host| format!("http://{host}:{port}"));
            origins.extend(local.iter().filter_map(|url| Origin::of_url(url)));
        }
        origins.dedup();
        Some(SignInRules { public_url: public_url.to_owned(), origins, chains })
    }

    /// The rules for one domain alone, given as `host`, `host:port` or a URL. Without a URL schemes are not compared. `None`
    /// when it is no domain.
    pub fn for_domain(domain: &str, chains: Vec<String>) -> Option<SignInRules> {
        if domain.contains("://") {
            return SignInRules::with_chains(domain, None, chains);
        }
        let origin = Origin { scheme: None, authority: authority_of(domain, None)? };
        Some(SignInRules { public_url: origin.url(), origins: vec![origin], chains })
    }

    /// The same, and further origins that are ours. A message for one of them whose URI is at another is for us.
    pub fn and_at(mut self, further: impl IntoIterator<Item = Origin>) -> SignInRules {
        self.origins.extend(further);
        self
    }

    /// The domain that a challenge names: host, and port unless it is the usual one.
    pub fn domain(&self) -> &str {
        self.origins.first().map_or("", |origin| &origin.authority)
    }

    /// Chains that are taken, CAIP-2.
    pub fn chains(&self) -> &[String] {
        &self.chains
    }

    /// Whether a message was signed for us.
    ///
    /// # Errors
    /// `X402_SIGN_IN_DOMAIN_MISMATCH`, `X402_SIGN_IN_URI_MISMATCH`.
    pub fn check_place(&self, message: &Message) -> Result<(), SignInFault> {
        let domain = self.check_domain(message.scheme.as_deref(), &message.domain);
        domain.map_err(|say| SignInFault::new(DOMAIN_MISMATCH, say))?;
        self.check_uri(&message.uri).map_err(|say| SignInFault::new(URI_MISMATCH, say))
    }

    /// Whether a message for this domain (and scheme, if its first line has one) is for us; else what is wrong.
    fn check_domain(&self, scheme: Option<&str>, domain: &str) -> Result<(), String> {
        let scheme = scheme.map(str::to_ascii_lowercase);
        let ours = |origin: &Origin| {
            // Which port is usual depends on the scheme.
            let meant = scheme.as_deref().or(origin.scheme.as_deref());
            authority_of(domain, meant).as_ref() == Some(&origin.authority)
                && (scheme.is_none() || origin.scheme.is_none() || scheme == origin.scheme)
        };
        if self.origins.iter().any(ours) {
            return Ok(());
        }
        let host_only =
            |origin: &Origin| origin.authority.rsplit_once(':').is_some_and(|(host, _)| domain.eq_ignore_ascii_case(host));
        let advice = if domain.eq_ignore_ascii_case(CLIENTS_HOME) {
            format!(" — pass {{ apiUrl: '{}' }}", self.public_url)
        } else if self.origins.iter().any(host_only) {
            "; the port belongs to the domain".to_owned()
        } else {
            "; sign in again for this domain".to_owned()
        };
        let place = scheme.map_or_else(|| cut(domain), |scheme| format!("{scheme}://{}", cut(domain)));
        Err(format!("signed for '{place}'; this gateway is '{}'{advice}", self.domain()))
    }

    /// Whether this URI is one of ours: scheme and authority are compared, the path is not.
    fn check_uri(&self, uri: &str) -> Result<(), String> {
        let origin = Origin::of_url(uri);
        let ours = |ours: &Origin| {
            let Some(origin) = &origin else { return false };
            origin.authority == ours.authority && (ours.scheme.is_none() || origin.scheme == ours.scheme)
        };
        let web = origin.as_ref().and_then(|origin| origin.scheme.as_deref()).is_some_and(is_web);
        if web && self.origins.iter().any(ours) {
            return Ok(());
        }
        Err(format!("the signed URI {} is not an address of this gateway, which is at {}", shown(uri), self.public_url))
    }
}
