//! A real authority that gives certificates over ACME: Pebble, Let's Encrypt's own test server, and names that lead to this machine.

use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::process::{Process, eventually, free_port, run};
use crate::secure::Authority;

/// A running authority. Whatever name it is asked for, it looks at this machine.
pub struct Pebble {
    directory: String,
    management: String,
    folder: TempDir,
    server: Process,
    /// Where it asks whose a name is.
    resolver: String,
    _names: Process,
}

impl Pebble {
    /// Starts one whose own site `authority` vouches for. It looks at names on `port`, as others do on 443, and its certificates are
    /// good for an hour.
    pub fn start(authority: &Authority, port: u16) -> Pebble {
        let folder = TempDir::new().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let (certificate, key) = authority.certificate(2020..2090);
        let [listen, management, names] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
        let config = json!({ "pebble": {
            "listenAddress": listen, "managementListenAddress": management, "certificate": at("site.pem"), "privateKey": at("site.key"),
            "httpPort": 1, "tlsPort": port, "ocspResponderURL": "", "externalAccountBindingRequired": false,
            "certificateValidityPeriod": 3600,
        } });
        for (name, text) in [
            ("site.pem", certificate),
            ("site.key", key),
            ("pebble.json", config.to_string()),
            ("ca.pem", authority.pem().into()),
        ] {
            std::fs::write(at(name), text).expect("the folder is writable");
        }
        let mut command = Command::new("pebble-challtestsrv");
        command.args(["-dns01", &names, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
        command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", ""]);
        let resolver = Process::spawn(command);
        let server = serve(&folder, &names);
        let (directory, management) = (format!("https://{listen}/dir"), format!("https://{management}"));
        let pebble = Pebble { directory, management, folder, server, resolver: names, _names: resolver };
        eventually("the authority answers", || pebble.get(&pebble.directory).is_some());
        pebble
    }

    /// Starts again at the same place, without a memory of anybody.
    pub fn forget(&mut self) {
        self.server.kill();
        self.server = serve(&self.folder, &self.resolver);
        eventually("the authority answers again", || self.get(&self.directory).is_some());
    }

    /// The URL of its directory.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// The certificate in PEM by which its certificates are believed.
    pub fn root(&self) -> String {
        self.get(&format!("{}/roots/0", self.management)).expect("it shows its root")
    }

    /// How many certificates it has given.
    pub fn given(&self) -> usize {
        self.server.output().matches("Issued certificate serial").count()
    }

    fn get(&self, url: &str) -> Option<String> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--fail", "--cacert"]).arg(self.folder.path().join("ca.pem")).arg(url);
        let (code, text, _) = run(command, "");
        (code == 0).then_some(text)
    }
}

fn serve(folder: &TempDir, resolver: &str) -> Process {
    let mut command = Command::new("pebble");
    command.arg("-config").arg(folder.path().join("pebble.json")).args(["-dnsserver", resolver]).env("PEBBLE_VA_NOSLEEP", "1");
    // Else it refuses one good nonce in twenty, and once in some thousand requests three in a row.
    command.env("PEBBLE_WFE_NONCEREJECT", "0");
    Process::spawn(command)
}
