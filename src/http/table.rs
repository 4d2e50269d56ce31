//! One row of the route table: where it is, what can be done there and by whom, and who answers.

use actix_web::{FromRequest, Handler, HttpRequest, Resource, Responder, Route, guard, web};

use super::public;
use crate::dialect::{Answers, Goods};

/// What can be done at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// With its parameters in braces, as in `/v1/models/{id}`.
    pub path: String,
    pub operations: Vec<Operation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub method: Method,
    /// In a few words, for the documents.
    pub does: &'static str,
    pub access: Access,
    /// Parameters of the query that it looks at.
    pub query: &'static [&'static str],
    /// What is sent, where that is no purchase.
    pub takes: Option<Fields>,
    /// What it answers, where that is no purchase.
    pub answers: Answers,
}

/// Fields of a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields {
    pub needed: &'static [&'static str],
    pub others: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    Get,
    Post,
    Patch,
    Delete,
}

/// What a caller must bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Anybody,
    /// Money for one call: a payment, or a sign-in or key of a wallet with a balance.
    Buyer(Goods),
    /// A payment that becomes balance.
    TopUp,
    /// A sign-in of the wallet.
    Wallet,
    /// The same, or one of its keys.
    WalletOrKey,
    /// A session, or a sign-in of the wallet.
    Owner,
    /// A session alone.
    Session,
    /// A key.
    Key,
}

impl Method {
    pub const fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }
}

/// A row and those who answer, as it is put together.
pub struct At {
    row: Row,
    resource: Resource,
    /// Whether it is a page for people, which the documents for programs leave out.
    is_page: bool,
}

impl At {
    /// `path` may say what its last parameter consists of, as in `{id:.+}`.
    pub fn new(path: impl Into<String>) -> At {
        let path = path.into();
        let resource = web::resource(path.as_str());
        let path = match path.split_once(':') {
            Some((before, _)) => format!("{before}}}"),
            None => path,
        };
        At { row: Row { path, operations: Vec::new() }, resource, is_page: false }
    }

    /// Reading. `HEAD` is answered as `GET` is, without the body.
    pub fn get<H, A>(self, does: &'static str, access: Access, handler: H) -> At
    where
        H: Handler<A, Output: Responder + 'static>,
        A: FromRequest + 'static,
    {
        self.on(Method::Get, does, access, reading().to(handler))
    }

    /// Reading, by people with a browser.
    pub fn page<H, A>(self, handler: H) -> At
    where
        H: Handler<A, Output: Responder + 'static>,
        A: FromRequest + 'static,
    {
        At { is_page: true, ..self.quietly(reading().to(handler)) }
    }

    pub fn post<H, A>(self, does: &'static str, access: Access, handler: H) -> At
    where
        H: Handler<A, Output: Responder + 'static>,
        A: FromRequest + 'static,
    {
        self.on(Method::Post, does, access, web::post().to(handler))
    }

    pub fn patch<H, A>(self, does: &'static str, access: Access, handler: H) -> At
    where
        H: Handler<A, Output: Responder + 'static>,
        A: FromRequest + 'static,
    {
        self.on(Method::Patch, does, access, web::patch().to(handler))
    }

    pub fn delete<H, A>(self, does: &'static str, access: Access, handler: H) -> At
    where
        H: Handler<A, Output: Responder + 'static>,
        A: FromRequest + 'static,
    {
        self.on(Method::Delete, does, access, web::delete().to(handler))
    }

    /// What the last one looks at in the query.
    pub fn asking(mut self, query: &'static [&'static str]) -> At {
        if let Some(last) = self.row.operations.last_mut() {
            last.query = query;
        }
        self
    }

    /// The fields that the last one needs and others that it reads, of a JSON object.
    pub fn taking(mut self, needed: &'static [&'static str], others: &'static [&'static str]) -> At {
        if let Some(last) = self.row.operations.last_mut() {
            last.takes = Some(Fields { needed, others });
        }
        self
    }

    /// What the last one answers, where that may be something else than JSON.
    pub fn answering(mut self, answers: Answers) -> At {
        if let Some(last) = self.row.operations.last_mut() {
            last.answers = answers;
        }
        self
    }

    /// Answers that no document speaks of: what clients ask for in vain.
    pub fn quietly(self, route: Route) -> At {
        At { resource: self.resource.route(route), ..self }
    }

    fn on(mut self, method: Method, does: &'static str, access: Access, route: Route) -> At {
        self.row.operations.push(Operation { method, does, access, query: &[], takes: None, answers: Answers::Json });
        At { resource: self.resource.route(route), ..self }
    }

    /// The row for the documents.
    pub fn row(self) -> Row {
        self.row
    }

    /// What is served: every other method is told which there are.
    pub fn resource(self) -> Resource {
        let allowed = self.allowed();
        self.resource.default_service(web::to(move |request: HttpRequest| {
            let answer = public::wrong_method(&request, &allowed);
            async move { answer }
        }))
    }
    /// The value of `Allow`.
    fn allowed(&self) -> String {
        let mut methods: Vec<_> = self.row.operations.iter().map(|operation| operation.method).collect();
        methods.extend(self.is_page.then_some(Method::Get));
        methods.sort_unstable();
        let names = methods.into_iter().map(|method| if method == Method::Get { "GET, HEAD" } else { method.name() });
        names.chain(["OPTIONS"]).collect::<Vec<_>>().join(", ")
    }
}

/// `GET` or `HEAD`.
fn reading() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}
