//! The parts of a URI by RFC 3986, as far as both kinds of URI share them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::UriError;

/// A URI in pieces, still percent-encoded.
pub(super) struct Parts<'u> {
    pub(super) scheme: &'u str,
    pub(super) userinfo: Option<&'u str>,
    /// One host or several, each with its port.
    pub(super) hosts: &'u str,
    /// What follows the first `/` after the hosts.
    pub(super) path: Option<&'u str>,
    pub(super) query: Option<&'u str>,
}

/// Takes a URI apart. Characters that must be escaped in a password are refused where they would
/// move the end of the password, because the rest of it would then be taken for a host.
pub(super) fn split(uri: &str) -> Result<Parts<'_>, UriError> {
    let uri = uri.trim();
    if uri.is_empty() {
        return Err(UriError("the URI is empty"));
    }
    if uri.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(UriError("the URI has a space or a line break in it"));
    }
    if uri.contains('#') {
        return Err(UriError("the URI has a `#` in it; write it as %23"));
    }
    if !percent_signs_are_escapes(uri) {
        return Err(UriError(
            "the URI has a `%` without two hexadecimal digits; write `%` itself as %25",
        ));
    }
    let (scheme, rest) = uri
        .split_once("://")
        .ok_or(UriError("the URI does not begin with a scheme and ://"))?;
    let (rest, query) = split_at_mark(rest, '?');
    let (authority, path) = split_at_mark(rest, '/');
    let (userinfo, hosts) = match authority.rsplit_once('@') {
        Some((userinfo, hosts)) => (Some(userinfo), hosts),
        None => (None, authority),
    };
    if uri.matches('@').count() > usize::from(userinfo.is_some()) {
        return Err(UriError(
            "the URI has an `@` that does not end the password; write `@` as %40, and in user and \
             password `/` as %2F, `?` as %3F and `:` as %3A",
        ));
    }
    Ok(Parts {
        scheme,
        userinfo,
        hosts,
        path,
        query,
    })
}

fn split_at_mark(text: &str, mark: char) -> (&str, Option<&str>) {
    match text.split_once(mark) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn percent_signs_are_escapes(uri: &str) -> bool {
    uri.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; the host comes back without brackets.
pub(super) fn host_and_port(text: &str) -> Result<(&str, Option<u16>), UriError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest
                .split_once(']')
                .ok_or(UriError("an IPv6 address has no closing `]`"))?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(UriError("the address in `[...]` is not an IPv6 address"));
            }
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(UriError("after `]` only `:port` may follow")),
            }
        }
        None => split_at_mark(text, ':'),
    };
    if host.is_empty() {
        return Err(UriError("the URI has no host"));
    }
    match port.map(str::parse::<u16>) {
        None => Ok((host, None)),
        Some(Ok(port)) if port > 0 => Ok((host, Some(port))),
        Some(_) => Err(UriError("the port must be a number from 1 to 65535")),
    }
}

/// Replaces `%xx` by what it stands for.
pub(super) fn decode(text: &str) -> Result<String, UriError> {
    percent_decode_str(text)
        .decode_utf8()
        .map(Cow::into_owned)
        .map_err(|_| UriError("the URI has %-escapes that are not UTF-8"))
}
