//! What can be asked, by role, and the document that says so.

use std::sync::Arc;

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Api, PathItem, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Role;
use super::{View, cells, entry, events, questions, registry, requests};

/// What may be wrong with any request, beside what is said of each.
const ALWAYS: [(&str, &str); 6] = [
    ("400", "It is not understood."),
    ("401", "There is no token, or none that is known."),
    (
        "403",
        "The token's role does not allow it; or there are no tokens, and another website's page asks.",
    ),
    (
        "429",
        "Too much of it: tokens that do not fit, or listeners.",
    ),
    ("500", "The router could not do it; its log says why."),
    (
        "503",
        "It cannot be done now: the store of the registry is away or busy, or the router is.",
    ),
];

/// What may be wrong with a body.
const WITH_BODY: [(&str, &str); 2] = [
    ("408", "It did not come in time."),
    ("413", "It is too large."),
];

#[derive(OpenApi)]
#[openapi(
    info(title = "Cell Router", description = "Live state of a router and its cells, operations on them, and edits of the registry. An operation names the role that it needs at least."),
    components(schemas(super::problem::Problem, cells::Condition)),
    tags((name = "cells"), (name = "operations"), (name = "entries"), (name = "registry"), (name = "router")),
    modifiers(&Token)
)]
struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, api: &mut Api) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("token", scheme);
    }
}

/// The routes, by the role that they need at least.
pub(super) fn groups() -> [(Role, OpenApiRouter<Arc<View>>); 3] {
    let read = OpenApiRouter::new()
        .routes(routes!(cells::list))
        .routes(routes!(cells::show))
        .routes(routes!(cells::machine))
        .routes(routes!(requests::requests))
        .routes(routes!(entry::read_entry))
        .routes(routes!(registry::read_registry))
        .routes(routes!(registry::check))
        .routes(routes!(registry::versions))
        .routes(routes!(registry::read_version))
        .routes(routes!(registry::diff))
        .routes(routes!(questions::explain))
        .routes(routes!(questions::router))
        .routes(routes!(questions::session))
        .routes(routes!(questions::prometheus))
        .routes(routes!(events::events));
    let operate = OpenApiRouter::new()
        .routes(routes!(cells::wake))
        .routes(routes!(cells::sleep))
        .routes(routes!(entry::put_state))
        .routes(routes!(registry::post_edits));
    let edit = OpenApiRouter::new()
        .routes(routes!(
            entry::put_entry,
            entry::patch_entry,
            entry::delete_entry
        ))
        .routes(routes!(entry::put_name))
        .routes(routes!(registry::put_registry))
        .routes(routes!(registry::undo));
    let groups = [
        (Role::Read, read),
        (Role::Operate, operate),
        (Role::Edit, edit),
    ];
    groups.map(|(role, mut routes)| {
        let paths = &mut routes.get_openapi_mut().paths.paths;
        paths.values_mut().for_each(|path| describe(path, role));
        (role, routes)
    })
}

/// Says of all operations of a path what they need, and what may be wrong with any.
fn describe(path: &mut PathItem, role: Role) {
    let operations = [
        &mut path.get,
        &mut path.put,
        &mut path.post,
        &mut path.delete,
        &mut path.patch,
    ];
    for operation in operations.into_iter().flatten() {
        let needs = SecurityRequirement::new("token", [role.name()]);
        operation.security = Some(vec![needs]);
        let with_body = operation.request_body.as_ref().map(|_| WITH_BODY);
        for (status, what) in ALWAYS.into_iter().chain(with_body.into_iter().flatten()) {
            let problem = Ref::from_schema_name("Problem");
            let response = ResponseBuilder::new().description(what).content(
                "application/problem+json",
                ContentBuilder::new().schema(Some(problem)).build(),
            );
            let responses = &mut operation.responses.responses;
            responses
                .entry(status.to_owned())
                .or_insert_with(|| RefOr::T(response.build()));
        }
        for response in operation.responses.responses.values_mut() {
            if let RefOr::T(response) = response
                && response.description.is_empty()
            {
                response.description = "See its schema.".to_owned();
            }
        }
    }
}

/// The document.
pub(super) fn api() -> Api {
    let mut api = Document::openapi();
    for (_, routes) in groups() {
        api.merge(routes.into_openapi());
    }
    api
}

/// The OpenAPI document of all that can be asked, made from the code that answers it.
pub fn document() -> String {
    let text = api().to_pretty_json().unwrap_or_default();
    text + "\n"
}
