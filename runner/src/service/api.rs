//! The routes, and who may use them.

use std::sync::Arc;

use attestations::{Call, Caller, Reference, call::is_label, run::Erasure};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    listen::{Guard, Peer},
    problem::Problem,
    queue::{self, MAX_INPUT, Submitted, TaskRequest},
    worker::Pool,
};
use crate::{caller, record, vantage6::Input};

/// Most bytes of a request's body: an input, and a little for what stands around it.
const MAX_BODY: usize = MAX_INPUT + (64 << 10);
/// Most characters of an image's name.
const MAX_IMAGE: usize = 1024;
/// Most databases of one task.
const MAX_DATABASES: usize = 64;
/// Tasks on one page, unless asked otherwise, and at most.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

type Shared = State<Arc<Pool>>;
type Reply = Result<Response, Problem>;
type Body = Result<Bytes, BytesRejection>;

pub(super) fn router(pool: Arc<Pool>, guard: Arc<Guard>) -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/tasks", post(submit).get(list))
        .route("/v1/tasks/{id}", get(show).delete(remove))
        .route("/v1/tasks/{id}/result", get(result))
        .route("/v1/tasks/{id}/log", get(log))
        .route("/v1/tasks/{id}/cancel", post(cancel))
        .route("/v1/verify", post(verify))
        .method_not_allowed_fallback(|| async {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Problem::new(status, "method_not_allowed", "this path has no such method", "see docs/api.md")
        })
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "no_such_path", "there is no such path", "see docs/api.md")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(guard, admit))
        .with_state(pool)
}

async fn admit(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match check(&guard, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(guard: &Guard, headers: &HeaderMap) -> Result<(), Problem> {
    let Guard::Token { token, port } = guard else { return Ok(()) };
    let mut hosts = headers.get_all(header::HOST).iter();
    let ours = ["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{port}"));
    match (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) {
        (Some(host), None) if ours.iter().any(|name| name == host) => {}
        _ => {
            let status = StatusCode::MISDIRECTED_REQUEST;
            return Err(Problem::new(
                status,
                "wrong_host",
                "this is not the host asked for",
                "use the loopback address",
            ));
        }
    }
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match given.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(given) if same(given.as_bytes(), token.as_bytes()) => Ok(()),
        _ => Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "a bearer token is required here",
            "send the token from the server's token file",
        )),
    }
}

/// Compares without telling by its time where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

async fn health(State(pool): Shared) -> Reply {
    let (queued, working) = pool.with_queue(queue::Queue::depth).await?;
    let version = env!("CARGO_PKG_VERSION");
    Ok(Json(json!({ "status": "ok", "version": version, "queued": queued, "working": working }))
        .into_response())
}

