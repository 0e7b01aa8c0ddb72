//! Fetches release lists and release files from GitHub. No other file opens network connections, and this file does so
//! only when the user requests releases. ureq's automatic redirects are disabled, because each hop must use TLS and
//! lead to one of GitHub's hosts. The token is sent only to the API.

use std::io::Read;
use std::time::Duration;

use ureq::http::{Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

use super::cache::LIST_MAX;
use super::{ReleaseError, Repo, is_safe_name};

/// GitHub's hosts: the API, the website, and the two hosts that serve files.
const HOSTS: [&str; 4] =
    ["api.github.com", "github.com", "release-assets.githubusercontent.com", "objects.githubusercontent.com"];
/// The environment variable with the address of the server that replaces GitHub in tests. Only a loopback address
/// with `http` is accepted.
const TEST_URL: &str = "CFDFU_RELEASES_URL";
const REDIRECTS_MAX: usize = 5;
const CHUNK: usize = 64 * 1024;

/// Time limit for opening a connection, including TLS.
const CONNECT: Duration = Duration::from_secs(10);
/// How long to wait for a server that sends nothing.
const SILENCE: Duration = Duration::from_secs(20);
/// Time limit for a whole request.
const WHOLE: Duration = Duration::from_secs(300);

pub(crate) struct Remote {
    /// The address of the server that replaces GitHub in tests.
    test: Option<String>,
    token: Option<String>,
    environment: Environment,
}

/// The environment variables that select a proxy.
#[derive(Clone, Debug, Default)]
struct Environment {
    https_proxy: Option<String>,
    no_proxy: Vec<String>,
}

/// The response to a request for a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ListAnswer {
    /// The list still has the entity tag that was sent with the request.
    Same,
    New {
        json: String,
        etag: Option<String>,
    },
}

/// Called during a download with the number of bytes so far and, if known, the total. Returns false to stop.
pub(crate) type OnBytes<'a> = &'a mut dyn FnMut(u64, Option<u64>) -> bool;

/// Receives the bytes of a file.
pub(crate) trait Sink {
    /// Discards all bytes so far, because the server sends the file from the beginning.
    fn restart(&mut self) -> std::io::Result<()>;
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()>;
}

/// A request for a file.
pub(crate) struct FileRequest<'a> {
    pub repo: Repo,
    pub tag: &'a str,
    pub name: &'a str,
    /// The number of bytes that an earlier download has fetched.
    pub from: u64,
    /// The published size, if known.
    pub size: Option<u64>,
    /// The maximum size to accept.
    pub most: u64,
}

impl Remote {
    pub(crate) fn new() -> Remote {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let either = |one: &str, two: &str| variable(one).or_else(|| variable(two));
        let all = || either("ALL_PROXY", "all_proxy");
        let no_proxy = either("NO_PROXY", "no_proxy").unwrap_or_default();
        let no_proxy = no_proxy.split(',').map(|host| host.trim().to_ascii_lowercase());
        Remote {
            test: variable(TEST_URL).filter(|url| is_loopback(url)),
            token: either("GITHUB_TOKEN", "GH_TOKEN"),
            environment: Environment {
                https_proxy: either("HTTPS_PROXY", "https_proxy").or_else(all),
                no_proxy: no_proxy.filter(|host| !host.is_empty()).collect(),
            },
        }
    }

    /// Requests the list of releases. Returns [`ListAnswer::Same`] if the list still has this entity tag.
    pub(crate) fn list(&self, repo: Repo, etag: Option<&str>) -> Result<ListAnswer, ReleaseError> {
        let base = self.test.as_deref().unwrap_or("https://api.github.com");
        let url = format!("{base}/repos/{}/releases?per_page=30", repo.path());
        let mut headers =
            vec![("accept", "application/vnd.github+json"), ("x-github-api-version", "2022-11-28")];
        headers.extend(etag.map(|etag| ("if-none-match", etag)));
        let (host, response) = self.get(&url, &headers)?;
        if response.status() == StatusCode::NOT_MODIFIED && etag.is_some() {
            return Ok(ListAnswer::Same);
        }
        let response = check_status(&host, response)?;
        let etag = header_text(&response, header::ETAG);
        let mut json = Vec::new();
        let reader = response.into_body().into_with_config().limit(LIST_MAX + 1).reader();
        let read = reader.take(LIST_MAX + 1).read_to_end(&mut json);
        if json.len() as u64 > LIST_MAX {
            return Err(ReleaseError::TooLong { host, most: LIST_MAX });
        }
        read.map_err(|error| read_error(&host, json.len() as u64, error))?;
        let json = String::from_utf8(json).map_err(|error| ReleaseError::BadList(error.to_string()))?;
        Ok(ListAnswer::New { json, etag })
    }

