//! Every bound that the definitions write down, broken once: the API server refuses it, and names the field and the bound.
//!
//! The cases come from the schemas themselves, so that a field that is new is tried, too.

use futures::StreamExt as _;
use kube::{Client, Error};
use poolwright_tests::*;
use serde_json::{Map, Value, json};

/// Requests that are under way at once.
const AT_ONCE: usize = 8;
/// No name that any field or enumeration has.
const NONSENSE: &str = "no-such-value";

/// One bad value.
struct Case {
    /// Its place, as Kubernetes writes it.
    field: String,
    /// The whole spec that has it.
    spec: Value,
    /// What the answer must say beside the field.
    words: String,
}

/// Where a value stands in a spec, from the outside to the inside.
#[derive(Clone, Default)]
struct Place(Vec<Step>);

#[derive(Clone)]
enum Step {
    Field(String),
    Item,
    Key,
}

impl Place {
    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    fn name(&self) -> String {
        self.0.iter().fold("spec".to_owned(), |path, step| match step {
            Step::Field(name) => format!("{path}.{name}"),
            Step::Item => format!("{path}[0]"),
            Step::Key => format!("{path}.key"),
        })
    }

    /// A valid spec, but for this value at this place and what is missing beside it.
    fn spec(&self, base: &Value, value: Value) -> Value {
        let value = self.0.iter().rev().fold(value, |inner, step| match step {
            Step::Field(name) => json!({ name: inner }),
            Step::Item => json!([inner]),
            Step::Key => json!({"key": inner}),
        });
        let mut spec = base.clone();
        stage::merge(&mut spec, value);
        spec
    }

    /// The same with an object at this place that lacks this field.
    fn without(&self, base: &Value, name: &str) -> Value {
        if self.0.is_empty() {
            let mut spec = base.clone();
            stage::merge(&mut spec, json!({ name: null }));
            return spec;
        }
        let mut emptied = base.clone();
        if let Some(Step::Field(first)) = self.0.first() {
            stage::merge(&mut emptied, json!({ first: null }));
        }
        self.spec(&emptied, json!({}))
    }
}

/// All that breaks one bound of this schema, and those of what it holds.
fn walk(schema: &Value, place: &Place, base: &Value, cases: &mut Vec<Case>) {
    let mut bad = |value: Value, words: String| {
        cases.push(Case {
            field: place.name(),
            spec: place.spec(base, value),
            words,
        });
    };
    let number = |key: &str| schema[key].as_i64();
    let is_free = schema["x-kubernetes-int-or-string"] == true
        || schema["x-kubernetes-preserve-unknown-fields"] == true;
    let type_ = schema["type"].as_str().unwrap_or_default();
    if !is_free {
        let other = if type_ == "boolean" {
            json!(NONSENSE)
        } else {
            json!(true)
        };
        let type_ = schema["format"]
            .as_str()
            .filter(|format| *format == "date-time")
            .unwrap_or(type_);
        bad(other, format!("must be of type {type_}"));
    }
    if schema["enum"].is_array() {
        bad(json!(NONSENSE), format!("Unsupported value: \"{NONSENSE}\""));
    }
    if let Some(least) = number("minimum") {
        bad(json!(least - 1), format!("greater than or equal to {least}"));
    }
    if let Some(most) = number("maximum") {
        bad(json!(most + 1), format!("less than or equal to {most}"));
    }
    if let Some(least) = number("minLength").filter(|least| *least > 0) {
        bad(json!(""), format!("at least {least} chars long"));
    }
    if let Some(most) = number("maxLength") {
        let long = "a".repeat(usize::try_from(most).unwrap_or(0) + 1);
        bad(json!(long), format!("Too long: may not be more than {most}"));
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        // No pattern takes a line break; of several bounds only those that are broken are named.
        bad(json!("\n".repeat(8)), format!("should match '{pattern}'"));
    }
    if number("minItems").is_some_and(|least| least > 0) {
        bad(json!([]), "should have at least".to_owned());
    }
    if let Some(most) = number("maxItems") {
        let many = vec![Value::Null; usize::try_from(most).unwrap_or(0) + 1];
        bad(json!(many), format!("must have at most {most} item"));
    }
    if let Some(most) = number("maxProperties") {
        let many: Map<String, Value> = (0..=most).map(|at| (format!("k{at}"), json!("v"))).collect();
        bad(json!(many), format!("must have at most {most} item"));
    }
    if schema["properties"].is_object() && !is_free {
        let inner = place.with(Step::Field(NONSENSE.to_owned()));
        cases.push(Case {
            field: inner.name(),
            spec: inner.spec(base, json!(1)),
            words: "unknown field".to_owned(),
        });
    }
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        cases.push(Case {
            field: place.with(Step::Field(name.to_owned())).name(),
            spec: place.without(base, name),
            words: "Required value".to_owned(),
        });
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        walk(inner, &place.with(Step::Field(name.clone())), base, cases);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &place.with(Step::Item), base, cases);
    }
    if schema["additionalProperties"].is_object() {
        walk(
            &schema["additionalProperties"],
            &place.with(Step::Key),
            base,
            cases,
        );
    }
}

