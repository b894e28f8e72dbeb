//! Somebody with a session.

use crate::common::Service;
use reqwest::{Method, Response, StatusCode};

pub(crate) struct Visitor<'a> {
    pub(crate) service: &'a Service,
    pub(crate) cookie: String,
    pub(crate) csrf: String,
}

/// The value of the first hidden field of this name.
pub(crate) fn hidden(html: &str, name: &str) -> String {
    let start = format!("name=\"{name}\" value=\"");
    let (_, rest) = html.split_once(&start).unwrap_or_else(|| panic!("no {name} in {html}"));
    rest.split_once('"').unwrap().0.to_owned()
}

pub(crate) async fn login<'a>(service: &'a Service, token: &str) -> Visitor<'a> {
    let form = [("token", token), ("next", "/policies")];
    let response = service.bare(Method::POST, "/login").form(&form).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(response.headers()["location"], "/policies");
    let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let mut visitor = Visitor { service, cookie, csrf: String::new() };
    let html = visitor.page("/nodes").await;
    visitor.csrf = hidden(&html, "csrf");
    visitor
}

impl Visitor<'_> {
    pub(crate) async fn get(&self, path: &str) -> Response {
        let request = self.service.bare(Method::GET, path).header("cookie", &self.cookie);
        request.send().await.unwrap()
    }

    pub(crate) async fn page(&self, path: &str) -> String {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.text().await.unwrap()
    }

    /// Sends a form with the session's secret.
    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let mut form = vec![("csrf", self.csrf.as_str())];
        form.extend(fields);
        self.post_bare(path, &form).await
    }

    /// Sends a form with a file, as browsers do (RFC 7578).
    pub(crate) async fn upload(&self, fields: &[(&str, &str)], object: &[u8]) -> Response {
        const EDGE: &str = "edge-0123456789";
        let mut body = Vec::new();
        for (name, value) in fields {
            let part = format!(
                "--{EDGE}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
            body.extend(part.into_bytes());
        }
        let file = format!(
            "--{EDGE}\r\nContent-Disposition: form-data; name=\"object\"; filename=\"x.o\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend(file.into_bytes());
        body.extend(object);
        body.extend(format!("\r\n--{EDGE}--\r\n").into_bytes());
        let request = self.service.bare(Method::POST, "/programs").header("cookie", &self.cookie);
        let kind = format!("multipart/form-data; boundary={EDGE}");
        request.header("content-type", kind).body(body).send().await.unwrap()
    }

    pub(crate) async fn post_bare(&self, path: &str, form: &[(&str, &str)]) -> Response {
        let request = self.service.bare(Method::POST, path).header("cookie", &self.cookie);
        request.form(form).send().await.unwrap()
    }
}
