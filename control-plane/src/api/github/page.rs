//! Pages for the browser in which an App is made: plain HTML that asks nothing of a browser. What they show is escaped;
//! they may post to GitHub where they say so, load nothing, and be in nobody's frame.

use std::fmt::Write as _;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use skep_model::problem::Problem;

use crate::api::error::status;

/// A page.
pub(super) struct Page {
    status: StatusCode,
    title: String,
    body: String,
    /// Where a form of it may be posted.
    posts_to: Option<String>,
}

impl Page {
    pub(super) fn new(title: &str) -> Self {
        Self {
            status: StatusCode::OK,
            title: title.to_owned(),
            body: String::new(),
            posts_to: None,
        }
    }

    /// What went wrong, and what to do.
    pub(super) fn problem(problem: &Problem) -> Self {
        let mut page = Self::new("This did not work").text(&problem.message);
        page.status = status(problem.code);
        match &problem.hint {
            Some(hint) => page.text(hint),
            None => page,
        }
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.add(format_args!("<p>{}</p>\n", escaped(text)));
        self
    }

    pub(super) fn link(mut self, url: &str, text: &str) -> Self {
        let (url, text) = (escaped(url), escaped(text));
        self.add(format_args!("<p><a href=\"{url}\">{text}</a></p>\n"));
        self
    }

    /// One button that posts one field, to what `action` begins with and nowhere else.
    pub(super) fn button(
        mut self,
        (action, origin): (&str, &str),
        field: (&str, &str),
        text: &str,
    ) -> Self {
        let (name, value) = (escaped(field.0), escaped(field.1));
        self.add(format_args!(
            "<form method=\"post\" action=\"{}\">\n<input type=\"hidden\" name=\"{name}\" value=\"{value}\">\n\
             <button type=\"submit\">{}</button>\n</form>\n",
            escaped(action),
            escaped(text)
        ));
        self.posts_to = Some(origin.to_owned());
        self
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        self.body.write_fmt(text).expect("a text takes text");
    }

    fn policy(&self) -> Option<HeaderValue> {
        let form = self.posts_to.as_deref().unwrap_or("'none'");
        let text = format!(
            "default-src 'none'; form-action {form}; base-uri 'none'; frame-ancestors 'none'"
        );
        HeaderValue::from_str(&text).ok()
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let policy = self.policy();
        let title = escaped(&self.title);
        let html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title} - Skep</title>\n</head>\n\
             <body>\n<main>\n<h1>{title}</h1>\n{}</main>\n</body>\n</html>\n",
            self.body
        );
        let mut response = (self.status, html).into_response();
        let headers = response.headers_mut();
        let fixed = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            // The address has a secret. Not `no-referrer`: a form would be posted as from nowhere then.
            (header::REFERRER_POLICY, "strict-origin"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let strictest = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
        headers.insert(header::CONTENT_SECURITY_POLICY, policy.unwrap_or(strictest));
        response
    }
}

/// Text as HTML has it, in an element or a quoted attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_is_markup() {
        let nasty = "\"><script>alert('x')</script>&";
        let page = Page::new(nasty).text(nasty).link(nasty, nasty).button(
            (nasty, "https://github.com"),
            ("manifest", nasty),
            nasty,
        );
        let body = format!("{}{}", escaped(&page.title), page.body);
        assert!(
            !body.contains("<script") && !body.contains("alert('x')"),
            "{body}"
        );
        assert_eq!(body.matches("&lt;script&gt;").count(), 7, "{body}");
    }

    #[test]
    fn a_page_posts_where_it_says_and_nowhere_else() {
        let page = Page::new("x").button(
            ("https://github.com/a", "https://github.com"),
            ("m", "v"),
            "Go",
        );
        let policy = page.into_response().headers()["content-security-policy"].clone();
        assert_eq!(
            policy,
            "default-src 'none'; form-action https://github.com; base-uri 'none'; frame-ancestors 'none'"
        );
        let response = Page::problem(&Problem::invalid("x", "odd")).into_response();
        assert_eq!(response.status(), 400);
        let policy = response.headers()["content-security-policy"].to_str();
        assert!(policy.expect("text").contains("form-action 'none'"));
    }
}