    /// Requests the tag of the newest release from the website, because the API allows few requests.
    pub(crate) fn latest(&self, repo: Repo) -> Result<String, ReleaseError> {
        let base = self.test.as_deref().unwrap_or("https://github.com");
        let url = format!("{base}/{}/releases/latest", repo.path());
        let (host, response) = self.send(&url, &[])?;
        let location = header_text(&response, header::LOCATION);
        let tag = location.as_deref().and_then(|url| url.split_once("/releases/tag/")).map(|(_, tag)| tag);
        match tag.filter(|tag| is_safe_name(tag)) {
            Some(tag) => Ok(tag.to_owned()),
            None => Err(ReleaseError::Status { host, status: response.status().as_u16() }),
        }
    }

    /// Downloads a file of a release.
    pub(crate) fn file(
        &self,
        request: &FileRequest<'_>,
        sink: &mut dyn Sink,
        on_bytes: OnBytes<'_>,
    ) -> Result<(), ReleaseError> {
        let FileRequest { repo, tag, name, from, size, most } = *request;
        let base = self.test.as_deref().unwrap_or("https://github.com");
        let url = format!("{base}/{}/releases/download/{tag}/{name}", repo.path());
        let range = format!("bytes={from}-");
        let headers: &[(&str, &str)] = if from > 0 { &[("range", &range)] } else { &[] };
        let (host, mut response) = self.get(&url, headers)?;
        let has_requested_range = |response: &Response<Body>| {
            let range = header_text(response, header::CONTENT_RANGE);
            range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
        };
        let mut done = from;
        if from > 0 {
            let is_wrong_part = match response.status() {
                StatusCode::PARTIAL_CONTENT => !has_requested_range(&response),
                // The file was replaced by a shorter file.
                StatusCode::RANGE_NOT_SATISFIABLE => true,
                _ => false,
            };
            if is_wrong_part {
                response = self.get(&url, &[])?.1;
            }
            if is_wrong_part || response.status() == StatusCode::OK {
                sink.restart().map_err(|error| disk_error(name, &error))?;
                done = 0;
            }
        }
        let response = check_status(&host, response)?;
        let total = size.or_else(|| response.body().content_length().map(|rest| rest.saturating_add(done)));
        if total.is_some_and(|total| total > most) {
            return Err(ReleaseError::TooLong { host, most });
        }
        let mut reader = response.into_body().into_with_config().limit(most + 1).reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            if !on_bytes(done, total) {
                return Err(ReleaseError::Stopped);
            }
            let n = reader.read(&mut chunk).map_err(|error| read_error(&host, done, error))?;
            if n == 0 {
                break;
            }
            done += n as u64;
            if done > total.unwrap_or(most) {
                return Err(ReleaseError::TooLong { host, most: total.unwrap_or(most) });
            }
            sink.write(chunk.get(..n).unwrap_or_default()).map_err(|error| disk_error(name, &error))?;
        }
        match size {
            // The body is complete, but shorter than the published file.
            Some(expected) if done < expected => {
                Err(ReleaseError::OtherSize { name: name.to_owned(), expected, found: done })
            }
            _ => Ok(()),
        }
    }

    /// Sends a request and follows redirects.
    fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<(String, Response<Body>), ReleaseError> {
        let mut url = url.to_owned();
        let (mut host, mut response) = self.send(&url, headers)?;
        for _ in 0..REDIRECTS_MAX {
            let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = header_text(&response, header::LOCATION).filter(|_| is_redirect) else {
                return Ok((host, response));
            };
            url = if location.starts_with('/') { format!("{}{location}", origin(&url)) } else { location };
            if !self.is_allowed(&url) {
                return Err(ReleaseError::ForeignHost { from: host, to: origin(&url).to_owned() });
            }
            (host, response) = self.send(&url, headers)?;
        }
        match response.status().as_u16() {
            300..=399 => Err(ReleaseError::TooManyRedirects { host }),
            _ => Ok((host, response)),
        }
    }

    /// Returns whether a redirect may lead to this address.
    fn is_allowed(&self, url: &str) -> bool {
        match (&self.test, url.strip_prefix("https://")) {
            (Some(test), _) => origin(url) == origin(test),
            (None, Some(_)) => HOSTS.contains(&host_of(url)),
            (None, None) => false,
        }
    }

    /// Sends one request.
    fn send(&self, url: &str, headers: &[(&str, &str)]) -> Result<(String, Response<Body>), ReleaseError> {
        let host = host_of(url).to_owned();
        let proxy = self.environment.proxy_for(&host).filter(|_| self.test.is_none());
        let send = |roots: RootCerts| -> Result<Result<Response<Body>, ureq::Error>, ReleaseError> {
            let agent = self.agent(proxy.as_deref(), roots)?;
            let mut request = agent.get(url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            // The token must not be sent to any host except the API's.
            let is_api = host == HOSTS[0] || self.test.is_some() && url.contains("/repos/");
            if let Some(token) = self.token.as_ref().filter(|_| is_api) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            Ok(request.call())
        };
        let response = match send(RootCerts::PlatformVerifier)? {
            // If this computer has no root certificates, use Mozilla's, which are built into cfdfu.
            Err(error) if has_no_roots(&error) => send(RootCerts::WebPki)?,
            response => response,
        };
        match response {
            Ok(response) => Ok((host, response)),
            Err(error) => Err(request_error(&host, proxy.as_deref(), error)),
        }
    }

    fn agent(&self, proxy: Option<&str>, roots: RootCerts) -> Result<Agent, ReleaseError> {
        let proxy_error =
            |why: String| ReleaseError::Proxy { proxy: redact_proxy(proxy.unwrap_or_default()), why };
        let invalid_proxy = |error: ureq::Error| proxy_error(error.to_string());
        // ureq would panic on a SOCKS proxy.
        if proxy.is_some_and(|proxy| proxy.starts_with("socks")) {
            return Err(proxy_error("cfdfu supports only HTTP proxies".to_owned()));
        }
        let proxy = proxy.map(Proxy::new).transpose().map_err(invalid_proxy)?;
        let config = Agent::config_builder()
            .https_only(self.test.is_none())
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .user_agent(concat!("cfdfu/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_global(Some(WHOLE))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        Ok(Agent::new_with_config(config))
    }
}

impl Environment {
    /// Returns the proxy for a host, according to curl's rules: a name in `NO_PROXY` also covers its subdomains.
    fn proxy_for(&self, host: &str) -> Option<String> {
        let is_exempt = |name: &String| {
            let name = name.trim_start_matches('.');
            name == "*" || host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
        };
        self.https_proxy.clone().filter(|_| !self.no_proxy.iter().any(is_exempt))
    }
}

/// Returns the response if its status indicates success, or the matching error.
fn check_status(host: &str, response: Response<Body>) -> Result<Response<Body>, ReleaseError> {
    let status = response.status().as_u16();
    let number = |name: &str| response.headers().get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let is_limited = number("x-ratelimit-remaining") == Some(0) || number("retry-after").is_some();
    match status {
        200 | 206 => Ok(response),
        403 | 429 if is_limited || status == 429 => {
            let later =
                number("retry-after").map(|seconds| crate::clock::unix_seconds().saturating_add(seconds));
            let until = later.or_else(|| number("x-ratelimit-reset"));
            Err(ReleaseError::RateLimited { host: host.to_owned(), until })
        }
        status => Err(ReleaseError::Status { host: host.to_owned(), status }),
    }
}

/// Converts the error of a request that received no response into a [`ReleaseError`].
fn request_error(host: &str, proxy: Option<&str>, error: ureq::Error) -> ReleaseError {
    let host = host.to_owned();
    match error {
        ureq::Error::Timeout(_) => ReleaseError::NoAnswer { host },
        ureq::Error::Rustls(error) => ReleaseError::Certificate { host, why: error.to_string() },
        ureq::Error::Tls(why) => ReleaseError::Certificate { host, why: why.to_owned() },
        ureq::Error::ConnectProxyFailed(why) => {
            ReleaseError::Proxy { proxy: redact_proxy(proxy.unwrap_or_default()), why }
        }
        ureq::Error::Io(error) if is_certificate_error(&error) => {
            ReleaseError::Certificate { host, why: error.to_string() }
        }
        ureq::Error::Io(error) if proxy.is_some() => {
            ReleaseError::Proxy { proxy: redact_proxy(proxy.unwrap_or_default()), why: error.to_string() }
        }
        ureq::Error::HostNotFound => {
            ReleaseError::Unreachable { host, why: "the host name could not be resolved".to_owned() }
        }
        error => ReleaseError::Unreachable { host, why: error.to_string() },
    }
}

/// Returns whether an I/O error wraps a certificate error from rustls.
fn is_certificate_error(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.to_string().contains("certificate"))
}

fn has_no_roots(error: &ureq::Error) -> bool {
    error.to_string().contains("No CA certificates")
}

/// Returns the address of a proxy, without the user name and password.
fn redact_proxy(proxy: &str) -> String {
    proxy.rsplit_once('@').map_or(proxy, |(_, host)| host).to_owned()
}

/// Converts an error that occurred while reading a body into a [`ReleaseError`].
fn read_error(host: &str, done: u64, error: std::io::Error) -> ReleaseError {
    let host = host.to_owned();
    match ureq::Error::from(error) {
        ureq::Error::Timeout(_) => ReleaseError::NoAnswer { host },
        _ => ReleaseError::Cut { host, done },
    }
}

fn disk_error(name: &str, error: &std::io::Error) -> ReleaseError {
    ReleaseError::Disk { place: name.to_owned(), why: error.to_string() }
}

fn header_text(response: &Response<Body>, name: header::HeaderName) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// Returns the scheme and host of an address, for example `https://host`.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(start..).and_then(|rest| rest.find(['/', '?', '#'])).map_or(url.len(), |at| start + at);
    url.get(..end).unwrap_or(url)
}

