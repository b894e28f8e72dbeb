use crate::common::{Service, run};
use crate::visitor::{hidden, login};
use reqwest::{Method, StatusCode};

#[test]
fn whoever_has_no_session_is_sent_to_the_login_and_comes_back() {
    run(async {
        let service = Service::start().await;
        let response = service.bare(Method::GET, "/nodes?label=a%3D1").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        let place = response.headers()["location"].to_str().unwrap().to_owned();
        assert_eq!(place, "/login?next=%2Fnodes%3Flabel%3Da%253D1");
        let html = service.bare(Method::GET, &place).send().await.unwrap().text().await.unwrap();
        assert_eq!(hidden(&html, "next"), "/nodes?label=a%3D1");
        // htmx is told to load a page: it would put the login into the page.
        let request = service.bare(Method::GET, "/nodes").header("hx-request", "true");
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["hx-redirect"], "/login?next=%2F");
    });
}

#[test]
fn wrong_tokens_and_other_sites_get_no_session() {
    run(async {
        let service = Service::start().await;
        let wrong = format!("pmt_{}", "a".repeat(43));
        for token in ["", "nonsense", wrong.as_str()] {
            let form = [("token", token), ("next", "https://evil.example/")];
            let response = service.bare(Method::POST, "/login").form(&form).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert!(response.headers().get("set-cookie").is_none());
            let html = response.text().await.unwrap();
            assert!(html.contains("role=\"alert\"") && !html.contains("evil.example"), "{html}");
        }
        let form = [("token", service.admin.as_str())];
        let request = service.bare(Method::POST, "/login").form(&form);
        let response = request.header("sec-fetch-site", "cross-site").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    });
}

#[test]
fn a_form_without_the_sessions_secret_changes_nothing() {
    run(async {
        let service = Service::start().await;
        let visitor = login(&service, &service.admin).await;
        let other = login(&service, &service.admin).await;
        assert_ne!(visitor.csrf, other.csrf);
        for csrf in [None, Some(""), Some("nonsense"), Some(other.csrf.as_str())] {
            let mut form = vec![("name", "eve"), ("role", "admin")];
            form.extend(csrf.map(|csrf| ("csrf", csrf)));
            let response = visitor.post_bare("/tokens", &form).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{csrf:?}");
        }
        let response = visitor.upload(&[("name", "x")], b"\x7fELF").await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let tokens = visitor.page("/tokens").await;
        assert!(!tokens.contains("eve"), "{tokens}");
    });
}

#[test]
fn where_there_is_tls_the_cookie_goes_no_other_way() {
    run(async {
        let service = Service::secure().await;
        let visitor = login(&service, &service.admin).await;
        assert!(visitor.cookie.starts_with("__Host-pointsman_session="), "{}", visitor.cookie);
        assert_eq!(visitor.get("/nodes").await.status(), StatusCode::OK);
        // One that somebody without TLS may have set is none.
        let (_, value) = visitor.cookie.split_once('=').unwrap();
        let other = format!("pointsman_session={value}");
        let request = service.bare(Method::GET, "/nodes").header("cookie", other);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::SEE_OTHER);
        let form = [("token", service.admin.as_str())];
        let response = service.bare(Method::POST, "/login").form(&form).send().await.unwrap();
        let cookie = response.headers()["set-cookie"].to_str().unwrap();
        assert!(cookie.contains("; Secure") && cookie.contains("; Path=/;"), "{cookie}");
        assert!(!cookie.contains("Domain"), "{cookie}");
    });
}

#[test]
fn a_session_ends_with_the_logout_and_with_its_token() {
    run(async {
        let service = Service::start().await;
        let viewer = service.token("vera", "viewer", None).await;
        let visitor = login(&service, &viewer).await;
        let admin = login(&service, &service.admin).await;
        let response = admin.post("/tokens/vera/revoke", &[]).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        assert_eq!(visitor.get("/nodes").await.status(), StatusCode::SEE_OTHER);
        let response = admin.post("/logout", &[]).await;
        assert!(response.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
        let response = admin.get("/nodes").await;
        assert!(response.headers()["location"].to_str().unwrap().starts_with("/login"));
    });
}

#[test]
fn viewers_see_no_buttons_and_are_refused() {
    run(async {
        let service = Service::start().await;
        let admin = login(&service, &service.admin).await;
        let new = [("name", "p"), ("all", "yes"), ("interface", "eth0"), ("do", "save")];
        assert_eq!(admin.post("/new-policy", &new).await.status(), StatusCode::SEE_OTHER);
        let token = service.token("vera", "viewer", None).await;
        let viewer = login(&service, &token).await;
        for path in ["/nodes", "/policies", "/programs", "/publish", "/audit", "/policies/p"] {
            let html = viewer.page(path).await;
            let buttons = html.matches("method=\"post\"").count();
            let allowed = if path == "/policies/p" { 2 } else { 1 };
            assert_eq!(buttons, allowed, "{path}: {html}");
            assert!(!html.contains("value=\"save\"") && !html.contains("/tokens"), "{path}");
        }
        let revision = hidden(&viewer.page("/policies/p").await, "revision");
        let change = [("revision", revision.as_str()), ("interface", "eth9"), ("do", "save")];
        for (path, form) in [
            ("/policies/p", &change[..]),
            ("/new-policy", &new[..]),
            ("/policies/p/delete", &change[..]),
            ("/publish", &[("do", "publish")][..]),
            ("/publish", &[("do", "dry")][..]),
            ("/tokens", &[("name", "x"), ("role", "admin")][..]),
            ("/nodes/enrol", &[("node", "n")][..]),
        ] {
            let response = viewer.post(path, form).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
        }
        assert_eq!(viewer.get("/tokens").await.status(), StatusCode::FORBIDDEN);
        assert_eq!(viewer.get("/new-policy").await.status(), StatusCode::FORBIDDEN);
    });
}

#[test]
fn a_session_ends_after_a_working_day() {
    run(async {
        let service = Service::start().await;
        let visitor = login(&service, &service.admin).await;
        service.pass(12 * 3_600_000 - 1);
        assert_eq!(visitor.get("/nodes").await.status(), StatusCode::OK);
        service.pass(1);
        let response = visitor.get("/nodes").await;
        assert!(response.headers()["location"].to_str().unwrap().starts_with("/login"));
        // Nor does the API look at it any more.
        let request = service.bare(Method::GET, "/v1/nodes").header("cookie", &visitor.cookie);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    });
}

#[test]
fn a_form_brings_no_more_than_the_api_takes() {
    run(async {
        let service = Service::start().await;
        let visitor = login(&service, &service.admin).await;
        let fields = [("csrf", visitor.csrf.as_str()), ("name", "p")];
        let response = visitor.upload(&fields, &vec![0; 17 << 20]).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(response.headers()["connection"], "close", "the body was not read");
        let html = response.text().await.unwrap();
        assert!(html.contains("larger than the limit of 16777216 bytes"), "{html}");
        assert!(!visitor.page("/programs").await.contains("/programs/p\""));
    });
}