async fn submit(State(pool): Shared, ConnectInfo(peer): ConnectInfo<Peer>, body: Body) -> Reply {
    let mut request: TaskRequest = read(body)?;
    check_request(&request)?;
    request.caller = of_peer(peer).await?;
    let submitted = pool.with_queue(move |queue| queue.submit(&request)).await?;
    let (status, id) = match submitted {
        Submitted::New(id) => (StatusCode::CREATED, id),
        Submitted::Existing(id) => (StatusCode::OK, id),
    };
    pool.wake();
    let task = pool.with_queue(move |queue| queue.get(id)).await?;
    Ok((status, [(header::LOCATION, format!("/v1/tasks/{id}"))], Json(task)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    before: Option<i64>,
    limit: Option<u32>,
}

async fn list(
    State(pool): Shared,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Reply {
    let Query(page) = page.map_err(|error| {
        Problem::bad("bad_query", error.body_text(), "the keys are `before` and `limit`, both numbers")
    })?;
    let limit = page.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let tasks = pool.with_queue(move |queue| queue.list(page.before, limit)).await?;
    let full = tasks.len() == limit as usize;
    let next = tasks.last().filter(|_| full).map(|task| task.id);
    Ok(Json(json!({ "tasks": tasks, "next_before": next })).into_response())
}

async fn show(State(pool): Shared, Path(id): Path<String>) -> Reply {
    let id = number(&id)?;
    Ok(Json(pool.with_queue(move |queue| queue.get(id)).await?).into_response())
}

async fn result(State(pool): Shared, Path(id): Path<String>) -> Reply {
    let bytes = pool.release(number(&id)?).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

async fn log(State(pool): Shared, Path(id): Path<String>) -> Reply {
    let id = number(&id)?;
    let bytes = pool.with_queue(move |queue| queue.log(id)).await?;
    // An algorithm wrote this: a browser must not take it for a page.
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, bytes).into_response())
}

async fn cancel(State(pool): Shared, Path(id): Path<String>) -> Reply {
    let id = number(&id)?;
    pool.with_queue(move |queue| queue.cancel(id)).await?;
    pool.cancel(id);
    Ok(Json(pool.with_queue(move |queue| queue.get(id)).await?).into_response())
}

async fn remove(State(pool): Shared, Path(id): Path<String>) -> Reply {
    pool.erase(number(&id)?, Erasure::Asked).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Verify {
    image: String,
    function: Option<String>,
    input: Option<Map>,
    databases: Option<Vec<String>>,
}

async fn verify(State(pool): Shared, ConnectInfo(peer): ConnectInfo<Peer>, body: Body) -> Reply {
    let asked: Verify = read(body)?;
    let image = reference(&asked.image)?;
    check_databases(asked.databases.as_deref().unwrap_or_default())?;
    let caller = Some(of_peer(peer).await?);
    let (function, arguments) = match (asked.function, asked.input) {
        (function, None) => (function, None),
        (None, Some(input)) => called(&input)?,
        (Some(_), Some(_)) => {
            let remedy = "leave `function` out: the input names it";
            return Err(Problem::bad("bad_json", "both a function and an input are given", remedy));
        }
    };
    let call = Call { function, arguments, databases: asked.databases, caller };
    let _place = pool.verifications.try_acquire().map_err(|_| {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Problem::new(status, "busy", "too many images are being verified at once", "try again in a moment")
    })?;
    let execute = Arc::clone(&pool.execute);
    let decided = tokio::task::spawn_blocking(move || execute.verify(image, call)).await;
    let decision = decided.map_err(Problem::internal)?.map_err(|error| {
        let remedy = "check the image's name, the registry and the policy, then try again";
        Problem::new(StatusCode::BAD_GATEWAY, "no_verdict", errors::chain::line(&error), remedy)
    })?;
    Ok(Json(record::verdict(&decision)).into_response())
}

type Map = serde_json::Map<String, serde_json::Value>;

/// The function and the arguments of an input.
fn called(input: &Map) -> Result<(Option<String>, Option<serde_json::Value>), Problem> {
    let bytes = serde_json::to_vec(input).map_err(Problem::internal)?;
    let input = Input::parse(&bytes).map_err(|error| {
        Problem::bad("bad_json", error.to_string(), "write {\"method\": \"name\", \"kwargs\": {}}")
    })?;
    Ok((Some(input.function().to_owned()), Some(input.arguments().clone())))
}

/// Who is at the other end, by the name that this machine has for them.
async fn of_peer(peer: Peer) -> Result<Caller, Problem> {
    match peer {
        Peer::Unknown => Ok(Caller::default()),
        Peer::User(uid) => {
            tokio::task::spawn_blocking(move || caller::of_uid(uid)).await.map_err(Problem::internal)
        }
    }
}

fn read<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let bytes = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::from(queue::Error::TooLarge { what: "request", size: MAX_BODY + 1, max: MAX_BODY })
        }
        _ => Problem::bad("bad_body", "the request's body could not be read", "send it whole"),
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Problem::bad(
            "bad_json",
            format!("the request is not what is expected here: {error}"),
            "see docs/api.md",
        )
    })
}

fn number(text: &str) -> Result<i64, Problem> {
    let plain = !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain).ok_or_else(|| {
        Problem::bad("bad_id", "a task is named by its number", "list the tasks to see which there are")
    })
}

fn check_request(request: &TaskRequest) -> Result<(), Problem> {
    reference(&request.image)?;
    check_databases(&request.databases)?;
    let key = |text: &String| (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if !request.idempotency_key.as_ref().is_none_or(key) {
        let message = "the idempotency key is not 1 to 200 visible ASCII characters";
        return Err(Problem::bad("bad_key", message, "use a UUID"));
    }
    Ok(())
}

fn check_databases(labels: &[String]) -> Result<(), Problem> {
    if labels.len() <= MAX_DATABASES && labels.iter().all(|label| is_label(label)) {
        return Ok(());
    }
    let message = "the databases are not at most 64 labels of 1 to 64 letters, digits, `_` and `-`";
    Err(Problem::bad("bad_database", message, "use labels from the node's configuration"))
}

fn reference(image: &str) -> Result<Reference, Problem> {
    let remedy = "name it as registry/repository:tag or registry/repository@sha256:…";
    if image.len() > MAX_IMAGE {
        return Err(Problem::bad("bad_image", "the image's name is too long", remedy));
    }
    image
        .parse()
        .map_err(|error: attestations::ReferenceError| Problem::bad("bad_image", error.to_string(), remedy))
}
