//! nginx as people put it before a store: TLS ended and begun anew, connections kept, bodies streamed, an access log. Of the
//! settings for its buffers that were tried, those with which it is fastest.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::{Contender, NGINX, Side, Stand, accepts, free_port};
use crate::process::Process;

pub(super) fn start(stand: &Stand) -> Result<Contender> {
    let (http, tls) = (free_port()?, free_port()?);
    let dir = stand.dir.join("nginx");
    std::fs::create_dir_all(&dir)?;
    let mut servers = String::new();
    if let Some(store) = &stand.http {
        servers.push_str(&server(&format!("listen 127.0.0.1:{http};"), store, "plain", "")?);
    }
    if let Some(store) = &stand.https {
        let files = stand.dir.display();
        let listen = format!(
            "listen 127.0.0.1:{tls} ssl;\nssl_certificate {files}/server.pem;\nssl_certificate_key {files}/server.key;\n\
             ssl_protocols TLSv1.2 TLSv1.3;\nssl_session_cache shared:SSL:10m;"
        );
        let trust = match &stand.store_ca {
            Some(ca) => ca.display().to_string(),
            None => "/etc/ssl/certs/ca-certificates.crt".to_owned(),
        };
        let host = host(store)?;
        let proxy = format!(
            "proxy_ssl_verify on;\nproxy_ssl_trusted_certificate {trust};\nproxy_ssl_server_name on;\nproxy_ssl_name {host};\n\
             proxy_ssl_protocols TLSv1.2 TLSv1.3;"
        );
        servers.push_str(&server(&listen, store, "secure", &proxy)?);
    }
    let config = format!(
        "worker_processes auto;\ndaemon off;\npid {dir}/nginx.pid;\nerror_log {dir}/error.log warn;\n\
         events {{ worker_connections 4096; }}\nhttp {{\naccess_log {dir}/access.log;\nkeepalive_requests 1000000;\n\
         client_max_body_size 0;\nsendfile on;\ntcp_nodelay on;\n{temporary}{servers}}}\n",
        dir = dir.display(),
        temporary = temporary_folders(&dir.display().to_string()),
    );
    std::fs::write(dir.join("nginx.conf"), config)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&dir).arg("-c").arg(dir.join("nginx.conf"));
    let port = if stand.https.is_some() { tls } else { http };
    let mut process = Process::start(NGINX, &stand.dir, &mut command).context(
        "nginx is not installed (Debian: apt-get install nginx-light); --without-nginx leaves it out",
    )?;
    let startup = process.wait_until(|| accepts(port))?;
    let process = Arc::new(process);
    // A signature covers the host that the client asked, and so does the store's: requests go through as they are.
    let side = |is_there: bool, endpoint: String| -> Result<Option<Side>> {
        if !is_there {
            return Ok(None);
        }
        let target = stand.target(&endpoint, &stand.bucket, NGINX)?;
        Ok(Some(Side { target, process: Some(Arc::clone(&process)) }))
    };
    Ok(Contender {
        name: NGINX.to_owned(),
        http: side(stand.http.is_some(), format!("http://127.0.0.1:{http}"))?,
        tls: side(stand.https.is_some(), format!("https://127.0.0.1:{tls}"))?,
        startup: Some(startup),
        _helpers: Vec::new(),
    })
}

fn server(listen: &str, store: &str, upstream: &str, proxy: &str) -> Result<String> {
    let scheme = if store.starts_with("https") { "https" } else { "http" };
    Ok(format!(
        "upstream {upstream} {{ server {}; keepalive 256; keepalive_requests 1000000; }}\nserver {{\n{listen}\nlocation / {{\n\
         proxy_pass {scheme}://{upstream};\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
         proxy_set_header Host $http_host;\nproxy_buffers 16 64k;\nproxy_buffer_size 64k;\n\
         proxy_busy_buffers_size 128k;\nproxy_max_temp_file_size 0;\nclient_body_buffer_size 128k;\n\
         proxy_request_buffering off;\n{proxy}\n}}\n}}\n",
        authority(store)?,
    ))
}

fn temporary_folders(dir: &str) -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {dir}/{name};\n"))
        .concat()
}

fn authority(url: &str) -> Result<String> {
    let uri: http::Uri = url.parse()?;
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    Ok(format!("{}:{}", uri.host().context("no host")?, uri.port_u16().unwrap_or(default)))
}

/// nginx compares names only, not addresses: the null store's certificate is for localhost too.
fn host(url: &str) -> Result<String> {
    let uri: http::Uri = url.parse()?;
    let host = uri.host().context("no host")?;
    Ok(if host.parse::<std::net::IpAddr>().is_ok() { "localhost" } else { host }.to_owned())
}
