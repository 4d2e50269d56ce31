//! Real nginx and real Caddy in front of a server, as the shipped snippets set them up.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::http::{self, Request};
use crate::process::{Process, eventually, run};
use crate::tests_dir;

/// The environment variable that puts one of them before every server of a test run: `nginx` or `caddy`.
const THROUGH: &str = "FAREBOX_THROUGH";

/// A proxy that runs, and where.
pub struct Proxy {
    pub address: String,
    process: Process,
    folder: TempDir,
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Nginx,
    Caddy,
}

impl Kind {
    /// What this test run wants before every server; panics when it wants something that there is not.
    pub fn wanted() -> Option<Kind> {
        match std::env::var(THROUGH).ok()?.as_str() {
            "nginx" => Some(Kind::Nginx),
            "caddy" => Some(Kind::Caddy),
            other => panic!("{THROUGH} is {other:?}, which is neither nginx nor caddy"),
        }
    }

    /// Whether it may end a stream that broke off as if it were whole, as Caddy did before 2.8; only the words of the last event
    /// say it then.
    pub fn hides_breaks(self) -> bool {
        let Kind::Caddy = self else { return false };
        let mut command = Command::new("caddy");
        command.arg("version");
        let (_, version, _) = run(command, "");
        let mut numbers = version.trim_start_matches('v').split('.').map_while(|number| number.parse::<u32>().ok());
        let version = (numbers.next(), numbers.next());
        assert!(version.1.is_some(), "caddy tells its version: {version:?}");
        version < (Some(2), Some(8))
    }
}

/// Whether the proxy that this test run wants may hide that a stream broke off.
pub fn hides_breaks() -> bool {
    Kind::wanted().is_some_and(Kind::hides_breaks)
}

fn snippet(name: &str) -> String {
    fs::read_to_string(tests_dir().join("../scripts").join(name)).expect("the snippets are shipped")
}

/// The text with one thing changed that stands there.
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the snippet has {from:?}");
    text.replace(from, to)
}

impl Proxy {
    /// Stands before `behind` on this port, without TLS and with everything else as it is shipped.
    pub fn start(kind: Kind, port: u16, behind: &str) -> Proxy {
        let folder = TempDir::new().expect("a temporary folder");
        let address = format!("127.0.0.1:{port}");
        let process = match kind {
            Kind::Nginx => nginx(folder.path(), &address, behind),
            Kind::Caddy => caddy(folder.path(), &address, behind),
        };
        eventually("the proxy answers", || {
            http::send(&address, &Request::get("/healthz")).is_ok_and(|answer| answer.status == 200)
        });
        Proxy { address, process, folder }
    }

    /// Everything that it has said, and written into a log.
    pub fn output(&self) -> String {
        // Caddy has no such file.
        self.process.output() + &fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

fn nginx(folder: &Path, address: &str, behind: &str) -> Process {
    let text = with(&snippet("nginx.conf"), "127.0.0.1:4020", behind);
    let text = with(&text, "    listen 443 ssl;\n    listen [::]:443 ssl;\n", &format!("    listen {address};\n"));
    let tls = text.lines().filter(|line| line.trim_start().starts_with("ssl_certificate")).count();
    assert_eq!(tls, 2);
    let text: String =
        text.lines().filter(|line| !line.trim_start().starts_with("ssl_certificate")).map(|line| format!("{line}\n")).collect();
    let here = folder.display();
    let whole = format!(
        "daemon off;\nworker_processes 1;\npid {here}/pid;\nerror_log {here}/error.log;\nevents {{ worker_connections 512; }}\nhttp {{\n\
         access_log off;\nclient_body_temp_path {here}/body;\nproxy_temp_path {here}/proxy;\nfastcgi_temp_path {here}/fastcgi;\n\
         uwsgi_temp_path {here}/uwsgi;\nscgi_temp_path {here}/scgi;\n{text}}}\n"
    );
    fs::write(folder.join("nginx.conf"), whole).expect("the folder is writable");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf")).args(["-g", "master_process off;"]);
    Process::spawn(command)
}

fn caddy(folder: &Path, address: &str, behind: &str) -> Process {
    let text = with(&snippet("Caddyfile"), "127.0.0.1:4020", behind);
    let text = with(&text, "\nyour.name {", &format!("\nhttp://{address} {{"));
    let text = with(&text, "\n{\n", "\n{\n\tadmin off\n");
    fs::write(folder.join("Caddyfile"), text).expect("the folder is writable");
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(folder.join("Caddyfile"));
    command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
    Process::spawn(command)
}