/// What the API server says of a spec, without storing it; `None` if it takes it.
async fn answer(client: &Client, path: &str, kind: &str, spec: &Value) -> Result<Option<String>> {
    let object = json!({"apiVersion": "poolwright.dev/v1alpha1", "kind": kind, "metadata": {"name": "bad"}, "spec": spec});
    let request = http::Request::post(format!("{path}?dryRun=All&fieldValidation=Strict"))
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())?;
    match client.request_text(request).await {
        Ok(_) => Ok(None),
        Err(Error::Api(status)) => Ok(Some(status.message)),
        Err(error) => Err(error.into()),
    }
}

#[tokio::test]
async fn each_bound_of_a_definition_is_kept_and_named() -> Result<()> {
    let (namespace, kubectl) = super::namespace("bounds").await?;
    let client = Plane::shared().await?.client().await?;
    let worker = json!({"queues": [{"name": "q"}], "worker": {"image": FAKE_IMAGE}, "celery": {"app": "a", "concurrency": 1}});
    let queue = json!({"broker": {"url": "redis://r/0"}});
    let (mut tried, mut unclear) = (0, Vec::new());
    for (kind, plural, base) in [
        ("WorkerPool", "workerpools", worker),
        ("TaskQueue", "taskqueues", queue),
        ("Pool", "pools", json!({"slots": 4})),
    ] {
        let name = format!("{plural}.poolwright.dev");
        let definition: Value =
            serde_json::from_str(&kubectl.run(["get", "crd", &name, "-o", "json"]).await?)?;
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let path = format!(
            "/apis/poolwright.dev/v1alpha1/namespaces/{}/{plural}",
            namespace.name
        );
        assert_eq!(answer(&client, &path, kind, &base).await?, None, "a good {kind}");
        let mut cases = Vec::new();
        walk(schema, &Place::default(), &base, &mut cases);
        assert!(cases.len() > 30, "{kind}: {}", cases.len());
        tried += cases.len();
        let answers = futures::stream::iter(cases).map(|case| {
            let (client, path) = (client.clone(), path.clone());
            async move { Ok::<_, Error>((answer(&client, &path, kind, &case.spec).await, case)) }
        });
        let mut answers = answers.buffer_unordered(AT_ONCE);
        while let Some(answered) = answers.next().await {
            let (said, case) = answered?;
            let said = said?.unwrap_or_else(|| "it is taken".to_owned());
            if !said.contains(&case.field) || !said.contains(&case.words) {
                unclear.push(format!("{kind} {}: {}: {said}", case.field, case.words));
            }
        }
    }
    println!("bounds: tried={tried} unclear={}", unclear.len());
    assert!(unclear.is_empty(), "{}", unclear.join("\n"));
    Ok(())
}