/// Returns the host of an address, including the port but without a user name before an `@`.
fn host_of(url: &str) -> &str {
    let host = origin(url).split_once("://").map_or(url, |(_, host)| host);
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

fn is_loopback(url: &str) -> bool {
    let host = host_of(url).rsplit_once(':').map_or(host_of(url), |(host, _)| host);
    url.starts_with("http://") && matches!(host, "127.0.0.1" | "localhost" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_chosen_according_to_the_rules_of_curl() {
        let names = |names: &str| names.split(',').map(str::to_owned).collect();
        let proxy = |no_proxy: &str, host: &str| {
            let https_proxy = Some("http://proxy:3128".to_owned());
            Environment { https_proxy, no_proxy: names(no_proxy) }.proxy_for(host).is_some()
        };
        assert!(proxy("example.org", "github.com") && proxy("hub.com", "github.com"));
        for no_proxy in ["github.com", ".github.com", "example.org,github.com", "*"] {
            assert!(!proxy(no_proxy, "api.github.com"), "{no_proxy}");
        }
        assert!(!proxy("github.com", "github.com"));
        assert_eq!(Environment::default().proxy_for("github.com"), None);
        assert_eq!(redact_proxy("http://me:secret@proxy:3128"), "proxy:3128");
    }

    #[test]
    fn a_redirect_may_lead_only_to_github_and_only_with_tls() {
        let remote = |test: Option<&str>| Remote {
            test: test.map(str::to_owned),
            token: None,
            environment: Environment::default(),
        };
        let real = remote(None);
        for url in ["https://github.com/x", "https://release-assets.githubusercontent.com/y?z#a"] {
            assert!(real.is_allowed(url), "{url}");
        }
        for url in [
            "http://github.com/x",
            "https://github.com.evil.org/x",
            "https://evil.org/github.com",
            "https://evil.org?github.com",
            "https://github.com@evil.org/x",
            "https://evil.org#@github.com/",
            "https://github.com:444/x",
            "ftp://github.com/x",
            "//evil.org/x",
            "",
        ] {
            assert!(!real.is_allowed(url), "{url}");
        }
        let test = remote(Some("http://127.0.0.1:8000"));
        assert!(test.is_allowed("http://127.0.0.1:8000/x") && !test.is_allowed("http://127.0.0.1:9/x"));
    }

    #[test]
    fn only_a_server_on_this_computer_can_replace_github() {
        for url in ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "https://127.0.0.1",
            "http://evil.org",
            "http://127.0.0.1@evil.org",
            "http://127.0.0.1.evil.org",
            "",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
